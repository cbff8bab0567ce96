"""The data that fits are timed on.

The race's sets come from the folder that the environment variable ``SKSOFTMAX_DATA`` names (``NAME.npz`` with ``X``
and ``y``, or ``NAME.tsv.gz`` with columns ``label`` and ``text``) or, without it, from scikit-learn's own fetchers.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn import datasets
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sksoftmax._types import Array

BUNDLED: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
}


class Case(NamedTuple):
    """A data set, split, and the strength alpha at which all solvers minimise the same F.

    Attributes
    ----------
    X, X_test : ndarray of shape (n_train, n_features) and (n_test, n_features)
    y, y_test : ndarray of int
        Class codes.
    """

    name: str
    X: Array
    y: Array
    X_test: Array
    y_test: Array
    alpha: float


def bundled(names: tuple[str, ...] = tuple(BUNDLED), alpha: float = 1e-3) -> Iterator[Case]:
    """scikit-learn's own sets, each as it is ("raw") and with standardised columns ("std")."""
    for name in names:
        X, y = BUNDLED[name](return_X_y=True)
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
        yield Case(f"{name} raw", X, y, X_test, y_test, alpha)
        scaler = StandardScaler().fit(X)
        yield Case(f"{name} std", scaler.transform(X), y, scaler.transform(X_test), y_test, alpha)


#: Reads all rows in the set's own order: ``() -> (X, y)``, X dense or CSR, y labels.
Read = Callable[[], tuple[Any, Array]]


class RaceProblem(NamedTuple):
    """A problem of a race.

    Attributes
    ----------
    name : str
    read : callable
        See ``Read``.
    alpha : float
        Strength of the penalty on the mean loss.
    l1_ratio : float
        Share of the penalty that is ``||coef||_1``.
    table : str
        Name of the rows, if other problems have the same rows.
    """

    name: str
    read: Read
    alpha: float
    l1_ratio: float = 0.0
    table: str = ""

    def load(self, dtype: str) -> tuple[Any, Array]:
        """X as ``dtype`` and y as class codes, in one shuffled order (several sets come sorted by class)."""
        X, y = self.read()
        order = np.random.default_rng(0).permutation(len(y))
        X = X.tocsr()[order] if sp.issparse(X) else np.ascontiguousarray(X[order])
        return X.astype(dtype), np.unique(y, return_inverse=True)[1].astype(np.intp)[order]


def _folder() -> Path | None:
    return Path(os.environ["SKSOFTMAX_DATA"]) if os.environ.get("SKSOFTMAX_DATA") else None


def read_table(name: str, fetch: Callable[..., Any] | None, factor: float = 1.0) -> tuple[Array, Array]:
    """``NAME.npz``, or what ``fetch`` gets; the columns times ``factor``."""
    folder = _folder()
    if folder is not None:
        with np.load(folder / f"{name}.npz") as arrays:
            return arrays["X"] * factor, arrays["y"]
    if fetch is None:
        raise FileNotFoundError(f"{name} needs SKSOFTMAX_DATA to name a folder with {name}.npz.")
    X, y = fetch(return_X_y=True)
    return np.asarray(X, dtype=np.float64) * factor, np.asarray(y)


def _texts(name: str, fetch: Callable[..., Any] | None, vectorizer: TfidfVectorizer) -> tuple[Any, Array]:
    """``NAME.tsv.gz``, or what ``fetch`` gets, as tf-idf."""
    folder = _folder()
    if folder is not None:
        with gzip.open(folder / f"{name}.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        texts, labels = [row["text"] for row in rows], np.array([row["label"] for row in rows])
    elif fetch is not None:
        bunch = fetch(subset="all")
        texts, labels = bunch.data, bunch.target
    else:
        raise FileNotFoundError(f"{name} needs SKSOFTMAX_DATA to name a folder with {name}.tsv.gz.")
    return vectorizer.fit_transform(texts), labels


def newsgroups() -> tuple[Any, Array]:
    # scikit-learn's words, all of them: no cut-off that a result could hang on; sublinear_tf as is usual for topics
    return _texts("newsgroups20", datasets.fetch_20newsgroups, TfidfVectorizer(sublinear_tf=True))


def languages() -> tuple[Any, Array]:
    # char_wb pads each word with a blank at either end: how words begin and end tells languages apart
    return _texts("word_langid", None, TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3)))


