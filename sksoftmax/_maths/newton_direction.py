"""Newton's direction, and the excess of F that it certifies.

Near the minimum ``F - F* = 1/2 g' H^-1 g``, half the squared Newton decrement: Boyd & Vandenberghe (2004),
Convex Optimization, 9.5.1. Conjugate gradients approach it from below; what they would still add is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sksoftmax._maths.preconditioner import Preconditioner
from sksoftmax._types import Params, add_scaled, dot, scale_params, zeros_like

#: The excess is that of a geometric series of expected decreases, of at most this ratio.
_GREATEST_RATIO = 0.9

#: What a step brought agrees with what it had promised, relative.
_AGREEMENT = 0.2

#: Accuracy of a metric that is itself solved for, which has to be nearly linear, and its products.
_SOLVED, _MAX_SOLVING = 1e-2, 50

#: F below which float64 keeps no digits of it.
_NOTHING = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)

#: How much more than promised may be left after a step that brought less than promised.
_GREATEST_DOUBT = 4.0


class NewtonStep(NamedTuple):
    """A Newton direction and what it tells.

    Attributes
    ----------
    direction : Params
        Approximately ``-H^-1 g``, in any case a direction of descent.
    decrease : float
        Decrease of F that the quadratic model expects, ``1/2 g' H^-1 g`` from below.
    cg_remainder : float
        What more iterations would add to it, should they bring as much as the last for as long as it took, Nash &
        Sofer's estimate; or at most, where the least eigenvalue is known. Small as asked for unless the products ran
        out; inf if conjugate gradients broke down, or an eigenvalue was less.
    n_products : int
        Hessian products.
    """

    direction: Params
    decrease: float
    cg_remainder: float
    n_products: int


class Pair(NamedTuple):
    """A step and the change of the gradient along it: what F's own curvature is there."""

    step: Params
    change: Params


def conjugate_gradients(
    hessian: Callable[[Params], Params],
    grads: Params,
    preconditioner: Preconditioner,
    accuracy: float,
    max_products: int,
    *,
    least: float = 0.0,
    most: float = 0.0,
) -> NewtonStep:
    """Solve ``H d = -g`` by preconditioned conjugate gradients.

    Ends when the decrease that the model expects would grow by less than ``accuracy`` of itself, or by less than
    ``most``, should every iteration so far have brought as much as the last: Nash & Sofer (1990), Oper. Res. Lett.
    9(4), 219-221. Where the eigenvalues of H by the metric are known to be at least ``least``, what it would grow by
    is bounded instead, by Gauss-Radau quadrature: Meurant & Tichy (2013), Numer. Algorithms 62(2), 163-191.
    """
    direction = zeros_like(grads)
    residual = grads
    search = scale_params(-1.0, preconditioner.apply(residual))
    slope = -dot(residual, search)
    decrease = gain = cg_remainder = 0.0
    longest = 1 / least if least else np.inf  # the step that would bring all that is left, were it along ``least``
    for k in range(1, max_products + 1):
        product = hessian(search)
        curvature = dot(search, product)
        if not curvature > 0 or not 0 <= slope < np.inf:  # flat to rounding, or nothing left to solve
            return NewtonStep(direction, decrease, 0.0 if slope == 0 else np.inf, k)
        length = slope / curvature
        direction = add_scaled(direction, length, search)
        residual = add_scaled(residual, length, product)
        gain = 0.5 * length * slope
        decrease += gain
        cg_remainder, enough = k * gain, max(accuracy * decrease, most)
        if not least and cg_remainder <= enough:  # before the metric is applied once more, which may be dear
            return NewtonStep(direction, decrease, cg_remainder, k)
        whitened = preconditioner.apply(residual)
        new_slope = dot(residual, whitened)
        if new_slope < 0:  # to rounding the metric is none
            return NewtonStep(direction, decrease, np.inf, k)
        if least:
            beyond = longest - length
            longest = 1 / (least + new_slope / slope / beyond) if 0 < beyond < np.inf else np.inf
            cg_remainder = 0.5 * longest * new_slope
            if cg_remainder <= enough:
                return NewtonStep(direction, decrease, cg_remainder, k)
        search = add_scaled(scale_params(-1.0, whitened), new_slope / slope, search)
        slope = new_slope
    return NewtonStep(direction, decrease, cg_remainder, max_products)


