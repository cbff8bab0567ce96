"""Settings of a fit, and the plan of its stages.

The estimators make the settings of their parameters; `plan` makes a plan of them, and the training loop runs it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._types import Solver

#: Minimum rows of an "auto" batch: fewer would not keep a matrix product busy.
MIN_BATCH = 256


class Settings(NamedTuple):
    """The hyperparameters that the choice of solvers depends on; see ``SoftmaxClassifier``.

    ``use_dual`` is True for ``solver="dual"``, whose ``solver`` is "auto" here. False excludes the dual solver; with
    None the plan decides.
    """

    solver: str
    batch_size: int | None
    learning_rate: float | None
    schedule: str
    power_t: float
    momentum: float
    nesterov: bool
    average: bool
    beta_1: float
    beta_2: float
    epsilon: float
    max_iter: int
    tol: float
    engine: str = "auto"
    shuffle: bool = True
    keep_rows: bool = True
    half_life: float = np.inf
    use_dual: bool | None = None


class Stage(NamedTuple):
    """A solver and its number of epochs; None for all remaining epochs."""

    solver: Solver
    n_epochs: int | None


class Plan(NamedTuple):
    """The solvers of a fit.

    Attributes
    ----------
    stages : list of Stage
        Solvers in their order; each starts from the parameters that the previous one reached.
    preconditioner : GramPreconditioner or None
        For the check whether F is near its minimum, if the solver has no estimate of its own; None on a stream.
    tol : float
        Relative excess at which the fit stops; see `tolerance.stop_tol`.
    info : dict
        The choices for ``solver_info_``, except the names of the solvers that ran.
    allow_estimate : bool, default=False
        Whether the last value of F may be an estimate, as in a search, which does not report it.
    """

    stages: list[Stage]
    preconditioner: GramPreconditioner | None
    tol: float
    info: dict[str, object]
    allow_estimate: bool = False
