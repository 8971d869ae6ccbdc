"""Embeddings: layers side by side, whitening, and the parts that a file keeps of them."""

import json

import numpy as np
import pytest

from featx.errors import StoreError, UsageError
from featx.retrieval.embedding import Embedding


def rows_of(n, width, seed=0):
    """Correlated rows away from the origin, so that centring and turning both matter."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + 2).astype(np.float32)


def unit(rows):
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def whitened_by_numpy(rows, fitted_on, n, power):
    """Whitening from the eigenvectors of NumPy's covariance, in float64."""
    fitted_on = unit(fitted_on.astype(np.float64))
    values, vectors = np.linalg.eigh(np.cov(fitted_on.T))
    values, vectors = values[::-1][:n], vectors[:, ::-1][:, :n]
    return unit((unit(rows.astype(np.float64)) - fitted_on.mean(axis=0)) @ vectors / values ** (power / 2))


def test_cosines_of_joined_layers_are_weighted_means():
    """Side by side, the cosine is the mean of the layers' cosines by their weights, whatever the layers' lengths."""
    first, second = rows_of(6, 5), 1000 * rows_of(6, 3, seed=1)
    vectors = Embedding([5, 3], weights=[3, 1]).transform(np.concatenate([first, second], axis=1))
    expected = 0.75 * unit(first) @ unit(first).T + 0.25 * unit(second) @ unit(second).T
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-6)


def test_equal_weights_are_the_default():
    """Without weights all layers count alike, and only ratios of weights matter."""
    rows = rows_of(4, 6)
    np.testing.assert_allclose(
        Embedding([2, 4]).transform(rows), Embedding([2, 4], weights=[7, 7]).transform(rows), atol=1e-7
    )


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_whitening_equals_numpy(power):
    """Cosines after whitening are those of the eigenvectors of NumPy's covariance, for rows seen and unseen."""
    seen, unseen = rows_of(200, 8), rows_of(30, 8, seed=1)
    embedding = Embedding([8], whiten=5, whiten_power=power).fit(seen)
    for rows in (seen, unseen):
        vectors, expected = embedding.transform(rows), whitened_by_numpy(rows, seen, 5, power)
        np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-5)


def test_full_whitening_makes_components_alike():
    """With a power of 1, before the last normalisation, the kept components have variance 1 and no correlation."""
    rows = unit(rows_of(500, 6))
    embedding = Embedding([6], whiten=4, whiten_power=1).fit(rows)
    _, arrays = embedding.to_parts()
    np.testing.assert_allclose(np.cov((rows @ arrays["axes"].T).T), np.eye(4), atol=1e-3)


def test_blocks_and_one_array_learn_the_same():
    """How rows are divided into blocks makes no difference to what is learned."""
    rows = rows_of(90, 7)
    whole = Embedding([4, 3], whiten=6).fit(rows).transform(rows)
    blocks = Embedding([4, 3], whiten=6).fit(block for block in np.split(rows, [1, 4, 50])).transform(rows)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


@pytest.mark.parametrize("embedding", [Embedding([6]), Embedding([2, 4]), Embedding([2, 4], whiten=3)])
def test_vectors_are_unit_float32_and_zero_stays_zero(embedding):
    """Every vector has length 1 but that of a row of zeros, and one empty layer does not spoil a row."""
    rows = rows_of(40, 6)
    rows[3], rows[5, :2] = 0, 0
    vectors = embedding.fit(rows).transform(rows)
    assert vectors.shape == (40, embedding.n_columns_out)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.arange(40) != 3, atol=1e-6)


def test_a_row_does_not_depend_on_its_company():
    """An image alone gets the vector that it gets among others, so that copies tie."""
    rows = rows_of(2500, 40)
    embedding = Embedding([30, 10], whiten=16).fit(rows)
    together = embedding.transform(rows)
    alone = np.concatenate([embedding.transform(rows[row : row + 1]) for row in range(0, 2500, 50)])
    np.testing.assert_array_equal(alone, together[::50])


def test_what_only_reads_by_slices_is_read_by_slices():
    """An array outside of memory is never asked for as a whole."""
    rows = rows_of(3000, 5)
    asked = []

    class Lazy:
        shape = rows.shape

        def __getitem__(self, rows_asked):
            block = rows[rows_asked]
            asked.append(len(block))
            return block

    embedding = Embedding([5], whiten=2).fit(Lazy())
    np.testing.assert_array_equal(embedding.transform(Lazy()), embedding.transform(rows))
    assert sum(asked) == 6000
    assert max(asked) < 3000


