"""Choose how a cold fit whose Hessian is factorized begins, by predicted time.

It begins with Newton steps on all rows, with the fit of a sample of them, or with minibatches. ``fit`` and ``plan``
call this module.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from sksoftmax._engines.device import is_in_host_memory
from sksoftmax._maths.class_curvature import DRAW_TIME, STEP_OVERHEAD, hessian_time, pass_time
from sksoftmax._maths.objective import class_weights
from sksoftmax._training.newton_stage import choose_curvature
from sksoftmax._training.settings import MIN_BATCH, Settings
from sksoftmax._types import Batch, Problem

#: Passes of a Newton step: some steps try a second length.
_PASSES_PER_STEP = 1.4

#: Steps from the class priors until F is close to its minimum, and all steps of the fit of a sample.
_FIRST_STEPS = 3
_SAMPLE_STEPS = 6

#: Times in nanoseconds of the fit of a sample beside its steps, and of a minibatch step and a row in it beside their
#: multiplications. (Measured.)
_FIT_OVERHEAD, _BATCH_OVERHEAD, _SHUFFLE_TIME = 1e6, 4e4, 20.0

#: Passes of an epoch of minibatch steps.
_PASSES_PER_EPOCH = 2.0

#: Rows of a sample: per unknown, so that its minimum is within some percent of that of all rows, and as a fraction.
_SAMPLE_ROWS_PER_UNKNOWN = 100
_SAMPLE_FRACTION = 1 / 32

#: Maximum rows of an "auto" batch.
_MAX_BATCH = 4096

#: Maximum number of "auto" batches in an epoch.
_MAX_BATCHES = 512

#: Minimum number of batches in an epoch for minibatches to come first.
_MIN_BATCHES = 16

#: Target number of minibatch steps; it is rounded to full epochs, at least one.
SGD_STEPS = 256

#: Maximum number of epochs of minibatch steps.
MAX_SGD_EPOCHS = 5


class Start(Enum):
    """The first stage of a fit."""

    NEWTON = "Newton steps"
    SAMPLE = "the fit of a sample"
    MINIBATCHES = "minibatches"


def auto_batch_size(problem: Problem) -> int:
    """Return a batch size for which the preconditioner (n_features^2 flops) costs little next to the batch itself.

    If X is not in host memory, a step takes its time on few rows too, so the number of batches is at most the number of
    minibatch steps.
    """
    n_batches = _MAX_BATCHES if is_in_host_memory(problem.data.X) else SGD_STEPS
    return int(np.clip(max(problem.n_features, problem.n_total_samples // n_batches), MIN_BATCH, _MAX_BATCH))


def count_epochs(problem: Problem, batch_size: int, max_epochs: int = MAX_SGD_EPOCHS) -> int:
    """Return the number of epochs of minibatch steps."""
    n_batches = -(-problem.n_total_samples // batch_size)
    return int(np.clip(round(SGD_STEPS / n_batches), 1, max_epochs))


def choose_start(problem: Problem, settings: Settings, *, is_warm: bool) -> Start:
    """Return the first stage of a fit.

    - A warm start is followed by Newton steps, because the first minibatch steps would lead away from it.
    - If the user set the size or the rate of minibatches, they come first.
    - Fewer than 16 batches in an epoch are too few for minibatches.
    - If the Hessian is factorized, the first stage is the one of least predicted time.
    """
    n_batches = -(-problem.n_total_samples // (settings.batch_size or auto_batch_size(problem)))
    if is_warm:
        return Start.NEWTON
    if settings.batch_size is not None or settings.learning_rate is not None:
        return Start.MINIBATCHES if n_batches > 1 else Start.NEWTON
    if n_batches < _MIN_BATCHES:
        return Start.NEWTON
    if problem.data_source is not None or not choose_curvature(problem).is_factorized:
        return Start.MINIBATCHES
    times = {
        Start.NEWTON: _FIRST_STEPS * _step_time(problem),
        Start.MINIBATCHES: _minibatch_time(problem),
    }
    if (n_drawn := _sample_size(problem)) is not None:
        sample = problem._replace(data=_spaced_rows(problem, n_drawn))
        times[Start.SAMPLE] = _FIT_OVERHEAD + _SAMPLE_STEPS * _step_time(sample)
    return min(times, key=lambda start: times[start])


def first_sample(problem: Problem, settings: Settings) -> Problem | None:
    """Return the problem of evenly spaced rows whose fit is the start of a cold fit, if any."""
    if settings.solver != "auto" or choose_start(problem, settings, is_warm=False) is not Start.SAMPLE:
        return None
    n_drawn = _sample_size(problem)
    assert n_drawn is not None
    data = _spaced_rows(problem, n_drawn)
    sample = problem._replace(data=data, mean_weight=float(data.weight.mean()))
    has_all_classes = (class_weights(sample) > 0).all()
    return sample if has_all_classes else None


def _sample_size(problem: Problem) -> int | None:
    """Return the number of rows of a sample; None if they are more than a quarter, or the Hessian is a sample's.

    Coefficients of rare features are too large for the rows that the sample misses. Steps with the Hessian of all rows
    bring them back, but a sampled Hessian may miss these rows as well.
    """
    if not choose_curvature(problem).is_exact:
        return None
    n_unknowns = problem.n_outputs * (problem.n_features + problem.fit_intercept)
    n_drawn = max(_SAMPLE_ROWS_PER_UNKNOWN * n_unknowns, int(_SAMPLE_FRACTION * problem.n_samples))
    return n_drawn if 4 * n_drawn <= problem.n_samples else None


def _spaced_rows(problem: Problem, n_drawn: int) -> Batch:
    """Return about ``n_drawn`` evenly spaced rows."""
    spaced = slice(None, None, problem.n_samples // n_drawn)
    return Batch(*(column[spaced] for column in problem.data))


def _step_time(problem: Problem) -> float:
    """Predict the time of a Newton step in nanoseconds."""
    n_drawn = choose_curvature(problem).n_drawn
    draw_time = DRAW_TIME * problem.n_samples * (n_drawn < problem.n_samples)
    return STEP_OVERHEAD + _PASSES_PER_STEP * pass_time(problem) + draw_time + hessian_time(problem, n_drawn)


def _minibatch_time(problem: Problem) -> float:
    """Predict the time of the minibatch steps in nanoseconds."""
    batch_size = auto_batch_size(problem)
    epoch_time = (
        _BATCH_OVERHEAD * (-(-problem.n_samples // batch_size))
        + _SHUFFLE_TIME * problem.n_samples
        + _PASSES_PER_EPOCH * pass_time(problem)
    )
    return count_epochs(problem, batch_size) * epoch_time
