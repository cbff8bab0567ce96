"""Out-of-core data: sums over chunks of rows, and a stratified sample that fits in memory.

``out_of_core`` builds a `ChunkedSource` and fills a `StratifiedSampler` in its first pass; the workers of
``sksoftmax.dask`` compute the same sums over the chunks of a partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from sksoftmax._data.batches import epoch_batches, uniform
from sksoftmax._engines.device import DeviceArray
from sksoftmax._engines.threads import read_ahead
from sksoftmax._maths.objective import hessian_product, loss_grad, sum_parts
from sksoftmax._types import Array, Batch, Moments, Params, Problem

#: Maximum size of the sample in bytes of X. The first model is fitted to it, and later its rows give the curvature.
SAMPLE_SIZE = 2**27

#: Size of a chunk in bytes of X: consecutive rows that are processed together.
CHUNK_SIZE = 2**20

#: Size of a window in bytes of X: the chunks whose rows are shuffled together.
_WINDOW_SIZE = 2**25

#: Fraction of the rows of a class that one thinning of the sample keeps, so that a thinned sample stays nearly full.
_THINNING_FRACTION = 0.8

#: A class with at most this number of rows in the sample is thinned only if no class has more, so that rare classes are
#: not lost.
MIN_CLASS_ROWS = 64


class ChunkedSource(NamedTuple):
    """All rows of an out-of-core data set, read in chunks; implements ``DataSource``.

    Attributes
    ----------
    read : callable
        ``rng or None -> iterator of Batch``, one pass. The chunks come in an order drawn from ``rng``, if the source
        supports random access.
    n_samples : int
    class_weights : ndarray of shape (n_classes,)
    moments : Moments
    column_offset : ndarray of shape (n_features,) or None
        Subtracted from each row of X; None for nothing.
    present_classes : ndarray of int or None
        Sorted codes of the classes that have rows; y becomes positions in it. None if all classes have rows.
    may_change : bool
        Whether the arrays of a chunk may be overwritten when the next chunk is read.
    """

    read: Callable[[np.random.RandomState | None], Iterator[Batch]]
    n_samples: int
    class_weights: Array
    moments: Moments
    column_offset: Array | None = None
    present_classes: Array | None = None
    may_change: bool = False

    def loss_grad(self, problem: Problem, params: Params, total: float) -> tuple[float, Params]:
        return sum_loss_grad(self._chunks(None), problem, params, total)

    def hessian_product(self, problem: Problem, params: Params, direction: Params, total: float) -> Params:
        return sum_hessian_product(self._chunks(None), problem, params, direction, total)

    def batches(self, batch_size: int, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
        """Yield the batches of one pass, shuffled within windows of about 32 MiB.

        With ``shuffle`` a window has chunks from random places, if the source supports random access.
        """
        for window in _iter_windows(self._chunks(rng if shuffle else None), may_change=self.may_change):
            yield from epoch_batches(window, batch_size, rng, shuffle=shuffle)

    def center_columns(self, column_offset: Array) -> Self:
        return self._replace(
            column_offset=column_offset, moments=self.moments._replace(mean=self.moments.mean - column_offset)
        )

    def restrict_classes(self, present_classes: Array) -> Self:
        return self._replace(present_classes=present_classes, class_weights=self.class_weights[present_classes])

    def _chunks(self, rng: np.random.RandomState | None) -> Iterator[Batch]:
        chunks = self.read(rng)
        if not self.may_change:  # the user's code stays in its thread
            chunks = read_ahead(chunks)
        return center_chunks(chunks, self.column_offset, self.present_classes)


def center_chunks(
    chunks: Iterable[Batch], column_offset: Array | None, present_classes: Array | None
) -> Iterator[Batch]:
    """Yield the chunks with ``column_offset`` subtracted from X, and y as positions in ``present_classes``."""
    for chunk in chunks:
        X = chunk.X if column_offset is None else chunk.X - column_offset
        y = chunk.y if present_classes is None else np.searchsorted(present_classes, chunk.y)
        yield Batch(X, y, chunk.weight)


def sum_loss_grad(chunks: Iterable[Batch], problem: Problem, params: Params, total: float) -> tuple[float, Params]:
    """Return the kernel's loss and gradient, summed over all chunks; ``problem.data`` is not used."""
    parts = (loss_grad(problem._replace(data=chunk, data_source=None), params, total) for chunk in chunks)
    return sum_parts(parts, *(np.zeros(part.shape) for part in params))


def sum_hessian_product(
    chunks: Iterable[Batch], problem: Problem, params: Params, direction: Params, total: float
) -> Params:
    """Return the kernel's Hessian product at ``params``, summed over all chunks; ``problem.data`` is not used."""
    parts = (
        (0.0, hessian_product(problem._replace(data=chunk, data_source=None), params, direction, total))
        for chunk in chunks
    )
    return sum_parts(parts, *(np.zeros(part.shape) for part in params))[1]


