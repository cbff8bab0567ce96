"""Objective F, its gradient and its Hessian products, summed over blocks of rows.

Every solver, the training loop and the stopping rule evaluate F here; the engines only supply sums over rows.

    F(coef, intercept) = (1 / sum w) * sum_i w_i * [ logsumexp(z_i) - t_i . z_i ]
                         + alpha * ( (1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio * ||coef||_1 )
    z_i = coef @ x_i + intercept          (the intercept is never penalised)

The target t_i is 1 for the class of row i and 0 for the other classes, or a row of a table: >= 0, of sum 1. With label
smoothing s it becomes ``(1 - s) t_i + s / n_classes``. F is linear in the targets. A row with a soft target therefore
equals n_classes rows with hard targets and weights ``w_i t_i``, and the Hessian does not depend on the targets.

With two classes ``coef`` has one row and z_i is (0, coef @ x_i + intercept). Gradients and Hessians are of the smooth
part of F, without the L1 term; ``soft_threshold`` is the proximal step of the L1 term.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.special

from sksoftmax._engines import compiled
from sksoftmax._engines.device import (
    DeviceArray,
    block_size,
    columns_to_device,
    to_device_of,
    to_host,
    zeros_on_device,
)
from sksoftmax._engines.threads import COPY_WORK, map_in_order
from sksoftmax._types import Array, Batch, Evaluation, Params, Problem

#: Minimum rows per block.
_MIN_BLOCK_ROWS = 64

#: Multiplications of a pass over a block of dense rows in the compiled engine, some tenths of a millisecond; and the
#: maximum of entries of its table of raw predictions.
_BLOCK_WORK = 2**24
_TABLE_ENTRIES = 2**16

#: Entries per column in a block of sparse rows.
_ENTRIES_PER_COLUMN = 16

#: Rows that are copied at once.
_COPIED_ROWS = 4096

#: Maximum number of rows from which the column medians are computed.
_N_MEDIAN_ROWS = 255

#: Maximum offset of a column, in units of the mean distance from it, that costs few digits in float32.
_MAX_OFFSET_RATIO = 16.0

#: Bound on |x| below which sums of squares stay finite in float64.
_MAX_MAGNITUDE = 1e100


def alpha_from_C(C: float, total_weight: float) -> float:
    """Return the strength alpha, on the mean loss, of the penalty of ``LogisticRegression(C=C)``.

    Parameters
    ----------
    C : float
        Inverse strength on the *sum* of the losses, > 0.
    total_weight : float
        Sum of all sample weights (class weights multiplied in); n_samples without weights.
    """
    return 1.0 / (C * total_weight)


def penalty(coef: Array, alpha: float, l1_ratio: float = 0.0) -> tuple[Any, Array]:
    """Return the penalty and the gradient of its smooth part.

    The penalty is ``alpha * ((1 - l1_ratio) / 2 * ||coef||^2 + l1_ratio * ||coef||_1)``.
    """
    grad = alpha * (1 - l1_ratio) * coef
    value: Any = 0.5 * np.vdot(grad, coef)
    return value + alpha * l1_ratio * np.abs(coef).sum() if l1_ratio else value, grad


def soft_threshold(coef: Array, threshold: Array | float) -> Array:
    """Return the minimiser of ``1/2 (x - coef)^2 + threshold |x|``, an L1 term's proximal step; zeros are exact."""
    return coef - np.clip(coef, -threshold, threshold)


def _add_penalty(problem: Problem, loss: Any, grads: Params, params: Params) -> Evaluation:
    """Return F and its gradient from the mean loss and the gradient of the mean loss."""
    penalty_value, coef_grad = penalty(params.coef, problem.alpha, problem.l1_ratio)
    # with a row per class the intercept's gradient sums to 0, except for rounding
    intercept = center_over_classes(grads.intercept) if problem.fit_intercept else np.zeros_like(grads.intercept)
    coef_grad += grads.coef
    return Evaluation(float(loss + penalty_value), Params(coef_grad, intercept))


