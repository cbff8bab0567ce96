"""Rivals from outside scikit-learn, imported when they are made: who lacks one misses a row, not the race.

The extra "race" installs them all but adelie, which asks for an old NumPy (``pip install --no-deps adelie`` works).

Left out are those that do not minimise F with more than two classes: snapml, vowpalwabbit and glum (one-vs-rest or two
classes only), statsmodels' MNLogit (no ridge penalty), lightgbm and catboost (trees only); and mlpack, which penalises
the intercept, does not heed ``max_iterations`` and took half a minute for 4000 rows of letter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks import N_THREADS
from benchmarks.rivals import Rival, linear_params, logistic
from sksoftmax._types import Array, Params


class _Fit:
    """What the wrappers below share: an estimator made of its arguments, with ``coef_`` and ``intercept_``."""

    def __init__(self, alpha: float, n_samples: int, **kwargs: Any) -> None:
        self.alpha, self.kwargs = alpha, kwargs


def _cyanure(alpha: float, n_samples: int, l1_ratio: float = 0.0, max_iter: int = 1000, **kwargs: Any) -> Any:
    from cyanure.estimators import LogisticRegression

    # its elastic net is lambda_1 * ||.||_1 + lambda_2 / 2 * ||.||^2, its l2 and l1 take lambda_1 alone
    penalty: dict[str, Any] = {"penalty": "l2", "lambda_1": alpha}
    if l1_ratio == 1:
        penalty["penalty"] = "l1"
    elif l1_ratio > 0:
        penalty = {"penalty": "elasticnet", "lambda_1": alpha * l1_ratio, "lambda_2": alpha * (1 - l1_ratio)}
    return LogisticRegression(
        **penalty,
        fit_intercept=True,
        max_iter=max_iter,
        duality_gap_interval=max_iter,  # the gap is its stopping rule: not paid for where the stop is an oracle's
        n_threads=N_THREADS,
        verbose=False,
        **kwargs,
    )


def _cyanure_params(estimator: Any) -> Params:
    return Params(
        np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64).T),  # (n_features, n_classes) or (n_features,)
        np.ravel(np.asarray(estimator.intercept_, dtype=np.float64)),
    )


def _intelex() -> Any:
    from sklearnex.linear_model import LogisticRegression

    return LogisticRegression


def _torch(optimizer: str) -> Any:
    def make(alpha: float, n_samples: int, **kwargs: Any) -> Any:
        from benchmarks.torch_loop import TorchSoftmax

        return TorchSoftmax(alpha, optimizer=optimizer, **kwargs)

    return make


class _Glmnet(_Fit):
    """glmnet divides by n_samples itself; elastic net as F's. It has to come down a path of alphas: its steps have no
    control of their length, and from 0 to a small alpha at once they diverge."""

    def fit(self, X: Any, y: Array) -> _Glmnet:
        from glmnet import LogitNet

        fit = LogitNet(
            alpha=self.kwargs.get("l1_ratio", 0.0),
            lambda_path=np.geomspace(max(1.0, self.alpha), self.alpha, self.kwargs.get("path", 100)),
            standardize=False,
            n_splits=0,
            tol=self.kwargs.get("tol", 1e-7),
            max_iter=10**7,
        ).fit(X, y)
        self.coef_, self.intercept_ = np.atleast_2d(fit.coef_path_[..., -1]), fit.intercept_path_[..., -1]
        return self


class _Adelie(_Fit):
    """adelie divides the multinomial loss by the number of classes too; coefficients in groups, a group a column."""

    def fit(self, X: Any, y: Array) -> _Adelie:
        import adelie

        n_classes = int(y.max()) + 1
        if n_classes == 2:
            glm, lambda_ = adelie.glm.binomial(y.astype(X.dtype), dtype=X.dtype.type), self.alpha
        else:
            one_hot = np.eye(n_classes, dtype=X.dtype)[y]
            glm, lambda_ = adelie.glm.multinomial(one_hot, dtype=X.dtype.type), self.alpha / n_classes
        is_sparse = sp.issparse(X)
        rows = adelie.matrix.sparse(sp.csc_matrix(X), n_threads=N_THREADS) if is_sparse else np.asfortranarray(X)
        tol = self.kwargs.get("tol", 1e-7)
        state = adelie.grpnet(
            rows,
            glm,
            alpha=0.0,
            lmda_path=np.array([lambda_]),
            penalty=np.ones(X.shape[1]),
            tol=tol,
            irls_tol=tol,
            early_exit=False,
            n_threads=N_THREADS,
            progress_bar=False,
        )
        self.coef_ = np.asarray(state.betas.toarray(), np.float64).reshape(X.shape[1], -1).T
        self.intercept_ = state.intercepts[-1]
        return self


class _Xgboost(_Fit):
    """xgboost's linear booster multiplies its penalties by n_samples: they are on the mean loss, as F's."""

    def fit(self, X: Any, y: Array) -> _Xgboost:
        import json

        import xgboost

        n_classes = int(y.max()) + 1
        l1_ratio = self.kwargs.get("l1_ratio", 0.0)
        task: dict[str, Any] = {"objective": "multi:softprob", "num_class": n_classes}
        booster = xgboost.train(
            {
                "booster": "gblinear",
                "updater": "coord_descent",
                "reg_lambda": self.alpha * (1 - l1_ratio),
                "reg_alpha": self.alpha * l1_ratio,
                "eta": self.kwargs.get("eta", 1.0),
                "base_score": 0.5,  # the score that adds nothing to the raw predictions
                "nthread": N_THREADS,
                "verbosity": 0,
                **({"objective": "binary:logistic"} if n_classes == 2 else task),
            },
            xgboost.DMatrix(X, y),
            self.kwargs.get("max_iter", 100),
        )
        learned = json.loads(booster.get_dump(dump_format="json")[0])
        self.coef_ = np.array(learned["weight"]).reshape(X.shape[1], -1).T
        self.intercept_ = np.array(learned["bias"])
        return self


def _tolerance(budget: int) -> dict[str, Any]:
    """A tolerance that falls as the budget grows: for those who cannot be told how long to run."""
    return {"tol": 0.5 / budget**2}


_CYANURE = tuple(
    {"solver": solver}
    for solver in (
        *("ista", "fista", "svrg", "acc-svrg", "miso"),
        *("catalyst-ista", "catalyst-svrg", "catalyst-miso"),
        *("qning-ista", "qning-svrg", "qning-miso"),
    )
)
#: Batches of 512, whose updates cost little more than those of 128: torch's own work is most of it.
_WAYS = [{"batch_size": 512, "is_standardised": is_standardised} for is_standardised in (False, True)]
_ADAM = tuple({"rate": rate, **way} for rate in (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3) for way in _WAYS)
_SGD = tuple({"rate": rate, **way} for rate in (0.1, 0.3, 1.0, 3.0) for way in _WAYS)

ELSEWHERE = [
    Rival(
        "cyanure",
        _cyanure,
        _cyanure_params,
        "cyanure",
        endless={"tol": 0.0},
        settings=_CYANURE,
        has_l1=True,
    ),
    Rival(
        "scikit-learn-intelex(lbfgs)",
        logistic("lbfgs", _intelex),
        linear_params,
        "scikit-learn-intelex",
        endless={"tol": 0.0},
        note="its other solvers are scikit-learn's own",
    ),
    Rival("torch Adam", _torch("adam"), linear_params, "torch", settings=_ADAM),
    Rival("torch SGD", _torch("sgd"), linear_params, "torch", settings=_SGD),
    Rival(
        "torch L-BFGS",
        _torch("lbfgs"),
        linear_params,
        "torch",
        settings=({}, {"is_standardised": True}),
    ),
    Rival(
        "glmnet",
        _Glmnet,
        linear_params,
        "python-glmnet",
        budget=_tolerance,
        settings=({"path": 30}, {"path": 100}),
        has_l1=True,
        note="float64 whatever X's dtype",
    ),
    Rival(
        "xgboost(gblinear)",
        _Xgboost,
        linear_params,
        "xgboost-cpu",
        settings=({"eta": 0.5}, {"eta": 1.0}),
        has_l1=True,
        note="float32 whatever X's dtype",
    ),
    Rival("adelie", _Adelie, linear_params, "adelie", budget=_tolerance),
]
