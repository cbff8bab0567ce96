"""One rival on one problem, in a process of its own: ``python -m benchmarks.worker`` with a job on its standard input.

Of its own, so that threads are pinned before NumPy loads, nobody's patches or memory touch another's, and a crash
or an endless fit is one rival's. Prints a line of JSON for each fit and for each result. Peak memory is what fits
take at most beyond what the process holds with the data loaded and a small fit behind it.
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
from benchmarks.oracle import Fit, Search, search
from benchmarks.race_rivals import RACE_RIVALS
from benchmarks.rivals import OURS, Rival, objective
from sksoftmax._types import Array

#: Rivals within this factor of our time are timed REPEATS times, others once.
_CLOSE, _REPEATS = 5.0, 5

#: Limits that the time of ``rival.most`` iterations may take to be measured, not extrapolated.
_MOST_LIMITS = 3.0

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
    targets : list of float
        Gaps.
    limit : float
        Seconds of a fit after which there is no longer one.
    ours : dict
        Our seconds by target; empty if the rival is we.
    skip : list of int
        Settings with which the rival has crashed.
    """

    rival: str
    data: str
    alpha: float
    l1_ratio: float
    minimum: float
    targets: list[float]
    limit: float
    ours: dict[str, float]
    skip: list[int]


class Bench:
    """The loaded problem, and fits on it that are timed, scored and reported."""

    def __init__(self, job: Job, rival: Rival, report: Callable[..., None]) -> None:
        self.job, self.rival, self.report = job, rival, report
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
        self.warnings = [f"{type(w.message).__name__}: {str(w.message).splitlines()[0]}" for w in caught]
        params = self.rival.params(estimator)
        is_finite = np.isfinite(params.coef).all() and np.isfinite(params.intercept).all()
        gap = self.F(params) / self.job.minimum - 1 if is_finite else np.inf
        fit = Fit(setting, budget, seconds, float(gap) if np.isfinite(gap) else np.inf, cpu)
        self.report(kind="fit", settings=settings, seconds=seconds, cpu_seconds=cpu, gap=fit.gap)
        return fit, estimator

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def result(
        self,
        target: float,
        fits: list[Fit],
        settings: str,
        status: str,
        repeats: int | None = None,
    ) -> None:
        """Report what equal fits took; there are none for a target that was missed."""
        seconds = [fit.seconds for fit in fits]
        self.report(
            kind="result",
            target=target,
            settings=settings,
            seconds=float(np.median(seconds)) if fits else None,
            seconds_min=min(seconds, default=None),
            seconds_max=max(seconds, default=None),
            repeats=len(seconds) if repeats is None else repeats,
            cpu_seconds=float(np.median([fit.cpu for fit in fits])) if fits else None,
            gap=max((fit.gap for fit in fits), default=None),
            peak_MiB=round(self.peak / 2**20, 1),
            status=status,
            note="; ".join(filter(None, [self.rival.note, *self.notes])),
        )


def race_ours(bench: Bench) -> None:
    """The default fit, only alpha (and tol, the target) given; then the points of the picture."""
    bench.warm_up(*bench.few())
    bench.level = _resident()
    bench.warm_up(bench.X, bench.y, tol=max(bench.job.targets))  # with few rows we may go another way
    for target in bench.job.targets:
        fits, stops = [], set()
        for _ in range(_REPEATS):
            fit, estimator = bench.fit(0, 0, f"tol={target:g}", tol=target)
            fits.append(fit)
            stops.add(f"stop: {estimator.stop_reason_} after {estimator.n_iter_}")
            for warning in bench.warnings:
                bench.note(warning)
            if fit.seconds > bench.job.limit:
                break
        status = "missed its tol" if max(fit.gap for fit in fits) > target else "arrived"
        bench.result(target, fits, f"tol={target:g}, {', '.join(sorted(stops))}", status)

    reason, budget = "max_iter", 1
    while reason == "max_iter" and fit.seconds < bench.job.limit:
        fit, estimator = bench.fit(0, budget, f"max_iter={budget}", max_iter=budget, tol=min(bench.job.targets))
        reason, budget = estimator.stop_reason_, 2 * budget


