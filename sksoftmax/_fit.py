"""From a problem to its minimum: the choice, and the training; of a sample first, if memory does not hold all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._narrow import Narrow, classes_with_rows, narrowed, of_classes
from sksoftmax._objective import in_c_order, less_means, shifted
from sksoftmax._plan import Settings, choose, statistics, takes_dual
from sksoftmax._solvers._rows import is_mostly_zeros
from sksoftmax._stopping import StopReason
from sksoftmax._train import Epoch, Result, Rules, Watch, train
from sksoftmax._types import Array, Moments, Params, Problem

#: Excess up to which a model is fitted to a sample: the sample's minimum itself is further from that of all rows.
_TOL_OF_SAMPLE = 1e-2


def minimum(
    problem: Problem,
    params: Params,
    settings: Settings,
    rules: Rules,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    watch: Watch,
) -> tuple[Result, dict[str, object]]:
    """The parameters that minimise F, from ``params``, and what was chosen.

    ``is_warm`` says whether these are better than none. Of rows that memory does not hold ``solver="auto"`` fits the
    sample first, and goes on from there.
    """
    if problem.whole is None or is_warm or settings.solver != "auto":
        return _trained(problem, params, settings, rules, is_warm=is_warm, rng=rng, watch=watch)
    sample = problem._replace(whole=None, mean_weight=float(problem.data.weight.mean()))
    tol = max(_TOL_OF_SAMPLE, rules.tol)
    start, _ = _trained(
        *(sample, params, settings._replace(tol=tol), rules._replace(tol=tol)), is_warm=False, rng=rng, watch=SILENT
    )
    result, info = _trained(problem, start.params, settings, rules, is_warm=True, rng=rng, watch=watch)
    return result, {**info, "sample": f"{problem.n_samples} rows, {start.solver}"}


def _trained(
    problem: Problem,
    params: Params,
    settings: Settings,
    rules: Rules,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    watch: Watch,
) -> tuple[Result, dict[str, object]]:
    if problem.n_classes == 1:
        return _of_one_class(params, rules, watch), {}
    if (seen := classes_with_rows(problem)) is not None:
        narrow: Narrow | None = of_classes(problem, seen)
    else:
        narrow = narrowed(problem, may_rotate=may_rotate(problem, settings)) if problem.whole is None else None
    if narrow is not None:
        rules, watch = _seen_from(rules, watch, narrow.back)
        result, info = _trained(
            *(narrow.problem, narrow.to(params), settings, rules), is_warm=is_warm, rng=rng, watch=watch
        )
        return result._replace(params=narrow.back(result.params)), info
    ready = in_solvers_coordinates(problem, settings)
    result, info = trained_from(ready, params, settings, rules, is_warm=is_warm, rng=rng, watch=watch)
    return result._replace(bought=None), info  # no fit goes on from it: it would be kept in memory for nothing


def _of_one_class(params: Params, rules: Rules, watch: Watch) -> Result:
    """Return the result of a fit to rows of one class: one epoch, and F = 0 whatever the parameters."""
    score = None if rules.score is None else rules.score(params)
    result = Result(params, [0.0], [0.0], [] if score is None else [score], StopReason.TOL, 0.0, "priors")
    watch.begins()
    watch.ends(Epoch(1, 0.0, 0.0, score, lambda: result))
    return result


def may_rotate(problem: Problem, settings: Settings) -> bool:
    """Whether a fit is as good in any coordinates: the solver sees to them, and X has few zeros to lose.

    And there is a penalty: among coefficients that predict the same none are meant but the shortest. The naive engine
    shows the sums in the coordinates given.
    """
    is_free = settings.solver == "auto" and settings.engine != "naive" and problem.alpha > 0
    return is_free and isinstance(problem.data.X, np.ndarray) and not is_mostly_zeros(problem.data.X)


class Ready(NamedTuple):
    """A problem as its solvers take it.

    Attributes
    ----------
    problem : Problem
    centre : ndarray of shape (n_features,) or None
        What its columns are less by.
    stats : Moments or None
        Their statistics, if known.
    bought : object
        What a fit of another penalty has paid for: see ``Solver``.
    """

    problem: Problem
    centre: Array | None = None
    stats: Moments | None = None
    bought: Any = None


def in_solvers_coordinates(problem: Problem, settings: Settings) -> Ready:
    """The problem less its columns' means, unless the dual takes it as it is."""
    return Ready(in_c_order(problem)) if takes_dual(problem, settings) else Ready(*less_means(problem))


def made_ready(problem: Problem, settings: Settings) -> Ready:
    """The problem with what fits of any penalty to these rows, or to most of them, share."""
    ready = in_solvers_coordinates(problem, settings)
    if takes_dual(problem, settings):
        return ready
    return ready._replace(stats=statistics(ready.problem, settings, is_warm=False))


def trained_from(
    ready: Ready,
    params: Params,
    settings: Settings,
    rules: Rules,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    watch: Watch,
    is_rough: bool = False,
) -> tuple[Result, dict[str, object]]:
    """As ``minimum``; the parameters are those of X as it was given. ``is_rough``: see ``choose``."""
    problem, centre, stats, bought = ready
    plan = choose(problem, settings, is_warm=is_warm, rng=rng, known=stats, bought=bought, is_rough=is_rough)
    rules, watch = _seen_from(rules, watch, lambda params: shifted(params, centre, -1.0))
    start = shifted(params, centre, 1.0)
    result = train(problem, start, plan, rules, shuffle=settings.shuffle, rng=rng, watch=watch)
    return result._replace(params=shifted(result.params, centre, -1.0)), plan.info


def _seen_from(rules: Rules, watch: Watch, back: Callable[[Params], Params]) -> tuple[Rules, Watch]:
    """The rules and the watch of a problem in other coordinates, from which ``back`` leads."""
    score = rules.score
    if score is not None:
        rules = rules._replace(score=lambda params: score(back(params)))

    def ends(epoch: Epoch) -> bool:
        def so_far() -> Result:
            result = epoch.so_far()
            return result._replace(params=back(result.params))

        return watch.ends(epoch._replace(so_far=so_far))

    return rules, watch._replace(ends=ends)


#: Nobody is told of the epochs.
SILENT = Watch(lambda: None, lambda epoch: False)
