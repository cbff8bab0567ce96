"""The engines by name, and the check whether the compiled engine is available.

The validation of parameters, the estimators, ``verify`` and the plan call it. None of them has to import a solver for
that.
"""

from __future__ import annotations

from sksoftmax._engines import array_api, naive, vectorized
from sksoftmax._types import Kernel

#: Engines for sums over rows. "compiled" uses the vectorized one, except in the dual solver, which visits single rows.
KERNELS: dict[str, Kernel] = {"vectorized": vectorized, "naive": naive}


def get_kernel(engine: str) -> Kernel:
    """Return the engine of this name, as `choose_engine` returns it."""
    return array_api if engine == "array_api" else KERNELS[engine]


def has_compiled() -> bool:
    """Import the compiled engine and return whether that works: it needs numba, in a version for this NumPy."""
    try:
        from sksoftmax._engines import compiled  # noqa: F401
    except ImportError:
        return False
    return True
