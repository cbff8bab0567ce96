"""The one statement of the objective, and of what its constants mean.

    F(coef, intercept) = (1 / sum w) * sum_i w_i * [ logsumexp(z_i) - t_i . z_i ]
                         + alpha * ( (1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio * ||coef||_1 )
    z_i = coef @ x_i + intercept          (the intercept is never penalised)

t_i, the target, is 1 for the class of the row and 0 for the others; or a row of a table, >= 0, that sums to 1; with
label smoothing s it is ``(1 - s) t_i + s / n_classes``. F is linear in the targets: a row of soft ones is the same as
n_classes rows of hard ones, of weights ``w_i t_i``, and its Hessian does not depend on them.

With two classes ``coef`` has one row and z_i is (0, coef @ x_i + intercept). Gradients
and Hessians are those of F's smooth part, all but the L1 term, whose steps are ``soft_threshold``'s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.special

from sksoftmax._engines.device import block_size, columns_to_device, to_device_of, to_host, zeros
from sksoftmax._types import Array, Batch, Evaluation, Params, Problem

#: Rows of a block, at least.
_MIN_BLOCK = 64

#: Rows of which the centre is the median, at most.
_N_CENTRE = 255

#: Largest number whose square, summed, is one.
_LARGEST = 1e100


def alpha_from_C(C: float, total_weight: float) -> float:
    """Strength alpha of the penalty on the mean loss that ``LogisticRegression(C=C)`` applies.

    Parameters
    ----------
    C : float
        Inverse strength on the *sum* of the losses, > 0.
    total_weight : float
        Sum of all sample weights (class weights multiplied in); n_samples without weights.
    """
    return 1.0 / (C * total_weight)


def penalty(coef: Array, alpha: float, l1_ratio: float = 0.0) -> tuple[Any, Array]:
    """``alpha * ((1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio * ||coef||_1)``, and the gradient of its smooth part."""
    grad = alpha * (1 - l1_ratio) * coef
    objective_value: Any = 0.5 * np.vdot(grad, coef)
    return objective_value + alpha * l1_ratio * np.abs(coef).sum() if l1_ratio else objective_value, grad


def soft_threshold(coef: Array, threshold: Array | float) -> Array:
    """The minimum of ``1/2 (x - coef)^2 + threshold |x|``: the proximal step of an L1 term, with exact zeros."""
    return coef - np.clip(coef, -threshold, threshold)


def _regularised(problem: Problem, loss: Any, grads: Params, params: Params) -> Evaluation:
    objective_value, coef_grad = penalty(params.coef, problem.alpha, problem.l1_ratio)
    # a shift that all classes share is rounding
    intercept = center_over_classes(grads.intercept) if problem.fit_intercept else np.zeros_like(grads.intercept)
    coef_grad += grads.coef
    return Evaluation(float(loss + objective_value), Params(coef_grad, intercept))


def has_hard_labels(problem: Problem) -> bool:
    """Whether the target of every row is one class."""
    return problem.data.y.ndim == 1 and not problem.label_smoothing


def smooth_targets(problem: Problem, y: Array) -> Array:
    """What a kernel takes for y: codes, or a table of targets, which smoothing makes of these rows' codes."""
    share = problem.label_smoothing
    if not share:
        return y
    if y.ndim == 2:
        return (1 - share) * y + share / problem.n_classes
    table = np.full((len(y), problem.n_classes), share / problem.n_classes, problem.data.X.dtype)
    table[np.arange(len(y)), y] += 1 - share
    return table


def batch_value_and_grad(problem: Problem, params: Params, batch: Batch) -> Evaluation:
    """F and its gradient as a batch estimates them, unbiased. (Of an L1 penalty the value is in, and no gradient.)"""
    loss, grads = batch_loss_grad(problem, params, batch)
    return _regularised(problem, loss, _in_host_memory(grads), params)


def batch_loss_grad(problem: Problem, params: Params, batch: Batch) -> tuple[Any, Params]:
    """The mean loss and its gradient as a batch estimates them.

    The divisor is ``len(batch) * mean(weight)`` over all rows, not the batch's own sum of weights: a mean
    over batches of the latter is not F's gradient.
    """
    X, y, weight = batch
    return problem.kernel.loss_grad(params, X, smooth_targets(problem, y), weight, len(y) * problem.mean_weight)


def block_length(problem: Problem) -> int:
    """As many rows as a cache keeps, with their raw predictions."""
    X = problem.data.X
    stored = X.nnz / max(1, problem.n_samples) if sp.issparse(X) else problem.n_features
    return max(_MIN_BLOCK, int(block_size(X) / X.dtype.itemsize / (stored + problem.n_outputs)))


def iter_blocks(problem: Problem, least: int = 1) -> Iterator[Batch]:
    """All rows in order, a cache's worth at a time: no (n_samples, n_classes) array is ever needed.

    ``least`` are the fewest rows that a block is to have.
    """
    X, (y, weight) = problem.data.X, columns_to_device(problem.data.X, problem.data.y, problem.data.weight)
    size = max(least, block_length(problem))
    for start in range(0, problem.n_samples, size):
        rows = slice(start, start + size)
        yield Batch(X[rows], y[rows], weight[rows])


def _beside(params: Params, X: Any) -> Params:
    """The parameters as products with X take them: converted once, not in every block."""
    return Params(*(to_device_of(part, X) for part in params))


def _in_host_memory(grads: Params) -> Params:
    return Params(*(to_host(part) for part in grads))


def value_and_grad(problem: Problem, params: Params) -> Evaluation:
    """F and its gradient over all rows, in float64 whatever X's dtype."""
    total = total_weight(problem)
    summed = loss_grad if problem.data_source is None else problem.data_source.loss_grad
    return _regularised(problem, *summed(problem, params, total), params)


def loss_grad(problem: Problem, params: Params, total: float) -> tuple[float, Params]:
    """The kernel's, over the rows in memory, in float64."""
    X = problem.data.X
    loss: Any = 0.0
    coef, intercept = (zeros(part.shape, X) for part in params)
    cast = _beside(params, X)
    for block in iter_blocks(problem):
        y = smooth_targets(problem, block.y)
        block_loss, grads = problem.kernel.loss_grad(cast, block.X, y, block.weight, total)
        loss += block_loss
        coef += grads.coef
        intercept += grads.intercept
    return float(loss), _in_host_memory(Params(coef, intercept))


def probabilities(problem: Problem, params: Params) -> Iterator[Array]:
    """Each block's probabilities, (n_outputs, rows of the block)."""
    params = _beside(params, problem.data.X)
    return (problem.kernel.proba(params, block.X) for block in iter_blocks(problem))


def loss(problem: Problem, params: Params) -> float:
    """Sum of the weighted losses of the rows in memory, each at most the logarithm of the least number of X's dtype."""
    total = 0.0
    for block, proba in zip(iter_blocks(problem), probabilities(problem, params), strict=True):
        y, tiny = smooth_targets(problem, block.y), np.finfo(proba.dtype).tiny
        if problem.n_outputs == 1:
            proba = np.concatenate([1 - proba, proba])
        if y.ndim == 1:
            total -= float(block.weight @ np.log(np.maximum(proba[y, np.arange(len(y))], tiny)))
        else:
            total -= float(np.einsum("i,ik,ki->", block.weight, y, np.log(np.maximum(proba, tiny))))
    return total


def objective_value(problem: Problem, params: Params) -> float:
    """F, its losses as in ``loss``."""
    of_penalty, _ = penalty(params.coef, problem.alpha, problem.l1_ratio)
    return float(loss(problem, params) / total_weight(problem) + of_penalty)


def hessian_products(problem: Problem, params: Params, rows: Batch | None = None) -> Callable[[Params], Params]:
    """The Hessian of F's smooth part at ``params``, as a function of what it multiplies.

    Keeps the probabilities of the rows, in X's dtype, where they are no larger than a dense X (n_outputs up to
    n_features); computes them anew for each product otherwise, and of rows that memory does not hold.

    Parameters
    ----------
    rows : Batch or None
        Rows that stand for all, weights that sum to about 1; None for all rows.
    """
    if rows is None and problem.data_source is not None:
        data_term = functools.partial(problem.data_source.hessian_product, problem, params, total=total_weight(problem))
    else:
        part = problem if rows is None else problem._replace(data=rows)
        kept = list(probabilities(part, params)) if problem.n_outputs <= problem.n_features else None
        total = total_weight(problem) if rows is None else 1.0
        data_term = functools.partial(hessian_product, part, params, total=total, kept=kept)

    def product(direction: Params) -> Params:
        coef, intercept = data_term(direction)
        if not problem.fit_intercept:
            intercept[:] = 0
        coef += problem.alpha * (1 - problem.l1_ratio) * direction.coef
        return Params(coef, intercept)

    return product


def hessian_product(
    problem: Problem, params: Params, direction: Params, total: float, kept: list[Array] | None = None
) -> Params:
    """The kernel's, over the rows in memory, in float64; ``kept`` are their ``probabilities``, if at hand."""
    table = probabilities(problem, params) if kept is None else kept
    X = problem.data.X
    coef, intercept = (zeros(part.shape, X) for part in direction)
    cast = _beside(direction, X)
    for block, proba in zip(iter_blocks(problem), table, strict=True):
        part = problem.kernel.hessian_product(proba, cast, block.X, block.weight, total)
        coef += part.coef
        intercept += part.intercept
    return _in_host_memory(Params(coef, intercept))


def total_weight(problem: Problem) -> float:
    """Sum of the weights of all rows."""
    return float((problem.data.weight if problem.data_source is None else problem.data_source.class_weights).sum())


def class_sums(y: Array, weight: Array, n_classes: int) -> Array:
    """Sum of the weights of each class: of codes, or of a table of targets."""
    if y.ndim == 2:
        return np.einsum("i,ik->k", weight, y)
    return np.bincount(y, weight, n_classes)


def class_weights(problem: Problem) -> Array:
    """Sum of the weights of each class's rows, with soft or smoothed targets of its shares of the rows."""
    data, share = problem.data, problem.label_smoothing
    sums = (
        class_sums(data.y, data.weight, problem.n_classes)
        if problem.data_source is None
        else problem.data_source.class_weights
    )
    return (1 - share) * sums + share * sums.mean() if share else sums


def prior_objective(problem: Problem) -> float:
    """F of the model that ignores X: the entropy of the class priors, or log(n_classes) without intercept."""
    if not problem.fit_intercept:
        return float(np.log(problem.n_classes))
    priors = class_weights(problem) / total_weight(problem)
    return float(scipy.special.entr(priors).sum())


def prior_params(problem: Problem) -> Params:
    """Where a fit starts: zero coefficients, intercepts at the log class priors (0 without intercept).

    A class without rows, whose intercept has no minimum, starts as if it had half a row.
    """
    intercept = np.zeros(problem.n_outputs)
    if problem.fit_intercept:
        log_priors = np.log(np.maximum(class_weights(problem), 0.5 * problem.mean_weight))
        intercept = log_priors[1:] - log_priors[0] if problem.n_outputs == 1 else center_over_classes(log_priors)
    return Params(np.zeros((problem.n_outputs, problem.n_features)), intercept)


def better_start(problem: Problem, params: Params) -> tuple[Params, Evaluation]:
    """Return where a solver starts, and F and its gradient there: ``params``, or the class priors if F is less there.

    Further out no row may have any curvature to start from.
    """
    evaluation = value_and_grad(problem, params)
    if not params.coef.any() or evaluation.value <= prior_objective(problem):
        return params, evaluation
    priors = prior_params(problem)
    return priors, value_and_grad(problem, priors)


def center_over_classes(rows: Array) -> Array:
    """Rows less their mean over the classes: no prediction changes, and ``||coef||`` is least."""
    return rows if len(rows) == 1 else np.asarray(rows - rows.mean(axis=0))


def center_params(params: Params, *, has_l1: bool) -> Params:
    """The same model with parameters that sum to 0 over the classes, as far as L1 allows, which chooses itself."""
    return Params(params.coef if has_l1 else center_over_classes(params.coef), center_over_classes(params.intercept))


def center_columns(problem: Problem) -> tuple[Problem, Array | None]:
    """The problem of X less a centre of its columns, and this, where float32 would lose what varies about it.

    X itself and None where that is no concern: float64, sparse rows, or no intercept, which has to absorb the centre.
    """
    X = problem.data.X
    if sp.issparse(X) or X.dtype != np.float32 or not problem.fit_intercept:
        return problem, None
    column_offset = compute_column_offset(X)
    data_source = None if problem.data_source is None else problem.data_source.center_columns(column_offset)
    centered = (
        np.subtract(X, column_offset, order="C") if isinstance(X, np.ndarray) else X - column_offset
    )  # X may be in Fortran order
    return problem._replace(data=problem.data._replace(X=centered), data_source=data_source), column_offset


def in_c_order(problem: Problem) -> Problem:
    """The problem with each row of a NumPy X together in memory."""
    X = problem.data.X
    if not isinstance(X, np.ndarray):
        return problem
    return problem._replace(data=problem.data._replace(X=np.ascontiguousarray(X)))


def compute_column_offset(X: Any) -> Array:
    """The medians of some rows, (n_features,) in float32: next to most numbers of a column, whatever the others are."""
    rows = X[:: -(-X.shape[0] // _N_CENTRE)]
    return np.asarray(np.median(to_host(rows), axis=0), dtype=np.float32)


def has_finite_squares(X: Any) -> bool:
    """Whether the squares of X's numbers, in NumPy or SciPy, and their sums are finite in float64."""
    values = X.data if sp.issparse(X) else X
    return bool(X.dtype != np.float64 or -_LARGEST < values.min(initial=0) <= values.max(initial=0) < _LARGEST)


def shift_intercept(params: Params, column_offset: Array | None, sign: float) -> Params:
    """Parameters of the same model of ``X - sign * column_offset``."""
    if column_offset is None:
        return params
    return params._replace(intercept=params.intercept + sign * (params.coef @ column_offset.astype(np.float64)))
