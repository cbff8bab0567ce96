"""Who is compared, and every conversion of scale between their objectives and F.

``tests/benchmarks/test_benchmarks.py`` holds each conversion: at the rival's optimum F has its minimum. Rivals from
outside scikit-learn are in ``race/rivals_elsewhere.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import sklearn
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.utils.fixes import parse_version

from sksoftmax import SoftmaxClassifier
from sksoftmax._maths.objective import alpha_from_C
from sksoftmax._types import Array, Params

#: Rows of X that F is summed over at a time.
_BLOCK = 4096


def max_iter(budget: int) -> dict[str, Any]:
    return {"max_iter": budget}


class Rival(NamedTuple):
    """A way to fit the model.

    Attributes
    ----------
    name : str
    make : callable
        ``(alpha, n_samples, **kwargs) -> estimator`` that minimises F at ``alpha``; with ``l1_ratio=`` if
        ``has_l1``.
    params : callable
        ``fitted estimator -> Params``, as F takes them.
    package : str
        What ``pip install`` must name; empty if it is there anyway.
    budget : callable
        ``int >= 1 -> kwargs`` of ``make``: how long to run. The race doubles the int.
    endless : dict
        The kwargs of ``make`` that turn the rival's own stopping rule off.
    settings : tuple of dict
        The kwargs of ``make`` that the race chooses from, for each target the best.
    has_l1, is_binary : bool
        Whether it knows the penalty ``||coef||_1``; whether it is another model with more than two classes.
    most : int
        A budget whose time is told where a target was not reached; 0 for none.
    note : str
        In what it differs.
    """

    name: str
    make: Callable[..., Any]
    params: Callable[[Any], Params]
    package: str = ""
    budget: Callable[[int], dict[str, Any]] = max_iter
    endless: dict[str, Any] = {}
    settings: tuple[dict[str, Any], ...] = ({},)
    has_l1: bool = False
    is_binary: bool = False
    most: int = 0
    note: str = ""


def linear_params(estimator: Any) -> Params:
    coef = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    return Params(coef, np.ravel(np.asarray(estimator.intercept_, dtype=np.float64)))


def _mlp_params(estimator: Any) -> Params:
    return Params(
        np.asarray(estimator.coefs_[0].T, dtype=np.float64), np.asarray(estimator.intercepts_[0], dtype=np.float64)
    )


def _ours(alpha: float, n_samples: int, **kwargs: Any) -> Any:
    return SoftmaxClassifier(alpha, random_state=0, **kwargs)


def logistic(solver: str, of: Callable[[], Any] = lambda: LogisticRegression) -> Callable[..., Any]:
    """``make`` of scikit-learn's class, or of one with its parameters."""

    def make(alpha: float, n_samples: int, **kwargs: Any) -> Any:
        C = alpha_from_C(alpha, n_samples)  # the same formula, both ways: C = 1 / (alpha * n)
        if "l1_ratio" in kwargs and parse_version(sklearn.__version__) < parse_version("1.8"):
            kwargs["penalty"] = "elasticnet"
        return of()(C=C, solver=solver, random_state=0, **kwargs)

    return make


def _liblinear(alpha: float, n_samples: int, **kwargs: Any) -> Any:
    # penalises the intercept as one more coefficient, of a column of intercept_scaling: the larger, the less
    return logistic("liblinear")(alpha, n_samples, intercept_scaling=100.0, **kwargs)


def _sgd(alpha: float, n_samples: int, **kwargs: Any) -> Any:
    # penalises the mean loss, as F does; with more than two classes one-vs-rest, which is another model
    if "l1_ratio" in kwargs:
        kwargs["penalty"] = "elasticnet"
    return SGDClassifier(loss="log_loss", alpha=alpha, random_state=0, **kwargs)


