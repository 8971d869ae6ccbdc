"""The head of a tuned network as a pipeline: torch's own probabilities, in a file that cannot lie about its shapes."""

from __future__ import annotations

import numpy as np
import pytest
import skops.io
import torch
from gallery import TRAINED
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline

from featx.bundle import Bundle, load_bundle
from featx.errors import HeadError, StoreError, UnsafeFileError
from featx.extraction import FeatureSpec
from featx.heads import dump_head, load_head, softmax_pipeline

WIDTH = 6
HIDDEN = 8
X = np.random.default_rng(0).normal(0, 3, (50, WIDTH)).astype(np.float32)


def network(n_classes, n_layers, seed=0):
    """A head as finetuning trains it, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if n_layers == 1:
            return torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(WIDTH, n_classes)).eval()
        first, last = torch.nn.Linear(WIDTH, HIDDEN), torch.nn.Linear(HIDDEN, n_classes)
        return torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Dropout(), last).eval()


def layers_of(module):
    linear = [part for part in module if isinstance(part, torch.nn.Linear)]
    return [(part.weight.detach().numpy(), part.bias.detach().numpy()) for part in linear]


def torch_probabilities(module, features):
    with torch.no_grad():
        return module(torch.from_numpy(features)).softmax(1).numpy()


def made(n_classes=3, n_layers=2):
    return softmax_pipeline(layers_of(network(n_classes, n_layers)), np.arange(n_classes))


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("n_classes", [2, 3, 11])
def test_probabilities_are_those_of_torch(n_classes, n_layers):
    """Two classes, for which scikit-learn has one output, and more; the class named is the most probable."""
    module, classes = network(n_classes, n_layers), 3 * np.arange(n_classes)
    pipeline = softmax_pipeline(layers_of(module), classes)
    expected = torch_probabilities(module, X)
    np.testing.assert_allclose(pipeline.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_array_equal(pipeline.predict(X), classes[expected.argmax(axis=1)])
    assert len(set(expected.argmax(axis=1))) > 1
    assert (pipeline.n_features_in_, pipeline.classes_.tolist()) == (WIDTH, classes.tolist())
    assert list(pipeline.named_steps) == ["scale", "reduce", "head"]


def test_large_scores_stay_probabilities():
    """Scores at which a naive exponential overflows give 0 and 1, without a warning."""
    weight = np.array([[1000.0, 0], [0, 1000.0], [-1000.0, 0]], np.float32)
    pipeline = softmax_pipeline([(weight, np.zeros(3))], [0, 1, 2])
    np.testing.assert_array_equal(pipeline.predict_proba(np.eye(2, dtype=np.float32)), [[1, 0, 0], [0, 1, 0]])


def test_the_pipeline_keeps_its_own_weights():
    """A network that goes on learning, or whose weights are lent, changes nothing in a pipeline made before."""
    module = network(3, 2)
    pipeline = softmax_pipeline(layers_of(module), [0, 1, 2])
    before = pipeline.predict_proba(X)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    np.testing.assert_array_equal(pipeline.predict_proba(X), before)


@pytest.mark.parametrize(("dtype", "kept"), [("float64", "float64"), ("float32", "float32"), ("float16", "float32")])
def test_precision_is_kept_where_scikit_learn_has_it(dtype, kept):
    """float32 and float64 stay, half precision is widened without another value."""
    layers = [(weight.astype(dtype), bias.astype(dtype)) for weight, bias in layers_of(network(3, 1))]
    head = softmax_pipeline(layers, [0, 1, 2]).named_steps["head"]
    assert head.coef_.dtype == head.intercept_.dtype == kept
    np.testing.assert_array_equal(head.coef_, layers[0][0].astype(kept))


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_head_comes_back_from_bytes(n_classes, n_layers):
    """What was dumped predicts exactly the same."""
    pipeline = made(n_classes, n_layers)
    loaded = load_head(dump_head(pipeline))
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), pipeline.predict(X))


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_bundle_carries_it(tmp_path, n_layers):
    """Saved and opened, a bundle gives torch's probabilities, in the columns of the classes that were learned."""
    module = network(2, n_layers)
    pipeline = softmax_pipeline(layers_of(module), [0, 2])
    Bundle(FeatureSpec("penultimate@avg", WIDTH, TRAINED), pipeline, ("a", "never", "z")).save(tmp_path / "c.featx")
    found = load_bundle(tmp_path / "c.featx").predict_proba(X)
    np.testing.assert_allclose(found[:, [0, 2]], torch_probabilities(module, X), atol=1e-6)
    assert not found[:, 1].any()


def test_a_bundle_of_another_width_is_refused(tmp_path):
    """A network that gives more features than the head takes is found on opening."""
    Bundle(FeatureSpec("penultimate@avg", WIDTH + 1, TRAINED), made(), ("a", "b", "c")).save(tmp_path / "c.featx")
    with pytest.raises(StoreError, match="a head for 6 features"):
        load_bundle(tmp_path / "c.featx")


ONE = (np.ones((3, 4)), np.ones(3))


