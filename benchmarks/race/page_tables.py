"""The README's tables, from the CSV files that they name.

``python -m benchmarks.race.page_tables`` writes them there.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from benchmarks import report
from benchmarks.race import report as race_report

_ROOT = Path(__file__).parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"
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


#: By the CSV file that each is of.
TABLES: dict[str, Callable[[], str]] = {"bundled.csv": table, "race.csv": race_table}


def between_markers(text: str, name: str = "bundled.csv") -> str:
    """The table of a CSV file that stands in the README."""
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
    readme = _ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