def _mlp(alpha: float, n_samples: int, **kwargs: Any) -> Any:
    # divides its penalty by the rows of the batch: "auto" is min(200, n_samples); lbfgs has one batch of all
    batch_size = min(kwargs.pop("batch_size", 200), n_samples)
    if kwargs.get("solver") == "lbfgs":
        return MLPClassifier((), alpha=alpha * n_samples, random_state=0, **kwargs)
    return MLPClassifier((), alpha=alpha * batch_size, batch_size=batch_size, random_state=0, **kwargs)


OURS = Rival("SoftmaxClassifier", _ours, linear_params, has_l1=True, endless={"tol": 0.0})


def _sklearn(solver: str, **about: Any) -> Rival:
    return Rival(f"LogisticRegression({solver})", logistic(solver), linear_params, endless={"tol": 0.0}, **about)


_SGD_RATES = tuple(
    {"learning_rate": "optimal", "average": average} if rate is None else
    {"learning_rate": "invscaling", "eta0": rate, "average": average}
    for average in (False, True)
    for rate in (None, 1e-6, 1e-4, 1e-2, 1.0)
)  # fmt: skip
_MLP_RATES = tuple(
    {"learning_rate_init": rate, "batch_size": batch_size}
    for rate in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    for batch_size in (128, 512)
)

#: What the README's table compares: ``python -m benchmarks``.
RIVALS = [
    _sklearn("lbfgs", most=1000),
    _sklearn("saga", has_l1=True),
    _sklearn("newton-cholesky"),
    Rival(
        "SGDClassifier(log_loss)",
        _sgd,
        linear_params,
        endless={"tol": None},
        settings=_SGD_RATES,
        has_l1=True,
        is_binary=True,
        note="one-vs-rest: another model with more than two classes",
    ),
    Rival(
        "MLPClassifier(())",
        _mlp,
        _mlp_params,
        endless={"tol": 0.0, "n_iter_no_change": np.inf},
        settings=_MLP_RATES,
        note="with batches that do not divide n_samples, the last batch's penalty is too large",
    ),
]

#: The race's, from scikit-learn.
SKLEARN = [
    *RIVALS,
    _sklearn("newton-cg"),
    _sklearn("sag"),
    Rival(
        "LogisticRegression(liblinear)",
        _liblinear,
        linear_params,
        endless={"tol": 0.0},
        is_binary=True,
        note="two classes only; penalises the intercept, here by 1e-4 of its strength",
    ),
    Rival(
        "MLPClassifier((), lbfgs)",
        lambda alpha, n_samples, **kwargs: _mlp(alpha, n_samples, solver="lbfgs", **kwargs),
        _mlp_params,
        endless={"tol": 0.0, "max_fun": 10**9},
    ),
]


def objective(X: Any, y: Array, alpha: float, l1_ratio: float = 0.0) -> Callable[[Params], float]:
    """F, by which everyone is scored, in float64 whatever X's dtype.

    Stated here once more, apart from the package, so that no slip of ours can favour us.

    Parameters
    ----------
    X : array or CSR matrix of shape (n_samples, n_features)
    y : array of int of shape (n_samples,)
        Class codes.
    alpha : float
    l1_ratio : float
    """
    y = np.asarray(y, dtype=np.intp)

    def F(params: Params) -> float:
        coef, intercept = np.asarray(params.coef, np.float64), np.asarray(params.intercept, np.float64)
        losses = 0.0
        for start in range(0, len(y), _BLOCK):
            rows = slice(start, start + _BLOCK)
            z = X[rows].astype(np.float64) @ coef.T + intercept
            z = np.hstack([np.zeros_like(z), z]) if z.shape[1] == 1 else z
            losses += float(np.sum(logsumexp(z, axis=1) - z[np.arange(len(z)), y[rows]]))
        l2, l1 = 0.5 * float(np.vdot(coef, coef)), float(np.abs(coef).sum())
        return losses / len(y) + alpha * ((1 - l1_ratio) * l2 + l1_ratio * l1)

    return F


def is_sparse(X: Any) -> bool:
    return bool(sp.issparse(X))