@pytest.mark.parametrize(
    ("layers", "classes", "message"),
    [
        ([], [0, 1, 2], "head of 0 layers"),
        ([ONE, ONE, ONE], [0, 1, 2], "head of 3 layers"),
        ([(np.ones((3, 4)), np.ones(2))], [0, 1, 2], r"\(3, 4\) and \(2,\)"),
        ([(np.ones((3, 4)), np.ones((3, 1)))], [0, 1, 2], r"\(3, 4\) and \(3, 1\)"),
        ([(np.ones(4), np.ones(4))], [0, 1, 2, 3], "weights"),
        ([(np.ones((3, 0)), np.ones(3))], [0, 1, 2], r"\(3, 0\)"),
        ([ONE, ONE], [0, 1, 2], "as wide as the layer before it"),
        ([(np.full((3, 4), np.nan), np.ones(3))], [0, 1, 2], "diverged"),
        ([(np.ones((3, 4)), np.array([0, np.inf, 0]))], [0, 1, 2], "diverged"),
        ([ONE], [0, 1], "2 classes for a layer of 3 outputs"),
        ([(np.ones((1, 4)), np.ones(1))], [0], "two or more"),
        ([ONE], [0, 2, 1], "each larger than the last"),
        ([ONE], [0, 1, 1], "each larger than the last"),
        ([ONE], [-1, 0, 1], "from 0"),
        ([ONE], ["a", "b", "c"], "whole numbers"),
        ([ONE], 3, "whole numbers"),
    ],
)
def test_layers_that_are_no_head_are_named(layers, classes, message):
    """What cannot be a softmax over these classes is an error that says what was given."""
    with pytest.raises(HeadError, match=message):
        softmax_pipeline(layers, classes)


def grown(array):
    return np.append(array, array[:1], axis=0)


FORGED_LOGISTIC = [
    ("coef_", grown),
    ("coef_", lambda array: array[:1]),
    ("coef_", lambda array: array[:, 1:]),
    ("coef_", lambda array: array[0]),
    ("coef_", lambda array: array.astype(object)),
    ("coef_", lambda array: array.tolist()),
    ("intercept_", grown),
    ("intercept_", lambda array: array[:1]),
    ("intercept_", lambda array: array[:, None]),
    ("intercept_", lambda _: 0.5),
    ("classes_", grown),
    ("classes_", lambda array: array[:2]),
    ("classes_", lambda array: array[:, None]),
    ("classes_", lambda _: None),
    ("n_features_in_", lambda width: width + 1),
    ("n_features_in_", lambda _: None),
]


@pytest.mark.parametrize(("attribute", "forge"), FORGED_LOGISTIC)
def test_forged_logistic_regressions_are_refused(attribute, forge):
    """Arrays that NumPy would stretch to each other, and widths and classes that they do not have."""
    pipeline = load_head(dump_head(made(n_layers=1)))
    head = pipeline.named_steps["head"]
    setattr(head, attribute, forge(getattr(head, attribute)))
    with pytest.raises(UnsafeFileError, match="refused"):
        load_head(skops.io.dumps(pipeline))


FORGED_DENSE = [
    ("coefs_", lambda parts: parts[:1]),
    ("coefs_", lambda parts: [*parts, parts[-1]]),
    ("coefs_", lambda parts: tuple(parts)),
    ("coefs_", lambda parts: [grown(parts[0]), parts[1]]),
    ("coefs_", lambda parts: [parts[0][:, 1:], parts[1]]),
    ("coefs_", lambda parts: [parts[0], grown(parts[1])]),
    ("coefs_", lambda parts: [parts[0], parts[1][:, :1]]),
    ("coefs_", lambda parts: [parts[0].astype(np.int64), parts[1]]),
    ("coefs_", lambda parts: [parts[0][0], parts[1]]),
    ("intercepts_", lambda parts: parts[:1]),
    ("intercepts_", lambda parts: [parts[0][:1], parts[1]]),
    ("intercepts_", lambda parts: [parts[0], parts[1][:1]]),
    ("intercepts_", lambda parts: [parts[0], parts[1][None]]),
    ("intercepts_", lambda parts: [None, parts[1]]),
    ("n_layers_", lambda _: 10**9),
    ("n_layers_", lambda _: 2),
    ("n_outputs_", lambda _: 1),
    ("out_activation_", lambda _: "logistic"),
    ("out_activation_", lambda _: "exp"),
    ("activation", lambda _: "tanh"),
    ("classes_", grown),
    ("classes_", lambda array: array + 1),
    ("n_features_in_", lambda width: width - 1),
    ("n_features_in_", lambda _: "6"),
    ("_label_binarizer", lambda _: None),
]


@pytest.mark.parametrize(("attribute", "forge"), FORGED_DENSE)
def test_forged_dense_heads_are_refused(attribute, forge):
    """Layers that do not follow each other, other activations, and classes that the outputs are not."""
    pipeline = load_head(dump_head(made()))
    head = pipeline.named_steps["head"]
    setattr(head, attribute, forge(getattr(head, attribute)))
    with pytest.raises(UnsafeFileError, match="refused"):
        load_head(skops.io.dumps(pipeline))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("classes_", np.array([0, 1])),
        ("classes_", np.array([2, 1, 0])),
        ("y_type_", "multilabel-indicator"),
        ("sparse_input_", True),
        ("neg_label", -1),
        ("pos_label", 2),
    ],
)
def test_forged_names_of_outputs_are_refused(attribute, value):
    """The part that names the class of an output names those that the head says it has."""
    pipeline = load_head(dump_head(made()))
    setattr(pipeline.named_steps["head"]._label_binarizer, attribute, value)
    with pytest.raises(UnsafeFileError, match="other classes than outputs"):
        load_head(skops.io.dumps(pipeline))


def test_a_network_that_scikit_learn_trained_is_still_refused():
    """What training leaves behind (an optimizer, a random state) is not on the list; only finished heads are."""
    with pytest.warns(match="Maximum iterations"):
        trained = MLPClassifier((4,), max_iter=1).fit(X, np.arange(50) % 3)
    with pytest.raises(UnsafeFileError, match="not on the list"):
        dump_head(Pipeline([("head", trained)]))
