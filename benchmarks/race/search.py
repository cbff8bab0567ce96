"""The race's search: each rival's best settings and budget for each target, and the rows that are kept of it.

``bench_race`` runs it; the final rounds (``final.py``) take their contenders from its rows.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import minima, problems, report
from benchmarks.problem_sets import SETS
from benchmarks.race import jobs
from benchmarks.race import report as race_report
from benchmarks.race.rivals import LBFGS, LOGISTIC
from benchmarks.rivals import OURS
from benchmarks.timing import machine

#: Times ours that the fits of scikit-learn's solvers, of its default and of other rivals may take: our claims of them
#: are 10, 20 and 2. At least so many seconds, however quick ours are.
_FACTORS = {"sklearn": 12.0, "lbfgs": 21.0, "other": 4.0}
_LEAST_LIMIT = 0.25

#: Times ours up to which a rival's least budget is found to a tenth, beyond to a fifth.
_NEAR = 3.0

#: Times the soonest of its kind so far that a fit may take.
_BEHIND = 1.25

#: F below F* by more than this, relative, means that F* is wrong.
_BELOW = 1e-9

COLUMNS = (
    *("phase", "commit", "machine", "load", "threads", "versions", "problem", "n_samples", "dtype", "rival"),
    *("settings", "setting", "budget", "target", "seconds", "seconds_min", "seconds_max", "cpu_seconds", "repeats"),
    *("gap", "ratio", "peak_MiB", "limit", "status", "note", "passes"),
)
POINTS = ("phase", "commit", "problem", "dtype", "threads", "rival", "settings", "seconds", "cpu_seconds", "gap")


class Case(NamedTuple):
    """What a row is of, besides the rival and the target: a problem's name, a dtype, a number of threads."""

    problem: str
    dtype: str
    threads: int

    def columns(self) -> dict[str, str]:
        return {"problem": self.problem, "dtype": self.dtype, "threads": str(self.threads)}


def kind(rival: str) -> str:
    """Which limit a rival has."""
    return "lbfgs" if rival == LBFGS else "sklearn" if rival.startswith(LOGISTIC) else "other"


