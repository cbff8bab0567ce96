"""F* of the race's problems, kept in ``results/minima.csv``: ``python -m benchmarks.minima`` adds what is missing.

A long run of a second-order method in float64, and a bound of what it misses that does not rest on it: F is
alpha (1 - l1_ratio)-strongly convex in coef, so where the intercept's gradient is 0

    F - F* <= ||g||^2 / (2 alpha (1 - l1_ratio)),    g the least subgradient by coef,

and for ``l1_ratio=1`` it is at most the duality gap. (The intercept's gradient is in the file: it is rounding.)
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
import scipy.sparse as sp

from benchmarks import problems
from benchmarks.newton_l1 import Smooth, newton, pseudo_gradient
from benchmarks.problem_sets import ALL_PROBLEMS
from benchmarks.problems import RACE, RaceProblem
from benchmarks.report import read_csv, write_csv
from benchmarks.rivals import OURS, RIVALS, Rival, is_sparse, objective
from sksoftmax._types import Array, Params

CHOLESKY = RIVALS[2]

KEPT = Path(__file__).parent / "results" / "minima.csv"

#: Rows, or stored numbers, that are looked at together.
_BLOCK = 2**16

#: A relative bound that we are after; one above a hundredth of the least target is no minimum to race to.
_WANTED, _SURE = 1e-9, 1e-6

#: Multiplications of a Hessian up to which newton-cholesky, which forms it, is the method.
_MOST_OF_HESSIAN = 2e11

#: Our ``tol`` for them, until one brings a bound as it is wanted.
_TOLS = (1e-9, 1e-11, 1e-13)

#: With an L1 term our first ``tol``, and the share of its strength from which a column may come to count.
_NEAR, _NEARLY = 1e-3, 0.9


def crc32(X: Any, y: Array) -> str:
    """A checksum of the numbers, whatever their dtype.

    Fetched sets may differ from one place to the next, and so does rounding, in tf-idf or in a QR.
    """
    total = zlib.crc32(y.astype(np.int64))
    for part in (X.data, X.indices, X.indptr) if is_sparse(X) else (X,):
        for start in range(0, len(part), _BLOCK):
            total = zlib.crc32(np.ascontiguousarray(part[start : start + _BLOCK], dtype=np.float64), total)
    return f"{total:08x}"


def certificate(X: Any, y: Array, params: Params, alpha: float, l1_ratio: float) -> tuple[float, float, float]:
    """A bound of F - F*, and the norms of the least subgradient by coef and of the gradient by intercept."""
    smooth = Smooth(X, y, alpha * (1 - l1_ratio))
    grads = smooth.grads(params)
    pseudo = pseudo_gradient(grads, params, alpha * l1_ratio)
    norm, intercept_norm = float(np.linalg.norm(pseudo.coef)), float(np.linalg.norm(pseudo.intercept))
    if l1_ratio < 1:
        return norm**2 / (2 * alpha * (1 - l1_ratio)), norm, intercept_norm
    F = objective(X, y, alpha, l1_ratio)(params)
    return F - smooth.dual(params, min(1.0, alpha / np.abs(grads.coef).max())), norm, intercept_norm


def _newton(problem: RaceProblem, X: Any, y: Array) -> tuple[Params, int, str]:
    """scikit-learn's Newton steps where its Hessian is small enough; else ours, until the bound is small."""
    n_coef = (1 if y.max() == 1 else int(y.max()) + 1) * (X.shape[1] + 1)
    tries: list[tuple[Rival, dict[str, float]]] = [(OURS, {"tol": tol}) for tol in _TOLS]
    if len(y) * n_coef**2 <= _MOST_OF_HESSIAN:
        tries = [(CHOLESKY, {"tol": 1e-12}), *tries]
    for rival, settings in tries:
        estimator = rival.make(problem.alpha, len(y), max_iter=1000, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that rounding ended it: the bound says whether it was too soon
            params = rival.params(estimator.fit(X, y))
        bound, *_ = certificate(X, y, params, problem.alpha, 0.0)
        if bound <= _WANTED * objective(X, y, problem.alpha)(params):
            break
    return params, int(np.max(estimator.n_iter_)), f"{rival.name}, tol={settings['tol']:g}, float64"


def _proximal(problem: RaceProblem, X: Any, y: Array) -> tuple[Params, int, str]:
    """Ours on X as sparse rows, which gets near; on the columns that may count, to the end; then within its orthant."""
    X = sp.csr_array(X)
    l1 = problem.alpha * problem.l1_ratio

    def fit(X: Any, tol: float) -> Params:
        settings = {"tol": tol, "l1_ratio": problem.l1_ratio, "max_iter": 1000}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bound says whether it was too soon
            return OURS.params(OURS.make(problem.alpha, len(y), **settings).fit(X, y))

    params = fit(X, _NEAR)
    wanted = _WANTED * objective(X, y, problem.alpha, problem.l1_ratio)(params)
    for tol in _TOLS:
        slope = np.abs(Smooth(X, y, problem.alpha * (1 - problem.l1_ratio)).grads(params).coef)
        columns = np.flatnonzero(((params.coef != 0) | (slope > _NEARLY * l1)).any(axis=0))
        part = fit(X[:, columns], tol)
        params = Params(np.zeros(params.coef.shape), part.intercept)
        params.coef[:, columns] = part.coef
        if certificate(X, y, params, problem.alpha, problem.l1_ratio)[0] <= wanted:
            return params, 0, f"{OURS.name}, tol={tol:g}, float64, {len(columns)} columns"
    params, n_steps = newton(X, y, problem.alpha, problem.l1_ratio, start=params)
    return params, n_steps, f"{OURS.name}, tol={_TOLS[-1]:g}, float64, then orthant-wise Newton-CG"


def compute(problem: RaceProblem, dtype: str, X: Any, y: Array) -> dict[str, Any]:
    """A row of ``minima.csv``."""
    start = time.perf_counter()
    exact = X.astype(np.float64)
    if problem.l1_ratio:
        params, n_iter, method = _proximal(problem, exact, y)
    else:
        params, n_iter, method = _newton(problem, exact, y)
    seconds = time.perf_counter() - start
    value = objective(X, y, problem.alpha, problem.l1_ratio)(params)
    bound, coef_norm, intercept_norm = certificate(exact, y, params, problem.alpha, problem.l1_ratio)
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
        "nonzero": int(np.count_nonzero(params.coef)),
        "method": method,
        "iterations": n_iter,
        "seconds": f"{seconds:.1f}",
    }


def minimum(problem: RaceProblem, dtype: str, data: Path, kept: Path = KEPT) -> float:
    """F* of the saved data, from ``kept`` (or KEPT) if it is there, else computed and kept.

    DataSource numbers have one F* in both dtypes.

    Raises
    ------
    ArithmeticError
        If its bound is too wide.
    """
    X, y = problems.read_saved(data)
    rows = read_csv(kept)
    known = rows if kept == KEPT else [*rows, *read_csv(KEPT)]
    key = {"crc32": crc32(X, y), "alpha": str(problem.alpha), "l1_ratio": str(problem.l1_ratio)}
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
    parser.add_argument("--problems", nargs="+", default=[p.name for p in RACE.values()], choices=list(ALL_PROBLEMS))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--data", type=Path, help="folder to keep the problems in; default: a temporary one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.problems:
            for dtype in options.dtypes:
                data = problems.save(ALL_PROBLEMS[name], dtype, options.data or Path(temporary))
                print(f"{name}, {dtype}: F* = {minimum(ALL_PROBLEMS[name], dtype, data)!r}", flush=True)


if __name__ == "__main__":
    main()
