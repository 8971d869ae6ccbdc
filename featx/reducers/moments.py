"""Second moments of rows that come in blocks, and the axes along which the rows vary most.

Two roads lead to the same axes: the covariance of the columns (`Scatter`), whose size does not grow with the rows, and
the Gram matrix of the rows (`KeptRows`), which is smaller as long as there are fewer rows than columns. Everything is
accumulated in float64 and centred before it is squared, so that a large mean costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg
from scipy.linalg.blas import dsyrk

from featx.errors import UsageError
from featx.reducers.row_blocks import rows_per_block

MAX_COVARIANCE_COLUMNS = 16_384  # a float64 matrix of this size takes 2 GB
MAX_GRAM_ROWS = 16_384  # the same, of rows above that many columns
_SUBSET_PAYS_BELOW = 0.15  # share of the eigenvectors; measured at 320, 640 and 1280 columns on two cores
_WEAK_BELOW = 1e-8  # of the largest eigenvalue; above it, directions from a Gram matrix are orthogonal to 1e-12


@dataclass(frozen=True)
class PrincipalAxes:
    """The directions along which rows vary most.

    Attributes
    ----------
    directions : ndarray of float64, shape (n_components, n_columns)
        Orthonormal rows, the largest variation first; of each, the entry of largest absolute value is positive.
    scatter : ndarray of float64, shape (n_components,)
        Sum of squares of the centred rows along each; exactly 0 where it cannot be told from rounding.
    total_scatter : float
        The same sum over all directions, also those not kept.
    """

    directions: np.ndarray
    scatter: np.ndarray
    total_scatter: float


class Scatter:
    """Mean and centred scatter matrix of rows, in memory that does not grow with them.

    Parameters
    ----------
    n_columns : int
        Memory is 8·n_columns² bytes.

    Notes
    -----
    Each block is centred by its own mean, and means and scatters are merged with the formula of Chan, Golub and
    LeVeque. The merging term is of rank one: it is appended to the block as one more row, so that one symmetric product
    (half of the multiplications of a full one) does everything.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque: Updating formulae and a pairwise algorithm for computing sample variances,
    COMPSTAT 1982.
    """

    def __init__(self, n_columns: int) -> None:
        self.n_rows = 0
        self._lower = np.zeros((n_columns, n_columns), order="F")  # only the lower triangle is kept
        self._first_row = np.zeros(n_columns)
        self._mean = np.zeros(n_columns)  # of the differences to the first row
        self._buffer = np.empty((0, n_columns))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_buffer": self._buffer[:0].copy()}

    @property
    def mean(self) -> np.ndarray:
        """Mean of the rows, float64, shape (n_columns,)."""
        return self._first_row + self._mean

    def add(self, block: np.ndarray) -> None:
        """Take in some rows, an array of shape (n, n_columns)."""
        n_new = len(block)
        if not self.n_rows:
            self._first_row = block[0].astype(np.float64)
        if len(self._buffer) <= n_new:
            self._buffer = np.empty((n_new + 1, len(self._mean)))
        # differences to the first row: the rounding of their mean is as small as they are, and 0 for constant columns
        centred = np.subtract(block, self._first_row, out=self._buffer[:n_new])
        mean = centred.mean(axis=0)
        centred -= mean
        n_rows = self.n_rows + n_new
        shift = mean - self._mean
        self._buffer[n_new] = shift * math.sqrt(self.n_rows * n_new / n_rows)
        # rows.T is in Fortran's order, and `c` is overwritten: nothing is copied
        rows = self._buffer[: n_new + 1]
        self._lower = dsyrk(1.0, rows.T, beta=1.0, c=self._lower, lower=1, overwrite_c=1)
        self._mean = self._mean + shift * (n_new / n_rows)
        self.n_rows = n_rows

    def axes(self, n_components: int | float) -> PrincipalAxes:
        """Return the leading axes, so many, or as many as explain more than a fraction of the variation."""
        total = _checked_total(self._lower)
        scatter, vectors = _leading_eigenpairs(self._lower, n_components, total)
        return PrincipalAxes(_with_fixed_signs(vectors.T), scatter, total)


class KeptRows:
    """Rows kept as they came, for the Gram road: fewer rows than columns.

    Parameters
    ----------
    n_columns : int
        Above ``MAX_COVARIANCE_COLUMNS``, at most ``MAX_GRAM_ROWS`` rows are taken.
    copy : bool
        Whether the blocks may change after ``add``, so that copies must be kept.
    """

    def __init__(self, n_columns: int, *, copy: bool) -> None:
        self.n_rows = 0
        self.n_columns = n_columns
        self.blocks: list[np.ndarray] = []
        self._copy = copy

    def add(self, block: np.ndarray) -> None:
        """Take in some rows, an array of shape (n, n_columns).

        Raises
        ------
        UsageError
            When both rows and columns become too many.
        """
        check_size(self.n_rows + len(block), self.n_columns)
        self.blocks.append(block.copy() if self._copy else block)
        self.n_rows += len(block)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the rows, float64, shape (n_columns,)."""
        return self._first_row + self._mean_difference

    @property
    def _first_row(self) -> np.ndarray:
        return self.blocks[0][0].astype(np.float64)

    @property
    def _mean_difference(self) -> np.ndarray:
        first = self._first_row
        return np.sum([(block - first).sum(axis=0) for block in self.blocks], axis=0) / self.n_rows

    def axes(self, n_components: int | float) -> PrincipalAxes:
        """Return the leading axes, so many, or as many as explain more than a fraction of the variation."""
        gram = np.zeros((self.n_rows, self.n_rows), order="F")
        for _, centred in self._centred_columns():
            gram = dsyrk(1.0, centred.T, beta=1.0, c=gram, trans=1, lower=1, overwrite_c=1)
        total = _checked_total(gram)
        scatter, vectors = _leading_eigenpairs(gram, n_components, total)
        directions = np.empty((len(scatter), self.n_columns))
        for columns, centred in self._centred_columns():
            directions[:, columns] = vectors.T @ centred
        return PrincipalAxes(_with_fixed_signs(_orthonormal(directions, scatter)), scatter, total)

    def _centred_columns(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of columns and all rows of them, in float64 and centred; a bounded part at a time."""
        first, mean = self._first_row, self._mean_difference
        n_columns = rows_per_block(self.n_rows)
        for start in range(0, self.n_columns, n_columns):
            columns = slice(start, start + n_columns)
            part = np.concatenate([block[:, columns] for block in self.blocks], dtype=np.float64)
            part -= first[columns]
            part -= mean[columns]
            yield columns, part


Moments = Scatter | KeptRows


def moments_for(n_rows: int, n_columns: int) -> Moments:
    """Return empty moments for a known number of rows, on the shorter road.

    Raises
    ------
    UsageError
        When both rows and columns are too many.
    """
    check_size(n_rows, n_columns)
    return KeptRows(n_columns, copy=False) if n_rows < n_columns else Scatter(n_columns)


def extended(moments: Moments, block: np.ndarray) -> Moments:
    """Add a block; return the moments, which are on the road of covariance once rows reach columns.

    Raises
    ------
    UsageError
        When both rows and columns become too many.
    """
    moments.add(block)
    if not isinstance(moments, KeptRows) or moments.n_rows < moments.n_columns:
        return moments
    scatter = Scatter(moments.n_columns)
    for kept in moments.blocks:
        scatter.add(kept)
    return scatter


def check_size(n_rows: int, n_columns: int) -> None:
    """Refuse what neither road can take.

    Raises
    ------
    UsageError
        When both rows and columns are too many.
    """
    if n_columns > MAX_COVARIANCE_COLUMNS and n_rows > MAX_GRAM_ROWS:
        raise UsageError(
            f"{n_rows:,} rows of {n_columns:,} columns are too many for a PCA; allowed are any number of rows of up to "
            f"{MAX_COVARIANCE_COLUMNS:,} columns, or up to {MAX_GRAM_ROWS:,} rows of more. Pool the layer to fewer "
            "columns, with grid:K and a small K, or give fewer rows."
        )


def _checked_total(lower: np.ndarray) -> float:
    """Return the trace; it bounds every entry, so that a finite one means a finite matrix."""
    total = float(np.trace(lower))
    if not np.isfinite(total):
        raise UsageError(
            "the squares of the values are too large for float64; values up to about 1e150 are allowed. Scale them."
        )
    return total


def _leading_eigenpairs(lower: np.ndarray, n_components: int | float, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues, descending, and their eigenvectors as columns, of a lower triangle."""
    size = len(lower)
    if isinstance(n_components, int) and n_components < _SUBSET_PAYS_BELOW * size:
        wanted = (size - n_components, size - 1)
        values, vectors = linalg.eigh(lower, lower=True, driver="evr", subset_by_index=wanted, check_finite=False)
    else:
        values, vectors = linalg.eigh(lower, lower=True, driver="evd", check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    # rounding leaves eigenvalues of about this size, of either sign, where the rows do not vary
    values = np.where(values > size * np.finfo(np.float64).eps * values[0], values, 0.0)
    if isinstance(n_components, float):
        explained = np.cumsum(values)
        n_components = min(int(np.searchsorted(explained, n_components * total, side="right")) + 1, size)
    return values[:n_components], vectors[:, :n_components]


def _orthonormal(directions: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """Return rows of length 1 from rows whose squared lengths are `scatter`, descending.

    Where the scatter is weak, much of a row is rounding, and where it is 0, all of it: such rows are made orthogonal to
    the others, the latter starting from arbitrary ones.
    """
    n_strong = int((scatter > _WEAK_BELOW * scatter[0]).sum())
    strong = directions[:n_strong] / np.sqrt(scatter[:n_strong])[:, None]
    if n_strong == len(directions):
        return strong
    weak = directions[n_strong:]
    null = scatter[n_strong:] == 0
    weak[null] = np.random.default_rng(0).normal(size=(int(null.sum()), weak.shape[1]))
    weak /= np.linalg.norm(weak, axis=1, keepdims=True)
    for _ in range(2):  # once leaves rounding where little remains
        weak -= (weak @ strong.T) @ strong
        weak = linalg.qr(weak.T, mode="economic", check_finite=False)[0].T
    return np.concatenate([strong, weak])


def _with_fixed_signs(directions: np.ndarray) -> np.ndarray:
    """Return the rows, each with the sign that makes its entry of largest absolute value positive."""
    largest = np.abs(directions).argmax(axis=1)
    signs = np.where(directions[np.arange(len(directions)), largest] < 0, -1.0, 1.0)
    return np.ascontiguousarray(directions * signs[:, None])
