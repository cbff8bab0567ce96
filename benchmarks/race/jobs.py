"""Worker processes: what they are asked, what they say, and what remains of those that crash or do not end."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.race.rivals import RACE_RIVALS

#: A fit may take this many limits before it is ended (a greater budget's time is a guess), and some seconds, for its
#: score takes some; and this many seconds go to loading and importing.
_PATIENCE, _SCORE, _START = 1.5, 5.0, 60.0

Said = dict[str, Any]


class Worker:
    """A process that says one thing a line.

    Parameters
    ----------
    job : dict
        Fields of ``worker.Job``.
    threads : int
    """

    def __init__(self, job: dict[str, Any], threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.race.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "SKSOFTMAX_BENCH_THREADS": str(threads)},
            cwd=Path(__file__).parents[2],
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.tell(job)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def tell(self, something: Any) -> None:
        """A line to it; one that is dead does not mind."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(something) + "\n")
            self._process.stdin.flush()

    def hear(self, patience: float) -> Said | None:
        """What it says next; None if that was all.

        Raises
        ------
        queue.Empty
            If it takes longer than ``patience`` seconds.
        """
        line = self._lines.get(timeout=patience)
        return dict(json.loads(line)) if line else None

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


def ask(job: dict[str, Any], threads: int) -> Iterator[Said]:
    """What a worker says of a search; last, if it did not end well, a failure."""
    worker = Worker(job, threads)
    fit = _PATIENCE * max(job["limits"].values()) + _SCORE
    doing, patience = "the start", _START + fit
    try:
        while said := worker.hear(patience):
            doing = said["settings"] if said["kind"] == "start" else doing
            patience = fit + (_PATIENCE * said.get("seconds", 0.0) if said["kind"] == "start" else _START)
            yield said
        code = worker.wait()
        if code:
            yield {"kind": "failure", "died": True, "status": f"crashed (exit code {code}) at {doing}"}
    except queue.Empty:
        yield {"kind": "failure", "died": True, "status": f"ended: {doing} took more than {patience:.0f} s"}
    finally:
        worker.end()


def results(job: dict[str, Any], threads: int) -> tuple[list[Said], list[Said]]:
    """Result rows and points of a search; gone on with without the settings that crash, while there are others.

    Where a worker died for good, what it had found until then counts.
    """
    n_settings = sum(len(rival.settings) for rival in RACE_RIVALS if rival.name == job["rival"])
    points: list[Said] = []
    notes: list[str] = []
    while True:
        heard = list(ask(job, threads))
        points += [said for said in heard if said["kind"] == "fit"]
        found = [said for said in heard if said["kind"] == "result"]
        failures = [said for said in heard if said["kind"] == "failure"]
        started = [said["setting"] for said in heard if said["kind"] == "start"]
        if found or not failures or not started or not failures[-1].get("died"):
            break
        known = [[said[field] for field in ("setting", "budget", "seconds", "gap", "cpu")] for said in points]
        job = {**job, "skip": [*job["skip"], started[-1]], "known": known}
        if len(job["skip"]) >= n_settings:
            break
        notes.append(failures[-1]["status"])
    package = "".join(said["package"] for said in heard if said["kind"] == "end")
    if failures and len(found) < len(job["limits"]):
        told = [row["target"] for row in found]
        missing = [float(target) for target in job["limits"] if float(target) not in told]
        found += [_reached(points, target, failures[-1]["status"], job) for target in missing]
    rows = [{**row, "package": package, "note": "; ".join(filter(None, [row.get("note"), *notes]))} for row in found]
    return rows, points


def _reached(points: list[Said], target: float, failure: str, job: dict[str, Any]) -> Said:
    """The result that the soonest of the points is, or the failure."""
    arrived = [point for point in points if point["gap"] <= target]
    if not arrived:
        limit = job["limits"].get(f"{target:g}") if failure.startswith("ended") else None
        return {"target": target, "status": failure, "limit": limit}
    best = min(arrived, key=lambda point: point["seconds"])
    times = {"seconds_min": best["seconds"], "seconds_max": best["seconds"], "cpu_seconds": best["cpu"]}
    return {**best, **times, "target": target, "repeats": 1, "status": f"arrived, then {failure}"}
