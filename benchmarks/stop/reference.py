"""F* of a small problem to many digits, by damped Newton steps in float64 that use none of the package's solvers.

Two numbers enclose F*. The upper one is the least F found. The lower one is the largest value of the dual problem: for
any probabilities q of each row,

    F* >= sum_i w_i entropy(q_i) - max_coef [-<G, coef> - penalty(coef)],   G = sum_i w_i (q_i - t_i) x_i',

if ``sum_i w_i (q_i - t_i) = 0``, the equation of the intercept. At the minimum, with q the model's probabilities, both
are equal. Each Newton step offers the q that it expects to first order: they satisfy the intercept's equation, and
their dual value misses F* by the third order of the step. If a step would change a probability by more than itself, the
expected q are negative and there is no bound. This is what happens while an outlying row is far from fitted, although
the Newton decrement may then be as small as you like: the decrement is therefore never used to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._types import Array

#: Max numbers of X, and max columns, for a sparse X that is made dense.
_DENSE_SIZE, _DENSE_COLUMNS = 2_000_000, 700

#: Max multiplications to form and factorise the Hessian; above, conjugate gradients.
_FACTOR_WORK = 4e9

#: Max multiplications for one matrix a class, which precondition conjugate gradients; above, the diagonal does.
_BLOCK_WORK = 3e9

#: Max Newton steps from one start.
_STEPS = 100

#: Max Hessian products of one direction by conjugate gradients.
_PRODUCTS = 2000

#: Residual at which conjugate gradients end, relative to the gradient.
_CG_ACCURACY = 1e-6

#: Newton steps without a lower F after which a start is given up.
_STALLS = 10

#: Max doublings of a step.
_DOUBLINGS = 60

#: Max evaluations of the slope along a step.
_EVALUATIONS = 100

#: A step ends where the slope along it is this share of the slope at its start.
_SLOPE_LEFT = 0.1

#: Initial sharpness of the smoothed L1 term, times coefficients / F: it is too large by 10 % of F at most.
_FIRST_SHARPNESS = 10.0

#: Factor on the sharpness.
_SHARPER = 20.0

#: F without a penalty below which its infimum is 0: the classes can be told apart, and there is no minimum.
NOTHING = 1e-10

#: Max relative ridge of a matrix that is factorised.
_MAX_RIDGE = 1e-2


class Minimum(NamedTuple):
    """F* is in ``[value - gap, value]``.

    Attributes
    ----------
    value, gap : float
    theta : ndarray of shape (n_outputs, n_features + 1)
        Where F is ``value``; see ``Objective``.
    n_steps : int
        Newton steps, from all starts.
    """

    value: float
    gap: float
    theta: Array
    n_steps: int


class Proba(NamedTuple):
    """Probabilities p and 1 - p, of shape (n_samples, n_classes), both to relative rounding."""

    p: Array
    q: Array


class Objective:
    """F in float64, its derivatives, and lower bounds of F*.

    Parameters
    ----------
    X : array or sparse matrix of shape (n_samples, n_features)
    y : array of shape (n_samples,) or (n_samples, n_classes)
        Class codes, or the targets of each row.
    n_classes : int
    weight : array of shape (n_samples,) or None
    alpha, l1_ratio : float
    has_intercept : bool

    Notes
    -----
    Coefficients are a matrix ``theta`` of shape (n_outputs, n_features + 1), the intercepts last, with n_outputs = 1
    for two classes; without an intercept there is no last column. The median of each dense column is subtracted, so
    that offsets cost no digits; outliers do not move a median.
    """

    def __init__(
        self,
        X: Any,
        y: Array,
        n_classes: int,
        weight: Array | None = None,
        alpha: float = 1e-4,
        l1_ratio: float = 0.0,
        has_intercept: bool = True,
    ) -> None:
        n, p = X.shape
        if sp.issparse(X) and n * p <= _DENSE_SIZE and p <= _DENSE_COLUMNS:
            X = X.toarray()
        ones = np.ones((n, int(has_intercept)))
        if sp.issparse(X):
            self.centre = np.zeros(p)
            self.A = sp.csr_array(sp.hstack([sp.csr_array(X).astype(np.float64), sp.csr_array(ones)]))
        else:
            X = np.asarray(X, dtype=np.float64)
            self.centre = np.median(X, axis=0) if has_intercept else np.zeros(p)
            self.A = np.hstack([X - self.centre, ones])
        self.n_classes, self.n_outputs = n_classes, 1 if n_classes == 2 else n_classes
        self.has_labels = y.ndim == 1
        self.codes = y.astype(np.intp) if self.has_labels else y.argmax(axis=1)
        self.targets = np.eye(n_classes)[self.codes] if self.has_labels else np.asarray(y, np.float64)
        weight = np.ones(n) if weight is None else np.asarray(weight, np.float64)
        self.weight = weight / weight.sum()
        self.has_intercept = has_intercept
        is_penalised = np.arange(p + int(has_intercept)) < p
        self.l2, self.l1 = alpha * (1 - l1_ratio) * is_penalised, alpha * l1_ratio * is_penalised
        self.has_l1 = bool(self.l1.any())
        self._unit = _small_entries(self.A)

    def theta(self, coef: Any, intercept: Any) -> Array:
        """Convert an estimator's ``coef_`` and ``intercept_``, exact where the intercept cancels an offset."""
        coef = np.atleast_2d(np.asarray(coef, np.float64))
        if not self.has_intercept:
            return coef.copy()
        offset = coef.astype(np.longdouble) @ self.centre.astype(np.longdouble)
        moved = np.ravel(np.asarray(intercept, np.longdouble)) + offset
        return np.column_stack([coef, moved.astype(np.float64)])

    def zeros(self) -> Array:
        return np.zeros((self.n_outputs, self.A.shape[1]))

    def raw(self, theta: Array) -> Array:
        """Raw predictions, (n_samples, n_classes); for two classes the first column is 0."""
        z = np.asarray(self.A @ theta.T)
        return np.hstack([np.zeros_like(z), z]) if self.n_classes == 2 else z

    def loss(self, raw: Array) -> float:
        """Weighted mean of the losses, to relative rounding however small the losses are."""
        if self.has_labels:
            rows = np.arange(len(raw))
            others = raw - raw[rows, self.codes][:, None]
            others[rows, self.codes] = -np.inf
            losses = np.logaddexp(0.0, _logsumexp(others))
        else:
            below = raw - raw.max(axis=1, keepdims=True)
            losses = _logsumexp(below) - (self.targets * below).sum(axis=1)
        return float(self.weight @ losses)

    def penalty(self, theta: Array) -> float:
        return float((0.5 * self.l2 * theta**2).sum() + (self.l1 * np.abs(theta)).sum())

    def value(self, theta: Array) -> float:
        return self.loss(self.raw(theta)) + self.penalty(theta)

    def residual(self, proba: Proba) -> Array:
        """Return p - t, to relative rounding where t are labels."""
        residual = proba.p - self.targets
        if self.has_labels:
            rows = np.arange(len(residual))
            residual[rows, self.codes] = -proba.q[rows, self.codes]
        return residual

    def back(self, rows: Array) -> Array:
        """Sum ``w_i rows_i a_i'`` for the classes that have coefficients."""
        return np.asarray(self.A.T @ (self.weight[:, None] * rows[:, -self.n_outputs :])).T

    def lower(self, proba: Proba, theta: Array) -> float:
        """Compute a lower bound of F*, the dual value at some probabilities.

        It is the larger of two for each coefficient. One is the conjugate of the penalty. The other charges what is
        left of the equation of the minimum, a rounding, with a bound of the coefficient's size: what F allows, at most
        10 times the largest coefficient of ``theta`` in units of the small entries of its column.
        """
        left = self.back(self.residual(proba))
        size = 10 * (1 + np.abs(theta * self._unit).max()) / self._unit
        with np.errstate(divide="ignore"):
            value = self.value(theta)
            size = np.minimum(size, np.sqrt(2 * value / self.l2))
            size = np.minimum(size, value / self.l1)
        conjugate = np.full(left.shape, -np.inf)
        has_l2 = self.l2 > 0
        conjugate[:, has_l2] = (-(np.maximum(np.abs(left) - self.l1, 0) ** 2) / 2)[:, has_l2] / self.l2[has_l2]
        charged = -0.5 * self.l2 * theta**2 - np.maximum(np.abs(left + self.l2 * theta) - self.l1, 0) * size
        return float(self.weight @ _entropy(proba)) + float(np.maximum(conjugate, charged).sum())


