"""AdaGrad: each parameter's rate falls with the root of the sum of its squared gradients."""

from __future__ import annotations

import numpy as np

from sksoftmax._solvers._first_order import Rule
from sksoftmax._types import Params, zeros_like


def adagrad_rule(epsilon: float) -> Rule:
    """``-g / (sqrt(sum g^2) + epsilon)``: Duchi, Hazan & Singer (2011), JMLR 12, 2121-2159, fig. 1."""

    def rule(grads: Params, squares: Params, step: int) -> tuple[Params, Params]:
        squares = Params(*(s + g * g for s, g in zip(squares, grads, strict=True)))
        direction = (-g / (np.sqrt(s) + epsilon) for g, s in zip(grads, squares, strict=True))
        return Params(*direction), squares

    return rule


init_squares = zeros_like
