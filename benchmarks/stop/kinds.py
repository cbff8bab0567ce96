"""Kinds of generated problems: each draws its data from ranges of sizes and strengths.

``problems.py`` draws the settings and the way to the fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import PolynomialFeatures, normalize

from benchmarks.stop.draws import (
    MANY_COLUMNS,
    MANY_ROWS,
    SOME_ROWS,
    Rng,
    Rows,
    base,
    labels,
    log_uniform,
    log_uniform_int,
    outliers,
)
from sksoftmax._types import Array


def gauss(rng: Rng) -> Rows:
    """Draw normal columns."""
    b = base(rng)
    return Rows(b.X, b.y)


def tiny(rng: Rng) -> Rows:
    """Draw at most 30 rows."""
    b = base(rng, rows=(3, 30), columns=(1, 6), classes=(2, 4))
    return Rows(b.X, b.y)


def one_outlier(rng: Rng) -> Rows:
    """Move one cell of two classes' rows far out."""
    return outliers(rng, base(rng, rows=(50, 5000), columns=(1, 8), classes=(2, 2)), 1, 1)


def one_outlier_classes(rng: Rng) -> Rows:
    """Move one cell of several classes' rows far out."""
    return outliers(rng, base(rng, rows=(50, 5000), columns=(1, 12), classes=(3, 8)), 1, 1)


def outlying_rows(rng: Rng) -> Rows:
    """Move cells of one column far out, in several rows."""
    return outliers(rng, base(rng, rows=(50, 5000), columns=(1, 12)), log_uniform_int(rng, 2, 100), 1)


def outlying_columns(rng: Rng) -> Rows:
    """Move cells of several columns far out, each column by another size."""
    return outliers(
        rng, base(rng, rows=(50, 3000), columns=(2, 20)), log_uniform_int(rng, 1, 10), log_uniform_int(rng, 2, 8)
    )


def outliers_many_columns(rng: Rng) -> Rows:
    """Move cells far out where there are 200 columns and more."""
    b = base(rng, rows=SOME_ROWS, columns=MANY_COLUMNS, classes=(2, 4))
    return outliers(rng, b, log_uniform_int(rng, 1, 10), log_uniform_int(rng, 1, 5))


def outliers_many_rows(rng: Rng) -> Rows:
    """Move cells far out where minibatches come first."""
    return outliers(rng, base(rng, rows=MANY_ROWS, columns=(1, 12), classes=(2, 5)), log_uniform_int(rng, 1, 30), 1)


def missing_codes(rng: Rng) -> Rows:
    """Leave codes for missing values in."""

    def in_units(rng: Rng, n: int, p: int) -> Array:
        return rng.standard_normal((n, p)) * np.exp(rng.normal(0, 1.5, p)) + rng.normal(0, 3, p)

    b = base(rng, rows=(50, 6000), columns=(1, 15), make=in_units)
    X, outlying = b.X.copy(), np.zeros(len(b.X), bool)
    for column in rng.permutation(X.shape[1])[: log_uniform_int(rng, 1, 3)]:
        code = rng.choice([-1.0, -99.0, -999.0, 9999.0, 99999.0, -999999.0, -2147483648.0, 1e9])
        chosen = rng.choice(len(X), min(log_uniform_int(rng, 1, 100), len(X) // 3 + 1), replace=False)
        X[chosen, column] = code
        outlying[chosen] = True
    return Rows(X, b.y, outlying=outlying)


def cauchy(rng: Rng) -> Rows:
    """Draw tails without a mean."""
    b = base(rng, make=lambda rng, n, p: rng.standard_cauchy((n, p)))
    raw = np.arcsinh(b.X) @ b.W
    return Rows(b.X, labels(raw, rng), outlying=(np.abs(b.X) > 30).any(axis=1))


def lognormal(rng: Rng) -> Rows:
    """Draw tails from light to very heavy."""
    b = base(rng)
    X = np.exp(log_uniform(rng, 1, 6) * b.X)
    return Rows(X, b.y, outlying=(100 * np.median(X, axis=0) < X).any(axis=1))


def pareto(rng: Rng) -> Rows:
    """Draw powers of a uniform number."""
    power = log_uniform(rng, 0.3, 3)
    b = base(rng, make=lambda rng, n, p: rng.pareto(power, (n, p)))
    return Rows(b.X, labels(np.log1p(b.X) @ b.W, rng), outlying=(100 * np.median(b.X, axis=0) < b.X).any(axis=1))


def collinear(rng: Rng) -> Rows:
    """Draw columns of low rank, and noise down to 1e-9."""

    def low_rank(rng: Rng, n: int, p: int) -> Array:
        rank = log_uniform_int(rng, 1, p)
        noise = 10 ** -rng.uniform(1, 9) * rng.standard_normal((n, p))
        return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p)) + noise

    b = base(rng, columns=(2, 40), make=low_rank)
    return Rows(b.X, b.y)


