"""A bound of F - F* at the coefficients of the dual solver, and the Newton steps for the case that it is too large.

`_dual_finish` uses them at the end of a fit. The dual variables are a point of the dual of F, which bounds F* from
below. Let gap be the mean Fenchel-Young gap of the rows and alpha_2 the strength of the squared norm. Then, with the
proximal part kappa (W - V) of the gradient, ::

    F - F* <= gap + ||kappa (W - V)||^2 / (2 alpha_2)

if the intercept's part r of the gradient is 0. Otherwise, the dual variables are shifted along d so that it is 0, where
``H (0, d) = (s, r)`` and H is the Hessian of the loss at the dual variables. To second order in d the bound is ::

    (gap^1/2 + (d' r / 2)^1/2)^2 + ||kappa (W - V) - s||^2 / (2 alpha_2)

At any W the same bound holds without gap, because F is alpha_2-strongly convex in coef. The subgradient of F of least
norm then takes the place of kappa (W - V), and H is evaluated at W. The bound is tight in directions in which the
penalty dominates the curvature, in which the dual solver is slow, and loose in others. A fit may therefore also end by
the predicted reduction of a Newton step, plus a bound of what conjugate gradients left unsolved.

All arrays are in the scaled coordinates of the dual solver, flat tables of ``n_features * n_lanes``. With L1 a Newton
step moves only coefficients that are not 0 or whose subgradient is not 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._engines import compiled
from sksoftmax._engines.threads import map_in_order
from sksoftmax._maths.newton_direction import NewtonStep, conjugate_gradients
from sksoftmax._solvers._dual_data import DualData
from sksoftmax._solvers._prox_weights import ProxWeights
from sksoftmax._types import Array, Params, Problem

#: Number of rows in a block of probabilities.
_BLOCK = 4096

#: S, see `DiagonalPreconditioner`: 10 and 100 took the same number of products, 1 a few more.
_INTERCEPT_FACTOR = 10.0

#: Maximum of ``lengthening``, see `DiagonalPreconditioner`, in units of 1 / eps, eps of the dtype of X. Beyond it
#: conjugate gradients only move the intercept back and forth.
_MAX_LENGTHENING = 0.01

#: Relative rounding error of a row's residual, in units of the eps of the dtype of X.
_RESIDUAL_ROUNDING = 0.5


class DiagonalPreconditioner(NamedTuple):
    """The inverse of a diagonal for the coefficients and of the Hessian block of the intercept.

    Let R be the Hessian of the penalty, C the Hessian of the loss, and C_b its block of the intercept. Let beta be an
    upper bound of the eigenvalues of the coefficients' block of C relative to R. The preconditioner is the inverse of
    P: a diagonal of at most ``m * R`` for the coefficients, and ``C_b / (2 S (1 + beta))`` for the intercept. No
    eigenvalue of R + C relative to P is less than ``1 / (m + 1 / S)``, because
    ``b' C_b b <= 2 (w, b)' C (w, b) + 2 beta w' R w``.

    Attributes
    ----------
    inverse : ndarray of shape (n_features * n_lanes,)
        Inverse of the diagonal; 0 for coefficients that must not move.
    step : callable
        Multiplies by the inverse of C_b.
    lengthening : float
        Factor on this step, ``2 S (1 + beta)``.
    """

    inverse: Array
    step: Callable[[Array], Array]
    lengthening: float

    def apply(self, grads: Params) -> Params:
        """Return the preconditioned gradient."""
        return Params(self.inverse * grads.coef, self.lengthening * self.step(grads.intercept))


class Certifier:
    """The gradient of F, its Hessian products, the bound, and Newton steps, in the coordinates of the dual solver.

    The Hessian is that of the loss at the probabilities of ``dual_vars``, plus the squared norm's.

    Parameters
    ----------
    problem : Problem
    prox_weights : ProxWeights
    rows : DualData
    dual_vars : compiled.DualVariables
    """

    def __init__(self, problem: Problem, prox_weights: ProxWeights, rows: DualData, dual_vars: Any) -> None:
        self.problem, self.prox_weights, self.dual_vars = problem, prox_weights, dual_vars
        self.rows = rows.scale_weights(1 / problem.n_samples)
        self.n_lanes = compiled.count_lanes(problem.n_classes)
        self._alpha_2 = problem.alpha * (1 - problem.l1_ratio)
        self.ridge = self._alpha_2 * prox_weights.scale[:-1]
        self._is_active = prox_weights.kappa[:-1] > 0
        self._intercept_cache: tuple[Array, bool] | None = None

    def evaluate(self, model: Any, table: Array) -> tuple[float, float, Params]:
        """Return the mean loss and mean gap at the model, and the gradient of the loss.

        The gradient is added to ``table``, or not computed if ``table`` is empty.
        """
        gradient = self._sums(table)
        loss, gap = self.rows.evaluate(model, self.dual_vars, gradient)
        return loss, gap, self._params(gradient)

    def gradient(self, model: Any) -> tuple[float, Params]:
        """Return the mean loss at the model and the subgradient of F of least norm.

        The Hessian is at the probabilities of this model from now on.
        """
        residual, entropy, _ = self.dual_vars
        self.dual_vars = self.dual_vars._replace(residual=np.zeros_like(residual), entropy=np.zeros_like(entropy))
        self._intercept_cache = None
        if not len(model.l1_thresholds):
            loss, _, grads = self.evaluate(model, self._ridge_product(model.table))
        else:
            l1_thresholds = np.repeat(model.l1_thresholds, self.n_lanes)
            w = model.table - np.clip(model.table, -l1_thresholds, l1_thresholds)
            loss, _, grads = self.evaluate(model, self._ridge_product(w))
            grads.coef[:] += np.where(
                w != 0, np.copysign(l1_thresholds, w), -np.clip(grads.coef, -l1_thresholds, l1_thresholds)
            )
        return loss, grads

    def bound(self, grads: Params, gap: float, max_bound: float) -> float:
        """Return the bound of F - F* for a gradient ``grads`` and a ``gap``.

        Returns the part that needs no Hessian product if that part alone is above ``max_bound``. Returns inf if the
        intercept has no curvature.
        """
        coef_bound, shift_bound = self._strong_convexity_bound(grads.coef), 0.0
        if gap + coef_bound <= max_bound and grads.intercept.any():
            if not self._intercept_has_curvature():
                return np.inf
            shift = Params(np.empty(0, grads.coef.dtype), self._intercept_step(grads.intercept))
            coef_bound = self._strong_convexity_bound(grads.coef - self.product(shift).coef)
            shift_bound = max(0.0, 0.5 * float(shift.intercept @ grads.intercept))
        return float(np.sqrt(max(gap, 0.0)) + np.sqrt(shift_bound)) ** 2 + coef_bound

    def newton(
        self, model: Any, grads: Params, max_remainder: float, max_products: int, *, by_penalty: bool
    ) -> NewtonStep:
        """Compute a Newton step for the gradient ``grads`` of F at ``model`` by conjugate gradients.

        They end if the bound of the decrease that they have not found yet is at most ``max_remainder``, or after
        ``max_products``. ``cg_remainder`` also includes the bound for coefficients that do not move, and `rounding`.

        The preconditioner is the penalty alone if ``by_penalty``; its bound soon is small, except for columns of very
        different scales. Otherwise it is an estimate of the diagonal of the Hessian.
        """
        is_free = np.repeat(self._is_active[:, None], self.n_lanes, axis=1)
        if len(model.l1_thresholds):
            is_zero = np.abs(model.table) <= np.repeat(model.l1_thresholds, self.n_lanes)
            is_free &= ~(is_zero & (grads.coef == 0)).reshape(is_free.shape)
        is_free[:, self.problem.n_outputs :] = False
        diagonal, beta = np.ones((1, 1)) if by_penalty else self._relative_diagonal(), self._relative_curvature_bound()
        eps = float(np.finfo(grads.coef.dtype).eps)
        lengthening = min(2 * _INTERCEPT_FACTOR * (1 + beta), _MAX_LENGTHENING / eps)
        inverse = _inverse((self.ridge[:, None] * diagonal).astype(grads.coef.dtype), is_free)
        preconditioner = DiagonalPreconditioner(inverse.ravel(), self._intercept_step, lengthening)
        least = 1 / (float(diagonal.max()) + 2 * (1 + beta) / lengthening)
        newton = conjugate_gradients(
            self.product, grads, preconditioner, 0.0, max_products, min_eigenvalue=least, max_remainder=max_remainder
        )
        fixed_bound = self._strong_convexity_bound(np.where(is_free.ravel(), 0, grads.coef))
        return newton._replace(cg_remainder=newton.cg_remainder + fixed_bound + self.rounding())

    def rounding(self) -> float:
        """Return the suboptimality that rounding of the gradient may hide.

        It assumes that the rounding errors of all residuals add up. Returns inf if the intercept has no curvature.
        """
        if not self._intercept_has_curvature():
            return np.inf
        n, sums, squares = len(self.rows.weight), 0.0, 0.0
        for span in self._spans():
            largest = np.abs(self.dual_vars.residual.reshape(n, -1)[span]).max(axis=1).astype(np.float64)
            sums += float(self.rows.weight[span] @ largest)
            squares += float(self._relative_norms[span] @ largest**2)
        trace = np.trace(self._intercept_inverse()[0]) if self.problem.fit_intercept else 0.0
        relative_error = _RESIDUAL_ROUNDING * float(np.finfo(self.rows.weight.dtype).eps)
        return 0.5 * relative_error**2 * (squares + trace * sums**2)

    def product(self, direction: Params) -> Params:
        """Return the Hessian times ``direction``; an empty ``coef`` stands for 0."""
        coef, dtype = direction.coef, direction.coef.dtype
        model = compiled.FlatModel(coef, np.empty(0, dtype), direction.intercept.astype(dtype))
        product = self._sums(
            self._ridge_product(coef) if len(coef) else np.zeros(len(self.ridge) * self.n_lanes, dtype)
        )
        self.rows.add_product(self.dual_vars, model, product)
        return self._params(product)

    def _sums(self, table: Array) -> Any:
        """Return `GradientSums` that add to ``table``."""
        return compiled.GradientSums(table, np.zeros(self.n_lanes))

    def _params(self, sums: Any) -> Params:
        """Return the sums as parameters; the intercept is 0 for a problem without one."""
        return Params(sums.table, sums.intercept * self.problem.fit_intercept)

    def _ridge_product(self, coef: Array) -> Array:
        """Return the Hessian of the squared norm times ``coef``."""
        return np.ravel(self.ridge[:, None].astype(coef.dtype) * coef.reshape(-1, self.n_lanes))

    def _strong_convexity_bound(self, coef: Array) -> float:
        """Return ``||coef||^2 / (2 alpha_2)`` in unscaled coordinates, ``coef`` a gradient."""
        return strong_convexity_bound(coef.reshape(-1, self.n_lanes), self.ridge)

    def _intercept_step(self, gradient: Array) -> Array:
        """Return the inverse of the intercept's Hessian block times ``gradient``."""
        n_outputs = self.problem.n_outputs
        step = np.zeros_like(gradient)
        step[:n_outputs] = self._intercept_inverse()[0] @ gradient[:n_outputs]
        return step

    def _intercept_has_curvature(self) -> bool:
        """Return whether the intercept's Hessian block has full rank.

        It does not if, to rounding, the probability of some class is 0 or 1 for all rows. Returns True for a problem
        without intercept.
        """
        return not self.problem.fit_intercept or self._intercept_inverse()[1]

    def _intercept_inverse(self) -> tuple[Array, bool]:
        """Return the inverse of the intercept's Hessian block, (n_outputs, n_outputs), and whether it has full rank."""
        n_outputs = self.problem.n_outputs
        if self._intercept_cache is None:
            hessian = np.zeros((n_outputs, n_outputs))
            work = float(len(self.rows.weight) * n_outputs**2)
            for block_hessian in map_in_order(self._block_hessian, self._spans(), work):
                hessian += block_hessian
            if n_outputs > 1:  # a common shift of all classes has no curvature: add some
                hessian += np.trace(hessian) / n_outputs**2
            inverse = np.linalg.pinv(hessian, hermitian=True)
            self._intercept_cache = inverse, bool(np.linalg.matrix_rank(inverse, hermitian=True) == n_outputs)
        return self._intercept_cache

    @functools.cached_property
    def _relative_norms(self) -> Array:
        """Squared norm of each row relative to the penalty, times its weight, (n_samples,)."""
        return self.rows.curvatures(self._is_active / self._alpha_2, 0.0)[0]

    def _relative_diagonal(self) -> Array:
        """Return the diagonal of the Hessian as a multiple of the penalty, (n_features, n_lanes).

        An estimate: the curvature p (1 - p) of a class is replaced by its mean over the rows.
        """
        curvature = np.zeros(self.n_lanes)
        for span, p in self._iter_probabilities():
            curvature[: self.problem.n_outputs] += self.rows.weight[span] @ (p * (1 - p))
        return 1 + np.outer(self.rows.second_moment * self._is_active / self._alpha_2, curvature)

    def _relative_curvature_bound(self) -> float:
        """Return a bound of the eigenvalues of the Hessian of the loss relative to the penalty.

        It is the largest trace of a class, and twice that for more than one output, because ``diag(p) - pp'`` is at
        most ``2 diag(p (1 - p))``.
        """
        traces = np.zeros(self.problem.n_outputs)
        for span, p in self._iter_probabilities():
            traces += self._relative_norms[span] @ (p * (1 - p))
        return float(traces.max()) * min(self.problem.n_outputs, 2)

    def _block_hessian(self, span: slice) -> Array:
        """Return the intercept's Hessian of a block of rows, (n_outputs, n_outputs)."""
        w, p = self.rows.weight[span].astype(np.float64), self._probabilities(span)
        return np.diag(w @ p) - (p.T * w) @ p

    def _spans(self) -> list[slice]:
        """Return the blocks of rows."""
        return [slice(start, start + _BLOCK) for start in range(0, len(self.rows.weight), _BLOCK)]

    def _probabilities(self, span: slice) -> Array:
        """Return the probabilities of a block of rows, (n_block, n_outputs)."""
        n, y = len(self.rows.weight), self.problem.data.y
        p: Array = self.dual_vars.residual.reshape(n, -1)[span, : self.problem.n_outputs].astype(np.float64)
        if self.problem.n_outputs == 1:
            p[:, 0] += y[span]
        else:
            p[np.arange(len(p)), y[span]] += 1
        return p

    def _iter_probabilities(self) -> Iterator[tuple[slice, Array]]:
        """Iterate over the blocks of rows and their probabilities."""
        for span in self._spans():
            yield span, self._probabilities(span)


def strong_convexity_bound(coef: Array, ridge: Array) -> float:
    """Return ``||coef||^2 / (2 alpha_2)`` in unscaled coordinates, for a table of gradients.

    It bounds F - F* for a gradient without intercept. ``ridge`` is alpha_2 times the scale of the columns,
    (n_features,).
    """
    squares = np.einsum("jk,jk->j", coef, coef)
    return 0.5 * float(_inverse(ridge, ridge > 0) @ squares)


def _inverse(values: Array, where: Array) -> Array:
    """Return ``1 / values``, and 0 except ``where``."""
    return np.divide(1, values, out=np.zeros(where.shape, values.dtype), where=where)
