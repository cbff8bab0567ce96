"""What the race's CSV says: tables, means over the large problems, and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.problem_sets import ALL_PROBLEMS, SETS
from benchmarks.problems import LARGE
from benchmarks.race.rivals import LBFGS, LOGISTIC
from benchmarks.rivals import OURS

#: The rivals of a standing whose times are columns of a table.
_WHOSE = ("sklearn", "lbfgs", "best")

#: The picture's lines, by the start of a rival's name; a line is the best of its rivals.
_LINES = {
    OURS.name: OURS.name,
    LBFGS: LBFGS,
    LOGISTIC: "LogisticRegression, its other solvers",
    "SGDClassifier": "SGDClassifier",
    "MLPClassifier": "MLPClassifier",
    "cyanure": "cyanure",
    "scikit-learn-intelex": "scikit-learn-intelex",
    "torch": "PyTorch (Adam, SGD, L-BFGS)",
    "": "glmnet, xgboost, adelie",
}

#: Rows above which a problem of the dense set counts in its means.
_LARGE_DENSE = 5000

#: The picture's range of gaps.
_GAPS = (1e-5, 10.0)

Row = dict[str, str]


class Time(NamedTuple):
    """Seconds to a target, or a bound of them, and whose they are."""

    seconds: float
    is_bound: bool
    rival: str


class Standing(NamedTuple):
    """Times on one problem to one target: ours, and the best of scikit-learn's solvers, lbfgs, and of all rivals.

    A rival's time is None where it has no row; ours is None where we missed the target.
    """

    problem: str
    n_samples: int
    ours: Time | None
    sklearn: Time | None
    lbfgs: Time | None
    best: Time | None

    @property
    def group(self) -> str:
        """The table that it is in."""
        if self.problem in ALL_PROBLEMS and ALL_PROBLEMS[self.problem].l1_ratio:
            return "L1"
        return "large" if self.n_samples > least_large(self.problem) else "small"


def least_large(problem: str) -> int:
    """The number of rows above which a problem counts in the means of its set."""
    return _LARGE_DENSE if problem in SETS["dense"] else LARGE


def has_arrived(row: Row) -> bool:
    return bool(row["seconds"]) and row.get("status", "arrived").startswith("arrived") and row["target"] != "0"


def latest(rows: Iterable[Row]) -> list[Row]:
    """Of the rows with the same key the last."""
    keys = ("phase", "problem", "dtype", "threads", "rival", "target")
    return list({tuple(row[key] for key in keys): row for row in rows}.values())


def decisive(rows: list[Row]) -> list[Row]:
    """Of each problem, dtype, number of threads and target the final's rows of its last commit, else the search's."""
    keys = ("problem", "dtype", "threads", "target")
    chosen: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        chosen.setdefault(tuple(row[key] for key in keys), []).append(row)
    kept = []
    for here in chosen.values():
        final = [row for row in here if row["phase"] == "final"]
        kept += latest([row for row in final if row["commit"] == final[-1]["commit"]] if final else here)
    return kept


def with_ratios(rows: list[Row]) -> list[Row]:
    """The rows with their times in units of ours."""
    keys = ("phase", "problem", "dtype", "threads", "target")
    ours = {tuple(row[k] for k in keys): row for row in rows if row["rival"] == OURS.name and row["seconds"]}
    done = []
    for row in rows:
        mine = ours.get(tuple(row[k] for k in keys))
        is_timed = mine is not None and row["seconds"]
        ratio = f"{float(row['seconds']) / float(mine['seconds']):.3g}" if mine and is_timed else ""
        done.append({**row, "ratio": ratio})
    return done


def standings(rows: list[Row], dtype: str, threads: str, target: str) -> list[Standing]:
    """One for each problem, in the order of the rows.

    A rival that did not arrive has taken at least as long as its longest fit, its ``limit``; lbfgs counts, where it
    does not arrive in 1000 iterations, with their time.
    """
    rows = decisive([row for row in rows if row["dtype"] == dtype and row["threads"] == threads])
    found = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        here = [row for row in rows if row["problem"] == problem]
        ours = [_time(row) for row in here if row["target"] == target and row["rival"] == OURS.name]
        others = [row for row in here if row["target"] == target and row["rival"] != OURS.name]
        times = [time for row in others if (time := _time(row))]
        lbfgs = [time for time in times if time.rival == LBFGS]
        if all(time.is_bound for time in lbfgs):
            lbfgs = [_never(row) for row in here if row["target"] == "0" and _arrives_never(row, target)] or lbfgs
        found.append(
            Standing(
                problem,
                int(here[0]["n_samples"]),
                next((time for time in ours if time and not time.is_bound), None),
                _soonest(time for time in times if time.rival.startswith(LOGISTIC)),
                _soonest(lbfgs),
                _soonest(times),
            )
        )
    return found


def _time(row: Row) -> Time | None:
    """None for those who could not start."""
    if has_arrived(row):
        return Time(float(row["seconds"]), False, row["rival"])
    bound = row["seconds"] or row["limit"]
    return Time(float(bound), True, row["rival"]) if bound else None


def _never(row: Row) -> Time:
    return Time(float(row["seconds"]), False, row["rival"])


def _arrives_never(row: Row, target: str) -> bool:
    """Whether a row of 1000 iterations says that the target is not reached in them."""
    status = row.get("status", "")
    if status.startswith("never arrives"):
        return True
    reached = status.removeprefix("arrived at ").split(" (")[0].split(", ")
    return status.startswith("arrived at") and target not in reached


def _soonest(times: Iterable[Time]) -> Time | None:
    """The least time: a bound, where somebody who has not arrived by then has had no longer."""
    return min(times, key=lambda time: (time.seconds, time.is_bound), default=None)


def geometric_mean(pairs: Iterable[tuple[Time | None, Time | None]]) -> tuple[float, int, bool]:
    """Mean of (theirs / ours) over the pairs that are complete, how many they are, and whether it is a bound."""
    complete = [(theirs, ours) for theirs, ours in pairs if theirs is not None and ours is not None]
    ratios = [theirs.seconds / ours.seconds for theirs, ours in complete]
    mean = float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")
    return mean, len(ratios), any(theirs.is_bound for theirs, _ in complete)


def summary(rows: list[Row], dtype: str, threads: str, target: str) -> str:
    """Markdown: a table of each group of problems, a line a problem, and its mean."""
    found = standings(rows, dtype, threads, target)
    phases = {row["phase"] for row in decisive([r for r in rows if r["dtype"] == dtype and r["threads"] == threads])}
    n_large = least_large(found[0].problem) if found else LARGE
    titles = {
        "large": f"more than {n_large} rows",
        "L1": "an L1 penalty",
        "small": f"at most {n_large} rows",
    }
    tables = []
    for group, title in titles.items():
        here = [s for s in found if s.group == group]
        if not here:
            continue
        about = f"{dtype}, {threads} thread{'s' * (threads != '1')}, gap {target}; {title}"
        about += "; times of the search" * (phases == {"search"})
        lines = _head(about, "ours")
        lines += [_line(s) for s in here]
        lines.append(_mean_line(here))
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def means(rows: list[Row], target: str) -> str:
    """Markdown: a line for each dtype and number of threads, with the means of the large problems."""
    n_large = least_large(rows[0]["problem"]) if rows else LARGE
    title = f"gap {target}, more than {n_large} rows: geometric means"
    lines = _head(title, "ahead of all")
    for dtype, threads in _configurations(rows):
        here = [s for s in standings(rows, dtype, threads, target) if s.group == "large"]
        if here:
            about = f"{dtype}, {threads} thread{'s' * (threads != '1')}"
            lines.append(f"| {about} | {_n_ahead(here)} of {len(here)} | {' | '.join(_mean_cells(here))} |")
    return "\n".join(lines)


def _head(title: str, second: str) -> list[str]:
    """The head of a table: two columns, and those of rivals."""
    columns = [title, second, "best of scikit-learn / ours", "lbfgs / ours", "best rival / ours"]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _configurations(rows: list[Row]) -> list[tuple[str, str]]:
    """The dtypes and numbers of threads, those of one thread first."""
    return sorted({(row["dtype"], row["threads"]) for row in rows}, key=lambda pair: (pair[1], pair[0]))


def _line(s: Standing) -> str:
    ours = _seconds(s.ours.seconds) if s.ours else "missed"
    cells = [_cell(s.sklearn, s.ours), _cell(s.lbfgs, s.ours, is_named=False), _cell(s.best, s.ours)]
    return f"| {s.problem} | {ours} | " + " | ".join(cells) + " |"


def _n_ahead(here: list[Standing]) -> int:
    """The number of problems on which we are before all rivals."""
    return sum(bool(s.ours and s.best and s.best.seconds > s.ours.seconds) for s in here)


def _mean_line(here: list[Standing]) -> str:
    cells = " | ".join(_mean_cells(here))
    return f"| **geometric mean**; ahead of all on {_n_ahead(here)} of {len(here)} | | {cells} |"


def _mean_cells(here: list[Standing]) -> list[str]:
    cells = []
    for who in _WHOSE:
        mean, n, is_bound = geometric_mean((getattr(s, who), s.ours) for s in here)
        cells.append(f"**{'> ' * is_bound}{mean:.1f}**{f' of {n}' * (n < len(here))}" if n else "none")
    return cells


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def _cell(theirs: Time | None, ours: Time | None, *, is_named: bool = True) -> str:
    if theirs is None:
        return ""
    name = f" {theirs.rival.removeprefix('LogisticRegression')}" if is_named and not theirs.is_bound else ""
    if ours is None:
        return f"{'> ' * theirs.is_bound}{_seconds(theirs.seconds)}{name}"
    return f"{'> ' * theirs.is_bound}{theirs.seconds / ours.seconds:.1f}{name}"


def curves(points: list[Row], dtype: str, threads: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """For each problem and line the least gap by seconds, over all settings and fits of the line's rivals.

    Ours are those of the last commit.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    points = [row for row in points if row["dtype"] == dtype and row["threads"] == threads]
    last = {row["problem"]: (row["phase"], row["commit"]) for row in points if row["rival"] == OURS.name}
    for row in points:
        lines = found.setdefault(row["problem"], {line: [] for line in _LINES.values()})
        line = next(line for start, line in _LINES.items() if row["rival"].startswith(start))
        if row["rival"] != OURS.name or (row["phase"], row["commit"]) == last[row["problem"]]:
            lines[line].append((float(row["seconds"]), float(row["gap"])))
    return {
        problem: {line: _lower(fits) for line, fits in lines.items() if fits and min(gap for _, gap in fits) < _GAPS[1]}
        for problem, lines in found.items()
    }