class _Smoothed:
    """The penalty with a smooth L1 term, at most about ``1 / sharpness`` larger for each coefficient.

    The smooth term is ``min_u l1 u - log(u^2 - v^2) / sharpness``, the barrier of ``|v| <= u`` (Koh, Kim & Boyd, 2007,
    An interior-point method for large-scale l1-regularized logistic regression, J. Mach. Learn. Res. 8).
    """

    def __init__(self, F: Objective, sharpness: float) -> None:
        self._l2, self._l1, self._sharpness = F.l2, F.l1, sharpness

    def slope(self, theta: Array) -> Array:
        x = self._l1 * self._sharpness * theta
        return self._l2 * theta + self._l1 * x / (1 + np.sqrt(1 + x**2))

    def curvature(self, theta: Array) -> Array:
        root = np.sqrt(1 + (self._l1 * self._sharpness * theta) ** 2)
        return self._l2 + self._l1**2 * self._sharpness / (root * (1 + root))

    def rounded(self, theta: Array) -> Array:
        """Set to 0 the coefficients whose slope is less than half the L1 strength."""
        return np.where(np.abs(self.slope(theta) - self._l2 * theta) < 0.5 * self._l1, 0.0, theta)


def _small_entries(A: Any) -> Array:
    """For each column the 5 % quantile of the absolute values that are not 0."""
    columns = A.tocsc() if sp.issparse(A) else A
    small = np.ones(A.shape[1])
    for j in range(A.shape[1]):
        column = np.abs(columns.data[columns.indptr[j] : columns.indptr[j + 1]] if sp.issparse(A) else columns[:, j])
        column = column[column > 0]
        if len(column):
            small[j] = np.quantile(column, 0.05)
    return small


