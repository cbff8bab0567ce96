"""The compiled engine: visits of sparse rows, by numba. What a visit does and why is in ``_solvers.dual``.

Importing this module imports numba, so only what needs the kernels does, and only then. They are plain Python
over arrays: with ``NUMBA_DISABLE_JIT=1`` they run as they stand. All of them release the interpreter's lock and
write only the arrays that they are given. (numba keeps a compiled function until its own file changes: after an edit
of `compiled_row` or `simd` alone, touch this one.)

Coefficients lie in one flat array, a feature's ``n_lanes`` classes side by side (``n_lanes`` is n_classes padded to
a multiple of 8; 1 for two classes), divided by the square root of the feature's scale, by which the values are
multiplied instead: the loops are dot products and updates that look up nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._engines.compiled_row import Workspace, dot, logistic, row_prox, row_prox_binary, softmax, softplus
from sksoftmax._engines.simd import (
    FAST,
    LANES,
    accumulate,
    accumulate_row,
    accumulate_soft_row,
    add_to_row,
    compiled,
    prefetch,
)
from sksoftmax._types import Array


class CsrRows(NamedTuple):
    """CSR rows with scaled values, their classes, and their weights, of mean 1."""

    indptr: Array
    indices: Array
    values: Array
    y: Array
    weight: Array


class FlatModel(NamedTuple):
    """Scaled coefficients, flat; thresholds by which they are softened (none without L1); intercepts."""

    table: Array
    l1_thresholds: Array
    intercept: Array


class GradientSums(NamedTuple):
    """Sums over the rows, of a model's shape."""

    table: Array
    intercept: Array


class DualVariables(NamedTuple):
    """What each row keeps: the probabilities it last agreed to, less its one-hot truth, their entropy, and its ``q``.

    Two classes: ``residual`` is (n_samples,), of the second class; else (n_samples, n_lanes), 0 in the padding.
    """

    residual: Array
    entropy: Array
    q: Array


@compiled(FAST)
def raw_row(i: int, rows: CsrRows, model: FlatModel, z: Array) -> None:
    """``z <- `` row i's raw predictions."""
    n_lanes = len(z)
    for k in range(n_lanes):
        z[k] = model.intercept[k]
    table, l1_thresholds, _ = model
    start, end = rows.indptr[i], rows.indptr[i + 1]
    for first in range(0, n_lanes, LANES):
        if len(l1_thresholds) > 0:
            accumulate_soft_row(table, n_lanes, rows.indices, rows.values, start, end, z, first, l1_thresholds)
        else:
            accumulate_row(table, n_lanes, rows.indices, rows.values, start, end, z, first)


@compiled(FAST)
def prefetch_row(order: Array, a: int, rows: CsrRows, dual_vars: DualVariables, n_lanes: int) -> None:
    """Ask for what a visit reads of the row at ``a``, if there is one: rows in no order lie in no cache."""
    if a < len(order):
        i = order[a]
        start, end = rows.indptr[i], rows.indptr[i + 1]
        prefetch(rows.indices, start, end)
        prefetch(rows.values, start, end)
        prefetch(rows.y, i, i + 1)
        prefetch(rows.weight, i, i + 1)
        prefetch(dual_vars.residual, i * n_lanes, (i + 1) * n_lanes)
        prefetch(dual_vars.entropy, i, i + 1)
        prefetch(dual_vars.q, i, i + 1)


@compiled(FAST)
def sdca_step(
    i: int, z: Array, y: int, weight: float, dual_vars: DualVariables, inv_n: float, gap_tol: float, t: Workspace
) -> tuple[float, float]:
    """Visit row i, whose raw predictions are ``z``; what it agreed to changes in place.

    Returns weight * loss and weight * gap before the visit. Unless the gap is at most ``gap_tol``, ``z`` is replaced by
    the change of its probabilities, from new to old, times weight / n_samples: what the model is to move by.
    """
    residual, entropy, q = dual_vars
    r = t.work[1]
    loss = softmax(z, y, r, t)
    gap = weight * (loss - dot(residual[i], z) - entropy[i])
    if gap > gap_tol:
        entropy[i] = row_prox(z, y, residual[i], q[i], r, t)
        w = weight * inv_n
        for k in range(len(z)):
            z[k] = (residual[i, k] - r[k]) * w
            residual[i, k] = r[k]
    return weight * loss, gap