def _lower(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that are better than all sooner ones."""
    kept: list[tuple[float, float]] = []
    for seconds, gap in sorted(line):
        if not kept or gap < kept[-1][1]:
            kept.append((seconds, gap))
    return kept


def write(folder: Path, name: str = "race") -> None:
    """Print the summaries of a set of problems; complete ``NAME.csv``, write ``NAME.md`` and draw ``NAME.png``."""
    rows = with_ratios(report.read_csv(folder / f"{name}.csv"))
    if not rows:
        print("no rows")
        return
    report.write_csv(folder / f"{name}.csv", rows)
    configurations = _configurations(rows)
    parts = [
        summary(rows, dtype, threads, target)
        for dtype, threads in configurations
        for target in sorted(_targets(rows, dtype, threads), key=float, reverse=True)
    ]
    text = "\n\n".join(parts)
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text + "\n")
    points = report.read_csv(folder / f"{name}_points.csv")
    print(f"wrote {', '.join(str(folder / f'{name}{ending}') for ending in ('.csv', '_points.csv', '.md'))}")
    try:
        report.draw_gaps(folder / f"{name}.png", curves(points, *configurations[0]), _GAPS)
        print(f"wrote {folder / f'{name}.png'}: gap against seconds, {', '.join(configurations[0])} thread(s)")
    except ImportError as error:
        print(error)


def _targets(rows: list[Row], dtype: str, threads: str) -> set[str]:
    here = decisive([row for row in rows if row["dtype"] == dtype and row["threads"] == threads])
    return {row["target"] for row in here if row["target"] != "0"}
