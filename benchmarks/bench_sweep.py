"""Does a sweep over the penalty take a third of a grid search's time, and a tenth of LogisticRegressionCV's?

Ten strengths, ``LogisticRegressionCV``'s default, and five stratified folds, scored by accuracy, and a fit of the best
to all rows; on sets of the race, float32 (``LogisticRegressionCV`` makes float64 of them), each solver in a process of
its own, which is ended after ``--patience`` times the seconds aimed at, 3 and 10 times ours. Strengths are the same in
every fold, so that scores compare: ``LogisticRegressionCV`` is given ``C = 1 / (alpha * rows of a fold)``. The ratio is
of seconds to ours; the score is the best mean over the folds, and ``score_difference`` the largest between its and ours
over the strengths.

``python -m benchmarks.bench_sweep`` writes ``sweep.csv``; ``--quick`` takes one small set. The data are the race's: see
``problems.py``. ``--folds 1`` runs the first fold alone. ``LogisticRegressionCV``'s own tolerance and 100 iterations
end before the minimum of weak penalties, at other scores: ``--rivals "LogisticRegressionCV(tol=1e-5, max_iter=1000)"``.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from benchmarks import problems, report
from benchmarks.problems import RACE
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV
from sksoftmax._types import Array

PROBLEMS = ["covertype", "mnist", "newsgroups20", "embeddings"]
QUICK = ["small embeddings"]

N_ALPHAS, N_FOLDS = 10, 5


def _ours(alphas: Array, n_train: int, cv: Any) -> Any:
    return SoftmaxClassifierCV(alphas, cv=cv, scoring="accuracy", random_state=0, store_coefs=False)


def _grid(alphas: Array, n_train: int, cv: Any) -> Any:
    return GridSearchCV(SoftmaxClassifier(random_state=0), {"alpha": alphas}, cv=cv, scoring="accuracy")


def _logistic(alphas: Array, n_train: int, cv: Any, **settings: Any) -> Any:
    newer = {"l1_ratios": (0.0,), "use_legacy_attributes": False}
    known = inspect.signature(LogisticRegressionCV).parameters
    newer = newer if "use_legacy_attributes" in known else {}
    return LogisticRegressionCV(Cs=1 / (alphas * n_train), cv=cv, scoring="accuracy", **newer, **settings)


def _converged(tol: float) -> Callable[[Array, int, Any], Any]:
    return functools.partial(_logistic, tol=tol, max_iter=1000)


#: Ours first; and how many times our seconds each is to take.
SWEEPS: dict[str, tuple[Callable[[Array, int, Any], Any], float]] = {
    "SoftmaxClassifierCV": (_ours, 1.0),
    "GridSearchCV(SoftmaxClassifier)": (_grid, 3.0),
    "LogisticRegressionCV": (_logistic, 10.0),
    "LogisticRegressionCV(tol=1e-5, max_iter=1000)": (_converged(1e-5), 10.0),
    "LogisticRegressionCV(tol=1e-6, max_iter=1000)": (_converged(1e-6), 10.0),
}
RIVALS = list(SWEEPS)[1:]

#: Seconds that a process may take to start and to read its data.
_START = 60.0


def mean_scores(sweep: Any, alphas: Array) -> Array:
    """Mean over the folds, for each of ``alphas``, falling."""
    if isinstance(sweep, GridSearchCV):
        return np.asarray(sweep.cv_results_["mean_test_score"])
    scores = sweep.scores_
    if isinstance(scores, dict):  # scikit-learn before 1.8
        scores = next(iter(scores.values()))
    return np.asarray(scores).reshape(-1, len(alphas)).mean(axis=0)


def run(name: str, sweep_name: str, folder: Path, n_folds: int) -> dict[str, Any]:
    """One sweep: seconds and scores."""
    problem = RACE[name]
    X, y = problems.read_saved(problems.save(problem, "float32", folder))
    folds = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(np.zeros(len(y)), y))
    n_train = len(folds[0][0])
    alphas = 1 / (np.logspace(-4, 4, N_ALPHAS) * len(y))
    warnings.simplefilter("ignore")
    for tol in (1e-3, 1e-6):  # what is compiled late, a certificate's Newton steps too
        SoftmaxClassifier(1e-6, tol=tol).fit(X[: len(y) // 50], y[: len(y) // 50])
    sweep = SWEEPS[sweep_name][0](alphas, n_train, folds[:n_folds])
    start = time.perf_counter()
    sweep.fit(X, y)
    return {"seconds": time.perf_counter() - start, "scores": mean_scores(sweep, alphas).tolist()}


def said(name: str, sweep: str, folder: Path, n_folds: int, limit: float | None) -> dict[str, Any]:
    """What a process of its own says; of one that takes too long, how long that is."""
    command = [sys.executable, "-m", "benchmarks.bench_sweep", "--data", str(folder), "--folds", str(n_folds)]
    try:
        done = subprocess.run(
            [*command, "--run", name, sweep], stdout=subprocess.PIPE, text=True, timeout=limit, check=True
        )
    except subprocess.TimeoutExpired:
        return {"limit": limit}
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def measure(name: str, rivals: Sequence[str], folder: Path, n_folds: int, patience: float) -> list[dict[str, str]]:
    """The rows of a problem, ours first."""
    problems.save(RACE[name], "float32", folder)
    rows, ours = [], {}
    for sweep in ["SoftmaxClassifierCV", *rivals]:
        most = patience * SWEEPS[sweep][1]
        told = said(name, sweep, folder, n_folds, _START + most * ours["seconds"] if ours else None)
        ours = ours or told
        ratio = f"> {most:g}" if "limit" in told else f"{told['seconds'] / ours['seconds']:.1f}"
        row = {"problem": name, "sweep": sweep, "folds": str(n_folds), "ratio": ratio, "seconds": "", "score": ""}
        row["score_difference"] = ""
        if "seconds" in told:
            difference = np.abs(np.subtract(told["scores"], ours["scores"])).max()
            row |= {"seconds": f"{told['seconds']:.1f}", "score": f"{max(told['scores']):.4f}"}
            row["score_difference"] = f"{difference:.4f}"
        rows.append(row)
        print(report.text_table(rows[-1:]), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small problem")
    parser.add_argument("--problems", nargs="+", choices=list(RACE), default=PROBLEMS)
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=RIVALS[:2])
    parser.add_argument("--folds", type=int, default=N_FOLDS, choices=range(1, N_FOLDS + 1))
    parser.add_argument("--patience", type=float, default=1.3, help="of the seconds aimed at, what others get")
    parser.add_argument("--data", type=Path, help="folder to keep the problems in; default: a temporary one")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        print(json.dumps(run(*options.run, options.data, options.folds)))
        return
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in QUICK if options.quick else options.problems:
            rows += measure(name, options.rivals, options.data or Path(temporary), options.folds, options.patience)
            report.write_csv(options.output / "sweep.csv", [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    print(f"wrote {options.output / 'sweep.csv'}")


if __name__ == "__main__":
    main()