def duplicated_columns(rng: Rng) -> Rows:
    """Repeat columns, some in other units."""
    b = base(rng, columns=(1, 10))
    X = b.X[:, rng.integers(b.X.shape[1], size=log_uniform_int(rng, b.X.shape[1] + 1, 40))]
    return Rows(X * rng.choice([1.0, -1.0, 1e3, 1e-3], X.shape[1]) if rng.random() < 0.5 else X, b.y)


def one_hot(rng: Rng) -> Rows:
    """Encode categories, some of them rare; sparse."""
    n, K = log_uniform_int(rng, 30, 5000), log_uniform_int(rng, 2, 8)
    parts, raw = [], np.zeros((n, K))
    for _ in range(log_uniform_int(rng, 1, 5)):
        size = log_uniform_int(rng, 2, 30)
        share = (1.0 + np.arange(size)) ** -log_uniform(rng, 0.1, 3)
        drawn = rng.choice(size, n, p=share / share.sum())
        parts.append(sp.csr_array((np.ones(n), (np.arange(n), drawn)), shape=(n, size)))
        raw += (rng.standard_normal((size, K)) * log_uniform(rng, 0.3, 3))[drawn]
    return Rows(sp.csr_array(sp.hstack(parts)), labels(raw, rng))


def counts(rng: Rng) -> Rows:
    """Draw Poisson counts of means over four decades."""
    b = base(rng, make=lambda rng, n, p: rng.poisson(np.exp(rng.normal(1, 2, p)), (n, p)).astype(float))
    return Rows(b.X, b.y)


def zero_inflated(rng: Rng) -> Rows:
    """Draw counts most of which are 0."""

    def some(rng: Rng, n: int, p: int) -> Array:
        return (
            rng.poisson(np.exp(rng.normal(2, 2, p)), (n, p)) * (rng.random((n, p)) < rng.uniform(0.005, 0.4, p)) * 1.0
        )

    b = base(rng, columns=(2, 40), make=some)
    return Rows(b.X if rng.random() < 0.5 else sp.csr_array(b.X), b.y)


def tfidf(rng: Rng) -> Rows:
    """Draw texts; sparse rows of norm 1."""
    n, p, K = log_uniform_int(rng, 50, 1200), log_uniform_int(rng, 50, 3000), log_uniform_int(rng, 2, 8)
    share = 1 / (1.0 + np.arange(p))
    length = log_uniform_int(rng, 5, 60)
    words = rng.choice(p, (n, length), p=share / share.sum())
    count = sp.csr_array((np.ones(words.size), (np.repeat(np.arange(n), length), words.ravel())), shape=(n, p))
    X = sp.csr_array(normalize(count @ sp.diags_array(-np.log(share / share.sum()))))
    return Rows(X, labels(X @ rng.standard_normal((p, K)) * log_uniform(rng, 1, 10), rng))


def decades(rng: Rng) -> Rows:
    """Scale columns over ten decades."""
    b = base(rng)
    scale = 10.0 ** rng.uniform(-5, 5, b.X.shape[1])
    return Rows(scale * (b.X + rng.uniform(-10, 10, b.X.shape[1]) * rng.integers(2)), b.y)


