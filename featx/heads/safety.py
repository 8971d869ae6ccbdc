"""What a loaded classifier must satisfy before compiled code may run on it.

scikit-learn's trees and libsvm read memory at indices that a file may have set to anything. Types alone do not protect
from that: ``Tree.__setstate__`` checks shapes, not indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from featx.errors import UnsafeFileError
from featx.reducers import ProductQuantizer


def check_loaded(root: Any) -> None:
    """Walk over everything reachable from a loaded object, and check what compiled code will index with.

    Raises
    ------
    UnsafeFileError
        When a tree or a support vector machine points outside of its own arrays, or sits where none belongs.
    """
    seen: set[int] = set()
    pending: list[Any] = [root]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        pending.extend(_children(item))


def _refuse(what: str) -> UnsafeFileError:
    return UnsafeFileError(f"the classifier is refused: {what}. Use only files from a source you trust.")


def _children(item: Any) -> list[Any]:
    """Check one object; return what is inside it and still has to be checked."""
    if isinstance(item, (Tree, TreePredictor)):
        raise _refuse(f"a {type(item).__name__} lies outside of a tree classifier")
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, (list, tuple)):
        return list(item)
    if isinstance(item, np.ndarray):
        return list(item.flat) if item.dtype == object else []
    attributes = dict(getattr(item, "__dict__", {}))
    if isinstance(item, BaseEstimator):
        _check_no_shadows(item)
        if not _is_fitted(item):
            return list(attributes.values())
    if isinstance(item, DecisionTreeClassifier):
        _check_tree(attributes.pop("tree_", None), _width(item))
    elif isinstance(item, RandomForestClassifier):
        _check_forest(item)
    elif isinstance(item, HistGradientBoostingClassifier):
        _check_boosting(attributes.pop("_predictors", None), item)
    elif isinstance(item, SVC):
        _check_svc(item)
    elif isinstance(item, ProductQuantizer):
        _check_quantizer(item)
    elif isinstance(item, KNeighborsClassifier):
        _check_neighbours(item)
    elif isinstance(item, LogisticRegression):
        _check_logistic(item)
    elif isinstance(item, MLPClassifier):
        _check_dense(item)
    return list(attributes.values())


def _is_fitted(estimator: BaseEstimator) -> bool:
    """Return whether anything was learned. What is unfitted (a template that an ensemble keeps) predicts nothing."""
    return any(name.endswith("_") for name in vars(estimator))


def _width(estimator: Any) -> int:
    """Return the number of features that the estimator insists on, without which indices have no bound."""
    width = vars(estimator).get("n_features_in_")
    if not isinstance(width, (int, np.integer)) or width < 1:
        raise _refuse(f"{type(estimator).__name__} does not say how many features it takes")
    return int(width)


def _check_no_shadows(estimator: BaseEstimator) -> None:
    for name in vars(estimator):
        if callable(getattr(type(estimator), name, None)):
            raise _refuse(f"{type(estimator).__name__} has an attribute in the place of its method {name!r}")


def _check_children(left: np.ndarray, right: np.ndarray, inner: np.ndarray, n_nodes: int) -> None:
    """Children of inner nodes come after their parent, as scikit-learn numbers them; so there can be no circle."""
    parents = np.flatnonzero(inner)
    for child in (left[inner].astype(np.int64), right[inner].astype(np.int64)):
        if ((child <= parents) | (child >= n_nodes)).any():
            raise _refuse("a tree has a child outside of its nodes, or a circle")


def _check_features(features: np.ndarray, width: int) -> None:
    features = features.astype(np.int64)
    if ((features < 0) | (features >= width)).any():
        raise _refuse(f"a tree asks for a feature outside of its {width}")


def _check_tree(tree: Any, width: int) -> None:
    """Check ``sklearn.tree._tree.Tree``, in which −1 as left child marks a leaf."""
    if not isinstance(tree, Tree):
        raise _refuse("a tree classifier has no tree")
    # Before anything reads the arrays: their length is node_count, their memory is capacity.
    if tree.node_count != tree.capacity or tree.node_count < 1 or tree.n_outputs != 1:
        raise _refuse("a tree claims another number of nodes than it has")
    if tree.n_features != width:
        raise _refuse(f"a tree takes {tree.n_features} features, its classifier {width}")
    inner = tree.children_left != -1
    _check_children(tree.children_left, tree.children_right, inner, tree.node_count)
    _check_features(tree.feature[inner], width)


def _check_forest(forest: RandomForestClassifier) -> None:
    """Members get features that only the forest has checked: theirs must be as wide."""
    members = vars(forest).get("estimators_")
    if not isinstance(members, list) or not all(type(member) is DecisionTreeClassifier for member in members):
        raise _refuse("a forest holds something that is not a tree")
    if any(_width(member) != _width(forest) for member in members):
        raise _refuse("a forest and its trees take different numbers of features")


def _check_boosting(rounds: Any, boosting: HistGradientBoostingClassifier) -> None:
    width = _width(boosting)
    if vars(boosting).get("_n_features") != width or not isinstance(rounds, list):
        raise _refuse("gradient boosting does not say how many features it takes")
    for predictors in rounds:
        for predictor in predictors:
            _check_predictor(predictor, width)


def _check_predictor(predictor: Any, width: int) -> None:
    """Check one ``TreePredictor``. featx has no categorical features, so that bitsets are never looked up."""
    if not isinstance(predictor, TreePredictor) or predictor.nodes.ndim != 1 or not len(predictor.nodes):
        raise _refuse("gradient boosting holds something that is not a tree")
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    if nodes["is_categorical"].any():
        raise _refuse("a tree splits on a category, and featx has none")
    _check_children(nodes["left"], nodes["right"], inner, len(nodes))
    _check_features(nodes["feature_idx"][inner], width)


def _check_neighbours(neighbours: KNeighborsClassifier) -> None:
    """scikit-learn's compiled search counts votes at the class numbers of the rows that it keeps."""
    state, width = vars(neighbours), _width(neighbours)
    rows, numbers, classes = (np.asarray(state.get(key)) for key in ("_fit_X", "_y", "classes_"))
    shapes_agree = (
        rows.ndim == 2
        and rows.shape[1] == width
        and rows.dtype in (np.float32, np.float64)
        and np.issubdtype(numbers.dtype, np.integer)
        and classes.ndim == 1
        and numbers.shape == (len(rows),)
        and state.get("n_samples_fit_") == len(rows)
        and 1 <= state.get("n_neighbors", 0) <= len(rows)
        and ((numbers >= 0) & (numbers < len(classes))).all()
    )
    is_ours = state.get("weights") == "distance" and state.get("_fit_method") == "brute" and state.get("_tree") is None
    if not shapes_agree or not is_ours:
        raise _refuse("the arrays of a nearest-neighbour classifier do not fit each other")


