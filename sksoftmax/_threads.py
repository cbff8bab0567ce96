"""BLAS threads: one while a fit runs, and the process's own settings back after it.

The products of a minibatch are too small to share: with the default threads and another process at work they
take up to twenty times longer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> Any:
    return ThreadpoolController()


class _SharedLimit:
    """The limit is the process's, fits may overlap in threads: the first sets it, the last gives it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._limiter: Any = None

    def enter(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._n_inside += 1

    def leave(self) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._limiter.restore_original_limits()
                self._limiter = None


_shared = _SharedLimit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it BLAS uses one thread; after it, also after an error, what it used before."""
    _shared.enter()
    try:
        yield
    finally:
        _shared.leave()
