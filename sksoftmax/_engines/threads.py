"""Threads of a fit: one for each BLAS, and a pool that computes blocks of rows side by side.

The estimators fit inside ``one_blas_thread``. The products of a minibatch are too small for several BLAS threads: with
the default threads and another busy process, they take up to twenty times longer. Sums over many rows use several cores
all the same. `map_in_order` computes their blocks on as many threads as the BLAS would have used, the thread that calls
it among them, and yields the results in the order of the blocks. The blocks do not depend on the number of threads, so
the sums have the same bits for any number. Kernels of the dual solver start `count_threads` threads of their own.
threadpoolctl and joblib are requirements of scikit-learn, so they are always installed.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Generic, TypeVar

import joblib
import numpy as np
from threadpoolctl import ThreadpoolController

#: Multiplications, some milliseconds of a pass, below which threads would cost more than they save.
_MIN_WORK = 2**25

#: The same for a kernel that starts its own threads, which needs no interpreter's lock between its blocks.
_MIN_KERNEL_WORK = 2**22

#: Multiplications of a Gram matrix that take as long as one of a pass.
GRAM_PER_PASS = 4

#: Multiplications that take as long as the copy of an entry.
COPY_WORK = 8

#: Multiplications of a run of blocks, about a millisecond: shorter runs would wait for the interpreter's lock.
_RUN_WORK = 2**23

#: Runs for each thread, at least: with fewer, some threads would wait for the last runs of the others.
_RUNS_PER_THREAD = 4

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@cache
def _controller() -> Any:
    """Return the controller of all loaded thread pools, built once."""
    return ThreadpoolController()


def _is_per_thread(library: Any) -> bool:
    """Return whether a limit holds only in the thread that sets it: with OpenMP it does, else in the whole process."""
    return bool(getattr(library, "threading_layer", None) == "openmp")


def _set_num_threads(library: Any, n_threads: int) -> None:
    """Set the number of threads of a BLAS.

    threadpoolctl ignores all threads but the first that sets a limit, so the record of that thread is cleared.
    """
    clear = getattr(library, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
    library.set_num_threads(n_threads)
    if clear is not None:
        clear(force=True)


@cache
def _count_cores() -> int:
    """Return the number of cores that the process may use, by its affinity and the limits of its container."""
    return int(joblib.cpu_count())


def _count_threads(settings: list[tuple[Any, int]]) -> int:
    """Return the number of threads of a pool: what the BLAS would use, and at most one for each core.

    The settings of the BLAS follow OMP_NUM_THREADS and the like, ``threadpoolctl``'s limits, and joblib's limits in its
    workers.
    """
    wanted = [n_threads for _, n_threads in settings] or [int(os.environ.get("OMP_NUM_THREADS") or _count_cores())]
    return max(1, min(max(wanted), _count_cores()))


class _Limit:
    """Limit of one BLAS thread for the process, the number of fits that run under it, and their pool.

    The first fit to enter sets the limit, and the last fit to leave restores the settings. So a fit has one thread from
    its beginning to its end, whatever other fits overlap with it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_inside = 0
        self.callers: Counter[int] = Counter()  # for each thread with fits, how many are nested
        self.n_threads = 1
        self._before: list[tuple[Any, int]] = []
        self._pool: ThreadPoolExecutor | None = None

    @property
    def has_blas_per_thread(self) -> bool:
        """Whether the limit of a BLAS holds only in the thread that sets it."""
        return any(_is_per_thread(library) for library, _ in self._before)

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The pool of the fits that run; its threads start when they are first needed."""
        with self.lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.n_threads - 1, "sksoftmax", initializer=_start_worker)
            return self._pool

    def enter(self) -> list[tuple[Any, int]]:
        """Set the limit, and return the previous settings that hold in this thread only."""
        libraries = [library for library in _controller().lib_controllers if library.user_api == "blas"]
        with self.lock:
            settings = [(library, library.num_threads) for library in libraries]
            if self.n_inside == 0:
                self._before, self.n_threads = settings, _count_threads(settings)
            self.n_inside += 1
            self.callers[threading.get_ident()] += 1
            for library in libraries:
                _set_num_threads(library, 1)
        return [(library, n_threads) for library, n_threads in settings if _is_per_thread(library)]

    def leave(self, thread_settings: list[tuple[Any, int]]) -> None:
        """Restore the settings of this thread, and those of the process if no other fit runs."""
        with self.lock:
            for library, n_threads in thread_settings:
                _set_num_threads(library, n_threads)
            self.n_inside -= 1
            self.callers[threading.get_ident()] -= 1
            self.callers = +self.callers
            pool = None
            if self.n_inside == 0:
                pool, self._pool = self._pool, None
                for library, n_threads in self._before:
                    if not _is_per_thread(library):
                        _set_num_threads(library, n_threads)
        if pool is not None:
            pool.shutdown()

    def end_in_child(self) -> None:
        """Restore all settings in a forked child, once: no fit of its parent runs in it."""
        if self.n_inside > 0:
            for library, n_threads in self._before:
                _set_num_threads(library, n_threads)
        self.n_inside = 0  # becomes negative if the child leaves a fit that its parent entered
        self.lock.release()


_limit = _Limit()

#: ``is_worker`` is set in the threads of a pool, which start no pool of their own.
_thread = threading.local()


def _start_worker() -> None:
    """Set up a thread of the pool: one thread for each BLAS whose limit holds in one thread only."""
    _thread.is_worker = True
    for library in _controller().lib_controllers:
        if library.user_api == "blas" and _is_per_thread(library):
            _set_num_threads(library, 1)


def count_threads(work: float, *, calls_blas: bool = False) -> int:
    """Return the number of threads for a kernel of ``work`` multiplications: 1, or this thread's share of the pool's.

    It is 1 if the kernel calls a BLAS whose limit would not hold in the kernel's own threads. Threads that fit at the
    same time, such as those of ``SoftmaxClassifierCV(n_jobs=...)``, have equal shares.
    """
    if work < _MIN_KERNEL_WORK or not _may_use_threads() or (calls_blas and _limit.has_blas_per_thread):
        return 1
    return max(1, _limit.n_threads // max(1, len(_limit.callers)))


def _may_use_threads() -> bool:
    """Return whether this thread is one of a fit, and not one of the pool."""
    return _limit.n_inside > 0 and not getattr(_thread, "is_worker", False)


def map_in_order(function: Callable[[_Item], _Result], items: Sequence[_Item], work: float) -> Iterator[_Result]:
    """Yield ``function(item)`` for each item, in their order, computed side by side.

    It uses the pool inside ``one_blas_thread`` if ``work``, the multiplications of all items, is worth it. Otherwise it
    is the built-in ``map``. ``function`` must release the interpreter's lock for most of its time. It must not write to
    what the call for another item reads.
    """
    if _limit.n_threads == 1 or work < _MIN_WORK or not _may_use_threads():
        yield from map(function, items)
        return

    def map_run(run: Sequence[_Item]) -> list[_Result]:
        with np.errstate(all="ignore"):  # as in the thread that fits; NumPy's settings hold in one thread only
            return [function(item) for item in run]

    n_runs = max(work / _RUN_WORK, _RUNS_PER_THREAD * _limit.n_threads)
    size = max(1, int(len(items) / n_runs))
    runs = iter([items[start : start + size] for start in range(0, len(items), size)])
    pool, n_ahead = _limit.pool, _limit.n_threads + 1  # more results would wait for their turn in memory
    waiting = deque(_Task(pool, map_run, run) for run in itertools.islice(runs, n_ahead))
    try:
        while waiting:
            # this thread works as well: while the next results are not there, on a run that no other has begun
            while not waiting[0].future.done() and any(task.compute_here() for task in waiting):
                pass
            results = waiting.popleft().future.result()
            waiting.extend(_Task(pool, map_run, run) for run in itertools.islice(runs, 1))
            yield from results
    finally:
        for task in waiting:
            task.future.cancel()


def read_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the items; inside ``one_blas_thread`` a thread of the pool computes the next one meanwhile.

    The results do not depend on the thread, and an error comes where its item would.
    """
    if _limit.n_threads == 1 or not _may_use_threads():
        yield from items
        return

    def read() -> list[_Item]:
        with np.errstate(all="ignore"):
            return list(itertools.islice(items, 1))

    future = _limit.pool.submit(read)
    try:
        while item := future.result():
            future = _limit.pool.submit(read)
            yield item[0]
    finally:
        if not future.cancel():
            future.exception()  # wait: what reads must not outlive the pass


class _Task(Generic[_Item, _Result]):
    """A call that a thread of the pool makes, or the thread that waits for it."""

    def __init__(self, pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], item: _Item) -> None:
        self.future = pool.submit(function, item)
        self._function, self._item = function, item

    def compute_here(self) -> bool:
        """Make the call in this thread if no other has begun it; return whether it did."""
        if not self.future.cancel():
            return False
        self.future = Future()
        try:
            self.future.set_result(self._function(self._item))
        except Exception as error:
            self.future.set_exception(error)
        return True


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Use one BLAS thread in the context; restore the settings of the process when the last overlapping fit leaves."""
    limit = _limit  # a fork replaces it
    thread_settings = limit.enter()
    try:
        yield
    finally:
        limit.leave(thread_settings)


def _before_fork() -> None:
    _limit.lock.acquire()


def _after_fork_in_parent() -> None:
    _limit.lock.release()


def _after_fork_in_child() -> None:
    global _limit
    old, _limit = _limit, _Limit()
    old.end_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