def offsets(rng: Rng) -> Rows:
    """Add 1e3 to 1e7 to columns."""
    b = base(rng)
    offset = np.array([log_uniform(rng, 1e3, 1e7) for _ in range(b.X.shape[1])]) * rng.choice([-1, 0, 1], b.X.shape[1])
    return Rows(b.X * np.exp(rng.normal(0, 2, b.X.shape[1])) + offset, b.y)


def timestamps(rng: Rng) -> Rows:
    """Let the columns be seconds since 1970 and years."""
    b = base(rng, columns=(1, 8))
    X = b.X.copy()
    span = log_uniform(rng, 3600, 1e8)
    X[:, 0] = np.round(1.6e9 + span * b.X[:, 0])
    if X.shape[1] > 1:
        X[:, 1] = 1900 + np.round(30 * np.abs(X[:, 1]))
    return Rows(X, b.y)


def near_separable(rng: Rng) -> Rows:
    """Draw labels that are nearly certain."""
    b = base(rng, strength=(8, 60))
    return Rows(b.X, b.y)


def separable(rng: Rng) -> Rows:
    """Draw labels without noise."""
    b = base(rng, columns=(2, 40))
    return Rows(b.X, _two(b.raw.argmax(axis=1)))


def blobs(rng: Rng) -> Rows:
    """Draw clusters far apart, with a penalty next to nothing."""
    n, p, K = log_uniform_int(rng, 20, 3000), log_uniform_int(rng, 1, 40), log_uniform_int(rng, 2, 8)
    y = rng.integers(K, size=n)
    X = (rng.standard_normal((K, p)) * log_uniform(rng, 3, 30))[y] + rng.standard_normal((n, p))
    return Rows(X, _two(y), settings={"alpha": log_uniform(rng, 1e-10, 1e-6)})


def one_row_classes(rng: Rng) -> Rows:
    """Give some rows a class of their own."""
    b = base(rng, rows=(30, 2000), classes=(2, 4))
    y = b.y.copy()
    n_new = log_uniform_int(rng, 1, 6)
    y[rng.choice(len(y), n_new, replace=False)] = b.raw.shape[1] + np.arange(n_new)
    return Rows(b.X, _two(y))


def weights(rng: Rng) -> Rows:
    """Draw weights over up to eight decades."""
    b = base(rng)
    return Rows(
        b.X, b.y, weight=10.0 ** rng.uniform(-log_uniform(rng, 0.5, 8), 0, len(b.y)) * log_uniform(rng, 1e-3, 1e3)
    )


def no_penalty(rng: Rng) -> Rows:
    """Fit without a penalty where F has a minimum."""
    b = base(rng, rows=(200, 3000), columns=(1, 8), classes=(2, 4), strength=(0.2, 1.5))
    return Rows(b.X, b.y, settings={"alpha": 0.0, "l1_ratio": 0.0})


def no_minimum(rng: Rng) -> Rows:
    """Fit without a penalty where F has no minimum."""
    b = base(rng, columns=(2, 20), classes=(2, 4))
    return Rows(b.X, _two(b.raw.argmax(axis=1)), settings={"alpha": 0.0, "l1_ratio": 0.0})


def strong_penalty(rng: Rng) -> Rows:
    """Draw penalties up to 1e4."""
    b = base(rng)
    return Rows(b.X * log_uniform(rng, 1e-2, 1e2), b.y, settings={"alpha": log_uniform(rng, 1e-1, 1e4)})


def polynomial(rng: Rng) -> Rows:
    """Take products of columns, of degree 2 or 3."""
    b = base(rng, columns=(1, 6))
    degree = int(rng.integers(2, 4))
    X = b.X * np.exp(rng.normal(0, 1.5, b.X.shape[1])) + rng.normal(0, 3, b.X.shape[1]) * rng.integers(2)
    return Rows(PolynomialFeatures(degree, include_bias=bool(rng.integers(2))).fit_transform(X), b.y)


