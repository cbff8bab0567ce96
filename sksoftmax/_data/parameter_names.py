"""Errors for parameters of other estimators: they name the parameter that takes their place here.

The estimators decorate ``__init__`` by `with_hints`, and have `HintsMixin` for ``set_params``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

#: What to use instead of parameters of LogisticRegression, LogisticRegressionCV, SGDClassifier and MLPClassifier.
HINTS = {
    "C": "use alpha = 1 / (C * n_samples)",
    "Cs": "use alphas, with alpha = 1 / (C * n_samples)",
    "penalty": "use l1_ratio (0: L2, 1: L1), and alpha=0 for no penalty",
    "n_jobs": "a fit uses the threads of the BLAS; limit them by OMP_NUM_THREADS or threadpoolctl",
    "multi_class": "the model is always multinomial",
    "dual": "leave solver='auto'",
    "intercept_scaling": "the intercept is not penalized",
    "loss": "the loss is always the log loss",
    "eta0": "use learning_rate",
    "learning_rate_init": "use learning_rate",
    "n_iter": "use max_iter",
    "epochs": "use max_iter",
    "alpha": "use alphas",
    "l1_ratio": "use l1_ratios",
}


class HintsMixin:
    """``set_params`` that raises ValueError with a hint for a parameter of another estimator."""

    def set_params(self, **params: Any) -> Any:
        """Set the parameters of this estimator; see `sklearn.base.BaseEstimator.set_params`."""
        _check_names(type(self), params, ValueError)
        return super().set_params(**params)  # type: ignore[misc]


@functools.cache
def _parameters(estimator_class: type) -> frozenset[str]:
    """Return the names of the parameters; cached, because a search makes many clones."""
    return frozenset(inspect.signature(estimator_class.__init__).parameters)  # type: ignore[misc]


def _check_names(estimator_class: type, names: Iterable[str], error: type[Exception]) -> None:
    """Raise ``error`` for a name that is no parameter of the estimator, but one of another estimator."""
    for name in names:
        if name in HINTS and name not in _parameters(estimator_class):
            raise error(f"{estimator_class.__name__} has no parameter {name!r}: {HINTS[name]}.")


def with_hints(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate ``__init__`` so that it raises TypeError with a hint for a parameter of another estimator."""

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        _check_names(type(self), kwargs, TypeError)
        init(self, *args, **kwargs)

    return checked
