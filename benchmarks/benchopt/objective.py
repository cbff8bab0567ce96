"""The race in benchopt's format; from the repository's root, its packages importable (``PYTHONPATH=.``):

``benchopt run benchmarks/benchopt -d "race[problem=letter]" -s "race[rival=[SoftmaxClassifier,cyanure]]"``

benchopt draws whole curves and knows no settings chosen by an oracle: ``bench_race.py`` is what our figures are of.
"""

from typing import Any

from benchopt import BaseObjective

from benchmarks.rivals import objective
from sksoftmax._types import Params, zeros_like


class Objective(BaseObjective):  # type: ignore[misc]
    """F: mean softmax loss and an elastic-net penalty on the coefficients."""

    name = "Softmax regression"
    min_benchopt_version = "1.6"

    def set_data(self, X: Any, y: Any, alpha: float, l1_ratio: float) -> None:
        self.X, self.y, self.alpha, self.l1_ratio = X, y, alpha, l1_ratio
        self.F = objective(X, y, alpha, l1_ratio)

    def get_objective(self) -> dict[str, Any]:
        return {"X": self.X, "y": self.y, "alpha": self.alpha, "l1_ratio": self.l1_ratio}

    def evaluate_result(self, params: Params) -> float:
        return self.F(params)

    def get_one_result(self) -> dict[str, Params]:
        import numpy as np

        n_outputs = 1 if self.y.max() == 1 else int(self.y.max()) + 1
        empty = Params(np.zeros((n_outputs, self.X.shape[1])), np.zeros(n_outputs))
        return {"params": zeros_like(empty)}
