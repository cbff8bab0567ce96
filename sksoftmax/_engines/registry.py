"""The engines by name, and whether the compiled one can be had.

The validation of parameters and the plan ask it, so that neither of them imports a solver.
"""

from __future__ import annotations

from sksoftmax._engines import array_api, naive, vectorized
from sksoftmax._types import Kernel

#: The engines of sums over rows; "compiled" is the vectorized one but for the solver that visits single rows.
KERNELS: dict[str, Kernel] = {"vectorized": vectorized, "naive": naive}


def get_kernel(engine: str) -> Kernel:
    """The engine of this name, as `choose_engine` has it."""
    return array_api if engine == "array_api" else KERNELS[engine]


def has_compiled() -> bool:
    """Return whether the compiled engine can be had: numba is installed, and works with this NumPy. Imports it."""
    try:
        from sksoftmax._engines import compiled  # noqa: F401
    except ImportError:
        return False
    return True
