"""The sets of problems that a race can be run on."""

from __future__ import annotations

from benchmarks.dense_problems import DENSE
from benchmarks.problems import RACE, RaceProblem

#: By the names of their result files.
SETS: dict[str, dict[str, RaceProblem]] = {"race": RACE, "dense": DENSE}

#: Problems of all sets.
ALL_PROBLEMS = {name: problem for problems in SETS.values() for name, problem in problems.items()}