class SampledHessianPreconditioner(NamedTuple):
    """The inverse Hessian of some rows, by conjugate gradients: what those of all rows are preconditioned by.

    Zhang & Lin (2015), DiSCO: Distributed optimization for self-concordant empirical loss, ICML.
    """

    hessian: Callable[[Params], Params]
    preconditioner: Preconditioner

    def apply(self, grads: Params) -> Params:
        solved = conjugate_gradients(self.hessian, grads, self.preconditioner, _SOLVED, _MAX_SOLVING)
        return scale_params(-1.0, solved.direction)


def lbfgs_correct(pairs: Sequence[Pair], grads: Params, solve: Callable[[Params], NewtonStep]) -> NewtonStep:
    """The direction of ``solve``, an approximate inverse Hessian, corrected so that it is exact along the pairs.

    The L-BFGS two-loop recursion: Nocedal & Wright (2006), Numerical Optimization, algorithm 7.4, with ``solve``
    for the initial matrix.
    """
    if not pairs:
        return solve(grads)
    rest, shares = grads, []
    for step, change in reversed(pairs):
        inverse = 1.0 / dot(step, change)
        share = inverse * dot(step, rest)
        rest = add_scaled(rest, -share, change)
        shares.append((share, inverse))
    newton = solve(rest)
    direction = newton.direction
    for (step, change), (share, inverse) in zip(pairs, reversed(shares), strict=True):
        direction = add_scaled(direction, -share - inverse * dot(change, direction), step)
    return newton._replace(direction=direction, decrease=-0.5 * dot(direction, grads))


class StepHistory(NamedTuple):
    """What the step before tells of the next.

    Attributes
    ----------
    predicted_reduction, actual_reduction : float
        Decrease of F that its model expected, and that there was.
    ratio : float
        Of ``predicted_reduction`` to what was promised before it.
    same_sample : bool
        Whether the next promise is made by the same rows.
    """

    predicted_reduction: float
    actual_reduction: float
    ratio: float
    same_sample: bool


def estimate_suboptimality(
    last: StepHistory, decrease: float, cg_remainder: float, noise: float
) -> tuple[float, float]:
    """Estimate of F - F* where a model expects ``decrease``, and what it has not looked for; and the new ratio.

    Were H the Hessian, and F quadratic, F would fall by what the model expects. Where part of the rows stands for
    all, or F falls like an exponential, it falls from step to step by some ratio instead: what is left is the sum
    of a geometric series, of what the next step is to bring or of what the last has brought, whichever is more.
    Where the last step brought what it had promised the ratio is the last one, and otherwise the greater of the
    last two; where it brought less, the next promise of the same rows is as doubtful.
    """
    predicted_reduction, actual_reduction = last.predicted_reduction, last.actual_reduction
    ratio = min(decrease / predicted_reduction, _GREATEST_RATIO) if predicted_reduction > 0 else 0.0
    left = decrease + cg_remainder
    if left > noise:
        slowest = (
            ratio
            if abs(actual_reduction - predicted_reduction) <= _AGREEMENT * predicted_reduction
            else max(ratio, last.ratio)
        )
        left = max(left, slowest * actual_reduction) / (1 - slowest)
        if last.same_sample and actual_reduction < predicted_reduction:
            left *= (
                min(predicted_reduction / actual_reduction, _GREATEST_DOUBT)
                if actual_reduction > 0
                else _GREATEST_DOUBT
            )
    return left, ratio


def relative_excess(value: float, decrease: float) -> float:
    """``(F - F*) / F*`` for an estimate ``decrease`` of F - F*; inf if that is F itself or more, 0 where F is 0."""
    if decrease <= 0 or value <= _NOTHING:
        return 0.0
    return decrease / (value - decrease) if decrease < value else float("inf")


def absolute_suboptimality(value: float, excess: float) -> float:
    """The decrease whose ``relative_excess`` is ``excess``."""
    return excess * value / (1 + excess)
