"""Does a fit stop where it says? Generated data of many shapes, each fitted at its defaults and at tol=1e-6.

``python -m benchmarks.bench_stop`` prints for each fit the true excess beside the estimated one and writes
``stop.csv``; it fails if a fit ends above its tol, or warns. ``--quick`` uses the smaller sets.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.preprocessing import normalize

from benchmarks import report
from benchmarks.rivals import OURS, objective
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._types import Array

Made = tuple[Any, Array]


class Shape(NamedTuple):
    """Rows, columns and classes, the strength of the penalty, and how the rows are made."""

    kind: str
    n_samples: int
    n_features: int
    n_classes: int
    alpha: float
    l1_ratio: float = 0.0


SHAPES = [
    Shape("gauss", 300, 20, 3, 1e-4),
    Shape("gauss", 200, 500, 4, 1e-3),
    Shape("gauss", 10000, 25, 3, 0.0),
    Shape("gauss", 6000, 10, 60, 1e-5),
    Shape("decades", 5000, 30, 5, 1e-4),
    Shape("decades", 20000, 20, 2, 1e-5),
    Shape("decades", 15000, 100, 20, 1e-5),
    Shape("separable", 2000, 64, 10, 1e-7),
    Shape("separable", 8000, 60, 8, 1e-5),
    Shape("separable", 12000, 300, 3, 1e-6),
    Shape("correlated", 3000, 200, 4, 1e-4),
    Shape("correlated", 1500, 1200, 5, 1e-4),
    Shape("correlated", 20000, 150, 40, 1e-4),
    Shape("rare", 20000, 40, 12, 1e-5),
    Shape("rare", 50000, 12, 2, 1e-7),
    Shape("one-hot", 30000, 80, 10, 1e-4),
    Shape("one-hot", 30000, 80, 10, 1e-6),
    Shape("outliers", 40000, 8, 6, 1e-6),
    # of many columns
    Shape("gauss", 2000, 1000, 3, 1e-3),
    Shape("gauss", 4000, 300, 5, 1e-5),
    Shape("decades", 4000, 250, 6, 1e-5),
    Shape("separable", 3000, 400, 10, 1e-5),
    Shape("correlated", 6000, 250, 10, 1e-5),
    Shape("rare", 10000, 250, 8, 1e-5),
    Shape("one-hot", 5000, 400, 10, 1e-5),
    Shape("outliers", 3000, 220, 4, 1e-5),
    Shape("text", 3000, 5000, 8, 1e-5),
    Shape("text", 1000, 20000, 2, 1e-4),
    Shape("text", 10000, 2000, 30, 1e-6),
    # with zeros
    Shape("gauss", 300, 20, 3, 1e-2, 1.0),
    Shape("gauss", 4000, 300, 5, 1e-3, 0.5),
    Shape("decades", 5000, 30, 5, 1e-3, 0.5),
    Shape("separable", 2000, 64, 10, 1e-4, 0.5),
    Shape("correlated", 3000, 200, 4, 1e-3, 1.0),
    Shape("one-hot", 5000, 400, 10, 1e-4, 1.0),
    Shape("outliers", 4000, 8, 6, 1e-3, 0.5),
    Shape("text", 3000, 5000, 8, 1e-4, 0.5),
    Shape("text", 3000, 5000, 8, 1e-4, 1.0),
]

#: (dtype, tol) of the fits.
FITS = [(np.float32, 1e-3), (np.float64, 1e-3), (np.float64, 1e-6)]


def _labels(raw: Array, rng: np.random.RandomState) -> Array:
    """Classes drawn from the softmax of ``raw``."""
    return (raw + rng.gumbel(size=raw.shape)).argmax(axis=1)


def _gauss(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    return X, _labels(2 * X @ W, rng)


def _decades(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    scale = 10.0 ** rng.uniform(-5, 5, X.shape[1])
    return scale * (X + rng.uniform(-10, 10, X.shape[1])), _labels(1.5 * X @ W, rng)


def _separable(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    return X, _labels(8 * X @ W, rng)


def _correlated(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    p = X.shape[1]
    X = X @ (rng.standard_normal((p, p)) / (1 + np.arange(p)))
    return X, _labels(2 * X @ W / np.sqrt((X**2).mean()), rng)


def _rare(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    steps = 1.0 if shape.n_classes > 2 else 6.0  # each class e^-steps times as frequent as the one before
    return X, _labels(1.5 * X @ W - steps * np.arange(shape.n_classes), rng)


def _one_hot(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    n, p = X.shape
    size = p // 8
    frequency = (1.0 + np.arange(size)) ** -1.5
    X = np.zeros((n, p))
    for column in range(8):
        X[np.arange(n), column * size + rng.choice(size, n, p=frequency / frequency.sum())] = 1
    return X, _labels(X @ rng.standard_normal((p, shape.n_classes)) * 2 - 0.5 * np.arange(shape.n_classes), rng)


def _outliers(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    return np.exp(3 * X), _labels(3 * X @ W, rng)


def _text(shape: Shape, X: Array, W: Array, rng: np.random.RandomState) -> Made:
    """CSR rows of length 1, as tf-idf makes them: 30 words a row, the k-th most frequent of probability ~ 1 / k."""
    n, p = X.shape
    share = 1 / (1.0 + np.arange(p))
    words = rng.choice(p, (n, 30), p=share / share.sum())
    counts = sp.csr_array((np.ones(words.size), (np.repeat(np.arange(n), 30), words.ravel())), shape=(n, p))
    rows = normalize(counts * -np.log(share)[None, :]).tocsr()
    return rows, _labels(4 * rows @ rng.standard_normal((p, shape.n_classes)), rng)


KINDS: dict[str, Callable[..., Made]] = {
    "gauss": _gauss,
    "decades": _decades,
    "separable": _separable,
    "correlated": _correlated,
    "rare": _rare,
    "one-hot": _one_hot,
    "outliers": _outliers,
    "text": _text,
}


def made(shape: Shape, seed: int) -> Made:
    """X and class codes of a shape."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((shape.n_samples, shape.n_features))
    W = rng.standard_normal((shape.n_features, shape.n_classes)) * 2 / np.sqrt(shape.n_features)
    X, y = KINDS[shape.kind](shape, X, W, rng)
    return X, np.unique(y, return_inverse=True)[1]


