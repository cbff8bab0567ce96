"""Results in the array library and on the device of the user's X or y.

The estimators place coefficients, classes and predictions with it, and check that X fits the coefficients' device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from sksoftmax._engines.device import DeviceArray, to_host, to_numpy
from sksoftmax._sklearn import namespace_of
from sksoftmax._types import Array


def place_like(values: Array, X: Any) -> Any:
    """Return the values as an array of X's library on X's device; unchanged unless X is a ``DeviceArray``."""
    return X.to_device(values) if isinstance(X, DeviceArray) else values


def labels_like(classes: Array, y: Any) -> Any:
    """Return the classes as an array of y's library on y's device; unchanged if y is NumPy's."""
    xp = namespace_of(y)
    return classes if xp is None else xp.asarray(classes, device=y.device)


def labels_of(codes: Any, classes: Any) -> Any:
    """Return the labels of these codes in the codes' library, on their device; strings are always NumPy's."""
    labels = to_numpy(classes)
    if isinstance(codes, DeviceArray) and labels.dtype.kind not in "OUS":
        return codes.xp.take(codes.to_device(labels), codes.array, axis=0)
    return np.asarray(labels[to_host(codes)])


def check_device_of_fit(estimator: Any, X: Any, method: str) -> None:
    """Raise ValueError if X's library or device differs from that of ``coef_``; do nothing before the first fit."""
    coef = getattr(estimator, "coef_", None)
    if coef is None:
        return
    is_numpy = isinstance(coef, np.ndarray) or sp.issparse(coef)
    if not is_numpy and namespace_of(coef) is None:
        raise ValueError(
            f"coef_ is of {type(coef).__module__}: {method} needs sklearn.config_context(array_api_dispatch=True), as "
            "fit did, or coef_ and intercept_ as NumPy arrays."
        )
    X_place, fit_place = _place(X), _place(coef)
    if X_place != fit_place:
        raise ValueError(
            f"inputs passed to {type(estimator).__name__}.{method}() must use the same namespace and the same device "
            f"as those passed to fit, {_describe_place(fit_place)}, got {_describe_place(X_place)}; convert X, or "
            "coef_ and intercept_."
        )


def _place(X: Any) -> tuple[Any, ...]:
    """Return the name of X's array library, with X's device unless X is NumPy's."""
    xp = namespace_of(X)
    return ("numpy",) if xp is None else (xp.__name__.split(".")[-1], X.device)


def _describe_place(place: tuple[Any, ...]) -> str:
    """Return a place as text, such as "torch on cpu"."""
    return " on ".join(map(str, place))
