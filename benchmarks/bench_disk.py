"""Does a fit on a file need memory that grows with the file?

Files of float32 rows, sorted by class, the hard case, columns over three decades, are made, fitted as ``numpy.memmap``
at the defaults by a process of its own that may allocate 1 GiB besides what it has at the start (RLIMIT_DATA, which
leaves out the pages of the file), and deleted. The gap is to the minimum that a fit with ``tol=1e-5`` finds from there;
of the smallest file, an array of which is fitted in memory too, to the lower of the two.

``python -m benchmarks.bench_disk`` takes files of 1, 4 and 16 GB, writes ``disk.csv``, and fails if a gap is above 1e-3
or an allocation fails; ``--quick`` takes one of 0.2 GB. ``--gigabytes`` and ``--folder`` say which, and where.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier

N_FEATURES, N_CLASSES, RANK = 500, 10, 32
ALPHA = 1e-4
LIMIT = 2**30
TOL = 1e-3


def make(folder: Path, gigabytes: float) -> None:
    """X.npy and y.npy, some 100 MB at a time."""
    n_samples = int(gigabytes * 1e9 / 4 / N_FEATURES) // N_CLASSES * N_CLASSES
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (n_samples, N_FEATURES))
    basis = rng.standard_normal((RANK, N_FEATURES), np.float32)
    centres = 0.35 * rng.standard_normal((N_CLASSES, RANK), np.float32)
    scale = 10.0 ** rng.uniform(-1.5, 1.5, N_FEATURES).astype(np.float32)
    for label, rows in enumerate(np.split(np.arange(0, n_samples + 1, n_samples // N_CLASSES)[:-1], N_CLASSES)):
        end = int(rows[0]) + n_samples // N_CLASSES
        for start in range(int(rows[0]), end, 50_000):
            n_rows = min(50_000, end - start)
            latent = rng.standard_normal((n_rows, RANK), np.float32) + centres[label]
            block = latent @ basis + rng.standard_normal((n_rows, N_FEATURES), np.float32)
            X[start : start + n_rows] = (block + 1) * scale
    X.flush()
    np.save(folder / "y.npy", np.repeat(np.arange(N_CLASSES, dtype=np.uint8), n_samples // N_CLASSES))


def status(name: str) -> int:
    """Bytes that Linux says of this process."""
    with Path("/proc/self/status").open() as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


class Peak(threading.Thread):
    """The most memory of its own that the process has, looked at every 20 ms; Linux's RssAnon."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = self.start_bytes = status("RssAnon")
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.02):
            self.bytes = max(self.bytes, status("RssAnon"))


def work(folder: Path, how: str) -> None:
    """A fit, in a process of its own: of the file, of the same in memory, or from the file's model to its minimum."""
    y = np.load(folder / "y.npy", mmap_mode="r")
    X = np.load(folder / "X.npy", mmap_mode=None if how == "in memory" else "r")
    clf = SoftmaxClassifier(ALPHA, random_state=0)
    if how == "minimum":
        clf = pickle.loads((folder / "model").read_bytes()).set_params(warm_start=True, tol=1e-5)
    SoftmaxClassifier().fit(np.eye(3), [0, 1, 2])  # what is imported on the way is not the fit's
    if how == "file":
        import resource

        limit = status("VmData") + LIMIT
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    clf.fit(X, y)
    seconds = time.perf_counter() - start
    peak.is_over.set()
    if how == "file":
        (folder / "model").write_bytes(pickle.dumps(clf))
    told = {
        **{"F": clf.loss_curve_[-1], "excess": clf.excess_, "epochs": clf.n_iter_, "seconds": seconds},
        **{"MiB": (peak.bytes - peak.start_bytes) / 2**20, "sample": clf.solver_info_.get("sample", "")},
    }
    print(json.dumps(told))


def told_by(folder: Path, how: str) -> dict[str, Any]:
    """What the process tells."""
    command = [sys.executable, "-m", "benchmarks.bench_disk", "--folder", str(folder), "--work", how]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


def measure(folder: Path, gigabytes: float, *, is_in_memory_too: bool) -> dict[str, str]:
    """A row."""
    make(folder, gigabytes)
    start = time.perf_counter()
    sum(float(block.sum()) for block in np.array_split(np.load(folder / "X.npy", mmap_mode="r"), 1000))
    read = time.perf_counter() - start
    told = told_by(folder, "file")
    best = told_by(folder, "minimum")
    memory = told_by(folder, "in memory") if is_in_memory_too else None
    minimum = min([best["F"], *([memory["F"]] if memory else [])])
    return {
        **{"gigabytes": f"{gigabytes:g}", "gap": f"{told['F'] / minimum - 1:.1e}", "excess": f"{told['excess']:.1e}"},
        **{"MiB": f"{told['MiB']:.0f}", "seconds": f"{told['seconds']:.1f}", "epochs": str(told["epochs"])},
        **{"read_s": f"{read:.1f}", "sample": told["sample"]},
        "in_memory_MiB": f"{memory['MiB']:.0f}" if memory else "",
        "in_memory_seconds": f"{memory['seconds']:.1f}" if memory else "",
        "in_memory_gap": f"{memory['F'] / minimum - 1:.1e}" if memory else "",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_disk", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one file of 0.2 GB")
    parser.add_argument("--gigabytes", nargs="+", type=float, default=[1.0, 4.0, 16.0])
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made; default: the system's")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    parser.add_argument("--work", choices=["file", "in memory", "minimum"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work(options.folder, options.work)
        return
    rows = []
    for gigabytes in [0.2] if options.quick else options.gigabytes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows.append(measure(Path(folder), gigabytes, is_in_memory_too=not rows))
            report.write_csv(options.output / "disk.csv", [{**machine(), **row} for row in rows])
            print(rows[-1], flush=True)
    print(report.text_table(rows))
    print(f"MiB: allocated by the fit at its peak; wrote {options.output / 'disk.csv'}")
    if any(float(row["gap"]) > TOL for row in rows):
        raise SystemExit("a fit ended above its tol")


if __name__ == "__main__":
    main()
