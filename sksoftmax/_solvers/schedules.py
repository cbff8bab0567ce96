"""Schedules of the learning rate: the factor on the base rate, as a function of the step.

`plan` makes them with `schedule`; the solvers by batches call them.

References
----------
inverse scaling: Robbins & Monro (1951), Ann. Math. Statist. 22(3), 400-407.
cosine: Loshchilov & Hutter (2017), SGDR, arXiv:1608.03983, eq. 5 without restarts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

#: Maps step (int >= 0, updates so far) and horizon (int >= 1, updates planned; None on a stream) to a factor >= 0.
Schedule = Callable[[int, int | None], float]


def constant() -> Schedule:
    """Return the schedule that is 1 at every step."""
    return lambda step, horizon: 1.0


def inverse_scaling(power: float) -> Schedule:
    """Return the schedule ``(step + 1) ** -power``."""
    return lambda step, horizon: (step + 1.0) ** -power


def linear() -> Schedule:
    """Return the schedule that falls linearly from 1 to 0 over the horizon; it is 1 if the horizon is None."""
    return lambda step, horizon: 1.0 if horizon is None else max(0.0, 1.0 - step / horizon)


def cosine() -> Schedule:
    """Return the schedule that falls from 1 to 0 over the horizon as half a cosine; it is 1 if the horizon is None."""

    def factor(step: int, horizon: int | None) -> float:
        if horizon is None:
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / horizon)))

    return factor


def schedule(name: str, power: float) -> Schedule:
    """Return the schedule called ``name``; ``power`` is the exponent of inverse scaling."""
    makers: dict[str, Callable[[], Schedule]] = {
        "constant": constant,
        "inverse_scaling": lambda: inverse_scaling(power),
        "linear": linear,
        "cosine": cosine,
    }
    return makers[name]()
