"""Whether to go on: a value, decided from values, once an epoch."""

from __future__ import annotations

import enum
import math
from typing import NamedTuple


class StopReason(enum.StrEnum):
    """Why a fit ended.

    Members are strings: ``stop_reason_ == "tol"``.
    """

    TOL = "tol"  #: F is estimated to be within ``tol``, relative, of its minimum
    MAX_ITER = "max_iter"  #: ``max_iter`` epochs are over
    EARLY_STOPPING = "early_stopping"  #: the validation score has stopped improving
    PRECISION = "precision"  #: no step changes F by more than rounding
    SEPARABLE = "separable"  #: alpha is 0 and all rows are predicted right: F has no minimum
    CALLBACK = "callback"  #: a callback has asked for it


class Progress(NamedTuple):
    """What is remembered of the epochs so far.

    Attributes
    ----------
    epoch : int
        Epochs done.
    value : float
        F after the last.
    next_check : int
        Epoch from which the excess may be certified again; a failed check doubles the wait.
    best_score : float
        Best validation score.
    best_epoch : int
        Its epoch.
    """

    epoch: int = 0
    value: float = math.inf
    next_check: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0


def is_slow(progress: Progress, value: float, tol: float) -> bool:
    """Whether an epoch brought less than ``tol``, so that F may be as near to its minimum."""
    return progress.epoch >= progress.next_check and progress.value - value <= tol * abs(value)


def after_failed_check(progress: Progress) -> Progress:
    return progress._replace(next_check=max(progress.epoch + 2, 2 * progress.epoch))


def after_epoch(progress: Progress, value: float, score: float | None) -> Progress:
    progress = progress._replace(epoch=progress.epoch + 1, value=value)
    if score is not None and score > progress.best_score:
        progress = progress._replace(best_score=score, best_epoch=progress.epoch)
    return progress


def is_diverged(value: float, limit: float) -> bool:
    """Whether F is no number or beyond any value that a useful step leads to."""
    return not value <= limit


def has_stopped_improving(progress: Progress, n_iter_no_change: int) -> bool:
    return progress.epoch - progress.best_epoch >= n_iter_no_change
