"""ProductQuantizer: codes of bytes, the rows they stand for, and linear heads that score codes directly."""

import copy
import io
import pickle
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.errors import UnsafeFileError, UsageError
from featx.heads import dump_head, load_head
from featx.reducers import ProductQuantizer, SignedSquareRoot, product_quantizer, row_blocks
from featx.reducers.codebook_training import balanced_axes


def correlated_rows(n_rows, width=20, seed=0):
    """Rows with a decaying spectrum along hidden axes, and a mean."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) * np.arange(1, width + 1)[:, None] ** -1.0
    return (rng.normal(size=(n_rows, width)) @ mixing + 3).astype(np.float32)


X = correlated_rows(600)
NEW = correlated_rows(200, seed=1)


def loss(quantizer, rows=X):
    """Mean squared error of the reconstruction."""
    return np.square(rows - quantizer.transform(rows)).mean()


@pytest.fixture(scope="module", params=["opq", None])
def quantizer(request):
    return ProductQuantizer(4, 5, rotation=request.param).fit(X)


@parametrize_with_checks([ProductQuantizer(), ProductQuantizer(2, 3, rotation=None)])
def test_it_follows_scikit_learn(estimator, check):
    """All of scikit-learn's checks pass."""
    check(estimator)


# --- codes -----------------------------------------------------------------------------------------------------------


def test_codes_are_those_of_faiss():
    """faiss, given the codebooks, finds the same codes of one byte, and decodes them to the same vectors."""
    import faiss

    ours = ProductQuantizer(5, 8).fit(X)
    theirs = faiss.ProductQuantizer(20, 5, 8)
    faiss.copy_array_to_vector(ours.codebooks_.ravel(), theirs.centroids)
    rotated = ((NEW - ours.mean_) @ ours.rotation_.T).astype(np.float32)
    codes = theirs.compute_codes(rotated)
    np.testing.assert_array_equal(ours.encode(NEW), codes)
    expected = theirs.decode(codes) @ ours.rotation_ + ours.mean_
    np.testing.assert_allclose(ours.decode(codes), expected, rtol=1e-5, atol=1e-5)


def test_codes_name_the_nearest_codewords(quantizer):
    """Each part of each row gets the codeword that a plain search finds."""
    centred = NEW - quantizer.mean_
    rotated = centred if quantizer.rotation_ is None else centred @ quantizer.rotation_.T
    parts = rotated.reshape(len(NEW), 4, -1)
    distances = np.square(parts[:, :, None] - quantizer.codebooks_[None]).sum(axis=3)
    codes = quantizer.encode(NEW)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, distances.argmin(axis=2))


def test_ties_go_to_the_lowest_number():
    """Of equal codewords the first is taken."""
    twins = ProductQuantizer(4, 5).fit(X)
    twins.codebooks_[:, 7:] = twins.codebooks_[:, 6:7]
    assert twins.encode(X).max() == 6


def test_code_of_a_row_does_not_depend_on_the_others(quantizer):
    """Rows encoded alone and together have the same codes."""
    alone = np.concatenate([quantizer.encode(NEW[row : row + 1]) for row in range(len(NEW))])
    np.testing.assert_array_equal(alone, quantizer.encode(NEW))


def test_codewords_come_back_exactly(quantizer):
    """Rows that codes stand for have these codes, and stand for themselves."""
    codes = np.random.default_rng(0).integers(0, 32, size=(100, 4))
    rows = quantizer.decode(codes)
    assert rows.dtype == np.float32
    assert rows.shape == (100, 20)
    np.testing.assert_array_equal(quantizer.encode(rows), codes)
    np.testing.assert_allclose(quantizer.transform(rows), rows, rtol=1e-6, atol=1e-6)


def test_transform_is_there_and_back(quantizer):
    """transform decodes what it encodes, and features keep their names."""
    np.testing.assert_array_equal(quantizer.transform(NEW), quantizer.decode(quantizer.encode(NEW)))
    assert quantizer.get_feature_names_out()[-1] == "x19"


def test_distinct_rows_that_fit_the_codebooks_are_kept():
    """As many rows as codewords are reconstructed to the precision of float32."""
    few = X[:16]
    np.testing.assert_allclose(ProductQuantizer(2, 8).fit(few).transform(few), few, rtol=1e-4, atol=1e-4)