def fits(shape: Shape, seed: int) -> list[dict[str, Any]]:
    """A CSV row for each fit: by the engine that "auto" takes and, if that is the compiled one, by the other."""
    X, y = made(shape, seed)
    F = objective(X, y, shape.alpha, shape.l1_ratio)
    model = SoftmaxClassifier(shape.alpha, l1_ratio=shape.l1_ratio, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = clone(model).set_params(tol=1e-9, max_iter=1000, engine="vectorized", random_state=1).fit(X, y)
    rows = []
    for dtype, tol in FITS:
        for engine in ("auto", "vectorized"):
            if engine == "vectorized" and rows[-1]["engine"] == engine:
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                start = time.process_time()
                fit = clone(model).set_params(tol=tol, engine=engine).fit(X.astype(dtype), y)
                seconds = time.process_time() - start
            info = fit.solver_info_
            rows.append({
                **shape._asdict(),
                "seed": seed,
                "dtype": np.dtype(dtype).name,
                "tol": tol,
                "engine": info["engine"],
                "F": F(OURS.params(fit)),
                "excess": fit.excess_,
                "n_iter": fit.n_iter_,
                "cpu_seconds": seconds,
                "warnings": "; ".join(str(w.message) for w in caught),
                "solver": info["solver"],
                "curvature": info.get("curvature", ""),
                **machine(),
            })  # fmt: skip
    minimum = min(F(OURS.params(best)), *(row["F"] for row in rows))
    return [{**row, "gap": row["F"] / minimum - 1} for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_stop", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smaller sets, one seed")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    shapes = [s for s in SHAPES if s.n_samples * s.n_features <= 150_000] if options.quick else SHAPES
    rows = []
    for seed in range(1 if options.quick else 2):
        for shape in shapes:
            for row in fits(shape, seed):
                rows.append(row)
                name = f"{row['kind']} {row['n_samples']} x {row['n_features']} x {row['n_classes']}"
                name += f" l1_ratio={row['l1_ratio']}" if row["l1_ratio"] else ""
                end = "" if row["gap"] <= row["tol"] and not row["warnings"] else "  <-- above tol, or warned"
                print(
                    f"{name:28s} {row['engine']:10s} {row['dtype']} tol {row['tol']:.0e}: gap {row['gap']:8.1e}, "
                    f"estimated {row['excess']:8.1e}, {row['n_iter']} epochs, {row['cpu_seconds']:.2f} s{end}",
                    flush=True,
                )
    report.write_csv(options.output / "stop.csv", rows)
    n_bad = sum(row["gap"] > row["tol"] or bool(row["warnings"]) for row in rows)
    print(f"{n_bad} of {len(rows)} fits ended above their tol or warned; wrote {options.output / 'stop.csv'}")
    if n_bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