def split_rows(rows: Batch) -> Iterator[Batch]:
    """Yield the rows in chunks of about 1 MiB."""
    size = max(1, CHUNK_SIZE * len(rows.y) // max(1, n_bytes(rows.X)))
    for start in range(0, len(rows.y), size):
        yield Batch(*(column[start : start + size] for column in rows))


def n_bytes(X: Any) -> int:
    """Return the size of X's arrays in bytes, including the indices of a sparse X."""
    return int(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes if sp.issparse(X) else X.nbytes)


def concatenate_rows(chunks: list[Batch]) -> Batch:
    """Return the rows of all chunks in one batch; sparse if any chunk is.

    Raises
    ------
    ValueError
        If some chunks are NumPy's and some of another array library.
    """
    if len(chunks) == 1:
        return chunks[0]
    X = [chunk.X for chunk in chunks]
    is_sparse = any(sp.issparse(rows) for rows in X)
    if len({isinstance(rows, DeviceArray) for rows in X}) > 1:
        raise ValueError(
            "X must be of one library in all calls of partial_fit, which keeps rows; convert it, or start from a new "
            "estimator."
        )
    stacked = sp.csr_array(sp.vstack(X, format="csr")) if is_sparse else np.concatenate(X)
    return Batch(stacked, *(np.concatenate(column) for column in list(zip(*chunks, strict=True))[1:]))


def copy_rows(rows: Batch) -> Batch:
    """Return a copy of the rows, for callers whose arrays may be overwritten."""
    return Batch(*(column.copy() for column in rows))


def _iter_windows(chunks: Iterator[Batch], *, may_change: bool) -> Iterator[Batch]:
    """Yield consecutive chunks joined into windows; copies a chunk if it may change before its window is full."""
    pending: list[Batch] = []
    size = 0
    for chunk in chunks:
        size += n_bytes(chunk.X)
        is_full = size >= _WINDOW_SIZE
        pending.append(copy_rows(chunk) if may_change and not is_full else chunk)
        if is_full:
            yield concatenate_rows(pending)
            pending, size = [], 0
    if pending:
        yield concatenate_rows(pending)


class StratifiedSampler:
    """Random sample of rows that come in one pass, of at most ``SAMPLE_SIZE`` bytes.

    Each class has a sampling rate, 1 at first. When the sample is too large, the classes with the highest rate are
    thinned: their rate is multiplied by 0.8. So all classes end with similar rates, in whatever order the rows come.
    A class with at most ``MIN_CLASS_ROWS`` rows is not thinned while any other class has more. A row has the weight of
    ``1 / rate`` rows of its class.

    ``is_all`` is True while no row has been left out; no random number is drawn until then.
    """

    def __init__(self, rng: np.random.RandomState) -> None:
        self._rng = rng
        self._rows: list[Batch] = []
        self._uniforms: list[Array] = []
        self._rate = np.ones(0)
        self._size = 0
        self.is_all = True

    def add(self, rows: Batch, n_classes: int, *, may_change: bool = False) -> None:
        """Add rows; their codes are below ``n_classes``, the number of classes so far.

        Copies the rows if ``may_change`` and the sample keeps all of them.
        """
        self._rate = np.concatenate([self._rate, np.ones(n_classes - len(self._rate))])
        self._rows.append(rows)
        self._size += n_bytes(rows.X)
        if not self.is_all:
            self._uniforms.append(uniform(len(rows.y), self._rng))
            self._thin(-1)
        while self._size > SAMPLE_SIZE:
            if self.is_all:
                self.is_all = False
                self._uniforms = [uniform(len(chunk.y), self._rng) for chunk in self._rows]
            counts = np.sum([np.bincount(chunk.y, minlength=n_classes) for chunk in self._rows], axis=0)
            is_common = counts > MIN_CLASS_ROWS if (counts > MIN_CLASS_ROWS).any() else counts > 0
            self._rate[is_common & (self._rate == self._rate[is_common].max())] *= _THINNING_FRACTION
            for i in range(len(self._rows)):
                self._thin(i)
        if may_change and self._rows[-1] is rows:
            self._rows[-1] = copy_rows(rows)

    def _thin(self, i: int) -> None:
        chunk, uniforms = self._rows[i], self._uniforms[i]
        is_kept = uniforms < self._rate[chunk.y]
        if not is_kept.all():
            self._rows[i] = Batch(*(column[is_kept] for column in chunk))
            self._size -= n_bytes(chunk.X) - n_bytes(self._rows[i].X)
            self._uniforms[i] = uniforms[is_kept]

    def rows(self) -> Batch:
        """Return the sample with weights divided by the sampling rates; the sampler is then empty."""
        rows = concatenate_rows(self._rows)
        self._rows = []
        return rows if self.is_all else rows._replace(weight=rows.weight / self._rate[rows.y])
