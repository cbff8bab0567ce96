"""The compiled engine, one row: its probabilities, and what they become at a visit.

They are kept as residuals, ``r = p - t`` with t the one-hot truth: of a row that is sure of its class p is 1 but for
rounding, while r, like the loss, keeps all its digits.

See ``compiled``, whose kernels are made of these functions.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._engines.simd import EXACT, FAST, compiled
from sksoftmax._types import Array

#: exp on [-ln 2 / 2, ln 2 / 2]: for float32 by least squares at Chebyshev points, relative error 8e-8.
_POLYNOMIAL_32 = (
    0.9999999999999997,
    1.0000000377388694,
    0.5000000047146153,
    0.16666415414047356,
    0.04166635277096187,
    0.00837513477408027,
    0.0013941118905446957,
)
_POLYNOMIAL_64 = tuple(1 / math.factorial(k) for k in range(14))

#: Newton steps on a row; one mostly does.
_MAX_NEWTON = 12
_MAX_NEWTON_BINARY = 40


class Workspace(NamedTuple):
    """Constants of exp in the data's dtype, and room for one row's numbers: the kernels allocate nothing."""

    log2e: Any
    half: Any
    ln2_high: Any
    ln2_low: Any
    floor: Any
    rounding: Any
    polynomial: tuple[Any, ...]
    bias: int
    shift: int
    whole: Array
    bits: Array
    power: Array
    work: Array


def make_workspace(dtype: Any, n_lanes: int) -> Workspace:
    """What the kernels work with, for numbers of ``dtype`` (float32 or float64)."""
    number = np.dtype(dtype).type
    is_single = number is np.float32
    # ln 2 in two parts, the first of so few digits that its products with small integers are exact; below e^floor
    # probabilities count as 0, so that none are subnormal, which would cost 2 to 5 times
    ln2_high = 0.693359375 if is_single else 6.93145751953125e-1
    ln2_low = math.log(2) - 0.693359375 if is_single else 1.42860682030941723212e-6
    bits = np.zeros(n_lanes, np.int32 if is_single else np.int64)
    return Workspace(
        log2e=number(1 / math.log(2)),
        half=number(0.5),
        ln2_high=number(ln2_high),
        ln2_low=number(ln2_low),
        floor=number(-40.0 if is_single else -300.0),
        rounding=number(4 * np.finfo(number).eps),
        polynomial=tuple(number(c) for c in reversed(_POLYNOMIAL_32 if is_single else _POLYNOMIAL_64)),
        bias=127 if is_single else 1023,
        shift=23 if is_single else 52,
        whole=np.zeros(n_lanes, number),
        bits=bits,
        power=bits.view(number),
        work=np.zeros((6, n_lanes), number),
    )


@compiled(EXACT)
def exp_shifted(z: Array, largest: float, t: Workspace) -> None:
    """``z <- exp(z - largest)`` for ``z <= largest``: 2^n times a polynomial, n the nearest whole number."""
    for k in range(len(z)):
        x = z[k] - largest
        z[k] = max(x, t.floor)
        n = np.int32(z[k] * t.log2e - t.half)
        t.whole[k] = n
        t.bits[k] = n + t.bias if x >= t.floor else 0
        t.bits[k] <<= t.shift  # in the type of bits
    for k in range(len(z)):
        n = t.whole[k]
        r = (z[k] - n * t.ln2_high) - n * t.ln2_low
        a = t.polynomial[0]
        for m in range(1, len(t.polynomial)):
            a = a * r + t.polynomial[m]
        z[k] = a * t.power[k]


@compiled(FAST)
def softmax(z: Array, y: int, r: Array, t: Workspace) -> float:
    """``r <- softmax(z) - t``, t one-hot at ``y``; returns the loss, logsumexp(z) - z_y."""
    largest = z[0]
    for k in range(len(z)):
        largest = max(largest, z[k])
    for k in range(len(z)):
        r[k] = z[k]
    exp_shifted(r, largest, t)
    own = r[y]
    zero = own - own
    others = zero
    for k in range(len(z)):  # not by storing a 0 there: a vector read right after a single number's store waits for it
        others += r[k] if k != y else zero
    inverse = (t.half + t.half) / (own + others)
    for k in range(len(z)):
        r[k] = inverse * (r[k] if k != y else -others)
    if z[y] == largest:
        return math.log1p(others)
    return math.log(own + others) + (largest - z[y])


@compiled(FAST)
def newton_step(r: Array, y: int, u: Array, q: float, step: Array, t: Workspace) -> float:
    """``step <- q (I + q (diag p - p p'))^-1 u``, by Sherman & Morrison, with ``r = p - t``; returns its range.

    With sum p = 1 the denominator 1 - q sum p^2 / (1 + q p) is sum p / (1 + q p), where nothing cancels.
    """
    one = t.half + t.half
    seen = one - one
    rest = one - one
    zero = one - one
    for k in range(len(r)):
        p = r[k] + (one if k == y else zero)
        a = one / (one + q * p)
        step[k] = u[k] * a
        seen += p * step[k]
        rest += p * a
    c = q * seen / rest
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
    """``u <- r - old + (x - z) / q``, which is 0 at the solution; returns its largest size."""
    worst = r[0] - r[0]
    for k in range(len(z)):
        u[k] = r[k] - old[k] + (x[k] - z[k]) / q
        worst = max(worst, abs(u[k]))
    return worst


@compiled(FAST)
def bisect(z: Array, y: int, old: Array, q: float, r: Array, x: Array, d: Array, largest: float, t: Workspace) -> float:
    """``x <- z - theta q d`` with theta in [0, 1] about where the objective is least along d; r <- softmax(x) - t.

    ``largest`` is that of d's sizes. Returns the loss at x.
    """
    one = t.half + t.half
    low = one - one
    high = one
    loss = low
    width = (q + q) * largest
    while width > one:
        theta = t.half * (low + high)
        width *= t.half
        for k in range(len(z)):
            x[k] = z[k] - q * theta * d[k]
        loss = softmax(x, y, r, t)
        slope = one - one
        for k in range(len(z)):
            slope += d[k] * (r[k] - old[k] - theta * d[k])
        if slope > 0:
            low = theta
        else:
            high = theta
    return loss


@compiled(FAST)
def row_prox(z: Array, y: int, old: Array, q: float, r: Array, t: Workspace) -> float:
    """``r <- `` the solution of ``r = softmax(z - q (r - old)) - t``, to a tenth; on entry it is softmax(z) - t.

    It is that of x, the minimum of ``logsumexp(x) - x_y + ||x - z - q old||^2 / 2q``, which is strongly convex. One
    Newton step mostly does. Where it goes too far: bisection along r - old, then Newton steps damped by
    ln(1 + s) / s, s the range of the step, which always descend (generalised self-concordance: Sun & Tran-Dinh,
    2019). Returns the entropy of the probabilities.
    """
    x, u, d, step = t.work[2], t.work[3], t.work[4], t.work[5]
    one = t.half + t.half
    start = one - one
    size = one - one
    for k in range(len(z)):
        x[k] = z[k]
        d[k] = r[k] - old[k]
        u[k] = d[k]
        start = max(start, abs(d[k]))
        size = max(size, abs(r[k] * z[k]))
    size = max(size, (one + r[y]) * abs(z[y]))
    # the raw prediction after the visit will be x - q u: u small is not enough, q u must be; to rounding of z
    good = max(min(start * (t.half * t.half * t.half), t.half / q), t.rounding * (one + size) / q)
    length = newton_step(r, y, u, q, step, t)
    for k in range(len(z)):
        x[k] -= step[k]
    loss = softmax(x, y, r, t)
    worst = prox_residual(z, old, q, r, x, u)
    if worst > good:
        if length > one and (q + q) * start > one:
            loss = bisect(z, y, old, q, r, x, d, start, t)
            worst = prox_residual(z, old, q, r, x, u)
        for _ in range(_MAX_NEWTON):
            if worst <= good:
                break
            length = newton_step(r, y, u, q, step, t)
            damp = one
            if length > one:
                damp = math.log(one + length) / length
            for k in range(len(z)):
                x[k] -= damp * step[k]
            loss = softmax(x, y, r, t)
            worst = prox_residual(z, old, q, r, x, u)
    return loss - dot(r, x)


@compiled(FAST)
def dot(r: Array, z: Array) -> float:
    """``r' z``; with r a row's residuals, mean raw prediction less that of its class."""
    total = r[0] - r[0]
    for k in range(len(r)):
        total += r[k] * z[k]
    return total


@compiled(FAST)
def logistic(z: float) -> float:
    if z >= 0:
        return 1 / (1 + math.exp(-z))
    e = math.exp(z)
    return e / (1 + e)


@compiled(FAST)
def softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


@compiled(FAST)
def row_prox_binary(z: float, old: float, q: float) -> tuple[float, float]:
    """The p with ``p = logistic(z - q (p - old))``, and its entropy: Newton steps kept in a bracket.

    Of the other class than the row's, p is its residual but for the sign.
    """
    p = logistic(z)
    x = z
    edge = z - q * (p - old)  # the solution lies between
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
