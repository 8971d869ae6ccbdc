"""A fitted pipeline as bytes, and back, without running anything that a file asks for.

The bytes are those of ``skops.io``: arrays in NumPy's format and a tree of type names. skops trusts most of
scikit-learn, NumPy and SciPy by default; featx writes only a few types, and reads no other.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from sklearn.pipeline import Pipeline

from featx.errors import StoreError, UnsafeFileError
from featx.heads.safety import check_loaded

# How skops rebuilds an object → the types that may be rebuilt so.
ALLOWED_TYPES: dict[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "JsonNode": frozenset({"builtins.str"}),
    "TypeNode": frozenset({"builtins.str", "builtins.int"}),  # types of the keys of a dict
    "NdArrayNode": frozenset(
        {
            "numpy.ndarray",
            "numpy.float32",
            "numpy.float64",
            "numpy.int32",
            "numpy.int64",
            "numpy.uint8",
            "numpy.uint32",
            "numpy.uint64",
            "numpy.bool",
            "numpy.bool_",
        }
    ),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "LossNode": frozenset({"sklearn._loss._loss.CyHalfBinomialLoss", "sklearn._loss._loss.CyHalfMultinomialLoss"}),
    "ObjectNode": frozenset(
        {
            "featx.reducers.SignedSquareRoot",  # where it was in featx 0.1
            "featx.reducers.layerwise.LayerwiseScaler",
            "featx.reducers.product_quantizer.ProductQuantizer",
            "featx.reducers.scalers.SignedSquareRoot",
            "featx.reducers.streaming_pca.StreamingPCA",
            "sklearn._loss.link.Interval",
            "sklearn._loss.link.LogitLink",
            "sklearn._loss.link.MultinomialLogit",
            "sklearn._loss.loss.HalfBinomialLoss",
            "sklearn._loss.loss.HalfMultinomialLoss",
            "sklearn.calibration.CalibratedClassifierCV",
            "sklearn.calibration._CalibratedClassifier",
            "sklearn.calibration._SigmoidCalibration",
            "sklearn.decomposition._pca.PCA",
            "sklearn.dummy.DummyClassifier",
            "sklearn.ensemble._forest.RandomForestClassifier",
            "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
            "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
            "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
            "sklearn.linear_model._logistic.LogisticRegression",
            "sklearn.linear_model._ridge.RidgeClassifier",
            "sklearn.neighbors._classification.KNeighborsClassifier",
            "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
            "sklearn.pipeline.Pipeline",
            "sklearn.preprocessing._data.MinMaxScaler",
            "sklearn.preprocessing._data.Normalizer",
            "sklearn.preprocessing._data.StandardScaler",
            "sklearn.preprocessing._function_transformer.FunctionTransformer",
            "sklearn.preprocessing._label.LabelBinarizer",
            "sklearn.preprocessing._label.LabelEncoder",
            "sklearn.svm._classes.LinearSVC",
            "sklearn.svm._classes.SVC",
            "sklearn.tree._classes.DecisionTreeClassifier",
        }
    ),
}
_SCHEMA = "schema.json"
_ADVICE = "Use only files from a source you trust."


def dump_head(pipeline: Pipeline) -> bytes:
    """Return a fitted pipeline as bytes for ``load_head``.

    Raises
    ------
    UnsafeFileError
        When it holds a type that ``load_head`` would refuse, named in the message.
    """
    import skops.io

    data = skops.io.dumps(pipeline)
    _check_schema(data)
    return data


def load_head(data: bytes) -> Pipeline:
    """Return the pipeline that ``dump_head`` turned into bytes.

    Raises
    ------
    StoreError
        When the bytes are not those of a pipeline.
    UnsafeFileError
        When they ask for a type that is not in ``ALLOWED_TYPES``, for more bytes than they hold, or for trees that
        point outside of themselves.
    """
    import skops.io

    _check_schema(data)
    try:
        pipeline = skops.io.loads(data, trusted=sorted(set().union(*ALLOWED_TYPES.values())))
    except Exception as error:  # whatever a constructor says about a state that it never wrote
        raise UnsafeFileError(f"the classifier is refused: it cannot be rebuilt ({error}). {_ADVICE}") from error
    if not isinstance(pipeline, Pipeline):
        raise UnsafeFileError(
            f"the classifier is refused: it is a {type(pipeline).__name__}, not a Pipeline. {_ADVICE}"
        )
    try:
        check_loaded(pipeline)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, UnsafeFileError):
            raise
        raise UnsafeFileError(f"the classifier is refused: its parts have odd types ({error}). {_ADVICE}") from error
    return pipeline


def _check_schema(data: bytes) -> None:
    """Check sizes and types in the bytes before skops builds anything from them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as zip_file:
            _check_sizes(zip_file.infolist(), len(data))
            schema = json.loads(zip_file.read(_SCHEMA))
    except UnsafeFileError:
        raise
    except RecursionError as error:
        raise UnsafeFileError(f"the classifier is refused: it is nested too deeply. {_ADVICE}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RuntimeError, EOFError) as error:
        raise StoreError(f"the classifier cannot be read: {error}. Make it again or fetch a fresh copy.") from error
    _check_types(schema)


def _check_sizes(entries: list[zipfile.ZipInfo], n_bytes: int) -> None:
    """Refuse compression, without which the entries cannot grow beyond the bytes that are there."""
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise UnsafeFileError(f"the classifier is refused: an entry is compressed, featx never does that. {_ADVICE}")
    if sum(entry.file_size for entry in entries) > n_bytes:
        raise UnsafeFileError(f"the classifier is refused: its entries claim more bytes than there are. {_ADVICE}")


def _check_types(schema: Any) -> None:
    """Walk over the whole schema; every object in it must be of an allowed type, rebuilt in the allowed way."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            pending.extend(node.values())
            if "__loader__" in node:
                _check_node(node)


def _check_node(node: dict[str, Any]) -> None:
    loader, name = node["__loader__"], f"{node.get('__module__')}.{node.get('__class__')}"
    if not isinstance(loader, str) or name not in ALLOWED_TYPES.get(loader, ()):
        raise UnsafeFileError(f"the classifier is refused: it holds a {name} ({loader}), not on the list. {_ADVICE}")
    if loader == "RandomGeneratorNode" and _bit_generator(node) != '"PCG64"':
        raise UnsafeFileError(f"the classifier is refused: it holds an odd random generator. {_ADVICE}")


def _bit_generator(node: dict[str, Any]) -> Any:
    """Return the name, as JSON, that skops looks up in ``numpy.random`` and calls."""
    try:
        return node["content"]["bit_generator"]["content"]["bit_generator"]["content"]
    except (KeyError, TypeError):
        return None
