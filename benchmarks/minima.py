"""F* of the race's problems, kept in ``results/minima.csv``: ``python -m benchmarks.minima`` adds what is missing.

A long run of a second-order method in float64, and a bound of what it misses that does not rest on it: F is
alpha (1 - l1_ratio)-strongly convex in coef, so where the intercept's gradient is 0

    F - F* <= ||g||^2 / (2 alpha (1 - l1_ratio)),    g the least subgradient by coef

and for ``l1_ratio=1`` the duality gap of the residuals, scaled until they are feasible.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import entr, expit, softmax

from benchmarks import problems
from benchmarks.problems import RACE, RaceProblem
from benchmarks.report import read_csv, write_csv
from benchmarks.rivals import OURS, is_sparse, objective
from sksoftmax._types import Array, Params

KEPT = Path(__file__).parent / "results" / "minima.csv"

#: A relative bound above this is no minimum to race to.
_SURE = 1e-8

_BLOCK = 4096


def crc32(X: Any, y: Array) -> str:
    """A checksum of the data: fetched sets, and rounding in tf-idf or QR, may differ from one place to the next."""
    parts = (X.data, X.indices, X.indptr) if is_sparse(X) else (X,)
    total = 0
    for part in (*parts, y.astype(np.int64)):
        total = zlib.crc32(np.ascontiguousarray(part).view(np.uint8).ravel(), total)
    return f"{total:08x}"


def slopes(X: Any, y: Array, params: Params) -> tuple[Params, float]:
    """The mean loss's gradient, and the mean entropy of the probabilities (for the dual)."""
    coef, intercept = np.zeros(params.coef.shape), np.zeros(params.intercept.shape)
    entropy = 0.0
    for start in range(0, len(y), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block, labels = X[rows].astype(np.float64), y[rows]
        z = block @ params.coef.T + params.intercept
        if z.shape[1] == 1:
            residual = expit(z)
            entropy += float(np.sum(entr(residual) + entr(expit(-z))))
            residual[:, 0] -= labels
        else:
            residual = softmax(z, axis=1)
            entropy += float(np.sum(entr(residual)))
            residual[np.arange(len(labels)), labels] -= 1
        coef += (block.T @ residual).T
        intercept += residual.sum(axis=0)
    return Params(coef / len(y), intercept / len(y)), entropy / len(y)


def certificate(X: Any, y: Array, params: Params, alpha: float) -> tuple[float, float, float]:
    """Bound of F - F* by strong convexity, and the gradient's norms by coef and intercept, for ``l1_ratio=0``."""
    grads, _ = slopes(X, y, params)
    norm = float(np.linalg.norm(grads.coef + alpha * params.coef))
    return norm**2 / (2 * alpha), norm, float(np.linalg.norm(grads.intercept))


def compute(problem: RaceProblem, dtype: str, X: Any, y: Array) -> dict[str, Any]:
    """A row of ``minima.csv``."""
    start = time.perf_counter()
    F = objective(X, y, problem.alpha, problem.l1_ratio)
    estimator = OURS.make(problem.alpha, len(y), tol=1e-12, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        params = OURS.params(estimator.fit(X.astype(np.float64), y))
    value = F(params)
    bound, coef_norm, intercept_norm = certificate(X, y, params, problem.alpha)
    return {
        "problem": problem.name,
        "dtype": dtype,
        "crc32": crc32(X, y),
        "n_samples": X.shape[0],
        "n_features": X.shape[1],
        "n_classes": int(y.max()) + 1,
        "stored": X.nnz if is_sparse(X) else X.size,
        "alpha": problem.alpha,
        "l1_ratio": problem.l1_ratio,
        "minimum": repr(value),
        "bound": f"{bound / value:.1e}",
        "coef_gradient": f"{coef_norm:.1e}",
        "intercept_gradient": f"{intercept_norm:.1e}",
        "method": f"{type(estimator).__name__}(tol=1e-12), float64",
        "iterations": int(np.max(estimator.n_iter_)),
        "seconds": f"{time.perf_counter() - start:.1f}",
    }


def minimum(problem: RaceProblem, dtype: str, data: Path, kept: Path = KEPT) -> float:
    """F* of the saved data, from ``kept`` if it is there, else computed and kept.

    Raises
    ------
    ArithmeticError
        If its bound is too wide.
    """
    X, y = problems.read_saved(data)
    rows = read_csv(kept)
    known = rows if kept == KEPT else [*rows, *read_csv(KEPT)]
    key = {"problem": problem.name, "dtype": dtype, "crc32": crc32(X, y), "alpha": str(problem.alpha)}
    found = [row for row in known if all(row[column] == value for column, value in key.items())]
    row = found[-1] if found else compute(problem, dtype, X, y)
    if not found:
        others = [row for row in rows if (row["problem"], row["dtype"]) != (problem.name, dtype)]
        write_csv(kept, [*others, row])
    if not float(row["bound"]) <= _SURE:
        raise ArithmeticError(f"F* of {problem.name} ({dtype}) is sure to {row['bound']} only, of its value.")
    return float(row["minimum"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.minima", description=__doc__)
    parser.add_argument("--problems", nargs="+", default=[p.name for p in RACE.values()], choices=list(RACE))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--data", type=Path, help="folder to keep the problems in; default: a temporary one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.problems:
            for dtype in options.dtypes:
                data = problems.save(RACE[name], dtype, options.data or Path(temporary))
                print(f"{name}, {dtype}: F* = {minimum(RACE[name], dtype, data)!r}", flush=True)


if __name__ == "__main__":
    main()
