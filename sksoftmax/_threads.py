"""BLAS threads: one while a fit runs, and the process's own settings back after it.

The products of a minibatch are too small to share: with the default threads and another process at work they
take up to twenty times longer. (threadpoolctl comes with scikit-learn, which requires it.)
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


#: Held by the fit that set the limit.
_limit = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it BLAS uses one thread; after it, also after an error, what it used before.

    The limit is the process's, and fits may overlap in threads: the first sets it and gives it back, and the
    others leave it alone, or the last to end would give back the first one's limit.
    """
    if not _limit.acquire(blocking=False):
        yield
        return
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _limit.release()
