"""The passes over X alone that the dual solver needs, compiled by numba.

They compute the norms of columns and rows, scale the columns, and convert dense X to CSR. `_solvers._dual_data` calls
them before the first epoch and after a change of kappa. Importing this module imports numba, so it is imported inside
the functions that need it.
"""

from __future__ import annotations

import numpy as np

from sksoftmax._engines.simd import FAST, compiled
from sksoftmax._types import Array


@compiled(FAST)
def mean_squares(indptr: Array, indices: Array, values: Array, norm_weight: Array, squares: Array) -> None:
    """Add ``sum_i norm_weight_i x_ij^2`` to ``squares[j]``."""
    for i in range(len(norm_weight)):
        for e in range(indptr[i], indptr[i + 1]):
            value = np.float64(values[e])
            squares[indices[e]] += norm_weight[i] * value * value


@compiled(FAST)
def row_curvatures(
    indptr: Array, indices: Array, values: Array, norm_weight: Array, scale: Array, intercept_scale: float, q: Array
) -> float:
    """Compute ``q_i = norm_weight_i (x_i' diag(scale) x_i + intercept_scale)``.

    Returns the mean of s = q / (1 + q), where q is without the intercept's part. The mean is weighted by s itself, so
    that empty and nearly empty rows do not count.
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
    """Do `row_curvatures` for dense rows less ``mean``."""
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
    """Fill ``indptr`` of a CSR copy of X: ``indptr[i + 1] - indptr[i]`` nonzeros in row i."""
    for i in range(X.shape[0]):
        count = 0
        for j in range(X.shape[1]):
            count += X[i, j] != 0
        indptr[i + 1] = indptr[i] + count


@compiled(FAST)
def copy_nonzeros(X: Array, indices: Array, values: Array) -> None:
    """Copy the nonzeros of X, row by row: their columns and values."""
    e = 0
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            if X[i, j] != 0:
                indices[e] = j
                values[e] = X[i, j]
                e += 1


@compiled(FAST)
def scale_values(indices: Array, values: Array, factor: Array, out: Array) -> None:
    """Compute ``out[e] = values[e] * factor[indices[e]]``."""
    for e in range(len(values)):
        out[e] = values[e] * factor[indices[e]]
