"""Draws that the kinds of problems share: numbers, rows with labels by a linear model, outliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._types import Array

Rng = np.random.Generator

#: Rows that make at least 16 batches of 256, so that minibatches come before Newton's steps.
MANY_ROWS = (4200, 20000)

#: Columns from which the dual solver may be chosen, and rows to go with them.
MANY_COLUMNS, SOME_ROWS = (200, 320), (300, 1500)


class Rows(NamedTuple):
    """The data that a kind draws.

    Attributes
    ----------
    X : array or sparse array of float64, (n_samples, n_features)
    y : array of shape (n_samples,) or (n_samples, n_classes)
        Labels, in any numbers; or targets.
    weight : array or None
    outlying : array of bool or None
        Rows that are far out. The minimum without them is a start for F*.
    settings : dict
        Parameters of the estimator, in place of the drawn ones.
    """

    X: Any
    y: Array
    weight: Array | None = None
    outlying: Array | None = None
    settings: dict[str, Any] = {}


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def log_uniform_int(rng: Rng, low: int, high: int) -> int:
    """Draw an integer whose logarithm is about uniform; both ends are included."""
    return min(high, int(log_uniform(rng, low, high + 1)))


def labels(raw: Array, rng: Rng) -> Array:
    """Draw classes from the softmax of ``raw``, at least two of them."""
    y = (raw + rng.gumbel(size=raw.shape)).argmax(axis=1)
    if (y == y[0]).all():
        y[rng.integers(len(y))] = (y[0] + 1) % raw.shape[1]
    return y


class Base(NamedTuple):
    """Rows, the coefficients of the model that the labels come from, its raw predictions, the labels."""

    X: Array
    W: Array
    raw: Array
    y: Array


def normal(rng: Rng, n: int, p: int) -> Array:
    return rng.standard_normal((n, p))


def base(
    rng: Rng,
    rows: tuple[int, int] = (20, 3000),
    columns: tuple[int, int] = (1, 30),
    classes: tuple[int, int] = (2, 8),
    strength: tuple[float, float] = (0.3, 6.0),
    make: Callable[[Rng, int, int], Array] = normal,
) -> Base:
    """Draw rows by ``make``, and labels by a linear model of the standardised columns.

    Where the ranges admit it, 5 % of the problems have so many rows that minibatches come first, and 4 % so many
    columns that the dual solver may be chosen.
    """
    draw = rng.random()
    if draw < 0.05 and rows[1] >= 2000 and columns[0] <= 2:
        rows, columns = MANY_ROWS, (columns[0], min(columns[1], 12))
    elif draw > 0.96 and 30 <= columns[1] < 200:
        rows, columns, classes = SOME_ROWS, MANY_COLUMNS, (2, 4)
    n, p = log_uniform_int(rng, *rows), log_uniform_int(rng, *columns)
    K = 2 if classes[0] == 2 and rng.random() < 0.35 else log_uniform_int(rng, *classes)
    n = max(n, 2 * K)
    X = make(rng, n, p)
    spread = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)
    W = rng.standard_normal((p, K)) * log_uniform(rng, *strength) / np.sqrt(p)
    raw = Z @ W + 0.5 * rng.standard_normal(K)
    return Base(X, W, raw, labels(raw, rng))


def outliers(rng: Rng, b: Base, n_rows: int, n_columns: int, size: tuple[float, float] = (1e2, 1e12)) -> Rows:
    """Move cells far out, in each column by a size of its own; the labels agree with it, oppose it, or are as drawn."""
    X, y = b.X.copy(), b.y.copy()
    outlying = np.zeros(len(X), bool)
    mode = rng.choice(["agree", "oppose", "drawn"])
    for column in rng.permutation(X.shape[1])[:n_columns]:
        chosen = rng.choice(len(X), min(n_rows, len(X) // 4 + 1), replace=False)
        spread = X[:, column].std() or 1.0
        sign = rng.choice([-1.0, 1.0], len(chosen)) if rng.random() < 0.5 else np.full(len(chosen), rng.choice([-1, 1]))
        jitter = np.exp(rng.normal(0, rng.choice([0.0, 0.1, 1.0]), len(chosen)))
        X[chosen, column] = sign * log_uniform(rng, *size) * spread * jitter
        effect = sign[:, None] * b.W[column]
        if mode != "drawn":
            y[chosen] = effect.argmax(axis=1) if mode == "agree" else effect.argmin(axis=1)
        outlying[chosen] = True
    return Rows(X, y, outlying=outlying)
