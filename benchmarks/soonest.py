"""The seconds of a rival that an oracle stops as soon as F is near its minimum."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks.race.oracle import Fit, search
from benchmarks.rivals import Rival
from benchmarks.timing import timed
from sksoftmax._types import Params


def soonest(
    rival: Rival,
    X: Any,
    y: Any,
    alpha: float,
    F: Callable[[Params], float],
    minimum: float,
    *,
    target: float,
    limit: float,
    repeats: int,
) -> float:
    """Return the median seconds of a rival's shortest fit whose gap is ``target``; inf if none takes ``limit`` or less.

    The budget of iterations is doubled until the gap is reached, and then narrowed; these fits do not count.
    """

    def fit(budget: int) -> Any:
        return rival.make(alpha, len(y), **{**rival.endless, **rival.budget(budget)}).fit(X, y)

    def run(setting: int, budget: int) -> Fit:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            estimator = fit(budget)
            seconds = time.perf_counter() - start
        return Fit(setting, budget, seconds, F(rival.params(estimator)) / minimum - 1)

    best = search(run, [0], {target: limit}, max_budget=2000).best.get(target)
    return float("inf") if best is None else timed(lambda: fit(best.budget), repeats)[1].median
