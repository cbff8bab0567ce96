"""One rival on one problem, in a process of its own.

``python -m benchmarks.race.worker`` takes a job on its standard input.

Of its own, so that threads are pinned before NumPy loads, nobody's patches or memory touch another's, and a crash
or an endless fit is one rival's. The job is a line of JSON; what comes back is one for each fit and for each result. A
job with ``search`` lets the oracle find settings and budgets; without, the lines that follow ask for fits one by one
(``race/final.py``). Peak memory is what fits take at most beyond what the process holds with the data loaded and a
small fit behind it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import N_THREADS, problems
from benchmarks.race.oracle import Fit, Search, search
from benchmarks.race.rivals import RACE_RIVALS
from benchmarks.race.stages import described, pass_equivalents
from benchmarks.rivals import OURS, Rival, objective
from sksoftmax._types import Array

#: Our fits for each target in a search.
_REPEATS = 3

#: Our tolerances for the picture, beside the targets.
_TOLS = (1.0, 0.3, 0.1, 0.03, 3e-3, 3e-4)

#: No rival gets a greater budget.
_MAX_BUDGET = 2**20

#: Share of the machine's memory that a rival may take.
_MEMORY = 0.8

#: Rows of the fit that warms up.
_WARM_ROWS = 256

#: More CPU seconds a second than this times the threads is said of a fit longer than _LONG seconds.
_GREEDY, _LONG = 1.2, 0.2


class Job(NamedTuple):
    """What the race asks of a worker.

    Attributes
    ----------
    rival : str
        Its name.
    data : str
        The folder of ``problems.save``.
    alpha, l1_ratio : float
    minimum : float
        F*.
    limits : dict
        For each target, as text, the seconds of a fit after which there is no longer one.
    search : bool
        Whether to search, or to do the fits that are asked for.
    skip : list of int
        Settings with which the rival has crashed.
    known : list of list
        Fits (fields of ``Fit``) that need not be done again.
    core : int or None
        The only one that the process may use; None for any.
    most_seconds : float
        What the time of ``rival.most`` iterations may be to be measured, not extrapolated.
    near : dict
        For each target, as text, the seconds up to which it is worth to find the least budget to a tenth.
    """

    rival: str
    data: str
    alpha: float
    l1_ratio: float
    minimum: float
    limits: dict[str, float]
    search: bool = True
    skip: list[int] = []
    known: list[list[float]] = []
    core: int | None = None
    most_seconds: float = 200.0
    near: dict[str, float] = {}

    @property
    def targets(self) -> dict[float, float]:
        """The limits by target."""
        return {float(target): limit for target, limit in self.limits.items()}


class Bench:
    """The loaded problem, and fits on it that are timed, scored and reported."""

    def __init__(self, job: Job, rival: Rival, report: Callable[..., None]) -> None:
        self.job, self.rival, self.evaluate = job, rival, report
        self.X, self.y = problems.read_saved(Path(job.data))
        self.F = objective(self.X, self.y, job.alpha, job.l1_ratio)
        self.penalty = {"l1_ratio": job.l1_ratio} if job.l1_ratio else {}
        self.notes: list[str] = []
        self.level = self.peak = 0.0

    def estimator(self, n_samples: int, **kwargs: Any) -> Any:
        return self.rival.make(self.job.alpha, n_samples, **self.penalty, **kwargs)

    def warm_up(self, X: Any, y: Array, **kwargs: Any) -> None:
        """A fit that does not count, for what is imported or compiled late."""
        with _quiet():
            self.estimator(len(y), **kwargs).fit(X, y)

    def few(self) -> tuple[Any, Array]:
        """Some rows, of all classes."""
        rows = np.concatenate([np.unique(self.y, return_index=True)[1], np.arange(min(_WARM_ROWS, len(self.y)))])
        return self.X[np.unique(rows)], self.y[np.unique(rows)]

    def fit(self, setting: int, budget: int, settings: str, **kwargs: Any) -> tuple[Fit, Any]:
        """One fit, reported under the name of its settings, and the estimator."""
        estimator = self.estimator(len(self.y), **kwargs)
        _reset_peak()
        with _quiet() as caught:
            cpu, start = time.process_time(), time.perf_counter()
            estimator.fit(self.X, self.y)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        self.peak = max(self.peak, _peak() - self.level)
        if seconds > _LONG and cpu > _GREEDY * N_THREADS * seconds:
            self.note(f"used {cpu / seconds:.1f} threads")
        if self.rival is OURS:
            for warning in caught:
                self.note(f"{type(warning.message).__name__}: {str(warning.message).splitlines()[0]}")
        params = self.rival.params(estimator)
        is_finite = np.isfinite(params.coef).all() and np.isfinite(params.intercept).all()
        gap = self.F(params) / self.job.minimum - 1 if is_finite else np.inf
        fit = Fit(setting, budget, seconds, float(gap) if np.isfinite(gap) else np.inf, cpu)
        about = {"peak_MiB": round(self.peak / 2**20, 1), "note": self.notes_so_far()}
        self.evaluate(kind="fit", settings=settings, **fit._asdict(), **about)
        return fit, estimator

    def rival_fit(self, setting: int, budget: int, seconds: float = 0.0) -> Fit:
        """A rival's fit, which may take more than the limit if ``seconds`` says so; one that failed took for ever."""
        name = named(self.rival, setting, budget)
        self.evaluate(kind="start", setting=setting, settings=name, seconds=seconds)
        try:
            return self.fit(setting, budget, name, **_kwargs(self.rival, setting, budget))[0]
        except Exception as error:
            self.note(f"{name}: {_line(error)}")
            return Fit(setting, budget, np.inf, np.inf)

    def our_fit(self, target: float) -> tuple[Fit, str]:
        """The default fit, only alpha (and tol, the target) given, and how it stopped."""
        fit, estimator = self.fit(0, 0, f"tol={target:g}", tol=target)
        return fit, f"tol={target:g}, stop: {estimator.stop_reason_} after {estimator.n_iter_}"

    def our_passes(self, target: float) -> str:
        """The cost of the default fit by stage, in passes over the rows."""
        estimator = self.estimator(len(self.y), tol=target)
        with _quiet():
            return described(pass_equivalents(lambda: estimator.fit(self.X, self.y), self.X, self.y, self.job.alpha))

    def start(self, setting: int = 0) -> None:
        """Warm up; memory counts from here."""
        if self.rival is OURS:
            self.warm_up(*self.few())
            self.level = _resident()
            self.warm_up(self.X, self.y, tol=max(self.job.targets))  # with few rows we may go another way
        else:
            self.evaluate(kind="start", setting=setting, settings="the first")
            self.warm_up(*self.few(), **_kwargs(self.rival, setting, 1))
            self.level = _resident()

    def notes_so_far(self) -> str:
        return "; ".join(filter(None, [self.rival.note, *self.notes]))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def result(self, target: float, fits: list[Fit], settings: str, status: str, **about: Any) -> None:
        """Report what equal fits took; there are none for a target that was missed."""
        seconds = [fit.seconds for fit in fits]
        values = {
            "target": target,
            "settings": settings,
            "setting": fits[0].setting if fits else None,
            "budget": fits[0].budget if fits else None,
            "seconds": float(np.median(seconds)) if fits else None,
            "seconds_min": min(seconds, default=None),
            "seconds_max": max(seconds, default=None),
            "repeats": len(seconds),
            "cpu_seconds": float(np.median([fit.cpu for fit in fits])) if fits else None,
            "gap": max((fit.gap for fit in fits), default=None),
            "peak_MiB": round(self.peak / 2**20, 1),
            "limit": self.job.targets.get(target),
            "status": status,
            "note": self.notes_so_far(),
        }
        self.evaluate(kind="result", **{**values, **about})


