"""What the race's CSV says: a table, means over the large problems, and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.problems import LARGE
from benchmarks.rivals import OURS

_LBFGS = "LogisticRegression(lbfgs)"
_SKLEARN = "LogisticRegression("

#: The picture's lines, by the start of a rival's name; a line is the best of its rivals.
_LINES = {
    OURS.name: OURS.name,
    _LBFGS: _LBFGS,
    _SKLEARN: "LogisticRegression, its other solvers",
    "SGDClassifier": "SGDClassifier",
    "MLPClassifier": "MLPClassifier",
    "cyanure": "cyanure",
    "scikit-learn-intelex": "scikit-learn-intelex",
    "torch": "PyTorch (Adam, SGD, L-BFGS)",
    "": "glmnet, xgboost, adelie",
}

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


def latest(rows: Iterable[Row]) -> list[Row]:
    """Of the rows with the same key the last."""
    keys = ("problem", "dtype", "threads", "rival", "target")
    return list({tuple(row[key] for key in keys): row for row in rows}.values())


def with_ratios(rows: list[Row]) -> list[Row]:
    """The rows with their times in units of ours."""
    keys = ("problem", "dtype", "threads", "target")
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

    A rival that did not arrive has taken at least as long as its longest fit was allowed to, its ``limit``; lbfgs
    counts, where it never arrives, with its time for 1000 iterations.
    """
    rows = [row for row in latest(rows) if row["dtype"] == dtype and row["threads"] == threads]
    found = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        here = [row for row in rows if row["problem"] == problem]
        times = [_time(row) for row in here if row["target"] == target]
        ours = [time for time in times if time.rival == OURS.name and not time.is_bound]
        others = [time for time in times if time.rival != OURS.name]
        never = [_time(row) for row in here if row["rival"] == _LBFGS and row["target"] == "0"]
        lbfgs = [time for time in others if time.rival == _LBFGS and not time.is_bound] or never
        found.append(
            Standing(
                problem,
                int(here[0]["n_samples"]),
                ours[0] if ours else None,
                _soonest(time for time in others if time.rival.startswith(_SKLEARN)),
                _soonest(lbfgs),
                _soonest(others),
            )
        )
    return found


def _time(row: Row) -> Time:
    arrived = bool(row["seconds"]) and not row.get("status", "").startswith("missed")
    return Time(float(row["seconds"] if arrived else row["limit"]), not arrived, row["rival"])


def _soonest(times: Iterable[Time]) -> Time | None:
    """The least time of those who arrived; if nobody did the longest wait, a bound."""
    times = list(times)
    arrived = [time for time in times if not time.is_bound]
    if arrived:
        return min(arrived, key=lambda time: time.seconds)
    return max(times, key=lambda time: time.seconds, default=None)


def geometric_mean(pairs: Iterable[tuple[Time | None, Time | None]]) -> tuple[float, int, bool]:
    """Mean of (theirs / ours) over the pairs that are complete, how many they are, and whether it is a bound."""
    complete = [(theirs, ours) for theirs, ours in pairs if theirs is not None and ours is not None]
    ratios = [theirs.seconds / ours.seconds for theirs, ours in complete]
    mean = float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")
    return mean, len(ratios), any(theirs.is_bound for theirs, _ in complete)


def summary(rows: list[Row], dtype: str, threads: str, target: str) -> str:
    """Markdown: a line a problem, and the means over those of more than LARGE rows."""
    lines = [
        f"| {dtype}, {threads} thread(s), gap {target} | ours, s | scikit-learn's best | lbfgs | best rival |",
        "|---|---|---|---|---|",
    ]
    found = standings(rows, dtype, threads, target)
    for s in found:
        ours = f"{s.ours.seconds:.3g}" if s.ours else "missed"
        cells = [_cell(s.sklearn, s.ours), _cell(s.lbfgs, s.ours, is_named=False), _cell(s.best, s.ours)]
        lines.append(f"| {s.problem} | {ours} | " + " | ".join(cells) + " |")
    large = [s for s in found if s.n_samples > LARGE]
    means = [
        geometric_mean((theirs, s.ours) for s in large for theirs in [getattr(s, who)])
        for who in ("sklearn", "lbfgs", "best")
    ]
    cells = [f"{'> ' * is_bound}{mean:.1f} ({n})" if n else "none" for mean, n, is_bound in means]
    lines.append(f"| **geometric mean** of the n problems of more than {LARGE} rows | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(theirs: Time | None, ours: Time | None, *, is_named: bool = True) -> str:
    if theirs is None:
        return ""
    name = f" {theirs.rival.removeprefix('LogisticRegression')}" if is_named and not theirs.is_bound else ""
    if ours is None:
        return f"{'> ' * theirs.is_bound}{theirs.seconds:.3g} s{name}"
    return f"{'> ' * theirs.is_bound}{theirs.seconds / ours.seconds:.1f}{name}"


def curves(points: list[Row], dtype: str, threads: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """For each problem and line the least gap by seconds, over all settings and fits of the line's rivals."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in points:
        if row["dtype"] == dtype and row["threads"] == threads:
            lines = found.setdefault(row["problem"], {line: [] for line in _LINES.values()})
            line = next(line for start, line in _LINES.items() if row["rival"].startswith(start))
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


def write(folder: Path) -> None:
    """Print the summaries; complete ``race.csv``, write ``race.md`` and draw ``race.png``."""
    rows = with_ratios(report.read_csv(folder / "race.csv"))
    if not rows:
        print("no rows")
        return
    report.write_csv(folder / "race.csv", rows)
    configurations = sorted({(row["dtype"], row["threads"]) for row in rows})
    targets = sorted({row["target"] for row in rows if float(row["target"])}, key=float, reverse=True)
    text = "\n\n".join(summary(rows, *pair, target) for pair in configurations for target in targets)
    (folder / "race.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text + "\n")
    points = report.read_csv(folder / "race_points.csv")
    print(f"wrote {', '.join(str(folder / name) for name in ('race.csv', 'race_points.csv', 'race.md'))}")
    try:
        report.draw_gaps(folder / "race.png", curves(points, *configurations[0]), _GAPS)
        print(f"wrote {folder / 'race.png'}: gap against seconds, {', '.join(configurations[0])} thread(s)")
    except ImportError as error:
        print(error)
