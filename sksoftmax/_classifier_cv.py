"""``SoftmaxClassifierCV``: selection of the penalty by cross-validation along regularization paths.

Users call it directly. It prepares the problem once for all folds, has ``_training.path`` fit the path of each fold,
and fits or averages the best models. Models are held and scored by ``SoftmaxClassifier``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from sksoftmax import _sklearn
from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._data import arrays as _arrays
from sksoftmax._data import labels as _labels
from sksoftmax._data import parameter_names
from sksoftmax._data import validation as _validation
from sksoftmax._engines import registry
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._maths.objective import alpha_from_C
from sksoftmax._maths.reduction import (
    ReducedProblem,
    classes_with_rows,
    identity_reduction,
    reduce_columns,
    restrict_classes,
)
from sksoftmax._model.predictions import PredictionsMixin, most_probable, raw_predictions, to_proba
from sksoftmax._training.fit import NO_MONITOR, PreparedProblem, may_rotate, minimize, prepare
from sksoftmax._training.loop import StoppingCriteria
from sksoftmax._training.path import PathPoint, path
from sksoftmax._training.plan import choose_engine
from sksoftmax._training.settings import Settings
from sksoftmax._types import Array, Batch, Params, Problem

#: Smallest C, as a power of 10, if ``alphas`` is a number; the default of ``LogisticRegressionCV``.
_MIN_LOG10_C = -4

#: Largest C, as a power of 10, likewise.
_MAX_LOG10_C = 4


class SoftmaxClassifierCV(
    _sklearn.SparseCoefMixin,  # type: ignore[misc]
    _sklearn.DocumentationLinkMixin,
    parameter_names.HintsMixin,
    PredictionsMixin,
    ClassifierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Softmax regression with its penalty selected by cross-validation.

    For each fold, a path of models is fitted from the strongest penalty to the weakest. Each model starts from the
    models before it, and is scored on the held-out rows. A model with the best penalty is then fitted to all rows. The
    selection is that of ``GridSearchCV`` over ``SoftmaxClassifier(alpha)``, in a fraction of the time.

    Parameters
    ----------
    alphas : int or array-like of shape (n_alphas,), default=10
        Strengths of the penalty on the mean loss, >= 0 (see ``SoftmaxClassifier``). An int is the number of strengths
        ``1 / (C * sum of the weights)``, with C on a logarithmic scale from 1e-4 to 1e4, as in
        ``LogisticRegressionCV``.
    l1_ratios : array-like of shape (n_l1_ratios,), default=(0.0,)
        Fractions of L1 in the penalty, in [0, 1]. Each has a path of its own.
    cv : int, cross-validation generator or iterable, default=None
        Cross-validation splitting strategy. An int is the number of stratified folds; None means 5 of them.
    scoring : str or callable, default=None
        Score to select by, higher is better: a name from ``sklearn.metrics.get_scorer_names``, or
        ``scorer(estimator, X, y)``. None is the accuracy, which hardly differs between similar penalties;
        "neg_log_loss" does.
    refit : bool, default=True
        If True, fit all rows with the penalty of the best mean score over the folds. If False, average the coefficients
        of the best model of each fold.
    n_alphas_no_change : int or None, default=None
        Number of penalties without a better score after which the path of a fold ends, >= 1; None for the full path.
        The scores of skipped penalties are NaN. With ``refit=True``, a penalty that any fold skipped is not selected.
    fit_intercept : bool, default=True
        Whether to fit an intercept. This and the following parameters are those of ``SoftmaxClassifier``.
    engine : {"auto", "compiled", "vectorized", "naive"}, default="auto"
        Implementation of the losses and gradients.
    max_iter : int, default=200
        Maximum number of epochs of each fit, >= 1. It is larger than in ``SoftmaxClassifier``, because the weakest
        penalty may be the best.
    tol : float, default=1e-3
        Tolerance for the stopping criterion of the final fit, >= 0: the estimated excess of F over its minimum,
        relative. Models on the path stop earlier. Their tolerance is a tenth of the difference between held-out and
        training loss, relative to F, but at most 0.03 and at least ``tol``.
    class_weight : dict or "balanced", default=None
        Factors on the sample weights by class label. "balanced" is computed from the rows that a model is fitted to.
    store_coefs : bool, default=True
        Whether to store ``coefs_paths_``, which is large for wide data.
    n_jobs : int or None, default=None
        Number of paths that are fitted in parallel. None means 1 unless in a ``joblib.parallel_config`` context, -1
        means all cores. Paths run in threads, which share X; the engines release the GIL while they compute. The naive
        engine uses processes. The context can select another backend, such as "loky".
    random_state : int, RandomState instance or None, default=None
        Seed of the fits. The folds have a seed of their own, see ``cv``.
    verbose : int, default=0
        If 1, print a line for each path.

    Attributes
    ----------
    alpha_ : float
        Selected strength. With ``refit=False``, the mean over the folds.
    l1_ratio_ : float
        Selected fraction of L1. With ``refit=False``, the mean over the folds.
    alphas_ : ndarray of shape (n_alphas,)
        Strengths tried, in descending order.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
        Fractions of L1 tried.
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas)
        Scores on the held-out rows; NaN for skipped penalties.
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas, n_classes, n_features + 1)
        Coefficients of the models on the paths, in X's dtype; the intercepts are the last column. For two classes the
        fourth axis has length 1. Without ``fit_intercept`` there is no last column. Only with ``store_coefs=True``.
    n_iter_ : ndarray of int of shape (n_folds, n_l1_ratios, n_alphas)
        Number of epochs of each fit on the paths; 0 for skipped penalties.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients of ``best_estimator_``.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Intercepts of ``best_estimator_``.
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    best_estimator_ : SoftmaxClassifier
        Model with the selected penalty. It has the attributes of its fit, and the methods ``partial_fit`` and
        ``to_sklearn``.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen during fit. Defined only if X has feature names that are all strings.

    Notes
    -----
    A path starts at the strongest penalty. Each further model starts from the last one, or from the line through the
    last two over the logarithm of alpha, if F on a subsample of the rows is smaller there. Column statistics are
    computed once, from all rows. They speed up the fits, but the models do not depend on them. No model is fitted to
    the rows that it is scored on.

    A class without rows in a fold is still in the fold's models, with a probability of about 1 / 2n. In the mean of the
    folds' models, its coefficients are the mean over the folds that have rows of it.

    Probability scorers of scikit-learn are given the labels of all classes, as in ``LogisticRegressionCV``, because the
    held-out rows may lack some. A scorer that does not accept ``sample_weight`` scores without weights.

    See Also
    --------
    SoftmaxClassifier : The same model for one penalty.
    sklearn.linear_model.LogisticRegressionCV : The same selection by passes over all rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sksoftmax import SoftmaxClassifierCV
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = SoftmaxClassifierCV(alphas=[1.0, 0.1, 0.01], scoring="neg_log_loss", random_state=0).fit(X, y)
    >>> clf.alpha_
    0.1
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = _validation.SWEEP_CONSTRAINTS

    @parameter_names.with_hints
    def __init__(
        self,
        alphas: int | ArrayLike = 10,
        *,
        l1_ratios: ArrayLike = (0.0,),
        cv: Any = None,
        scoring: Any = None,
        refit: bool = True,
        n_alphas_no_change: int | None = None,
        fit_intercept: bool = True,
        engine: str = "auto",
        max_iter: int = 200,
        tol: float = 1e-3,
        class_weight: dict[Any, float] | str | None = None,
        store_coefs: bool = True,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.alphas = alphas
        self.l1_ratios = l1_ratios
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.n_alphas_no_change = n_alphas_no_change
        self.fit_intercept = fit_intercept
        self.engine = engine
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight
        self.store_coefs = store_coefs
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_sklearn.validate_parameters
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **params: Any) -> Self:
        """Select the penalty, and fit the model to the rows of X.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            As in ``SoftmaxClassifier.fit``, but memory must hold X, and a copy of the training rows of each fold.
        y : array-like of shape (n_samples,)
            Labels of at least two classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, >= 0, for the fits and the scores.
        **params : dict
            Metadata for the splitter and the scorer, such as ``groups``, if metadata routing is enabled.

        Returns
        -------
        self : SoftmaxClassifierCV
            Fitted estimator.

        Raises
        ------
        ValueError
            - As ``SoftmaxClassifier.fit``.
            - If there is no penalty to try, or one is out of range.
            - If ``cv`` gives no fold, or the training rows of a fold are all of one class, or it holds out no rows.
            - If ``scoring`` gives only NaN.

        Warns
        -----
        ConvergenceWarning
            If a fit ends above its tolerance.
        """
        _sklearn.raise_for_params(params, self, "fit")
        with _validation.restore_on_error(self), one_blas_thread():
            _validation.check_engine_available(self)
            rows = _validation.check_rows(self, X, y, sample_weight, reset=True)
            if sample_weight is not None:
                params["sample_weight"] = rows.weight
            self._fit(rows, params)
        return self

    def _fit(self, rows: Batch, params: dict[str, Any]) -> None:
        """Fit the paths of all folds, and set the attributes.

        1. Encode the rows, and check the penalties and the folds.
        2. Reduce the columns and prepare the problem, once for all folds.
        3. Fit the paths in parallel.
        4. Select the penalty.
        """
        # 1.
        _arrays.check_numpy_or_scipy(rows.X, "SoftmaxClassifierCV", "GridSearchCV over SoftmaxClassifier")
        classes, codes = _labels.classes_and_codes(rows.y)
        _labels.check_two_classes(classes)
        data = _validation.check_and_drop_zero_weight(rows._replace(y=codes))
        alphas, l1_ratios = self._grid(float(data.weight.sum()))
        splitter_params, scorer_params = self._route_params(params)
        splits = list(check_cv(self.cv, rows.y, classifier=True).split(rows.X, rows.y, **splitter_params))
        _validation.check_any_folds(len(splits), self.cv)
        scorer_params = _sklearn.index_params(rows.X, scorer_params, np.flatnonzero(rows.weight > 0))
        place = np.where(rows.weight > 0, np.cumsum(rows.weight > 0) - 1, -1)
        # 2.
        model = self._new_model(classes, data.X)
        settings = model._settings()
        criteria = StoppingCriteria(self.max_iter, self.tol, None, 1)
        problem = model._problem(data, len(classes), float(data.weight.mean()))
        score_rows = _ROW_SCORES.get(self.scoring or "accuracy") if not callable(self.scoring) else None
        scorer = _HeldOutScorer(model, self._scorer(classes), scorer_params, score_rows)
        weakest = problem._replace(alpha=float(alphas.min()), l1_ratio=float(l1_ratios.max()))
        reduced = identity_reduction(weakest)
        if classes_with_rows(weakest) is None:  # otherwise each fold leaves out the classes without rows
            reduced = reduce_columns(weakest, may_rotate=may_rotate(weakest, settings)) or reduced
        prepared = prepare(reduced.problem, settings)
        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=len(splits))
        has_rows = np.array([np.bincount(codes[train], rows.weight[train], len(classes)) > 0 for train, _ in splits])
        prepared = prepared._replace(problem=_without_kernel(prepared.problem))
        reduced = reduced._replace(problem=_without_kernel(reduced.problem))
        # 3.
        paths = Parallel(n_jobs=self.n_jobs, prefer="processes" if self.engine == "naive" else "threads")(
            delayed(_path_of_fold)(
                *(
                    prepared,
                    reduced,
                    data,
                    place[train],
                    place[test],
                    alphas,
                    float(l1_ratio),
                    settings,
                    criteria,
                    scorer,
                ),
                class_weight=self.class_weight,
                n_no_change=self.n_alphas_no_change,
                seed=seed,
                verbose=self.verbose > 0,
            )
            for (train, test), seed in zip(splits, seeds, strict=True)
            for l1_ratio in l1_ratios
        )
        # 4.
        self.classes_, self.alphas_, self.l1_ratios_ = classes, alphas, l1_ratios
        self._select(paths, has_rows, data, model)

    def _select(self, paths: Sequence[list[PathPoint]], has_rows: Array, data: Batch, model: SoftmaxClassifier) -> None:
        """Set the attributes of the paths and of the selected model.

        ``paths`` are ordered by fold, and within a fold by ``l1_ratios_``. ``has_rows``, of shape (n_folds, n_classes),
        is True for the classes that have training rows in a fold.
        """
        shape = (len(has_rows), len(self.l1_ratios_), len(self.alphas_))
        self.scores_ = np.full(shape, np.nan)
        self.n_iter_ = np.zeros(shape, dtype=np.intp)
        for k, points in enumerate(paths):
            where = divmod(k, len(self.l1_ratios_))
            self.scores_[where][: len(points)] = [point.score for point in points]
            self.n_iter_[where][: len(points)] = [point.n_epochs for point in points]
        if self.store_coefs:
            shape_of_model = self._join_intercept(paths[0][0].params).shape
            self.coefs_paths_ = np.full((*shape, *shape_of_model), np.nan, dtype=data.X.dtype)
            for k, points in enumerate(paths):
                for j, point in enumerate(points):
                    self.coefs_paths_[*divmod(k, len(self.l1_ratios_)), j] = self._join_intercept(point.params)
        is_above_tol = [not point.is_fitted for points in paths for point in points]
        if any(is_above_tol):
            warnings.warn(
                f"SoftmaxClassifierCV: {sum(is_above_tol)} of {len(is_above_tol)} models did not converge within "
                f"max_iter={self.max_iter} epochs, so their scores may be wrong. Raise max_iter, or leave out the "
                "smallest alphas, whose F may have a minimum close to 0.",
                ConvergenceWarning,
                stacklevel=5,  # this method, _fit, fit, scikit-learn's parameter validation, the caller
            )
        if self.refit:
            self._refit(paths, has_rows, data, model)
        else:
            self._average_best_of_folds(paths, has_rows, data, model)

    def _refit(self, paths: Sequence[list[PathPoint]], has_rows: Array, data: Batch, model: SoftmaxClassifier) -> None:
        """Fit all rows with the penalty of the best mean score."""
        means = self.scores_.mean(axis=0)
        if np.isnan(means).all():
            raise ValueError(
                "scoring must give a number for at least one penalty in all folds, got only NaN; check the scorer."
            )
        i, j = map(int, np.unravel_index(np.nanargmax(means), means.shape))
        self.alpha_, self.l1_ratio_ = float(self.alphas_[j]), float(self.l1_ratios_[i])
        starts = [points[j].params for points in paths[i :: len(self.l1_ratios_)]]
        model.set_params(alpha=self.alpha_, l1_ratio=self.l1_ratio_, tol=self.tol)
        start = _mean_of_folds(starts, has_rows, has_l1=model._l1_ratio() > 0)
        data = _labels.apply_class_weight(data, self.class_weight, self.classes_)
        problem = model._problem(data, len(self.classes_), float(data.weight.mean()))
        result, info = minimize(
            *(problem, start, model._settings(), StoppingCriteria(self.max_iter, self.tol, None, 1)),
            is_warm=True,
            rng=check_random_state(self.random_state),
            monitor=NO_MONITOR,
        )
        model.__dict__ |= model._fit_attributes(result, self.classes_, data.X)
        model.solver_info_ = {"engine": choose_engine(self.engine), "solver": result.solver, **info}
        self._set_best_estimator(model, data)
        model._warn_if_above_tol(result, stacklevel=7)  # _refit and the method above it are two frames more

    def _average_best_of_folds(
        self, paths: Sequence[list[PathPoint]], has_rows: Array, data: Batch, model: SoftmaxClassifier
    ) -> None:
        """Average the best models of the folds."""
        selected = []
        n_paths = len(self.l1_ratios_)
        for fold, scores in enumerate(self.scores_):
            if np.isnan(scores).all():
                raise ValueError(
                    "scoring must give a number for at least one penalty in each fold, got only NaN; check the scorer."
                )
            i, j = np.unravel_index(np.nanargmax(scores), scores.shape)
            selected.append((self.alphas_[j], self.l1_ratios_[i], paths[fold * n_paths + int(i)][int(j)].params))
        alphas, l1_ratios, best = zip(*selected, strict=True)
        self.alpha_, self.l1_ratio_ = float(np.mean(alphas)), float(np.mean(l1_ratios))
        model.set_params(alpha=self.alpha_, l1_ratio=self.l1_ratio_)
        mean = _mean_of_folds(best, has_rows, has_l1=model._l1_ratio() > 0)
        model.__dict__ |= model._centered_coef_attributes(mean, data.X)
        model.n_iter_ = int(self.n_iter_.max())
        self._set_best_estimator(model, _labels.apply_class_weight(data, self.class_weight, self.classes_))

    def _set_best_estimator(self, model: SoftmaxClassifier, data: Batch) -> None:
        """Set ``best_estimator_`` and its coefficients; ``data`` are the rows that its stream continues from."""
        model._stream = model._new_stream(len(data.y), float(data.weight.sum()))
        if hasattr(self, "feature_names_in_"):
            model.feature_names_in_ = self.feature_names_in_
        self.best_estimator_, self.coef_, self.intercept_ = model, model.coef_, model.intercept_

    def _join_intercept(self, params: Params) -> Array:
        """Return the coefficients with the intercepts as the last column, if there are any."""
        return np.column_stack(params) if self.fit_intercept else params.coef

    def _grid(self, total_weight: float) -> tuple[Array, Array]:
        """Return the strengths, in descending order, and the fractions of L1."""
        if np.ndim(self.alphas) == 0:
            Cs = np.logspace(_MIN_LOG10_C, _MAX_LOG10_C, self.alphas)  # type: ignore[arg-type]
            alphas = np.array([alpha_from_C(C, total_weight) for C in Cs])
        else:
            alphas = np.unique(_arrays.check_range("alphas", self.alphas, 0.0, np.inf))[::-1]
        return alphas, _arrays.check_range("l1_ratios", self.l1_ratios, 0.0, 1.0)

    def _new_model(self, classes: Array, X: Any) -> SoftmaxClassifier:
        """Return a classifier with the shared parameters, to hold coefficients."""
        names = ("fit_intercept", "engine", "max_iter", "tol", "class_weight", "random_state")
        model = SoftmaxClassifier(**{name: getattr(self, name) for name in names})
        model.classes_, model.n_features_in_ = classes, X.shape[1]
        return model

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **score_params: Any) -> float:
        """Return the score of ``best_estimator_`` on the given rows and labels, by ``scoring``.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Test rows.
        y : array-like of shape (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, as in ``fit``; at least one > 0.
        **score_params : dict
            Metadata for the scorer, if metadata routing is enabled.

        Returns
        -------
        float
            Score, higher is better.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If X, y or the weights are not as above, or a keyword is not routed to the scorer.
        """
        _sklearn.raise_for_params(score_params, self, "score")
        check_is_fitted(self)
        y = _labels.check_labels(y, warn=False)
        _labels.to_common_dtype(y, self.classes_, "y", "the classes")
        sample_weight = _validation.check_score_weight(sample_weight, X, y)
        scorer = self._scorer(self.classes_)
        if sample_weight is not None and (_sklearn.routing_enabled() or _sklearn.accepts_weights(scorer)):
            score_params["sample_weight"] = sample_weight
        if _sklearn.routing_enabled():
            score_params = process_routing(self, "score", **score_params).scorer.score
        with np.errstate(all="ignore"):
            return float(scorer(self, X, y, **score_params))

    def _scorer(self, classes: Array | None = None) -> Any:
        scorer = get_scorer(self.scoring or "accuracy")
        return scorer if classes is None else _sklearn.with_class_labels(scorer, classes)

    def _route_params(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split the keywords of ``fit`` into those of the splitter and those of the scorer."""
        if not _sklearn.routing_enabled():
            accepts_weights = _sklearn.accepts_weights(self._scorer())
            return {}, {name: value for name, value in params.items() if name != "sample_weight" or accepts_weights}
        routed = process_routing(self, "fit", **params)
        return routed.splitter.split, routed.scorer.score

    def get_metadata_routing(self) -> MetadataRouter:
        """Get metadata routing of this object.

        Returns
        -------
        MetadataRouter
            Routing of this estimator, its splitter and its scorer.
        """
        to_splitter = MethodMapping().add(caller="fit", callee="split")
        to_scorer = MethodMapping().add(caller="score", callee="score").add(caller="fit", callee="score")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(splitter=check_cv(self.cv), method_mapping=to_splitter).add(
            scorer=self._scorer(), method_mapping=to_scorer
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _mean_of_folds(models: Sequence[Params], has_rows: Array, *, has_l1: bool) -> Params:
    """Return the mean of the folds' models; for each class, over the folds that have rows of it.

    A softmax determines the parameters of a fold up to a shift that is common to its classes. If folds lack classes,
    their means over the classes cannot be compared. The shifts are then chosen to bring the folds nearest to their
    mean, by least squares. Coefficients with an L1 penalty are not shifted, because the penalty determines them. For a
    class without rows in any fold, the mean is over all folds.
    """
    stacks = [np.stack(parts) for parts in zip(*models, strict=True)]  # (n_folds, n_outputs of coef, ...)
    if has_rows.all() or len(models[0].coef) == 1:
        return Params(*(stack.mean(axis=0) for stack in stacks))
    n_folds_with = has_rows.sum(axis=0)
    fold_weights = np.where(n_folds_with > 0, has_rows / np.maximum(n_folds_with, 1), 1 / len(models))
    is_in_fold = has_rows.astype(float)
    laplacian = np.diag(is_in_fold.sum(axis=1)) - is_in_fold @ fold_weights.T
    inverse = np.linalg.pinv(laplacian)

    def mean(stack: Array, *, shift: bool) -> Array:
        values = stack.reshape(*stack.shape[:2], -1)
        if shift:
            differences = np.einsum("fk,fkp->kp", fold_weights, values) - values
            values = values + (inverse @ np.einsum("fk,fkp->fp", is_in_fold, differences))[:, None]
        return np.einsum("fk,fkp->kp", fold_weights, values).reshape(stack.shape[1:])

    return Params(mean(stacks[0], shift=not has_l1), mean(stacks[1], shift=True))


def _is_right(raw: Array, y: Array) -> Array:
    """Return whether each row is predicted right, as in scikit-learn's "accuracy"."""
    return np.asarray(most_probable(raw) == y)


def _log_probability(raw: Array, y: Array) -> Array:
    """Return the logarithm of the probability of each row's class, clipped as in scikit-learn's "neg_log_loss"."""
    proba = to_proba(raw)
    eps = np.finfo(proba.dtype).eps
    return np.log(np.clip(proba[np.arange(len(y)), y], eps, 1 - eps))


#: Scores of scikit-learn that are means over the rows: ``(decision_function, codes of the classes) -> scores``.
_ROW_SCORES: dict[str, Callable[[Array, Array], Array]] = {
    "accuracy": _is_right,
    "neg_log_loss": _log_probability,
}


class _HeldOutScorer(NamedTuple):
    """Scorer of parameters on held-out rows: a copy of ``model`` holds them; ``params`` are keywords of ``scorer``.

    ``score_rows`` is the score of each row, if ``scorer`` is one of scikit-learn's in `_ROW_SCORES`: its checks take
    longer than the fit of few rows.
    """

    model: SoftmaxClassifier
    scorer: Any
    params: dict[str, Any]
    score_rows: Callable[[Array, Array], Array] | None

    def __call__(self, params: Params, rows: Batch) -> float:
        model = object.__new__(type(self.model))  # a copy, as paths may run in threads, but without its checks
        model.__dict__ |= self.model.__dict__ | self.model._centered_coef_attributes(params, rows.X)
        if self.score_rows is not None and self.params.keys() <= {"sample_weight"}:
            scores = self.score_rows(raw_predictions(model, rows.X), rows.y)
            return float(np.average(scores, weights=self.params.get("sample_weight")))
        return float(self.scorer(model, rows.X, model.classes_[rows.y], **self.params))


def _without_kernel(problem: Problem) -> Problem:
    """Return the problem without its engine, which is a module and cannot be pickled for another process."""
    return problem._replace(kernel=None)  # type: ignore[arg-type]


@np.errstate(all="ignore")  # a new process or thread does not inherit the caller's settings
def _path_of_fold(
    prepared: PreparedProblem,
    reduced: ReducedProblem,
    data: Batch,
    train: Array,
    test: Array,
    alphas: Array,
    l1_ratio: float,
    settings: Settings,
    criteria: StoppingCriteria,
    scorer: _HeldOutScorer,
    *,
    class_weight: Any,
    n_no_change: int | None,
    seed: int,
    verbose: bool,
) -> list[PathPoint]:
    """Fit and score the path of a fold.

    ``train`` and ``test`` are positions among the rows of positive weight, -1 for other rows. ``prepared`` is the
    problem with reduced columns. ``data`` are the rows with the original columns, in which the returned models are.
    """
    train, test = train[train >= 0], test[test >= 0]
    train_rows = Batch(*(column[train] for column in prepared.problem.data))
    held_out = Batch(*(column[test] for column in reduced.problem.data))
    test_rows = held_out if reduced.problem.data.X is data.X else Batch(*(column[test] for column in data))
    if data.y.min() < data.y.max():  # otherwise no fold can have two classes
        _labels.check_two_classes(scorer.model.classes_[np.unique(train_rows.y)])
    if len(test) == 0:
        raise ValueError("cv must hold out rows of positive weight in each fold, got a fold without any; change cv.")
    train_rows = _labels.apply_class_weight(train_rows, class_weight, scorer.model.classes_)
    scorer = scorer._replace(params=_sklearn.index_params(data.X, scorer.params, test))
    mean_weight = float(train_rows.weight.mean())
    problem = prepared.problem._replace(data=train_rows, mean_weight=mean_weight, alpha=1.0, l1_ratio=l1_ratio)
    problem = problem._replace(kernel=registry.get_kernel(choose_engine(settings.engine)))
    classes = classes_with_rows(problem)
    restricted = identity_reduction(problem) if classes is None else restrict_classes(problem, classes)
    if classes is not None:
        is_in_fold = np.isin(held_out.y, classes)
        codes = np.searchsorted(classes, held_out.y[is_in_fold])
        held_out = Batch(held_out.X[is_in_fold], codes, held_out.weight[is_in_fold])

    def back(params: Params) -> Params:
        return reduced.back(restricted.back(params))

    with one_blas_thread():
        points = path(
            prepared._replace(problem=restricted.problem),
            held_out,
            restricted.problem.alpha * alphas,
            settings,
            criteria,
            score=lambda params: scorer(back(params), test_rows),
            n_no_change=n_no_change,
            rng=check_random_state(seed),
        )
    if verbose:
        k = int(np.argmax([point.score for point in points]))
        print(f"l1_ratio {l1_ratio:g}  {len(points)} alphas  best score {points[k].score:.4f} at {alphas[k]:.1e}")
    return [point._replace(params=back(point.params)) for point in points]
