"""The sample of rows whose Hessian stands for the Hessian of all rows: when it is drawn, and when it is too small.

Called by the solvers `newton` and `proximal_newton`.
"""

from __future__ import annotations

from collections.abc import Callable

from sksoftmax._maths.newton_direction import SampledHessianPreconditioner
from sksoftmax._maths.objective import hessian_products
from sksoftmax._maths.preconditioner import GramPreconditioner, Preconditioner
from sksoftmax._maths.row_sampling import curvature_ratio, draw_rows, leverage
from sksoftmax._types import Array, Batch, Evaluation, Moments, Params, Problem

#: Fraction of its predicted reduction below which a step was poor, and the sample is checked.
_POOR_REDUCTION = 0.5

#: The sample is too small if it has less than this fraction of the curvature along a poor step.
_MIN_CURVATURE_RATIO = 0.5

#: The same if the sample may exceed memory. Lower, because each Hessian product then reads all of the data.
_MIN_CURVATURE_RATIO_OUT_OF_CORE = 0.1

#: A new sample is drawn once F is below this fraction of its value at the last draw: other rows hold the curvature.
_REDRAW_BELOW = 0.8


def is_subsampled(problem: Problem, rows: Batch | None) -> bool:
    """Return whether the sample is smaller than the data; None stands for all rows."""
    return rows is not None and len(rows.y) < problem.n_total_samples


def is_outdated(problem: Problem, rows: Batch | None, value: float, value_drawn: float) -> bool:
    """Return whether the sample, drawn where F was ``value_drawn``, no longer fits where F is ``value``.

    The sample of all rows always fits.
    """
    return is_subsampled(problem, rows) and not value >= _REDRAW_BELOW * value_drawn


def draw_sample(
    problem: Problem, params: Params, moments: Moments, rows_leverage: Array | None, n_drawn: int
) -> tuple[Batch, Array | None]:
    """Draw a sample for the curvature at ``params``.

    Returns the sample and the leverage of all rows in memory, which is computed if it is None and needed.
    """
    if rows_leverage is None and n_drawn < problem.n_samples:
        rows_leverage = leverage(problem, moments)
    return draw_rows(problem, params, rows_leverage, n_drawn), rows_leverage


def misses_curvature(
    problem: Problem,
    rows: Batch | None,
    start: tuple[Params, Evaluation],
    end: tuple[Params, Evaluation],
    predicted_reduction: float,
    *,
    may_exceed_memory: bool,
) -> bool:
    """Return whether a step was poor because the sample has much less curvature along it than all rows.

    If a poor step has another reason, it is the curvature of F that changes along the step, and a larger sample would
    not help.

    Parameters
    ----------
    rows : Batch or None
        The sample; None for all rows.
    start, end : tuple of (Params, Evaluation)
        Ends of the step, and F and its gradient there.
    predicted_reduction : float
        Decrease of F that the model predicted for the step.
    may_exceed_memory : bool
        Whether a larger sample than memory holds is possible. Otherwise nothing is missed if the sample is all rows in
        memory.
    """
    actual_reduction = start[1].value - end[1].value
    if rows is None or not actual_reduction < _POOR_REDUCTION * predicted_reduction:
        return False
    if len(rows.y) >= (problem.n_total_samples if may_exceed_memory else problem.n_samples):
        return False
    is_out_of_core = may_exceed_memory and problem.data_source is not None
    min_ratio = _MIN_CURVATURE_RATIO_OUT_OF_CORE if is_out_of_core else _MIN_CURVATURE_RATIO
    return curvature_ratio(problem, rows, start, end) < min_ratio


def sample_preconditioner(
    problem: Problem,
    params: Params,
    base: GramPreconditioner,
    factorize: Callable[[Problem, Params, Batch, GramPreconditioner], Preconditioner] | None,
) -> Preconditioner:
    """Return the inverse Hessian of the rows in memory, as a preconditioner: a factor, or CG preconditioned by
    ``base``.

    ``factorize`` makes the factor; None for CG.
    """
    rows = draw_rows(problem, params, None, problem.n_samples)
    if factorize is not None:
        return factorize(problem, params, rows, base)
    return SampledHessianPreconditioner(hessian_products(problem, params, rows), base)
