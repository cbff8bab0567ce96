"""Newton's direction by conjugate gradients (CG), and estimates of the suboptimality F - F*.

Called by the Newton solvers, the certificate of the dual solver, `saturation` and the training loop.

Near the minimum ``F - F* = 1/2 g' H^-1 g``, half the squared Newton decrement: Boyd & Vandenberghe (2004),
Convex Optimization, 9.5.1. CG approaches it from below. The part that CG has not found is estimated or bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from sksoftmax._maths.preconditioner import Preconditioner
from sksoftmax._types import Params, add_scaled, dot, scale_params, zeros_like

#: Largest ratio of the geometric series that estimates F - F*.
_MAX_RATIO = 0.9

#: Largest relative difference between actual and predicted reduction at which the prediction counts as right.
_REDUCTION_RTOL = 0.2

#: How much the largest remainder shrinks with the number of products, if these are few.
_FEW_PRODUCTS_POWER = 4

#: CG accuracy of a preconditioner that is itself a CG solve. High, because the preconditioner has to be nearly linear.
_INNER_CG_RTOL = 1e-2

#: Largest number of Hessian products of a sample for one application of such a preconditioner.
MAX_INNER_PRODUCTS = 50

#: Value of F below which float64 keeps no digits of it.
_ZERO_OBJECTIVE = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)

#: Largest factor on the estimate of F - F* after a step that achieved less than its predicted reduction.
_MAX_SAFETY = 4.0


class NewtonStep(NamedTuple):
    """Newton direction, its predicted decrease, and what CG left unsolved.

    Attributes
    ----------
    direction : Params
        Approximately ``-H^-1 g``; always a descent direction.
    decrease : float
        Decrease of F that the quadratic model predicts: ``1/2 g' H^-1 g``, approached from below.
    cg_remainder : float
        How much more the model could decrease with further CG iterations. Nash and Sofer's estimate by default; an
        upper bound if a lower bound on the eigenvalues is given. At most the requested accuracy unless `max_products`
        was reached. inf if CG broke down or an eigenvalue violated the bound.
    n_products : int
        Number of Hessian products.
    """

    direction: Params
    decrease: float
    cg_remainder: float
    n_products: int


class Pair(NamedTuple):
    """L-BFGS pair: a step, and the change of the gradient of F along it."""

    step: Params
    change: Params


def conjugate_gradients(
    hessian: Callable[[Params], Params],
    grads: Params,
    preconditioner: Preconditioner,
    accuracy: float,
    max_products: int,
    *,
    min_eigenvalue: float = 0.0,
    max_remainder: float = 0.0,
    remainder_cap: float = np.inf,
    max_decrease: float = np.inf,
    min_products: int = 0,
) -> NewtonStep:
    """Solve ``H d = -g`` by preconditioned conjugate gradients.

    1. Compute the product of H with the search direction. Return if the curvature along it is not positive.
    2. Take the step that minimises the model along the search direction. Return, with a remainder of inf, if the
       decrease so far is above ``max_decrease``.
    3. If ``min_eigenvalue`` is 0, estimate the remainder from the decrease of this iteration. Return if it is small.
    4. Apply the preconditioner to the residual. Return if the result shows that it is not positive definite.
    5. If ``min_eigenvalue`` is positive, bound the remainder. Return if it is small.
    6. Update the search direction.

    The remainder is small if it is at most ``accuracy`` times the decrease so far and at most ``remainder_cap``, or at
    most ``max_remainder``, in units of F.

    The estimate assumes that as many further iterations as so far would each decrease the model as much as the last:
    Nash & Sofer (1990), Oper. Res. Lett. 9(4), 219-221. The bound needs ``min_eigenvalue``, a lower bound > 0 on the
    eigenvalues of the preconditioned H; 0 if none is known. It is that of Gauss-Radau quadrature: Meurant & Tichy
    (2013), Numer. Algorithms 62(2), 163-191.

    With ``min_products`` the estimate is the geometric mean of that estimate and of ``1/2 r' M^-1 r / theta``, if that
    is larger: r is the residual, M^-1 the preconditioner and theta the least Ritz value, which approaches the least
    eigenvalue from above: Meurant & Tichy (2019), Numer. Algorithms 82(3), 937-968. Where CG decreases the model slowly
    but for long, the estimate by the last decrease is far too small, until the products are many; the other one is then
    too large. After k products, fewer than ``min_products``, the remainder is small only if it is
    ``(k / min_products)^4`` times as small.
    """
    direction = zeros_like(grads)
    residual = grads
    search = scale_params(-1.0, preconditioner.apply(residual))
    slope = -dot(residual, search)
    decrease = gain = cg_remainder = 0.0
    lengths: list[float] = []
    ratios: list[float] = []
    # the step length that is exact along an eigenvector of eigenvalue ``min_eigenvalue``
    radau_length = 1 / min_eigenvalue if min_eigenvalue else np.inf
    for k in range(1, max_products + 1):
        # 1.
        product = hessian(search)
        curvature = dot(search, product)
        if not curvature > 0 or not 0 <= slope < np.inf:  # flat to rounding, or the residual is 0
            return NewtonStep(direction, decrease, 0.0 if slope == 0 else np.inf, k)
        # 2.
        length = slope / curvature
        direction = add_scaled(direction, length, search)
        residual = add_scaled(residual, length, product)
        gain = 0.5 * length * slope
        decrease += gain
        if decrease > max_decrease:
            return NewtonStep(direction, decrease, np.inf, k)
        # 3.
        cg_remainder, tolerance = k * gain, max(min(accuracy * decrease, remainder_cap), max_remainder)
        tolerance *= min(1.0, (k / max(min_products, 1)) ** _FEW_PRODUCTS_POWER)
        lengths.append(length)
        if not min_eigenvalue and not min_products and cg_remainder <= tolerance:  # before 4., which may be expensive
            return NewtonStep(direction, decrease, cg_remainder, k)
        # 4.
        preconditioned = preconditioner.apply(residual)
        new_slope = dot(residual, preconditioned)
        if new_slope < 0:  # not positive definite, to rounding
            return NewtonStep(direction, decrease, np.inf, k)
        # 5.
        if min_eigenvalue:
            difference = radau_length - length
            radau_length = 1 / (min_eigenvalue + new_slope / slope / difference) if 0 < difference < np.inf else np.inf
            cg_remainder = 0.5 * radau_length * new_slope
            if cg_remainder <= tolerance:
                return NewtonStep(direction, decrease, cg_remainder, k)
        elif min_products and k < max_products and cg_remainder <= tolerance:
            by_ritz_value = 0.5 * new_slope / _least_ritz_value(lengths, ratios)
            cg_remainder = max(cg_remainder, float(np.sqrt(cg_remainder * by_ritz_value)))
            if cg_remainder <= tolerance:
                return NewtonStep(direction, decrease, cg_remainder, k)
        ratios.append(new_slope / slope)
        # 6.
        search = add_scaled(scale_params(-1.0, preconditioned), new_slope / slope, search)
        slope = new_slope
    return NewtonStep(direction, decrease, cg_remainder, max_products)


def _least_ritz_value(lengths: Sequence[float], ratios: Sequence[float]) -> float:
    """Return the least eigenvalue of the tridiagonal matrix of CG's step lengths and ratios of squared residuals."""
    alpha, beta = np.array(lengths), np.array(ratios)
    diagonal = 1 / alpha
    diagonal[1:] += beta / alpha[:-1]
    off_diagonal = np.sqrt(beta) / alpha[:-1]
    if len(alpha) == 1:
        return float(diagonal[0])
    values = scipy.linalg.eigvalsh_tridiagonal(diagonal, off_diagonal, select="i", select_range=(0, 0))
    return max(float(values[0]), float(np.finfo(float).tiny))


