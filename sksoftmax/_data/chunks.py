"""Rows that memory does not hold: read piece by piece as often as it takes, and a sample of them that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from sksoftmax._data.batches import epoch_batches, uniform
from sksoftmax._engines.device import DeviceArray
from sksoftmax._maths.objective import hessian_product, loss_grad
from sksoftmax._types import Array, Batch, Moments, Params, Problem

#: Bytes of the sample: what a model is fitted to first, and what the curvature is estimated from after that.
SAMPLE_SIZE = 2**27

#: Bytes of a piece of rows that lie together.
CHUNK_SIZE = 2**20

#: Bytes of the rows that are shuffled together.
_WINDOW_SIZE = 2**25

#: Share of the rows that are kept when they are too many: a full sample is at least that full.
_KEPT_SHARE = 0.8

#: Rows of a class that are not thinned out of the sample.
LEAST_OF_CLASS = 64


class ChunkedSource(NamedTuple):
    """All rows, in pieces: a ``DataSource``.

    Attributes
    ----------
    read : callable
        ``rng or None -> iterator of Batch``, one pass; in an order drawn from ``rng``, if the rows can be had in any.
    n_samples : int
    class_weights : ndarray of shape (n_classes,)
    moments : Moments
    column_offset : ndarray of shape (n_features,) or None
        What X is less by.
    seen : ndarray of int or None
        Codes of the classes that have rows, which are numbered anew; None if all have.
    may_change : bool
        Whether the arrays of a piece may be filled anew when the next piece is read.
    """

    read: Callable[[np.random.RandomState | None], Iterator[Batch]]
    n_samples: int
    class_weights: Array
    moments: Moments
    column_offset: Array | None = None
    seen: Array | None = None
    may_change: bool = False

    def loss_grad(self, problem: Problem, params: Params, total: float) -> tuple[float, Params]:
        return sum_loss_grad(self._chunks(None), problem, params, total)

    def hessian_product(self, problem: Problem, params: Params, direction: Params, total: float) -> Params:
        return sum_hessian_product(self._chunks(None), problem, params, direction, total)

    def batches(self, batch_size: int, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
        """Shuffled by windows of some 32 MiB, of pieces from anywhere if they can be had in any order."""
        for window in _windows(self._chunks(rng if shuffle else None), may_change=self.may_change):
            yield from epoch_batches(window, batch_size, rng, shuffle=shuffle)

    def center_columns(self, column_offset: Array) -> Self:
        return self._replace(
            column_offset=column_offset, moments=self.moments._replace(mean=self.moments.mean - column_offset)
        )

    def of_classes(self, seen: Array) -> Self:
        return self._replace(seen=seen, class_weights=self.class_weights[seen])

    def _chunks(self, rng: np.random.RandomState | None) -> Iterator[Batch]:
        return center_chunks(self.read(rng), self.column_offset, self.seen)


def center_chunks(chunks: Iterable[Batch], column_offset: Array | None, seen: Array | None) -> Iterator[Batch]:
    """Yield the pieces as the solvers take them: X less ``column_offset``, and y codes among the classes ``seen``."""
    for chunk in chunks:
        X = chunk.X if column_offset is None else chunk.X - column_offset
        y = chunk.y if seen is None else np.searchsorted(seen, chunk.y)
        yield Batch(X, y, chunk.weight)


def sum_loss_grad(chunks: Iterable[Batch], problem: Problem, params: Params, total: float) -> tuple[float, Params]:
    """The kernel's, over all pieces; of ``problem`` the data are not used."""
    loss, coef, intercept = 0.0, np.zeros(params.coef.shape), np.zeros(params.intercept.shape)
    for chunk in chunks:
        chunk_loss, grads = loss_grad(problem._replace(data=chunk, data_source=None), params, total)
        loss += chunk_loss
        coef += grads.coef
        intercept += grads.intercept
    return loss, Params(coef, intercept)