@compiled(FAST)
def sdca_epoch_softmax(
    rows: CsrRows, model: FlatModel, dual_vars: DualVariables, order: Array, scales: Array, gap_tol: float, t: Workspace
) -> tuple[float, float]:
    """Visit the rows in ``order``; the model and what the rows agreed to change in place.

    ``scales`` is the intercept's scale and 1 / n_samples. Returns the sums over the visits of weight * loss and of
    weight * the Fenchel-Young gap between a row's kept probabilities and its raw prediction, both before the visit.
    A row whose own gap is at most ``gap_tol`` is left as it is.
    """
    z = t.work[0]
    loss = 0.0
    gaps = 0.0
    for a in range(len(order)):
        i = order[a]
        prefetch_row(order, a + 1, rows, dual_vars, len(z))
        raw_row(i, rows, model, z)
        row_loss, gap = sdca_step(i, z, rows.y[i], rows.weight[i], dual_vars, scales[1], gap_tol, t)
        loss += row_loss
        gaps += gap
        if gap <= gap_tol:
            continue
        start, end = rows.indptr[i], rows.indptr[i + 1]
        for first in range(0, len(z), LANES):
            add_to_row(model.table, len(z), rows.indices, rows.values, start, end, z, first)
        for k in range(len(z)):
            model.intercept[k] += scales[0] * z[k]
    return loss, gaps


@compiled(FAST)
def evaluate_row(
    i: int, z: Array, y: int, weight: float, dual_vars: DualVariables, with_gradient: bool, t: Workspace
) -> tuple[float, float]:
    """Weight * loss and weight * gap of row i, whose raw predictions are ``z``.

    If ``with_gradient``, it agrees to its probabilities, and ``z`` is replaced by the gradient, weight * (p - t).
    """
    r = t.work[1]
    loss = softmax(z, y, r, t)
    gap = weight * (loss - dot(dual_vars.residual[i], z) - dual_vars.entropy[i])
    if with_gradient:
        dual_vars.entropy[i] = loss - dot(r, z)
        for k in range(len(z)):
            dual_vars.residual[i, k] = r[k]
            z[k] = r[k] * weight
    return weight * loss, gap


@compiled(FAST)
def evaluate_block_softmax(
    start: int, z: Array, y: Array, weight: Array, dual_vars: DualVariables, with_gradient: bool, t: Workspace
) -> tuple[float, float]:
    """``evaluate_row`` of the rows from ``start`` whose raw predictions are ``z``, (rows of the block, n_lanes)."""
    loss = 0.0
    gaps = 0.0
    for a in range(len(z)):
        i = start + a
        row_loss, gap = evaluate_row(i, z[a], y[i], weight[i], dual_vars, with_gradient, t)
        loss += row_loss
        gaps += gap
    return loss, gaps


@compiled(FAST)
def evaluate_softmax(
    rows: CsrRows, model: FlatModel, dual_vars: DualVariables, slope: GradientSums, t: Workspace
) -> tuple[float, float]:
    """The sums that `sdca_epoch_softmax` returns, at the model as it is.

    Unless ``slope`` is empty, the gradient of the first is added to it, and the rows agree to the model.
    """
    z = t.work[0]
    loss = 0.0
    gaps = 0.0
    with_gradient = len(slope.table) > 0
    for i in range(len(rows.y)):
        raw_row(i, rows, model, z)
        row_loss, gap = evaluate_row(i, z, rows.y[i], rows.weight[i], dual_vars, with_gradient, t)
        loss += row_loss
        gaps += gap
        if with_gradient:
            add_row(i, rows, z, slope)
    return loss, gaps


