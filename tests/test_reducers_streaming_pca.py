"""StreamingPCA: exact, in one pass, on rows that need not fit into memory."""

import copy
import pickle

import h5py
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.errors import UsageError
from featx.heads import dump_head, load_head
from featx.reducers import StreamingPCA, moments, row_blocks


def rows_with(spectrum, n_rows, mean=0.0, seed=0):
    """Random rows whose columns vary as the spectrum says along hidden axes."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(len(spectrum), len(spectrum))))
    return (rng.normal(size=(n_rows, len(spectrum))) * spectrum) @ axes + mean


DECAYING = np.arange(1, 31) ** -1.0
CASES = {
    "more rows": rows_with(DECAYING, 200),
    "as many rows": rows_with(DECAYING, 30),
    "one row more": rows_with(DECAYING, 31),
    "fewer rows": rows_with(DECAYING, 12),
    "two rows": rows_with(DECAYING, 2),
    "large mean": rows_with(DECAYING, 100, mean=1e5),
    "large mean, fewer rows": rows_with(DECAYING, 20, mean=1e5),
    "ill-conditioned": rows_with(np.geomspace(1, 1e-4, 30), 300),
    "ill-conditioned, fewer rows": rows_with(np.geomspace(1, 1e-4, 30), 25),
    "large numbers": 1e20 * rows_with(DECAYING, 90),
}


class SlicedRows:
    """Rows that come by slices only; notes how many were asked for at a time."""

    def __init__(self, rows):
        self._rows, self.shape, self.lengths = rows, rows.shape, []

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.lengths.append(len(self._rows[rows]))
        return self._rows[rows]

    def __array__(self, *_):
        raise AssertionError("all rows were asked for at once")


def assert_same_axes(ours, theirs, n_components=None):
    """The same variances, axes and mean, up to sign, within 1e-5 of their scale."""
    several = slice(n_components)
    scale = theirs.explained_variance_[0]
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, atol=1e-5 * scale)
    np.testing.assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, atol=1e-5)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_, atol=1e-5 * theirs.singular_values_[0])
    np.testing.assert_allclose(ours.mean_, theirs.mean_, rtol=1e-10, atol=1e-10)
    cosines = np.abs((ours.components_ * theirs.components_).sum(axis=1))[several]
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    np.testing.assert_allclose(ours.components_ @ ours.components_.T, np.eye(ours.n_components_), atol=1e-9)


@parametrize_with_checks([StreamingPCA(), StreamingPCA(1, whiten=True)])
def test_it_follows_scikit_learn(estimator, check):
    """All of scikit-learn's checks pass."""
    check(estimator)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_scikit_learn(name, whiten):
    """Axes, variances, coordinates and the way back are those of a singular value decomposition, up to sign."""
    X = CASES[name]
    n_components = min(len(X) - 1, X.shape[1])  # one more would be an axis of no variance, of which there are many
    ours = StreamingPCA(n_components, whiten=whiten).fit(X)
    theirs = PCA(n_components, whiten=whiten, svd_solver="full").fit(X)
    assert_same_axes(ours, theirs)
    expected = theirs.transform(X)
    np.testing.assert_allclose(np.abs(ours.transform(X)), np.abs(expected), atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(X)), theirs.inverse_transform(expected), rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_all_components_rotate_the_rows(name):
    """Without n_components there are min(n, d) orthonormal axes, also along nothing, and nothing is lost."""
    X = CASES[name]
    pca = StreamingPCA().fit(X)
    assert pca.components_.shape == (min(X.shape), X.shape[1])
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(min(X.shape)), atol=1e-9)
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(X)), X, atol=1e-9 * np.abs(X).max())
    np.testing.assert_allclose(pca.explained_variance_ratio_.sum(), 1)


@pytest.mark.parametrize("n_components", [1, 3, 29, 30])
def test_leading_axes_do_not_depend_on_how_many_are_asked_for(n_components):
    """A few eigenvectors, computed alone, are the first of all."""
    X = CASES["more rows"]
    few, every = StreamingPCA(n_components).fit(X), StreamingPCA().fit(X)
    assert few.n_components_ == n_components
    np.testing.assert_allclose(few.components_, every.components_[:n_components], atol=1e-9)
    np.testing.assert_allclose(few.explained_variance_ratio_, every.explained_variance_ratio_[:n_components])


