"""Update rule of AdaGrad: the rate of a parameter is divided by the root of the sum of its squared gradients.

`plan` passes it to `_first_order.first_order`.
"""

from __future__ import annotations

import numpy as np

from sksoftmax._solvers._first_order import UpdateRule
from sksoftmax._types import Array, Params, zeros_like


def adagrad_rule(epsilon: float) -> UpdateRule:
    """Return the rule ``-g / (sqrt(sum g^2) + epsilon)``: Duchi, Hazan & Singer (2011), JMLR 12, 2121-2159, fig. 1."""

    def rule(grads: Params, squares: Params, step: int) -> tuple[Params, Params, Array]:
        squares = Params(*(s + g * g for s, g in zip(squares, grads, strict=True)))
        scales = Params(*(1 / (np.sqrt(s) + epsilon) for s in squares))
        return Params(*(-g * scale for g, scale in zip(grads, scales, strict=True))), squares, scales.coef

    return rule


#: Returns the initial sums of squares, zeros of the parameters' shapes.
init_squares = zeros_like
