"""Do matched places lie as they would if one picture were the other, moved, turned, scaled and a little skewed?

For each candidate two matches give a similarity transform (RANSAC). All hypotheses of all candidates are counted
together, then the best one is refined to an affine transform on the matches that agree with it.

References
----------
M. A. Fischler, R. C. Bolles: Random sample consensus, Communications of the ACM 24 (6), 1981.
P. H. S. Torr, A. Zisserman: MLESAC, Computer Vision and Image Understanding 78 (1), 2000 (a match counts the less the
farther it lies off).
O. Chum, J. Matas, J. Kittler: Locally optimized RANSAC, DAGM 2003 (refine the best hypothesis).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.errors import UsageError

_SHORTEST = 0.12  # of the longer side: nearer pairs tell scale and angle badly
_NUMBERS_A_BLOCK = 4_000_000  # float32 numbers of the table of distances: 16 MB
_REFINEMENTS = 2
_RIDGE = 1e-2  # weight of the hypothesis itself when it is refined, against a transform fitted on a few matches


@dataclass(frozen=True)
class GeometryOptions:
    """What counts as the same picture, photographed differently.

    Parameters
    ----------
    n_hypotheses : int
        Pairs of matches tried a candidate.
    tolerance : float
        How far off a match may lie, of the query's longer side.
    scales : (float, float)
        How large the candidate may appear on the query, its longer side over the query's.
    most_turned : float
        Degrees, either way. Places of a network's map do not look the same when they are turned further.
    seed : int
        Of the choice of pairs.

    Raises
    ------
    UsageError
        A number out of range.
    """

    n_hypotheses: int = 128
    tolerance: float = 0.06
    scales: tuple[float, float] = (0.2, 1.6)
    most_turned: float = 45.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_hypotheses < 1 or self.tolerance <= 0 or not 0 < self.scales[0] < self.scales[1]:
            raise UsageError(f"{self} cannot be met: numbers must be positive, and scales a range")


@dataclass(frozen=True)
class Alignments:
    """How well the matches of each candidate agree.

    Attributes
    ----------
    weights : ndarray of float32, shape (c,)
        Sum of the agreeing matches' weights, each times 1 - (distance/tolerance)².
    n_inliers : ndarray of int32, shape (c,)
        Agreeing matches with a weight.
    transforms : ndarray of float32, shape (c, 2, 3)
        Affine, from the candidate's positions to the query's.
    """

    weights: np.ndarray
    n_inliers: np.ndarray
    transforms: np.ndarray


def align(
    positions: np.ndarray, matched: np.ndarray, weights: np.ndarray, options: GeometryOptions | None = None
) -> Alignments:
    """Return the best alignment of each candidate with the query.

    Parameters
    ----------
    positions : ndarray of float32, shape (c, n, 2)
        Of the candidates' places.
    matched : ndarray of float32, shape (c, n, 2)
        Position on the query of each place's match.
    weights : ndarray of float32, shape (c, n)
        How much a match counts, at least 0.
    options : GeometryOptions, optional
        What counts as agreeing.

    Notes
    -----
    The result for a candidate depends on nothing but its own matches: neither on the other candidates nor on their
    order. Time is that of c·n_hypotheses·n distances, about 10 ns each on one core.
    """
    options = options or GeometryOptions()
    n_candidates, n_places = weights.shape
    transforms = np.zeros((n_candidates, 2, 3), np.float32)
    found = np.zeros(n_candidates, np.float32)
    n_inliers = np.zeros(n_candidates, np.int32)
    draws = np.random.default_rng(options.seed).random((2, options.n_hypotheses))
    step = max(1, _NUMBERS_A_BLOCK // (options.n_hypotheses * n_places))
    for start in range(0, n_candidates, step):
        part = slice(start, start + step)
        arguments = positions[part], matched[part], weights[part]
        first = _best_similarity(*arguments, draws, options)
        found[part], n_inliers[part], transforms[part] = _refined(first, *arguments, options.tolerance)
    return Alignments(found, n_inliers, transforms)


def _best_similarity(
    positions: np.ndarray, matched: np.ndarray, weights: np.ndarray, draws: np.ndarray, options: GeometryOptions
) -> np.ndarray:
    """Return the similarity transform that most matches agree with, (c, 2, 3); zeros where none is allowed."""
    # Planes as complex numbers: a similarity is z -> turn·z + shift.
    source, target = _complex(positions), _complex(matched)
    one, other = _draw_matches(weights, draws)
    rows = np.arange(len(weights))[:, None]
    step = source[rows, other] - source[rows, one]
    apart = np.abs(step) >= _SHORTEST
    turn = (target[rows, other] - target[rows, one]) / np.where(apart, step, 1)
    shift = target[rows, one] - turn * source[rows, one]
    size, angle = np.abs(turn), np.abs(np.angle(turn))
    in_range = (size >= options.scales[0]) & (size <= options.scales[1]) & (angle <= np.radians(options.most_turned))
    allowed = np.logical_and(apart, in_range)
    agreement = _agreements(turn, shift, source, target, weights, options.tolerance)
    agreement[~allowed] = -1
    best = agreement.argmax(axis=1)[:, None]
    turn, shift = turn[rows, best][:, 0], shift[rows, best][:, 0]
    transforms = np.empty((len(weights), 2, 3))
    transforms[:, 0] = np.stack([turn.real, -turn.imag, shift.real], axis=1)
    transforms[:, 1] = np.stack([turn.imag, turn.real, shift.imag], axis=1)
    transforms[agreement[rows, best][:, 0] < 0] = 0
    return transforms


def _complex(positions: np.ndarray) -> np.ndarray:
    return positions[..., 0].astype(np.float64) + 1j * positions[..., 1]


def _draw_matches(weights: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two matches a hypothesis, (c, n_hypotheses) each, drawn with probability as their weights."""
    steps = np.cumsum(weights, axis=1, dtype=np.float64)
    total = steps[:, -1:]
    steps = np.where(total > 0, steps / np.where(total > 0, total, 1), np.linspace(0, 1, weights.shape[1]))
    drawn = np.stack([np.searchsorted(row, draws, side="right") for row in steps])
    drawn = np.minimum(drawn, weights.shape[1] - 1)
    return drawn[:, 0], drawn[:, 1]