@compiled(FAST)
def add_row(i: int, rows: CsrRows, z: Array, sums: GradientSums) -> None:
    """Add row i times each of ``z``."""
    n_lanes = len(z)
    start, end = rows.indptr[i], rows.indptr[i + 1]
    for first in range(0, n_lanes, LANES):
        add_to_row(sums.table, n_lanes, rows.indices, rows.values, start, end, z, first)
    for k in range(n_lanes):
        sums.intercept[k] += z[k]


@compiled(FAST)
def product_softmax(
    rows: CsrRows, dual_vars: DualVariables, direction: FlatModel, product: GradientSums, t: Workspace
) -> None:
    """Add the loss's Hessian, where the probabilities are those that the rows agreed to, times ``direction``.

    One whose table is empty is of the intercept alone.
    """
    z = t.work[0]
    for i in range(len(rows.y)):
        if len(direction.table) > 0:
            raw_row(i, rows, direction, z)
        else:
            for k in range(len(z)):
                z[k] = direction.intercept[k]
        r, y = dual_vars.residual[i], rows.y[i]
        own = z[y]
        for k in range(len(z)):
            z[k] -= own
        mean = dot(r, z)
        for k in range(len(z)):
            z[k] = rows.weight[i] * r[k] * (z[k] - mean)
        z[y] -= rows.weight[i] * mean
        add_row(i, rows, z, product)


@compiled(FAST)
def raw_row_binary(i: int, rows: CsrRows, model: FlatModel) -> float:
    """Row i's raw prediction."""
    total = model.intercept[0]
    if len(model.l1_thresholds) > 0:
        for e in range(rows.indptr[i], rows.indptr[i + 1]):
            j = rows.indices[e]
            w, h = model.table[j], model.l1_thresholds[j]
            total += rows.values[e] * (w - min(max(w, -h), h))
    else:
        for e in range(rows.indptr[i], rows.indptr[i + 1]):
            total += rows.values[e] * model.table[rows.indices[e]]
    return np.float64(total)


@compiled(FAST)
def sdca_step_binary(
    i: int, z: float, y: int, weight: float, dual_vars: DualVariables, inv_n: float, gap_tol: float
) -> tuple[float, float, float]:
    """``sdca_step`` for two classes; also returns the change, 0 if the row is left as it is."""
    residual, entropy, q = dual_vars
    sign = 1 - 2 * y
    old = np.float64(residual[i])
    loss = softplus(sign * z)
    gap = weight * (loss - old * z - entropy[i])
    if gap <= gap_tol:
        return weight * loss, gap, 0.0
    p, h = row_prox_binary(sign * z, sign * old, np.float64(q[i]))
    entropy[i] = h
    residual[i] = sign * p
    return weight * loss, gap, (old - sign * p) * weight * inv_n


@compiled(FAST)
def sdca_epoch_binary(
    rows: CsrRows, model: FlatModel, dual_vars: DualVariables, order: Array, scales: Array, gap_tol: float
) -> tuple[float, float]:
    """``sdca_epoch_softmax`` for two classes."""
    loss = 0.0
    gaps = 0.0
    for a in range(len(order)):
        i = order[a]
        prefetch_row(order, a + 1, rows, dual_vars, 1)
        z = raw_row_binary(i, rows, model)
        row_loss, gap, change = sdca_step_binary(i, z, rows.y[i], rows.weight[i], dual_vars, scales[1], gap_tol)
        loss += row_loss
        gaps += gap
        if gap <= gap_tol:
            continue
        step = model.intercept[0] - model.intercept[0]  # 0 in the data's dtype
        step += change
        for e in range(rows.indptr[i], rows.indptr[i + 1]):
            model.table[rows.indices[e]] += step * rows.values[e]
        model.intercept[0] += scales[0] * step
    return loss, gaps