def _check_svc(svc: SVC) -> None:
    """libsvm trusts the counts of support vectors to add up to what the arrays hold."""
    state, width = vars(svc), _width(svc)
    vectors, counts, dual = (np.asarray(state.get(key)) for key in ("support_vectors_", "_n_support", "_dual_coef_"))
    n_classes = counts.size
    shapes_agree = (
        np.issubdtype(counts.dtype, np.integer)
        and counts.ndim == 1
        and n_classes >= 2
        and (counts >= 0).all()
        and vectors.shape == (counts.sum(), width)
        and dual.shape == (n_classes - 1, counts.sum())
        and np.size(state.get("support_")) == counts.sum()
        and np.size(state.get("_intercept_")) == n_classes * (n_classes - 1) // 2
        and np.size(state.get("classes_")) == n_classes
        # Probabilities are made by the calibration around it; libsvm would read its own, n(n-1)/2 of them, unchecked.
        and np.size(state.get("_probA")) == np.size(state.get("_probB")) == 0
        and state.get("probability") in (False, "deprecated")
    )
    if not shapes_agree or state.get("kernel") != "rbf" or state.get("_sparse") is not False:
        raise _refuse("the arrays of a support vector machine do not fit each other")


def _check_logistic(logistic: LogisticRegression) -> None:
    """One row of weights a class, or one for two classes: NumPy would stretch another shape without a word."""
    state, width = vars(logistic), _width(logistic)
    n_outputs = _n_outputs(state.get("classes_"))
    if not _is_layer(state.get("coef_"), state.get("intercept_"), (n_outputs, width), n_outputs):
        raise _refuse("the arrays of a logistic regression do not fit each other")