@pytest.mark.parametrize("name", ["more rows", "fewer rows"])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9, 0.999, 1 - 1e-15])
def test_fraction_of_variance(name, fraction):
    """A fraction keeps as many components as scikit-learn does."""
    ours, theirs = StreamingPCA(fraction).fit(CASES[name]), PCA(fraction, svd_solver="full").fit(CASES[name])
    assert ours.n_components_ == theirs.n_components_
    assert_same_axes(ours, theirs, len(CASES["fewer rows"]) - 1)


def test_whitened_components_have_variance_one():
    """With whiten, coordinates are uncorrelated and of variance 1; without, of the variances stated."""
    X = CASES["more rows"]
    np.testing.assert_allclose(np.cov(StreamingPCA(5, whiten=True).fit_transform(X).T), np.eye(5), atol=1e-9)
    pca = StreamingPCA(5).fit(X)
    np.testing.assert_allclose(np.cov(pca.transform(X).T), np.diag(pca.explained_variance_), atol=1e-9)


def test_no_variance_is_zero_not_noise():
    """Along axes on which the rows do not vary, whitened coordinates are 0; so for constant rows altogether."""
    X = CASES["fewer rows"]
    pca = StreamingPCA(whiten=True).fit(X)
    assert pca.explained_variance_[-1] == 0
    assert (pca.transform(X)[:, -1] == 0).all()
    flat = StreamingPCA(whiten=True).fit(np.full((9, 4), 0.1))
    assert (flat.transform(np.full((3, 4), 0.1)) == 0).all()
    assert flat.explained_variance_ratio_.tolist() == [0] * 4


def test_signs_are_fixed():
    """The entry of largest absolute value of each axis is positive, whatever the order of the rows."""
    X = CASES["more rows"]
    axes = StreamingPCA().fit(X).components_
    assert (axes[np.arange(30), np.abs(axes).argmax(axis=1)] > 0).all()
    np.testing.assert_allclose(StreamingPCA().fit(X[::-1]).components_, axes, atol=1e-9)


def test_float32_stays_float32():
    """Coordinates and the way back are as precise as the rows were; a large mean costs no digits."""
    X = CASES["more rows"]
    exact, single = StreamingPCA(5).fit(X), StreamingPCA(5).fit(X.astype(np.float32))
    assert single.components_.dtype == np.float64
    coordinates = single.transform(X.astype(np.float32))
    assert coordinates.dtype == single.inverse_transform(coordinates).dtype == np.float32
    assert exact.transform(X).dtype == exact.inverse_transform(exact.transform(X)).dtype == np.float64
    np.testing.assert_allclose(coordinates, exact.transform(X), atol=1e-5)
    far = np.round(64 * X).astype(np.float32) + np.float32(100_000)  # whole numbers, exact in float32
    pca = StreamingPCA(5).fit(far)
    expected = pca.transform(far.astype(np.float64))
    np.testing.assert_allclose(pca.transform(far), expected, atol=1e-6 * np.abs(expected).max())


# --- in parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 29, 30, 31, 64, 200])
@pytest.mark.parametrize("name", ["more rows", "as many rows", "fewer rows", "large mean"])
def test_any_blocks_give_the_same(name, size):
    """partial_fit in blocks of any size is fit, on both roads and across the change from one to the other."""
    X = CASES[name]
    whole = StreamingPCA(8).fit(X)
    parts = StreamingPCA(8)
    for start in range(0, len(X), size):
        parts.partial_fit(X[start : start + size])
    assert parts.n_samples_seen_ == len(X)
    np.testing.assert_allclose(parts.mean_, whole.mean_, rtol=1e-10)
    np.testing.assert_allclose(parts.explained_variance_, whole.explained_variance_, rtol=1e-7)
    np.testing.assert_allclose(parts.components_, whole.components_, atol=1e-7)


