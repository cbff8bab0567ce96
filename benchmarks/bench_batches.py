"""How many passes does ``fit_batches`` take where memory holds a quarter of the rows at most?

The race's problems, float32, sorted by class, the hard case, in 50 batches; the sample, 128 MiB by default, is set to a
quarter of X. The gap is to the F* of ``results/minima.csv``; a pass is a read of all rows, the check's among them.
Beside it the fit in memory, one run each.

``python -m benchmarks.bench_batches`` writes ``batches.csv`` and fails if a gap is above 1e-3; ``--quick`` takes one
small problem. The data are the race's: see ``problems.py``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import minima, problems, report
from benchmarks.problems import RACE
from benchmarks.rivals import OURS, objective
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._data import chunks
from sksoftmax._types import Array

PROBLEMS = [
    *("letter", "newsgroups20", "mnist", "word_langid", "embeddings", "flights", "covertype"),
    *("newsgroups20 l1/2", "mnist l1"),
]
QUICK = ["small embeddings"]

SHARE = 4
N_BATCHES = 50
TOL = 1e-3


class Batches:
    """The rows in pieces; counts the passes."""

    def __init__(self, X: Any, y: Array) -> None:
        self.X, self.y, self.n_passes = X, y, 0

    def __iter__(self) -> Iterator[tuple[Any, Array]]:
        self.n_passes += 1
        for rows in np.array_split(np.arange(len(self.y)), N_BATCHES):
            yield self.X[rows[0] : rows[-1] + 1], self.y[rows[0] : rows[-1] + 1]


def measure(name: str, folder: Path, kept: Path) -> dict[str, str]:
    """A row."""
    problem = RACE[name]
    saved = problems.save(problem, "float32", folder)
    X, y = problems.read_saved(saved)
    minimum = minima.minimum(problem, "float32", saved, kept)
    order = np.argsort(y, kind="stable")
    X, y = X[order], y[order]
    F = objective(X, y, problem.alpha, problem.l1_ratio)
    batches = Batches(X, y)
    settings = {"alpha": problem.alpha, "l1_ratio": problem.l1_ratio, "random_state": 0}
    SoftmaxClassifier(**settings).fit(X[:: len(y) // 500], y[:: len(y) // 500])  # what is compiled late
    with mock.patch.object(chunks, "SAMPLE_SIZE", chunks.n_bytes(X) // SHARE):
        start = time.perf_counter()
        clf = SoftmaxClassifier(**settings).fit_batches(batches)
        seconds = time.perf_counter() - start
    start = time.perf_counter()
    in_memory = SoftmaxClassifier(**settings).fit(X, y)
    in_memory_seconds = time.perf_counter() - start
    return {
        **{"problem": name, "rows": str(len(y)), "sample": str(clf.solver_info_["sample"])},
        **{"passes": str(batches.n_passes), "gap": f"{F(OURS.params(clf)) / minimum - 1:.1e}"},
        **{
            "excess": f"{clf.excess_:.1e}",
            "seconds": f"{seconds:.2f}",
            "in_memory_seconds": f"{in_memory_seconds:.2f}",
        },
        "in_memory_gap": f"{F(OURS.params(in_memory)) / minimum - 1:.1e}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_batches", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small problem")
    parser.add_argument("--problems", nargs="+", choices=list(RACE), default=PROBLEMS)
    parser.add_argument("--data", type=Path, help="folder to keep the problems in; default: a temporary one")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    kept = options.output / "minima.csv" if options.quick else minima.KEPT
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in QUICK if options.quick else options.problems:
            rows.append(measure(name, options.data or Path(temporary), kept))
            print(report.text_table(rows[-1:]), flush=True)
    report.write_csv(options.output / "batches.csv", [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    print(f"wrote {options.output / 'batches.csv'}")
    if any(float(row["gap"]) > TOL for row in rows):
        raise SystemExit("a fit ended above its tol")


if __name__ == "__main__":
    main()
