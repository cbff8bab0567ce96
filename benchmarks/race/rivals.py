"""All rivals of the race: ours first, then as they matter, for a race may be cut short."""

from benchmarks.race.rivals_elsewhere import ELSEWHERE
from benchmarks.rivals import OURS, SKLEARN, Rival

#: How the names of scikit-learn's solvers for this model begin.
LOGISTIC = "LogisticRegression("

#: Their default.
LBFGS = "LogisticRegression(lbfgs)"

#: Those that are seldom, and often, the soonest: whose time limits that of the others.
_LAST = ("glmnet", "xgboost(gblinear)", "adelie")
_FIRST = ("LogisticRegression(newton-cholesky)", "LogisticRegression(saga)")

_ALL_LOGISTIC = [rival for rival in SKLEARN if rival.name.startswith(LOGISTIC)]
_LOGISTIC = sorted(_ALL_LOGISTIC, key=lambda rival: rival.name not in _FIRST)
_OTHERS = [*ELSEWHERE, *(rival for rival in SKLEARN if rival not in _LOGISTIC)]

RACE_RIVALS: list[Rival] = [OURS, *_LOGISTIC, *sorted(_OTHERS, key=lambda rival: rival.name in _LAST)]
