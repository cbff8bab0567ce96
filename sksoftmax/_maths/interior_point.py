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

    ``add_scaled`` is z+ and ``minus`` is z-. Each field is an ndarray of shape (n_penalised,); all are positive. Also
    holds the changes of the variables, of any sign.
    """

    add_scaled: Array
    minus: Array
    s_plus: Array
    s_minus: Array

    @property
    def gap(self) -> float:
        """Duality gap."""
        return float(self.add_scaled @ self.s_plus + self.minus @ self.s_minus)

    def moved(self, length: float, step: Pairs) -> Pairs:
        """Return the variables after ``length`` times ``step``."""
        return Pairs(*(value + length * change for value, change in zip(self, step, strict=True)))

    def longest(self, step: Pairs) -> float:
        """Return the largest length, at most 1, of the step that takes no variable below 0."""
        values, changes = np.concatenate(self), np.concatenate(step)
        falls = changes < 0
        return float((values[falls] / -changes[falls]).min(initial=1.0))


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
    on = np.flatnonzero(t > 0)
    ones = np.ones(len(on))
    z, pairs = np.zeros(len(c)), Pairs(ones, ones, t[on], t[on])
    best, is_zero, least = z, np.zeros(len(c), dtype=bool), np.inf
    for _ in range(_MAX_ITERATIONS):
        # 1. ``left`` is the duality gap plus a bound for the residual of the optimality conditions
        residual = -(H @ z + c)
        residual[on] += (pairs.s_plus - pairs.s_minus) / 2
        reach = np.abs(z) + 1
        reach[on] = pairs.add_scaled + pairs.minus
        left = pairs.gap + float(np.abs(residual) @ reach)
        if left < least:
            best, least = z, left
            is_zero[on] = (pairs.add_scaled <= pairs.s_plus) & (pairs.minus <= pairs.s_minus)
        rounding = float(np.finfo(float).eps) * float(np.abs(c) @ reach)
        is_lost = len(on) > 0 and not (np.concatenate(pairs).min() > 0 and pairs.gap > 0)
        if is_lost or not max(gap, rounding) < left < np.inf:
            break
        # 2.
        ratio = pairs.add_scaled / pairs.s_plus + pairs.minus / pairs.s_minus
        factor = _factor(H, on, 1 / ratio)
        # 3.
        off = pairs.add_scaled * pairs.s_plus, pairs.minus * pairs.s_minus
        step = _step(factor, residual, on, ratio, pairs, off)[1]
        share = pairs.moved(pairs.longest(step), step).gap / pairs.gap if len(on) else 0.0
        sigma = share * share * share  # ``**`` raises an error on overflow
        # 4.
        aim = sigma * pairs.gap / max(1, 2 * len(on))
        off = off[0] + step.add_scaled * step.s_plus - aim, off[1] + step.minus * step.s_minus - aim
        dz, step = _step(factor, residual, on, ratio, pairs, off)
        length = pairs.longest(step)
        length = length if length == 1 else _BOUNDARY * length
        z, pairs = z + length * dz, pairs.moved(length, step)
    return best * size / unit, is_zero, least * size * size


_Factor = tuple[Array, Array]


def _factor(H: Array, on: Array, stiffness: Array) -> _Factor:
    """Return the Cholesky factor of H plus ``stiffness``, scaled to a diagonal of 1, and the scale.

    As little as needed is added to the diagonal to make the matrix positive definite.
    """
    matrix = H.copy()
    matrix[on, on] += stiffness
    unit = 1 / np.sqrt(np.where(np.diagonal(matrix) > 0, np.diagonal(matrix), 1.0))
    matrix *= unit
    matrix *= unit[:, None]
    raised = float(np.finfo(float).eps)
    while True:
        np.einsum("ii->i", matrix)[...] = 1.0 + raised
        factor, info = scipy.linalg.lapack.dpotrf(matrix, lower=True, clean=False)
        if info == 0:
            return factor, unit
        raised *= 10


def _step(
    factor: _Factor, residual: Array, on: Array, ratio: Array, pairs: Pairs, off: tuple[Array, Array]
) -> tuple[Array, Pairs]:
    """Return the changes of z and of the pairs along the Newton direction of the optimality conditions.

    To first order, these changes close ``residual`` and subtract ``off`` from the products ``z+ s+`` and ``z- s-``.
    """
    add_scaled, minus, s_plus, s_minus = pairs
    b = off[1] / s_minus - off[0] / s_plus
    right = residual.copy()
    right[on] += b / ratio
    cholesky, unit = factor
    dz = unit * scipy.linalg.lapack.dpotrs(cholesky, unit * right, lower=True)[0]
    dv = (b - dz[on]) / ratio
    return dz, Pairs(-(off[0] + add_scaled * dv) / s_plus, -(off[1] - minus * dv) / s_minus, dv, -dv)
