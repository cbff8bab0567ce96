"""How far F is from its minimum where the dual stands, for certain; and a Newton step where that is not near enough.

What the rows agreed to is a point of F's dual, which bounds F* from below: with gap the mean Fenchel-Young gap of the
rows, kappa (W - V) the centre's part in the coefficients and alpha_2 the strength of the squared norm, ::

    F - F* <= gap + ||kappa (W - V)||^2 / (2 alpha_2)

if the intercept's part (r, say) is 0. It is not: but what the rows agreed to can be shifted along d so that it is, by
``H (0, d) = (s, r)``, H the loss's Hessian at what they agreed to, to second order in d. The bound is then ::

    (gap^1/2 + (d' r / 2)^1/2)^2 + ||kappa (W - V) - s||^2 / (2 alpha_2)

The same without gap, with the least subgradient of F in the place of kappa (W - V) and H at W, holds at any W, as F is
alpha_2-strongly convex in coef. It is nearly equal to F - F* in directions that little but the penalty holds, which are
those in which the dual is slow, and too large in others. So what a Newton step expects to bring may end a fit as well,
with a bound of what conjugate gradients leave of that.

All in the dual's coordinates, flat tables of ``n_features * n_lanes``. With L1 only coefficients move that are not 0 or
would not stay it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._maths.newton_direction import NewtonStep, conjugate_gradients
from sksoftmax._solvers._dual_data import DualData
from sksoftmax._solvers._prox_weights import ProxWeights
from sksoftmax._types import Array, Params, Problem

#: Rows whose probabilities are looked at together.
_BLOCK = 4096

#: S, see ``DiagonalPreconditioner``: 10 and 100 took the same products, 1 a few more. And its lengthening at most, in
#: units of 1 over X's rounding: beyond it conjugate gradients only move the intercept to and fro.
_INTERCEPT, _LONGEST = 10.0, 0.01

#: Rounding of a row's residual, relative, in units of X's: half the distance to the next number.
_QUANTUM = 0.5


class DiagonalPreconditioner(NamedTuple):
    """A diagonal's inverse, 0 for what is not to move, and the intercept's step, lengthened.

    With R the penalty, C the loss's Hessian, C_b its intercept's part, beta at least the greatest eigenvalue of the
    rest of it by R, and a diagonal of at most ``times`` R, no eigenvalue of R + C by that diagonal and
    ``C_b / (2 S (1 + beta))`` is less than ``1 / (times + 1 / S)``: ``b' C_b b <= 2 (w, b)' C (w, b) + 2 beta w' R w``.
    """

    inverse: Array
    step: Callable[[Array], Array]
    lengthening: float

    def apply(self, grads: Params) -> Params:
        return Params(self.inverse * grads.coef, self.lengthening * self.step(grads.intercept))


class Certifier:
    """F's slope and curvature, and the bound, by the dual's kernels.

    Parameters
    ----------
    problem : Problem
    prox_weights : Metric
    rows : Rows
    dual_vars, workspace
        See ``compiled``.
    """

    def __init__(
        self, problem: Problem, prox_weights: ProxWeights, rows: DualData, dual_vars: Any, workspace: Any
    ) -> None:
        self.problem, self.prox_weights, self.dual_vars, self.workspace = problem, prox_weights, dual_vars, workspace
        self.rows = rows.scale_weights(1 / problem.n_samples)
        self.n_lanes = len(workspace.exponent)
        self._alpha_2 = problem.alpha * (1 - problem.l1_ratio)
        self.ridge = self._alpha_2 * prox_weights.scale[:-1]
        self._moves = prox_weights.kappa[:-1] > 0
        self._intercept: tuple[Array, bool] | None = None

    def measured(self, model: Any, table: Array) -> tuple[float, float, Params]:
        """The model's mean loss and gap; and the loss's gradient, added to ``table`` unless that is empty."""
        slope = self._sums(table)
        loss, gap = self.rows.measure(model, self.dual_vars, slope, self.workspace)
        return loss, gap, self._params(slope)

    def slope(self, model: Any) -> tuple[float, Params]:
        """The model's mean loss, and F's least subgradient; H is from now on that of the model's probabilities."""
        residual, entropy, _ = self.dual_vars
        self.dual_vars = self.dual_vars._replace(residual=np.zeros_like(residual), entropy=np.zeros_like(entropy))
        self._intercept = None
        if not len(model.l1_thresholds):
            loss, _, grads = self.measured(model, self._ridged(model.table))
        else:
            l1_thresholds = np.repeat(model.l1_thresholds, self.n_lanes)
            w = model.table - np.clip(model.table, -l1_thresholds, l1_thresholds)
            loss, _, grads = self.measured(model, self._ridged(w))
            grads.coef[:] += np.where(
                w != 0, np.copysign(l1_thresholds, w), -np.clip(grads.coef, -l1_thresholds, l1_thresholds)
            )
        return loss, grads

    def bound(self, slope: Params, gap: float, most: float) -> float:
        """The bound of F - F* by ``slope`` and ``gap``; should its cheap part be more than ``most``, that alone."""
        rest, energy = self._squared(slope.coef), 0.0
        if gap + rest <= most and slope.intercept.any():
            if not self._has_curvature():
                return np.inf
            shift = Params(np.empty(0, slope.coef.dtype), self._intercept_step(slope.intercept))
            rest = self._squared(slope.coef - self.product(shift).coef)
            energy = max(0.0, 0.5 * float(shift.intercept @ slope.intercept))
        return float(np.sqrt(max(gap, 0.0)) + np.sqrt(energy)) ** 2 + rest

    def newton(self, model: Any, grads: Params, most: float, max_products: int, *, by_penalty: bool) -> NewtonStep:
        """A Newton step from ``grads``, F's at ``model``; what it leaves of what it expects is bounded, by ``most``.

        Coefficients that do not move, and rounding, count as left. Conjugate gradients are preconditioned by the
        penalty alone, by which the bound is soon small but for columns of many scales, or by what the Hessian's
        diagonal is if all rows are equally sure of their classes.
        """
        is_free = np.repeat(self._moves[:, None], self.n_lanes, axis=1)
        if len(model.l1_thresholds):
            is_zero = np.abs(model.table) <= np.repeat(model.l1_thresholds, self.n_lanes)
            is_free &= ~(is_zero & (grads.coef == 0)).reshape(is_free.shape)
        is_free[:, self.problem.n_outputs :] = False
        times, beta = np.ones((1, 1)) if by_penalty else self._diagonal_by_penalty(), self._loss_by_penalty()
        eps = float(np.finfo(grads.coef.dtype).eps)
        lengthening = min(2 * _INTERCEPT * (1 + beta), _LONGEST / eps)
        inverse = _inverse((self.ridge[:, None] * times).astype(grads.coef.dtype), is_free)
        preconditioner = DiagonalPreconditioner(inverse.ravel(), self._intercept_step, lengthening)
        least = 1 / (float(times.max()) + 2 * (1 + beta) / lengthening)
        newton = conjugate_gradients(self.product, grads, preconditioner, 0.0, max_products, least=least, most=most)
        held = self._squared(np.where(is_free.ravel(), 0, grads.coef))
        return newton._replace(cg_remainder=newton.cg_remainder + held + self.rounding())

    def rounding(self) -> float:
        """What F may be above its minimum where its slope is 0 but for rounding: if all residuals are off alike."""
        if not self._has_curvature():
            return np.inf
        n, sums, squares = len(self.rows.weight), 0.0, 0.0
        for start in range(0, n, _BLOCK):
            span = slice(start, start + _BLOCK)
            largest = np.abs(self.dual_vars.residual.reshape(n, -1)[span]).max(axis=1).astype(np.float64)
            sums += float(self.rows.weight[span] @ largest)
            squares += float(self._squares_by_penalty[span] @ largest**2)
        of_intercept = np.trace(self._of_intercept()[0]) if self.problem.fit_intercept else 0.0
        off = _QUANTUM * float(np.finfo(self.rows.weight.dtype).eps)
        return 0.5 * off**2 * (squares + of_intercept * sums**2)

    def product(self, direction: Params) -> Params:
        """The Hessian times ``direction``; an empty ``coef`` counts as 0."""
        from sksoftmax._engines import compiled as _compiled

        coef, dtype = direction.coef, direction.coef.dtype
        model = _compiled.FlatModel(coef, np.empty(0, dtype), direction.intercept.astype(dtype))
        product = self._sums(self._ridged(coef) if len(coef) else np.zeros(len(self.ridge) * self.n_lanes, dtype))
        self.rows.add_product(self.dual_vars, model, product, self.workspace)
        return self._params(product)

    def _sums(self, table: Array) -> Any:
        from sksoftmax._engines import compiled as _compiled

        return _compiled.GradientSums(table, np.zeros(self.n_lanes))

    def _params(self, sums: Any) -> Params:
        return Params(sums.table, sums.intercept * self.problem.fit_intercept)

    def _ridged(self, coef: Array) -> Array:
        """The squared norm's part in the Hessian times ``coef``."""
        return np.ravel(self.ridge[:, None].astype(coef.dtype) * coef.reshape(-1, self.n_lanes))

    def _squared(self, coef: Array) -> float:
        """``||coef||^2 / (2 alpha_2)``, unscaled."""
        return squared(coef.reshape(-1, self.n_lanes), self.ridge)

    def _intercept_step(self, slope: Array) -> Array:
        """The intercept's shift that takes ``slope`` away."""
        n_outputs = self.problem.n_outputs
        step = np.zeros_like(slope)
        step[:n_outputs] = self._of_intercept()[0] @ slope[:n_outputs]
        return step

    def _has_curvature(self) -> bool:
        """Whether F's Hessian holds the intercept: not where rounding makes all rows sure of some class."""
        return not self.problem.fit_intercept or self._of_intercept()[1]

    def _of_intercept(self) -> tuple[Array, bool]:
        """The inverse of the intercept's part in the Hessian, (n_outputs, n_outputs), and whether there is one."""
        n_outputs = self.problem.n_outputs
        if self._intercept is None:
            hessian = np.zeros((n_outputs, n_outputs))
            for span, p in self._probabilities():
                w = self.rows.weight[span].astype(np.float64)
                np.einsum("ii->i", hessian)[:] += w @ p
                hessian -= (p.T * w) @ p
            if n_outputs > 1:  # some curvature along a common shift of all classes, which is rounding's
                hessian += np.trace(hessian) / n_outputs**2
            inverse = np.linalg.pinv(hessian, hermitian=True)
            self._intercept = inverse, bool(np.linalg.matrix_rank(inverse, hermitian=True) == n_outputs)
        return self._intercept

    @functools.cached_property
    def _squares_by_penalty(self) -> Array:
        """Each row's squared norm by the penalty, times its weight, (n_samples,)."""
        return self.rows.curvatures(self._moves / self._alpha_2, 0.0)[0]

    def _diagonal_by_penalty(self) -> Array:
        """The Hessian's diagonal as a multiple of the penalty, (n_features, n_lanes).

        About: as if a class's curvature p (1 - p) were the same for all rows.
        """
        curvature = np.zeros(self.n_lanes)
        for span, p in self._probabilities():
            curvature[: self.problem.n_outputs] += self.rows.weight[span] @ (p * (1 - p))
        return 1 + np.outer(self.rows.second_moment * self._moves / self._alpha_2, curvature)

    def _loss_by_penalty(self) -> float:
        """A bound of the eigenvalues of the loss's Hessian by the penalty: the greatest trace over a class.

        Twice that with several: ``diag(p) - pp'`` is at most ``2 diag(p (1 - p))``.
        """
        traces = np.zeros(self.problem.n_outputs)
        for span, p in self._probabilities():
            traces += self._squares_by_penalty[span] @ (p * (1 - p))
        return float(traces.max()) * min(self.problem.n_outputs, 2)

    def _probabilities(self) -> Iterator[tuple[slice, Array]]:
        """Those of some rows at a time, (n, n_outputs)."""
        n, y = len(self.rows.weight), self.problem.data.y
        for start in range(0, n, _BLOCK):
            span = slice(start, start + _BLOCK)
            p = self.dual_vars.residual.reshape(n, -1)[span, : self.problem.n_outputs].astype(np.float64)
            if self.problem.n_outputs == 1:
                p[:, 0] += y[span]
            else:
                p[np.arange(len(p)), y[span]] += 1
            yield span, p


def squared(coef: Array, ridge: Array) -> float:
    """``||coef||^2 / (2 alpha_2)``, unscaled, of a table of slopes; ``ridge`` is alpha_2 times the columns' scale."""
    squares = np.einsum("jk,jk->j", coef, coef)
    return 0.5 * float(_inverse(ridge, ridge > 0) @ squares)


def _inverse(values: Array, where: Array) -> Array:
    return np.divide(1, values, out=np.zeros(where.shape, values.dtype), where=where)
