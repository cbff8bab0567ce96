"""The computations for one row, compiled by numba: softmax and loss, and the solution of the dual step.

`compiled` calls these functions for each row. Probabilities p are stored as residuals ``r = p - t``, t the one-hot
target. If the probability of the row's own class is 1 up to rounding, r and the loss still have all their digits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._engines.simd import EXACT, FAST, compiled
from sksoftmax._types import Array

#: Coefficients of exp on [-ln 2 / 2, ln 2 / 2] for float32: least squares at Chebyshev points, relative error 8e-8.
_POLYNOMIAL_32 = (
    0.9999999999999997,
    1.0000000377388694,
    0.5000000047146153,
    0.16666415414047356,
    0.04166635277096187,
    0.00837513477408027,
    0.0013941118905446957,
)

#: Coefficients of exp on the same interval for float64: the Taylor polynomial of degree 13.
_POLYNOMIAL_64 = tuple(1 / math.factorial(k) for k in range(14))

#: Maximum number of Newton steps for a row of several classes, after the first, which usually suffices.
_MAX_NEWTON = 12

#: Maximum number of Newton or bisection steps for a row of two classes.
_MAX_NEWTON_BINARY = 40


class Workspace(NamedTuple):
    """Constants of exp in the dtype of the data, and scratch arrays for one row.

    The compiled functions use them instead of allocating memory.
    """

    log2e: Any
    half: Any
    ln2_high: Any
    ln2_low: Any
    floor: Any
    rounding: Any
    polynomial: tuple[Any, ...]
    bias: int
    shift: int
    exponent: Array
    bits: Array
    power: Array
    vectors: Array


def make_workspace(dtype: Any, n_lanes: int) -> Workspace:
    """Make the workspace for rows of ``n_lanes`` classes in ``dtype`` (float32 or float64)."""
    number = np.dtype(dtype).type
    is_single = number is np.float32
    # ln 2 in two parts; the first has so few digits that its products with small integers are exact
    ln2_high = 0.693359375 if is_single else 6.93145751953125e-1
    ln2_low = math.log(2) - 0.693359375 if is_single else 1.42860682030941723212e-6
    bits = np.zeros(n_lanes, np.int32 if is_single else np.int64)
    return Workspace(
        log2e=number(1 / math.log(2)),
        half=number(0.5),
        ln2_high=number(ln2_high),
        ln2_low=number(ln2_low),
        # probabilities below e^floor are set to 0: subnormal numbers would take 2 to 5 times as long
        floor=number(-40.0 if is_single else -300.0),
        rounding=number(4 * np.finfo(number).eps),
        polynomial=tuple(number(c) for c in reversed(_POLYNOMIAL_32 if is_single else _POLYNOMIAL_64)),
        bias=127 if is_single else 1023,
        shift=23 if is_single else 52,
        exponent=np.zeros(n_lanes, number),
        bits=bits,
        power=bits.view(number),
        vectors=np.zeros((6, n_lanes), number),
    )


@compiled(EXACT)
def exp_shifted(z: Array, largest: float, work: Workspace) -> None:
    """Replace ``z`` by ``exp(z - largest)``, for ``z <= largest``.

    The result is 2^n times a polynomial of the remainder, n the integer nearest to ``(z - largest) / ln 2``.
    """
    for k in range(len(z)):
        x = z[k] - largest
        z[k] = max(x, work.floor)
        n = np.int32(z[k] * work.log2e - work.half)
        work.exponent[k] = n
        work.bits[k] = n + work.bias if x >= work.floor else 0
        work.bits[k] <<= work.shift  # in the dtype of bits
    for k in range(len(z)):
        n = work.exponent[k]
        r = (z[k] - n * work.ln2_high) - n * work.ln2_low
        a = work.polynomial[0]
        for m in range(1, len(work.polynomial)):
            a = a * r + work.polynomial[m]
        z[k] = a * work.power[k]


@compiled(FAST)
def softmax(z: Array, y: int, r: Array, work: Workspace) -> float:
    """Compute ``r = softmax(z) - t``, t one-hot at ``y``, and return the loss, logsumexp(z) - z_y."""
    largest = z[0]
    for k in range(len(z)):
        largest = max(largest, z[k])
    for k in range(len(z)):
        r[k] = z[k]
    exp_shifted(r, largest, work)
    exp_class = r[y]
    zero = exp_class - exp_class
    exp_others = zero
    # r[y] is masked here, not set to 0 in memory: a vector load right after a scalar store has to wait for the store
    for k in range(len(z)):
        exp_others += r[k] if k != y else zero
    inverse = (work.half + work.half) / (exp_class + exp_others)
    for k in range(len(z)):
        r[k] = inverse * (r[k] if k != y else -exp_others)
    if z[y] == largest:
        return math.log1p(exp_others)
    return math.log(exp_class + exp_others) + (largest - z[y])


@compiled(FAST)
def newton_step(r: Array, y: int, u: Array, q: float, step: Array, work: Workspace) -> float:
    """Compute ``step = q (I + q (diag p - p p'))^-1 u`` with p = r + t; return its max less its min.

    By Sherman & Morrison's formula. Its denominator is 1 - q sum p^2 / (1 + q p). As the sum of p is 1, it is computed
    as sum p / (1 + q p), which has no cancellation.
    """
    one = work.half + work.half
    numerator = one - one
    denominator = one - one
    zero = one - one
    for k in range(len(r)):
        p = r[k] + (one if k == y else zero)
        a = one / (one + q * p)
        step[k] = u[k] * a
        numerator += p * step[k]
        denominator += p * a
    c = q * numerator / denominator
    low = one - one
    high = one - one
    for k in range(len(r)):
        p = r[k] + (one if k == y else zero)
        step[k] = q * (step[k] + c * p / (one + q * p))
        low = min(low, step[k])
        high = max(high, step[k])
    return high - low


@compiled(FAST)
def prox_residual(z: Array, old: Array, q: float, r: Array, x: Array, u: Array) -> float:
    """Compute ``u = r - old + (x - z) / q``, which is 0 at the solution, and return its maximum norm."""
    norm = r[0] - r[0]
    for k in range(len(z)):
        u[k] = r[k] - old[k] + (x[k] - z[k]) / q
        norm = max(norm, abs(u[k]))
    return norm


@compiled(FAST)
def bisect(
    z: Array, y: int, old: Array, q: float, r: Array, x: Array, d: Array, largest: float, work: Workspace
) -> float:
    """Minimise the objective of `row_prox` over ``x = z - theta q d``, theta in [0, 1], by bisection.

    Ends if the bracket of x is at most 1 wide in every class; ``largest`` is the maximum norm of d. Sets ``x`` and
    ``r = softmax(x) - t``, and returns the loss at x.
    """
    one = work.half + work.half
    low = one - one
    high = one
    loss = low
    width = (q + q) * largest
    while width > one:
        theta = work.half * (low + high)
        width *= work.half
        for k in range(len(z)):
            x[k] = z[k] - q * theta * d[k]
        loss = softmax(x, y, r, work)
        slope = one - one
        for k in range(len(z)):
            slope += d[k] * (r[k] - old[k] - theta * d[k])
        if slope > 0:
            low = theta
        else:
            high = theta
    return loss


@compiled(FAST)
def row_prox(z: Array, y: int, old: Array, q: float, r: Array, work: Workspace) -> float:
    """Solve ``r = softmax(z - q (r - old)) - t`` for r, to about a tenth; on entry r is softmax(z) - t.

    Then r is softmax(x) - t, x the minimiser of ``logsumexp(x) - x_y + ||x - z - q old||^2 / 2q``, which is strongly
    convex:

    1. Take one Newton step from x = z. It usually suffices.
    2. If the residual is too large and the step was long, bisect along r - old.
    3. Take Newton steps damped by ln(1 + s) / s, s the range of the step, until the residual is small enough. Each
       decreases the objective (generalised self-concordance: Sun & Tran-Dinh, 2019).

    Returns the entropy of the probabilities.
    """
    x, u, d, step = work.vectors[2], work.vectors[3], work.vectors[4], work.vectors[5]
    one = work.half + work.half
    initial_norm = one - one
    z_size = one - one
    for k in range(len(z)):
        x[k] = z[k]
        d[k] = r[k] - old[k]
        u[k] = d[k]
        initial_norm = max(initial_norm, abs(d[k]))
        z_size = max(z_size, abs(r[k] * z[k]))
    z_size = max(z_size, (one + r[y]) * abs(z[y]))
    # the raw prediction after the step is x - q u: so q u has to be small, not only u, down to the rounding of z
    residual_tol = max(
        min(initial_norm * (work.half * work.half * work.half), work.half / q), work.rounding * (one + z_size) / q
    )
    # 1.
    step_range = newton_step(r, y, u, q, step, work)
    for k in range(len(z)):
        x[k] -= step[k]
    loss = softmax(x, y, r, work)
    residual_norm = prox_residual(z, old, q, r, x, u)
    if residual_norm > residual_tol:
        # 2.
        if step_range > one and (q + q) * initial_norm > one:
            loss = bisect(z, y, old, q, r, x, d, initial_norm, work)
            residual_norm = prox_residual(z, old, q, r, x, u)
        # 3.
        for _ in range(_MAX_NEWTON):
            if residual_norm <= residual_tol:
                break
            step_range = newton_step(r, y, u, q, step, work)
            damping = one
            if step_range > one:
                damping = math.log(one + step_range) / step_range
            for k in range(len(z)):
                x[k] -= damping * step[k]
            loss = softmax(x, y, r, work)
            residual_norm = prox_residual(z, old, q, r, x, u)
    return loss - dot(r, x)


@compiled(FAST)
def dot(r: Array, z: Array) -> float:
    """Return ``r' z``; for residuals r, the mean raw prediction less the raw prediction of the row's class."""
    total = r[0] - r[0]
    for k in range(len(r)):
        total += r[k] * z[k]
    return total


@compiled(FAST)
def logistic(z: float) -> float:
    """Return ``1 / (1 + exp(-z))`` without overflow."""
    if z >= 0:
        return 1 / (1 + math.exp(-z))
    e = math.exp(z)
    return e / (1 + e)


@compiled(FAST)
def softplus(z: float) -> float:
    """Return ``log(1 + exp(z))`` without overflow."""
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


@compiled(FAST)
def row_prox_binary(z: float, old: float, q: float) -> tuple[float, float]:
    """Solve ``p = logistic(z - q (p - old))`` for p by Newton steps in a bracket; return p and its entropy.

    p is the probability of the class that is not the row's own, so it is the residual up to its sign.
    """
    p = logistic(z)
    x = z
    edge = z - q * (p - old)  # the solution is between z and edge
    low, high = min(z, edge), max(z, edge)
    for _ in range(_MAX_NEWTON_BINARY):
        slope = p - old + (x - z) / q
        if abs(slope) <= 1e-3 * abs(edge - z) / q:
            break
        if slope > 0:
            high = x
        else:
            low = x
        x -= slope / (p * (1 - p) + 1 / q)
        if not low < x < high:
            x = 0.5 * (low + high)
        p = logistic(x)
    return p, softplus(x) - x * p
