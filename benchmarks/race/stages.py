"""Where the time of one of our fits goes, in passes over the rows: a pass is one loss and gradient of all rows.

`pass_equivalents` runs a fit with a clock in the functions of `STAGES`. Time in a function counts for its stage, except
for the functions of other stages that it calls; a certificate counts with everything that it calls.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.timing import timed
from sksoftmax._engines.registry import KERNELS
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._types import Array, Batch, Params, Problem

#: Functions, by the stage that their time is of.
STAGES = {
    "statistics": ("_maths.preconditioner.compute_moments", "_maths.objective.center_columns"),
    "factors": (
        "_maths.class_curvature.class_preconditioner",
        "_maths.class_curvature.shared_preconditioner",
        "_maths.curvature.factorize_hessian",
        "_maths.preconditioner.inverse_of_unit_diagonal",
        "_engines.compiled.newton_steps",
    ),
    "products": ("_maths.newton_direction.conjugate_gradients",),
    "line searches": ("_maths.objective.value_and_grad",),
    "certificate": (
        "_solvers.lbfgs._with_bound",
        "_solvers.newton._with_saturation_check",
        "_training.loop._excess",
        "_training.fit.finalize",
    ),
    "minibatches": ("_solvers.preconditioned_sgd.preconditioned_sgd",),
    "dual": ("_solvers.dual.dual",),
}

#: Stages whose functions return a solver, whose steps count.
_SOLVERS = ("minibatches", "dual")

_REPEATS = 5


class _Clock:
    """Seconds by stage; the time of ``"other"`` is that of no stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._stages, self._since = ["other"], time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stages[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._switch()
        self._stages.append("certificate" if self._stages[-1] == "certificate" else name)
        try:
            yield
        finally:
            self._switch()
            self._stages.pop()

    def watch(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if stage in _SOLVERS:
                solver = function(*args, **kwargs)
                return solver._replace(step=self._watch_step(solver.step, stage))
            with self.stage(stage):
                return function(*args, **kwargs)

        return watched

    def _watch_step(self, step: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            with self.stage(stage):
                return step(*args)

        return watched


@contextmanager
def _watched(clock: _Clock) -> Iterator[None]:
    """Replace the functions of the stages in all modules of the package."""
    replaced = []
    for stage, names in STAGES.items():
        for name in names:
            module, _, attribute = f"sksoftmax.{name}".rpartition(".")
            function = getattr(importlib.import_module(module), attribute)
            watched = clock.watch(function, stage)
            for other in [m for key, m in sys.modules.items() if key.startswith("sksoftmax.")]:
                if getattr(other, attribute, None) is function:
                    replaced.append((other, attribute, function))
                    setattr(other, attribute, watched)
    try:
        yield
    finally:
        for other, attribute, function in replaced:
            setattr(other, attribute, function)


def pass_seconds(X: Any, y: Array, alpha: float) -> float:
    """Return the seconds of a pass over all rows; ``y`` are class codes."""
    n_classes = int(y.max()) + 1
    n_outputs = 1 if n_classes == 2 else n_classes
    rows = Batch(X, y.astype(np.intp), np.ones(len(y)))
    problem = Problem(rows, n_classes, alpha, True, next(iter(KERNELS.values())), 1.0)
    params = Params(np.zeros((n_outputs, X.shape[1])), np.zeros(n_outputs))
    with one_blas_thread():
        return timed(lambda: value_and_grad(problem, params), _REPEATS)[1].median


def pass_equivalents(fit: Callable[[], Any], X: Any, y: Array, alpha: float) -> dict[str, float]:
    """Return the cost of ``fit`` by stage, in passes over the rows."""
    clock = _Clock()
    with _watched(clock), clock.stage("other"):
        fit()
    one_pass = pass_seconds(X, y, alpha)
    return {stage: seconds / one_pass for stage, seconds in clock.seconds.most_common()}


def described(passes: dict[str, float]) -> str:
    """Return the passes in words: their sum, and the stages in the order of their cost."""
    parts = ", ".join(f"{stage} {value:.1f}" for stage, value in passes.items() if value >= 0.05)
    return f"{sum(passes.values()):.1f}: {parts}"
