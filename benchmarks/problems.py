"""The data that fits are timed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sksoftmax._types import Array

BUNDLED: dict[str, Callable[..., Any]] = {
    "iris": load_iris,
    "wine": load_wine,
    "digits": load_digits,
    "breast_cancer": load_breast_cancer,
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