def has_hard_labels(problem: Problem) -> bool:
    """Return whether the target of every row is a single class."""
    return problem.data.y.ndim == 1 and not problem.label_smoothing


def smooth_targets(problem: Problem, y: Array) -> Array:
    """Return ``y`` as the kernel takes it: y itself without label smoothing, else a table of smoothed targets."""
    smoothing = problem.label_smoothing
    if not smoothing:
        return y
    if y.ndim == 2:
        return (1 - smoothing) * y + smoothing / problem.n_classes
    table = np.full((len(y), problem.n_classes), smoothing / problem.n_classes, problem.data.X.dtype)
    table[np.arange(len(y)), y] += 1 - smoothing
    return table


def batch_value_and_grad(problem: Problem, params: Params, batch: Batch) -> Evaluation:
    """Return unbiased estimates of F and its gradient from a batch.

    The value includes an L1 penalty, the gradient does not.
    """
    loss, grads = batch_loss_grad(problem, params, batch)
    return _add_penalty(problem, loss, _params_to_host(grads), params)


def batch_loss_grad(problem: Problem, params: Params, batch: Batch) -> tuple[Any, Params]:
    """Return unbiased estimates of the mean loss and its gradient from a batch.

    The divisor is the batch length times the mean weight of all rows. With the batch's own sum of weights as the
    divisor, the mean over batches would not be the gradient of F.
    """
    X, y, weight = batch
    total = len(y) * problem.mean_weight
    loss, grads = problem.kernel.loss_grad(params, X, smooth_targets(problem, y), weight, total)
    return loss, Params(*(part.astype(X.dtype, copy=False) for part in grads))


