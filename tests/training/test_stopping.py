import numpy as np
import pytest

from sksoftmax._training.stopping import (
    Progress,
    StopReason,
    has_stopped_improving,
    is_diverged,
    is_slow,
    postpone_check,
    record_epoch,
)


def test_slow_is_a_decrease_of_less_than_tol_relative():
    progress = Progress(epoch=3, value=1.0)
    assert is_slow(progress, 0.9995, tol=1e-3)
    assert not is_slow(progress, 0.99, tol=1e-3)


def test_a_failed_check_doubles_the_wait():
    progress, checks = Progress(value=1.0), []
    for epoch in range(40):
        if is_slow(progress, 1.0, tol=1e-3):
            checks.append(epoch)
            progress = postpone_check(progress)
        progress = record_epoch(progress, 1.0, None)
    assert checks == [0, 2, 4, 8, 16, 32]


def test_early_stopping_counts_epochs_since_the_best_score():
    progress = Progress()
    for score in (0.5, 0.7, 0.7, 0.6):
        progress = record_epoch(progress, 1.0, score)
    assert (progress.best_epoch, progress.best_score) == (2, 0.7)
    assert has_stopped_improving(progress, 2)
    assert not has_stopped_improving(progress, 3)


@pytest.mark.parametrize(("value", "diverged"), [(1.0, False), (3.0, True), (np.nan, True), (np.inf, True)])
def test_no_number_and_too_large_a_number_are_divergence(value, diverged):
    assert is_diverged(value, 2.0) is diverged


def test_reasons_are_strings():
    assert str(StopReason.TOL) == "tol"