def pixels(rng: Rng) -> Rows:
    """Draw images of four dots, which differ by class."""
    n, side, K = log_uniform_int(rng, 50, 1500), int(rng.integers(5, 17)), log_uniform_int(rng, 2, 10)
    y = rng.integers(K, size=n)
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    strokes = rng.uniform(0.15, 0.85, (K, 4, 2)) * side
    where = strokes[y] + rng.normal(0, 0.03 * side, (n, 4, 2))
    near = np.exp(-0.5 * ((at[None, None] - where[:, :, None]) ** 2).sum(axis=-1) / 1.2**2).max(axis=1)
    X = np.round(255 * np.maximum(near - 0.05, 0)) / (255 if rng.random() < 0.5 else 1)
    return Rows(
        X if rng.random() < 0.6 else sp.csr_array(X), _two(np.where(rng.random(n) < 0.05, rng.integers(K, size=n), y))
    )


def many_more_columns(rng: Rng) -> Rows:
    """Draw up to a hundred times as many columns as rows."""
    b = base(rng, rows=(15, 150), columns=(200, 2500), classes=(2, 5))
    return Rows(b.X * log_uniform(rng, 1e-2, 1e4), b.y)


def constant_columns(rng: Rng) -> Rows:
    """Add columns of one value."""
    b = base(rng, columns=(1, 10))
    constant = log_uniform(rng, 1e-3, 1e7) * rng.choice([-1, 0, 1], log_uniform_int(rng, 1, 10))
    X = np.hstack([b.X, np.broadcast_to(constant, (len(b.X), len(constant)))])
    return Rows(X[:, rng.permutation(X.shape[1])], b.y)


def label_noise(rng: Rng) -> Rows:
    """Replace some labels by any."""
    b = base(rng, strength=(5, 50))
    noisy = rng.random(len(b.y)) < rng.uniform(0.005, 0.3)
    return Rows(b.X, _two(np.where(noisy, rng.integers(b.raw.shape[1], size=len(b.y)), b.raw.argmax(axis=1))))


def imbalanced(rng: Rng) -> Rows:
    """Make each class rarer than the one before."""
    b = base(rng, rows=(200, 6000), classes=(2, 6))
    raw = b.raw - log_uniform(rng, 0.5, 6) * np.arange(b.raw.shape[1])
    settings = {"class_weight": "balanced"} if rng.random() < 0.3 else {}
    return Rows(b.X, labels(raw, rng), settings=settings)


def many_classes(rng: Rng) -> Rows:
    """Draw up to 60 classes."""
    b = base(rng, rows=(120, 4000), columns=(1, 12), classes=(9, 60))
    return Rows(b.X, b.y)


def soft_targets(rng: Rng) -> Rows:
    """Draw shares of the classes in place of labels."""
    b = base(rng)
    raw = b.raw + rng.standard_normal(b.raw.shape)
    table = np.exp(raw - raw.max(axis=1, keepdims=True))
    return Rows(b.X, table / table.sum(axis=1, keepdims=True), settings={"soft_targets": True})


def smoothed(rng: Rng) -> Rows:
    """Smooth the labels."""
    b = base(rng, strength=(0.3, 30))
    return Rows(b.X, b.y, settings={"label_smoothing": log_uniform(rng, 1e-3, 0.5)})


def smoothed_outliers(rng: Rng) -> Rows:
    """Smooth the labels, and move cells far out."""
    rows = outliers(rng, base(rng, rows=(50, 3000), columns=(1, 8)), log_uniform_int(rng, 1, 5), 1, (1e2, 1e8))
    return rows._replace(settings={"label_smoothing": log_uniform(rng, 1e-3, 0.5)})


def many_rows(rng: Rng) -> Rows:
    """Draw so many rows that minibatches come first."""
    b = base(rng, rows=MANY_ROWS, columns=(1, 20), classes=(2, 10))
    return Rows(b.X * 10.0 ** rng.uniform(-2, 2, b.X.shape[1]), b.y)


def many_columns(rng: Rng) -> Rows:
    """Draw 200 columns and more."""
    b = base(rng, rows=(300, 2000), columns=(200, 400), classes=(2, 5), strength=(0.5, 20))
    return Rows(b.X * 10.0 ** rng.uniform(-2, 2, b.X.shape[1]) if rng.random() < 0.5 else b.X, b.y)


