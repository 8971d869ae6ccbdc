"""Groups of images that are copies of each other, or nearly: by file, by perceptual hash and by features.

Two pictures are as *like* as the cosine of their late features is high and their perceptual hashes agree::

    likeness = cosine - differing bits / 64

where the bits are counted once as they are and once with one picture mirrored, and the smaller number is taken. The
two parts make up for each other: another compression or size hardly moves the hash but lowers the cosine; a small
crop, a rotation or a mirrored copy moves the hash but hardly the cosine. ``scripts/check_near_duplicates.py`` measures
what is found and what is found wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from featx.errors import UsageError

MIN_LIKENESS = 0.8

_BITS = 64
# Mirroring a picture turns the sign of its odd horizontal frequencies, which are every other bit from the first on.
_MIRROR = np.tile(np.array([-1, 1], np.float32), _BITS // 2)
# Where a group grows too large, it is asked to hold together at likenesses so much higher.
_STRICTER = (0.0, 0.05, 0.1, 0.15)
_SMALLEST_LIMIT = 10
_LARGEST_SHARE = 10


@dataclass(frozen=True)
class NearDuplicates:
    """Which images belong together because they show the same picture.

    Attributes
    ----------
    groups : ndarray of int32, shape (n,)
        Group of each row, numbered from 0 in the order of their first rows; −1 is alone.
    n_identical : int
        Rows whose file is byte for byte that of an earlier row.
    n_near : int
        Further rows that are near an earlier row of their group.
    n_split_up : int
        Groups that were too large to be believed and were split up, see `find_near_duplicates`.
    """

    groups: np.ndarray
    n_identical: int
    n_near: int
    n_split_up: int


def find_near_duplicates(
    digests: np.ndarray,
    phashes: np.ndarray,
    features: Any = None,
    *,
    min_likeness: float = MIN_LIKENESS,
    max_group: int | None = None,
    tile_rows: int = 1024,
) -> NearDuplicates:
    """Return groups of identical and nearly identical images.

    Rows with the same digest are in one group. So are rows with a likeness of at least `min_likeness`, directly or
    through others between them. A hash of 0 is that of a picture without structure, such as a plain colour: it says
    nothing, and such rows are compared by digest only.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, b)
        Digest of each file.
    phashes : ndarray of uint8, shape (n, 8)
        Perceptual hash of each picture, see `featx.images.perceptual_hash`.
    features : array-like of shape (n, d), optional
        What the last layer of a trained network before its classifier gives; rows are read where they are needed
        only. The default of `min_likeness` was found on such features, and does not hold for earlier layers, for
        reduced features or for random weights: leave them out there. Without features, pictures are near if their
        hashes are the same, which finds fewer but hardly ever wrong ones.
    min_likeness : float
        Above 0, at most 1. The default takes equal hashes from a cosine of 0.8 on, and at most 12 bits.
    max_group : int, optional
        Most different files in one group of near-duplicates: a tenth of all, at least 10, where not given. What is
        larger is a chain of pictures each only like the next, or a set whose pictures are all alike (parts on one
        conveyor), and would not leave enough groups for cross-validation. Such a group is held to likenesses higher
        by 0.05, 0.1, then 0.15, and falls apart to its identical files if it is still too large. On none of eight
        real sets did a group have more than 4 files.
    tile_rows : int
        Rows compared at a time, with twice as many; moves memory and time, not the result.

    Returns
    -------
    NearDuplicates

    Raises
    ------
    UsageError
        Shapes do not fit each other, or `min_likeness` is out of range.

    Notes
    -----
    Compares all pairs of hashes by matrix products, and cosines only where hashes let them be near. 50,000 rows of
    1280 columns took 15 to 25 s of processor time, 70 to 110 s where all hashes are equal, and at most about 250 MB
    beside the arrays given.
    """
    digests, phashes = _checked(digests, phashes, features, min_likeness)
    first_rows, file_of_row = _distinct_files(digests)
    n_files = len(first_rows)
    limit = max(_SMALLEST_LIMIT, n_files // _LARGEST_SHARE) if max_group is None else max_group
    # partitions[l][f]: the group of file f at the l-th likeness; each is finer than the one before
    if features is None:
        partitions = [_same_hash(phashes[first_rows])]
    else:
        partitions = _near_files(phashes, features, first_rows, min_likeness, tile_rows)
    group_of_file, n_split_up = _split_large([*partitions, np.arange(n_files)], limit)
    n_groups = len(np.unique(group_of_file))
    groups = number_groups(group_of_file[file_of_row])
    return NearDuplicates(groups, len(digests) - n_files, n_files - n_groups, n_split_up)


def likeness(phashes: np.ndarray, features: Any, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how like pictures are, at most 1; also of hashes of 0, which `find_near_duplicates` passes over.

    Parameters
    ----------
    phashes : ndarray of uint8, shape (n, 8)
        Perceptual hash of each picture.
    features : array-like of shape (n, d)
        Late features of each picture.
    rows, others : ndarray of int, shape (m,)
        The rows of each pair.

    Returns
    -------
    ndarray of float32, shape (m,)
    """
    rows, others = np.asarray(rows), np.asarray(others)
    signs = _signs(np.asarray(phashes))
    agreement = np.einsum("ij,ij->i", signs[rows], signs[others])
    mirrored = np.einsum("ij,ij->i", signs[rows] * _MIRROR, signs[others])
    cosines = np.einsum("ij,ij->i", _unit(features[rows]), _unit(features[others]))
    return cosines - _differing(np.maximum(agreement, mirrored)) / _BITS


