"""How long until F is near its minimum, with X on a device: ours, scikit-learn's L-BFGS, and a PyTorch loop.

``python -m benchmarks.bench_gpu`` makes 1000000 rows of 768 columns in 1000 classes on the graphics card, float32, like
embeddings (``problems.embeddings``), alpha 1e-4, and fits them there, each rival in a process of its own, to gaps of
1e-2 and 1e-3: `SoftmaxClassifier` and `LogisticRegression(solver="lbfgs")` under array API dispatch, and the loop that
people write in PyTorch (Adam on standardised columns, with three learning rates and batches of two sizes). A rival's
budget is doubled until it has arrived, and the time is that of the last fit alone, the median of ``--repeats`` such
fits, if they take no more than ``--limit`` seconds, beside the least and the greatest; after so many seconds of fits it
is given up. F is our objective, computed on the device, and its minimum the least that anyone reached. Peak memory is
what a fit takes beyond X: on the card as PyTorch tells, on the processor as Linux does. Writes ``gpu.csv``, or
``gpu_cpu.csv`` with ``--device cpu``; ``--rows``, ``--features`` and ``--classes`` say of what size, and ``--quick``
takes a small set on the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

from benchmarks import N_THREADS, report
from benchmarks.bench_disk import Peak
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._data.arrays import wrap_array
from sksoftmax._engines import array_api
from sksoftmax._engines.device import to_numpy
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._types import Batch, Params, Problem

TARGETS = (1e-2, 1e-3)
ALPHA = 1e-4

#: Of a fit that did not arrive.
_NEVER = {"seconds": np.inf, "least": np.inf, "greatest": np.inf, "fits": 0, "MiB": np.nan}

#: Rows that are made at a time.
_CHUNK = 2**16


class Rows(NamedTuple):
    """X and y on a device, and F there."""

    X: Any
    y: Any
    problem: Problem

    def value(self, clf: Any) -> float:
        params = (np.asarray(to_numpy(part), np.float64) for part in (clf.coef_, clf.intercept_))
        return value_and_grad(self.problem, Params(*params)).value


def rows_on(device: str, n_samples: int, n_features: int, n_classes: int) -> Rows:
    """As ``problems.embeddings`` makes them."""
    import torch

    torch.set_num_threads(N_THREADS)
    generator = torch.Generator(device).manual_seed(0)
    at: dict[str, Any] = {"generator": generator, "device": device}
    variances = 1.0 / torch.arange(1, n_features + 1, device=device)
    basis = torch.linalg.qr(torch.randn(n_features, n_features, **at))[0]
    basis *= (7 * torch.sqrt(variances / variances.sum()))[:, None]
    centres = torch.randn(n_classes, n_features, **at) * 7 / (2 * n_features) ** 0.5
    offset = torch.randn(n_features, **at)
    y = torch.randint(n_classes, (n_samples,), **at)
    y[:n_classes] = torch.arange(n_classes, device=device)
    X = torch.empty(n_samples, n_features, device=device)
    for start in range(0, n_samples, _CHUNK):
        codes = y[start : start + _CHUNK]
        length = torch.exp(0.3 * torch.randn(len(codes), 1, **at))
        noise = torch.randn(len(codes), n_features, **at) * length
        X[start : start + _CHUNK] = (centres[codes] + noise + offset) @ basis
    data = Batch(wrap_array(X), y.cpu().numpy(), np.ones(n_samples))
    return Rows(X, y, Problem(data, n_classes, ALPHA, True, array_api, 1.0))


def _ours(n_samples: int, target: float) -> Iterator[tuple[str, Any]]:
    yield f"tol={target:g}", SoftmaxClassifier(ALPHA, tol=target, random_state=0)


def _lbfgs(n_samples: int, target: float) -> Iterator[tuple[str, Any]]:
    for doublings in range(14):
        n_iter = 8 * 2**doublings
        yield f"max_iter={n_iter}", LogisticRegression(C=1 / (ALPHA * n_samples), tol=0.0, max_iter=n_iter)


def _loop(batch_size: int, rate: float) -> Callable[[int, float], Iterator[tuple[str, Any]]]:
    def budgets(n_samples: int, target: float) -> Iterator[tuple[str, Any]]:
        from benchmarks.torch_loop import UPDATES, TorchSoftmax

        adam: dict[str, Any] = {"optimizer": "adam", "rate": rate, "batch_size": batch_size, "is_standardised": True}
        for doublings in range(12):
            n = 2**doublings
            yield f"{n * UPDATES} updates of {batch_size}", TorchSoftmax(ALPHA, max_iter=n, **adam)

    return budgets


#: name -> (rows, gap) -> budgets and estimators, each to run longer than the one before
RIVALS: dict[str, Callable[[int, float], Iterator[tuple[str, Any]]]] = {
    "SoftmaxClassifier": _ours,
    "LogisticRegression(lbfgs)": _lbfgs,
    **{
        f"torch Adam, {batch_size} rows, rate {rate:g}": _loop(batch_size, rate)
        for batch_size in (512, 4096)
        for rate in (1e-3, 3e-3, 1e-2)
    },
}


class Meter:
    """Seconds, and MiB beyond what was there, of what runs inside."""

    def __init__(self, device: str) -> None:
        self.is_card = device != "cpu"

    def __enter__(self) -> Meter:
        import torch

        if self.is_card:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.peak = Peak()
            self.peak.start()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        import torch

        if self.is_card:
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start
        if self.is_card:
            n_bytes = torch.cuda.max_memory_allocated() - self.before
        else:
            self.peak.is_over.set()
            self.peak.join()
            n_bytes = self.peak.bytes - self.peak.start_bytes
        self.mebibytes = n_bytes / 2**20


def run(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the rival's fits told, one for each budget until all targets are reached; of ours also the minimum."""
    warnings.simplefilter("ignore")
    sklearn.set_config(array_api_dispatch=True)
    rows = rows_on(options.device, options.rows, options.features, options.classes)
    few = slice(0, 10 * options.classes)
    next(RIVALS[name](few.stop, 1.0))[1].fit(rows.X[few], rows.y[few])  # what is loaded and compiled late
    told: dict[str, dict[str, Any]] = {}

    def has_arrived(target: float) -> bool:
        known = options.minimum is not None
        return known and any(fit["value"] <= (1 + target) * options.minimum for fit in told.values())

    for target in TARGETS:
        for budget, clf in RIVALS[name](options.rows, target):
            if has_arrived(target) or sum(fit["seconds"] for fit in told.values()) > options.limit:
                break
            if budget in told:
                continue
            meters = [fitted(clf, rows, options)]
            value = rows.value(clf)
            if options.minimum is None or value <= (1 + target) * options.minimum:
                is_cheap = options.repeats * meters[0].seconds <= options.limit
                meters += [fitted(clf, rows, options) for _ in range(options.repeats - 1) if is_cheap]
            times = [meter.seconds for meter in meters]
            found = {
                "seconds": float(np.median(times)),
                "least": min(times),
                "greatest": max(times),
                "fits": len(times),
            }
            told[budget] = {"budget": budget, "value": value, "MiB": meters[0].mebibytes, **found}
    if options.minimum is None:
        best = SoftmaxClassifier(ALPHA, tol=1e-5, random_state=0).fit(rows.X, rows.y)
        told["minimum"] = {"budget": "minimum", "value": rows.value(best), **_NEVER}
    return list(told.values())


