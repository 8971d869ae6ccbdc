"""From features to the vectors and the structure of an index, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import UsageError
from featx.retrieval.embedding import Embedding
from featx.retrieval.expansion import augment_blocks
from featx.retrieval.growth import Growth
from featx.retrieval.scanning import nearest_places
from featx.retrieval.vector_rows import VectorRows
from featx.retrieval.vectors import checked_blocks

if TYPE_CHECKING:
    from featx.retrieval.structures import Structure
    from featx.retrieval.tuning import Tuning

_UNBOUNDED = 2**62
_USUAL_RECALL = "0.95@10"
_AUGMENT_ALPHA = 1.0  # gains about twice as much as 3 where any image of a class will do, which is what it is for
_DRIFT_SAMPLE = 10_000  # vectors that distortion is measured on


def build_vectors(
    features: Any,
    embedding: Embedding | None = None,
    *,
    whiten: int | None = None,
    augment: int = 0,
    memory: int | None = None,
    folder: Path | None = None,
) -> tuple[Embedding, VectorRows]:
    """Return a fitted embedding and what it makes of features.

    Parameters
    ----------
    features : array-like of shape (n, d), or iterable of such blocks
        What only has a shape and gives rows by slices is read a block at a time, as often as is needed.
    embedding : Embedding, optional
        Fitted where it needs to be.
    whiten : int, optional
        Components, where no embedding is given.
    augment : int
        Neighbours that each vector is averaged with.
    memory : int, optional
        Bytes that vectors may take; beyond, they go to a temporary file.
    folder : Path, optional
        Of that file.

    Raises
    ------
    UsageError
        For no features, features of several widths, or NaN and infinity (the message names rows).
    StoreError
        The disk is full.
    """
    limit = _UNBOUNDED if memory is None else memory // 4
    blocks, width = _readable_again(features, limit, folder, once=embedding is None and whiten is None)
    embedding = embedding or Embedding([width], whiten=whiten)
    if not embedding.is_fitted:
        embedding.fit(blocks())
    fitted = embedding
    rows = VectorRows.spooled((fitted.transform(block) for block in blocks()), memory=limit, folder=folder)
    if augment:
        own = rows
        augmented = augment_blocks(
            own.take,
            len(own),
            lambda queries, k: nearest_places(queries, own, k),
            n_neighbours=augment,
            alpha=_AUGMENT_ALPHA,
        )
        rows = VectorRows.spooled(augmented, memory=limit, folder=folder)
    return embedding, rows


def build_structure(
    rows: VectorRows,
    recall: str | None,
    *,
    memory: int | None,
    factory: str | None,
    seed: int = 0,
    on_step: Callable[[str, int, int], None] | None = None,
) -> tuple[Structure | None, Tuning | None, Growth]:
    """Return the structure that meets a wish, how it was found, and what to compare later images with.

    Parameters
    ----------
    rows : VectorRows
        All vectors.
    recall, memory, factory, seed, on_step
        As for `ImageIndex.build`; where neither recall nor memory nor factory is given, nothing is tried.

    Raises
    ------
    UsageError
        The wish cannot be met.
    """
    if recall is None and memory is None and factory is None:
        return None, None, Growth(len(rows))

    from featx.retrieval.tuning import tune
    from featx.retrieval.tuning.wishes import parse_recall

    wish = parse_recall(recall or _USUAL_RECALL)
    structure, tuning = tune(
        rows, wish, memory=memory, factory=factory, seed=seed, on_step=on_step, at_any_recall=recall is None
    )
    if structure is None:
        return None, tuning, Growth(len(rows))
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), min(_DRIFT_SAMPLE, len(rows)), replace=False))
    return structure, tuning, Growth(len(rows), structure.distortion(rows.take(sample)))


def parse_memory(memory: int | str | None) -> int | None:
    """Return a number of bytes, which may be given as text."""
    if memory is not None and not isinstance(memory, str) and memory < 1:
        raise UsageError(f"memory is {memory} bytes; give at least 1, or a text such as 2GB")
    if not isinstance(memory, str):
        return memory

    from featx.retrieval.tuning.wishes import parse_bytes

    return parse_bytes(memory)


def _readable_again(
    features: Any, memory: int, folder: Path | None, *, once: bool
) -> tuple[Callable[[], Iterator[np.ndarray]], int]:
    """Return what gives the blocks of features from the beginning each time, and their width.

    Blocks that come but once are kept where they are needed twice.
    """
    if isinstance(features, list | tuple) and features and np.ndim(features[0]) == 1:
        features = np.asarray(features)  # a list of rows, not of blocks
    if len(getattr(features, "shape", ())) == 2 and all(features.shape):
        return lambda: checked_blocks(features), int(features.shape[1])
    checked = checked_blocks(features)
    if not once:
        kept = VectorRows.spooled((block.astype(np.float32) for block in checked), memory=memory, folder=folder)
        return kept.blocks, kept.width
    first = next(checked)
    return lambda: chain([first], checked), int(first.shape[1])
