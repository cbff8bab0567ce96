"""What does an epoch cost, against the machine's limit, and how much of a default fit is not epochs?

The limits are measured beside it. Dense rows: the greater of one read of X from memory and of the two matrix products
of an epoch, at the speed that the BLAS has in a cache. Sparse rows: for each stored number one read and one write of
its column's coefficients, compiled. An epoch of minibatches or of the dual is the median of those of a default fit; a
pass is F and its gradient over all rows. Generated data of the shapes that people have.

``python -m benchmarks.bench_epoch`` prints the times in units of the limit, float32 beside float64, and the share of
the fit that is choice, metric and stopping, and writes ``epoch.csv``; ``--quick`` takes a fiftieth of the rows of two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import scipy.sparse as sp

from benchmarks import report
from benchmarks.problems import embeddings
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._engines import compiled
from sksoftmax._engines.registry import KERNELS, has_compiled
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._training import loop
from sksoftmax._types import Array, Batch, Params, Problem

_REPEATS = 5

#: Rows of a product in a cache.
_ROWS = 512


class Shape(NamedTuple):
    """A set like one that people have, and the strength of the penalty."""

    name: str
    make: Callable[[int], tuple[Any, Array]]
    n_samples: int
    alpha: float


def _images(n_samples: int) -> tuple[Array, Array]:
    """784 correlated columns in [0, 1], most of them 0; 10 classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=n_samples)
    strokes = 0.7 * rng.standard_normal((10, 40))[y] + rng.standard_normal((n_samples, 40))
    raw = strokes @ rng.standard_normal((40, 784))
    return np.clip(raw / 15, 0, 1), y


def _table(n_samples: int) -> tuple[Array, Array]:
    """54 columns over four decades, 7 classes of which some are rare."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_samples, 54))
    raw = 1.5 * X @ rng.standard_normal((54, 7)) / 7 - 0.7 * np.arange(7)
    y = (raw + rng.gumbel(size=raw.shape)).argmax(axis=1)
    return 10.0 ** rng.uniform(-1, 3, 54) * (X + 1), y


def _texts(n_samples: int) -> tuple[Any, Array]:
    """Rows of norm 1 with some 100 of 50000 words, frequent as words are, 20 classes."""
    rng = np.random.default_rng(0)
    n_words, n_columns = 130, 50_000
    y = rng.integers(20, size=n_samples)
    frequency = 1.0 / np.arange(1, n_columns + 1)
    words = rng.choice(n_columns, (n_samples, n_words), p=frequency / frequency.sum())
    topical = rng.uniform(size=words.shape) < 0.1
    words = np.where(topical, (words * 20 + y[:, None]) % n_columns, words)
    values = np.ones(words.size)
    X = sp.csr_array((values, words.ravel(), np.arange(0, words.size + 1, n_words)), shape=(n_samples, n_columns))
    X.sum_duplicates()
    X.data = np.log1p(X.data)
    X.data /= np.repeat(sp.linalg.norm(X, axis=1), np.diff(X.indptr))
    return X, y


SHAPES = [
    Shape("images, 60000 x 784, 10 classes", _images, 60_000, 1e-4),
    Shape("table, 400000 x 54, 7 classes", _table, 400_000, 1e-4),
    Shape("embeddings, 40000 x 512, 300 classes", embeddings, 40_000, 1e-4),
    Shape("texts, 20000 x 50000, 20 classes", _texts, 20_000, 1e-5),
]
QUICK = [SHAPES[1], SHAPES[3]]


def least(call: Callable[[], Any]) -> float:
    """The least seconds of some calls, after one to warm up."""
    seconds = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def dense_limits(X: Array, n_outputs: int) -> tuple[float, float]:
    """Seconds of a read of X, and of the raw predictions and the gradient at the speed of products in a cache."""
    block = np.ascontiguousarray(X[:_ROWS])
    coef = np.ones((n_outputs, X.shape[1]), X.dtype)
    raw, grad = np.empty((len(block), n_outputs), X.dtype), np.empty_like(coef)

    def products() -> None:
        np.matmul(block, coef.T, out=raw)
        np.matmul(raw.T, block, out=grad)

    return least(X.max), least(products) * len(X) / len(block)


def sparse_limit(X: Any, n_outputs: int) -> float:
    """Seconds of a read and a write of the coefficients' row of each stored number."""
    csr, no_l1 = (X.indptr, X.indices, X.data), np.empty(0, X.dtype)
    n_lanes = compiled.count_lanes(2 if n_outputs == 1 else n_outputs)
    table, raw = np.zeros((X.shape[1], n_lanes), X.dtype), np.zeros((X.shape[0], n_lanes), X.dtype)
    model = compiled.FlatModel(table, no_l1, np.zeros(n_lanes, X.dtype))

    def touch() -> None:
        compiled.kernels.raw_predictions(csr, model, raw)
        compiled.kernels.add_transposed_product(csr, raw, table)

    return least(touch)


