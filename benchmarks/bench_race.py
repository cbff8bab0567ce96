"""Who is soonest at the same optimum? Our default fit against every rival at its best.

For each problem, dtype and number of threads: seconds until ``(F - F*) / F*`` is 1e-2, 1e-3 and 1e-4. Ours is
``SoftmaxClassifier(alpha)`` with ``tol`` the target, which stops itself; a rival gets the settings and the stop of an
oracle (``race/oracle.py``). Two phases, each fit in a process of its own (``race/worker.py``):

- the search finds each rival's best settings and budget for each target, in float32 on one thread. It goes as far as
  the comparison needs: scikit-learn's solvers may take 12 times our time (lbfgs 21), others 4 times; and none much
  longer than the soonest of its kind so far. Who has not arrived by then is "> so much". It may share the machine. The
  column "passes" has the cost of our fit in passes over the rows, by stage (``race/stages.py``).
- ``--final`` times ours and the contenders that the search found side by side, in rounds (``race/final.py``). Its rows
  are what the summary is of.

Rows are kept as they come, so that a race that was interrupted goes on where it was. ``--quick`` is both phases on two
small problems; ``--report-only`` makes the summary and the picture of the rows that are there. ``--set dense`` races on
dense tables of 16 to 1771 columns (``dense_problems.py``), with files of its own (``dense.csv``).
"""

from __future__ import annotations

import argparse
import queue
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import problems
from benchmarks.problem_sets import ALL_PROBLEMS, SETS
from benchmarks.problems import RACE
from benchmarks.race import final
from benchmarks.race import report as race_report
from benchmarks.race.rivals import LBFGS, RACE_RIVALS
from benchmarks.race.search import Case, Race, available_cores
from benchmarks.rivals import OURS

TARGETS = (1e-2, 1e-3, 1e-4)

#: The small embeddings are there for --quick; the largest problems come first.
_SMALL = tuple(name for name in RACE if name.split()[0] in problems.BUNDLED)
_ALL = (*(name for name in RACE if name not in (*_SMALL, "small embeddings")), *_SMALL)
_QUICK_PROBLEMS = ("digits std", "small embeddings")
_QUICK_RIVALS = (OURS.name, LBFGS, "LogisticRegression(newton-cg)", "cyanure")


def in_lanes(tasks: Iterable[Callable[[int | None], None]], n_lanes: int) -> None:
    """Do the tasks in their order, ``n_lanes`` at a time, each lane on a core of its own; a failure is one task's."""
    waiting: queue.SimpleQueue[Callable[[int | None], None]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)

    def lane(core: int | None) -> None:
        while True:
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                task(core)
            except Exception:
                traceback.print_exc()

    cores = available_cores() if n_lanes > 1 else [None]
    lanes = [threading.Thread(target=lane, args=(cores[i % len(cores)],)) for i in range(n_lanes)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()


def _run(race: Race, phase: str, cases: Sequence[Case]) -> None:
    options = race.options

    def unless_over(step: Callable[..., None], *arguments: Any) -> Callable[[int | None], None]:
        return lambda core: None if race.is_over else step(*arguments, core)

    if phase == "final":
        in_lanes([unless_over(final.run, race, case) for case in cases], options.lanes)
        return
    in_lanes([unless_over(race.search, case, OURS.name) for case in cases], options.lanes)
    others = [rival.name for rival in RACE_RIVALS if rival.name in options.rivals and rival is not OURS]
    in_lanes([unless_over(race.search, case, name) for name in others for case in cases], options.lanes)


def _parser() -> argparse.ArgumentParser:
    names = [rival.name for rival in RACE_RIVALS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_race", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small problems, a few rivals")
    parser.add_argument("--final", action="store_true", help="time the contenders that the search found")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV files and the picture"
    )
    parser.add_argument("--set", choices=list(SETS), default="race", help="which problems")
    parser.add_argument("--problems", nargs="+", choices=list(ALL_PROBLEMS), help="of the set; default: all")
    parser.add_argument("--rivals", nargs="+", choices=names, help="default: all")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float64"], default=["float32"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--targets", nargs="+", type=float, default=TARGETS, help="gaps")
    parser.add_argument("--limit", type=float, default=120.0, help="most seconds of a fit")
    parser.add_argument(
        "--most", type=float, default=200.0, help="seconds of lbfgs's 1000 iterations; else extrapolated"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing later than this")
    parser.add_argument("--lanes", type=int, default=1, help="workers at a time, each on a core of its own")
    parser.add_argument("--data", type=Path, help="folder to keep the problems in; default: a temporary one")
    parser.add_argument("--fresh", action="store_true", help="do again what is there; the last row counts")
    parser.add_argument("--any-commit", action="store_true", help="take rows of other commits for done")
    parser.add_argument("--report-only", action="store_true", help="no fits: the summary and picture of the rows")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.rivals = options.rivals or (_QUICK_RIVALS if options.quick else [rival.name for rival in RACE_RIVALS])
    everything = _ALL if options.set == "race" else tuple(SETS[options.set])
    options.problems = options.problems or (_QUICK_PROBLEMS if options.quick else everything)
    phases = ("search", "final") if options.quick else ("final",) if options.final else ("search",)
    cases = [Case(name, d, t) for t in options.threads for d in options.dtypes for name in options.problems]
    below: list[str] = []
    if not options.report_only:
        with tempfile.TemporaryDirectory() as temporary:
            race = Race(options, options.data or Path(temporary))
            for phase in phases:
                _run(race, phase, cases)
            below = race.below
    race_report.write(options.output, options.set)
    if below:
        raise SystemExit("F* is wrong, someone is below it:\n" + "\n".join(below))


if __name__ == "__main__":
    main()
