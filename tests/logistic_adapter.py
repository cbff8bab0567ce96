"""``SoftmaxClassifier`` with ``LogisticRegression``'s parameters, for scikit-learn's own tests of it."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._base import LinearClassifierMixin

from sksoftmax import SoftmaxClassifier
from sksoftmax._data.arrays import as_host_array
from sksoftmax._data.labels import apply_class_weight
from sksoftmax._maths.objective import alpha_from_C
from sksoftmax._types import Batch

#: scikit-learn's solvers by kind: what makes full passes, and what takes rows as they come.
_BATCH_SIZE = {"sag": 16, "saga": 16}


class SoftmaxAsLogistic(SoftmaxClassifier):
    _parameter_constraints = LogisticRegression._parameter_constraints
    engine = "auto"  # LogisticRegression has no such parameter

    def __init__(
        self,
        penalty="deprecated",
        *,
        C=1.0,
        l1_ratio=0.0,
        dual=False,
        tol=1e-4,
        fit_intercept=True,
        intercept_scaling=1,
        class_weight=None,
        random_state=None,
        solver="lbfgs",
        max_iter=100,
        verbose=0,
        warm_start=False,
        n_jobs=None,
    ):
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs

    _predict_proba_lr = LinearClassifierMixin._predict_proba_lr  # one-vs-rest's, to compare with

    def fit(self, X, y, sample_weight=None):
        model = SoftmaxClassifier(
            alpha=self._alpha(y, sample_weight),
            l1_ratio=1.0 if self.penalty == "l1" else self.l1_ratio or 0.0,  # None: deprecated
            batch_size=_BATCH_SIZE.get(self.solver, "auto"),
            # F's excess goes with the square of the gradient, which LogisticRegression's tol is about
            tol=self.tol**2,
            fit_intercept=self.fit_intercept,
            class_weight=self.class_weight,
            random_state=self.random_state,
            max_iter=self.max_iter,
            warm_start=self.warm_start,
            verbose=self.verbose,
        )
        model.set_callbacks(*getattr(self, "_skl_callbacks", ()))
        if self.warm_start and hasattr(self, "coef_"):
            vars(model).update({k: v for k, v in vars(self).items() if k.endswith("_")})
        model.fit(X, y, sample_weight)
        vars(self).update({k: v for k, v in vars(model).items() if k.endswith("_")})
        self.n_iter_ = np.array([model.n_iter_])
        return self

    def _alpha(self, y, sample_weight):
        """C counts against the sum of the losses, alpha against their mean; see ``alpha_from_C``."""
        if np.isinf(self.C):
            return 0.0
        labels, given = (np.asarray(as_host_array(values)) for values in (y, sample_weight))
        weight = np.ones(len(labels)) if sample_weight is None else given.astype(float)
        classes, codes = np.unique(labels, return_inverse=True)
        data = apply_class_weight(Batch(codes, codes, weight), self.class_weight, classes)
        return alpha_from_C(self.C, data.weight.sum())
