"""Report the epochs of a fit: on the screen, and to scikit-learn's callbacks.

The estimators build the `Monitor` of a fit here; the training loop calls it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sksoftmax import _sklearn
from sksoftmax._training.fit import NO_MONITOR
from sksoftmax._training.loop import Epoch, Monitor, Result

#: What the columns of the lines per epoch are.
_HEADER = "F after each epoch, excess (F - F*) / F* (-: not known yet), seconds since the start, rows per second:"


def verbose_monitor(n_samples: int) -> tuple[Monitor, Callable[[Result], None]]:
    """Return a monitor that prints one line per epoch, and a function that prints how the fit ended.

    The line has the seconds since this call and the rows per second of the epoch. F is evaluated if the epoch has only
    the mean of F over its steps, because this mean may be below the minimum of F.
    """
    fit_start = epoch_start = time.perf_counter()
    print(_HEADER)

    def on_epoch_begin() -> None:
        nonlocal epoch_start
        epoch_start = time.perf_counter()

    def on_epoch_end(epoch: Epoch) -> bool:
        now = time.perf_counter()
        excess = f"{epoch.excess:.1e}" if math.isfinite(epoch.excess) else "-"
        value = epoch.value if epoch.is_exact else epoch.snapshot().loss_curve[-1]
        validation = "" if epoch.score is None else f"  validation {epoch.score:.4f}"
        rate = n_samples / max(now - epoch_start, 1e-9)
        print(
            f"epoch {epoch.number:4d}  F  {value:.6e}  excess {excess:>7}{validation}  {now - fit_start:.2f} s  "
            f"{rate:.1e} rows/s"
        )
        return False

    def on_fit_end(result: Result) -> None:
        excess = f"{result.excess:.1e}" if math.isfinite(result.excess) else "not known"
        print(
            f"ended by {result.stop_reason.value!r} after {len(result.loss_curve)} epochs and "
            f"{time.perf_counter() - fit_start:.2f} s: F {result.loss_curve[-1]:.6e}, excess {excess}"
        )

    return Monitor(on_epoch_begin, on_epoch_end), on_fit_end


class Task(NamedTuple):
    """The task of a fit in scikit-learn's callbacks; its subtasks are the epochs.

    Attributes
    ----------
    context : CallbackContext or None
        None without callbacks.
    arguments : dict
        Arguments of every call: the estimator, X and y as passed to ``fit``, and the weights as metadata.
    """

    context: Any
    arguments: dict[str, Any]

    def monitors(self, attributes: Callable[[Result], dict[str, Any]]) -> list[Monitor]:
        """Return the monitor that calls the callbacks, in a list; an empty list without callbacks.

        ``attributes`` maps a result to the fitted attributes. It is called if a callback requests the current model.
        """
        if self.context is None:
            return []
        task = self.context
        last: Epoch | None = None

        def current_attributes() -> dict[str, Any] | None:
            return None if last is None else attributes(last.snapshot())

        def on_epoch_begin() -> None:
            nonlocal task
            task = self.context.subcontext(task_name="epoch")
            task.call_on_fit_task_begin(**self.arguments, reconstruction_attributes=current_attributes)

        def on_epoch_end(epoch: Epoch) -> bool:
            nonlocal last
            last = epoch
            return bool(task.call_on_fit_task_end(**self.arguments, reconstruction_attributes=current_attributes))

        return [Monitor(on_epoch_begin, on_epoch_end)]

    def end(self) -> None:
        """Call the callbacks after the estimator is fitted."""
        if self.context is not None:
            self.context.call_on_fit_task_end(**self.arguments, reconstruction_attributes={})


def task_of(estimator: Any, X: Any = None, y: Any = None, sample_weight: Any = None) -> Task:
    """Return the task of a new fit, after calling the callbacks, if any, for its beginning."""
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    arguments = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    context = _sklearn.callback_context(estimator, estimator.max_iter)
    if context is not None:
        context.call_on_fit_task_begin(**arguments)
    return Task(context, arguments)


def combine_monitors(monitors: list[Monitor]) -> Monitor:
    """Return a monitor that calls all of ``monitors``; the fit ends if any of them requests it."""
    if not monitors:
        return NO_MONITOR

    def on_epoch_begin() -> None:
        for monitor in monitors:
            monitor.on_epoch_begin()

    def on_epoch_end(epoch: Epoch) -> bool:
        requests = [monitor.on_epoch_end(epoch) for monitor in monitors]  # a list: every monitor is called
        return any(requests)

    return Monitor(on_epoch_begin, on_epoch_end)