def block_length(problem: Problem) -> int:
    """Return the number of rows per block, such that X and the raw predictions of a block fit in cache.

    Sparse rows have larger blocks if the columns are many: a product with a block reads or writes all coefficients,
    which must cost little next to the entries of the block. Its raw predictions take at most 4 times their memory.

    The compiled engine divides dense blocks itself. They are larger, so that the overhead of Python is small.
    """
    X = problem.data.X
    stored = X.nnz / max(1, problem.n_samples) if sp.issparse(X) else problem.n_features
    n_rows = max(_MIN_BLOCK_ROWS, int(block_size(X) / X.dtype.itemsize / (stored + problem.n_outputs)))
    if problem.kernel.is_compiled and isinstance(X, np.ndarray) and problem.n_outputs > 1 and has_hard_labels(problem):
        n_rows_of_work = int(_BLOCK_WORK / (2 * problem.n_outputs * (problem.n_features + 1)))
        n_rows = max(n_rows, min(n_rows_of_work, _TABLE_ENTRIES // problem.n_outputs))
    if sp.issparse(X):
        n_rows = max(n_rows, int(problem.n_features * min(_ENTRIES_PER_COLUMN / max(stored, 1.0), 4.0)))
    return n_rows


def pass_work(problem: Problem) -> float:
    """Return the multiplications of a pass; 0 for an array of another library, which has threads of its own."""
    X = problem.data.X
    if isinstance(X, DeviceArray):
        return 0.0
    n_entries = X.nnz if sp.issparse(X) else problem.n_samples * problem.n_features
    return 2.0 * problem.n_outputs * (n_entries + problem.n_samples)


def iter_blocks(problem: Problem, min_rows: int = 1) -> Iterator[Batch]:
    """Yield all rows in order, in blocks that fit in cache, so that no (n_samples, n_classes) array is needed.

    Every block except the last has at least ``min_rows`` rows.
    """
    take, spans = block_slices(problem, min_rows)
    return map(take, spans)


def block_slices(problem: Problem, min_rows: int = 1) -> tuple[Callable[[slice], Batch], list[slice]]:
    """Return a function that takes the rows of a slice, and the slices of `iter_blocks`."""
    X, (y, weight) = problem.data.X, columns_to_device(problem.data.X, problem.data.y, problem.data.weight)
    size = max(min_rows, block_length(problem))
    spans = [slice(start, start + size) for start in range(0, problem.n_samples, size)]
    return lambda rows: Batch(X[rows], y[rows], weight[rows]), spans


def params_to_device(params: Params, X: Any) -> Params:
    """Return the parameters in X's dtype and on X's device, so that blocks do not convert them again."""
    return Params(*(to_device_of(part, X) for part in params))


def _params_to_host(grads: Params) -> Params:
    """Return ``grads`` as NumPy arrays."""
    return Params(*(to_host(part) for part in grads))


def value_and_grad(problem: Problem, params: Params) -> Evaluation:
    """Return F and its gradient over all rows, in float64 whatever the dtype of X."""
    total = total_weight(problem)
    sum_loss_grad = loss_grad if problem.data_source is None else problem.data_source.loss_grad
    return _add_penalty(problem, *sum_loss_grad(problem, params, total), params)


def sum_parts(parts: Iterable[tuple[Any, Params]], coef: Any, intercept: Any) -> tuple[Any, Params]:
    """Return the sums of the losses and gradients of some parts; ``coef`` and ``intercept`` are zeros to add to."""
    loss: Any = 0.0
    for part_loss, grads in parts:
        loss += part_loss
        coef += grads.coef
        intercept += grads.intercept
    return loss, Params(coef, intercept)


def loss_grad(problem: Problem, params: Params, total: float) -> tuple[float, Params]:
    """Return the sum of the weighted losses over ``total`` and its gradient, for the rows in memory, in float64."""
    kernel, X = problem.kernel, problem.data.X
    if kernel is compiled and sp.issparse(X) and has_hard_labels(problem):
        return compiled.loss_grad(params, X, problem.data.y, problem.data.weight, total)  # it has rounds of its own
    cast = params_to_device(params, X)
    take, spans = block_slices(problem)

    def block_loss_grad(span: slice) -> tuple[Any, Params]:
        block = take(span)
        return kernel.loss_grad(cast, block.X, smooth_targets(problem, block.y), block.weight, total)

    parts = map_in_order(block_loss_grad, spans, pass_work(problem))
    loss, grads = sum_parts(parts, *(zeros_on_device(part.shape, X) for part in params))
    return float(loss), _params_to_host(grads)


def probabilities(problem: Problem, params: Params) -> Iterator[Array]:
    """Yield the probabilities of each block, (n_outputs, rows of the block)."""
    params = params_to_device(params, problem.data.X)
    take, spans = block_slices(problem)
    return map_in_order(lambda span: problem.kernel.proba(params, take(span).X), spans, 0.5 * pass_work(problem))


def loss(problem: Problem, params: Params) -> float:
    """Return the sum of the weighted losses of the rows in memory.

    The logarithm of a probability is clipped to that of the smallest normal number of its dtype, so losses are finite.
    """
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
    """Return F, with clipped losses as in ``loss``."""
    penalty_value, _ = penalty(params.coef, problem.alpha, problem.l1_ratio)
    return float(loss(problem, params) / total_weight(problem) + penalty_value)


def hessian_products(problem: Problem, params: Params, rows: Batch | None = None) -> Callable[[Params], Params]:
    """Return the function that multiplies a direction by the Hessian of F's smooth part at ``params``.

    If n_outputs <= n_features, it caches the probabilities of the rows, which then take no more memory than a dense X.
    Otherwise, and for rows not in memory, it recomputes them in each product.

    Parameters
    ----------
    problem : Problem
    params : Params
    rows : Batch or None
        Sample of the rows, with weights that sum to about 1; None for all rows.
    """
    if rows is None and problem.data_source is not None:
        data_term = functools.partial(problem.data_source.hessian_product, problem, params, total=total_weight(problem))
    else:
        part = problem if rows is None else problem._replace(data=rows)
        probas = list(probabilities(part, params)) if problem.n_outputs <= problem.n_features else None
        total = total_weight(problem) if rows is None else 1.0
        data_term = functools.partial(hessian_product, part, params, total=total, probas=probas)

    def product(direction: Params) -> Params:
        coef, intercept = data_term(direction)
        if not problem.fit_intercept:
            intercept[:] = 0
        coef += problem.alpha * (1 - problem.l1_ratio) * direction.coef
        return Params(coef, intercept)

    return product


def hessian_product(
    problem: Problem, params: Params, direction: Params, total: float, probas: list[Array] | None = None
) -> Params:
    """Return the data term's Hessian times ``direction``, for the rows in memory, in float64.

    ``probas`` are the cached ``probabilities``, or None to compute them.
    """
    table = probabilities(problem, params) if probas is None else probas
    kernel, cast = problem.kernel, params_to_device(direction, problem.data.X)

    take, spans = block_slices(problem)

    def block_product(span: slice, proba: Array) -> tuple[float, Params]:
        block = take(span)
        return 0.0, kernel.hessian_product(proba, cast, block.X, block.weight, total)

    parts: Iterator[tuple[float, Params]]
    if probas is None:
        parts = map(block_product, spans, table)
    else:
        parts = map_in_order(lambda i: block_product(spans[i], probas[i]), range(len(spans)), pass_work(problem))
    _, product = sum_parts(parts, *(zeros_on_device(part.shape, problem.data.X) for part in direction))
    return _params_to_host(product)


def total_weight(problem: Problem) -> float:
    """Return the sum of the weights of all rows."""
    return float((problem.data.weight if problem.data_source is None else problem.data_source.class_weights).sum())


def class_sums(y: Array, weight: Array, n_classes: int) -> Array:
    """Return the sum of the weights of each class, (n_classes,), for class codes or a table of targets."""
    if y.ndim == 2:
        return np.einsum("i,ik->k", weight, y)
    return np.bincount(y, weight, n_classes)


def class_weights(problem: Problem) -> Array:
    """Return the sum of the weights of each class, (n_classes,).

    With soft or smoothed targets a row adds its weight times the target of the class.
    """
    data, smoothing = problem.data, problem.label_smoothing
    sums = (
        class_sums(data.y, data.weight, problem.n_classes)
        if problem.data_source is None
        else problem.data_source.class_weights
    )
    return (1 - smoothing) * sums + smoothing * sums.mean() if smoothing else sums


def prior_objective(problem: Problem) -> float:
    """Return F of the model that ignores X: the entropy of the class priors, or log(n_classes) without intercept."""
    if not problem.fit_intercept:
        return float(np.log(problem.n_classes))
    priors = class_weights(problem) / total_weight(problem)
    return float(scipy.special.entr(priors).sum())


def prior_params(problem: Problem) -> Params:
    """Return the start of a fit: zero coefficients, and intercepts at the log class priors (0 without intercept).

    The intercept of a class without rows has no minimum; it starts as if the class had half a row.
    """
    intercept = np.zeros(problem.n_outputs)
    if problem.fit_intercept:
        log_priors = np.log(np.maximum(class_weights(problem), 0.5 * problem.mean_weight))
        intercept = log_priors[1:] - log_priors[0] if problem.n_outputs == 1 else center_over_classes(log_priors)
    return Params(np.zeros((problem.n_outputs, problem.n_features)), intercept)


def better_start(problem: Problem, params: Params) -> tuple[Params, Evaluation]:
    """Return ``params``, or the class priors if F is smaller there, and F and its gradient.

    If F is larger than at the priors, the rows may be saturated and have no curvature to start from.
    """
    evaluation = value_and_grad(problem, params)
    if not params.coef.any() or evaluation.value <= prior_objective(problem):
        return params, evaluation
    priors = prior_params(problem)
    return priors, value_and_grad(problem, priors)


def center_over_classes(rows: Array) -> Array:
    """Return the rows minus their mean over the classes. This changes no prediction and minimises ``||coef||``."""
    return rows if len(rows) == 1 else np.asarray(rows - rows.mean(axis=0))


def center_params(params: Params, *, has_l1: bool) -> Params:
    """Return the same model with parameters that sum to 0 over the classes.

    With L1 only the intercepts are centred, because the L1 norm determines the shift of the coefficients.
    """
    return Params(params.coef if has_l1 else center_over_classes(params.coef), center_over_classes(params.intercept))


def center_columns(problem: Problem) -> tuple[Problem, Array | None]:
    """Return the problem with an offset subtracted from each column of X, and the offset, (n_features,).

    In float32 a large common offset would hide the variation of a column. Returns the problem unchanged and None if X
    is sparse or not float32, or if there is no intercept to absorb the offset; and X in C order and None if no column
    has a large offset.
    """
    X = problem.data.X
    if sp.issparse(X) or X.dtype != np.float32 or not problem.fit_intercept:
        return problem, None
    column_offset = compute_column_offset(X)
    if not _is_offset_large(X, column_offset):
        return in_c_order(problem), None
    data_source = None if problem.data_source is None else problem.data_source.center_columns(column_offset)
    centered = _subtract(X, column_offset) if isinstance(X, np.ndarray) else X - column_offset
    return problem._replace(data=problem.data._replace(X=centered), data_source=data_source), column_offset


def _subtract(X: Array, column_offset: Array) -> Array:
    """Return ``X - column_offset`` in C order, whatever the order of X."""
    centered = np.empty(X.shape, X.dtype)
    spans = [slice(start, start + _COPIED_ROWS) for start in range(0, len(X), _COPIED_ROWS)]
    work = COPY_WORK * X.size

    def subtract_span(span: slice) -> None:
        np.subtract(X[span], column_offset, out=centered[span])

    deque(map_in_order(subtract_span, spans, work), maxlen=0)
    return centered


def in_c_order(problem: Problem) -> Problem:
    """Return the problem with a NumPy X in C order; copies X if it is not."""
    X = problem.data.X
    if not isinstance(X, np.ndarray):
        return problem
    return problem._replace(data=problem.data._replace(X=np.ascontiguousarray(X)))


def compute_column_offset(X: Any) -> Array:
    """Return the column medians of a subsample of rows, (n_features,) in float32.

    The median is close to most entries of a column, however large the others are.
    """
    return column_medians(to_host(_median_rows(X))).astype(np.float32)


def column_medians(X: Array) -> Array:
    """Return the median of each column of a NumPy array, (n_features,) in float64: many times faster than NumPy's."""
    rows = np.sort(X, axis=0)
    return np.asarray(rows[(len(rows) - 1) // 2 : len(rows) // 2 + 1].mean(axis=0, dtype=np.float64))


def _median_rows(X: Any) -> Any:
    """Return the subsample of rows of which the medians are computed."""
    return X[:: -(-X.shape[0] // _N_MEDIAN_ROWS)]


def _is_offset_large(X: Any, column_offset: Array) -> bool:
    """Return whether the offset of a column is so large, compared with its spread, that float32 loses digits of it."""
    distances = np.abs(to_host(_median_rows(X)) - column_offset)
    return bool((np.abs(column_offset) > _MAX_OFFSET_RATIO * distances.mean(axis=0)).any())


def has_finite_squares(X: Any) -> bool:
    """Return whether squares of the entries of a NumPy or SciPy X, and their sums, are finite in float64."""
    values = X.data if sp.issparse(X) else X
    return bool(
        X.dtype != np.float64 or -_MAX_MAGNITUDE < values.min(initial=0) <= values.max(initial=0) < _MAX_MAGNITUDE
    )


def shift_intercept(params: Params, column_offset: Array | None, sign: float) -> Params:
    """Return the parameters with the same predictions from ``X - sign * column_offset``."""
    if column_offset is None:
        return params
    return params._replace(intercept=params.intercept + sign * (params.coef @ column_offset.astype(np.float64)))