def race_rival(bench: Bench) -> None:
    """The rival at its best: settings and stop by an oracle."""
    rival, job = bench.rival, bench.job
    is_other_model = rival.is_binary and bench.y.max() > 1  # then for the picture only
    settings = [i for i in range(1 if is_other_model else len(rival.settings)) if i not in job.skip]
    bench.report(kind="start", setting=settings[0], settings="the first")
    bench.warm_up(*bench.few(), **rival.endless, **rival.settings[settings[0]], **rival.budget(1))
    bench.level = _resident()

    def run(setting: int, budget: int) -> Fit:
        kwargs = {**rival.endless, **rival.settings[setting], **rival.budget(budget)}
        name = _named(rival, setting, budget)
        bench.report(kind="start", setting=setting, settings=name)
        try:
            return bench.fit(setting, budget, name, **kwargs)[0]
        except Exception as error:
            bench.note(f"{name}: {_line(error)}")
            return Fit(setting, budget, np.inf, np.inf)

    found = search(run, settings, job.targets, job.limit)
    for target in job.targets:
        if target not in found.best:
            bench.result(target, [], "", found.ending)
            continue
        best = found.best[target]
        fits = [best]
        if best.seconds <= _CLOSE * job.ours.get(str(target), np.inf):
            fits = [run(best.setting, best.budget) for _ in range(_REPEATS)]
        status = "arrived" if max(fit.gap for fit in fits) <= target else "arrived, but not each time"
        bench.result(target, fits, _named(rival, best.setting, best.budget), status)
    if rival.most and any(t not in found.best for t in job.targets):
        _race_to_the_most(bench, run, found)


def _race_to_the_most(bench: Bench, run: Callable[[int, int], Fit], found: Search) -> None:
    """The time of ``rival.most`` iterations, for a rival that is compared even where it does not arrive."""
    longest = max(found.fits, key=lambda fit: fit.budget)
    most = bench.rival.most
    seconds = longest.seconds * most / longest.budget
    if seconds <= _MOST_LIMITS * bench.job.limit:
        fit = run(longest.setting, most)
        bench.result(0.0, [fit], _named(bench.rival, fit.setting, most), "not arrived")
    else:
        status = f"extrapolated from {longest.budget} iterations"
        fit = longest._replace(seconds=seconds, cpu=longest.cpu * most / longest.budget)
        bench.result(0.0, [fit], _named(bench.rival, longest.setting, most), status, repeats=0)


def _named(rival: Rival, setting: int, budget: int) -> str:
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


def excuse(rival: Rival, job: Job) -> str:
    """Why the rival cannot start; empty if it can."""
    if rival.package:
        try:
            version(rival.package)
        except PackageNotFoundError:
            return f"not installed: pip install {rival.package}"
    if job.l1_ratio and not rival.has_l1:
        return "cannot: has no L1 penalty"
    if "liblinear" in rival.name and problems.read_saved_codes(Path(job.data)).max() > 1:
        return "cannot: two classes only"
    return ""


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what rivals print is no result

    def report(**values: Any) -> None:
        print(json.dumps(values), file=out, flush=True)

    job = Job(**json.load(sys.stdin))
    rival = {r.name: r for r in RACE_RIVALS}[job.rival]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_DATA, (int(_MEMORY * total), resource.RLIM_INFINITY))
    status = excuse(rival, job)
    if status:
        report(kind="failure", status=status)
        return
    try:
        bench = Bench(job, rival, report)
        (race_ours if rival is OURS else race_rival)(bench)
    except Exception as error:
        traceback.print_exc()
        report(kind="failure", status=f"failed: {_line(error)}")
    report(kind="end", package=f", {rival.package} {version(rival.package)}" if rival.package else "")


if __name__ == "__main__":
    main()
