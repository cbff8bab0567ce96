"""F* of a small problem to many digits, by damped Newton steps in float64 that use none of the package's solvers.

Two numbers enclose F*: the least F that was met, and the largest value of the dual problem. The dual value is a lower
bound of F at any probabilities ``q`` (one row a sample, >= 0, of sum 1), however they were found:

    F >= sum_i w_i entropy(q_i) - max_coef [<-G, coef> - penalty(coef)],   G = sum_i w_i (q_i - t_i) x_i'

if ``sum_i w_i (q_i - t_i) = 0``, which the intercept asks for. At the minimum q are its probabilities, and the bound is
F*. The q of a Newton step are the probabilities as the step expects them to be, to first order: they fulfil the
intercept's equation, and what they miss is of third order in the step. Where a step would change a probability by
more than itself, as a row does that is far from fitted, they are not >= 0, and there is no bound: a small Newton
decrement alone says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._types import Array

#: Numbers that X may have to be made dense and centred, and columns.
_DENSE_SIZE, _DENSE_COLUMNS = 2_000_000, 700

#: Multiplications that a factorised Hessian may cost; beyond, conjugate gradients.
_FACTOR_WORK = 4e9

#: Multiplications that the classes' own curvature may cost, which preconditions them.
_BLOCK_WORK = 3e9

#: Newton steps from one start, products of conjugate gradients in one, steps without any decrease that end it.
_STEPS, _PRODUCTS, _STALLS = 100, 2000, 10

#: Doublings of a step, and evaluations of the slope along it in all.
_DOUBLINGS, _EVALUATIONS = 60, 100

#: First sharpness of the smoothed L1 term, and its growth.
_FIRST_SHARPNESS, _SHARPER = 10.0, 20.0


class Minimum(NamedTuple):
    """F* is between ``value - gap`` and ``value``."""

    value: float
    gap: float
    theta: Array
    n_steps: int


class Objective:
    """F in float64.

    Parameters
    ----------
    X : array or sparse matrix of shape (n_samples, n_features)
    y : array of shape (n_samples,) or (n_samples, n_classes)
        Class codes, or each row's targets.
    n_classes : int
    weight : array of shape (n_samples,) or None
    alpha, l1_ratio : float
    has_intercept : bool

    Notes
    -----
    Inside, coefficients are a matrix theta of (n_rows, n_features + 1), the intercepts last, n_rows 1 for two classes;
    dense columns are less their median, which outliers do not move, so that offsets cost no digits.
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
        is_dense = not sp.issparse(X) or (n * p <= _DENSE_SIZE and p <= _DENSE_COLUMNS)
        X = (
            sp.csr_array(X).astype(np.float64)
            if not is_dense
            else np.asarray(X.toarray() if sp.issparse(X) else X, dtype=np.float64)
        )
        self.centre = np.median(X, axis=0) if is_dense and has_intercept else np.zeros(p)
        ones = np.ones((n, int(has_intercept)))
        self.A = np.hstack([X - self.centre, ones]) if is_dense else sp.csr_array(sp.hstack([X, sp.csr_array(ones)]))
        self.n_classes, self.n_rows = n_classes, 1 if n_classes == 2 else n_classes
        self.is_hard = y.ndim == 1
        self.codes = y.astype(np.intp) if self.is_hard else y.argmax(axis=1)
        self.targets = np.zeros((n, n_classes)) if self.is_hard else np.asarray(y, np.float64)
        if self.is_hard:
            self.targets[np.arange(n), self.codes] = 1
        weight = np.ones(n) if weight is None else np.asarray(weight, np.float64)
        self.weight = weight / weight.sum()
        self.has_intercept = has_intercept
        penalised = np.ones(p + int(has_intercept))
        penalised[p:] = 0
        self.l2, self.l1 = alpha * (1 - l1_ratio) * penalised, alpha * l1_ratio * penalised

    # --- in and out -------------------------------------------------------------------------------------------

    def theta(self, coef: Any, intercept: Any) -> Array:
        """Of coefficients and intercepts as an estimator has them."""
        coef = np.atleast_2d(np.asarray(coef, np.float64))
        if not self.has_intercept:
            return coef.copy()
        shift = np.asarray(coef.astype(np.longdouble) @ self.centre.astype(np.longdouble), np.longdouble)
        moved = np.ravel(np.asarray(intercept, np.longdouble)) + shift
        return np.column_stack([coef, moved.astype(np.float64)])

    def zeros(self) -> Array:
        return np.zeros((self.n_rows, self.A.shape[1]))

    # --- values -----------------------------------------------------------------------------------------------

    def raw(self, theta: Array) -> Array:
        """``(n_samples, n_classes)``; for two classes the first column is 0."""
        z = np.asarray(self.A @ theta.T)
        return np.hstack([np.zeros_like(z), z]) if self.n_classes == 2 else z

    def loss(self, raw: Array) -> float:
        """Weighted mean of the losses, to relative rounding however small they are."""
        rows = np.arange(len(raw))
        if self.is_hard:
            others = raw - raw[rows, self.codes][:, None]
            others[rows, self.codes] = -np.inf
            losses = np.logaddexp(0.0, _logsumexp(others))
        else:
            top = raw.max(axis=1)
            losses = _logsumexp(raw - top[:, None]) + (self.targets * (top[:, None] - raw)).sum(axis=1)
        return float(self.weight @ losses)

    def penalty(self, theta: Array) -> float:
        return float((0.5 * self.l2 * theta**2).sum() + (self.l1 * np.abs(theta)).sum())

    def value(self, theta: Array) -> float:
        return self.loss(self.raw(theta)) + self.penalty(theta)

    def proba(self, raw: Array) -> tuple[Array, Array]:
        """p and 1 - p, both to relative rounding."""
        e = np.exp(raw - raw.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        rows, top = np.arange(len(p)), p.argmax(axis=1)
        q = 1 - p
        others = p.copy()
        others[rows, top] = 0
        q[rows, top] = others.sum(axis=1)
        return p, q

    def residual(self, p: Array, q: Array) -> Array:
        """``p - t``, to relative rounding where t is a label."""
        residual = p - self.targets
        if self.is_hard:
            rows = np.arange(len(p))
            residual[rows, self.codes] = -q[rows, self.codes]
        return residual

    def back(self, rows: Array) -> Array:
        """``sum_i w_i rows_i a_i'`` for the classes that have coefficients."""
        return np.asarray(self.A.T @ (self.weight[:, None] * rows[:, -self.n_rows :])).T

    def lower(self, p: Array, q: Array, theta: Array) -> float:
        """The dual value at the probabilities p (q = 1 - p).

        What rounding leaves of an equation is charged with as large a coefficient as there may be: 10 times the largest
        at hand, in units of the small entries of its column, but no larger than F itself allows.
        """
        rows, top = np.arange(len(p)), p.argmax(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(p > 0, -p * np.log(p), 0.0)
        terms[rows, top] = -p[rows, top] * np.log1p(-np.minimum(q[rows, top], 1 - 1e-300))
        entropy = float(self.weight @ terms.sum(axis=1))
        if not self.is_hard:
            pass  # lse(z) - t.z >= entropy(p) + (p - t).z, whatever t
        G = self.back(self.residual(p, q))
        size = 10 * (1 + np.abs(theta * self._unit).max()) / self._unit
        bound = self.value(theta)
        with np.errstate(divide="ignore"):
            size = np.minimum(size, np.where(self.l2 > 0, np.sqrt(2 * bound / self.l2), np.inf))
            size = np.minimum(size, np.where(self.l1 > 0, bound / self.l1, np.inf))
            by_square = np.where(
                self.l2 > 0, -(np.maximum(np.abs(G) - self.l1, 0) ** 2) / (2 * np.maximum(self.l2, 1e-300)), -np.inf
            )
        by_size = -0.5 * self.l2 * theta**2 - np.maximum(np.abs(G + self.l2 * theta) - self.l1, 0) * size
        return entropy + float(np.maximum(by_square, by_size).sum())

    @property
    def _unit(self) -> Array:
        """A small entry of each column: one in twenty of those that are not 0 is smaller."""
        if not hasattr(self, "_small"):
            A = self.A.tocsc() if sp.issparse(self.A) else self.A
            small = np.ones(A.shape[1])
            for j in range(A.shape[1]):
                column = np.abs(A.data[A.indptr[j] : A.indptr[j + 1]] if sp.issparse(A) else A[:, j])
                column = column[column > 0]
                small[j] = np.quantile(column, 0.05) if len(column) else 1.0
            self._small = small
        return self._small


class _Smoothed:
    """The penalty, its L1 term replaced by a smooth one that is at most ``1 / sharpness`` larger for each coefficient.

    It is ``min_u l1 u - log(u^2 - v^2) / s``, the barrier of ``|v| <= u`` (Koh, Kim & Boyd, 2007).
    """

    def __init__(self, F: Objective, sharpness: float) -> None:
        self.l2, self.l1, self.s = F.l2, F.l1, sharpness

    def slope(self, theta: Array) -> Array:
        x = self.l1 * self.s * theta
        return self.l2 * theta + self.l1 * x / (1 + np.sqrt(1 + x**2))

    def curvature(self, theta: Array) -> Array:
        root = np.sqrt(1 + (self.l1 * self.s * theta) ** 2)
        return self.l2 + self.l1**2 * self.s / (root * (1 + root))


def _logsumexp(z: Array) -> Array:
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


# --- Newton's direction ---------------------------------------------------------------------------------------


def _factor(matrix: Array) -> Callable[[Array], Array]:
    """Solve by Cholesky in units in which the diagonal is 1, with as small a ridge as it takes."""
    diagonal = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix / diagonal[:, None] / diagonal
    ridge = 1e-14
    while True:
        try:
            factor = scipy.linalg.cho_factor(scaled + ridge * np.eye(len(scaled)), lower=True, check_finite=False)
            break
        except np.linalg.LinAlgError:
            ridge *= 100
    return lambda b: scipy.linalg.cho_solve(factor, b / diagonal, check_finite=False) / diagonal


def _direction(F: Objective, penalty: _Smoothed, theta: Array, p: Array, q: Array, slope: Array) -> Array:
    n, size = F.A.shape
    K, first = F.n_rows, F.n_classes - F.n_rows
    d = K * size
    extra = penalty.curvature(theta)
    # adding a number to all classes' coefficients changes the penalty alone, and is 0 at the minimum
    is_free = np.full(size, not F.l1.any()) | (np.arange(size) >= size - int(F.has_intercept))
    if not sp.issparse(F.A) and n * d**2 / 2 + d**3 / 3 <= _FACTOR_WORK:
        H = np.zeros((K, size, K, size))
        for c in range(K):
            for k in range(c + 1):
                v = F.weight * p[:, first + c] * (q[:, first + c] if c == k else -p[:, first + k])
                H[c, :, k] = (F.A * v[:, None]).T @ F.A
                H[k, :, c] = H[c, :, k].T
        diagonal = np.einsum("cjcj->cj", H)
        if K > 1:
            shift = np.where(is_free, diagonal.mean(axis=0) / K, 0.0)
            diagonal += extra
            np.einsum("cjkj->jck", H)[...] += shift[:, None, None]
        else:
            diagonal += extra
        return -_factor(H.reshape(d, d))(slope.ravel()).reshape(K, size)

    def product(v: Array) -> Array:
        raw = np.asarray(F.A @ v.T)
        part = p[:, first:]
        return F.back(part * (raw - (part * raw).sum(axis=1, keepdims=True))) + extra * v

    if not sp.issparse(F.A) and K * n * size**2 + K * size**3 / 3 <= _BLOCK_WORK:
        solves = []
        for c in range(K):
            v = F.weight * p[:, first + c] * q[:, first + c]
            solves.append(_factor((F.A * v[:, None]).T @ F.A + np.diag(extra[c])))
        inverse = lambda g: np.stack([solve(row) for solve, row in zip(solves, g, strict=True)])  # noqa: E731
    else:
        squared = F.A.multiply(F.A) if sp.issparse(F.A) else F.A**2
        diagonal = np.asarray(squared.T @ (F.weight[:, None] * (p * q)[:, first:])).T + extra
        diagonal = np.maximum(diagonal, 1e-14 * diagonal.max())
        inverse = lambda g: g / diagonal  # noqa: E731
    return _conjugate_gradients(product, inverse, slope)


def _conjugate_gradients(
    product: Callable[[Array], Array], inverse: Callable[[Array], Array], slope: Array, accuracy: float = 1e-6
) -> Array:
    residual = -slope
    direction = np.zeros_like(slope)
    whitened = inverse(residual)
    search, size = whitened, float((residual * whitened).sum())
    start = size
    for _ in range(_PRODUCTS):
        image = product(search)
        curvature = float((search * image).sum())
        if not curvature > 0:
            break
        direction = direction + size / curvature * search
        residual = residual - size / curvature * image
        whitened = inverse(residual)
        new = float((residual * whitened).sum())
        if not new > accuracy**2 * start:
            break
        search = whitened + new / size * search
        size = new
    return direction if direction.any() else inverse(-slope)


# --- the descent ----------------------------------------------------------------------------------------------


def _length(F: Objective, penalty: _Smoothed, theta: Array, d: Array, raw: Array, draw: Array) -> float:
    """The minimum of F along d from theta, nearly: by the slope, doubled until it rises, then the false position."""

    def slope(t: float) -> float:
        p, q = F.proba(raw + t * draw)
        return float(F.weight @ (F.residual(p, q) * draw).sum(axis=1) + (penalty.slope(theta + t * d) * d).sum())

    low, at_low = 0.0, slope(0.0)
    start = at_low
    if not start < 0:
        return 0.0
    high = 1.0
    at_high = slope(high)
    for _ in range(_DOUBLINGS):
        if not at_high < 0.1 * start:
            break
        low, at_low, high = high, at_high, 2 * high
        at_high = slope(high)
    if abs(at_high) <= 0.1 * abs(start) or not np.isfinite(at_high):
        return high if np.isfinite(at_high) else low
    for _ in range(_EVALUATIONS):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        if not low + 0.05 * (high - low) < middle < high - 0.05 * (high - low):
            middle = 0.5 * (low + high)
        at_middle = slope(middle)
        if abs(at_middle) <= 0.1 * abs(start) or high - low <= 1e-14 * high:
            return middle
        if at_middle < 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return low


def _descend(F: Objective, theta: Array, accuracy: float) -> Minimum:
    """From one start; the L1 term is made sharper as the bound comes nearer."""
    has_l1 = bool(F.l1.any())
    if not has_l1 and F.n_rows > 1:
        theta = theta - theta.mean(axis=0)  # the same loss, less penalty
    best, upper, lower = theta, F.value(theta), -np.inf
    sharpness = _FIRST_SHARPNESS * theta.size / max(upper, 1e-300) if has_l1 else 1.0
    sharpest = 100 * theta.size / (accuracy * max(upper, 1e-300))
    before, stalls = np.inf, 0
    raw = F.raw(theta)
    n_steps = 0
    for n_steps in range(1, _STEPS + 1):
        penalty = _Smoothed(F, sharpness)
        p, q = F.proba(raw)
        slope = F.back(F.residual(p, q)) + penalty.slope(theta)
        d = _direction(F, penalty, theta, p, q, slope)
        draw = np.asarray(F.A @ d.T)
        draw = np.hstack([np.zeros_like(draw), draw]) if F.n_classes == 2 else draw
        centred = draw - (p * draw).sum(axis=1, keepdims=True)
        # the probabilities that the step expects, where they are any, and as they are
        for share in (1.0, 0.0):
            if share and centred.min() >= -1:
                expected = p * (1 + centred)
                rows, top = np.arange(len(p)), expected.argmax(axis=1)
                others = expected.copy()
                others[rows, top] = 0
                missing = 1 - expected
                missing[rows, top] = others.sum(axis=1)
                expected[rows, top] = 1 - missing[rows, top]
                lower = max(lower, F.lower(expected, missing, theta + d))
            elif not share:
                lower = max(lower, F.lower(p, q, theta))
        t = _length(F, penalty, theta, d, raw, draw)
        theta = theta + t * d
        if not has_l1 and F.n_rows > 1:
            theta = theta - theta.mean(axis=0)
        raw = F.raw(theta)
        value = F.loss(raw) + F.penalty(theta)
        if value < upper:
            best, upper = theta, value
        if has_l1:
            cut = np.where(np.abs(penalty.slope(theta) - F.l2 * theta) < 0.5 * F.l1, 0.0, theta)
            of_cut = F.value(cut)
            if of_cut < upper:
                best, upper = cut, of_cut
        if upper - lower <= accuracy * upper:
            break
        if t == 0 or not np.isfinite(value):
            break
        if has_l1 and sharpness < sharpest:
            if -float((slope * d).sum()) <= 0.1 * theta.size / sharpness:
                sharpness = min(sharpness * _SHARPER, sharpest)
            continue
        stalls = stalls + 1 if not upper < before else 0
        before = upper
        if stalls >= _STALLS:
            break
    return Minimum(upper, upper - lower, best, n_steps)


def minimum(F: Objective, starts: Iterable[Array], accuracy: float) -> Minimum:
    """The least F from several starts; those that are left are not tried once ``gap <= accuracy * value``."""
    found = None
    n_steps = 0
    for start in starts:
        now = _descend(F, start, accuracy)
        n_steps += now.n_steps
        if found is not None:
            lower = max(found.value - found.gap, now.value - now.gap)
            now = min(found, now, key=lambda m: m.value)
            now = now._replace(gap=now.value - lower)
        found = now._replace(n_steps=n_steps)
        if found.gap <= accuracy * found.value:
            break
    assert found is not None
    return found
