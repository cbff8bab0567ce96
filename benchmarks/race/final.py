"""The race's last word: ours and the contenders side by side, each in a process of its own with the data loaded.

Contenders for a target are, of those that the search saw arrive, the best of scikit-learn's solvers, its default, the
best other rival, and whoever took less than 3 times our time. Each gets the settings and budget of the search. Where
that was in another dtype or with other threads, the budget is settled first: up by tenths until it arrives, or down
while it does. Then come rounds, ours and the rivals in turn; who takes more than 5 times our time is timed once.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.race.jobs import Worker
from benchmarks.race.report import has_arrived
from benchmarks.race.rivals import LBFGS, LOGISTIC
from benchmarks.race.search import Case, Race
from benchmarks.rivals import OURS
from benchmarks.timing import machine

Row = dict[str, str]
Said = dict[str, Any]

#: Times our time in the search within which a rival is a contender, and in the final within which it is timed again.
_NEAR, _CLOSE = 3.0, 5.0

#: Rounds; of quick fits more, until ours have taken so many seconds together.
_ROUNDS, _MOST_ROUNDS, _SECONDS = 5, 15, 0.5

#: A budget is settled in steps of this factor, and so many.
_STEP, _MOST_STEPS = 1.1, 6

#: A worker may take this many times what a fit took in the search, and seconds for the start and the score.
_PATIENCE, _START = 10.0, 120.0


class Entrant:
    """A worker that does fits one by one.

    Parameters
    ----------
    worker : Worker
    warm : list of int
        Settings to warm up with.
    """

    def __init__(self, worker: Worker, warm: list[int]) -> None:
        self.worker = worker
        self.points: list[Said] = []
        self.failure = self.package = ""
        worker.tell(warm)
        self.hear("ready", 0.0)

    def hear(self, last: str, seconds: float) -> Said | None:
        """What is said until ``last``: the last fit of it, with the settings in words; None if it failed."""
        fit: Said | None = None
        try:
            while not self.failure:
                said = self.worker.hear(_PATIENCE * seconds + _START)
                if said is None or said["kind"] == "failure":
                    self.failure = said["status"] if said else "crashed"
                elif said["kind"] == "fit":
                    fit = said
                    self.points.append(said)
                elif said["kind"] == last:
                    self.package = said.get("package", self.package)
                    return fit and {**fit, "settings": said["settings"]}
        except queue.Empty:
            self.failure = "ended: it took too long"
        return None

    def fit(self, asked: dict[str, Any], seconds: float) -> Said | None:
        """One fit, which took ``seconds`` before."""
        self.worker.tell(asked)
        return self.hear("done", seconds)


def contenders(rows: Iterable[Row], target: str) -> tuple[list[Row], list[Row]]:
    """Of a search's rows on one problem those that are timed, and those that say for how long nobody arrived."""
    here = [row for row in rows if row["target"] == target]
    arrived = sorted((row for row in here if has_arrived(row)), key=lambda row: float(row["seconds"]))
    ours = next((float(row["seconds"]) for row in arrived if row["rival"] == OURS.name), 0.0)
    arrived = [row for row in arrived if row["rival"] != OURS.name]
    chosen, bounds = [row for row in arrived if float(row["seconds"]) <= _NEAR * ours], []
    for group in (_is_logistic, _is_lbfgs, lambda row: not _is_logistic(row)):
        first = next(filter(group, arrived), None)
        if first is None:
            bounds += [row for row in here if group(row) and row["limit"] and row["rival"] != OURS.name]
        elif first not in chosen:
            chosen.append(first)
    return chosen, [row for i, row in enumerate(bounds) if row not in bounds[:i]]


def _is_logistic(row: Row) -> bool:
    return row["rival"].startswith(LOGISTIC)


def _is_lbfgs(row: Row) -> bool:
    return row["rival"] == LBFGS


def run(race: Race, case: Case, core: int | None) -> None:
    """The final of one problem."""
    source = next((c for c in _sources(case) if race.found(c, "search", OURS.name)), None)
    if source is None or race.is_done(case, "final", OURS.name):
        return
    searched = race.found(source, "search")
    picks = {f"{target:g}": contenders(searched, f"{target:g}") for target in race.options.targets}
    settings: dict[str, list[int]] = {OURS.name: [0]}
    for chosen, _ in picks.values():
        for row in chosen:
            settings.setdefault(row["rival"], []).append(int(row["setting"]))
    load = machine()["load"]
    limits = dict.fromkeys(picks, race.options.limit)
    entrants: dict[str, Entrant] = {}
    try:
        for rival, warm in settings.items():
            job = {**race.job(case, rival, core), "limits": limits, "search": False}
            entrants[rival] = Entrant(Worker(job, case.threads), list(dict.fromkeys(warm)))
        rows = []
        for target, (chosen, bounds) in picks.items():
            known = next(r for r in searched if r["rival"] == OURS.name and r["target"] == target)
            rows += _timed(entrants, [known, *chosen], float(target), is_settled=source == case)
            rows += [_carried(row) for row in bounds]
        rows += [_carried(row) for row in searched if row["target"] == "0"]
        entrants[OURS.name].fit({}, race.options.limit)
    finally:
        for entrant in entrants.values():
            entrant.worker.end()
    for rival in dict.fromkeys(row["rival"] for row in rows):
        entrant = entrants.get(rival)
        points = entrant.points if entrant else []
        race.keep(case, rival, "final", load, [row for row in rows if row["rival"] == rival], points)
    said = [f"{row['rival']} {row['seconds']:.3g} s to {row['target']:g}" for row in rows if row.get("repeats")]
    race.say(f"final of {', '.join(map(str, case))}: {'; '.join(said)}")


