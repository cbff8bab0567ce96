"""Preconditioned minibatch SGD with momentum, the solver of the first epochs of a fit.

`plan` uses it before Newton's steps, with the `GramPreconditioner` of a bound of the curvature of F.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._engines.device import to_device_of, to_host, zeros_on_device
from sksoftmax._maths.objective import batch_loss_grad, penalty
from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._solvers.schedules import Schedule
from sksoftmax._types import Array, Batch, Params, Problem, Report, Solver


class PreconditionedState(NamedTuple):
    """State of preconditioned SGD, in the coordinates of the preconditioner (see ``gram_preconditioner``).

    Its arrays have the dtype of X and are on the device of X (sparse X: float64). In these coordinates every column has
    a scale of 1, so that float32 is accurate enough for columns of any scale.

    Attributes
    ----------
    u : ndarray of shape (n_outputs, n_features)
        ``coef * scale``.
    b : ndarray of shape (n_outputs,)
        ``intercept + coef @ mean``.
    velocity_u, velocity_b : ndarray
        Velocities of ``u`` and ``b``, of the same shapes.
    inverse_scale, mean : ndarray of shape (n_features,)
        Inverse scales and means of the columns, from the preconditioner.
    inverse : ndarray of shape (n_features, n_features) or (n_features,)
        The inverse matrix of the preconditioner, or its diagonal.
    step : int
        Updates so far.
    rate : float
        Base learning rate, > 0; the training loop reduces it after a divergence.
    total : number, in float64
        Sum over the batches of the current epoch of F, estimated on each batch before its step. It stays on the device
        of X, so that no step waits for a copy.
    """

    u: Array
    b: Array
    velocity_u: Array
    velocity_b: Array
    inverse_scale: Array
    mean: Array
    inverse: Array
    step: int
    rate: float
    total: Any

    @property
    def params(self) -> Params:
        """The parameters in the original coordinates, in float64 on the host."""
        coef = to_host(self.u) * to_host(self.inverse_scale).astype(np.float64)
        return Params(coef, to_host(self.b) - coef @ to_host(self.mean))


def _initial_state(
    problem: Problem, params: Params, preconditioner: GramPreconditioner, rate: float
) -> PreconditionedState:
    """Return the state with these parameters, in the coordinates of the preconditioner, and no velocity."""
    X = problem.data.X
    dtype = np.float64 if sp.issparse(X) else X.dtype
    is_constant = np.isinf(preconditioner.scale)
    u = np.where(is_constant, 0.0, params.coef * np.where(is_constant, 0.0, preconditioner.scale))
    b = params.intercept + params.coef @ preconditioner.mean
    return PreconditionedState(
        u=to_device_of(u, X, dtype),
        b=to_device_of(b, X, dtype),
        velocity_u=zeros_on_device(u.shape, X, dtype),
        velocity_b=zeros_on_device(b.shape, X, dtype),
        inverse_scale=to_device_of(1 / preconditioner.scale, X, dtype),
        mean=to_device_of(preconditioner.mean, X, dtype),
        inverse=to_device_of(preconditioner.inverse, X, dtype),
        step=0,
        rate=rate,
        total=0.0,
    )


def preconditioned_sgd(
    preconditioner: GramPreconditioner,
    rate: float,
    schedule: Schedule,
    batch_size: int,
    n_batches: int,
    n_epochs: int,
    momentum: float,
    nesterov: bool,
) -> Solver:
    """Return the solver with ``velocity = momentum * velocity - preconditioner(gradient)`` for each batch.

    With ``nesterov`` the direction is one velocity ahead: Sutskever, Martens, Dahl & Hinton (2013), ICML, eqs. 3-4,
    in the variables of the look-ahead point.

    Parameters
    ----------
    preconditioner : GramPreconditioner
        Inverse of a bound of the curvature of F.
    rate : float
        Base step length, in the coordinates of the preconditioner, > 0.
    schedule : callable
        Maps step and horizon to a factor on ``rate``.
    batch_size : int
        Rows of a batch.
    n_batches, n_epochs : int
        Batches of an epoch, and epochs; their product is the horizon of the schedule.
    momentum : float
        In [0, 1); 0 is plain SGD.
    nesterov : bool
        Whether to use Nesterov's momentum.
    """

    def init(problem: Problem, params: Params) -> PreconditionedState:
        return _initial_state(problem, params, preconditioner, rate)

    def step(problem: Problem, state: PreconditionedState, batch: Batch) -> PreconditionedState:
        u, b, velocity_u, velocity_b, inverse_scale, mean, inverse, n_steps = state[:8]
        coef = u * inverse_scale
        params = Params(coef, b - coef @ mean)
        loss, grads = batch_loss_grad(problem, params, batch)
        penalty_value, penalty_grad = penalty(coef, problem.alpha, problem.l1_ratio)
        if problem.l1_ratio:  # a subgradient suffices, as Newton's steps follow
            penalty_grad = penalty_grad + problem.alpha * problem.l1_ratio * np.sign(coef)
        value = loss + penalty_value.astype(np.float64)
        grad_u = (grads.coef - np.outer(grads.intercept, mean) + penalty_grad) * inverse_scale
        change_u = grad_u.astype(u.dtype, copy=False) @ inverse if inverse.ndim == 2 else grad_u * inverse
        change_b = preconditioner.intercept_rate * grads.intercept
        velocity_u = momentum * velocity_u - change_u
        velocity_b = momentum * velocity_b - change_b
        length = state.rate * schedule(n_steps, n_batches * n_epochs)
        u = u + length * (momentum * velocity_u - change_u if nesterov else velocity_u)
        b = b + length * (momentum * velocity_b - change_b if nesterov else velocity_b)
        return state._replace(
            u=u.astype(inverse_scale.dtype, copy=False),
            b=b.astype(inverse_scale.dtype, copy=False),
            velocity_u=velocity_u,
            velocity_b=velocity_b,
            step=n_steps + 1,
            total=state.total + value if n_steps % n_batches else value,
        )

    def evaluate(problem: Problem, state: PreconditionedState) -> Report:
        n_done = (state.step - 1) % n_batches + 1
        return Report(float(state.total) / n_done, np.inf, False, is_exact=False)

    return Solver("preconditioned_sgd", init, step, evaluate, batch_size)
