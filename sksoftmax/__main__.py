"""``python -m sksoftmax``: print the versions for a bug report, and run a self-test.

The self-test checks the gradient against finite differences, and a fit against ``LogisticRegression``. The exit status
is 1 if it fails, otherwise 0.
"""

from __future__ import annotations

import itertools
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_info, threadpool_limits

import sksoftmax
from sksoftmax import SoftmaxClassifier, check_gradient
from sksoftmax._engines import compiled
from sksoftmax._engines.registry import KERNELS

#: Required packages, whose versions are printed.
REQUIRED = ("numpy", "scipy", "scikit-learn", "joblib", "threadpoolctl")

#: Packages of each extra that users can install.
EXTRAS = {"dask": ("dask", "distributed"), "plot": ("matplotlib",), "onnx": ("skl2onnx",)}

#: What to install for a package, where that is not its name.
_REQUIREMENTS = {"dask": "'dask[array,dataframe]'"}

#: Largest relative error of a correct gradient: the bound that check_gradient documents.
_MAX_GRADIENT_ERROR = 1e-4

#: ``tol`` of the fit. Its excess may differ from LogisticRegression's by twice this value, which is not exact either.
_TOL = 1e-6


def main() -> int:
    """Print versions, engines, threads and the self-test; return 1 if the self-test fails, otherwise 0."""
    for lines in (_versions(), _engines(), _threads()):
        for name, value in lines:
            print(f"{name:<14}{value}")
    results = []
    for name, figure, is_ok in (_gradient(), _fit()):
        print(f"{name:<14}{figure}: {'ok' if is_ok else 'FAILED'}", flush=True)
        results.append(is_ok)
    return 0 if all(results) else 1


def _versions() -> Iterator[tuple[str, str]]:
    yield "sksoftmax", f"{sksoftmax.__version__} ({os.path.dirname(sksoftmax.__file__)})"
    yield "python", f"{platform.python_version()} ({platform.platform()})"
    for name in REQUIRED:
        yield name, version(name)
    for name in itertools.chain.from_iterable(EXTRAS.values()):
        yield name, _version_or_none(name) or f"not installed; pip install {_REQUIREMENTS.get(name, name)}"


def _version_or_none(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _engines() -> Iterator[tuple[str, str]]:
    names = ", ".join(KERNELS)
    if compiled.missing is None:
        *_, variant = compiled.kernels.variants()
        yield "engines", f"{names}; kernels for {variant}"
    else:
        yield "engines", f"{names}; no kernels ({compiled.missing}): install a C++ compiler, then sksoftmax again"


def _threads() -> Iterator[tuple[str, str]]:
    yield "cores", str(os.cpu_count())
    for pool in threadpool_info():
        kind = " ".join(filter(None, (pool["internal_api"], pool["version"])))
        yield pool["user_api"], f"{pool['num_threads']} threads, {kind} ({os.path.basename(pool['filepath'])})"


def _gradient() -> tuple[str, str, bool]:
    """Check the gradient against finite differences; return a name, the figures, and whether they are ok."""
    X, y = _digits()
    error = check_gradient(X[:100], y[:100], alpha=1e-2, max_checks=30)
    return "gradient", f"largest relative error {error:.1e} by scipy.optimize.check_grad", error < _MAX_GRADIENT_ERROR


def _fit() -> tuple[str, str, bool]:
    """Check F of a fit against the optimum of ``LogisticRegression``; return the same as `_gradient`."""
    X, y = _digits()
    alpha = 1e-2
    ours = SoftmaxClassifier(alpha, tol=_TOL, random_state=0).fit(X, y)
    with threadpool_limits(1):  # one thread per core can take 100 times longer if another process uses the cores
        theirs = LogisticRegression(C=1 / (alpha * len(y)), tol=1e-7, max_iter=1000).fit(X, y)
    value, minimum = (_objective(model, X, y, alpha) for model in (ours, theirs))
    gap = (value - minimum) / minimum
    return "fit", f"F = {value:.8f}, (F - F*) / F* = {gap:.1e}, F* LogisticRegression's", abs(gap) < 2 * _TOL


def _objective(model: Any, X: Any, y: Any, alpha: float) -> float:
    """Return F, computed with scikit-learn's log loss."""
    return float(log_loss(y, model.predict_proba(X)) + alpha / 2 * np.sum(model.coef_**2))


def _digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return X / 16, y


if __name__ == "__main__":
    sys.exit(main())
