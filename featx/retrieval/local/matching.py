"""The second stage for "the same object, photographed differently": places of maps, matched and checked.

For each place of a candidate its best match on the query is found (late interaction), then it is asked whether the
matches lie as they would if the candidate were seen on the query (`geometry`). For the best candidates matches
are looked for again where the alignment says that they should be (`guiding`).

References
----------
O. Khattab, M. Zaharia: ColBERT, SIGIR 2020 (late interaction: for each part its best match, summed).
H. Noh et al.: Large-scale image retrieval with attentive deep local features, ICCV 2017 (re-ranking by inliers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from featx.errors import UsageError
from featx.retrieval.local.geometry import GeometryOptions, align
from featx.retrieval.local.guiding import GuidedMatching
from featx.retrieval.local.places import LocalPlaces

_NUMBERS_A_BLOCK = 8_000_000  # float32 similarities at a time: 32 MB


@dataclass(frozen=True)
class MatchOptions:
    """How matches become a score.

    Parameters
    ----------
    least : float
        Of a match's similarity above what the query's place has with the average place; less counts nothing in the
        geometric check.
    late_share : float
        How much late interaction alone counts beside the matches that agree in geometry.
    n_guided : int
        Best candidates whose matches are looked for again; 0 for none.
    guided_share : float
        How much counts what is found then.
    geometry : GeometryOptions
        What agrees.
    """

    least: float = 0.05
    late_share: float = 0.2
    n_guided: int = 15
    guided_share: float = 2.0
    geometry: GeometryOptions = field(default_factory=GeometryOptions)


@dataclass(frozen=True)
class LocalScores:
    """What the second stage says of each candidate.

    Attributes
    ----------
    scores : ndarray of float32, shape (c,)
        To rank by, higher is better: `aligned` + late_share·`late` + guided_share·`guided`.
    late : ndarray of float32, shape (c,)
        Mean over the candidate's places of the similarity to the best match on the query.
    aligned : ndarray of float32, shape (c,)
        The same of the matches that agree in geometry; the others count 0.
    guided : ndarray of float32, shape (c,)
        The same of what lies where the alignment says, above chance; 0 for all but the best `n_guided`.
    n_inliers : ndarray of int32, shape (c,)
        Places of the candidate whose matches agree.
    turns : ndarray of int64, shape (c,)
        Which of the given turns of the query fits best.
    transforms : ndarray of float32, shape (c, 2, 3)
        Affine, from positions on the candidate to positions on that turn of the query.
    """

    scores: np.ndarray
    late: np.ndarray
    aligned: np.ndarray
    guided: np.ndarray
    n_inliers: np.ndarray
    turns: np.ndarray
    transforms: np.ndarray


def score_candidates(
    query: LocalPlaces | Sequence[LocalPlaces],
    vectors: np.ndarray,
    positions: np.ndarray,
    options: MatchOptions | None = None,
) -> LocalScores:
    """Return how well each candidate is found on the query.

    Parameters
    ----------
    query : LocalPlaces or sequence of LocalPlaces
        Places of the picture asked for, of all its views together; several when it is given in several turns (the
        picture turned by 90° and so on), of which the best counts for each candidate.
    vectors : ndarray of float32, shape (c, n, d)
        The candidates' places, as `LocalEncoder.describe` or `decode` return them.
    positions : ndarray of float32, shape (c, n, 2) or (n, 2)
        Where they lie, see `place_positions`; (n, 2) when all candidates have the same.
    options : MatchOptions, optional
        How matches become a score.

    Raises
    ------
    UsageError
        Shapes do not fit.

    Notes
    -----
    From each similarity that of the query's place with the average place of all candidates is taken off: what lies
    around the object is like many pictures. So scores of one call can be compared, those of calls with other
    candidates only roughly.

    Time is that of m·c·n·d multiplications for m places of the query, that of `align`, and some 5 ms a guided
    candidate: 0.1 s a turn of 1960 places against 100 candidates of 196, 64 numbers each, on one core. Memory is
    32 MB and the vectors.
    """
    options = options or MatchOptions()
    turns = [query] if isinstance(query, LocalPlaces) else list(query)
    vectors, positions = _checked(turns, vectors, positions)
    average = vectors.mean(axis=(0, 1), dtype=np.float64) if len(vectors) else np.zeros(vectors.shape[2])
    found = [_score_turn(places, vectors, positions, average, options) for places in turns]
    merged = _best_of(found) if len(vectors) else found[0]
    guided = _guided(merged, turns, vectors, positions, average, options)
    return replace(merged, guided=guided, scores=merged.scores + np.float32(options.guided_share) * guided)


def _best_of(found: Sequence[LocalScores]) -> LocalScores:
    """Return, of each candidate, what was found on the turn that fits it best."""
    best = np.argmax([scores.scores for scores in found], axis=0)

    def taken(name: str) -> np.ndarray:
        return np.stack([getattr(scores, name) for scores in found])[best, np.arange(len(best))]

    names = ("scores", "late", "aligned", "guided", "n_inliers", "transforms")
    return LocalScores(**{name: taken(name) for name in names}, turns=best)


def _checked(turns: Sequence[LocalPlaces], vectors: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not turns:
        raise UsageError("no turn of the query was given; at least one is needed, the picture as it is")
    vectors, positions = np.asarray(vectors, np.float32), np.asarray(positions, np.float32)
    widths = {places.vectors.shape[1] for places in turns}
    if vectors.ndim != 3 or vectors.shape[1] < 1 or widths != {vectors.shape[2]}:
        raise UsageError(
            f"candidates of shape {vectors.shape} and queries of width {', '.join(map(str, sorted(widths)))};"
            " needed are (c, n, d) and d. Encode both with the same encoder."
        )
    if positions.shape not in ((vectors.shape[1], 2), (*vectors.shape[:2], 2)):
        raise UsageError(
            f"positions of shape {positions.shape} for candidates of shape {vectors.shape}; needed is (c, n, 2) or"
            " (n, 2)"
        )
    return vectors, np.broadcast_to(positions, (*vectors.shape[:2], 2))


def _score_turn(
    places: LocalPlaces, vectors: np.ndarray, positions: np.ndarray, average: np.ndarray, options: MatchOptions
) -> LocalScores:
    similarity, match = _best_matches(places.vectors, vectors, average)
    late = similarity.mean(axis=1) if similarity.size else np.zeros(len(vectors), np.float32)
    weights = np.maximum(similarity - np.float32(options.least), 0)
    found = align(positions, places.positions[match], weights, options.geometry)
    aligned = found.weights / np.float32(vectors.shape[1])
    scores = aligned + np.float32(options.late_share) * late
    nothing = np.zeros(len(vectors), np.float32)
    turn = np.zeros(len(vectors), np.int64)
    return LocalScores(scores, late, aligned, nothing, found.n_inliers, turn, found.transforms)


def _guided(
    scores: LocalScores,
    turns: Sequence[LocalPlaces],
    vectors: np.ndarray,
    positions: np.ndarray,
    average: np.ndarray,
    options: MatchOptions,
) -> np.ndarray:
    """Return what guided matching finds of the best candidates."""
    guided = np.zeros(len(vectors), np.float32)
    matchings: dict[int, GuidedMatching] = {}
    for candidate in np.argsort(-scores.scores, kind="stable")[: options.n_guided]:
        turn, transform = int(scores.turns[candidate]), scores.transforms[candidate]
        if not transform.any():
            continue
        if turn not in matchings:
            matchings[turn] = GuidedMatching(turns[turn], average, options.geometry.tolerance)
        guided[candidate] = matchings[turn].similarity(vectors[candidate], positions[candidate], transform)
    return guided


def _best_matches(query: np.ndarray, vectors: np.ndarray, average: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, of each candidate's place, the similarity to its best match above the average one, and the match."""
    n_candidates, n_places, width = vectors.shape
    expected = (query @ average).astype(np.float32)
    similarity = np.empty((n_candidates, n_places), np.float32)
    match = np.empty((n_candidates, n_places), np.int64)
    step = max(1, _NUMBERS_A_BLOCK // (len(query) * n_places))
    for start in range(0, n_candidates, step):
        block = vectors[start : start + step]
        # table[place of a candidate, place of the query]: the best match lies along the contiguous axis
        table = block.reshape(-1, width) @ query.T
        table -= expected
        best = table.argmax(axis=1)
        match[start : start + step] = best.reshape(block.shape[:2])
        similarity[start : start + step] = np.take_along_axis(table, best[:, None], 1).reshape(block.shape[:2])
    return similarity, match
