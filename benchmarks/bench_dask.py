"""A cluster's fit by rounds: on one worker and two, against a model of its seconds; and L-BFGS's passes beside ours.

``python -m benchmarks.bench_dask`` generates rows of 100 columns over three decades and 10 classes, float32, on a
``LocalCluster`` of processes of one thread each; 1.2 GB in all, 16 partitions: more than the sample. It tells

- fits on one worker and on two: seconds, rounds, bytes, the gap to a fit in memory with ``tol=1e-6``;
- what a model says of their seconds: the rows of a worker times the seconds that a row takes to be checked and, a pass,
  to be summed, both measured on one partition; an empty round's seconds a round; bytes at the speed at which they come
  from a worker; and the client's own work, what a fit of the same pieces in one process takes beyond its passes;
- passes to a gap of 1e-3 of L-BFGS on standardised columns, a full pass a step, which is the way of Spark ML's and
  dask-ml's solvers: each is a round there too.

Writes ``dask.csv``; ``--quick`` takes 12 MB.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from scipy.optimize import minimize

from benchmarks import report
from benchmarks.rivals import OURS, objective
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._data import chunks
from sksoftmax._engines import vectorized
from sksoftmax._maths.objective import prior_params, value_and_grad
from sksoftmax._types import Array, Batch, Params, Problem

N_FEATURES, N_CLASSES, RANK, ALPHA, GAP = 100, 10, 20, 1e-4, 1e-3
N_PARTITIONS = 16


def part(seed: int, n_samples: int) -> tuple[Array, Array]:
    """Rows about class centres in 20 directions, noise, an offset, columns over three decades."""
    world = np.random.default_rng(0)
    basis = world.standard_normal((RANK, N_FEATURES), np.float32)
    centres = 0.5 * world.standard_normal((N_CLASSES, RANK), np.float32)
    scale = 10.0 ** world.uniform(-1.5, 1.5, N_FEATURES).astype(np.float32)
    rng = np.random.default_rng(1 + seed)
    y = rng.integers(0, N_CLASSES, n_samples)
    latent = rng.standard_normal((n_samples, RANK), np.float32) + centres[y]
    return (latent @ basis + rng.standard_normal((n_samples, N_FEATURES), np.float32) + 1) * scale, y


def lbfgs_passes(X: Array, y: Array, best: float) -> int:
    """Evaluations of F and its gradient until L-BFGS on standardised columns is within the gap; F is that of X."""
    mean, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    problem = Problem(Batch(X, y, np.ones(len(y))), N_CLASSES, ALPHA, True, vectorized, 1.0)
    start, n_passes = prior_params(problem), 0

    class NearError(Exception):
        pass

    def as_params(flat: Array) -> Params:
        table = flat.reshape(N_CLASSES, -1)
        coef = table[:, :-1] / scale
        return Params(coef, table[:, -1] - coef @ mean)

    def value(flat: Array) -> tuple[float, Array]:
        nonlocal n_passes
        n_passes += 1
        found = value_and_grad(problem, as_params(flat))
        if found.value <= (1 + GAP) * best:
            raise NearError
        coef = (found.grads.coef - np.outer(found.grads.intercept, mean)) / scale
        return found.value, np.column_stack([coef, found.grads.intercept]).ravel()

    try:
        flat = np.column_stack([start.coef, start.intercept]).ravel()
        minimize(
            value, flat, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxcor": 10, "ftol": 0, "gtol": 0}
        )
    except NearError:
        return n_passes
    return -n_passes


def fitted(n_workers: int, n_samples: int) -> dict[str, Any]:
    """A fit on so many workers, and what the model says of its seconds."""
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    from sksoftmax.dask import DaskSoftmaxClassifier

    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        size = n_samples // N_PARTITIONS
        parts = [dask.delayed(part)(i, size) for i in range(N_PARTITIONS)]
        parts = client.persist(parts)
        X = da.concatenate([da.from_delayed(p[0], (size, N_FEATURES), np.float32) for p in parts])
        y = da.concatenate([da.from_delayed(p[1], (size,), np.int64) for p in parts])
        X, y = client.persist([X, y])
        wait([X, y])
        start = time.perf_counter()
        model = DaskSoftmaxClassifier(ALPHA, random_state=0).fit(X, y)
        seconds = time.perf_counter() - start
        empty = []
        for _ in range(20):  # a round of partitions without work
            start = time.perf_counter()
            client.gather([client.submit(_nothing, i, pure=False) for i in range(N_PARTITIONS)])
            empty.append(time.perf_counter() - start)
        big = client.submit(np.zeros, 2**23)
        wait(big)
        start = time.perf_counter()
        client.gather(big)
        byte = (time.perf_counter() - start) / 2**26
        times = {"seconds": seconds, "empty": float(np.median(empty)), "byte": byte}
        return {**times, "model": model.to_local(), **_said(model)}


def _nothing(i: int) -> int:
    return i


def _said(model: Any) -> dict[str, Any]:
    told = model.communication_
    return {"rounds": told.rounds, "bytes": told.bytes_sent + told.bytes_received, "epochs": model.n_iter_}


def _median(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


class Costs(NamedTuple):
    """Seconds of the check of a row, of a row in a pass, and of what is not done by rows."""

    check: float
    row: float
    client: float


def costs(pieces: list[tuple[Array, Array]]) -> Costs:
    """Measured in this process."""
    from sksoftmax._cluster.partitions import summarize_partition

    X, y = pieces[0]
    problem = Problem(Batch(X, y, np.ones(len(y))), N_CLASSES, ALPHA, True, vectorized, 1.0)
    params = prior_params(problem)
    check = _median(lambda: summarize_partition(X, y, None, True)) / len(y)
    row = _median(lambda: value_and_grad(problem, params)) / len(y)
    n_passes = 0

    def batches() -> Iterator[tuple[Array, Array]]:
        nonlocal n_passes
        n_passes += 1
        yield from pieces

    start = time.perf_counter()
    SoftmaxClassifier(ALPHA, random_state=0).fit_batches(batches)
    seconds = time.perf_counter() - start
    n_samples = len(pieces) * len(y)
    return Costs(check, row, max(0.0, seconds - n_samples * (check + (n_passes - 1) * row)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_dask", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    n_samples = N_PARTITIONS * (2000 if options.quick else 190_000)
    sample = 2**21 if options.quick else chunks.SAMPLE_SIZE
    found = [part(i, n_samples // N_PARTITIONS) for i in range(N_PARTITIONS)]
    with mock.patch.object(chunks, "SAMPLE_SIZE", sample):
        cost = costs(found)
    X, y = np.concatenate([rows for rows, _ in found]), np.concatenate([labels for _, labels in found])
    F = objective(X, y, ALPHA)
    start = time.perf_counter()
    local = SoftmaxClassifier(ALPHA, random_state=0).fit(X, y)
    local_seconds = time.perf_counter() - start
    best = min(F(OURS.params(clf)) for clf in (local, SoftmaxClassifier(ALPHA, tol=1e-6, random_state=0).fit(X, y)))
    passes = lbfgs_passes(X, y, best)
    said = {"samples": str(n_samples), "lbfgs_passes": str(passes) if passes > 0 else f"> {-passes}"}
    rows = [
        {
            "workers": "in memory",
            "seconds": f"{local_seconds:.2f}",
            "rounds": "",
            "MB": "",
            "epochs": str(local.n_iter_),
        }
        | {"gap": f"{F(OURS.params(local)) / best - 1:.1e}", "predicted_seconds": "", **said}
    ]
    del found, X, y
    with mock.patch.object(chunks, "SAMPLE_SIZE", sample):
        for n_workers in (1, 2):
            run = fitted(n_workers, n_samples)
            of_rows = n_samples / n_workers * (cost.check + (run["rounds"] - 2) * cost.row)
            predicted = of_rows + run["rounds"] * run["empty"] + run["bytes"] * run["byte"] + cost.client
            rows.append(
                {"workers": str(n_workers), "seconds": f"{run['seconds']:.2f}", "rounds": str(run["rounds"])}
                | {"MB": f"{run['bytes'] / 1e6:.1f}", "epochs": str(run["epochs"])}
                | {"gap": f"{F(OURS.params(run['model'])) / best - 1:.1e}"}
                | {"predicted_seconds": f"{predicted:.2f}", **said}
            )
            print(rows[-1], flush=True)
    report.write_csv(options.output / "dask.csv", [{**machine(), **row} for row in rows])
    print(report.text_table(rows))
    print(f"wrote {options.output / 'dask.csv'}")


if __name__ == "__main__":
    main()
