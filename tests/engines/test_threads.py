import os
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_info, threadpool_limits

from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV
from sksoftmax._engines.registry import get_kernel
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._training.plan import choose_engine


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def settings():
    """What the process uses: two threads where a BLAS can (other packages may have brought one of a single thread)."""
    with threadpool_limits(2, user_api="blas"):
        found = blas_threads()
        assert 2 in found
        yield found


def test_one_thread_inside_and_the_process_own_after(settings):
    with one_blas_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == settings


def test_settings_come_back_after_an_error(settings):
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert blas_threads() == settings


@pytest.mark.parametrize("first_to_end", ["first", "second"])
def test_overlapping_fits_leave_the_settings_as_they_were(first_to_end, settings):
    entered, leave = threading.Event(), threading.Event()

    def second():
        with one_blas_thread():
            entered.set()
            assert leave.wait(10)

    thread = threading.Thread(target=second)
    with one_blas_thread():
        thread.start()
        assert entered.wait(10)
        if first_to_end == "second":
            leave.set()
            thread.join()
        assert set(blas_threads()) == {1}
    if first_to_end == "first":
        assert set(blas_threads()) == {1}  # the second fit still runs
    leave.set()
    thread.join()
    assert blas_threads() == settings


@contextmanager
def another_fit():
    """A fit in another thread, which waits for its batches until the block is over, and fails."""
    begun, go = threading.Event(), threading.Event()

    def batches():
        begun.set()
        assert go.wait(10)
        raise OSError("gone")

    def fit():
        with pytest.raises(OSError, match="gone"):
            SoftmaxClassifier().fit_batches(batches)

    thread = threading.Thread(target=fit)
    thread.start()
    assert begun.wait(10)

    def end():
        go.set()
        thread.join()

    try:
        yield end
    finally:
        end()


FITS = {
    "fit": lambda X, y: SoftmaxClassifier(tol=1e-10, random_state=0).fit(X, y),
    "partial_fit": lambda X, y: SoftmaxClassifier(random_state=0).partial_fit(X, y, classes=[0, 1, 2]),
    "cv": lambda X, y: SoftmaxClassifierCV([0.1, 0.01], cv=2, random_state=0).fit(X, y),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_fit_keeps_its_one_thread_when_a_fit_that_began_before_it_ends(fit, monkeypatch, settings):
    X, y = load_iris(return_X_y=True)
    alone = fit(X, y).coef_
    inside, engine = [], get_kernel(choose_engine("auto"))
    loss_grad = engine.loss_grad
    with another_fit() as end:

        def seen(*args):
            end()
            inside.extend(blas_threads())
            return loss_grad(*args)

        monkeypatch.setattr(engine, "loss_grad", seen)
        assert_array_equal(fit(X, y).coef_, alone)
    assert set(inside) == {1}
    assert blas_threads() == settings


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("is_in_a_fit", [False, True])
def test_a_child_forked_while_a_fit_runs_has_the_process_own_settings(is_in_a_fit, settings):
    X, y = load_iris(return_X_y=True)

    def child():
        at_first = blas_threads()
        SoftmaxClassifier().fit(X, y)
        return at_first == blas_threads() == settings

    def exit_code():
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if child() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with another_fit():
        if is_in_a_fit:
            with one_blas_thread():
                assert exit_code() == 0
                assert set(blas_threads()) == {1}
        else:
            assert exit_code() == 0
            assert set(blas_threads()) == {1}
    assert blas_threads() == settings


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_uses_one_thread_and_leaves_the_settings_as_they_were(method, monkeypatch, settings):
    inside, engine = [], get_kernel(choose_engine("auto"))
    loss_grad = engine.loss_grad

    def watched(*arguments):
        inside.append(blas_threads())
        return loss_grad(*arguments)

    monkeypatch.setattr(engine, "loss_grad", watched)
    X, y = load_iris(return_X_y=True)
    getattr(SoftmaxClassifier(), method)(X, y, **({"classes": [0, 1, 2]} if method == "partial_fit" else {}))
    assert {n for threads in inside for n in threads} == {1}
    assert blas_threads() == settings


@pytest.mark.parametrize("y", [[0, 0, 0], [0.5, 0.1, 0.2]])
def test_a_fit_that_fails_leaves_the_settings_as_they_were(y, settings):
    with pytest.raises(ValueError, match=r"class|label"):
        SoftmaxClassifier().fit(np.eye(3), y)
    assert blas_threads() == settings