def _agreements(
    turn: np.ndarray, shift: np.ndarray, source: np.ndarray, target: np.ndarray, weights: np.ndarray, tolerance: float
) -> np.ndarray:
    """Return the agreement of each hypothesis, float64 of shape (c, n_hypotheses).

    The squared distance ``|turn·source + shift - target|²`` is written out as a product of eight numbers of the
    hypothesis and eight of the match, so that a matrix product computes them all.
    """
    one = np.ones_like(turn.real)
    across = turn * shift.conj()
    of_hypothesis = np.stack(
        [np.abs(turn) ** 2, np.abs(shift) ** 2, one, 2 * across.real, -2 * across.imag, -2 * turn.real, 2 * turn.imag,
         -2 * shift.real, -2 * shift.imag], axis=2
    )  # fmt: skip
    product = source * target.conj()
    of_match = np.stack(
        [np.abs(source) ** 2, np.ones_like(source.real), np.abs(target) ** 2, source.real, source.imag, product.real,
         product.imag, target.real, target.imag], axis=1
    )  # fmt: skip
    table = np.matmul(of_hypothesis.astype(np.float32), of_match.astype(np.float32))
    table /= -(tolerance**2)
    table += 1
    np.maximum(table, 0, out=table)
    np.minimum(table, 1, out=table)  # rounding may leave a tiny negative distance
    return np.matmul(table, weights.astype(np.float32)[:, :, None])[:, :, 0]


def _refined(
    transforms: np.ndarray, positions: np.ndarray, matched: np.ndarray, weights: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return agreement, inliers and transform of the best of a similarity and the affine transforms fitted on it."""
    source = np.concatenate([positions, np.ones((*weights.shape, 1))], axis=2)
    closeness = _closeness(transforms, source, matched, tolerance)
    possible = np.asarray(transforms.any(axis=(1, 2)))
    best, best_closeness = transforms.copy(), closeness * possible[:, None]
    for _ in range(_REFINEMENTS):
        counted = (weights * closeness)[:, :, None] * source
        gram = np.matmul(source.transpose(0, 2, 1), counted) + _RIDGE * np.eye(3)
        moments = np.matmul(counted.transpose(0, 2, 1), matched) + _RIDGE * transforms.transpose(0, 2, 1)
        transforms = np.linalg.solve(gram, moments).transpose(0, 2, 1)
        closeness = _closeness(transforms, source, matched, tolerance)
        better = possible & ((closeness * weights).sum(axis=1) > (best_closeness * weights).sum(axis=1))
        best[better], best_closeness[better] = transforms[better], closeness[better]
    n_inliers = ((best_closeness > 0) & (weights > 0)).sum(axis=1)
    return (best_closeness * weights).sum(axis=1), n_inliers, best


def _closeness(transforms: np.ndarray, source: np.ndarray, matched: np.ndarray, tolerance: float) -> np.ndarray:
    """Return 1 for a match that lies where the transform says, falling to 0 at the tolerance; (c, n)."""
    off = np.matmul(source, transforms.transpose(0, 2, 1)) - matched
    return np.maximum(1 - np.square(off).sum(axis=2) / tolerance**2, 0)