def number_groups(groups: np.ndarray) -> np.ndarray:
    """Return the same groups numbered from 0 in the order of their first rows, with −1 for rows that are alone.

    Parameters
    ----------
    groups : ndarray of int, shape (n,)
        Not negative.

    Returns
    -------
    ndarray of int32, shape (n,)
    """
    _, first, place, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(counts > 1)
    numbers = np.full(len(counts), -1, np.int32)
    numbers[shared[np.argsort(first[shared])]] = np.arange(len(shared))
    return numbers[place]


def join(groups: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return groups in which the groups of each pair of rows have become one.

    Parameters
    ----------
    groups : ndarray of int, shape (n,)
        From 0 to n − 1.
    rows, others : ndarray of int, shape (m,)
        The rows of each pair.

    Returns
    -------
    ndarray of int32, shape (n,)
        From 0 on.
    """
    left, right = groups[rows], groups[others]
    apart = left != right
    if not apart.any():
        return groups
    edges = coo_matrix((np.ones(apart.sum(), bool), (left[apart], right[apart])), shape=(len(groups),) * 2)
    return connected_components(edges, directed=False)[1][groups]


def _checked(
    digests: np.ndarray, phashes: np.ndarray, features: Any, min_likeness: float
) -> tuple[np.ndarray, np.ndarray]:
    digests, phashes = np.asarray(digests), np.asarray(phashes)
    if digests.ndim != 2 or phashes.shape != (len(digests), _BITS // 8) or phashes.dtype != np.uint8:
        raise UsageError(
            f"digests of shape {digests.shape} and phashes of shape {phashes.shape}, {phashes.dtype}; needed are (n, b)"
            " and (n, 8) of uint8. Give what a store has as digests and phashes."
        )
    if features is not None and (len(features.shape) != 2 or features.shape[0] != len(digests)):
        raise UsageError(
            f"features of shape {tuple(features.shape)} for {len(digests)} digests; needed is ({len(digests)}, d). "
            "Give the features of the same rows, or none."
        )
    if not 0 < min_likeness <= 1:
        raise UsageError(f"min_likeness is {min_likeness}; allowed is above 0 and at most 1. 0.8 is the default.")
    return digests, phashes


def _distinct_files(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each distinct file, ascending, and the place of each row's file among them."""
    first, place = np.unique(digests, axis=0, return_index=True, return_inverse=True)[1:]
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[place.ravel()]


def _same_hash(phashes: np.ndarray) -> np.ndarray:
    """Group of each picture where groups have the same hash; each hash of 0 is on its own."""
    groups = np.unique(phashes, axis=0, return_inverse=True)[1].ravel()
    plain = np.flatnonzero(~phashes.any(axis=1))
    groups[plain] = len(phashes) + np.arange(len(plain))
    return groups


def _near_files(
    phashes: np.ndarray, features: Any, rows: np.ndarray, min_likeness: float, tile_rows: int
) -> list[np.ndarray]:
    """Group of each of the given rows, at the least likeness and at those above it."""
    levels = [min_likeness + step for step in _STRICTER if min_likeness + step <= 1]
    partitions = [np.arange(len(rows)) for _ in levels]
    structured = np.flatnonzero(phashes[rows].any(axis=1))
    signs = _signs(phashes[rows[structured]])
    max_bits = int((1 - min_likeness) * _BITS + 1e-9)
    for left, right, bits in _tiles(signs, max_bits, tile_rows):
        i, j = structured[left], structured[right]
        # What holds together at the highest likeness has nothing left to learn: sets of copies stay cheap.
        if len(np.unique(partitions[-1][np.concatenate([i, j])])) == 1:
            continue
        found = _unit(features[rows[i]]) @ _unit(features[rows[j]]).T
        found -= bits / _BITS
        for number, level in enumerate(levels):
            near_i, near_j = np.nonzero(found >= level)
            partitions[number] = join(partitions[number], i[near_i], j[near_j])
            if not len(near_i):
                break
    return partitions


def _signs(phashes: np.ndarray) -> np.ndarray:
    """Bits as −1 and 1, float32 of shape (n, 64): a dot product is then 64 less twice the differing bits."""
    return np.unpackbits(np.ascontiguousarray(phashes), axis=1).astype(np.float32) * 2 - 1


def _differing(agreement: np.ndarray) -> np.ndarray:
    return (_BITS - agreement) / 2


def _tiles(signs: np.ndarray, max_bits: int, tile_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows and columns of each tile of all pairs that have a pair of few differing bits, and all their bits.

    Together the tiles hold every pair of places whose hashes differ in at most `max_bits`, as they are or mirrored.
    """
    for top in range(0, len(signs), tile_rows):
        rows = signs[top : top + tile_rows]
        for left in range(top, len(signs), 2 * tile_rows):
            columns = signs[left : left + 2 * tile_rows].T
            agreement = rows @ columns
            np.maximum(agreement, (rows * _MIRROR) @ columns, out=agreement)
            if left == top:  # nothing is a copy of itself
                np.fill_diagonal(agreement, -_BITS)
            near = agreement >= _BITS - 2 * max_bits
            i, j = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
            if len(i):
                yield top + i, left + j, _differing(agreement[np.ix_(i, j)])


def _unit(block: Any) -> np.ndarray:
    block = np.asarray(block, np.float32)
    # float64, since squares of large float32 numbers overflow
    lengths = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
    return block / np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]


def _split_large(partitions: list[np.ndarray], limit: int) -> tuple[np.ndarray, int]:
    """Return groups of at most `limit`, each from the coarsest partition that allows it, and how many were larger."""
    groups, n_large = partitions[0], 0
    for number, finer in enumerate(partitions[1:]):
        place, counts = np.unique(groups, return_inverse=True, return_counts=True)[1:]
        large = counts[place] > limit
        if not large.any():
            break
        n_large = n_large if number else int((counts > limit).sum())
        groups = np.where(large, groups.max() + 1 + finer, groups)
    return groups, n_large
