"""Batches of an epoch, and the functions by which all other modules draw random numbers.

The training loop takes its batches from here, the dual solver its order of rows, and the out-of-core sources their
order of chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sksoftmax._engines.device import columns_to_device
from sksoftmax._types import Array, Batch


def epoch_batches(data: Batch, batch_size: int | None, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
    """Yield the batches of one epoch.

    Parameters
    ----------
    data : Batch
        All rows.
    batch_size : int or None
        Maximum rows of a batch. If it does not divide n_samples, all batches are smaller, and their sizes differ by at
        most one row. None, or at least n_samples, yields ``data`` itself.
    rng : RandomState
        Draws one permutation per epoch if ``shuffle``.

    Yields
    ------
    Batch
        Shuffled batches of a NumPy array share one buffer: a batch is valid until the next one is drawn.
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
        indices = order[span]
        X_batch = X[indices] if buffer is None else np.take(X, indices, 0, buffer[: len(indices)], "clip")
        yield Batch(X_batch, y[indices], weight[indices])


def row_order(n_samples: int, rng: np.random.RandomState, *, shuffle: bool) -> Array:
    """Return the order in which an epoch visits single rows: a permutation if ``shuffle``, else 0 to n - 1."""
    return rng.permutation(n_samples) if shuffle else np.arange(n_samples)


def chunk_order(n_chunks: int, rng: np.random.RandomState | None) -> Array:
    """Return the order in which a pass reads chunks: a permutation drawn from ``rng``; 0 to n - 1 if it is None."""
    return np.arange(n_chunks) if rng is None else rng.permutation(n_chunks)


def generator(seed: Sequence[int]) -> np.random.RandomState:
    """Return a new random number generator with this seed."""
    return np.random.RandomState(seed)


def draw_seed(rng: np.random.RandomState) -> int:
    """Draw the seed of another generator."""
    return int(rng.randint(2**31))


def uniform(size: int, rng: np.random.RandomState) -> Array:
    """Draw uniform random numbers in [0, 1)."""
    return rng.uniform(size=size)


def normal(shape: tuple[int, ...], rng: np.random.RandomState) -> Array:
    """Draw standard normal numbers: the parameters and directions of ``check_gradient``."""
    return rng.standard_normal(shape)


def subset(size: int, n_chosen: int, rng: np.random.RandomState) -> Array:
    """Draw ``n_chosen`` of ``range(size)`` without replacement, sorted; all of them if ``n_chosen >= size``."""
    if n_chosen >= size:
        return np.arange(size)
    return np.sort(rng.choice(size, n_chosen, replace=False))