# --- linear heads on codes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [1, 3])
def test_tables_score_codes_as_the_head_scores_rows(quantizer, n_classes):
    """Offset and table entries add up to what the weights give for the decoded rows, bias included."""
    rng = np.random.default_rng(0)
    coef, intercept = rng.normal(size=(n_classes, 20)), rng.normal(size=n_classes)
    codes = quantizer.encode(NEW)
    expected = quantizer.decode(codes).astype(np.float64) @ coef.T
    tables, offset = quantizer.lookup_tables(coef)
    assert tables.shape == (4, 32, n_classes)
    sums = offset + sum(tables[subspace, codes[:, subspace]] for subspace in range(4))
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quantizer.score_codes(codes, coef, intercept), sums + intercept, rtol=1e-12, atol=1e-9)


def test_codes_are_classified_as_rows_are():
    """A linear support vector machine decides on codes what it decides on reconstructed rows."""
    y = (X[:, 0] > 3).astype(int) + (X[:, 1] > 3)
    pipeline = make_pipeline(ProductQuantizer(4, 6), LinearSVC()).fit(X, y)
    quantizer, head = pipeline[0], pipeline[1]
    scores = quantizer.score_codes(quantizer.encode(NEW), head.coef_, head.intercept_)
    np.testing.assert_array_equal(scores.argmax(axis=1), pipeline.predict(NEW))


# --- what each parameter does ----------------------------------------------------------------------------------------


def test_more_bits_lose_less():
    """Each further bit lowers the error, down to a small part of the first."""
    losses = [loss(ProductQuantizer(4, n_bits).fit(X)) for n_bits in range(1, 9)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("rotation", ["opq", None])
def test_more_subspaces_lose_less(rotation):
    """More bytes a row lower the error, on new rows too."""
    fitted = [ProductQuantizer(n, 6, rotation=rotation).fit(X) for n in (1, 2, 5, 10, 20)]
    for rows in (X, NEW):
        losses = [loss(quantizer, rows) for quantizer in fitted]
        assert losses == sorted(losses, reverse=True)


def test_rotation_loses_less_than_none():
    """On correlated rows, turned axes lose clearly less than the rows as they are."""
    turned, plain = (ProductQuantizer(4, 6, rotation=rotation).fit(X) for rotation in ("opq", None))
    assert plain.rotation_ is None
    assert loss(turned, NEW) < 0.6 * loss(plain, NEW)
    np.testing.assert_allclose(turned.rotation_ @ turned.rotation_.T, np.eye(20), atol=1e-5)


def test_max_components_limits_the_quantized_space():
    """What lies outside of the leading components is lost, and nothing else is."""
    narrow = ProductQuantizer(4, 8, max_components=8).fit(X)
    assert narrow.codebooks_.shape == (4, 256, 2)
    assert narrow.rotation_.shape == (8, 20)
    _, singular_values, axes = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    inside = axes[:8].T @ axes[:8]
    np.testing.assert_allclose(narrow.rotation_.T @ narrow.rotation_, inside, atol=1e-4)
    assert loss(narrow) > np.square(singular_values[8:]).sum() / X.size


def test_rounds_and_seed_change_the_outcome():
    """More rounds fit the rows better; a seed gives one outcome, and another one another."""
    quick, long = (ProductQuantizer(4, 6, n_iter=n_iter).fit(X) for n_iter in (1, 20))
    assert loss(long) < loss(quick)
    first, again, other = (ProductQuantizer(4, 6, random_state=seed).fit(X) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.codebooks_, again.codebooks_)
    np.testing.assert_array_equal(first.rotation_, again.rotation_)
    assert not np.array_equal(first.codebooks_, other.codebooks_)


def test_balanced_axes_by_hand():
    """The largest variances go to different parts; a full part takes no more; scale and zeros do not matter."""
    for scale in (1, 1e-6, 1e6):
        order = balanced_axes(scale * np.array([16.0, 8.0, 2.0, 1.0]), 2)
        assert order.tolist() == [0, 3, 1, 2]
    assert sorted(balanced_axes(np.array([4.0, 0.0, 1.0, 0.0, 0.0, 2.0]), 3).tolist()) == list(range(6))
    assert balanced_axes(np.zeros(4), 2).tolist() == [0, 1, 2, 3]


# --- clipping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_rows", "n_bits"), [(2, 1), (3, 1), (4, 2), (63, 5), (64, 6), (255, 7), (256, 8)])
def test_bits_are_lowered_to_the_rows(n_rows, n_bits):
    """There are at most as many codewords as rows, and at most as many parts as axes that the rows have."""
    quantizer = ProductQuantizer(32, 8).fit(X[:n_rows])
    assert quantizer.n_bits_ == n_bits
    assert quantizer.n_subspaces_ == min(20, n_rows - 1)
    assert quantizer.codebooks_.shape[:2] == (quantizer.n_subspaces_, 2**n_bits)
    assert quantizer.encode(X).max() < 2**n_bits


@pytest.mark.parametrize(
    ("rotation", "asked", "used", "width"),
    [("opq", 32, 20, 1), ("opq", 8, 8, 3), ("opq", 20, 20, 1), (None, 32, 20, 1), (None, 8, 5, 4), (None, 7, 5, 4)],
)
def test_subspaces_fit_the_width(rotation, asked, used, width):
    """With a rotation the last part is filled up with zeros; without, a number that divides the width is taken."""
    quantizer = ProductQuantizer(asked, 4, rotation=rotation).fit(X)
    assert (quantizer.n_subspaces_, quantizer.codebooks_.shape[2]) == (used, width)
    assert quantizer.encode(X).shape == (600, used)


@pytest.mark.parametrize("rotation", ["opq", None])
def test_constant_rows_come_back(rotation):
    """Rows that do not vary are all the same code, and come back."""
    flat = np.full((40, 6), 0.1)
    quantizer = ProductQuantizer(2, 3, rotation=rotation).fit(flat)
    np.testing.assert_allclose(quantizer.transform(flat), flat, rtol=1e-6)


# --- state, size, quiet ----------------------------------------------------------------------------------------------


def test_state_is_plain_arrays(quantizer):
    """Nothing of faiss is kept; copies and pickles encode alike."""
    for value in vars(quantizer).values():
        assert value is None or isinstance(value, (int, str, np.ndarray))
    for twin in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        np.testing.assert_array_equal(twin.encode(NEW), quantizer.encode(NEW))


def test_training_is_quiet(capfd):
    """faiss says nothing about few rows, on neither stream."""
    ProductQuantizer(4, 8).fit(X[:300])
    ProductQuantizer(4, 8, rotation=None).fit(X[:300])
    assert capfd.readouterr() == ("", "")


def test_threads_of_faiss_are_left_as_they_were():
    """Training in one thread does not change how many faiss uses elsewhere."""
    import faiss

    before = faiss.omp_get_max_threads()
    ProductQuantizer(2, 3).fit(X)
    assert faiss.omp_get_max_threads() == before


def test_faiss_is_loaded_by_fit_only():
    """Importing the room and using a fitted quantizer need no faiss."""
    code = "import sys, pickle, featx.reducers; q = pickle.loads(sys.stdin.buffer.read()); q.transform([[0.0] * 20]);"
    code += "assert 'faiss' not in sys.modules and 'torch' not in sys.modules"
    state = pickle.dumps(ProductQuantizer(2, 3).fit(X))
    process = subprocess.run([sys.executable, "-c", code], input=state, check=True, capture_output=True, timeout=60)
    assert process.stderr == b""


@pytest.mark.parametrize("rotation", ["opq", None])
def test_rows_on_disk_are_those_in_memory(rotation, tmp_path, monkeypatch):
    """A dataset read block by block is learned from and encoded like the array."""
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 8 * 20 * 64)
    expected = ProductQuantizer(4, 5, rotation=rotation).fit(X)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        dataset = file.create_dataset("rows", data=X)
        quantizer = ProductQuantizer(4, 5, rotation=rotation).fit(dataset)
        np.testing.assert_array_equal(quantizer.encode(dataset), expected.encode(X))


