"""The passes of the dual solver over the rows, compiled by numba.

`_solvers.dual` explains the algorithm; `_solvers._dual_data` and `_solvers._certificate` call these functions.
Importing this module imports numba, so it is imported inside the functions that need it.

The functions are plain Python over arrays and also run with ``NUMBA_DISABLE_JIT=1``. They release the GIL and write
only to the arrays that they are given. numba caches a compiled function until the file of that function changes: after
an edit of `compiled_row` or `simd` alone, touch the files that import it.

One flat array holds the coefficients, the ``n_lanes`` classes of a feature side by side. ``n_lanes`` is 1 for two
classes, and otherwise n_classes padded to a multiple of 8. Each coefficient is divided by the square root of its
feature's scale, and the values of X are multiplied by it: the inner loops need no further look-up.
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
    """CSR rows: scaled values, class codes, and weights (of mean 1 in an epoch)."""

    indptr: Array
    indices: Array
    values: Array
    y: Array
    weight: Array


class FlatModel(NamedTuple):
    """A flat table of scaled coefficients, their soft thresholds (empty without L1), and the intercepts."""

    table: Array
    l1_thresholds: Array
    intercept: Array


class GradientSums(NamedTuple):
    """Gradient or Hessian product, summed over the rows, in the layout of a `FlatModel`."""

    table: Array
    intercept: Array


class DualVariables(NamedTuple):
    """The dual variables of each row.

    ``residual`` is p - t: the probabilities of the last step less the one-hot target. Its shape is (n_samples,) for
    two classes, of the second class, and otherwise (n_samples, n_lanes), with 0 in the padding. ``entropy`` is the
    entropy of p, and ``q`` the curvature of the row's step (see `_solvers.dual`), both of shape (n_samples,).
    """

    residual: Array
    entropy: Array
    q: Array


@compiled(FAST)
def raw_row(i: int, rows: CsrRows, model: FlatModel, z: Array) -> None:
    """Compute ``z``, the raw predictions of row i."""
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
    """Prefetch all that a step reads of row ``order[a]``, if it exists: rows in random order are not in the cache."""
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
    i: int, z: Array, y: int, weight: float, dual_vars: DualVariables, inv_n: float, gap_tol: float, work: Workspace
) -> tuple[float, float]:
    """Take the dual step of row i, whose raw predictions are ``z``, and update its dual variables in place.

    Returns weight * loss and weight * gap before the step. If the gap is above ``gap_tol``, ``z`` is replaced by
    ``(old - new) * weight / n_samples``, old and new the row's probabilities: the change of the model.
    """
    residual, entropy, q = dual_vars
    r = work.vectors[1]
    loss = softmax(z, y, r, work)
    gap = weight * (loss - dot(residual[i], z) - entropy[i])
    if gap > gap_tol:
        entropy[i] = row_prox(z, y, residual[i], q[i], r, work)
        w = weight * inv_n
        for k in range(len(z)):
            z[k] = (residual[i, k] - r[k]) * w
            residual[i, k] = r[k]
    return weight * loss, gap


@compiled(FAST)
def sdca_epoch_softmax(
    rows: CsrRows,
    model: FlatModel,
    dual_vars: DualVariables,
    order: Array,
    scales: Array,
    gap_tol: float,
    work: Workspace,
) -> tuple[float, float]:
    """Take the dual steps of the rows in ``order``, and update the model and the dual variables in place.

    ``scales`` is the intercept's scale and 1 / n_samples. Returns two sums over the rows, each before the row's step:
    weight * loss, and weight * the Fenchel-Young gap between the dual variables and the raw predictions. Rows whose
    weighted gap is at most ``gap_tol`` do not change.
    """
    z = work.vectors[0]
    loss = 0.0
    gaps = 0.0
    for a in range(len(order)):
        i = order[a]
        prefetch_row(order, a + 1, rows, dual_vars, len(z))
        raw_row(i, rows, model, z)
        row_loss, gap = sdca_step(i, z, rows.y[i], rows.weight[i], dual_vars, scales[1], gap_tol, work)
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
    i: int, z: Array, y: int, weight: float, dual_vars: DualVariables, with_gradient: bool, work: Workspace
) -> tuple[float, float]:
    """Return weight * loss and weight * gap of row i, whose raw predictions are ``z``.

    If ``with_gradient``, the dual variables become those of the model's probabilities p, and ``z`` the gradient,
    weight * (p - t).
    """
    r = work.vectors[1]
    loss = softmax(z, y, r, work)
    gap = weight * (loss - dot(dual_vars.residual[i], z) - dual_vars.entropy[i])
    if with_gradient:
        dual_vars.entropy[i] = loss - dot(r, z)
        for k in range(len(z)):
            dual_vars.residual[i, k] = r[k]
            z[k] = r[k] * weight
    return weight * loss, gap


@compiled(FAST)
def evaluate_block_softmax(
    start: int, z: Array, y: Array, weight: Array, dual_vars: DualVariables, with_gradient: bool, work: Workspace
) -> tuple[float, float]:
    """Sum `evaluate_row` over the rows from ``start``; ``z`` is their raw predictions, (n_block, n_lanes)."""
    loss = 0.0
    gaps = 0.0
    for a in range(len(z)):
        i = start + a
        row_loss, gap = evaluate_row(i, z[a], y[i], weight[i], dual_vars, with_gradient, work)
        loss += row_loss
        gaps += gap
    return loss, gaps


@compiled(FAST)
def evaluate_softmax(
    rows: CsrRows, model: FlatModel, dual_vars: DualVariables, gradient: GradientSums, work: Workspace
) -> tuple[float, float]:
    """Return the sums of `sdca_epoch_softmax` at the model as it is, without a step.

    Unless ``gradient`` is empty, the gradient of the first sum is added to it, and the dual variables become those
    of the model's probabilities.
    """
    z = work.vectors[0]
    loss = 0.0
    gaps = 0.0
    with_gradient = len(gradient.table) > 0
    for i in range(len(rows.y)):
        raw_row(i, rows, model, z)
        row_loss, gap = evaluate_row(i, z, rows.y[i], rows.weight[i], dual_vars, with_gradient, work)
        loss += row_loss
        gaps += gap
        if with_gradient:
            add_row(i, rows, z, gradient)
    return loss, gaps


@compiled(FAST)
def add_row(i: int, rows: CsrRows, z: Array, sums: GradientSums) -> None:
    """Add row i times each of ``z`` to the sums."""
    n_lanes = len(z)
    start, end = rows.indptr[i], rows.indptr[i + 1]
    for first in range(0, n_lanes, LANES):
        add_to_row(sums.table, n_lanes, rows.indices, rows.values, start, end, z, first)
    for k in range(n_lanes):
        sums.intercept[k] += z[k]


@compiled(FAST)
def product_softmax(
    rows: CsrRows, dual_vars: DualVariables, direction: FlatModel, product: GradientSums, work: Workspace
) -> None:
    """Add the Hessian of the loss, at the probabilities of the dual variables, times ``direction``.

    A direction with an empty table moves the intercept alone.
    """
    z = work.vectors[0]
    for i in range(len(rows.y)):
        if len(direction.table) > 0:
            raw_row(i, rows, direction, z)
        else:
            for k in range(len(z)):
                z[k] = direction.intercept[k]
        r, y = dual_vars.residual[i], rows.y[i]
        z_class = z[y]
        for k in range(len(z)):
            z[k] -= z_class
        mean = dot(r, z)
        for k in range(len(z)):
            z[k] = rows.weight[i] * r[k] * (z[k] - mean)
        z[y] -= rows.weight[i] * mean
        add_row(i, rows, z, product)


@compiled(FAST)
def raw_row_binary(i: int, rows: CsrRows, model: FlatModel) -> float:
    """Return the raw prediction of row i, for two classes."""
    total = model.intercept[0]
    if len(model.l1_thresholds) > 0:
        for e in range(rows.indptr[i], rows.indptr[i + 1]):
            j = rows.indices[e]
            w, threshold = model.table[j], model.l1_thresholds[j]
            total += rows.values[e] * (w - min(max(w, -threshold), threshold))
    else:
        for e in range(rows.indptr[i], rows.indptr[i + 1]):
            total += rows.values[e] * model.table[rows.indices[e]]
    return np.float64(total)


@compiled(FAST)
def sdca_step_binary(
    i: int, z: float, y: int, weight: float, dual_vars: DualVariables, inv_n: float, gap_tol: float
) -> tuple[float, float, float]:
    """Do `sdca_step` for two classes; also return the change of the model, 0 if the gap is at most ``gap_tol``."""
    residual, entropy, q = dual_vars
    sign = 1 - 2 * y
    old = np.float64(residual[i])
    loss = softplus(sign * z)
    gap = weight * (loss - old * z - entropy[i])
    if gap <= gap_tol:
        return weight * loss, gap, 0.0
    p, new_entropy = row_prox_binary(sign * z, sign * old, np.float64(q[i]))
    entropy[i] = new_entropy
    residual[i] = sign * p
    return weight * loss, gap, (old - sign * p) * weight * inv_n


@compiled(FAST)
def sdca_epoch_binary(
    rows: CsrRows, model: FlatModel, dual_vars: DualVariables, order: Array, scales: Array, gap_tol: float
) -> tuple[float, float]:
    """Do `sdca_epoch_softmax` for two classes."""
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
        step = model.intercept[0] - model.intercept[0]  # 0 in the dtype of the data
        step += change
        for e in range(rows.indptr[i], rows.indptr[i + 1]):
            model.table[rows.indices[e]] += step * rows.values[e]
        model.intercept[0] += scales[0] * step
    return loss, gaps


@compiled(FAST)
def evaluate_binary(
    rows: CsrRows, model: FlatModel, dual_vars: DualVariables, gradient: GradientSums
) -> tuple[float, float]:
    """Do `evaluate_softmax` for two classes."""
    loss = 0.0
    gaps = 0.0
    with_gradient = len(gradient.table) > 0
    for i in range(len(rows.y)):
        z = raw_row_binary(i, rows, model)
        row_loss, gap, change = evaluate_row_binary(i, z, rows.y[i], rows.weight[i], dual_vars, with_gradient)
        loss += row_loss
        gaps += gap
        if with_gradient:
            add_row_binary(i, rows, change, gradient)
    return loss, gaps


@compiled(FAST)
def evaluate_row_binary(
    i: int, z: float, y: int, weight: float, dual_vars: DualVariables, with_gradient: bool
) -> tuple[float, float, float]:
    """Do `evaluate_row` for two classes; also return the gradient."""
    sign = 1 - 2 * y
    loss = softplus(sign * z)
    gap = weight * (loss - np.float64(dual_vars.residual[i]) * z - dual_vars.entropy[i])
    derivative = sign * logistic(sign * z)
    if with_gradient:
        dual_vars.residual[i] = derivative
        dual_vars.entropy[i] = loss - derivative * z
    return weight * loss, gap, weight * derivative


@compiled(FAST)
def evaluate_block_binary(
    start: int, z: Array, y: Array, weight: Array, dual_vars: DualVariables, with_gradient: bool
) -> tuple[float, float]:
    """Do `evaluate_block_softmax` for two classes."""
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
    changed: Array,
    work: Workspace,
) -> tuple[float, float, int]:
    """Do `sdca_epoch_softmax` for a block of rows, given their raw predictions and inner products.

    ``z`` is the raw predictions before the block, (n_block, n_lanes); on return it holds the changes of the model.
    ``coupling`` is (n_block, n_block): ``coupling[a, c]`` times the change of row c is the change of row a's raw
    prediction. ``changed`` is scratch space, (n_block,). Returns the two sums and the number of rows that changed.
    """
    n_lanes = z.shape[1]
    changes = z.ravel()
    loss = 0.0
    gaps = 0.0
    n_changed = 0
    for a in range(len(order)):
        i = order[a]
        row = z[a]
        for m in range(n_changed):
            c = changed[m]
            for first in range(0, n_lanes, LANES):
                accumulate(changes, c * n_lanes + first, row, first, coupling[a, c])
        row_loss, gap = sdca_step(i, row, y[i], weight[i], dual_vars, inv_n, gap_tol, work)
        loss += row_loss
        gaps += gap
        if gap > gap_tol:
            changed[n_changed] = a
            n_changed += 1
        else:
            for k in range(n_lanes):
                row[k] = row[k] - row[k]
    return loss, gaps, n_changed


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
    changed: Array,
) -> tuple[float, float, int]:
    """Do `sdca_epoch_block_softmax` for two classes."""
    loss = 0.0
    gaps = 0.0
    n_changed = 0
    for a in range(len(order)):
        i = order[a]
        raw = np.float64(z[a, 0])
        for m in range(n_changed):
            raw += coupling[a, changed[m]] * z[changed[m], 0]
        row_loss, gap, change = sdca_step_binary(i, raw, y[i], weight[i], dual_vars, inv_n, gap_tol)
        loss += row_loss
        gaps += gap
        z[a, 0] = change
        if gap > gap_tol:
            changed[n_changed] = a
            n_changed += 1
    return loss, gaps, n_changed


@compiled(FAST)
def add_row_binary(i: int, rows: CsrRows, change: float, sums: GradientSums) -> None:
    """Do `add_row` for two classes."""
    for e in range(rows.indptr[i], rows.indptr[i + 1]):
        sums.table[rows.indices[e]] += change * rows.values[e]
    sums.intercept[0] += change


@compiled(FAST)
def product_binary(rows: CsrRows, dual_vars: DualVariables, direction: FlatModel, product: GradientSums) -> None:
    """Do `product_softmax` for two classes."""
    for i in range(len(rows.y)):
        p = abs(np.float64(dual_vars.residual[i]))
        z = raw_row_binary(i, rows, direction) if len(direction.table) > 0 else np.float64(direction.intercept[0])
        add_row_binary(i, rows, rows.weight[i] * (p * (1 - p)) * z, product)
