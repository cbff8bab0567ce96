"""The README's table, from ``results/bundled.csv``; ``python -m benchmarks.readme_table`` writes it there."""

from __future__ import annotations

import csv
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_CSV = _ROOT / "benchmarks" / "results" / "bundled.csv"
_START = "<!-- table: benchmarks/results/bundled.csv -->"
_END = "<!-- end of table -->"


def table() -> str:
    """Markdown: a line a problem, a column a solver: seconds in units of ours, and the gap."""
    with _CSV.open(newline="", encoding="utf-8") as file:
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


def between_markers(text: str) -> str:
    """The table that stands in the README."""
    return text.split(_START)[1].split(_END)[0].strip()


def main() -> None:
    readme = _ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(_START)
    tail = rest.split(_END)[1] if _END in rest else rest
    readme.write_text(f"{head}{_START}\n\n{table()}\n\n{_END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