def embeddings(
    n_samples: int = 40000, n_features: int = 512, n_classes: int = 300, distance: float = 7.0, norm: float = 7.0
) -> tuple[Array, Array]:
    """Rows as a deep network's last layer gives them: what linear probes are fitted to.

    Class centres and the noise around them have the same covariance, whose eigenvalues fall as 1/j along random
    directions, so that columns correlate and no direction is free of noise; the noise's length varies from row
    to row (log-normal, sigma 0.3), and all rows share an offset. ``distance`` is the Mahalanobis distance of two
    centres and ``norm`` scales all, rows to a length of about 10 as CLIP's have. Of rows that the fit at alpha 1e-4
    has not seen, three of four are then classified right.
    """
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    variances = 1.0 / np.arange(1, n_features + 1)
    basis *= (norm * np.sqrt(variances / variances.sum()))[:, None]
    y = rng.integers(n_classes, size=n_samples)
    centres = rng.normal(size=(n_classes, n_features)) * distance / np.sqrt(2 * n_features)
    noise = rng.normal(size=(n_samples, n_features)) * rng.lognormal(sigma=0.3, size=(n_samples, 1))
    return (centres[y] + noise + rng.normal(size=n_features)) @ basis, y


def read_bundled(name: str, is_scaled: bool) -> tuple[Array, Array]:
    X, y = BUNDLED[name](return_X_y=True)
    return (StandardScaler().fit_transform(X) if is_scaled else X), y


def _openml(name: str) -> Callable[..., Any]:
    return partial(datasets.fetch_openml, name, version=1, as_frame=False)


#: How tables are read that scikit-learn can fetch, by their names here.
_FETCHERS = {"segment": _openml("segment"), "letter": _openml("letter"), "spam": _openml("spambase")}


def table(name: str) -> tuple[Array, Array]:
    return read_table(name, _FETCHERS.get(name))


mnist = partial(read_table, "mnist", _openml("mnist_784"), 1 / 255)
flights = partial(read_table, "flights_carrier", None)
covertype = partial(read_table, "covertype", datasets.fetch_covtype)

#: By name; those of more than LARGE rows make the summary.
RACE: dict[str, RaceProblem] = {
    problem.name: problem
    for problem in (
        *(
            RaceProblem(f"{name} {kind}", partial(read_bundled, name, kind == "std"), 1e-3)
            for name in BUNDLED
            for kind in ("raw", "std")
        ),
        RaceProblem("segment", partial(table, "segment"), 1e-4),
        RaceProblem("letter", partial(table, "letter"), 1e-5),
        RaceProblem("newsgroups20", newsgroups, 1e-5),
        RaceProblem("mnist", mnist, 1e-4),
        RaceProblem("word_langid", languages, 1e-6),
        RaceProblem("embeddings", embeddings, 1e-4),
        RaceProblem("flights", flights, 1e-4),
        RaceProblem("covertype", covertype, 1e-4),
        RaceProblem("newsgroups20 l1", newsgroups, 1e-5, 1.0),
        RaceProblem("newsgroups20 l1/2", newsgroups, 1e-5, 0.5),
        RaceProblem("mnist l1", mnist, 1e-4, 1.0),
        RaceProblem("mnist l1/2", mnist, 1e-4, 0.5),
        RaceProblem("small embeddings", partial(embeddings, 3000, 24, 8, 3.0), 1e-3),
    )
}

#: Rows above which a problem counts in the summary's means.
LARGE = 10_000


def save(problem: RaceProblem, dtype: str, folder: Path) -> Path:
    """Keep the problem's X and y in ``folder``, unless they are there; the folder they are in."""
    path = folder / f"{(problem.table or problem.name).replace('/', '_')} {dtype}"
    if not (path / "y.npy").exists():
        path.mkdir(parents=True, exist_ok=True)
        X, y = problem.load(dtype)
        if sp.issparse(X):
            sp.save_npz(path / "X.npz", sp.csr_matrix(X), compressed=False)
        else:
            np.save(path / "X.npy", X)
        np.save(path / "y.npy", y)
    return path


def read_saved(path: Path) -> tuple[Any, Array]:
    """What ``save`` kept."""
    X = sp.load_npz(path / "X.npz") if (path / "X.npz").exists() else np.load(path / "X.npy")
    return X, read_saved_codes(path)


def read_saved_codes(path: Path) -> Array:
    return np.asarray(np.load(path / "y.npy"))
