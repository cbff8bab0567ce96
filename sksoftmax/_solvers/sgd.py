"""Stochastic gradient descent: plain, with momentum, with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Callable

from sksoftmax._solvers._first_order import Rule
from sksoftmax._types import Params, add_scaled, scale_params, zeros_like


def sgd_rule(
    momentum: float,
    nesterov: bool,
    precondition: Callable[[Params], Params] = lambda grads: grads,
) -> Rule:
    """``velocity = momentum * velocity - precondition(grads)``, and the velocity is the direction.

    Nesterov's form looks one velocity ahead: Sutskever, Martens, Dahl & Hinton (2013), ICML, eqs. 3-4, in
    the variables of the look-ahead point. ``momentum=0`` is plain SGD.
    """

    def rule(grads: Params, velocity: Params, step: int) -> tuple[Params, Params, float]:
        change = precondition(grads)
        velocity = add_scaled(scale_params(momentum, velocity), -1.0, change)
        direction = add_scaled(scale_params(momentum, velocity), -1.0, change) if nesterov else velocity
        return direction, velocity, 1 / (1 - momentum)

    return rule


init_velocity = zeros_like