@pytest.mark.parametrize(
    "embedding",
    [Embedding([6]), Embedding([2, 4], weights=[0.3, 2]), Embedding([2, 4], whiten=3, whiten_power=0.7)],
    ids=["plain", "weighted", "whitened"],
)
def test_parts_come_back_the_same(embedding):
    """What JSON and arrays keep of an embedding gives the same vectors, to the bit."""
    rows = rows_of(50, 6)
    described, arrays = embedding.fit(rows).to_parts()
    again = Embedding.from_parts(json.loads(json.dumps(described)), {**arrays, "of others": np.zeros(1)})
    np.testing.assert_array_equal(again.transform(rows), embedding.transform(rows))
    assert (again.widths, again.weights, again.whiten) == (embedding.widths, embedding.weights, embedding.whiten)
    assert again.is_fitted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [2, 5]}, "its mean is float32 of shape"),
        ({"widths": []}, "widths"),
        ({"widths": 6}, "not iterable"),
        ({"widths": [2, True]}, "widths"),
        ({"weights": [1, float("nan")]}, "weights"),
        ({"weights": [1, "1"]}, "weights"),
        ({"whiten": 4}, "its axes is float32"),
        ({"whiten": 10**9}, "whitening to"),
        ({"whiten_power": 2}, "power"),
        ({"whiten_power": None}, "power"),
        ({"mean": None}, "its mean is missing"),
        ({"mean": np.zeros(6)}, "its mean is float64"),
        ({"axes": np.full((3, 6), np.nan, np.float32)}, "NaN"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    """A file that anybody may have made gives an error of ours, never a wrong embedding."""
    described, arrays = Embedding([2, 4], whiten=3).fit(rows_of(50, 6)).to_parts()
    content = {**described, **arrays, **change}
    with pytest.raises(StoreError, match=message):
        Embedding.from_parts(content, {name: content[name] for name in arrays})


def test_parts_that_are_missing_are_refused():
    """A description without one of its values is an error of ours."""
    with pytest.raises(StoreError, match="widths"):
        Embedding.from_parts({}, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": []}, "one whole number"),
        ({"widths": [3, 0]}, "one whole number"),
        ({"widths": [3, 4], "weights": [1]}, "for 2 layers"),
        ({"widths": [3, 4], "weights": [1, 0]}, "Leave out"),
        ({"widths": [3], "weights": [float("inf")]}, "1e-6"),
        ({"widths": [3], "whiten": 4}, "allowed are 1 to 3"),
        ({"widths": [3], "whiten": 0}, "allowed are 1 to 3"),
        ({"widths": [3], "whiten": 2, "whiten_power": -1}, "power"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    """Each is refused with what is allowed."""
    with pytest.raises(UsageError, match=message):
        Embedding(**arguments)


@pytest.mark.parametrize("n_rows", [0, 1, 4])
def test_more_components_than_rows_allow(n_rows):
    """The message says how many there can be."""
    with pytest.raises(UsageError, match=f"at most {n_rows if n_rows > 1 else 0}"):
        Embedding([8], whiten=5).fit(rows_of(n_rows, 8))


def test_rows_that_cannot_be_embedded():
    """NaN, another width and a missing fit are refused by name."""
    rows = rows_of(5, 6)
    rows[3, 4] = np.nan
    embedding = Embedding([2, 4])
    with pytest.raises(UsageError, match=r"NaN or infinity in 1 rows \(3\)"):
        embedding.transform(rows)
    with pytest.raises(UsageError, match="2 \\+ 4"):
        embedding.transform(rows[:, :5])
    with pytest.raises(UsageError, match="2 \\+ 4"):
        embedding.transform(rows[0])
    with pytest.raises(UsageError, match="no features"):
        embedding.transform(rows[:0])
    with pytest.raises(UsageError, match="Call fit first"):
        Embedding([6], whiten=2).transform(rows[:3])
    with pytest.raises(UsageError, match="Call fit before"):
        Embedding([6], whiten=2).to_parts()
    assert not Embedding([6], whiten=2).is_fitted


def test_rows_without_variance_become_zero():
    """Where all rows are equal there is nothing to tell them apart by, and no division by zero."""
    rows = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(Embedding([3], whiten=2).fit(rows).transform(rows), np.zeros((5, 2)))


def test_plain_is_one_layer_without_whitening():
    """Only then is an index what it was before there were embeddings."""
    assert Embedding([4]).is_plain
    assert not Embedding([2, 2]).is_plain
    assert not Embedding([4], whiten=2).is_plain
