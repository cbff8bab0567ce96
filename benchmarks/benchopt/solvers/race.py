"""The race's rivals, each with the first of its settings."""

from typing import Any

from benchopt import BaseSolver
from benchopt.stopping_criterion import SufficientDescentCriterion

from benchmarks.race.rivals import RACE_RIVALS

_BY_NAME = {rival.name: rival for rival in RACE_RIVALS}


class Solver(BaseSolver):  # type: ignore[misc]
    """One of them, by name."""

    name = "race"
    parameters = {"rival": list(_BY_NAME)}
    sampling_strategy = "iteration"
    stopping_criterion = SufficientDescentCriterion(eps=1e-8, patience=5, strategy="iteration")

    def set_objective(self, X: Any, y: Any, alpha: float, l1_ratio: float) -> None:
        self.X, self.y, self.alpha = X, y, alpha
        self.penalty = {"l1_ratio": l1_ratio} if l1_ratio else {}

    def run(self, n_iter: int) -> None:
        rival = _BY_NAME[self.rival]
        kwargs = {**rival.endless, **rival.settings[0], **rival.budget(n_iter + 1), **self.penalty}
        self.fitted = rival.make(self.alpha, len(self.y), **kwargs).fit(self.X, self.y)

    def get_result(self) -> dict[str, Any]:
        return {"params": _BY_NAME[self.rival].params(self.fitted)}