def many_sparse_columns(rng: Rng) -> Rows:
    """Draw 200 sparse columns and more, for the dual solver in half of the problems."""
    n, p, K = log_uniform_int(rng, 300, 4000), log_uniform_int(rng, 200, 500), log_uniform_int(rng, 2, 6)
    X = sp.csr_array((rng.random((n, p)) < log_uniform(rng, 0.005, 0.2)).astype(float))
    X.data = np.exp(rng.normal(0, log_uniform(rng, 0.1, 3), X.nnz))
    y = labels(X @ rng.standard_normal((p, K)) * log_uniform(rng, 0.1, 5), rng)
    if rng.random() < 0.3:
        X.data[rng.integers(X.nnz, size=log_uniform_int(rng, 1, 10))] *= log_uniform(rng, 1e2, 1e10)
    return Rows(X, y, settings={"engine": "auto", "solver": "dual"} if rng.random() < 0.5 else {})


def correlated(rng: Rng) -> Rows:
    """Mix the columns."""

    def mixed(rng: Rng, n: int, p: int) -> Array:
        return rng.standard_normal((n, p)) @ (
            rng.standard_normal((p, p)) / (1 + np.arange(p)) ** log_uniform(rng, 0.3, 3)
        )

    b = base(rng, columns=(2, 60), make=mixed)
    return Rows(b.X, b.y)


def bits(rng: Rng) -> Rows:
    """Draw columns of 0 and 1."""
    b = base(rng, columns=(1, 40), make=lambda rng, n, p: (rng.random((n, p)) < rng.uniform(0.001, 0.6, p)) * 1.0)
    return Rows(b.X, b.y)


def mixed(rng: Rng) -> Rows:
    """Spoil dense rows of another kind in two or three ways."""
    rows: Rows = KINDS[
        rng.choice(["gauss", "lognormal", "counts", "collinear", "blobs", "near_separable", "polynomial"])
    ](rng)
    X, y, weight, outlying, settings = rows
    n, p = X.shape
    X = X.copy()
    outlying = np.zeros(n, bool) if outlying is None else outlying.copy()
    for spoil in rng.choice(6, int(rng.integers(2, 4)), replace=False):
        if spoil == 0:
            X = X * 10.0 ** rng.uniform(-4, 4, p)
        elif spoil == 1:
            X = X + log_uniform(rng, 1e1, 1e6) * X.std(axis=0) * rng.integers(2, size=p)
        elif spoil == 2:
            column, chosen = rng.integers(p), rng.choice(n, min(n, log_uniform_int(rng, 1, 20)), replace=False)
            X[chosen, column] += rng.choice([-1, 1]) * log_uniform(rng, 1e2, 1e9) * (X[:, column].std() or 1.0)
            outlying[chosen] = True
        elif spoil == 3:
            weight = 10.0 ** rng.uniform(-log_uniform(rng, 0.5, 8), 0, n)
        elif spoil == 4:
            y = y.copy()
            y[rng.choice(n, min(n // 2, log_uniform_int(rng, 1, 5)), replace=False)] = y.max() + 1
        else:
            X = np.hstack([X, X[:, rng.integers(p, size=min(p, 5))], np.full((n, 1), rng.normal() * 100)])
            p = X.shape[1]
    return Rows(X, _two(y), weight, outlying, settings)


def _two(y: Array) -> Array:
    """Make the labels two at least."""
    if (y == y[0]).all():
        y = y.copy()
        y[0] += 1
    return y


KINDS: dict[str, Callable[[Rng], Rows]] = {
    make.__name__: make
    for make in (
        gauss, tiny, one_outlier, one_outlier_classes, outlying_rows, outlying_columns, outliers_many_columns,
        outliers_many_rows, missing_codes, cauchy, lognormal, pareto, collinear, duplicated_columns, one_hot, counts,
        zero_inflated, tfidf, decades, offsets, timestamps, near_separable, separable, blobs, one_row_classes, weights,
        no_penalty, no_minimum, strong_penalty, polynomial, pixels, many_more_columns, constant_columns, label_noise,
        imbalanced, many_classes, soft_targets, smoothed, smoothed_outliers, many_rows, many_columns,
        many_sparse_columns, correlated, bits, mixed,
    )
}  # fmt: skip
