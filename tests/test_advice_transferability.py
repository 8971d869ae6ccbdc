"""LogME and H-score against slow definitions of their own, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf

from featx.advice.transferability import h_score, log_me
from featx.errors import HeadError


def made(n_rows=60, width=8, n_classes=3, *, distance=1.0, seed=0):
    """Return features that tell classes apart by a distance, not centred, and the classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(n_rows) % n_classes
    centres = random.normal(size=(n_classes, width)) * distance
    return random.normal(size=(n_rows, width)) + centres[labels] + 0.5, labels


def log_evidence(F, y, alpha, beta):
    """Return log p(y | F, α, β) as the density of a normal vector, with nothing simplified."""
    covariance = np.eye(len(y)) / beta + F @ F.T / alpha
    _, log_determinant = np.linalg.slogdet(covariance)
    return -0.5 * (len(y) * np.log(2 * np.pi) + log_determinant + y @ np.linalg.solve(covariance, y))


def slow_log_me(F, labels):
    """Return LogME by a numerical search for α and β of each class, from several starts."""
    found = []
    for label in np.unique(labels):
        y = (labels == label).astype(float)
        searches = [
            minimize(lambda p, y=y: -log_evidence(F, y, *np.exp(p)), start, method="Nelder-Mead", tol=1e-10)
            for start in ((0.0, 0.0), (3.0, 3.0), (6.0, 1.0))
        ]
        found.append(-min(search.fun for search in searches) / len(y))
    return np.mean(found)


def fixed_point_log_me(F, labels, n_steps=2000):
    """Return LogME by Algorithm 3 of the paper, with plain matrices."""
    n_rows, width = F.shape
    found = []
    for label in np.unique(labels):
        y = (labels == label).astype(float)
        alpha = beta = 1.0
        for _ in range(n_steps):
            A = alpha * np.eye(width) + beta * F.T @ F
            m = beta * np.linalg.solve(A, F.T @ y)
            gamma = (1 - alpha * np.diag(np.linalg.inv(A))).sum()
            alpha, beta = gamma / (m @ m), (n_rows - gamma) / ((F @ m - y) ** 2).sum()
        found.append(log_evidence(F, y, alpha, beta) / n_rows)
    return np.mean(found)


@pytest.mark.parametrize(("n_rows", "width"), [(60, 8), (24, 40)])
def test_log_me_is_the_maximum_of_the_evidence(n_rows, width):
    """The closed form and the grid find what a numerical search of the normal density finds, wide or narrow."""
    F, labels = made(n_rows, width)
    assert log_me(F, labels) == pytest.approx(slow_log_me(F, labels), abs=1e-5)


def test_log_me_is_that_of_the_paper():
    """The fixed point of the paper, iterated until it stands, gives the same number."""
    F, labels = made(80, 6, distance=2.0)
    assert log_me(F, labels) == pytest.approx(fixed_point_log_me(F, labels), abs=1e-5)


def test_h_score_is_its_definition():
    """Without shrinkage it is the trace of pinv(cov(f)) cov(E[f|y]), computed with whole matrices."""
    F, labels = made(90, 7, 4)
    g = np.stack([F[labels == label].mean(axis=0) for label in labels])
    expected = np.trace(np.linalg.pinv(np.cov(F, rowvar=False)) @ np.cov(g, rowvar=False))
    assert h_score(F, labels, shrinkage=0.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_rows", "width"), [(90, 7), (30, 50)])
def test_shrunk_h_score_is_its_definition(n_rows, width):
    """With scikit-learn's Ledoit-Wolf covariance and the factor of Ibrahim et al., wide or narrow."""
    F, labels = made(n_rows, width)
    covariance = LedoitWolf().fit(F)
    g = np.stack([F[labels == label].mean(axis=0) for label in labels])
    between = (1 - covariance.shrinkage_) * np.cov(g, rowvar=False, bias=True)
    expected = np.trace(np.linalg.inv(covariance.covariance_) @ between)
    assert h_score(F, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("score", [log_me, h_score])
@pytest.mark.parametrize(("n_rows", "width"), [(60, 8), (24, 40)])
def test_rotations_scale_order_and_names_of_classes_change_nothing(score, n_rows, width):
    """Turning the columns, multiplying all by a number, shuffling rows and renaming classes leave the number."""
    F, labels = made(n_rows, width)
    random = np.random.default_rng(5)
    rotation, _ = np.linalg.qr(random.normal(size=(width, width)))
    order, names = random.permutation(n_rows), np.array([7, 2, 40])
    changed = (7 * F @ rotation)[order]
    assert score(changed, names[labels][order]) == pytest.approx(score(F, labels), abs=1e-6)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_better_features_have_a_higher_number(score):
    """Classes that lie further apart score higher, and shuffled classes lowest."""
    numbers = [score(*made(120, 8, distance=distance)) for distance in (0.2, 1.0, 4.0)]
    F, labels = made(120, 8, distance=4.0)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert score(F, shuffled) < numbers[1] < numbers[2]
    assert numbers[0] < numbers[1]


def test_h_score_is_at_most_the_classes_less_one():
    """Features that are the classes themselves have the highest score that there is."""
    labels = np.arange(40) % 4
    assert h_score(np.eye(4)[labels], labels, shrinkage=0.0) == pytest.approx(3.0)


@pytest.mark.parametrize("score", [log_me, h_score])
@pytest.mark.parametrize("F", [np.zeros((12, 3)), np.ones((12, 3)), np.eye(3)[np.arange(12) % 3]])
def test_degenerate_features_have_a_finite_number(score, F):
    """Constant features, and features that give the classes exactly, end in a number."""
    assert np.isfinite(score(F, np.arange(12) % 3))


@pytest.mark.parametrize("score", [log_me, h_score])
@pytest.mark.parametrize(
    ("F", "labels", "said"),
    [
        (np.ones((4, 2)), [0, 0, 0, 0], "one class"),
        (np.ones((4, 2)), [0, 1], "needed are"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], "NaN"),
    ],
)
def test_what_cannot_be_scored_is_an_error(score, F, labels, said):
    """One class, shapes that do not fit and values that are not finite are named."""
    with pytest.raises(HeadError, match=said):
        score(F, labels)
