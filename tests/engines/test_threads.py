import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from threadpoolctl import threadpool_info, threadpool_limits

from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV
from sksoftmax._engines import compiled, device, threads
from sksoftmax._engines.registry import get_kernel, has_compiled
from sksoftmax._engines.threads import map_in_order, one_blas_thread, read_ahead
from sksoftmax._solvers import _dual_data, _rounds
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


# --- the pool ----------------------------------------------------------------------------------------------


@pytest.fixture
def every_sum_in_parallel(monkeypatch):
    monkeypatch.setattr(threads, "_MIN_WORK", 0)
    monkeypatch.setattr(threads, "_MIN_KERNEL_WORK", 0)
    monkeypatch.setattr(_rounds, "_MIN_EPOCH_WORK", 0)
    monkeypatch.setattr(_dual_data, "_MIN_PART_WORK", 1)
    monkeypatch.setattr(threads, "_RUN_WORK", 1)
    monkeypatch.setattr(threads, "_count_cores", lambda: 8)


def pool_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sksoftmax")]


def test_results_come_in_order_from_other_threads(every_sum_in_parallel, settings):
    def name_of(i):
        time.sleep(0.001 * (1 + i % 3))
        return i, threading.current_thread().name

    with one_blas_thread():
        results = list(map_in_order(name_of, range(40), 40.0))
    assert [i for i, _ in results] == list(range(40))
    assert {name for _, name in results} == {"sksoftmax_0", threading.current_thread().name}  # two threads in all
    assert pool_threads() == []  # none outlives the fits


@pytest.mark.parametrize("work", [0.0, 1e9])
def test_little_work_and_work_outside_of_a_fit_stay_in_their_thread(work, monkeypatch):
    monkeypatch.setattr(threads, "_count_cores", lambda: 8)
    own = threading.current_thread()

    def thread_of(_):
        time.sleep(0.002)
        return threading.current_thread()

    with one_blas_thread():
        inside = list(map_in_order(thread_of, range(30), work))
        assert (set(inside) == {own}) == (work == 0)
    assert list(map_in_order(lambda _: threading.current_thread(), range(3), 1e9)) == [own] * 3


def test_an_error_in_a_block_reaches_the_caller(every_sum_in_parallel):
    def fail(i):
        if i == 5:
            raise ZeroDivisionError("block 5")
        return i

    with one_blas_thread():
        results = map_in_order(fail, range(30), 30.0)
        assert [next(results) for _ in range(5)] == list(range(5))
        with pytest.raises(ZeroDivisionError, match="block 5"):
            next(results)
    assert pool_threads() == []


def test_a_block_may_map_blocks_of_its_own(every_sum_in_parallel):
    with one_blas_thread():
        sums = map_in_order(lambda i: sum(map_in_order(lambda j: i * j, range(4), 4.0)), range(6), 6.0)
        assert list(sums) == [6 * i for i in range(6)]


def test_the_next_item_is_read_while_the_last_is_used(every_sum_in_parallel):
    readers, used = [], []

    def items():
        for i in range(5):
            readers.append(threading.current_thread().name)
            yield i

    with one_blas_thread():
        for item in read_ahead(items()):
            time.sleep(0.01)
            used.append((item, len(readers)))
    assert [item for item, _ in used] == list(range(5))
    assert [n for _, n in used[:4]] == [2, 3, 4, 5]  # one more than is used
    assert set(readers) == {"sksoftmax_0"}
    assert list(read_ahead(items())) == list(range(5))  # outside of a fit in this thread
    assert readers[5:] == [threading.current_thread().name] * 5


def test_an_error_of_a_reader_comes_in_its_place_and_an_end_waits_for_it(every_sum_in_parallel):
    running = []

    def items():
        yield 1
        yield 2
        running.append(1)
        time.sleep(0.05)
        running.pop()
        raise OSError("gone")

    with one_blas_thread():
        found = read_ahead(items())
        assert [next(found), next(found)] == [1, 2]
        with pytest.raises(OSError, match="gone"):
            next(found)
        early = read_ahead(items())
        next(early)
        next(early)
        early.close()  # while the next is read
        assert not running
    assert pool_threads() == []


def fits_of_every_kind():
    rng = np.random.default_rng(0)
    X, y = load_iris(return_X_y=True)
    wide, code = rng.standard_normal((500, 260)), rng.integers(0, 4, 500)
    sparse = sp.csr_array(sp.random(400, 300, 0.05, "csr", random_state=0))
    solver = {"solver": "dual"} if has_compiled() else {}
    yield SoftmaxClassifier(random_state=0), X, y
    yield SoftmaxClassifier(1e-2, random_state=0), X.astype(np.float32) + 10, y  # centred
    yield SoftmaxClassifier(1e-3, batch_size=20, random_state=0), wide, code
    yield SoftmaxClassifier(1e-3, random_state=0), wide, code % 2
    yield SoftmaxClassifier(1e-2, random_state=0, **solver), wide, code
    yield SoftmaxClassifier(1e-2, random_state=0, **solver), np.where(wide > 1.5, wide, 0), code
    yield SoftmaxClassifier(1e-3, random_state=0, **solver), sparse, code[:400]
    yield SoftmaxClassifier(1e-3, l1_ratio=0.5, random_state=0), sparse, code[:400]
    yield SoftmaxClassifier(1e-3, engine="vectorized", random_state=0), sparse, code[:400]


