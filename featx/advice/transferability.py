"""How well features tell classes apart, in one number and without training: LogME and H-score.

Both look at all rows at once, need one decomposition, and have no folds. They are shown beside the cross-validated
accuracy, which decides: what they rank well is networks, and layers of very different width less so.

References
----------
K. You, Y. Liu, J. Wang, M. Long: LogME: Practical assessment of pre-trained models for transfer learning, ICML 2021.
Y. Bao et al.: An information-theoretic approach to transferability in task transfer learning, ICIP 2019 (H-score).
S. Ibrahim, N. Ponomareva, R. Mazumder: Newer is not always better: rethinking transferability metrics, their
peculiarities, stability and performance, ECML PKDD 2022 (H-score with a shrunk covariance).
O. Ledoit, M. Wolf: A well-conditioned estimator for large-dimensional covariance matrices, JMVA 88 (2004).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.errors import HeadError

_RANK = 1e-12  # squared singular values below this part of the largest are rounding
_DECADES = 10  # that the ratio of noise to weights may lie from the mean squared singular value, up or down
_N_COARSE, _N_FINE, _N_ROUNDS = 81, 9, 5  # steps of the search for it; the last is a thousandth of a decade
_LEAST_NOISE = 1e-12  # part of a class's indicator that is taken for noise where the features give it exactly


def log_me(features: Any, labels: Any) -> float:
    """Return the logarithm of the maximum evidence, a row and class, of a Bayesian linear model of the classes.

    Higher is better; it may be below 0. Rotating the columns, or multiplying all by one number, changes nothing.

    Parameters
    ----------
    features : array-like of shape (n, d)
        F, not centred.
    labels : array-like of int, shape (n,)
        Class of each row; each is modelled by its indicator y, one against all others.

    Raises
    ------
    HeadError
        For fewer than two classes, values that are not finite, or shapes that do not fit.

    Notes
    -----
    The weights have the prior N(0, 1/α), the noise is N(0, 1/β). The paper finds α and β by a fixed point (Algorithm
    3). Here β, which has a closed form for each ratio λ = α/β, is put in, and λ is looked for on a grid that is made
    finer: the same maximum, also where the fixed point runs off to infinity because the features say nothing. One
    decomposition serves all classes; cost n·d·min(n, d).
    """
    F, indicators = _checked(features, labels)
    # squares[k], projected[k, c]: squared singular values of F, and squared coordinates of each indicator
    squares, left = _decompose(F)
    projected = (left.T @ indicators) ** 2
    lengths = (indicators**2).sum(axis=0)
    outside = np.maximum(lengths - projected.sum(axis=0), 0.0)
    evidence = _best_evidence(squares, projected, outside, lengths, len(F))
    return float(evidence.mean() / len(F))


def h_score(features: Any, labels: Any, *, shrinkage: float | None = None) -> float:
    """Return how much of the features' variance lies between classes, measured in units of the whole: tr(Σ⁻¹ Σ_class).

    From 0 to the number of classes less one; higher is better. Rotating the columns changes nothing.

    Parameters
    ----------
    features : array-like of shape (n, d)
        One row an image.
    labels : array-like of int, shape (n,)
        Class of each row.
    shrinkage : float, optional
        From 0 to below 1: how far the covariance Σ is drawn to a multiple of the identity, as in Ibrahim et al. By
        default as far as Ledoit and Wolf say. 0 is Bao's own score, which is meaningless where n is not far above d.

    Raises
    ------
    HeadError
        As `log_me`.
    """
    F, indicators = _checked(features, labels)
    F -= F.mean(axis=0)
    n_rows, width = F.shape
    squares, left = _decompose(F)
    if not len(squares):
        return 0.0  # constant features
    variances = squares / n_rows
    share = _ledoit_wolf(F, variances) if shrinkage is None else shrinkage
    # means[c, k]: class means along the axes of Σ, on which nothing else has to be computed
    means = (indicators.T @ left) * np.sqrt(squares) / indicators.sum(axis=0)[:, None]
    between = (indicators.sum(axis=0)[:, None] * means**2).sum(axis=0) / n_rows
    shrunk = (1 - share) * variances + share * variances.sum() / width
    return float((1 - share) * (between / shrunk).sum())


def _checked(features: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a copy of the features as float64, and the indicator of each class, (n, n_classes)."""
    F, y = np.array(features, np.float64), np.asarray(labels)
    if F.ndim != 2 or y.shape != F.shape[:1] or 0 in F.shape:
        raise HeadError(f"features of shape {F.shape} and classes of shape {y.shape}; needed are (n, d) and (n,).")
    if not np.isfinite(F).all():
        raise HeadError("features hold NaN or infinity. Leave these rows out or extract them again.")
    classes = np.unique(y)
    if len(classes) < 2:
        raise HeadError(f"all {len(y)} rows are of one class; at least two are needed. Add images of another.")
    return F, (y[:, None] == classes).astype(np.float64)


def _decompose(F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return squared singular values that are not 0, (k,), and the left singular vectors, (n, k)."""
    if F.shape[0] <= F.shape[1]:
        squares, left = np.linalg.eigh(F @ F.T)
        kept = squares > _RANK * max(squares[-1], 0.0)
        return squares[kept], left[:, kept]
    squares, right = np.linalg.eigh(F.T @ F)
    kept = squares > _RANK * max(squares[-1], 0.0)
    return squares[kept], F @ (right[:, kept] / np.sqrt(squares[kept]))


def _best_evidence(
    squares: np.ndarray, projected: np.ndarray, outside: np.ndarray, lengths: np.ndarray, n_rows: int
) -> np.ndarray:
    """Return the log evidence of each class, maximised over λ and, in closed form, over β."""
    if not len(squares):  # features of zeros: no weights, the noise is everything
        return -0.5 * n_rows * (np.log(2 * np.pi * lengths / n_rows) + 1)

    def evidence(ratios: np.ndarray) -> np.ndarray:  # one λ a class, (n_classes,)
        scaled = squares / ratios[:, None]
        left_over = outside + (projected.T / (1 + scaled)).sum(axis=1)
        noise = np.maximum(left_over, _LEAST_NOISE * lengths) / n_rows  # 1/β
        return -0.5 * (n_rows * (np.log(2 * np.pi * noise) + 1) + np.log1p(scaled).sum(axis=1))

    places = np.full(len(lengths), np.log10(squares.mean()))
    reach, n_steps = float(_DECADES), _N_COARSE
    for _ in range(_N_ROUNDS):
        steps = np.linspace(-reach, reach, n_steps)
        found = np.stack([evidence(10.0 ** (places + step)) for step in steps])  # found[step, class]
        places += steps[found.argmax(axis=0)]
        reach, n_steps = steps[1] - steps[0], _N_FINE
    return found.max(axis=0)


def _ledoit_wolf(F: np.ndarray, variances: np.ndarray) -> float:
    """Return the shrinkage of Ledoit and Wolf for centred rows, given the eigenvalues of their covariance."""
    n_rows, width = F.shape
    total, squared = variances.sum(), (variances**2).sum()
    distance = squared - total**2 / width  # of the covariance from a multiple of the identity
    fourth = (np.einsum("ij,ij->i", F, F) ** 2).sum() / n_rows
    error = (fourth - squared) / n_rows
    return float(min(error / distance, 1.0)) if distance > 0 else 1.0
