"""Minimise a quadratic plus an L1 term by an interior point method, for a Hessian that is a matrix.

Called by ``proximal`` for the steps of proximal Newton. With H positive semi-definite and t >= 0 the problem is ::

    minimize  P(z) = 1/2 z' H z + c' z + sum_j t_j |z_j|

With z = z+ - z- and v = H z + c its optimality conditions are those of a convex quadratic program::

    z+, z- >= 0,    s+ = t + v >= 0,    s- = t - v >= 0,    z+ s+ = z- s- = 0

They are solved by Mehrotra's predictor and corrector (Nocedal & Wright, 2006, Numerical Optimization, algorithm 16.4):

1. Stop if the duality gap, the sum of ``z+ s+ + z- s-``, is small.
2. Factorise H with ``1 / (z+ / s+ + z- / s-)`` added to its diagonal.
3. Predict: compute the step to ``z+ s+ = z- s- = 0``, and how far all four variables stay positive along it.
4. Correct: take the step to ``z+ s+ = z- s- = sigma mu``. mu is the mean of these products, and sigma the cube of the
   fraction of mu that the prediction leaves.

The number of iterations, usually 5 to 15, hardly depends on the condition of H or on how many z are 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from sksoftmax._types import Array

#: Largest number of iterations. After so many, rounding keeps the gap from closing.
_MAX_ITERATIONS = 60

#: Largest fraction of the distance to the boundary that a step may take.
_BOUNDARY = 0.995


class Pairs(NamedTuple):
    """Complementary variables: z+ and z- of the penalised z, and s+ and s-.

    ``plus`` is z+ and ``minus`` is z-. Each field is an ndarray of shape (n_penalised,); all are positive. Also
    holds the changes of the variables, of any sign.
    """

    plus: Array
    minus: Array
    s_plus: Array
    s_minus: Array

    @property
    def gap(self) -> float:
        """Duality gap."""
        return float(self.plus @ self.s_plus + self.minus @ self.s_minus)

    def after_step(self, length: float, step: Pairs) -> Pairs:
        """Return the variables after ``length`` times ``step``."""
        return Pairs(*(value + length * change for value, change in zip(self, step, strict=True)))

    def max_length(self, step: Pairs) -> float:
        """Return the largest length, at most 1, of the step that takes no variable below 0."""
        values, changes = np.concatenate(self), np.concatenate(step)
        decreases = changes < 0
        return float((values[decreases] / -changes[decreases]).min(initial=1.0))


def interior_point(H: Array, c: Array, t: Array, gap: float) -> tuple[Array, Array, float]:
    """Minimise P up to a duality gap.

    Parameters
    ----------
    H : ndarray of shape (d, d)
        Positive semi-definite and symmetric.
    c, t : ndarray of shape (d,)
        Linear term, and thresholds >= 0.
    gap : float
        Duality gap to stop at, in units of P.

    Returns
    -------
    z : ndarray of shape (d,)
    is_zero : ndarray of bool of shape (d,)
        Whether each z is 0 at the minimum, according to the iterations; False where t is 0.
    gap : float
        Bound on ``P(z)`` minus the minimum of P. Larger than requested if rounding keeps the gap from closing.
    """
    # Scale so that H has a diagonal of 1, and c and t are at most 1. Add the rounding error of its eigenvalues to H.
    unit = np.sqrt(np.where(np.diagonal(H) > 0, np.diagonal(H), 1.0))
    H, c, t = H / unit / unit[:, None], c / unit, t / unit
    np.einsum("ii->i", H)[...] += len(c) * float(np.finfo(float).eps)
    size = float(max(np.abs(c).max(), t.max())) or 1.0
    c, t, gap = c / size, t / size, gap / size / size
    penalized = np.flatnonzero(t > 0)
    ones = np.ones(len(penalized))
    z, pairs = np.zeros(len(c)), Pairs(ones, ones, t[penalized], t[penalized])
    best_z, is_zero, best_gap = z, np.zeros(len(c), dtype=bool), np.inf
    for _ in range(_MAX_ITERATIONS):
        # 1. ``current_gap`` is the duality gap plus a bound for the residual of the optimality conditions
        residual = -(H @ z + c)
        residual[penalized] += (pairs.s_plus - pairs.s_minus) / 2
        reach = np.abs(z) + 1
        reach[penalized] = pairs.plus + pairs.minus
        current_gap = pairs.gap + float(np.abs(residual) @ reach)
        if current_gap < best_gap:
            best_z, best_gap = z, current_gap
            is_zero[penalized] = (pairs.plus <= pairs.s_plus) & (pairs.minus <= pairs.s_minus)
        rounding = float(np.finfo(float).eps) * float(np.abs(c) @ reach)
        is_degenerate = len(penalized) > 0 and not (np.concatenate(pairs).min() > 0 and pairs.gap > 0)
        if is_degenerate or not max(gap, rounding) < current_gap < np.inf:
            break
        # 2.
        ratio = pairs.plus / pairs.s_plus + pairs.minus / pairs.s_minus
        factor = _factor(H, penalized, 1 / ratio)
        # 3.
        products = pairs.plus * pairs.s_plus, pairs.minus * pairs.s_minus
        step = _step(factor, residual, penalized, ratio, pairs, products)[1]
        fraction = pairs.after_step(pairs.max_length(step), step).gap / pairs.gap if len(penalized) else 0.0
        sigma = fraction * fraction * fraction  # ``**`` raises an error on overflow
        # 4.
        target = sigma * pairs.gap / max(1, 2 * len(penalized))
        products = products[0] + step.plus * step.s_plus - target, products[1] + step.minus * step.s_minus - target
        dz, step = _step(factor, residual, penalized, ratio, pairs, products)
        length = pairs.max_length(step)
        length = length if length == 1 else _BOUNDARY * length
        z, pairs = z + length * dz, pairs.after_step(length, step)
        z[penalized] = pairs.plus - pairs.minus  # the sum of the steps keeps no digits of a small difference
    return best_z * size / unit, is_zero, best_gap * size * size


_Factor = tuple[Array, Array]


def _factor(H: Array, penalized: Array, stiffness: Array) -> _Factor:
    """Return the Cholesky factor of H plus ``stiffness``, scaled to a diagonal of 1, and the scale.

    As little as needed is added to the diagonal to make the matrix positive definite.
    """
    matrix = H.copy()
    matrix[penalized, penalized] += stiffness
    unit = 1 / np.sqrt(np.where(np.diagonal(matrix) > 0, np.diagonal(matrix), 1.0))
    matrix *= unit
    matrix *= unit[:, None]
    jitter = float(np.finfo(float).eps)
    while True:
        np.einsum("ii->i", matrix)[...] = 1.0 + jitter
        factor, info = scipy.linalg.lapack.dpotrf(matrix, lower=True, clean=False)
        if info == 0:
            return factor, unit
        jitter *= 10


def _step(
    factor: _Factor, residual: Array, penalized: Array, ratio: Array, pairs: Pairs, decreases: tuple[Array, Array]
) -> tuple[Array, Pairs]:
    """Return the changes of z and of the pairs along the Newton direction of the optimality conditions.

    To first order, they close ``residual`` and subtract ``decreases`` from the products ``z+ s+`` and ``z- s-``.
    """
    plus, minus, s_plus, s_minus = pairs
    b = decreases[1] / s_minus - decreases[0] / s_plus
    rhs = residual.copy()
    rhs[penalized] += b / ratio
    cholesky, unit = factor
    dz = unit * scipy.linalg.lapack.dpotrs(cholesky, unit * rhs, lower=True)[0]
    dv = (b - dz[penalized]) / ratio
    return dz, Pairs(-(decreases[0] + plus * dv) / s_plus, -(decreases[1] - minus * dv) / s_minus, dv, -dv)