def test_codebooks_are_trained_on_a_sample(monkeypatch):
    """Above a limit of rows a seeded draw of them is trained on; the mean is that of all."""
    monkeypatch.setattr(product_quantizer, "_MAX_TRAINING_ROWS", 64)
    first, again, other = (ProductQuantizer(4, 6, n_iter=1, random_state=seed).fit(X) for seed in (0, 0, 1))
    np.testing.assert_allclose(first.mean_, X.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_array_equal(first.codebooks_, again.codebooks_)
    exact = np.square(X - first.transform(X)).sum(axis=1) < 1e-6  # 64 codewords for 64 rows
    assert exact.sum() == 64
    assert not np.array_equal(exact, np.square(X - other.transform(X)).sum(axis=1) < 1e-6)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_subspaces": 0}, "n_subspaces=0; allowed is an int of 1 or more"),
        ({"n_bits": 9}, "n_bits=9; allowed is an int from 1 to 8"),
        ({"n_bits": 4.0}, "n_bits=4.0"),
        ({"max_components": -1}, "max_components=-1"),
        ({"n_iter": True}, "n_iter=True"),
        ({"rotation": "pca"}, "rotation='pca'; allowed are 'opq' and None"),
    ],
)
def test_odd_parameters_are_refused(parameters, message):
    """The error names what was given and what is allowed."""
    with pytest.raises(UsageError, match=message):
        ProductQuantizer(**parameters).fit(X)


