"""Limit of one BLAS thread while a fit runs; the settings of the process are restored afterwards.

The estimators fit inside ``one_blas_thread``. The products of a minibatch are too small for several threads: with the
default threads and another busy process, they take up to twenty times longer. threadpoolctl is a requirement of
scikit-learn, so it is always installed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


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


class _Limit:
    """Limit of one BLAS thread for the process, and the number of fits that run under it.

    The first fit to enter sets the limit, and the last fit to leave restores the settings. So a fit has one thread from
    its beginning to its end, whatever other fits overlap with it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_inside = 0
        self._before: list[tuple[Any, int]] = []

    def enter(self) -> list[tuple[Any, int]]:
        """Set the limit, and return the previous settings that hold in this thread only."""
        libraries = [library for library in _controller().lib_controllers if library.user_api == "blas"]
        with self.lock:
            settings = [(library, library.num_threads) for library in libraries]
            if self.n_inside == 0:
                self._before = settings
            self.n_inside += 1
            for library in libraries:
                _set_num_threads(library, 1)
        return [(library, n_threads) for library, n_threads in settings if _is_per_thread(library)]

    def leave(self, thread_settings: list[tuple[Any, int]]) -> None:
        """Restore the settings of this thread, and those of the process if no other fit runs."""
        with self.lock:
            for library, n_threads in thread_settings:
                _set_num_threads(library, n_threads)
            self.n_inside -= 1
            if self.n_inside == 0:
                for library, n_threads in self._before:
                    if not _is_per_thread(library):
                        _set_num_threads(library, n_threads)

    def end_in_child(self) -> None:
        """Restore all settings in a forked child, once: no fit of its parent runs in it."""
        if self.n_inside > 0:
            for library, n_threads in self._before:
                _set_num_threads(library, n_threads)
        self.n_inside = 0  # becomes negative if the child leaves a fit that its parent entered
        self.lock.release()


_limit = _Limit()


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