def test_axes_follow_every_partial_fit():
    """Axes asked for in between do not stop more rows from counting, also after a pickle."""
    X = CASES["more rows"]
    pca = StreamingPCA(3).partial_fit(X[:20])
    assert_same_axes(pca, PCA(3, svd_solver="full").fit(X[:20]))
    pca.partial_fit(X[20:100])
    assert_same_axes(pca, PCA(3, svd_solver="full").fit(X[:100]))
    pca = pickle.loads(pickle.dumps(pca)).partial_fit(X[100:])
    assert_same_axes(pca, PCA(3, svd_solver="full").fit(X))


def test_partial_fit_keeps_its_own_copy():
    """A buffer that the caller fills again does not change what was taken in."""
    X = CASES["fewer rows"]
    pca = StreamingPCA(3)
    buffer = np.empty((4, 30))
    for start in range(0, 12, 4):
        buffer[...] = X[start : start + 4]
        pca.partial_fit(buffer)
    assert_same_axes(pca, PCA(3, svd_solver="full").fit(X))


def test_fit_and_partial_fit_start_anew_after_one_another():
    """fit forgets the rows of partial_fit, and keeps none that partial_fit could add to."""
    X, other = CASES["more rows"], CASES["as many rows"]
    pca = StreamingPCA(3).partial_fit(other).fit(X)
    assert_same_axes(pca, PCA(3, svd_solver="full").fit(X))
    assert_same_axes(pca.partial_fit(other), PCA(3, svd_solver="full").fit(other))


def test_fitted_state_is_small_and_can_be_copied():
    """After fit nothing but what is learned is kept; copies transform alike."""
    X = CASES["more rows"]
    pca = StreamingPCA(2).fit(X)
    assert sum(value.nbytes for value in vars(pca).values() if isinstance(value, np.ndarray)) < 1000
    for twin in (copy.deepcopy(pca), pickle.loads(pickle.dumps(pca))):
        np.testing.assert_array_equal(twin.transform(X), pca.transform(X))
    assert not hasattr(clone(pca), "components_")


# --- from outside of memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["more rows", "fewer rows"])
def test_rows_on_disk_are_those_in_memory(name, tmp_path, monkeypatch):
    """An h5py dataset and a memory map give what the array gives, fitted and transformed block by block."""
    X = CASES[name].astype(np.float32)
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 8 * 30 * 7)
    np.save(tmp_path / "rows.npy", X)
    expected = StreamingPCA(5).fit(X)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        for source in (file.create_dataset("rows", data=X), np.load(tmp_path / "rows.npy", mmap_mode="r")):
            pca = StreamingPCA(5).fit(source)
            np.testing.assert_allclose(pca.components_, expected.components_, atol=1e-9)
            np.testing.assert_allclose(pca.transform(source), expected.transform(X), atol=1e-6)
            assert pca.transform(source).dtype == np.float32


@pytest.mark.parametrize("method", ["fit", "partial_fit", "transform"])
def test_never_more_than_a_block_is_read(method, monkeypatch):
    """What gives rows by slices is asked for a block at a time, each row once, but for a first look at two."""
    X = CASES["more rows"]
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 8 * 30 * 16)
    source = SlicedRows(X)
    getattr(StreamingPCA(5).fit(X), method)(source)
    assert max(source.lengths) == 16
    assert sum(source.lengths[1:]) == 200
    assert source.lengths[0] <= 2


def test_blocks_are_bounded_in_bytes():
    """A block is at most 32 MB as float64, and at least one row."""
    assert row_blocks.rows_per_block(1280) * 1280 * 8 <= 32e6 < (row_blocks.rows_per_block(1280) + 1) * 1280 * 8
    assert row_blocks.rows_per_block(10**9) == 1


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(value, monkeypatch):
    """The usual error, also from a late block of rows on disk."""
    X = CASES["more rows"].copy()
    X[150, 3] = value
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 8 * 30 * 16)
    for source in (X, SlicedRows(X)):
        for method in (StreamingPCA(2).fit, StreamingPCA(2).partial_fit, StreamingPCA(2).fit(X[:99]).transform):
            with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
                method(source)


