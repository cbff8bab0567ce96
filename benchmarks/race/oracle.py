"""The stop of an oracle: of all budgets and settings, the fit that reaches a gap soonest.

A rival's own stopping rule is off. Its budget grows until its gap is the least that is asked for or its time is up;
among several settings the worse half goes, each time the time has doubled; then, for each gap, the bracket between
the last budget that missed it and the first that reached it is bisected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

#: Settings that are not dropped for being behind, for who is first early need not be at the end; and how many
#: when fits take more than this share of the time.
_SURVIVORS, _LATE_SURVIVORS, _LATE = 2, 1, 0.5

#: A budget doubles; while a fit takes less than this share of the time it grows faster.
_QUICK, _FASTER = 1 / 16, 4

#: A fit has had its time if it took this share of it.
_ENOUGH = 0.9

#: A rival stands still if its gap is this share of what it was, after so many growths.
_STILL, _GROWTHS = 0.99, 5

#: A bracket is narrow enough, greater budget over less: of fits that are near the time to beat, and of others.
_NARROW, _COARSE = 1.1, 1.2


class Fit(NamedTuple):
    """One fit: settings, budget, seconds (inf if it failed), gap (inf if that is not finite), CPU seconds."""

    setting: int
    budget: int
    seconds: float
    gap: float
    cpu: float = 0.0


class Search(NamedTuple):
    """All fits, the best for each target that was reached, and why there is none for the others."""

    fits: list[Fit]
    best: dict[float, Fit]
    ending: str


def search(
    run: Callable[[int, int], Fit],
    settings: Sequence[int],
    limits: dict[float, float],
    max_budget: int = 2**20,
    near: dict[float, float] | None = None,
) -> Search:
    """Find the least seconds to each target.

    Parameters
    ----------
    run : callable
        ``(setting, budget) -> Fit``.
    settings : sequence of int
        What ``run`` knows its settings by.
    limits : dict of float
        For each target, a gap, the seconds after which it is of no interest any more.
    max_budget : int
        No greater budget than that.
    near : dict of float
        For each target the seconds up to which a budget is found to a tenth; beyond them to a fifth. All, without it.
    """
    fits: list[Fit] = []
    endings: list[str] = []
    racing = [[run(setting, 1)] for setting in settings]
    fits += [line[-1] for line in racing]
    horizon, longest = min(fit.seconds for fit in fits), max(limits.values())
    while racing:
        horizon = min(2 * horizon, longest)
        for line in list(racing):
            while True:
                left = max((limits[t] for t in limits if t < line[-1].gap), default=longest)
                ending = _ending(line, fits, min(limits), left, max_budget)
                if ending or line[-1].seconds > horizon:
                    break
                line.append(run(line[-1].setting, _next_budget(line[-1], left, max_budget)))
                fits.append(line[-1])
            if ending:
                endings.append(ending)
                racing.remove(line)
        racing.sort(key=lambda line: min(fit.gap for fit in line))
        survivors = _SURVIVORS if horizon < _LATE * longest else _LATE_SURVIVORS
        racing = racing[: max(survivors, len(racing) // 2)]
    for target in limits:
        fits += _refine(run, fits, target, (near or {}).get(target, float("inf")))
    best = {t: min((f for f in fits if f.gap <= t), key=lambda f: f.seconds, default=None) for t in limits}
    ending = f"{', '.join(dict.fromkeys(endings))} at gap {min(fit.gap for fit in fits):.1e}"
    return Search(fits, {target: fit for target, fit in best.items() if fit is not None}, ending)


def _ending(line: list[Fit], fits: Sequence[Fit], target: float, left: float, max_budget: int) -> str:
    """Why these settings get no greater budget; empty if they do."""
    last = line[-1]
    if last.gap <= target:
        return "arrived"
    if any(fit.gap <= target and fit.seconds < last.seconds for fit in fits):
        return "others arrived sooner"
    if last.seconds == float("inf"):
        return "failed"
    if last.seconds > _ENOUGH * left:
        return "time is up"
    if last.budget >= max_budget:
        return "budget is up"
    before = line[-1 - _GROWTHS :][0]
    if len(line) > _GROWTHS and not min(fit.gap for fit in line[-_GROWTHS:]) < _STILL * before.gap:
        return "stands still"
    return ""


def _next_budget(last: Fit, left: float, max_budget: int) -> int:
    """A greater budget, whose fit is not to take much longer than ``left`` seconds."""
    growth = _FASTER if last.seconds < _QUICK * left else 2
    affordable = round(last.budget * left / max(last.seconds, 1e-9))
    return min(max(last.budget + 1, min(growth * last.budget, affordable)), max_budget)


def _refine(run: Callable[[int, int], Fit], fits: Sequence[Fit], target: float, near: float) -> list[Fit]:
    """The fits that narrow the bracket of the soonest settings' budgets around ``target``."""
    arrived = [fit for fit in fits if fit.gap <= target]
    if not arrived:
        return []
    first = min(arrived, key=lambda fit: fit.seconds)
    missed = [fit.budget for fit in fits if fit.setting == first.setting and fit.budget < first.budget]
    low, high, more = max(missed, default=first.budget), first.budget, []
    narrow = _NARROW if first.seconds <= near else _COARSE
    while high > low + 1 and high > narrow * low:
        middle = max(low + 1, min(high - 1, round((low * high) ** 0.5)))
        more.append(run(first.setting, middle))
        low, high = (low, middle) if more[-1].gap <= target else (middle, high)
    return more