@compiled(FAST)
def evaluate_binary(
    rows: CsrRows, model: FlatModel, dual_vars: DualVariables, slope: GradientSums
) -> tuple[float, float]:
    """``evaluate_softmax`` for two classes."""
    loss = 0.0
    gaps = 0.0
    with_gradient = len(slope.table) > 0
    for i in range(len(rows.y)):
        z = raw_row_binary(i, rows, model)
        row_loss, gap, change = evaluate_row_binary(i, z, rows.y[i], rows.weight[i], dual_vars, with_gradient)
        loss += row_loss
        gaps += gap
        if with_gradient:
            add_row_binary(i, rows, change, slope)
    return loss, gaps


@compiled(FAST)
def evaluate_row_binary(
    i: int, z: float, y: int, weight: float, dual_vars: DualVariables, with_gradient: bool
) -> tuple[float, float, float]:
    """``evaluate_row`` for two classes; also returns the gradient."""
    sign = 1 - 2 * y
    loss = softplus(sign * z)
    gap = weight * (loss - np.float64(dual_vars.residual[i]) * z - dual_vars.entropy[i])
    slope = sign * logistic(sign * z)
    if with_gradient:
        dual_vars.residual[i] = slope
        dual_vars.entropy[i] = loss - slope * z
    return weight * loss, gap, weight * slope


@compiled(FAST)
def evaluate_block_binary(
    start: int, z: Array, y: Array, weight: Array, dual_vars: DualVariables, with_gradient: bool
) -> tuple[float, float]:
    """``evaluate_block_softmax`` for two classes."""
    loss = 0.0
    gaps = 0.0
    for a in range(len(z)):
        i = start + a
        row_loss, gap, z[a, 0] = evaluate_row_binary(i, np.float64(z[a, 0]), y[i], weight[i], dual_vars, with_gradient)
        loss += row_loss
        gaps += gap
    return loss, gaps


@compiled(FAST)
def sdca_epoch_block_softmax(
    order: Array,
    z: Array,
    coupling: Array,
    y: Array,
    weight: Array,
    dual_vars: DualVariables,
    inv_n: float,
    gap_tol: float,
    moved: Array,
    t: Workspace,
) -> tuple[float, float, int]:
    """``sdca_epoch_softmax`` for a block of rows whose raw predictions and inner products are known.

    ``z`` (rows of the block, n_lanes) are the raw predictions before the block, ``coupling`` how much a row's change
    moves another's; ``moved`` is room. On return ``z`` holds the changes. Returns the two sums and how many rows moved.
    """
    n_lanes = z.shape[1]
    changes = z.ravel()
    loss = 0.0
    gaps = 0.0
    n_moved = 0
    for a in range(len(order)):
        i = order[a]
        row = z[a]
        for m in range(n_moved):
            c = moved[m]
            for first in range(0, n_lanes, LANES):
                accumulate(changes, c * n_lanes + first, row, first, coupling[a, c])
        row_loss, gap = sdca_step(i, row, y[i], weight[i], dual_vars, inv_n, gap_tol, t)
        loss += row_loss
        gaps += gap
        if gap > gap_tol:
            moved[n_moved] = a
            n_moved += 1
        else:
            for k in range(n_lanes):
                row[k] = row[k] - row[k]
    return loss, gaps, n_moved


@compiled(FAST)
def sdca_epoch_block_binary(
    order: Array,
    z: Array,
    coupling: Array,
    y: Array,
    weight: Array,
    dual_vars: DualVariables,
    inv_n: float,
    gap_tol: float,
    moved: Array,
) -> tuple[float, float, int]:
    """``sdca_epoch_block_softmax`` for two classes."""
    loss = 0.0
    gaps = 0.0
    n_moved = 0
    for a in range(len(order)):
        i = order[a]
        raw = np.float64(z[a, 0])
        for m in range(n_moved):
            raw += coupling[a, moved[m]] * z[moved[m], 0]
        row_loss, gap, change = sdca_step_binary(i, raw, y[i], weight[i], dual_vars, inv_n, gap_tol)
        loss += row_loss
        gaps += gap
        z[a, 0] = change
        if gap > gap_tol:
            moved[n_moved] = a
            n_moved += 1
    return loss, gaps, n_moved


