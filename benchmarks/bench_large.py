"""Very many classes, very many columns: what still runs, how long it takes, and in how much memory.

``python -m benchmarks.bench_large`` fits 30000 rows of 300 columns in 10000 classes (those rows hold 9525 of them), and
100000 rows of 2^20 hashed columns in 50 classes, float32, alpha 1e-4 and 1e-6; each solver in a process of its own,
which is ended after ``--limit`` seconds. The gap is to the lowest F that anyone reached: no one can afford F* here.
Peak memory is what a fit takes beyond the process with X, also in units of the parameters in float64. Writes
``large.csv``; ``--quick`` takes small sets and two solvers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.preprocessing import normalize

from benchmarks import report
from benchmarks.bench_disk import status
from benchmarks.problems import embeddings
from benchmarks.rivals import linear_params, objective
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._types import Array

#: name -> (rows, of --quick; classes, of --quick; alpha)
PROBLEMS: dict[str, tuple[int, int, int, int, float]] = {
    "10000 classes": (30_000, 1000, 10_000, 100, 1e-4),
    "hashed": (100_000, 1000, 50, 5, 1e-6),
}

WORDS, OWN_WORDS = 60, 2000


def hashed(n_samples: int, n_classes: int) -> tuple[Any, Array]:
    """Rows of 60 hashed words of 2^20: three of ten of the class's own 2000, the others of all, few of them often."""
    rng = np.random.default_rng(0)
    n_features = 2**20
    own = rng.integers(0, n_features, size=(n_classes, OWN_WORDS))
    y = rng.integers(0, n_classes, n_samples)
    shape = (n_samples, WORDS)
    common = (n_features * rng.random(shape) ** 4).astype(np.int64)
    words = np.where(rng.random(shape) < 0.3, own[y[:, None], (OWN_WORDS * rng.random(shape) ** 2).astype(int)], common)
    starts = np.arange(0, words.size + 1, WORDS, dtype=np.int32)  # scikit-learn takes no int64
    X = sp.csr_array((np.ones(words.size, np.float32), words.ravel().astype(np.int32), starts), (n_samples, n_features))
    X.sum_duplicates()
    return sp.csr_array(normalize(X)), y


def load(name: str, is_quick: bool) -> tuple[Any, Array]:
    n, n_quick, K, K_quick, _ = PROBLEMS[name]
    n, K = (n_quick, K_quick) if is_quick else (n, K)
    X, y = hashed(n, K) if name == "hashed" else embeddings(n, 300, K)
    return X.astype(np.float32), np.unique(y, return_inverse=True)[1]


def _lbfgs(alpha: float, n: int, **settings: Any) -> Any:
    return LogisticRegression(C=1 / (alpha * n), **settings)


#: name -> (alpha, rows) -> estimator
SOLVERS: dict[str, Callable[[float, int], Any]] = {
    "SoftmaxClassifier(tol=1e-2)": lambda alpha, n: SoftmaxClassifier(alpha, tol=1e-2, random_state=0),
    "SoftmaxClassifier()": lambda alpha, n: SoftmaxClassifier(alpha, random_state=0),
    "LogisticRegression(max_iter=20)": lambda alpha, n: _lbfgs(alpha, n, max_iter=20),
    "LogisticRegression()": lambda alpha, n: _lbfgs(alpha, n),
    "LogisticRegression(saga, max_iter=5)": lambda alpha, n: _lbfgs(alpha, n, solver="saga", max_iter=5, tol=0.0),
    "SGDClassifier(max_iter=5)": lambda alpha, n: SGDClassifier("log_loss", alpha=alpha, max_iter=5, tol=None),
}


#: What --quick takes.
QUICK = ("SoftmaxClassifier(tol=1e-2)", "SGDClassifier(max_iter=5)")


def run(problem: str, solver: str, is_quick: bool) -> dict[str, float]:
    """One fit: seconds, F, MiB beyond the process with X, and of the parameters."""
    X, y = load(problem, is_quick)
    alpha = PROBLEMS[problem][-1]
    few = slice(0, max(300, len(y) // 100))
    warnings.simplefilter("ignore")
    SoftmaxClassifier(alpha, tol=1.0).fit(X[few], y[few])  # what is compiled late
    Path("/proc/self/clear_refs").write_text("5")  # Linux's peak starts anew
    before = status("VmRSS")
    clf = SOLVERS[solver](alpha, len(y))
    start = time.perf_counter()
    clf.fit(X, y)
    seconds = time.perf_counter() - start
    peak = status("VmHWM") - before
    params = linear_params(clf)
    return {
        **{"seconds": seconds, "value": objective(X, y, alpha)(params), "peak_MiB": peak / 2**20},
        "params_MiB": params.coef.size * 8 / 2**20,
    }


def said(problem: str, solver: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own says, or why it does not."""
    command = [sys.executable, "-m", "benchmarks.bench_large", "--run", problem, solver]
    try:
        done = subprocess.run(
            [*command, *(["--quick"] if options.quick else [])], capture_output=True, text=True, timeout=options.limit
        )
    except subprocess.TimeoutExpired:
        return {"status": f"> {options.limit:g} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        return {"status": lines[-1][:200]}
    return {"status": "ran", **json.loads(done.stdout.splitlines()[-1])}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_large", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sets")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds of a process, its data included")
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    if options.run:
        print(json.dumps(run(*options.run, options.quick)))
        return
    rows = []
    for problem in options.problems:
        found = {}
        for solver in QUICK if options.quick else SOLVERS:
            found[solver] = said(problem, solver, options)
            print(problem, solver, found[solver], flush=True)
        best = min(row["value"] for row in found.values() if "value" in row)
        ours = found["SoftmaxClassifier(tol=1e-2)"]["seconds"]
        for solver, row in found.items():
            told = {"problem": problem, "solver": solver, "ratio": "", "gap": "", "seconds": "", "peak_MiB": ""}
            told |= {"peak_in_parameters": "", "status": row["status"]}
            if "value" in row:
                told |= {
                    **{"ratio": f"{row['seconds'] / ours:.1f}", "gap": f"{row['value'] / best - 1:.1e}"},
                    **{"seconds": f"{row['seconds']:.1f}", "peak_MiB": f"{row['peak_MiB']:.0f}"},
                    "peak_in_parameters": f"{row['peak_MiB'] / row['params_MiB']:.1f}",
                }
            rows.append(told)
    report.write_csv(options.output / "large.csv", [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    print(f"wrote {options.output / 'large.csv'}")


if __name__ == "__main__":
    main()
