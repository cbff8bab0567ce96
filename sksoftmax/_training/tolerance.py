"""Choose the tolerance of a fit from the rounding of X's dtype, and the coordinates in which float32 loses least.

`plan` calls the tolerances, `fit` calls `center_or_widen`.
"""

from __future__ import annotations

import numpy as np

from sksoftmax._engines.device import DeviceArray
from sksoftmax._maths.objective import center_columns
from sksoftmax._solvers._line_search import ROUNDING_EPS
from sksoftmax._training.newton_stage import SMALL_TABLE, choose_curvature, data_bytes
from sksoftmax._training.settings import MIN_BATCH, Settings
from sksoftmax._types import Array, Problem


def is_small(problem: Problem) -> bool:
    """Return whether a Newton step costs next to nothing.

    The rows are at most 256, and the Hessian of all rows is factorized.
    """
    return problem.n_samples <= MIN_BATCH and choose_curvature(problem).is_exact


def stop_tol(problem: Problem, settings: Settings) -> float:
    """Return the relative excess at which the solvers stop: ``tol``, but at least the rounding of F.

    For ``solver="auto"`` and small float64 problems it is the limit of rounding, eps^1.5. This costs little, because
    the Hessian is factorized, and the result then depends neither on the seed nor on the order of the rows.
    (The coefficients have half the digits of the excess.)
    """
    eps = float(np.finfo(problem.data.X.dtype).eps)
    if settings.solver == "auto" and is_small(problem) and problem.data.X.dtype == np.float64:
        return float(eps**1.5)
    return final_tol(problem, settings)


def final_tol(problem: Problem, settings: Settings) -> float:
    """Return the relative excess that the result has to reach: ``tol``, but at least the rounding of F."""
    return max(settings.tol, float(np.finfo(problem.data.X.dtype).eps))


def center_or_widen(problem: Problem, settings: Settings, *, max_bytes: int = 0) -> tuple[Problem, Array | None]:
    """Return an equivalent problem that loses less to float32, and the offset subtracted from its columns or None.

    - For ``solver="auto"``, a small float32 problem is converted to float64. The fit takes as long, because its calls
      cost more than its operations. So is any problem whose X takes at most ``max_bytes`` in float64; or 64 MiB if
      ``tol`` is less than the rounding error of F in float32.
    - Other float32 problems are centered, see `center_columns`.
    """
    data = problem.data
    is_single = data.X.dtype == np.float32 and not isinstance(data.X, DeviceArray) and problem.data_source is None
    if settings.tol < ROUNDING_EPS * float(np.finfo(np.float32).eps):
        max_bytes = max(max_bytes, SMALL_TABLE)
    if is_single and settings.solver == "auto" and (is_small(problem) or 2 * data_bytes(data.X) <= max_bytes):
        return problem._replace(data=data._replace(X=data.X.astype(np.float64))), None
    return center_columns(problem)