@compiled(FAST)
def add_row_binary(i: int, rows: CsrRows, change: float, sums: GradientSums) -> None:
    """``add_row`` for two classes."""
    for e in range(rows.indptr[i], rows.indptr[i + 1]):
        sums.table[rows.indices[e]] += change * rows.values[e]
    sums.intercept[0] += change


@compiled(FAST)
def product_binary(rows: CsrRows, dual_vars: DualVariables, direction: FlatModel, product: GradientSums) -> None:
    """``product_softmax`` for two classes."""
    for i in range(len(rows.y)):
        p = abs(np.float64(dual_vars.residual[i]))
        z = raw_row_binary(i, rows, direction) if len(direction.table) > 0 else np.float64(direction.intercept[0])
        add_row_binary(i, rows, rows.weight[i] * (p * (1 - p)) * z, product)


@compiled(FAST)
def mean_squares(indptr: Array, indices: Array, values: Array, norm_weight: Array, squares: Array) -> None:
    """``squares[j] += sum_i share_i x_ij^2``."""
    for i in range(len(norm_weight)):
        for e in range(indptr[i], indptr[i + 1]):
            value = np.float64(values[e])
            squares[indices[e]] += norm_weight[i] * value * value


@compiled(FAST)
def row_curvatures(
    indptr: Array, indices: Array, values: Array, norm_weight: Array, scale: Array, intercept_scale: float, q: Array
) -> float:
    """``q_i <- share_i (x_i' diag(scale) x_i + intercept_scale)``.

    Returns the mean of s = q / (1 + q), q without the intercept's part, weighted by s itself: rows that are empty
    or next to it do not count.
    """
    total = 1e-300
    squared = 0.0
    for i in range(len(norm_weight)):
        norm = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            value = np.float64(values[e])
            norm += value * value * scale[indices[e]]
        s = norm * norm_weight[i]
        q[i] = s + intercept_scale * norm_weight[i]
        s = s / (1 + s)
        total += s
        squared += s * s
    return squared / total


@compiled(FAST)
def dense_row_curvatures(
    X: Array, mean: Array, norm_weight: Array, scale: Array, intercept_scale: float, q: Array
) -> float:
    """``row_curvatures`` of dense rows less ``mean``."""
    total = 1e-300
    squared = 0.0
    for i in range(len(norm_weight)):
        norm = 0.0
        for j in range(X.shape[1]):
            value = np.float64(X[i, j] - mean[j])
            norm += value * value * scale[j]
        s = norm * norm_weight[i]
        q[i] = s + intercept_scale * norm_weight[i]
        s = s / (1 + s)
        total += s
        squared += s * s
    return squared / total


@compiled(FAST)
def count_nonzeros(X: Array, indptr: Array) -> None:
    """``indptr[i + 1] <- indptr[i] + `` the number of nonzeros of row i."""
    for i in range(X.shape[0]):
        count = 0
        for j in range(X.shape[1]):
            count += X[i, j] != 0
        indptr[i + 1] = indptr[i] + count


@compiled(FAST)
def copy_nonzeros(X: Array, indices: Array, values: Array) -> None:
    """The nonzeros, row by row: their columns and values."""
    e = 0
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            if X[i, j] != 0:
                indices[e] = j
                values[e] = X[i, j]
                e += 1


@compiled(FAST)
def scale_values(indices: Array, values: Array, factor: Array, out: Array) -> None:
    """``out[e] <- values[e] * factor[column of e]``."""
    for e in range(len(values)):
        out[e] = values[e] * factor[indices[e]]