def race_ours(bench: Bench) -> None:
    """The default fit, for each target; then the points of the picture."""
    bench.start()
    for target, limit in bench.job.targets.items():
        fits, stops = [], set()
        for _ in range(_REPEATS):
            fit, stop = bench.our_fit(target)
            fits.append(fit)
            stops.add(stop)
            if fit.seconds > limit:
                break
        status = "missed its tol" if max(fit.gap for fit in fits) > target else "arrived"
        bench.result(target, fits, "; ".join(sorted(stops)), status, passes=bench.our_passes(target))
    draw_ours(bench)


def draw_ours(bench: Bench) -> None:
    """The picture's points beside the targets: fits that stop themselves elsewhere."""
    for tol in _TOLS:
        bench.our_fit(tol)


def race_rival(bench: Bench) -> None:
    """The rival at its best: settings and stop by an oracle."""
    rival, job = bench.rival, bench.job
    settings = [i for i in range(len(rival.settings)) if i not in job.skip]
    known = {(fit.setting, fit.budget): fit for fit in map(Fit._make, job.known)}
    bench.start(settings[0])

    def run(setting: int, budget: int) -> Fit:
        return known.get((setting, budget)) or bench.rival_fit(setting, budget)

    near = {float(target): seconds for target, seconds in job.near.items()}
    found = search(run, settings, job.targets, rival.most or _MAX_BUDGET, near)
    for target in job.targets:
        best = found.best.get(target)
        if best:
            bench.result(target, [best], named(rival, best.setting, best.budget), "arrived")
        else:
            bench.result(target, [], "", found.ending, limit=_waited(found, job.targets[target]))
    if rival.most and len(found.best) < len(job.targets):
        _race_to_the_most(bench, found)


