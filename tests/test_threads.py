import threading

import numpy as np
import pytest
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_info, threadpool_limits

from sksoftmax import SoftmaxClassifier
from sksoftmax._threads import one_blas_thread


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
    leave.set()
    thread.join()
    assert blas_threads() == settings


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_uses_one_thread_and_leaves_the_settings_as_they_were(method, monkeypatch, settings):
    from sksoftmax import _vectorized

    inside, loss_grad = [], _vectorized.loss_grad
    monkeypatch.setattr("sksoftmax._vectorized.loss_grad", lambda *a: (inside.append(blas_threads()), loss_grad(*a))[1])
    X, y = load_iris(return_X_y=True)
    getattr(SoftmaxClassifier(), method)(X, y, **({"classes": [0, 1, 2]} if method == "partial_fit" else {}))
    assert {n for threads in inside for n in threads} == {1}
    assert blas_threads() == settings


@pytest.mark.parametrize("y", [[0, 0, 0], [0.5, 0.1, 0.2]])
def test_a_fit_that_fails_leaves_the_settings_as_they_were(y, settings):
    with pytest.raises(ValueError, match=r"class|label"):
        SoftmaxClassifier().fit(np.eye(3), y)
    assert blas_threads() == settings
