"""Who watches a fit: a line an epoch on the screen, and scikit-learn's callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sksoftmax._data import validation as _validation
from sksoftmax._training.fit import NO_MONITOR
from sksoftmax._training.loop import Epoch, Monitor, Result


def verbose_monitor(n_samples: int) -> Monitor:
    """Prints a line an epoch, with the seconds since now, and the rows a second of the epoch.

    F is evaluated where the epoch has only its mean along the way, which may be below F's minimum.
    """
    began = epoch_began = time.perf_counter()

    def on_epoch_begin() -> None:
        nonlocal epoch_began
        epoch_began = time.perf_counter()

    def on_epoch_end(epoch: Epoch) -> bool:
        now = time.perf_counter()
        excess = f"{epoch.excess:.1e}" if math.isfinite(epoch.excess) else "-"
        value = epoch.value if epoch.is_exact else epoch.snapshot().loss_curve[-1]
        validation = "" if epoch.score is None else f"  validation {epoch.score:.4f}"
        rate = n_samples / max(now - epoch_began, 1e-9)
        print(
            f"epoch {epoch.number:4d}  F  {value:.6e}  excess {excess:>7}{validation}  {now - began:.2f} s  "
            f"{rate:.1e} rows/s"
        )
        return False

    return Monitor(on_epoch_begin, on_epoch_end)


class Task(NamedTuple):
    """A fit, as callbacks are told of it: a task, whose subtasks are its epochs.

    Attributes
    ----------
    context : CallbackContext or None
        None without callbacks.
    given : dict
        What they are told each time: the estimator, X and y as ``fit`` was given them, the weights as metadata.
    """

    context: Any
    given: dict[str, Any]

    def monitors(self, attributes: Callable[[Result], dict[str, Any]]) -> list[Monitor]:
        """Those that tell them of the epochs, if there are any.

        ``attributes`` are the fitted ones, made for callbacks that ask for the model as it stands.
        """
        if self.context is None:
            return []
        task = self.context
        last: Epoch | None = None

        def reached() -> dict[str, Any] | None:
            return None if last is None else attributes(last.snapshot())

        def on_epoch_begin() -> None:
            nonlocal task
            task = self.context.subcontext(task_name="epoch")
            task.call_on_fit_task_begin(**self.given, reconstruction_attributes=reached)

        def on_epoch_end(epoch: Epoch) -> bool:
            nonlocal last
            last = epoch
            return bool(task.call_on_fit_task_end(**self.given, reconstruction_attributes=reached))

        return [Monitor(on_epoch_begin, on_epoch_end)]

    def end(self) -> None:
        """Tell them that the estimator is fitted."""
        if self.context is not None:
            self.context.call_on_fit_task_end(**self.given, reconstruction_attributes={})


def task_of(estimator: Any, X: Any = None, y: Any = None, sample_weight: Any = None) -> Task:
    """The task of a fit that begins; its callbacks, if any, have been told."""
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    context = _validation.callback_context(estimator, estimator.max_iter)
    if context is not None:
        context.call_on_fit_task_begin(**given)
    return Task(context, given)


def combine_monitors(monitors: list[Monitor]) -> Monitor:
    """All of them are told."""
    if not monitors:
        return NO_MONITOR

    def on_epoch_begin() -> None:
        for monitor in monitors:
            monitor.on_epoch_begin()

    def on_epoch_end(epoch: Epoch) -> bool:
        asked = [monitor.on_epoch_end(epoch) for monitor in monitors]
        return any(asked)

    return Monitor(on_epoch_begin, on_epoch_end)
