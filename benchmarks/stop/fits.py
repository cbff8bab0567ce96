"""The fits of ``bench_stop``: every way to coefficients, cold or warm, from memory, batches, a stream or a search."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.stop.draws import Rng
from benchmarks.stop.problems import StopProblem
from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV

#: Rows a class that the sample of ``fit_batches`` holds on average; if that is all rows, there is one pass.
_LEAST_SAMPLE = 8


class Fit(NamedTuple):
    """What a fit handed over, and what it said.

    Attributes
    ----------
    coef, intercept : ndarray or None
        None if there are none, because of an error.
    alpha, l1_ratio : float
        Of the objective; a search chooses them.
    stop_reason : str
        "tol" for a stream, which has none.
    said : float
        ``excess_``; NaN for a stream.
    warned : str
        Messages of convergence warnings.
    error : str
        An exception, coefficients that are not finite, or a warning of NumPy's about numbers.
    solver : str
    seconds : float
        CPU seconds of the fit itself.
    """

    coef: Any
    intercept: Any
    alpha: float
    l1_ratio: float
    stop_reason: str
    said: float
    warned: str
    error: str
    solver: str
    seconds: float


def fitted(p: StopProblem) -> Fit:
    """Make the fit of a problem."""
    rng = np.random.default_rng(p.way_seed)
    model: Any = SoftmaxClassifier(**p.settings)
    error, start = "", time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if p.way.startswith("warm"):
                model = _fitted_before(p, rng)
                caught.clear()
                start = time.process_time()
            model = _fit(p, model, rng)
        except Exception as raised:  # whichever it is, a fit must not raise it
            error = f"{type(raised).__name__}: {raised}"
    seconds = time.process_time() - start
    warned = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    slips = [f"{w.category.__name__}: {w.message}" for w in caught if issubclass(w.category, RuntimeWarning)]
    coef, intercept = getattr(model, "coef_", None), getattr(model, "intercept_", None)
    if not error and not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        error = "coefficients that are not finite"
    return Fit(
        coef,
        intercept,
        float(model.alpha),
        float(model.l1_ratio) if model.alpha else 0.0,
        "tol" if p.way == "stream" else getattr(model, "stop_reason_", ""),
        float(getattr(model, "excess_", np.nan)),
        "; ".join(warned),
        error or "; ".join(slips),
        str(getattr(model, "solver_info_", {}).get("solver", "")),
        seconds,
    )


def _fit(p: StopProblem, model: SoftmaxClassifier, rng: Rng) -> SoftmaxClassifier:
    if p.way == "batches":
        pieces = list(_pieces(p, rng))
        share = max(1 / rng.uniform(1.5, 6), _LEAST_SAMPLE * p.n_classes / len(p.y))
        with _sample_of(int(share * _n_bytes(p.X))):
            return model.fit_batches(pieces)
    if p.way == "stream":
        classes = None if p.settings.get("soft_targets") else np.arange(p.n_classes)
        for X, y, *weight in _pieces(p, rng):
            model.partial_fit(X, y, classes, *weight)
        return model
    if p.way == "CV":
        alphas = max(p.settings["alpha"], 1e-8) * np.array([1.0, 10.0])
        settings = {key: value for key, value in p.settings.items() if key not in ("alpha", "l1_ratio", "solver")}
        cv = SoftmaxClassifierCV(alphas, l1_ratios=(p.settings["l1_ratio"],), cv=2, **settings)
        return cv.fit(p.X, p.y, sample_weight=p.weight).best_estimator_
    return model.fit(p.X, p.y, sample_weight=p.weight)


def _fitted_before(p: StopProblem, rng: Rng) -> SoftmaxClassifier:
    """Return a model that is about to be fitted again, from where something else has brought it."""
    model = SoftmaxClassifier(**p.settings)
    alpha = p.settings["alpha"] or 1e-4
    if p.way == "warm, other alpha":
        model.set_params(alpha=alpha * 10 ** rng.uniform(-4, 4)).fit(p.X, p.y, p.weight)
    elif p.way == "warm, other units":
        unit = p.X.dtype.type(10 ** rng.uniform(-6, 6))
        model.set_params(alpha=alpha * 1e-4).fit(p.X * unit, p.y, p.weight)
    elif p.way == "warm, from_sklearn":
        given = LogisticRegression(C=10 ** rng.uniform(-3, 3), max_iter=int(rng.integers(1, 100)))
        model = SoftmaxClassifier.from_sklearn(given.fit(p.X, p.y, p.weight), total_weight=float(len(p.y)))
    else:
        model.set_params(max_iter=1).fit(p.X, p.y, p.weight)
        size = 10 ** rng.uniform(-2, 6)
        of_size = (rng.standard_normal(part.shape) * size for part in (model.coef_, model.intercept_))
        coef, intercept = of_size
        values = p.X.data if sp.issparse(p.X) else p.X
        model.coef_ = (coef / (np.abs(values).mean(dtype=float) or 1.0)).astype(model.coef_.dtype)
        model.intercept_ = (intercept * p.settings["fit_intercept"]).astype(model.intercept_.dtype)
    return model.set_params(**p.settings, warm_start=True, max_iter=100)


def _pieces(p: StopProblem, rng: Rng) -> Iterator[tuple[Any, ...]]:
    """Split the rows into pieces of one size, in order."""
    X = p.X.tocsr() if sp.issparse(p.X) else p.X
    n = len(p.y)
    size = int(rng.integers(max(2, n // 10), max(4, n // 2)))
    for start in range(0, n, size):
        cut = slice(start, start + size)
        yield (X[cut], p.y[cut]) if p.weight is None else (X[cut], p.y[cut], p.weight[cut])


def _n_bytes(X: Any) -> int:
    if not sp.issparse(X):
        return int(X.nbytes)
    rows = X.tocsr()
    return int(rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes)


@contextmanager
def _sample_of(n_bytes: int) -> Iterator[None]:
    """Let memory hold a sample of so many bytes, so that a fit needs several passes."""
    places = [m for name, m in sys.modules.items() if name.startswith("sksoftmax.") and hasattr(m, "SAMPLE_SIZE")]
    if not places:
        raise RuntimeError("a module of sksoftmax must have SAMPLE_SIZE; name here what bounds the sample now.")
    before = [place.SAMPLE_SIZE for place in places]
    for place in places:
        place.SAMPLE_SIZE = n_bytes
    try:
        yield
    finally:
        for place, size in zip(places, before, strict=True):
            place.SAMPLE_SIZE = size
