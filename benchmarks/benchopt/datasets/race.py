"""The race's problems."""

from typing import Any

from benchopt import BaseDataset

from benchmarks.problems import RACE

_BY_NAME = {name.replace(" ", "_"): problem for name, problem in RACE.items()}  # benchopt drops blanks


class Dataset(BaseDataset):  # type: ignore[misc]
    """One of them, by name."""

    name = "race"
    parameters = {"problem": list(_BY_NAME), "dtype": ["float32"]}
    test_parameters = {"problem": ["iris_std"]}

    def get_data(self) -> dict[str, Any]:
        problem = _BY_NAME[self.problem]
        X, y = problem.load(self.dtype)
        return {"X": X, "y": y, "alpha": problem.alpha, "l1_ratio": problem.l1_ratio}
