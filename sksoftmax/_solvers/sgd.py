"""Update rule of stochastic gradient descent: plain, with momentum, or with Nesterov's momentum.

`plan` passes it to `_first_order.first_order`.
"""

from __future__ import annotations

from collections.abc import Callable

from sksoftmax._solvers._first_order import UpdateRule
from sksoftmax._types import Params, add_scaled, scale_params, zeros_like


def sgd_rule(
    momentum: float,
    nesterov: bool,
    precondition: Callable[[Params], Params] = lambda grads: grads,
) -> UpdateRule:
    """Return the rule ``velocity = momentum * velocity - precondition(grads)``, whose direction is the velocity.

    With ``nesterov`` the direction is one velocity ahead: Sutskever, Martens, Dahl & Hinton (2013), ICML, eqs. 3-4,
    in the variables of the look-ahead point. ``momentum=0`` is plain SGD.
    """

    def rule(grads: Params, velocity: Params, step: int) -> tuple[Params, Params, float]:
        change = precondition(grads)
        velocity = add_scaled(scale_params(momentum, velocity), -1.0, change)
        direction = add_scaled(scale_params(momentum, velocity), -1.0, change) if nesterov else velocity
        return direction, velocity, 1 / (1 - momentum)

    return rule


#: Returns the initial velocity, zeros of the parameters' shapes.
init_velocity = zeros_like
