"""The engines by name.

The validation of parameters, the estimators, ``verify`` and the plan ask it. None of them has to import a solver for
that.
"""

from __future__ import annotations

from sksoftmax._engines import array_api, compiled, naive, vectorized
from sksoftmax._types import Kernel

#: Engines for sums over rows of NumPy or SciPy arrays that this installation has; "auto" takes the first.
KERNELS: dict[str, Kernel] = {"vectorized": vectorized, "naive": naive}
if compiled.missing is None:
    KERNELS = {"compiled": compiled, **KERNELS}


def get_kernel(engine: str) -> Kernel:
    """Return the engine of this name, as `choose_engine` returns it."""
    return array_api if engine == "array_api" else KERNELS[engine]


def has_compiled() -> bool:
    """Return whether this installation has the compiled engine."""
    return "compiled" in KERNELS