def test_rows_that_cannot_be_learned_from_are_refused():
    """NaN, a single row, and values beyond float32 are errors."""
    broken = X.copy()
    broken[3, 3] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        ProductQuantizer().fit(broken)
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        ProductQuantizer().fit(X[:1])
    with (
        pytest.raises(UsageError, match="too large for float32"),
        np.errstate(over="ignore"),
    ):
        ProductQuantizer().fit(X.astype(np.float64) * 1e100)


@pytest.mark.parametrize(
    "codes", [np.zeros((3, 5), int), np.zeros(4, int), np.zeros((3, 4)), [[0, 0, 0, 32]], [[-1] * 4]]
)
def test_foreign_codes_are_refused(quantizer, codes):
    """Codes of another shape, type or range are an error, in decoding and in scoring."""
    with pytest.raises(UsageError, match="encode returned"):
        quantizer.decode(codes)
    with pytest.raises(UsageError, match="encode returned"):
        quantizer.score_codes(codes, np.ones((2, 20)))


def test_foreign_weights_are_refused(quantizer):
    """Weights of another width are an error that says which is needed."""
    with pytest.raises(UsageError, match=r"weights of shape \(2, 19\); needed is \(n_classes, 20\)"):
        quantizer.lookup_tables(np.ones((2, 19)))


# --- kept in a head --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", ["opq", None])
def test_a_head_with_it_can_be_kept(rotation):
    """A pipeline comes back from bytes and predicts the same."""
    y = (X[:, 0] > 3).astype(int)
    pipeline = make_pipeline(SignedSquareRoot(), ProductQuantizer(4, 4, rotation=rotation), LinearSVC()).fit(X, y)
    loaded = load_head(dump_head(pipeline))
    np.testing.assert_array_equal(loaded.decision_function(NEW), pipeline.decision_function(NEW))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codebooks_", lambda codebooks: codebooks[:3]),
        ("codebooks_", lambda codebooks: codebooks[:, :31]),
        ("codebooks_", lambda codebooks: codebooks[0]),
        ("codebooks_", lambda codebooks: codebooks.astype(np.int32)),
        ("rotation_", lambda rotation: rotation[:-1]),
        ("rotation_", lambda rotation: rotation[:, :-1]),
        ("rotation_", lambda _: "opq"),
        ("mean_", lambda mean: mean[:, None]),
        ("mean_", lambda _: None),
        ("n_bits_", lambda n_bits: n_bits + 1),
        ("n_subspaces_", lambda _: 5),
        ("n_features_in_", lambda _: 21),
    ],
)
def test_odd_arrays_in_a_file_are_refused(name, change):
    """A file whose arrays do not fit each other is not opened."""
    pipeline = make_pipeline(ProductQuantizer(4, 5), LinearSVC()).fit(X, X[:, 0] > 3)
    setattr(pipeline[0], name, change(getattr(pipeline[0], name)))
    with pytest.raises(UnsafeFileError, match=r"product quantizer|how many features"):
        load_head(dump_head(pipeline))


def test_files_from_before_the_room_became_a_folder_open():
    """A head that names SignedSquareRoot where it used to be is still read."""
    pipeline = make_pipeline(SignedSquareRoot(), LinearSVC()).fit(X, (X[:, 0] > 3).astype(int))
    old = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(dump_head(pipeline))) as source, zipfile.ZipFile(old, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            assert entry.filename != "schema.json" or b"featx.reducers.scalers" in content
            target.writestr(entry, content.replace(b"featx.reducers.scalers", b"featx.reducers"))
    np.testing.assert_array_equal(load_head(old.getvalue()).predict(NEW), pipeline.predict(NEW))


@pytest.mark.parametrize("n_rows", [33, 100, 119])
def test_fewer_rows_than_columns_are_learned_from(n_rows):
    """Rows that span fewer axes than the rotation has columns: faiss' own training would write beyond its memory."""
    rows = np.random.default_rng(n_rows).normal(size=(n_rows, 300)).astype(np.float32)
    quantizer = ProductQuantizer(n_subspaces=32, rotation="opq").fit(rows)
    lost = ((quantizer.transform(rows) - rows) ** 2).sum() / ((rows - rows.mean(axis=0)) ** 2).sum()
    assert lost < 0.9
    assert quantizer.encode(rows).shape == (n_rows, quantizer.n_subspaces_)
