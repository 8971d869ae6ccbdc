"""The layout of a store, format 1, and the shapes of what goes into it.

MUST and MAY are meant as in RFC 2119. Row *i* of every dataset under ``/images``, ``/features`` and ``/maps`` is the
same image.

File
    A store MUST be one HDF5 file that needs no other file: no soft, external or user-defined links, no external
    storage, no virtual datasets. Every dataset MUST be chunked, every chunk MUST be written, and every dataset MUST
    have the fletcher32 filter; shuffle and deflate MAY be added, other filters MUST NOT. Strings in datasets MUST be
    of fixed length, UTF-8, padded with NUL; numbers MUST be little-endian integers or IEEE floats. Readers MUST ignore
    names they do not know. This writer uses no compression, chunks of whole rows of about 1 MiB (maps: 64 KiB),
    and the HDF5 1.10 file format, whose metadata carries checksums of its own.

``/`` attributes
    ==================  ========  ==========================================================================
    ``format``          string    ``"featx"``; ``"featx-segment"`` in a segment
    ``format_version``  integer   1; a reader MUST refuse a greater number
    ``rows``            integer   n, the number of images
    ``fingerprint``     string    JSON object: how the features were made
    ``source``          string    where the images came from, for people; absent in a segment
    ``aliases``         string    JSON object: other name → key or layer; absent in a segment
    ``complete``        boolean   true; set last. A reader MUST NOT silently use a file where it is missing or false
    ==================  ========  ==========================================================================

Datasets
    ======================  ==========  =========  ===============================================================
    ``/images/path``        (n,)        string     relative to the source, ``/`` between parts, listing order; bytes
                                                   that are not UTF-8, and NUL, as ``%`` and two upper-case hex digits
                                                   (whoever lists the images writes ``%25`` where a real ``%`` could
                                                   be mistaken for one)
    ``/images/digest``      (n, 16)     uint8      BLAKE2b-128 of the image file's bytes
    ``/images/phash``       (n, 8)      uint8      perceptual hash of the decoded picture
    ``/images/size``        (n, 2)      int32      width, height in pixels, EXIF orientation applied
    ``/images/label``       (n,)        int32      index into ``/labels/names``, −1 = none
    ``/images/split``       (n,)        int8       −1 none, 0 train, 1 val, 2 test
    ``/images/group``       (n,)        int32      MAY be missing; images that must not be split between folds
    ``/labels/names``       (k,)        string     names of the classes
    ``/features/KEY``       (n, d)      float32,   KEY is ``LAYER@POOL``; d ≥ 1; ``uint8`` are codes and MUST have
                                        float16,   the attribute ``codec``, see below
                                        uint8
    ``/maps/LAYER``         (n, h, w,   float16    MAY be missing; the spatial map of a layer: h rows and w columns of
                            c)                     places with c channels each; h, w, c ≥ 1
    ``/reducers/KEY/NAME``  any         number     MAY be missing; arrays of the reducer that made ``/features/KEY``
    ``/failures/path``      (m,)        string     images that have no row
    ``/failures/reason``    (m,)        string     why, one each
    ======================  ==========  =========  ===============================================================

    A ``/features`` dataset MUST have the attributes ``layer`` and ``pool`` (strings), ``depth`` (float64, 0 to 1,
    how far down the network) and ``map_shape`` (1-D int64: shape of the tapped tensor without its batch axis).

    A ``/maps`` dataset needs no attributes. Its axes MUST be in this order, whatever the network's own is; of networks
    of tokens it holds the patches without class token and registers. ``LAYER`` MUST NOT contain ``/`` or ``@``. Maps
    are no part of the fingerprint, and a layer MAY have a map without having features.

Reduced features
    In a reduced store ``/features/KEY`` holds what a reducer made of the features ``KEY`` of a network, and the field
    ``reduction`` of the fingerprint says which one: an object with ``by`` (``"pca:128"``), ``of`` (object: key →
    digest of the fitted reducer), ``on`` (which rows it was fitted on), ``rows`` (how many) and ``seed``. A group
    ``/reducers/KEY`` MUST have the attribute ``kind``, a string; its other attributes are parameters of the reducer
    (numbers, booleans, strings), its datasets are arrays of at least one value and one axis. The digest of a fitted
    reducer is BLAKE2b-128 over a JSON object {``kind``, ``parameters``: object, ``arrays``: {name: [dtype, shape,
    digest as in ``/digests``]}}, encoded as the attributes are, dtypes written like ``<f4``.

    ``uint8`` features are codes. Their attribute ``codec`` MUST be ``"pq"`` (other features MUST NOT have it), and
    ``/reducers/KEY`` MUST be of that kind: columns are subspaces, values are numbers of codewords.

``/digests``
    A group whose attributes MUST name every dataset by its absolute path (``/images/path``); the value is a string of
    32 lower-case hex digits: BLAKE2b with 16 bytes of output, no key, over the elements in C order, little-endian,
    strings with their padding. The attribute ``attributes`` is the same digest over all attributes of all other
    objects: a JSON object {object's path: {attribute: value}}, objects without attributes left out, arrays as lists,
    encoded by ``json.dumps(…, sort_keys=True, separators=(",", ":"), ensure_ascii=False)`` in UTF-8.

Segments
    A segment (``NNNNNN.h5`` in the folder ``NAME.h5.parts``) holds computed rows in any order, found again by their
    digest. It is written like a store, but has of ``/images`` only path, digest, phash and size, and neither
    ``/labels`` nor ``/failures``; of ``/features`` and ``/maps`` it has what was computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FORMAT_VERSION = 1
STORE_FORMAT = "featx"
SEGMENT_FORMAT = "featx-segment"

# Datasets of /images: name → (dtype, shape of one row). Paths are strings and stand apart.
ROW_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "digest": ("u1", (16,)),
    "phash": ("u1", (8,)),
    "size": ("<i4", (2,)),
    "label": ("<i4", ()),
    "split": ("i1", ()),
    "group": ("<i4", ()),
}
SEGMENT_COLUMNS = ("path", "digest", "phash", "size")
STORE_COLUMNS = (*SEGMENT_COLUMNS, "label", "split")  # group MAY be missing
VALUE_DTYPES = ("float32", "float16")
CODE_DTYPE = "uint8"
MAP_DTYPE = "float16"
CODECS = ("pq",)  # of codes; features that are values have the codec ""


@dataclass(frozen=True)
class FeatureInfo:
    """Describes one dataset under ``/features``.

    Attributes
    ----------
    key : str
        ``LAYER@POOL``, the name of the dataset.
    layer, pool : str
        The two halves of the key.
    depth : float
        How far down the network the layer lies, 0 to 1.
    map_shape : tuple of int
        Shape of the tapped tensor without its batch axis.
    width : int
        Columns.
    dtype : str
        How values are stored: ``"float32"`` or ``"float16"``; ``"uint8"`` for codes.
    codec : str
        What codes mean: ``"pq"``; empty for values.
    """

    key: str
    layer: str
    pool: str
    depth: float
    map_shape: tuple[int, ...]
    width: int
    dtype: str
    codec: str = ""

    @property
    def dataset(self) -> str:
        """Absolute path in the file."""
        return f"/features/{self.key}"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of what one image has."""
        return (self.width,)

    @property
    def bytes_per_image(self) -> int:
        """Bytes of what one image has."""
        return self.width * np.dtype(self.dtype).itemsize

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"features {self.key!r}"


