"""The state of the dual solver, and its coefficients in other coordinates.

`dual` creates the state and updates it; `_dual_finish` moves it by Newton steps.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._engines import compiled
from sksoftmax._solvers._dual_data import DualData, map_columns, scaled_coef, uncenter_params
from sksoftmax._solvers._prox_center import ProxCenter
from sksoftmax._solvers._prox_weights import ProxWeights
from sksoftmax._types import Array, Params, Problem

#: Number of columns that are transposed together, so that they stay in a cache.
_TRANSPOSE_BLOCK = 1024


class DualState(NamedTuple):
    """State of the dual solver. Its arrays are updated in place.

    Attributes
    ----------
    rows : DualData
        The rows, with scaled columns.
    model, dual_vars
        Arguments of the kernels: ``compiled.FlatModel`` and ``compiled.DualVariables``.
    prox_weights : ProxWeights
    prox_center : ProxCenter
    value : float
        F at ``params`` if ``is_exact``, and otherwise the mean of F over the last epoch.
    excess : float
        Estimate or bound of ``(F - F*) / F*``; inf if it is not known.
    estimate : float
        Estimate of F - F*.
    cautious_estimate : float
        Estimate of F - F* with the safety factor of `_prox_center`, for the stopping rule.
    penalty : float
        Penalty at the end of the last epoch.
    gaps : tuple of float
        Mean Fenchel-Young gap of the rows before their steps, for each of the last epochs.
    n_since_change : int
        Epochs since kappa changed.
    n_epochs : int
        Epochs so far.
    last_rise : int
        The last epoch in which F rose.
    factor : float
        Current kappa in units of the initial kappa.
    n_outputs, n_columns : int
        Shape of ``params.coef``.
    next_sum : float
        Epoch after which G is recomputed; inf for float64.
    n_between : int
        Number of epochs between two recomputations.
    next_check : int
        First epoch in which the suboptimality may be certified again.
    is_done : bool
        Whether this solver can do no more, and another one has to go on.
    is_exact : bool
        Whether ``value`` is F at ``params``.
    """

    rows: Any
    model: Any
    dual_vars: Any
    prox_weights: ProxWeights
    prox_center: ProxCenter
    value: float
    excess: float
    estimate: float
    cautious_estimate: float
    penalty: float
    gaps: tuple[float, ...]
    n_since_change: int
    n_epochs: int
    last_rise: int
    factor: float
    n_outputs: int
    n_columns: int
    next_sum: float
    n_between: int
    next_check: int = 0
    is_done: bool = False
    is_exact: bool = False

    @property
    def params(self) -> Params:
        """The parameters in the original coordinates, as a copy."""
        return to_params(self, scaled_coef(self.model), self.model.intercept)

    @property
    def path_cache(self) -> DualData:
        """The rows without scaling, which a fit with another penalty can reuse."""
        rows: DualData = self.rows.unscale_columns()
        return rows


def to_params(state: DualState, table: Array, intercept: Array) -> Params:
    """Return scaled coefficients, (n_features, n_lanes), and their intercept in the original coordinates, as a copy."""
    scaled, root = table[:, : state.n_outputs], state.prox_weights.root[:-1, None]
    coef = np.empty((state.n_outputs, state.n_columns))
    for start in range(0, state.n_columns, _TRANSPOSE_BLOCK):
        columns = slice(start, start + _TRANSPOSE_BLOCK)
        np.multiply(scaled[columns].T, root[columns].T, out=coef[:, columns])
    return uncenter_params(state.rows, Params(coef, intercept[: state.n_outputs].astype(np.float64)))


def active_coef(state: DualState) -> Array:
    """Return the scaled coefficients of the active columns and, last, the intercept, (n_active + 1, n_lanes)."""
    prox_weights, n_outputs = state.prox_weights, state.n_outputs
    stacked = np.zeros_like(state.prox_center.position)
    np.take(scaled_coef(state.model), prox_weights.active, axis=0, out=stacked[:-1], mode="clip")
    if prox_weights.scale[-1]:
        stacked[-1, :n_outputs] = state.model.intercept[:n_outputs] / prox_weights.root[-1]
    return stacked


def penalty_value(problem: Problem, state: DualState) -> float:
    """Return ``objective.penalty`` of the coefficients, computed from the scaled coefficients."""
    table, thresholds = state.model.table.reshape(state.n_columns, -1), state.model.l1_thresholds
    scale, root = state.prox_weights.scale[:-1], state.prox_weights.root[:-1]

    def sums_of(span: slice) -> Array:
        sums = np.zeros(2)
        compiled.kernels.penalty_sums(table[span], thresholds[span], scale[span], root[span], sums)
        return sums

    squares, magnitudes = sum(map_columns(sums_of, table), np.zeros(2))
    return float(problem.alpha * (0.5 * (1 - problem.l1_ratio) * squares + problem.l1_ratio * magnitudes))


def move_center(state: DualState) -> DualState:
    """Return the state with its center at the target; the coefficients move by kappa D times the center's move."""
    prox_weights, prox_center, n_outputs = state.prox_weights, state.prox_center, state.n_outputs
    assert prox_center.target is not None
    target, position = prox_center.target, prox_center.position
    table = state.model.table.reshape(state.n_columns, -1)
    active, fraction = prox_weights.active, prox_weights.prox_fraction.astype(table.dtype)

    def add(span: slice) -> None:
        compiled.kernels.add_moves(active[span], fraction[:-1][span], target[:-1][span], position[:-1][span], table)

    deque(map_columns(add, target[:-1]), maxlen=0)
    if prox_weights.scale[-1]:
        move = (target[-1] - position[-1])[:n_outputs]
        state.model.intercept[:n_outputs] += move * table.dtype.type(prox_weights.root[-1])
    return state._replace(
        prox_center=prox_center._replace(position=prox_center.target, target=None),
        n_since_change=state.n_since_change + 1,
    )