class SampledHessianPreconditioner(NamedTuple):
    """Inverse Hessian of a sample of rows, applied by CG; it preconditions CG with the Hessian of all rows.

    Zhang & Lin (2015), DiSCO: Distributed optimization for self-concordant empirical loss, ICML.
    """

    hessian: Callable[[Params], Params]
    preconditioner: Preconditioner

    def apply(self, grads: Params) -> Params:
        """Return the approximate product of the inverse Hessian and ``grads``."""
        newton = conjugate_gradients(self.hessian, grads, self.preconditioner, _INNER_CG_RTOL, MAX_INNER_PRODUCTS)
        return scale_params(-1.0, newton.direction)


def lbfgs_correct(pairs: Sequence[Pair], grads: Params, solve: Callable[[Params], NewtonStep]) -> NewtonStep:
    """Correct the direction of ``solve``, an approximate inverse Hessian, so that it is exact along the pairs.

    The L-BFGS two-loop recursion: Nocedal & Wright (2006), Numerical Optimization, algorithm 7.4, with ``solve``
    in place of the initial matrix.
    """
    if not pairs:
        return solve(grads)
    gradient, coefficients = grads, []
    for step, change in reversed(pairs):
        rho = 1.0 / dot(step, change)
        alpha = rho * dot(step, gradient)
        gradient = add_scaled(gradient, -alpha, change)
        coefficients.append((alpha, rho))
    newton = solve(gradient)
    direction = newton.direction
    for (step, change), (alpha, rho) in zip(pairs, reversed(coefficients), strict=True):
        direction = add_scaled(direction, -alpha - rho * dot(change, direction), step)
    return newton._replace(direction=direction, decrease=-0.5 * dot(direction, grads))