@dataclass(frozen=True)
class MapInfo:
    """Describes one dataset under ``/maps``; as text, one line for people.

    Attributes
    ----------
    layer : str
        Name of the layer and of the dataset.
    shape : (int, int, int)
        Rows, columns and channels of one image's map.
    dtype : str
        How values are stored: ``"float16"``.
    """

    layer: str
    shape: tuple[int, int, int]
    dtype: str = MAP_DTYPE

    def __str__(self) -> str:
        sides = " x ".join(map(str, self.shape))
        return f"map of {self.layer}: {sides}, {self.bytes_per_image / 1000:.1f} kB an image"

    @property
    def key(self) -> str:
        """The layer: other than the key of features, it has no ``@``."""
        return self.layer

    @property
    def dataset(self) -> str:
        """Absolute path in the file."""
        return f"/maps/{self.layer}"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of what one image has."""
        return self.shape

    @property
    def bytes_per_image(self) -> int:
        """Bytes of what one image has."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"map {self.layer!r}"


# What every image of a store has a row of, beside its entry in the table.
RowInfo = FeatureInfo | MapInfo


@dataclass(frozen=True)
class StoredReducer:
    """A fitted reducer as plain numbers; what they mean is known where reducers are made.

    Attributes
    ----------
    kind : str
        ``"pca"`` or ``"pq"``.
    parameters : mapping of str to bool, int, float or str
        What is a single value.
    arrays : mapping of str to ndarray
        What is an array: of numbers, with at least one axis and one value.
    """

    kind: str
    parameters: Mapping[str, bool | int | float | str]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RowBlock:
    """Computed rows of n images, identified by content.

    Attributes
    ----------
    paths : sequence of str
        n paths, so that a segment can be read by people.
    digests : ndarray of shape (n, 16), uint8
    phashes : ndarray of shape (n, 8), uint8
    sizes : ndarray of shape (n, 2), int32
        Width and height in pixels.
    features : mapping of str to ndarray of shape (n, d) or (n, h, w, c)
        Key → values: ``LAYER@POOL`` for features, ``LAYER`` for maps.
    """

    paths: Sequence[str]
    digests: np.ndarray
    phashes: np.ndarray
    sizes: np.ndarray
    features: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ImageTable:
    """The n rows of a store, in listing order.

    Attributes
    ----------
    paths : sequence of str
    digests : ndarray of shape (n, 16), uint8
    labels : ndarray of shape (n,), int32
        Index into `label_names`, −1 = none.
    label_names : sequence of str
    splits : ndarray of shape (n,), int8
        −1 none, 0 train, 1 val, 2 test.
    groups : ndarray of shape (n,), int32, or None
        Images of one group must not be split between folds.
    """

    paths: Sequence[str]
    digests: np.ndarray
    labels: np.ndarray
    label_names: Sequence[str]
    splits: np.ndarray
    groups: np.ndarray | None
