"""Conversion between our classifiers and scikit-learn's ``LogisticRegression``.

The estimators' ``to_sklearn`` and ``from_sklearn`` call `to_logistic` and `from_logistic`. The converted model makes
the same predictions, and its parameters define the same objective.
"""

from __future__ import annotations

import copy
from numbers import Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.utils.validation import check_is_fitted

from sksoftmax._data import arrays as _arrays
from sksoftmax._engines.device import to_numpy
from sksoftmax._maths.objective import alpha_from_C

#: Parameters with the same name and meaning in both classes.
_SHARED_PARAMS = ("fit_intercept", "class_weight", "warm_start", "random_state", "max_iter")

#: Default ``tol`` of ``LogisticRegression``, and the maximum that `to_logistic` sets.
_MAX_TOL = 1e-4


def to_logistic(model: Any, total_weight: float) -> LogisticRegression:
    """Return a fitted ``LogisticRegression`` equal to ``model``, whose weights summed to ``total_weight``."""
    l1_ratio = float(model.l1_ratio) if model.alpha else 0.0
    logistic = LogisticRegression(
        C=alpha_from_C(float(model.alpha), total_weight) if model.alpha else np.inf,  # the formula is its own inverse
        tol=min(float(model.tol) ** 0.5, _MAX_TOL),  # a bound on the gradient; F's excess falls with its square
        solver="saga" if l1_ratio else "lbfgs",
        **_penalty_params(l1_ratio),
        **_shared_params(model),
    )
    vars(logistic).update(_fitted_attributes(model))
    logistic.n_iter_ = np.array([model.n_iter_], dtype=np.int32)
    return logistic


def from_logistic(cls: Any, logistic: Any, total_weight: Any) -> Any:
    """Return a model of class ``cls`` equal to ``logistic``, whose weights summed to ``total_weight``.

    Raises
    ------
    TypeError
        If ``logistic`` is not a ``LogisticRegression``, or is a ``LogisticRegressionCV``.
    NotFittedError
        If ``logistic`` is not fitted.
    ValueError
        If ``logistic`` is one-vs-rest, or multinomial with two classes; or if ``total_weight`` is not a finite number
        > 0.
    """
    _check_softmax(logistic)
    if not (isinstance(total_weight, Real) and 0 < _arrays.as_float(total_weight) < np.inf):
        raise ValueError(
            f"total_weight must be a number > 0, got {total_weight!r}: the sum of the weights of the rows that the "
            "LogisticRegression was fitted to, or their number."
        )
    total_weight, (C, l1_ratio) = _arrays.as_float(total_weight), _penalty_strength(logistic)
    shared = _shared_params(logistic)
    shared["max_iter"] = max(1, shared["max_iter"])
    model = cls(alpha=alpha_from_C(C, total_weight), l1_ratio=l1_ratio, **shared)
    vars(model).update(_fitted_attributes(logistic))
    model.n_iter_ = int(np.max(logistic.n_iter_))
    model.solver_info_ = {"engine": "scikit-learn", "solver": logistic.solver}
    return model


def _check_softmax(logistic: Any) -> None:
    """Check that the model is a fitted ``LogisticRegression`` with our probabilities; errors as `from_logistic`."""
    if not isinstance(logistic, LogisticRegression) or isinstance(logistic, LogisticRegressionCV):
        raise TypeError(
            f"from_sklearn takes a fitted sklearn.linear_model.LogisticRegression, got {type(logistic).__name__}; of a "
            "pipeline give the last step, and instead of a LogisticRegressionCV a LogisticRegression with its C_."
        )
    check_is_fitted(logistic)
    n_classes, multi_class = len(logistic.classes_), getattr(logistic, "multi_class", "deprecated")
    if n_classes > 2 and (multi_class == "ovr" or logistic.solver == "liblinear"):
        raise ValueError(
            "the LogisticRegression must be multinomial, got one-vs-rest, whose probabilities are not a softmax's "
            f"(multi_class={multi_class!r}, solver={logistic.solver!r}); fit it with solver='lbfgs' and without "
            "multi_class."
        )
    if n_classes == 2 and multi_class == "multinomial":
        raise ValueError(
            "of two classes the LogisticRegression must be binomial, got multi_class='multinomial', whose "
            "probabilities are those of twice its coef_; fit it without multi_class."
        )


def _shared_params(model: Any) -> dict[str, Any]:
    """Return copies of the parameters that both classes have."""
    return {name: copy.deepcopy(getattr(model, name)) for name in _SHARED_PARAMS}


def _fitted_attributes(model: Any) -> dict[str, Any]:
    """Return copies of the fitted attributes that both classes have, as NumPy arrays with a dense ``coef_``."""
    coef, intercept = to_numpy(model.coef_), model.intercept_
    intercept = to_numpy(intercept) if np.ndim(intercept) else intercept  # liblinear may set the number 0
    attributes = {
        "classes_": np.array(to_numpy(model.classes_)),
        "coef_": coef.toarray() if sp.issparse(coef) else np.array(coef),  # some tools take only a dense one
        "n_features_in_": model.n_features_in_,
    }
    n_outputs = len(attributes["coef_"])
    attributes["intercept_"] = np.array(np.broadcast_to(intercept, n_outputs))
    if hasattr(model, "feature_names_in_"):
        attributes["feature_names_in_"] = np.array(model.feature_names_in_)
    return attributes


def _penalty_params(l1_ratio: float) -> dict[str, Any]:
    """Return the parameters for this penalty in the installed scikit-learn; 1.8 deprecated ``penalty``."""
    if getattr(LogisticRegression(), "penalty", "deprecated") == "deprecated":
        return {"l1_ratio": l1_ratio}
    return {"penalty": "elasticnet", "l1_ratio": l1_ratio} if l1_ratio else {"penalty": "l2"}


def _penalty_strength(logistic: LogisticRegression) -> tuple[float, float]:
    """Return C and l1_ratio of a ``LogisticRegression`` of any scikit-learn version."""
    penalty = getattr(logistic, "penalty", "deprecated")
    C = np.inf if penalty is None else float(logistic.C)
    l1_ratio = logistic.l1_ratio or 0.0  # None if not set, or if the penalty has no l1_ratio
    return C, {"l1": 1.0, "l2": 0.0, None: 0.0}.get(penalty, float(l1_ratio))
