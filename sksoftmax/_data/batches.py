"""Which rows make a batch, and every random number of a fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sksoftmax._engines.device import columns_to_device
from sksoftmax._types import Array, Batch


def epoch_batches(data: Batch, batch_size: int | None, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
    """One pass over the rows.

    Parameters
    ----------
    data : Batch
        All rows.
    batch_size : int or None
        Most rows of a batch; all batches are of this size or, should it not divide n_samples, equally smaller
        by up to a row. None, or n_samples and more, gives the data as they are.
    rng : RandomState
        Draws one permutation an epoch, if ``shuffle``.

    Yields
    ------
    Batch
        Rows of a NumPy array share one buffer: a batch is valid until the next one is drawn.
    """
    n_samples = data.X.shape[0]
    if batch_size is None or batch_size >= n_samples:
        yield data
        return
    X, (y, weight) = data.X, columns_to_device(data.X, data.y, data.weight)
    order = next(columns_to_device(X, rng.permutation(n_samples))) if shuffle else None
    is_in_numpy = isinstance(X, np.ndarray)
    buffer = np.empty((batch_size, X.shape[1]), X.dtype) if is_in_numpy else None
    n_batches = -(-n_samples // batch_size)
    for i in range(n_batches):
        span = slice(i * n_samples // n_batches, (i + 1) * n_samples // n_batches)
        if order is None:
            yield Batch(X[span], y[span], weight[span])
            continue
        rows = order[span]
        drawn = X[rows] if buffer is None else np.take(X, rows, 0, buffer[: len(rows)], "clip")
        yield Batch(drawn, y[rows], weight[rows])


def row_order(n_samples: int, rng: np.random.RandomState, *, shuffle: bool) -> Array:
    """The order in which an epoch visits single rows: a permutation, or as they come."""
    return rng.permutation(n_samples) if shuffle else np.arange(n_samples)


def chunk_order(n_chunks: int, rng: np.random.RandomState | None) -> Array:
    """The order in which an epoch reads pieces of rows: a permutation, or as they come."""
    return np.arange(n_chunks) if rng is None else rng.permutation(n_chunks)


def generator(seed: Sequence[int]) -> np.random.RandomState:
    """A source of random numbers of its own."""
    return np.random.RandomState(seed)


def uniform(size: int, rng: np.random.RandomState) -> Array:
    """Numbers in [0, 1)."""
    return rng.uniform(size=size)


def normal(shape: tuple[int, ...], rng: np.random.RandomState) -> Array:
    """Standard normal numbers: where ``check_gradient`` looks."""
    return rng.standard_normal(shape)


def subset(size: int, n_chosen: int, rng: np.random.RandomState) -> Array:
    """``n_chosen`` of ``range(size)``, without replacement, sorted; all of them if there are no more."""
    if n_chosen >= size:
        return np.arange(size)
    return np.sort(rng.choice(size, n_chosen, replace=False))
