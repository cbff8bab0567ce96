"""BLAS threads: one while a fit runs, and the process's own settings back after it.

The products of a minibatch are too small to share: with the default threads and another process at work they
take up to twenty times longer. (threadpoolctl comes with scikit-learn, which requires it.)
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
    return ThreadpoolController()


def _is_per_thread(library: Any) -> bool:
    """Return whether a limit holds in the thread that sets it only: OpenMP's do, all others are the process's."""
    return bool(getattr(library, "threading_layer", None) == "openmp")


def _set(library: Any, n_threads: int) -> None:
    """Set the threads of a BLAS, whichever thread has set them before: threadpoolctl ignores all but the first."""
    clear = getattr(library, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
    library.set_num_threads(n_threads)
    if clear is not None:
        clear(force=True)


class _Limit:
    """The process's limit of one BLAS thread, and the number of fits inside it.

    The first fit to enter sets the limit and the last one to leave restores the settings, so that a fit has one thread
    from its beginning to its end, whichever other fits overlap with it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_inside = 0
        self._before: list[tuple[Any, int]] = []

    def enter(self) -> list[tuple[Any, int]]:
        """Set the limit, and return the settings that are this thread's own."""
        libraries = [library for library in _controller().lib_controllers if library.user_api == "blas"]
        with self.lock:
            settings = [(library, library.num_threads) for library in libraries]
            if self.n_inside == 0:
                self._before = settings
            self.n_inside += 1
            for library in libraries:
                _set(library, 1)
        return [(library, n_threads) for library, n_threads in settings if _is_per_thread(library)]

    def leave(self, own: list[tuple[Any, int]]) -> None:
        with self.lock:
            for library, n_threads in own:
                _set(library, n_threads)
            self.n_inside -= 1
            if self.n_inside == 0:
                for library, n_threads in self._before:
                    if not _is_per_thread(library):
                        _set(library, n_threads)

    def end_in_child(self) -> None:
        """Restore all settings of a forked child, which runs none of its parent's fits, and never again."""
        if self.n_inside > 0:
            for library, n_threads in self._before:
                _set(library, n_threads)
        self.n_inside = 0  # a fit that is left in the child makes it negative
        self.lock.release()


_limit = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Use one BLAS thread inside; restore the process's settings when the last of overlapping fits has left."""
    limit = _limit  # a fork replaces it
    own = limit.enter()
    try:
        yield
    finally:
        limit.leave(own)


def _begin_fork() -> None:
    _limit.lock.acquire()


def _end_fork() -> None:
    _limit.lock.release()


def _begin_child() -> None:
    global _limit
    old, _limit = _limit, _Limit()
    old.end_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_begin_fork, after_in_parent=_end_fork, after_in_child=_begin_child)
