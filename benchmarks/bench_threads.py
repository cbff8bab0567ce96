"""How much sooner are a pass, the moments and whole fits on several threads?

``python -m benchmarks.bench_threads`` fits the race's problems of more than 10000 rows in float32 on 1, 2, 4, 8 and 16
threads, as far as the machine has cores, in turn, and times a pass (one loss and gradient) and X'X of each. It prints
the seconds on one thread, how many times sooner the others are, by pairs of the same round (median, least and most),
and whether all results are the same to the bit; it writes ``threads.csv``. ``--busy 1`` keeps as many other processes
at work meanwhile, times fits alone, and writes ``threads_busy.csv``. ``--quick`` takes generated rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.problems import LARGE, RACE, RaceProblem, embeddings
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._engines.registry import get_kernel
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._maths.preconditioner import compute_moments
from sksoftmax._training.plan import choose_engine
from sksoftmax._types import Array, Batch, Params, Problem

#: Widest X whose X'X is timed.
_MAX_COLUMNS = 1000

_QUICK = RaceProblem("generated", lambda: embeddings(3000, 24, 8, 3.0), 1e-3)


def jobs(problem: RaceProblem, X: Any, y: Array) -> dict[str, Callable[[], Array]]:
    """What is timed, by name; each returns an array to compare."""
    X = sp.csr_array(X) if sp.issparse(X) else X
    n_classes = int(y.max()) + 1
    kernel = get_kernel(choose_engine("auto"))
    case = Problem(Batch(X, y, np.ones(len(y))), n_classes, problem.alpha, True, kernel, 1.0)
    params = Params(np.full((case.n_outputs, X.shape[1]), 1e-3), np.zeros(case.n_outputs))

    def one_pass() -> Array:
        return value_and_grad(case, params).grads.coef

    def moments() -> Array:
        return compute_moments(case, full_gram=True).second_moment

    def fit() -> Array:
        return SoftmaxClassifier(problem.alpha, l1_ratio=problem.l1_ratio, random_state=0).fit(X, y).coef_

    return {"pass": one_pass, **({"X'X": moments} if X.shape[1] <= _MAX_COLUMNS else {}), "fit": fit}


def measure(name: str, job: Callable[[], Array], numbers: Sequence[int], rounds: int) -> list[dict[str, str]]:
    """A row for each number of threads but one; the first round warms up.

    Passes and moments are timed as parts of a fit, which has its threads already.
    """
    seconds: dict[int, list[float]] = {n: [] for n in numbers}
    results = {}
    for _ in range(rounds + 1):
        for n in numbers:
            with threadpool_limits(n), nullcontext() if name == "fit" else one_blas_thread():
                if name != "fit":
                    job()
                start = time.perf_counter()
                results[n] = job()
                seconds[n].append(time.perf_counter() - start)
    rows = []
    for n in numbers[1:]:
        ratios = np.divide(seconds[1][1:], seconds[n][1:])
        median = float(np.median(ratios))
        rows.append(
            {
                **{"what": name, "threads": str(n), "one_thread_s": f"{np.median(seconds[1][1:]):.4f}"},
                **{"times": f"{median:.2f}", "least": f"{ratios.min():.2f}", "most": f"{ratios.max():.2f}"},
                "serial_share": f"{np.clip((1 / median - 1 / n) / (1 - 1 / n), 0, 1):.0%}",
                "same_bits": str(bool(np.array_equal(results[1], results[n]))),
            }
        )
    return rows


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Keep ``number`` processes of Python at work."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_threads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="generated rows, 2 rounds")
    parser.add_argument("--problems", nargs="+", help="names of problems of the race")
    parser.add_argument("--busy", type=int, default=0, help="number of other processes at work")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    numbers = [1, *(n for n in (2, 4, 8, 16) if n <= max(2, joblib.cpu_count()))]
    problems = [_QUICK] if options.quick else [p for p in RACE.values() if p.name in (options.problems or RACE)]
    rows = []
    for problem in problems:
        X, y = problem.load("float32")
        if len(y) <= LARGE and not (options.quick or options.problems):
            continue
        for name, job in jobs(problem, X, y).items():
            if options.busy and name != "fit":
                continue
            with busy_processes(options.busy):
                measured = measure(name, job, numbers, 2 if options.quick else 5)
            for row in measured:
                rows.append({"data": problem.name, "busy": str(options.busy), **row})
                print("  ".join(rows[-1].values()), flush=True)
    path = options.output / ("threads_busy.csv" if options.busy else "threads.csv")
    report.write_csv(path, [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    fits = [float(row["times"]) for row in rows if row["what"] == "fit" and row["threads"] == str(numbers[-1])]
    print(f"fits on {numbers[-1]} threads: {np.exp(np.mean(np.log(fits))):.2f} times sooner by geometric mean")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