def sum_hessian_product(
    chunks: Iterable[Batch], problem: Problem, params: Params, direction: Params, total: float
) -> Params:
    """The kernel's, over all pieces, at ``params``."""
    coef, intercept = np.zeros(params.coef.shape), np.zeros(params.intercept.shape)
    for chunk in chunks:
        part = hessian_product(problem._replace(data=chunk, data_source=None), params, direction, total)
        coef += part.coef
        intercept += part.intercept
    return Params(coef, intercept)


def split_rows(rows: Batch) -> Iterator[Batch]:
    """The rows in pieces of 1 MiB or so."""
    size = max(1, CHUNK_SIZE * len(rows.y) // max(1, n_bytes(rows.X)))
    for start in range(0, len(rows.y), size):
        yield Batch(*(column[start : start + size] for column in rows))


def n_bytes(X: Any) -> int:
    """Of the numbers of X."""
    return int(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes if sp.issparse(X) else X.nbytes)


def concatenate_rows(chunks: list[Batch]) -> Batch:
    """The rows of all; sparse if any are."""
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
    """Return the rows in arrays of their own: the caller may fill its own anew."""
    return Batch(*(column.copy() for column in rows))


def _windows(chunks: Iterator[Batch], *, may_change: bool) -> Iterator[Batch]:
    """Pieces together, of the size of a window."""
    waiting: list[Batch] = []
    size = 0
    for chunk in chunks:
        size += n_bytes(chunk.X)
        is_full = size >= _WINDOW_SIZE
        waiting.append(copy_rows(chunk) if may_change and not is_full else chunk)
        if is_full:
            yield concatenate_rows(waiting)
            waiting, size = [], 0
    if waiting:
        yield concatenate_rows(waiting)


class StratifiedSampler:
    """A sample of rows that come once, in ``SAMPLE_SIZE`` bytes: of each class all rows, or 4 of 5, or 4 of 5 of
    these, ... .

    The classes of which the greatest share is left are thinned first, so that all have about the same, in whatever
    order they come; but for those of which few rows are left: rare ones are not lost. A row stands for ``1 / rate``
    rows of its class. ``is_all`` says whether none has been left out; no random number is then drawn.
    """

    def __init__(self, rng: np.random.RandomState) -> None:
        self._rng = rng
        self._rows: list[Batch] = []
        self._heights: list[Array] = []
        self._rate = np.ones(0)
        self._size = 0
        self.is_all = True

    def add(self, rows: Batch, n_classes: int, *, may_change: bool = False) -> None:
        """Add rows; their codes are below ``n_classes``, the number of classes so far.

        Copies them, if their arrays may be filled anew and they are all kept.
        """
        self._rate = np.concatenate([self._rate, np.ones(n_classes - len(self._rate))])
        self._rows.append(rows)
        self._size += n_bytes(rows.X)
        if not self.is_all:
            self._heights.append(uniform(len(rows.y), self._rng))
            self._thin(-1)
        while self._size > SAMPLE_SIZE:
            if self.is_all:
                self.is_all = False
                self._heights = [uniform(len(chunk.y), self._rng) for chunk in self._rows]
            counts = np.sum([np.bincount(chunk.y, minlength=n_classes) for chunk in self._rows], axis=0)
            is_common = counts > LEAST_OF_CLASS if (counts > LEAST_OF_CLASS).any() else counts > 0
            self._rate[is_common & (self._rate == self._rate[is_common].max())] *= _KEPT_SHARE
            for i in range(len(self._rows)):
                self._thin(i)
        if may_change and self._rows[-1] is rows:
            self._rows[-1] = copy_rows(rows)

    def _thin(self, i: int) -> None:
        chunk, height = self._rows[i], self._heights[i]
        is_kept = height < self._rate[chunk.y]
        if not is_kept.all():
            self._rows[i] = Batch(*(column[is_kept] for column in chunk))
            self._size -= n_bytes(chunk.X) - n_bytes(self._rows[i].X)
            self._heights[i] = height[is_kept]

    def rows(self) -> Batch:
        """The sample, each row's weight that of those that it stands for."""
        rows = concatenate_rows(self._rows)
        self._rows = []
        return rows if self.is_all else rows._replace(weight=rows.weight / self._rate[rows.y])