def _waited(found: Search, limit: float) -> float | None:
    """Seconds by which the rival is sure not to have arrived; None if it cannot do it at all."""
    times = [fit.seconds for fit in found.fits if fit.seconds < np.inf]
    if not times:
        return None
    return min(limit, max(times)) if "time is up" in found.ending else limit


def _race_to_the_most(bench: Bench, found: Search) -> None:
    """The time of ``rival.most`` iterations, for a rival that is compared even where it does not arrive."""
    longest = max(found.fits, key=lambda fit: fit.budget)
    most = bench.rival.most
    settings = named(bench.rival, longest.setting, most)
    seconds = longest.seconds * most / longest.budget
    if longest.budget == most or seconds <= bench.job.most_seconds:
        fit = longest if longest.budget == most else bench.rival_fit(longest.setting, most, seconds)
        reached = [f"{target:g}" for target in bench.job.targets if fit.gap <= target]
        bench.result(0.0, [fit], settings, f"arrived at {', '.join(reached)}" if reached else "never arrives")
    else:
        fit = longest._replace(seconds=seconds, cpu=longest.cpu * most / longest.budget)
        bench.result(0.0, [fit], settings, f"extrapolated from {longest.budget} iterations", repeats=0)


def serve(bench: Bench, lines: Iterator[str]) -> None:
    """The fits that are asked for, one by one, after a first line, the settings to warm up with.

    ``{"target": ...}`` is a fit of ours, ``{"setting": ..., "budget": ...}`` a rival's, ``{}`` the picture's points.
    """
    warm = json.loads(next(lines))
    bench.start(warm[0])
    for setting in warm if bench.rival is not OURS else ():
        bench.warm_up(bench.X, bench.y, **_kwargs(bench.rival, setting, 1))
    bench.evaluate(kind="ready", settings="", package=_package(bench.rival))
    for line in lines:
        asked = json.loads(line)
        if "budget" in asked:
            bench.rival_fit(asked["setting"], asked["budget"])
            settings = named(bench.rival, asked["setting"], asked["budget"])
        elif "target" in asked:
            _, settings = bench.our_fit(asked["target"])
        else:
            draw_ours(bench)
            settings = "the picture's"
        bench.evaluate(kind="done", settings=settings)


def _kwargs(rival: Rival, setting: int, budget: int) -> dict[str, Any]:
    return {**rival.endless, **rival.settings[setting], **rival.budget(budget)}


def named(rival: Rival, setting: int, budget: int) -> str:
    """The settings in words."""
    kwargs = {**rival.settings[setting], **rival.budget(budget)}
    values = {key: f"{value:g}" if isinstance(value, float) else value for key, value in kwargs.items()}
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]


@contextmanager
def _quiet() -> Iterator[list[Any]]:
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        yield caught


def _status(field: str) -> float:
    """Bytes of a field of Linux's ``/proc/self/status``."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field):
            return 1024.0 * int(line.split()[1])
    return float("nan")


def _resident() -> float:
    """Bytes in memory: where Linux does not tell, the most so far."""
    return _status("VmRSS:") if sys.platform == "linux" else _most()


def _most() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) * (1 if sys.platform == "darwin" else 1024)


def _peak() -> float:
    """Most bytes in memory since ``_reset_peak``: what ru_maxrss is, but that starts only once."""
    return _status("VmHWM:") if sys.platform == "linux" else _most()


def _reset_peak() -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _package(rival: Rival) -> str:
    return f", {rival.package} {version(rival.package)}" if rival.package else ""


def excuse(rival: Rival, job: Job) -> str:
    """Why the rival cannot start; empty if it can."""
    if rival.package:
        try:
            version(rival.package)
        except PackageNotFoundError:
            return f"not installed: pip install {rival.package}"
    if job.l1_ratio and not rival.has_l1:
        return "cannot: has no L1 penalty"
    if rival.is_binary and problems.read_saved_codes(Path(job.data)).max() > 1:
        return "cannot: one-vs-rest, which is another model"
    return ""


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what rivals print is no result

    def report(**values: Any) -> None:
        print(json.dumps(values), file=out, flush=True)

    job = Job(**json.loads(sys.stdin.readline()))
    rival = {r.name: r for r in RACE_RIVALS}[job.rival]
    if job.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {job.core})
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_DATA, (int(_MEMORY * total), resource.RLIM_INFINITY))
    status = excuse(rival, job)
    if status:
        report(kind="failure", status=status)
        return
    try:
        bench = Bench(job, rival, report)
        if not job.search:
            serve(bench, sys.stdin)
        elif rival is OURS:
            race_ours(bench)
        else:
            race_rival(bench)
    except Exception as error:
        traceback.print_exc()
        report(kind="failure", status=f"failed: {_line(error)}")
    report(kind="end", package=_package(rival))


if __name__ == "__main__":
    main()
