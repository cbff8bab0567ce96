"""Seconds of a fit, and of what machine they are."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import sklearn

import sksoftmax
from benchmarks import N_THREADS


class Timing(NamedTuple):
    """Median, least and greatest seconds of the repeats."""

    median: float
    least: float
    greatest: float


def timed(fit: Callable[[], Any], repeats: int) -> tuple[Any, Timing]:
    """What ``fit`` gave last, and its times, after one fit to warm up if there are to be several.

    Warnings (a rival that does not converge) are not printed.
    """
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if repeats > 1:
            fit()
        for _ in range(repeats):
            start = time.perf_counter()
            result = fit()
            seconds.append(time.perf_counter() - start)
    return result, Timing(float(np.median(seconds)), min(seconds), max(seconds))


def machine() -> dict[str, str]:
    """Columns of a result that say where it comes from."""
    return {
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "",
        "threads": str(N_THREADS),
        "versions": f"python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, sksoftmax {sksoftmax.__version__}",
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()