class Race:
    """The rows that there are, and those to come.

    Parameters
    ----------
    options : Namespace
        The command line's.
    data : Path
        Folder of the saved problems.
    """

    def __init__(self, options: argparse.Namespace, data: Path) -> None:
        self.options, self.data = options, data
        self.problems = SETS[options.set]
        self.rows = report.read_csv(options.output / f"{options.set}.csv")
        self.machine = machine()
        self.below: list[str] = []
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._end = time.monotonic() + 60 * options.minutes

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._end

    def is_done(self, case: Case, phase: str, rival: str) -> bool:
        """Whether it has a row for each target: of any commit for a rival's search, which is not of our code."""
        if self.options.fresh:
            return False
        rows = [row for row in self.found(case, phase, rival) if self.is_ours_now(row, phase, rival)]
        return {f"{target:g}" for target in self.options.targets} <= {row["target"] for row in rows}

    def is_ours_now(self, row: dict[str, str], phase: str, rival: str) -> bool:
        of_any_commit = self.options.any_commit or (phase == "search" and rival != OURS.name)
        return of_any_commit or row["commit"] == self.machine["commit"]

    def found(self, case: Case, phase: str, rival: str | None = None) -> list[dict[str, str]]:
        """The last row for each target, of a rival or of all."""
        rows = [row for row in self.rows if row["phase"] == phase and case.columns().items() <= row.items()]
        return race_report.latest(row for row in rows if rival in (None, row["rival"]))

    def job(self, case: Case, rival: str, core: int | None) -> dict[str, Any]:
        """What a worker needs to know, but for its limits.

        Raises
        ------
        OSError
            If the data are not there.
        """
        with self._lock:
            key = (case.problem, case.dtype)
            problem = self.problems[case.problem]
            if key not in self._known:
                folder = problems.save(problem, case.dtype, self.data)
                minimum = minima.minimum(problem, case.dtype, folder, self.options.output / "minima.csv")
                n_samples = len(problems.read_saved_codes(folder))
                self._known[key] = {"data": str(folder), "minimum": minimum, "n_samples": n_samples}
            known = {name: value for name, value in self._known[key].items() if name != "n_samples"}
            if core is None and case.threads == 1:
                core = available_cores()[-1]  # the first has the interrupts
            return {"rival": rival, "alpha": problem.alpha, "l1_ratio": problem.l1_ratio, "core": core, **known}

    def our_seconds(self, case: Case) -> dict[str, float]:
        """Of our fits in the search, by target, where they arrived."""
        targets = {f"{target:g}" for target in self.options.targets}
        rows = [row for row in self.found(case, "search", OURS.name) if race_report.has_arrived(row)]
        return {row["target"]: float(row["seconds"]) for row in rows if row["target"] in targets}

    def limits(self, case: Case, rival: str) -> dict[str, float]:
        """Seconds for each target; empty where we have none to compare with."""
        targets = [f"{target:g}" for target in self.options.targets]
        if rival == OURS.name:
            return dict.fromkeys(targets, self.options.limit)
        limits, rows = {}, self.found(case, "search")
        for target, ours in self.our_seconds(case).items():
            arrived = [row for row in rows if row["target"] == target and race_report.has_arrived(row)]
            others = [row for row in arrived if row["rival"] != OURS.name]
            peers = [row for row in others if row["rival"].startswith(LOGISTIC) == rival.startswith(LOGISTIC)]
            soonest = min((float(row["seconds"]) for row in peers), default=float("inf"))
            limit = _FACTORS[kind(rival)] * ours
            limit = limit if rival == LBFGS else min(limit, _BEHIND * soonest)
            limits[target] = min(max(_LEAST_LIMIT, limit), self.options.limit)
        return limits

    def search(self, case: Case, rival: str, core: int | None) -> None:
        """One rival on one problem."""
        if self.is_done(case, "search", rival):
            return
        limits = self.limits(case, rival)
        if not limits:
            return
        start, load = time.perf_counter(), machine()["load"]
        try:
            job = {**self.job(case, rival, core), "limits": limits, "skip": [], "most_seconds": self.options.most}
            job["near"] = {target: _NEAR * seconds for target, seconds in self.our_seconds(case).items()}
        except OSError as error:
            self.say(f"{case.problem}: {error}")
            return
        rows, points = jobs.results(job, case.threads)
        self.keep(case, rival, "search", load, rows, points)
        said = ", ".join(f"{row['seconds']:.3g} s" if row.get("seconds") else row["status"] for row in rows)
        self.say(f"{', '.join(map(str, case))}: {rival}: {said} [{time.perf_counter() - start:.0f} s]")

    def keep(
        self,
        case: Case,
        rival: str,
        phase: str,
        load: str,
        rows: Iterable[dict[str, Any]],
        points: Iterable[dict[str, Any]],
    ) -> None:
        """Append rows and points to the files."""
        with self._lock:
            n_samples = self._known[case.problem, case.dtype]["n_samples"]
            about = {**self.machine, **case.columns(), "rival": rival, "phase": phase, "load": load}
            points = [point for point in points if point["gap"] < float("inf")]
            for point in points:
                if point["gap"] < -_BELOW:
                    self.below.append(f"{case.problem}, {case.dtype}: {rival} at {point['gap']:.1e}")
                    self.say(f"F* IS WRONG: {self.below[-1]}")
            output, name = self.options.output, self.options.set
            lines = [{**about, **point, "cpu_seconds": point["cpu"]} for point in points]
            report.append_csv(output / f"{name}_points.csv", [{c: _text(line[c]) for c in POINTS} for line in lines])
            lines = [{**about, "n_samples": n_samples, **row, "target": f"{row['target']:g}"} for row in rows]
            for line in lines:
                line["versions"] += line.pop("package", "")
            texts = [{column: _text(line.get(column)) for column in COLUMNS} for line in lines]
            report.append_csv(output / f"{name}.csv", texts)
            self.rows += texts

    def say(self, text: str) -> None:
        print(text, flush=True)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def available_cores() -> list[int]:
    """Those that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
