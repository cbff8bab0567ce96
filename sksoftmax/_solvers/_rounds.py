"""Rounds of CSR rows in the dual solver, which threads share.

The rows of a round take their steps from the model at the start of the round; then their changes are added to it.
`rounds.hpp` distributes this work. The rounds depend on the data alone, so that a fit has the same bits on any number
of threads. This module chooses

- the **ranges of columns**. The same thread always multiplies the rows with the coefficients of a range, and adds the
  changes to them. So the coefficients stay in the cache of one core, and cores exchange only sums of products, a number
  for each row, class and range.
- the **number of rows in a round**. Let ``B_i`` be row i, scaled so that its squared norm is ``q_i`` (see `dual`). If
  the loss of each row has curvature h, a round is a step of Jacobi's method for a system with the matrix ::

      1 + M,     M_ij = B_i' B_j h / sqrt((1 + q_i h) (1 + q_j h)) for i != j, and 0 for i = j

  It does not diverge if the largest eigenvalue of M is at most 2. (The spectral norm of a sample bounds the number of
  parallel steps in Takac, Bijral, Richtarik & Srebro, 2013, ICML 30(3), 1022-1030.)
- h: the rows' mean of ``diag(p) - p p'`` is at most ``diag(f) - f f'`` if f, the class frequencies, are their mean
  probabilities, as they are for the best intercept. Its largest eigenvalue is at most the largest f, and at most twice
  the largest ``f (1 - f)``. This bound is nearly reached in the first epoch only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from sksoftmax._engines import compiled
from sksoftmax._types import Array

#: Multiplications of a class that softmax and a step take, roughly.
_STEP_WORK = 100

#: Multiplications of an epoch, some milliseconds, below which rounds are not worth their preparation.
_MIN_EPOCH_WORK = 2**24

#: Multiplications of a round, some tenths of a millisecond, at most: longer ones would save no time.
_MAX_ROUND_WORK = 2**20

#: Multiplications of a row's step for each range of columns, at least. A range costs some 200: its sum goes to memory
#: and back.
_WORK_PER_RANGE = 1200

#: Entries of a row in each range, at least.
_ENTRIES_PER_RANGE = 8

#: Number of ranges, at most.
_MAX_RANGES = 8

#: Rows from which the eigenvalue is estimated.
_N_SAMPLED_ROWS = 256

#: Steps of the power method: the largest eigenvalue usually stands out, because all rows have some columns in common.
_N_POWER_STEPS = 8

#: Upper limit of the largest eigenvalue of M.
_MAX_EIGENVALUE = 2.0


def row_work(X: Any, n_lanes: int) -> float:
    """Return the mean multiplications of a row's step."""
    return float(X.nnz / max(1, X.shape[0]) + _STEP_WORK) * n_lanes


def _has_rounds(X: Any, n_lanes: int) -> bool:
    """Return whether an epoch takes long enough for rounds."""
    return X.shape[0] * row_work(X, n_lanes) >= _MIN_EPOCH_WORK


def count_ranges(X: Any, n_classes: int) -> int:
    """Return the number of ranges of the columns of a CSR X, a power of 2: threads then have as many each."""
    n_lanes = compiled.count_lanes(n_classes)
    if not _has_rounds(X, n_lanes):
        return 1
    by_cost = min(X.nnz / X.shape[0] / _ENTRIES_PER_RANGE, row_work(X, n_lanes) / _WORK_PER_RANGE)
    return int(2 ** np.round(np.log2(np.clip(by_cost, 1, _MAX_RANGES))))


def count_rows(rows: Any, q: Array, intercept_scale: float) -> int:
    """Return the number of rows in a round of `_dual_data.SparseRows`."""
    frequencies = np.bincount(rows.y, rows.norm_weight)
    n_lanes = compiled.count_lanes(len(frequencies))
    if not _has_rounds(rows.X, n_lanes):
        return 1
    variances = frequencies * (1 - frequencies)
    h = variances[0] if len(frequencies) == 2 else min(frequencies.max(), 2 * variances.max())
    stride = max(1, len(q) // _N_SAMPLED_ROWS)
    q, norm_weight = (values[::stride].astype(np.float64) for values in (q, rows.norm_weight))
    X = sp.csr_array((rows.values, rows.X.indices, rows.X.indptr), rows.X.shape)[::stride].astype(np.float64)
    a = q * h / (1 + q * h)
    scale = np.sqrt(norm_weight * h / (1 + q * h))
    v = 1 + np.cos(np.arange(len(q)))  # neither of one sign alone nor without mean
    for _ in range(_N_POWER_STEPS):
        v /= np.linalg.norm(v)
        u = scale * v
        product = scale * (X @ (X.T @ u) + intercept_scale * u.sum())
        eigenvalue = v @ product - a @ v**2
        v = product
    by_cost = _MAX_ROUND_WORK // row_work(rows.X, n_lanes)
    return int(np.clip(1 + _MAX_EIGENVALUE * (len(q) - 1) / max(eigenvalue, 1e-300), 1, max(1, by_cost)))
