"""Who is compared, and every conversion of scale between their objectives and F.

``tests/test_benchmarks.py`` holds each conversion: at the rival's optimum F has its minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier

from sksoftmax import SoftmaxClassifier
from sksoftmax._objective import alpha_from_C, value_and_grad
from sksoftmax._types import Array, Batch, Params, Problem
from sksoftmax._validation import KERNELS


class Rival(NamedTuple):
    """A way to fit the model.

    Attributes
    ----------
    name : str
    make : callable
        ``(alpha, n_samples, **kwargs) -> estimator`` that minimises F at ``alpha``.
    params : callable
        ``fitted estimator -> Params``, as F takes them.
    """

    name: str
    make: Callable[..., Any]
    params: Callable[[Any], Params]


def _linear_params(estimator: Any) -> Params:
    return Params(np.asarray(estimator.coef_, dtype=np.float64), np.asarray(estimator.intercept_, dtype=np.float64))


def _mlp_params(estimator: Any) -> Params:
    return Params(estimator.coefs_[0].T, estimator.intercepts_[0])


def _ours(alpha: float, n_samples: int, **kwargs: Any) -> Any:
    return SoftmaxClassifier(alpha, random_state=0, **kwargs)


def _logistic(solver: str) -> Callable[..., Any]:
    def make(alpha: float, n_samples: int, **kwargs: Any) -> Any:
        C = alpha_from_C(alpha, n_samples)  # the same formula, both ways: C = 1 / (alpha * n)
        return LogisticRegression(C=C, solver=solver, random_state=0, **kwargs)

    return make


def _sgd(alpha: float, n_samples: int, **kwargs: Any) -> Any:
    # penalises the mean loss, as F does; with more than two classes one-vs-rest, which is another model
    return SGDClassifier(loss="log_loss", alpha=alpha, random_state=0, **kwargs)


def _mlp(alpha: float, n_samples: int, **kwargs: Any) -> Any:
    # divides its penalty by the rows of the batch: "auto" is min(200, n_samples)
    batch_size = kwargs.get("batch_size", min(200, n_samples))
    return MLPClassifier((), alpha=alpha * batch_size, random_state=0, **kwargs)


OURS = Rival("SoftmaxClassifier", _ours, _linear_params)

RIVALS = [
    Rival("LogisticRegression(lbfgs)", _logistic("lbfgs"), _linear_params),
    Rival("LogisticRegression(saga)", _logistic("saga"), _linear_params),
    Rival("LogisticRegression(newton-cholesky)", _logistic("newton-cholesky"), _linear_params),
    Rival("SGDClassifier(log_loss)", _sgd, _linear_params),
    Rival("MLPClassifier(())", _mlp, _mlp_params),
]


def objective(X: Array, y: Array, alpha: float) -> Callable[[Params], float]:
    """F, by which everyone is scored.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
    y : array of int of shape (n_samples,)
        Class codes.
    alpha : float
    """
    data = Batch(X, np.asarray(y, dtype=np.intp), np.ones(len(y)))
    problem = Problem(data, int(y.max()) + 1, alpha, True, KERNELS["vectorized"], 1.0)
    return lambda params: value_and_grad(problem, params).value