@pytest.mark.parametrize("case", range(9))
def test_a_fit_has_the_same_bits_with_any_number_of_threads(case, every_sum_in_parallel, monkeypatch):
    clf, X, y = list(fits_of_every_kind())[case]
    monkeypatch.setattr(device, "_BLOCK_SIZE", 2**14)  # many blocks
    coefs = []
    for n_threads in (1, 2, 3, 4, 8):
        monkeypatch.setattr(threads, "_count_threads", lambda settings, n=n_threads: n)
        coefs.append((clf.fit(X, y).coef_, clf.intercept_, clf.loss_curve_))
    for other in coefs[1:]:
        assert_array_equal(other[0], coefs[0][0])
        assert_array_equal(other[1], coefs[0][1])
        assert other[2] == coefs[0][2]


def test_predictions_of_sparse_rows_have_the_same_bits_with_any_number_of_threads(every_sum_in_parallel, monkeypatch):
    rng = np.random.default_rng(0)
    X = sp.csr_array(sp.random(500, 300, 0.05, "csr", random_state=0))
    clf = SoftmaxClassifier(1e-2, random_state=0).fit(X, rng.integers(0, 11, 500))
    monkeypatch.setattr(compiled, "_PREDICTED_ROWS", 30)
    found = []
    for n_threads in (1, 2, 8):
        monkeypatch.setattr(threads, "_count_threads", lambda settings, n=n_threads: n)
        found.append(clf.decision_function(X))
    assert found[0].flags.c_contiguous
    assert_allclose(found[0], X @ clf.coef_.T + clf.intercept_, atol=1e-12)
    for other in found[1:]:
        assert_array_equal(other, found[0])


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_fits_start_no_thread(dtype, load, monkeypatch):
    X, y = load(return_X_y=True)
    started, start = [], threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: started.append(self) or start(self))
    counted, count = [], threads.count_threads
    for module in (compiled, _dual_data):
        monkeypatch.setattr(module, "count_threads", lambda *a, **k: counted.append(count(*a, **k)) or counted[-1])
    for alpha in (1e-4, 1.0):
        SoftmaxClassifier(alpha, random_state=0).fit(X.astype(dtype), y)
        SoftmaxClassifier(alpha, random_state=0, l1_ratio=0.5).fit(X.astype(dtype), y)
    assert started == []
    assert set(counted) <= {1}


_SPAWNED = """
import multiprocessing
import numpy as np
from sksoftmax import SoftmaxClassifier
from sksoftmax._engines import threads


def fit(seed):
    threads._MIN_WORK = threads._MIN_KERNEL_WORK = 0
    X = np.random.default_rng(seed).standard_normal((600, 30))
    return SoftmaxClassifier(random_state=0).fit(X, (X[:, 0] > 0) + (X[:, 1] > 0.5)).coef_


if __name__ == "__main__":
    here = [fit(seed) for seed in range(4)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(fit, range(4))
    print(all(np.array_equal(a, b) for a, b in zip(here, there, strict=True)))
"""


def test_spawned_processes_fit_at_the_same_time_and_find_the_same_bits(tmp_path):
    path = tmp_path / "spawned.py"
    path.write_text(_SPAWNED, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=environment, timeout=120)
    assert run.stdout == "True\n", run.stderr


@pytest.mark.skipif(not has_compiled(), reason="needs the kernels")
@pytest.mark.parametrize("is_sparse", [True, False])
def test_fits_end_with_the_same_bits_beside_other_processes(is_sparse, every_sum_in_parallel, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2000, 250)) * (rng.uniform(size=(2000, 250)) < 0.5), rng.integers(4, size=2000)
    X = sp.csr_array(X) if is_sparse else X
    clf = SoftmaxClassifier(1e-3, solver="dual", random_state=0)
    monkeypatch.setattr(threads, "_count_threads", lambda settings: 1)
    alone = clf.fit(X, y).coef_
    monkeypatch.setattr(threads, "_count_threads", lambda settings: 4)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert_array_equal(clf.fit(X, y).coef_, alone)
    finally:
        for process in others:
            process.kill()
            process.wait()


def test_threads_that_fit_at_the_same_time_share_the_cores(monkeypatch):
    monkeypatch.setattr(threads, "_count_threads", lambda settings: 8)
    found, both = [], threading.Barrier(2)

    def count():
        with one_blas_thread(), one_blas_thread():  # nested, as in a search
            both.wait(10)
            found.append(threads.count_threads(1e9))
            both.wait(10)

    with one_blas_thread():
        assert threads.count_threads(1e9) == 8
        assert threads.count_threads(1.0) == 1
    others = [threading.Thread(target=count) for _ in range(2)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert found == [4, 4]
    assert threads.count_threads(1e9) == 1  # outside of a fit
    assert not threads._limit.callers


@pytest.mark.parametrize(("limit", "want"), [(1, 1), (2, 2)])
def test_the_pool_is_as_large_as_the_limit_of_the_user(limit, want, monkeypatch):
    monkeypatch.setattr(threads, "_count_cores", lambda: 8)
    with threadpool_limits(limit), one_blas_thread():
        assert threads._limit.n_threads == want


def test_the_pool_is_no_larger_than_the_machine(monkeypatch):
    monkeypatch.setattr(threads, "_count_cores", lambda: 1)
    with one_blas_thread():
        assert threads._limit.n_threads == 1


def count_in_a_worker():
    with one_blas_thread():
        return threads._limit.n_threads


def test_fits_in_joblibs_workers_share_the_cores():
    n_cores = joblib.cpu_count()
    found = joblib.Parallel(n_jobs=n_cores)(joblib.delayed(count_in_a_worker)() for _ in range(2))
    assert set(found) == {1}
