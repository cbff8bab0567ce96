"""Decide whether a fit goes on, from values alone.

The training loop calls these functions once an epoch.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple


class StopReason(enum.StrEnum):
    """Reason why a fit ended.

    Members are strings: ``stop_reason_ == "tol"``.
    """

    TOL = "tol"  #: F is estimated to be within ``tol``, relative, of its minimum
    MAX_ITER = "max_iter"  #: ``max_iter`` epochs are over
    EARLY_STOPPING = "early_stopping"  #: the validation score has stopped improving
    PRECISION = "precision"  #: no step changes F by more than rounding
    SEPARABLE = "separable"  #: alpha is 0 and all rows are predicted right: F has no minimum
    CALLBACK = "callback"  #: a callback requested the end


class Progress(NamedTuple):
    """Summary of the epochs so far.

    Attributes
    ----------
    epoch : int
        Number of epochs done.
    value : float
        F after the last epoch.
    next_check : int
        First epoch at which the excess may be checked again; a failed check doubles the epoch number.
    best_score : float
        Best validation score.
    best_epoch : int
        Epoch of the best score.
    """

    epoch: int = 0
    value: float = math.inf
    next_check: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0


def is_slow(progress: Progress, value: float, tol: float) -> bool:
    """Return whether the last epoch lowered F by less than ``tol``, relative, and a check of the excess is due.

    F may then be within ``tol`` of its minimum.
    """
    return progress.epoch >= progress.next_check and progress.value - value <= tol * abs(value)


def postpone_check(progress: Progress) -> Progress:
    """Return the progress after a failed check of the excess."""
    return progress._replace(next_check=max(progress.epoch + 2, 2 * progress.epoch))


def record_epoch(progress: Progress, value: float, score: float | None) -> Progress:
    """Return the progress after one more epoch, with F and the validation score at its end."""
    progress = progress._replace(epoch=progress.epoch + 1, value=value)
    if score is not None and score > progress.best_score:
        progress = progress._replace(best_score=score, best_epoch=progress.epoch)
    return progress


def is_diverged(value: float, limit: float) -> bool:
    """Return whether F is NaN or above ``limit``, which no useful step exceeds."""
    return not value <= limit


def has_stopped_improving(progress: Progress, n_iter_no_change: int) -> bool:
    """Return whether the last ``n_iter_no_change`` epochs brought no better validation score."""
    return progress.epoch - progress.best_epoch >= n_iter_no_change