def _check_dense(dense: MLPClassifier) -> None:
    """Two layers with the activations that `featx.heads.softmax_pipeline` writes, and no others."""
    state, width = vars(dense), _width(dense)
    classes, weights, biases = (state.get(key) for key in ("classes_", "coefs_", "intercepts_"))
    n_outputs = _n_outputs(classes)
    if not (isinstance(weights, list) and isinstance(biases, list) and len(weights) == len(biases) == 2):
        raise _refuse("a dense head has another number of layers than two")
    n_hidden = np.size(biases[0])
    arrays_agree = (
        n_hidden >= 1
        and _is_layer(weights[0], biases[0], (width, n_hidden), n_hidden)
        and _is_layer(weights[1], biases[1], (n_hidden, n_outputs), n_outputs)
        and (state.get("n_layers_"), state.get("n_outputs_")) == (3, n_outputs)
    )
    activations = (state.get("activation"), state.get("out_activation_"))
    if not arrays_agree or activations != ("relu", "logistic" if n_outputs == 1 else "softmax"):
        raise _refuse("the arrays of a dense head do not fit each other")
    names = state.get("_label_binarizer")
    if type(names) is not LabelBinarizer or not np.array_equal(vars(names).get("classes_", ()), classes):
        raise _refuse("a dense head has other classes than outputs")
    kind = tuple(vars(names).get(key) for key in ("y_type_", "sparse_input_", "neg_label", "pos_label"))
    if kind != ("binary" if n_outputs == 1 else "multiclass", False, 0, 1):
        raise _refuse("a dense head has other classes than outputs")


def _n_outputs(classes: Any) -> int:
    """Return the outputs that scikit-learn has for classes: one for two of them."""
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or len(classes) < 2:
        raise _refuse("a classifier does not say which classes it has")
    return 1 if len(classes) == 2 else len(classes)


def _is_layer(weight: Any, bias: Any, shape: tuple[int, int], n_outputs: int) -> bool:
    return (
        isinstance(weight, np.ndarray)
        and isinstance(bias, np.ndarray)
        and (weight.shape, bias.shape) == (shape, (n_outputs,))
        and weight.dtype in (np.float32, np.float64)
        and bias.dtype in (np.float32, np.float64)
    )


def _check_quantizer(quantizer: ProductQuantizer) -> None:
    """Codes are bytes: there must be a codeword for each, and the parts must add up to the rows."""
    state, width = vars(quantizer), _width(quantizer)
    codebooks, rotation, mean = (state.get(key) for key in ("codebooks_", "rotation_", "mean_"))
    if not isinstance(codebooks, np.ndarray) or codebooks.ndim != 3 or not isinstance(mean, np.ndarray):
        raise _refuse("the codebooks of a product quantizer are not an array of three axes")
    n_subspaces, n_codewords, part = codebooks.shape
    inner = n_subspaces * part
    if rotation is None:
        rotation_agrees = inner == width
    else:
        rotation_agrees = isinstance(rotation, np.ndarray) and rotation.shape == (inner, width)
    arrays_agree = (
        rotation_agrees
        and mean.shape == (width,)
        and all(array is None or array.dtype.kind == "f" for array in (codebooks, rotation, mean))
        and n_codewords in {2**n_bits for n_bits in range(1, 9)}
        and (state.get("n_subspaces_"), state.get("n_bits_")) == (n_subspaces, n_codewords.bit_length() - 1)
    )
    if not arrays_agree:
        raise _refuse("the arrays of a product quantizer do not fit each other")