@contextmanager
def watched() -> Any:
    """The names of the solvers and the seconds of all epochs that are trained."""
    epochs: list[tuple[str, float]] = []
    one_pass = loop.one_pass

    def timed(problem: Problem, solver: Any, *rest: Any) -> Any:
        start = time.perf_counter()
        state = one_pass(problem, solver, *rest)
        epochs.append((solver.name, time.perf_counter() - start))
        return state

    with mock.patch.object(loop, "one_pass", timed):
        yield epochs


def measure(shape: Shape, n_samples: int, dtype: str) -> dict[str, str]:
    """A row."""
    X, y = shape.make(n_samples)
    X = sp.csr_array(X).astype(dtype) if sp.issparse(X) else np.ascontiguousarray(X, dtype=dtype)
    n_outputs = int(y.max()) + 1
    fits = []
    for _ in range(3):
        with watched() as epochs:
            start = time.perf_counter()
            model = SoftmaxClassifier(shape.alpha, random_state=0).fit(X, y)
            fits.append((time.perf_counter() - start, epochs))
    seconds, epochs = sorted(fits[1:], key=lambda fit: fit[0])[0]  # the first one warms up
    first = epochs[0][0]
    epoch = float(np.median([taken for name, taken in epochs if name == first]))
    problem = Problem(Batch(X, y, np.ones(len(y))), n_outputs, shape.alpha, True, KERNELS["vectorized"], 1.0)
    params = Params(np.full((n_outputs, X.shape[1]), 1e-3), np.zeros(n_outputs))
    full = least(lambda: value_and_grad(problem, params))
    if sp.issparse(X):
        limits = {"touch": sparse_limit(X, n_outputs)} if has_compiled() else {}
    else:
        limits = dict(zip(("read", "products"), dense_limits(X, n_outputs), strict=True))
    limit = max(limits.values(), default=float("nan"))
    return {
        **{"data": shape.name, "dtype": dtype, "solver": str(model.solver_info_["solver"])},
        **{"epoch_of": first, "epoch": f"{epoch / limit:.2f}", "pass": f"{full / limit:.2f}"},
        **{"limit_is": max(limits, key=lambda name: limits[name], default=""), "limit_s": f"{limit:.3g}"},
        **{"epoch_s": f"{epoch:.3g}", "pass_s": f"{full:.3g}", "fit_s": f"{seconds:.3g}"},
        "not_epochs": f"{1 - sum(taken for _, taken in epochs) / seconds:.0%}",
        "epochs": str(len(epochs)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_epoch", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the rows of two sets")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    rows = []
    for shape in QUICK if options.quick else SHAPES:
        n_samples = shape.n_samples // 50 if options.quick else shape.n_samples
        pair = [measure(shape, n_samples, dtype) for dtype in ("float32", "float64")]
        for row in pair:
            row["float64_by_float32"] = f"{float(pair[1]['epoch_s']) / float(pair[0]['epoch_s']):.2f}"
        rows += [{**row, "rows": str(n_samples)} for row in pair]
    report.write_csv(options.output / "epoch.csv", [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    print(f"times in units of the limit but where they end in _s; wrote {options.output / 'epoch.csv'}")


if __name__ == "__main__":
    main()