def test_too_few_rows_are_refused():
    """One row has no variance; partial_fit waits for the second."""
    with pytest.raises(ValueError, match="minimum of 2 is required by StreamingPCA"):
        StreamingPCA().fit(SlicedRows(np.ones((1, 3))))
    pca = StreamingPCA().partial_fit([[1.0, 2.0]])
    with pytest.raises(UsageError, match="1 row was seen"):
        pca.transform([[1.0, 2.0]])
    np.testing.assert_allclose(pca.partial_fit([[3.0, 2.0]]).components_[0], [1, 0], atol=1e-12)


def test_too_many_rows_and_columns_are_refused(monkeypatch):
    """Beyond both limits the error names both numbers and what to do, before anything is read; within one it works."""
    monkeypatch.setattr(moments, "MAX_COVARIANCE_COLUMNS", 29)
    monkeypatch.setattr(moments, "MAX_GRAM_ROWS", 20)
    source = SlicedRows(CASES["as many rows"])
    with pytest.raises(UsageError, match=r"30 rows of 30 columns .* up to 29 columns, or up to 20 rows .*grid:K"):
        StreamingPCA().fit(source)
    assert source.lengths == [2]
    pca = StreamingPCA(2).partial_fit(CASES["fewer rows"])
    with pytest.raises(UsageError, match="21 rows of 30 columns"):
        pca.partial_fit(CASES["as many rows"][:9])
    assert pca.n_samples_seen_ == 12
    assert StreamingPCA(2).fit(CASES["as many rows"][:20]).n_components_ == 2
    assert StreamingPCA(2).fit(CASES["more rows"][:, :29]).n_components_ == 2


def test_limits_are_as_stated():
    """16,384 columns, or as many rows."""
    with pytest.raises(UsageError, match=r"16,385 rows of 16,385 columns .*16,384 columns, or up to 16,384 rows"):
        moments.check_size(16_385, 16_385)
    for n_rows, n_columns in [(10**9, 16_384), (16_384, 10**9)]:
        moments.check_size(n_rows, n_columns)


@pytest.mark.parametrize("n_components", [0, -1, 1.0, 0.0, 2.5, True, "mle", np.nan])
def test_odd_numbers_of_components_are_refused(n_components):
    """The error names what was given and what is allowed."""
    for method in ("fit", "partial_fit"):
        with pytest.raises(UsageError, match=r"n_components=.*allowed are None"):
            getattr(StreamingPCA(n_components), method)(CASES["more rows"])


def test_more_components_than_there_are_is_refused():
    """The error names the rows and columns; NumPy's integers are fine."""
    source = SlicedRows(CASES["fewer rows"])
    with pytest.raises(UsageError, match="n_components=13; 12 rows of 30 columns have at most 12"):
        StreamingPCA(13).fit(source)
    assert source.lengths == [2]
    assert StreamingPCA(np.int64(12)).fit(CASES["fewer rows"]).n_components_ == 12


def test_other_widths_are_refused():
    """Rows and coordinates of another width are named."""
    pca = StreamingPCA(3).fit(CASES["more rows"])
    with pytest.raises(ValueError, match="X has 29 features, but StreamingPCA is expecting 30"):
        pca.transform(CASES["more rows"][:, 1:])
    with pytest.raises(UsageError, match="width 4; this PCA has 3"):
        pca.inverse_transform(np.ones((2, 4)))


def test_overflow_is_refused():
    """Values whose squares are beyond float64 are an error, not NaN."""
    with pytest.raises(UsageError, match="squares of the values are too large"):
        StreamingPCA().fit(1e200 * CASES["more rows"])


# --- in a head -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_components", [3, 0.9, None])
def test_a_head_with_it_can_be_kept(n_components):
    """A pipeline comes back from bytes and predicts the same."""
    X = CASES["more rows"].astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    pipeline = make_pipeline(StreamingPCA(n_components, whiten=True), LinearSVC()).fit(X, y)
    loaded = load_head(dump_head(pipeline))
    assert isinstance(loaded, Pipeline)
    np.testing.assert_array_equal(loaded.decision_function(X), pipeline.decision_function(X))


def test_names_of_components():
    """Components are numbered after the class."""
    pca = StreamingPCA(2).fit(CASES["more rows"])
    assert pca.get_feature_names_out().tolist() == ["streamingpca0", "streamingpca1"]
