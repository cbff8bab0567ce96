"""Update rule of Adam, from bias-corrected running means of the gradient and of its square.

`plan` passes it to `_first_order.first_order`; `serialization` saves its memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._solvers._first_order import UpdateRule
from sksoftmax._types import Array, Params, zeros_like


class AdamMemory(NamedTuple):
    """Running means of the gradient (``first``) and of its square (``second``)."""

    first: Params
    second: Params


def init_means(params: Params) -> AdamMemory:
    """Return the initial means, zeros of the parameters' shapes."""
    return AdamMemory(zeros_like(params), zeros_like(params))


def adam_rule(beta_1: float, beta_2: float, epsilon: float) -> UpdateRule:
    """Return the rule ``-m / (sqrt(v) + epsilon)``, bias-corrected: Kingma & Ba (2015), arXiv:1412.6980, alg. 1."""

    def rule(grads: Params, memory: AdamMemory, step: int) -> tuple[Params, AdamMemory, Array]:
        pairs = zip(memory.first, memory.second, grads, strict=True)
        means = [(beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g) for m, v, g in pairs]
        first, second = 1 - beta_1 ** (step + 1), 1 - beta_2 ** (step + 1)
        scales = Params(*(1 / (np.sqrt(v / second) + epsilon) for _, v in means))
        direction = (-(m / first) * scale for (m, _), scale in zip(means, scales, strict=True))
        first_means, second_means = zip(*means, strict=True)
        return Params(*direction), AdamMemory(Params(*first_means), Params(*second_means)), scales.coef

    return rule
