"""Are predictions as quick as ``LogisticRegression``'s, and without a copy of X?

Both models get the same coefficients. ``python -m benchmarks.bench_predict`` prints their times in turn, ratio first
(theirs / ours: above 1 we are quicker), and the most memory that a call of ours took beside X and what it returned, in
units of X; it writes ``predict.csv``. ``--quick`` uses fewer rows.
"""

from __future__ import annotations

import argparse
import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from benchmarks import report
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier

N_FEATURES, N_SPARSE_FEATURES, DENSITY = 100, 10_000, 0.005

#: Calls of each, in turn: at least so many, until they have taken so many seconds together.
_CALLS, _SECONDS, _MOST_CALLS = 7, 0.2, 2000


class Case(NamedTuple):
    """What is predicted from: rows and classes, and how the rows are kept."""

    n_samples: int
    n_classes: int
    container: str
    dtype: str

    def rows(self) -> Any:
        rng = np.random.default_rng(0)
        if self.container == "csr":
            X = sp.random(self.n_samples, N_SPARSE_FEATURES, DENSITY, "csr", self.dtype, random_state=rng)
            return sp.csr_array(X)
        X = rng.standard_normal((self.n_samples, N_FEATURES)).astype(self.dtype)
        return np.asfortranarray(X) if self.container == "F" else X


def cases(n_rows: Sequence[int]) -> Iterator[Case]:
    kept = itertools.product(("C", "F", "csr"), ("float32", "float64"))
    return (Case(n, k, *how) for how in kept for k in (2, 10, 300) for n in n_rows)


def models(case: Case) -> list[Any]:
    """Ours and theirs, with the same coefficients."""
    n_features = N_SPARSE_FEATURES if case.container == "csr" else N_FEATURES
    rng = np.random.default_rng(1)
    n_rows = 1 if case.n_classes == 2 else case.n_classes
    found = []
    for model in (SoftmaxClassifier(), LogisticRegression()):
        rng = np.random.default_rng(1)
        model.classes_, model.n_features_in_ = np.arange(case.n_classes), n_features
        model.coef_ = 0.1 * rng.standard_normal((n_rows, n_features)).astype(case.dtype)
        model.intercept_ = rng.standard_normal(n_rows).astype(case.dtype)
        found.append(model)
    return found


def in_turn(calls: Sequence[Callable[[], Any]]) -> list[list[float]]:
    """Seconds of each call, one after the other and again."""
    seconds: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    while len(seconds[0]) < _CALLS or (sum(map(sum, seconds)) < _SECONDS and len(seconds[0]) < _MOST_CALLS):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return seconds


def extra_memory(call: Callable[[], Any]) -> int:
    """Most bytes that were allocated during a call, less those of what it returned."""
    tracemalloc.start()
    try:
        returned = call()
        return max(0, tracemalloc.get_traced_memory()[1] - returned.nbytes)
    finally:
        tracemalloc.stop()


def compare(case: Case, method: str) -> dict[str, str]:
    """A row.

    Raises
    ------
    AssertionError
        If the two models do not predict the same.
    """
    X = case.rows()
    ours, theirs = (getattr(model, method) for model in models(case))
    if method == "predict_proba":
        np.testing.assert_allclose(ours(X), theirs(X), atol=1e-5 if case.dtype == "float32" else 1e-12)
    else:
        assert (ours(X) == theirs(X)).mean() > 0.999  # but for ties that are rounded apart
    mine, other = in_turn([lambda: ours(X), lambda: theirs(X)])
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes if case.container == "csr" else X.nbytes
    return {
        **{"method": method, "rows": str(case.n_samples), "classes": str(case.n_classes)},
        **{"container": case.container, "dtype": case.dtype},
        "ratio": f"{np.median(other) / np.median(mine):.2f}",
        **{"ours_s": f"{np.median(mine):.3g}", "ours_min": f"{min(mine):.3g}"},
        **{"theirs_s": f"{np.median(other):.3g}", "theirs_min": f"{min(other):.3g}"},
        "extra_in_X": f"{extra_memory(lambda: ours(X)) / size:.2f}",
        "their_extra_in_X": f"{extra_memory(lambda: theirs(X)) / size:.2f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_predict", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 and 100 rows only")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    chosen = list(cases((1, 100) if options.quick else (1, 100, 20_000)))
    rows = [compare(case, method) for method in ("predict", "predict_proba") for case in chosen]
    report.write_csv(options.output / "predict.csv", [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    slower = [row for row in rows if float(row["ratio"]) < 1]
    print(f"slower on {len(slower)} of {len(rows)}; wrote {options.output / 'predict.csv'}")


if __name__ == "__main__":
    main()
