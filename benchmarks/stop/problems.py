"""Generated problems on which a fit may stop too early: a kind and a seed give one problem.

Sizes, strengths and settings are drawn over whole ranges, so that other seeds are other problems.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from benchmarks.stop.draws import Rng, log_uniform
from benchmarks.stop.kinds import KINDS
from sksoftmax._engines.registry import has_compiled
from sksoftmax._types import Array

#: Engines and solvers that are drawn.
ENGINES = (
    {"engine": "auto", "solver": "auto"},
    {"engine": "vectorized", "solver": "auto"},
    {"engine": "auto", "solver": "dual"},
)

#: Max n_samples * n_features * n_classes for the naive engine.
_NAIVE_WORK = 4000

#: Excess within which a stream's coefficients are promised.
STREAM_TOL = 0.03


class StopProblem(NamedTuple):
    """A fit to judge.

    Attributes
    ----------
    kind : str
    seed : int
    X, y, weight
        As the fit takes them.
    n_classes : int
    outlying : array of bool
    settings : dict
        Parameters of ``SoftmaxClassifier``.
    way : str
        How the fit is made: a name in ``WAYS``.
    way_seed : int
        Seed of what the way draws, such as the size of batches.
    """

    kind: str
    seed: int
    X: Any
    y: Array
    weight: Array | None
    n_classes: int
    outlying: Array
    settings: dict[str, Any]
    way: str
    way_seed: int


#: Ways to a fit, and their probabilities.
WAYS = {
    "cold": 0.60,
    "warm, other alpha": 0.06,
    "warm, other units": 0.05,
    "warm, from_sklearn": 0.05,
    "warm, from garbage": 0.06,
    "batches": 0.08,
    "stream": 0.05,
    "CV": 0.05,
}


def problem(kind: str, seed: int) -> StopProblem:
    """Draw the problem of a kind and a seed."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed])
    rows = KINDS[kind](rng)
    is_soft = rows.y.ndim == 2
    y = rows.y if is_soft else np.unique(rows.y, return_inverse=True)[1]
    n, p = rows.X.shape
    K = y.shape[1] if is_soft else int(y.max()) + 1
    settings = _settings(rng) | rows.settings
    dtype = np.float32 if rng.random() < 0.5 else np.float64
    X = _contained(rng, rows.X).astype(dtype)
    weight = rows.weight
    if weight is None and "class_weight" not in settings and rng.random() < 0.08:
        weight = 10.0 ** rng.uniform(-log_uniform(rng, 0.1, 3), 0, n)
    is_labelled = not is_soft and not settings.get("label_smoothing")
    if settings["solver"] == "dual" and not (has_compiled() and is_labelled):
        settings["solver"] = "auto"
    way = str(rng.choice(list(WAYS), p=list(WAYS.values())))
    if n * p * K <= _NAIVE_WORK and rng.random() < 0.1 and not sp.issparse(X):
        settings["engine"], settings["solver"], way = "naive", "auto", "cold"
    if way in ("batches", "CV", "warm, from_sklearn") and not is_labelled:
        way = "cold"
    if way == "CV" and np.sort(np.bincount(y))[-2] < 2:  # a fold would have one class alone
        way = "cold"
    outlying = np.zeros(n, bool) if rows.outlying is None else rows.outlying
    return StopProblem(
        kind, seed, X, y, weight, K, outlying, settings, way, int(rng.integers(2**31))
    )  # fmt: skip


def _settings(rng: Rng) -> dict[str, Any]:
    alpha = 1e-4 if rng.random() < 0.3 else log_uniform(rng, 1e-8, 1.0)
    if rng.random() < 0.05:
        alpha = log_uniform(rng, 1.0, 1e4)
    elif rng.random() < 0.04:
        alpha = 0.0
    return {
        "alpha": alpha,
        "l1_ratio": float(rng.choice([0.0, 0.5, 1.0], p=[0.64, 0.18, 0.18])) if alpha else 0.0,
        "fit_intercept": bool(rng.random() < 0.85),
        "tol": float(rng.choice([1e-3, 1e-2, 1e-5, 1e-7], p=[0.5, 0.15, 0.2, 0.15])),
        **ENGINES[rng.choice(len(ENGINES), p=[0.6, 0.2, 0.2])],
        "random_state": int(rng.integers(1000)),
    }


def _contained(rng: Rng, X: Any) -> Any:
    """Put X into another container now and then; sparse rows into a dense one if they are few."""
    draw = rng.random()
    if sp.issparse(X):
        if draw < 0.2:
            return sp.csc_array(X)
        return X.toarray() if draw < 0.4 and X.shape[0] * X.shape[1] <= 1_000_000 else X
    if draw < 0.05:
        return sp.csr_array(X)
    if draw < 0.1:
        return sp.csc_array(X)
    return np.asfortranarray(X) if draw < 0.2 else np.ascontiguousarray(X)