def fitted(clf: Any, rows: Rows, options: argparse.Namespace) -> Meter:
    with Meter(options.device) as meter:
        clf.fit(rows.X, rows.y)
    return meter


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device != "cpu" else f"CPU, {N_THREADS} threads"


def told_by(name: str, minimum: float | None, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What a process of its own tells, with scikit-learn's and SciPy's dispatch on."""
    command = [sys.executable, "-m", "benchmarks.bench_gpu", "--run", name, "--device", options.device]
    for option in ("rows", "features", "classes", "limit", "repeats"):
        command += [f"--{option}", str(getattr(options, option))]
    command += [] if minimum is None else ["--minimum", repr(minimum)]
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment).stdout
    told: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
    return told


def table(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> list[dict[str, str]]:
    """A row for each gap and rival: its quickest fit that arrived there."""
    minimum = min(fit["value"] for fits in found.values() for fit in fits)
    size = f"{options.rows} x {options.features}, {options.classes} classes"
    rows, ours = [], np.inf
    for target in TARGETS:
        for name, fits in found.items():
            fit = min(
                (fit for fit in fits if fit["value"] <= (1 + target) * minimum),
                key=lambda fit: fit["seconds"],
                default={"budget": f"> {options.limit:g} s of fits", "value": np.nan, **_NEVER},
            )
            ours = fit["seconds"] if name == "SoftmaxClassifier" else ours
            rows.append(
                {
                    **{"gap": f"{target:g}", "rival": name, "ratio": f"{fit['seconds'] / ours:.1f}"},
                    **{key: f"{fit[key]:.3g}" for key in ("seconds", "least", "greatest")},
                    **{"fits": str(fit["fits"]), "peak_MiB": f"{fit['MiB']:.0f}"},
                    **{"reached": f"{fit['value'] / minimum - 1:.1e}", "budget": fit["budget"]},
                    **{"size": size, "device": device_name(options.device)},
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small set on the processor, and one rate")
    parser.add_argument("--device", default="cuda", help="PyTorch's name of it")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds of a rival's fits")
    parser.add_argument("--repeats", type=int, default=5, help="of a fit that arrived")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    parser.add_argument("--run", choices=list(RIVALS), help=argparse.SUPPRESS)
    parser.add_argument("--minimum", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.device, options.rows, options.features, options.classes, options.limit = "cpu", 2000, 20, 20, 1.0
    if options.run:
        print(json.dumps(run(options.run, options)))
        return
    try:
        device_name(options.device)
    except ImportError as error:
        raise SystemExit("the benchmark needs PyTorch: pip install torch") from error
    found: dict[str, list[dict[str, Any]]] = {}
    for name in list(RIVALS)[: 3 if options.quick else None]:
        least = min((fit["value"] for fits in found.values() for fit in fits), default=None)
        if options.quick:
            options.minimum, os.environ["SCIPY_ARRAY_API"] = least, "1"
        found[name] = run(name, options) if options.quick else told_by(name, least, options)
        print(name, found[name], flush=True)
    rows = table(found, options)
    path = options.output / ("gpu_cpu.csv" if options.device == "cpu" else "gpu.csv")
    report.write_csv(path, [{**row, **machine()} for row in rows])
    print(report.text_table(rows))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