def _sources(case: Case) -> list[Case]:
    """Whose search tells the contenders: the same case's, or the nearest one's."""
    return [case, case._replace(threads=1), case._replace(dtype="float32", threads=1)]


def _timed(entrants: dict[str, Entrant], picks: list[Row], target: float, *, is_settled: bool) -> list[Said]:
    """Result rows of ours, the first of the picks, and the contenders, to one target."""
    asked: dict[str, dict[str, Any]] = {}
    fits: dict[str, list[Said]] = {}
    for row in picks:
        rival, seconds = row["rival"], float(row["seconds"])
        entrant = entrants[rival]
        if rival == OURS.name:
            asked[rival] = {"target": target}
            fit = entrant.fit(asked[rival], seconds)
        else:
            budget, fit = _settled(_at(entrant, int(row["setting"]), seconds), int(row["budget"]), target, is_settled)
            asked[rival] = {"setting": int(row["setting"]), "budget": budget}
        fits[rival] = [fit] if fit else []
    ours = fits[OURS.name]
    if ours:
        far = _CLOSE * ours[0]["seconds"]
        close = [
            rival for rival, done in fits.items() if done and done[0]["seconds"] <= far and done[0]["gap"] <= target
        ]
        fits.update(_in_rounds({rival: entrants[rival] for rival in {OURS.name: None} | dict.fromkeys(close)}, asked))
    return [_row(rival, entrants[rival], asked[rival], done, target) for rival, done in fits.items()]


def _at(entrant: Entrant, setting: int, seconds: float) -> Callable[[int], Said | None]:
    return lambda budget: entrant.fit({"setting": setting, "budget": budget}, seconds)


def _settled(
    fit: Callable[[int], Said | None], budget: int, target: float, is_settled: bool
) -> tuple[int, Said | None]:
    """The least budget that arrives, about, and its fit; or the last that was tried."""
    done = fit(budget)
    if done is None or (is_settled and done["gap"] <= target):
        return budget, done
    is_there = done["gap"] <= target
    for _ in range(_MOST_STEPS):
        other = min(budget - 1, round(budget / _STEP)) if is_there else max(budget + 1, round(_STEP * budget))
        tried = fit(other) if other else None
        if tried is None or (is_there and tried["gap"] > target):
            break
        budget, done = other, tried
        if not is_there and done["gap"] <= target:
            break
    return budget, done


def _in_rounds(entrants: dict[str, Entrant], asked: dict[str, dict[str, Any]]) -> dict[str, list[Said]]:
    """Equal fits, one of each entrant in turn."""
    fits: dict[str, list[Said]] = {rival: [] for rival in entrants}
    for i in range(_MOST_ROUNDS):
        for rival, entrant in entrants.items():
            fit = entrant.fit(asked[rival], _START)
            fits[rival] += [fit] if fit else []
        if i + 1 >= _ROUNDS and sum(fit["seconds"] for fit in fits[OURS.name]) > _SECONDS:
            break
    return fits


def _row(rival: str, entrant: Entrant, asked: dict[str, Any], fits: list[Said], target: float) -> Said:
    if not fits:
        return {"rival": rival, "target": target, "status": entrant.failure or "failed"}
    seconds = [fit["seconds"] for fit in fits]
    n_missed = sum(fit["gap"] > target for fit in fits)
    status = "arrived"
    if n_missed and rival == OURS.name:
        status = "missed its tol"
    elif n_missed:
        status = "arrived, but not each time" if n_missed < len(fits) else "does not arrive here"
    return {
        **{"rival": rival, "target": target, "package": entrant.package, "status": status},
        **{"setting": asked.get("setting"), "budget": asked.get("budget"), "settings": fits[-1]["settings"]},
        **{"seconds": float(np.median(seconds)), "seconds_min": min(seconds), "seconds_max": max(seconds)},
        **{"cpu_seconds": float(np.median([fit["cpu"] for fit in fits])), "repeats": len(fits)},
        **{"gap": max(fit["gap"] for fit in fits), "peak_MiB": fits[-1]["peak_MiB"], "note": fits[-1]["note"]},
    }


def _carried(row: Row) -> Said:
    """A row of the search as one of the final's: how long somebody did not arrive."""
    columns = ("rival", "settings", "setting", "budget", "limit", "gap", "note")
    times = ("seconds", "cpu_seconds") if row["target"] == "0" else ()
    return {
        **{column: row[column] for column in columns},
        **{column: float(row[column]) for column in times},
        "target": float(row["target"]),
        "status": f"{row['status']} (in the search, {row['dtype']}, {row['threads']} thread)",
    }
