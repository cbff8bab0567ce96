"""The problems of the dense race: tables of 16 to 1771 columns, as users have them after a scaler, an expansion or PCA.

Each table is fitted at two strengths of the penalty. Scalers, projections and random features are computed from all
rows; their random numbers are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from benchmarks.problems import (
    RaceProblem,
    Read,
    covertype,
    embeddings,
    flights,
    languages,
    mnist,
    newsgroups,
    read_bundled,
    table,
)
from sksoftmax._types import Array

#: The strengths of the penalty.
ALPHAS = (1e-3, 1e-5)

#: Rows of the tables that would not fit in memory several times over.
_FEW_ROWS = 20_000
_MANY_ROWS = 100_000

#: Standard deviation of the noise on pixels, in units of the largest pixel.
_NOISE = 0.1


def _some(read: Read, n_samples: int) -> tuple[Any, Array]:
    """``n_samples`` rows, drawn at random."""
    X, y = read()
    rows = np.random.default_rng(0).permutation(len(y))[:n_samples]
    return X[rows], y[rows]


def _standardized(read: Read) -> tuple[Array, Array]:
    X, y = read()
    return StandardScaler(copy=False).fit_transform(X.astype(np.float32 if X.size > 2**24 else np.float64)), y


def _polynomial(read: Read, degree: int) -> tuple[Array, Array]:
    """Standardised products of standardised columns: the usual pipeline."""
    X, y = _standardized(read)
    expanded = PolynomialFeatures(degree, include_bias=False).fit_transform(X)
    return StandardScaler(copy=False).fit_transform(expanded), y


def _noisy(read: Read) -> tuple[Array, Array]:
    """Noise on all entries, so that none is 0."""
    X, y = read()
    return X + np.random.default_rng(0).normal(scale=_NOISE, size=X.shape), y


def _components(read: Read, n_components: int) -> tuple[Array, Array]:
    X, y = read()
    return PCA(n_components, svd_solver="covariance_eigh").fit_transform(X), y


def _relu(read: Read, n_features: int) -> tuple[Array, Array]:
    """Random features ``max(0, x'v + b)``: the hidden layer of an untrained network."""
    X, y = _some(read, _FEW_ROWS)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(X.shape[1], n_features)) * np.sqrt(2 / X.shape[1])
    return np.maximum(X @ weights + rng.normal(scale=0.1, size=n_features), 0), y


def _semantic(read: Read, n_components: int) -> tuple[Array, Array]:
    """Latent semantic analysis: a truncated SVD of tf-idf."""
    X, y = read()
    return TruncatedSVD(n_components, random_state=0).fit_transform(X), y


def two_classes(read: Read) -> tuple[Array, Array]:
    """The rows of the two classes that have the most rows."""
    X, y = read()
    codes, counts = np.unique(y, return_counts=True)
    rows = np.isin(y, codes[np.argsort(-counts, kind="stable")[:2]])
    return X[rows], y[rows]


def _tables() -> Iterator[tuple[str, Read]]:
    """Yield the names of the tables, and what reads them."""
    for name in ("letter", "segment", "vehicle", "optdigits", "spam"):
        read = partial(table, name)
        yield f"{name} raw", read
        yield f"{name} std", partial(_standardized, read)
    for name, read in (("covertype", covertype), ("flights", flights)):
        yield f"{name} std", partial(_standardized, read)
    for name in ("digits", "breast_cancer"):
        yield f"{name} degree 2", partial(_polynomial, partial(read_bundled, name, False), 2)
    for name, degree in (("letter", 2), ("optdigits", 2), ("spam", 2), ("vehicle", 3), ("segment", 3)):
        yield f"{name} degree {degree}", partial(_polynomial, partial(table, name), degree)
    yield "covertype degree 2", partial(_polynomial, partial(_some, covertype, _MANY_ROWS), 2)
    yield "mnist std", partial(_standardized, mnist)
    yield "mnist noise", partial(_noisy, mnist)
    for n in (50, 150, 300):
        yield f"mnist pca {n}", partial(_components, mnist, n)
    for n in (500, 1500):
        yield f"mnist relu {n}", partial(_relu, mnist, n)
    for name, read in (("newsgroups20", newsgroups), ("word_langid", languages)):
        for n in (100, 300):
            yield f"{name} svd {n}", partial(_semantic, read, n)
    for n in (20, 100, 1000):
        yield f"embeddings {n}", partial(embeddings, n_classes=n)


#: Those of which there is also a table of two classes.
_HALVED = (
    *("letter std", "optdigits std", "covertype std", "flights std", "letter degree 2", "mnist std", "mnist pca 150"),
    *("mnist relu 500", "newsgroups20 svd 300", "word_langid svd 100", "embeddings 20"),
)


def _all_tables() -> Iterator[tuple[str, Read]]:
    tables = dict(_tables())
    yield from tables.items()
    for name in _HALVED:
        yield f"{name} of 2", partial(two_classes, tables[name])


#: By name.
DENSE: dict[str, RaceProblem] = {
    f"{name} {alpha:g}": RaceProblem(f"{name} {alpha:g}", read, alpha, table=name)
    for name, read in _all_tables()
    for alpha in ALPHAS
}