class StepHistory(NamedTuple):
    """Predicted and actual reduction of the last step.

    Attributes
    ----------
    predicted_reduction : float
        Decrease of F that the quadratic model predicted.
    actual_reduction : float
        Decrease of F that the step achieved.
    ratio : float
        Ratio of ``predicted_reduction`` to the predicted reduction before it.
    same_sample : bool
        Whether the next prediction uses the same sample of rows.
    """

    predicted_reduction: float
    actual_reduction: float
    ratio: float
    same_sample: bool


def estimate_suboptimality(
    last: StepHistory, decrease: float, cg_remainder: float, noise: float
) -> tuple[float, float]:
    """Estimate F - F* from the predicted decrease of the next step.

    If H were the Hessian and F quadratic, F - F* would be ``decrease + cg_remainder``. With the Hessian of a sample,
    or where F falls like an exponential, F - F* shrinks by some ratio from step to step instead. It is then estimated
    by the sum of a geometric series:

    - Its first term is ``decrease + cg_remainder``, or the last actual reduction times the ratio if that is larger.
    - Its ratio is ``decrease`` over the last predicted reduction, if the last step achieved about its prediction.
      Otherwise it is the larger of this ratio and the previous one.
    - If the last step achieved less than predicted and the sample is the same, the estimate is multiplied by predicted
      over actual reduction, at most `_MAX_SAFETY`.

    Parameters
    ----------
    last : StepHistory
    decrease : float
        Decrease of F that the model predicts for the next step.
    cg_remainder : float
        See `NewtonStep`.
    noise : float
        Rounding error of F. An estimate at or below it is returned as it is.

    Returns
    -------
    suboptimality : float
        Estimate of F - F*.
    ratio : float
        Ratio of ``decrease`` to the last predicted reduction, at most `_MAX_RATIO`.
    """
    predicted_reduction, actual_reduction = last.predicted_reduction, last.actual_reduction
    ratio = min(decrease / predicted_reduction, _MAX_RATIO) if predicted_reduction > 0 else 0.0
    suboptimality = decrease + cg_remainder
    if suboptimality > noise:
        series_ratio = (
            ratio
            if abs(actual_reduction - predicted_reduction) <= _REDUCTION_RTOL * predicted_reduction
            else max(ratio, last.ratio)
        )
        suboptimality = max(suboptimality, series_ratio * actual_reduction) / (1 - series_ratio)
        if last.same_sample and actual_reduction < predicted_reduction:
            suboptimality *= (
                min(predicted_reduction / actual_reduction, _MAX_SAFETY) if actual_reduction > 0 else _MAX_SAFETY
            )
    return suboptimality, ratio


def relative_excess(value: float, decrease: float) -> float:
    """Return ``(F - F*) / F*``, given F as ``value`` and an estimate ``decrease`` of F - F*.

    Returns inf if ``decrease`` is at least F, and 0 if ``decrease`` is not positive or F is 0 to rounding.
    """
    if decrease <= 0 or value <= _ZERO_OBJECTIVE:
        return 0.0
    return decrease / (value - decrease) if decrease < value else float("inf")


def absolute_suboptimality(value: float, excess: float) -> float:
    """Return the F - F* whose ``relative_excess`` is ``excess``."""
    return excess * value / (1 + excess)
