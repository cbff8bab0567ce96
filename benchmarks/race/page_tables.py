"""The tables of the page on benchmarks, from the CSV files that they name, and the chart of the README.

``python -m benchmarks.race.page_tables`` writes them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from benchmarks import report
from benchmarks.race import report as race_report

_ROOT = Path(__file__).parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"

#: The page that has the tables.
PAGE = _ROOT / "docs" / "benchmarks.md"

_END = "<!-- end of table -->"


def _start(name: str) -> str:
    return f"<!-- table: benchmarks/results/{name} -->"


def table() -> str:
    """Markdown: a line a problem, a column a solver: seconds in units of ours, and the gap."""
    with (_RESULTS / "bundled.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    lines = ["| time / ours (gap) | " + " | ".join(f"`{s}`" for s in solvers) + " |", "|---" * (len(solvers) + 1) + "|"]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        cells = [
            f"{float(row['ratio']):.1f} ({max(float(row['gap']), 0.0):.0e})"
            for row in rows
            if row["problem"] == problem
        ]
        lines.append(f"| {problem} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def race_table() -> str:
    """Markdown: the race to a gap of 1e-3 in float32 on one thread, and the means for all dtypes and threads."""
    rows = report.read_csv(_RESULTS / "race.csv")
    return f"{race_report.summary(rows, 'float32', '1', '0.001')}\n\n{race_report.means(rows, '0.001')}"


def dense_table() -> str:
    """Markdown: the race on dense tables, likewise."""
    return race_report.summary(report.read_csv(_RESULTS / "dense.csv"), "float32", "1", "0.001")


def groups() -> dict[str, list[race_report.Standing]]:
    """Return the problems of both races, in float32 on one thread to a gap of 1e-3, by what they have in common."""
    races = {
        name: race_report.standings(report.read_csv(_RESULTS / f"{name}.csv"), "float32", "1", "0.001")
        for name in ("race", "dense")
    }
    found = {
        "text, images, embeddings, tables\nas they are; more than 10 000 rows": ("race", "large"),
        "the same with an L1 penalty": ("race", "L1"),
        "dense, mostly standardized columns;\nmore than 5000 rows": ("dense", "large"),
        "the same; at most 5000 rows": ("dense", "small"),
        "scikit-learn's small sets": ("race", "small"),
    }
    return {title: [s for s in races[race] if s.group == group] for title, (race, group) in found.items()}


def draw_bars(path: Path) -> None:
    """Draw the times of scikit-learn's solvers in units of ours: geometric means of groups, and their ranges."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    found = groups()
    series = {"lbfgs": ("LogisticRegression's default solver", "0.65"), "sklearn": ("its best solver", "tab:blue")}
    for i, (who, (label, color)) in enumerate(series.items()):
        for k, standings in enumerate(found.values()):
            pairs = [(getattr(s, who), s.ours) for s in standings]
            mean, n, is_bound = race_report.geometric_mean(pairs)
            if not n:
                continue
            ratios = [theirs.seconds / ours.seconds for theirs, ours in pairs if theirs and ours]
            y = k + 0.2 * (1 - 2 * i)
            ax.barh(y, mean - 1, 0.36, left=1, color=color, label=label if k == 0 else None)
            ax.plot([min(ratios), max(ratios)], [y, y], color="black", linewidth=1)
            text = f"{'> ' * is_bound}{mean:.1f}"
            ax.annotate(text, (max(*ratios, mean), y), (4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set(xscale="log", xlabel="time to the same optimum / time of SoftmaxClassifier (mean, and range)")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(found)), [f"{title}\n({len(here)} problems)" for title, here in found.items()], fontsize=9)
    low, high = ax.get_xlim()
    ax.set_xlim(low, 2 * high)
    ax.text(1, -0.62, "equal", ha="center", fontsize=9)
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside upper right", ncols=2)
    figure.savefig(path, dpi=130)


#: By the CSV file that each is of.
TABLES: dict[str, Callable[[], str]] = {"bundled.csv": table, "race.csv": race_table, "dense.csv": dense_table}


def between_markers(text: str, name: str = "bundled.csv") -> str:
    """The table of a CSV file that stands in the page."""
    return text.split(_start(name))[1].split(_END)[0].strip()


def filled(text: str) -> str:
    """The text with each table that it has markers for."""
    for name, make in TABLES.items():
        if _start(name) in text:
            head, rest = text.split(_start(name))
            tail = rest.split(_END, 1)[1] if _END in rest else rest
            text = f"{head}{_start(name)}\n\n{make()}\n\n{_END}{tail}"
    return text


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw_bars(_RESULTS / "summary.png")


if __name__ == "__main__":
    main()