def _logsumexp(z: Array) -> Array:
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


def _entropy(proba: Proba) -> Array:
    """Entropy of each row, to relative rounding however near to 0."""
    p, q = proba
    rows, top = np.arange(len(p)), p.argmax(axis=1)
    terms = -p * np.log(np.maximum(p, 1e-300))
    terms[rows, top] = -p[rows, top] * np.log1p(-q[rows, top])
    return terms.sum(axis=1)


def _with_complement(p: Array) -> Proba:
    """Add 1 - p; the largest p of each row is taken from the others, which have more digits."""
    rows, top = np.arange(len(p)), p.argmax(axis=1)
    others = p.copy()
    others[rows, top] = 0
    q = 1 - p
    q[rows, top] = others.sum(axis=1)
    p = p.copy()
    p[rows, top] = 1 - q[rows, top]
    return Proba(p, q)


def _softmax(raw: Array) -> Proba:
    e = np.exp(raw - raw.max(axis=1, keepdims=True))
    return _with_complement(e / e.sum(axis=1, keepdims=True))


# --- Newton's direction ---------------------------------------------------------------------------------------


def _factorise(matrix: Array) -> Callable[[Array], Array]:
    """Return the solution by Cholesky, in units that make the diagonal 1, with as small a ridge as it takes."""
    unit = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix / unit[:, None] / unit
    ridge = 1e-14
    while ridge <= _MAX_RIDGE:
        try:
            factor = scipy.linalg.cho_factor(scaled + ridge * np.eye(len(scaled)), lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            ridge *= 100
            continue
        return lambda b: scipy.linalg.cho_solve(factor, b / unit, check_finite=False) / unit
    return lambda b: b / unit**2


def _direction(F: Objective, penalty: _Smoothed, theta: Array, proba: Proba, slope: Array) -> Array:
    """Newton's direction, from the whole Hessian if that is cheap, else by conjugate gradients."""
    n, size = F.A.shape
    n_coef = F.n_outputs * size
    p, q = (part[:, -F.n_outputs :] for part in proba)
    curvature = penalty.curvature(theta)
    if not sp.issparse(F.A) and n * n_coef**2 / 2 + n_coef**3 / 3 <= _FACTOR_WORK:
        return -_factorise(_hessian(F, p, q, curvature))(slope.ravel()).reshape(slope.shape)

    def product(v: Array) -> Array:
        raw = np.asarray(F.A @ v.T)
        return F.back(p * (raw - (p * raw).sum(axis=1, keepdims=True))) + curvature * v

    if not sp.issparse(F.A) and F.n_outputs * (n * size**2 + size**3 / 3) <= _BLOCK_WORK:
        of_class = [
            _factorise((F.A * (F.weight * p[:, c] * q[:, c])[:, None]).T @ F.A + np.diag(curvature[c]))
            for c in range(F.n_outputs)
        ]
        return _conjugate_gradients(
            product, lambda g: np.stack([solve(row) for solve, row in zip(of_class, g, strict=True)]), slope
        )
    squared = F.A.multiply(F.A) if sp.issparse(F.A) else F.A**2
    diagonal = np.asarray(squared.T @ (F.weight[:, None] * p * q)).T + curvature
    diagonal = np.maximum(diagonal, 1e-14 * diagonal.max())
    return _conjugate_gradients(product, lambda g: g / diagonal, slope)


def _hessian(F: Objective, p: Array, q: Array, curvature: Array) -> Array:
    """F's Hessian, and a multiple of the squared sums of the coefficients over the classes.

    These sums change the penalty alone (the intercepts' change nothing). Without L1 they are 0 at the minimum and on
    the way, so that the term does not move the direction, and the Hessian is never singular because of them.
    """
    K, size = curvature.shape
    H = np.zeros((K, size, K, size))
    for c in range(K):
        for k in range(c + 1):
            v = F.weight * p[:, c] * (q[:, c] if c == k else -p[:, k])
            H[c, :, k] = (F.A * v[:, None]).T @ F.A
            H[k, :, c] = H[c, :, k].T
    diagonal = np.einsum("cjcj->cj", H)
    sums = diagonal.mean(axis=0) / K * (K > 1)
    if F.has_l1:
        sums[: size - int(F.has_intercept)] = 0
    diagonal += curvature
    np.einsum("cjkj->jck", H)[...] += sums[:, None, None]
    return H.reshape(K * size, K * size)


def _conjugate_gradients(product: Callable[[Array], Array], inverse: Callable[[Array], Array], slope: Array) -> Array:
    """Solve ``H d = -slope``, preconditioned by ``inverse``."""
    residual = -slope
    direction = np.zeros_like(slope)
    search = whitened = inverse(residual)
    size = start = float((residual * whitened).sum())
    for _ in range(_PRODUCTS):
        image = product(search)
        curvature = float((search * image).sum())
        if not curvature > 0:
            break
        direction = direction + size / curvature * search
        residual = residual - size / curvature * image
        whitened = inverse(residual)
        before, size = size, float((residual * whitened).sum())
        if not size > _CG_ACCURACY**2 * start:
            break
        search = whitened + size / before * search
    return direction


# --- the descent ----------------------------------------------------------------------------------------------


def _length(F: Objective, penalty: _Smoothed, theta: Array, step: Array, raw: Array, raw_step: Array) -> float:
    """Find the minimum of F along a step, nearly: double the step until F rises, then false position.

    It takes no product with X. Returns 0 if F does not fall.
    """

    def slope(t: float) -> float:
        residual = F.residual(_softmax(raw + t * raw_step))
        return float(F.weight @ (residual * raw_step).sum(axis=1) + (penalty.slope(theta + t * step) * step).sum())

    low, at_low, high = 0.0, slope(0.0), 1.0
    if not at_low < 0:
        return 0.0
    flat = _SLOPE_LEFT * abs(at_low)
    at_high = slope(high)
    for _ in range(_DOUBLINGS):
        if not at_high < -flat:
            break
        low, at_low, high = high, at_high, 2 * high
        at_high = slope(high)
    if not np.isfinite(at_high):
        return low
    if abs(at_high) <= flat:
        return high
    for _ in range(_EVALUATIONS):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if not low + 0.05 * (high - low) < middle < high - 0.05 * (high - low):
            middle = 0.5 * (low + high)
        at_middle = slope(middle)
        if abs(at_middle) <= flat:
            return middle
        if at_middle < 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return low


def _expected(proba: Proba, raw_step: Array) -> Proba | None:
    """Probabilities after a step, to first order; None if they are none."""
    change = raw_step - (proba.p * raw_step).sum(axis=1, keepdims=True)
    p = proba.p * (1 + change)
    is_distribution = change.min() >= -1 and np.abs(p.sum(axis=1) - 1).max() <= 1e-9
    return _with_complement(p) if is_distribution else None


def _descend(F: Objective, theta: Array, accuracy: float) -> Minimum:
    """Take Newton steps from one start; the L1 term becomes sharper as they become small."""

    def balanced(theta: Array) -> Array:
        """Without L1 the same loss and the least penalty."""
        return theta - theta.mean(axis=0) if F.n_outputs > 1 and not F.has_l1 else theta

    theta = best = balanced(theta)
    upper, lower = F.value(theta), -np.inf
    sharpness = _FIRST_SHARPNESS * theta.size / max(upper, 1e-300)
    sharpest = 100 * theta.size / (accuracy * max(upper, 1e-300)) if F.has_l1 else sharpness
    floor = 0.0 if F.l1.any() or F.l2.any() else NOTHING
    n_stalls = n_steps = 0
    while n_steps < _STEPS and n_stalls < _STALLS and upper > floor and upper - lower > accuracy * upper:
        n_steps += 1
        penalty = _Smoothed(F, sharpness)
        raw = F.raw(theta)
        proba = _softmax(raw)
        slope = F.back(F.residual(proba)) + penalty.slope(theta)
        step = _direction(F, penalty, theta, proba, slope)
        raw_step = F.raw(step)
        expected = _expected(proba, raw_step)
        if expected is not None:
            lower = max(lower, F.lower(expected, theta + step))
        lower = max(lower, F.lower(proba, theta))
        length = _length(F, penalty, theta, step, raw, raw_step)
        theta = balanced(theta + length * step)
        before = upper
        for candidate in (theta, penalty.rounded(theta)) if F.has_l1 else (theta,):
            value = F.value(candidate)
            if value < upper:
                best, upper = candidate, value
        if not np.isfinite(value):
            break
        if sharpness < sharpest:
            if length == 0 or -float((slope * step).sum()) <= 0.1 * theta.size / sharpness:
                sharpness = min(sharpness * _SHARPER, sharpest)
        elif length == 0:
            break
        else:
            n_stalls = 0 if upper < before else n_stalls + 1
    return Minimum(upper, upper - lower, best, n_steps)


def minimum(F: Objective, starts: Iterable[Array], accuracy: float) -> Minimum:
    """Enclose F* from several starts.

    Parameters
    ----------
    F : Objective
    starts : iterable of ndarray
        Tried in turn until ``gap <= accuracy * value``.
    accuracy : float
        Relative, > 0.
    """
    found: Minimum | None = None
    for start in starts:
        with np.errstate(all="ignore"):  # far from the minimum, where such a start is given up
            now = _descend(F, start, accuracy)
        if found is not None:
            lower = max(found.value - found.gap, now.value - now.gap)
            best = min(found, now, key=lambda m: m.value)
            now = Minimum(best.value, best.value - lower, best.theta, found.n_steps + now.n_steps)
        found = now
        if found.gap <= accuracy * found.value:
            break
    if found is None:
        raise ValueError("starts must hold at least one start, got none.")
    return found
