"""``SoftmaxClassifierCV``: the strength of the penalty, chosen by cross-validation along a path."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
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

from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._data import validation as _validation
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._maths.objective import alpha_from_C
from sksoftmax._maths.reduction import (
    ReducedProblem,
    classes_with_rows,
    identity_reduction,
    reduce_columns,
    restrict_classes,
)
from sksoftmax._model.predictions import PredictionsMixin
from sksoftmax._training.fit import NO_MONITOR, PreparedProblem, may_rotate, minimize, prepare
from sksoftmax._training.loop import Rules
from sksoftmax._training.path import PathPoint, path
from sksoftmax._training.plan import Settings, choose_engine
from sksoftmax._types import Array, Batch, Params, Problem

#: Inverse strengths on the sum of the losses that a number of alphas is spread over, as ``LogisticRegressionCV``'s.
_LEAST_C, _MOST_C = -4, 4


class SoftmaxClassifierCV(
    _validation.SparseCoefMixin,  # type: ignore[misc]
    _validation.DocumentationLinkMixin,
    PredictionsMixin,
    ClassifierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Softmax regression with the strength of its penalty chosen by cross-validation.

    For each fold a path of models is fitted, from the strongest penalty to the weakest, each from where those before it
    lead, and scored on the rows held out; a model of the best penalty is then fitted to all rows. It chooses as
    ``GridSearchCV`` over ``SoftmaxClassifier(alpha)`` does, in a fraction of the time.

    Parameters
    ----------
    alphas : int or array-like of shape (n_alphas,), default=10
        Strengths of the penalty on the mean loss, >= 0 (see ``SoftmaxClassifier``). A number stands for as many,
        ``1 / (C * sum of the weights)`` with C spread logarithmically from 1e-4 to 1e4, as ``LogisticRegressionCV``'s.
    l1_ratios : array-like of shape (n_l1_ratios,), default=(0.0,)
        Shares of L1 in the penalty, in [0, 1]: a path each.
    cv : int, cross-validation generator or iterable, default=None
        How rows are held out; an int is that many stratified folds, None 5.
    scoring : str or callable, default=None
        What to choose by, higher is better: a name from ``sklearn.metrics.get_scorer_names``, or
        ``scorer(estimator, X, y)``. None is the accuracy, which can hardly tell near penalties apart; "neg_log_loss"
        can.
    refit : bool, default=True
        Whether to fit all rows with the penalty of the best mean score over the folds. False takes, of each fold, the
        best model, and answers with the mean of their coefficients.
    n_alphas_no_change : int or None, default=None
        Penalties without a better score after which a fold's path ends, >= 1; None for the whole path. The scores of
        what is left out are NaN, and a penalty that any fold has left out is not chosen.
    fit_intercept : bool, default=True
        As ``SoftmaxClassifier``'s, as are all below.
    engine : {"auto", "compiled", "vectorized", "naive"}, default="auto"
        What computes losses and gradients.
    max_iter : int, default=200
        Most epochs of a fit, >= 1: more than ``SoftmaxClassifier``'s, for the weakest penalty may be the best.
    tol : float, default=1e-3
        The last fit ends when F is estimated to be within ``tol``, relative, of its minimum, >= 0. The models of the
        paths end, by an estimate, within a tenth of what the loss on the rows held out exceeds that on their own by, at
        most within 0.03 of F, or within ``tol`` if that is more.
    class_weight : dict or "balanced", default=None
        Factors on the sample weights by class label; "balanced" is of the rows that a model is fitted to.
    store_coefs : bool, default=True
        Whether to keep ``coefs_paths_``, which of wide data is large.
    n_jobs : int or None, default=None
        Number of folds that are fitted at a time; None is 1 unless in a ``joblib.parallel_config`` context, -1 all
        cores. They are fitted in threads, which share X: the engines release Python's lock while they compute (not the
        naive one, which has processes). Another backend, such as "loky", can be chosen by that context.
    random_state : int, RandomState instance or None, default=None
        Seed of the fits; the folds have their own, see ``cv``.
    verbose : int, default=0
        1 prints a line a path.

    Attributes
    ----------
    alpha_ : float
        The strength chosen; with ``refit=False`` the mean over the folds.
    l1_ratio_ : float
        The share of L1 chosen.
    alphas_ : ndarray of shape (n_alphas,)
        The strengths tried, falling.
    l1_ratios_ : ndarray of shape (n_l1_ratios,)
        The shares of L1 tried.
    scores_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas)
        Scores on the rows held out.
    coefs_paths_ : ndarray of shape (n_folds, n_l1_ratios, n_alphas, n_classes, n_features + 1)
        Coefficients, and last the intercepts, of the models of the folds, in X's dtype; n_classes is 1 for two, and
        there is no last column without ``fit_intercept``. Only with ``store_coefs=True``.
    n_iter_ : ndarray of int of shape (n_folds, n_l1_ratios, n_alphas)
        Epochs of their fits.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients of the model of the penalty chosen.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Its intercepts.
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    best_estimator_ : SoftmaxClassifier
        That model; it says how its fit went, goes on by ``partial_fit``, and has ``to_sklearn``.
    n_features_in_ : int
        Columns seen in fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if X had names and all of them strings.

    Notes
    -----
    A path starts at the strongest penalty; where the last two models' coefficients, on a line over the logarithm of
    alpha, lead to a smaller F of some of the rows, the next starts there, and otherwise at the last. Statistics of the
    columns are computed once, from all rows: they make the fits quick, and no model depends on them. No model of a fold
    has seen the rows that it is scored on.

    A class that a fold's rows lack is kept, with a probability of 1 / 2n or so. In the mean of the folds' models its
    coefficients are those of the folds that have rows of it.

    scikit-learn's scorers of probabilities are given the labels of all classes, as ``LogisticRegressionCV``'s are: the
    rows held out may lack some. A scorer that takes no ``sample_weight`` scores without weights.

    See Also
    --------
    SoftmaxClassifier : A fit of one penalty.
    sklearn.linear_model.LogisticRegressionCV : The same by passes over all rows.

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

    @_validation.validate_parameters
    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **params: Any) -> Self:
        """Choose the penalty, and fit the model to the rows of X.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            As ``SoftmaxClassifier.fit`` takes it, but that memory holds all of it, and a copy of a fold's.
        y : array-like of shape (n_samples,)
            Labels of at least two classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, >= 0, of the fits and of the scores.
        **params : dict
            For the splitter and the scorer, if metadata routing is enabled, such as ``groups``.

        Returns
        -------
        self : SoftmaxClassifierCV

        Raises
        ------
        ValueError
            As ``SoftmaxClassifier.fit``; if there is no penalty to try, or one is out of range; if ``cv`` gives no
            fold; or if all the rows that a fold trains on are of one class, or it holds none out.

        Warns
        -----
        ConvergenceWarning
            If a fit ends above its tolerance.
        """
        _validation.raise_for_params(params, self, "fit")
        with _validation.restore_on_error(self), one_blas_thread():
            _validation.check_engine_available(self)
            rows = _validation.all_rows(self, X, y, sample_weight, reset=True)
            if sample_weight is not None:
                params["sample_weight"] = rows.weight
            self._fit(rows, params)
        return self

    def _fit(self, rows: Batch, params: dict[str, Any]) -> None:
        _validation.check_numpy_or_scipy(rows.X, "SoftmaxClassifierCV", "GridSearchCV over SoftmaxClassifier")
        classes, codes = np.unique(rows.y, return_inverse=True)
        _validation.check_two_classes(classes)
        data = _validation.drop_zero_weight_or_raise(rows._replace(y=codes))
        alphas, l1_ratios = self._grid(float(data.weight.sum()))
        of_splitter, of_scorer = self._routed(params)
        splits = list(check_cv(self.cv, rows.y, classifier=True).split(rows.X, rows.y, **of_splitter))
        _validation.check_any_folds(len(splits), self.cv)
        of_scorer = _validation.params_of_rows(rows.X, of_scorer, np.flatnonzero(rows.weight > 0))
        place = np.where(rows.weight > 0, np.cumsum(rows.weight > 0) - 1, -1)
        model = self._model(classes, data.X)
        settings = model._settings()
        rules = Rules(self.max_iter, self.tol, None, 1)
        problem = model._problem(data, len(classes), float(data.weight.mean()))
        judge = _Judge(model, self._scorer(classes), of_scorer)
        weakest = problem._replace(alpha=float(alphas.min()), l1_ratio=float(l1_ratios.max()))
        reduced = identity_reduction(weakest)
        if classes_with_rows(weakest) is None:  # else each fold leaves these classes out
            reduced = reduce_columns(weakest, may_rotate=may_rotate(weakest, settings)) or reduced
        prepared = prepare(reduced.problem, settings)
        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=len(splits))
        has_rows = np.array([np.bincount(codes[train], rows.weight[train], len(classes)) > 0 for train, _ in splits])
        prepared = prepared._replace(problem=_without_kernel(prepared.problem))
        reduced = reduced._replace(problem=_without_kernel(reduced.problem))
        paths = Parallel(n_jobs=self.n_jobs, prefer="processes" if self.engine == "naive" else "threads")(
            delayed(_path_of_fold)(
                *(prepared, reduced, data, place[train], place[test], alphas, float(l1_ratio), settings, rules, judge),
                class_weight=self.class_weight,
                n_no_change=self.n_alphas_no_change,
                seed=seed,
                is_told=self.verbose > 0,
            )
            for (train, test), seed in zip(splits, seeds, strict=True)
            for l1_ratio in l1_ratios
        )
        self.classes_, self.alphas_, self.l1_ratios_ = classes, alphas, l1_ratios
        self._choose(paths, has_rows, data, model)

    def _choose(self, paths: Sequence[list[PathPoint]], has_rows: Array, data: Batch, model: SoftmaxClassifier) -> None:
        """Set the attributes: of the paths, a row of ``l1_ratios_`` a fold, and of the model chosen.

        ``has_rows``, of shape (n_folds, n_classes), says which classes a fold has rows of.
        """
        shape = (len(has_rows), len(self.l1_ratios_), len(self.alphas_))
        self.scores_ = np.full(shape, np.nan)
        self.n_iter_ = np.zeros(shape, dtype=np.intp)
        for k, points in enumerate(paths):
            where = divmod(k, len(self.l1_ratios_))
            self.scores_[where][: len(points)] = [point.score for point in points]
            self.n_iter_[where][: len(points)] = [point.n_epochs for point in points]
        if self.store_coefs:
            self.coefs_paths_ = np.full((*shape, *self._flat(paths[0][0].params).shape), np.nan, dtype=data.X.dtype)
            for k, points in enumerate(paths):
                for j, point in enumerate(points):
                    self.coefs_paths_[*divmod(k, len(self.l1_ratios_)), j] = self._flat(point.params)
        is_short = [not point.is_fitted for points in paths for point in points]
        if any(is_short):
            warnings.warn(
                f"{sum(is_short)} of the {len(is_short)} models that SoftmaxClassifierCV compared ended above their "
                f"tolerance after max_iter={self.max_iter} epochs, so that their scores are not of F's minimum. Raise "
                "max_iter, or leave out the smallest alphas: their F may have a minimum next to 0.",
                ConvergenceWarning,
                stacklevel=5,  # this, _fit, fit, scikit-learn's check of parameters: the caller
            )
        if self.refit:
            self._refit(paths, has_rows, data, model)
        else:
            self._take_best_of_folds(paths, has_rows, data, model)

    def _refit(self, paths: Sequence[list[PathPoint]], has_rows: Array, data: Batch, model: SoftmaxClassifier) -> None:
        """The model of the best mean score, fitted to all rows."""
        means = self.scores_.mean(axis=0)
        if np.isnan(means).all():
            raise ValueError("scoring must give a number for at least one penalty in all folds, got only NaN.")
        i, j = map(int, np.unravel_index(np.nanargmax(means), means.shape))
        self.alpha_, self.l1_ratio_ = float(self.alphas_[j]), float(self.l1_ratios_[i])
        starts = [points[j].params for points in paths[i :: len(self.l1_ratios_)]]
        model.set_params(alpha=self.alpha_, l1_ratio=self.l1_ratio_, tol=self.tol)
        start = _mean_of_folds(starts, has_rows, has_l1=model._l1_ratio() > 0)
        data = _validation.apply_class_weight(data, self.class_weight, self.classes_)
        problem = model._problem(data, len(self.classes_), float(data.weight.mean()))
        result, info = minimize(
            *(problem, start, model._settings(), Rules(self.max_iter, self.tol, None, 1)),
            is_warm=True,
            rng=check_random_state(self.random_state),
            monitor=NO_MONITOR,
        )
        model.__dict__ |= model._outcome(result, self.classes_, data.X)
        model.solver_info_ = {"engine": choose_engine(self.engine), "solver": result.solver, **info}
        self._take(model, data)
        model._warn_if_above_tol(result)

    def _take_best_of_folds(
        self, paths: Sequence[list[PathPoint]], has_rows: Array, data: Batch, model: SoftmaxClassifier
    ) -> None:
        """The mean of the folds' best models."""
        chosen = []
        n_paths = len(self.l1_ratios_)
        for fold, scores in enumerate(self.scores_):
            if np.isnan(scores).all():
                raise ValueError("scoring must give a number for at least one penalty in each fold, got only NaN.")
            i, j = np.unravel_index(np.nanargmax(scores), scores.shape)
            chosen.append((self.alphas_[j], self.l1_ratios_[i], paths[fold * n_paths + int(i)][int(j)].params))
        alphas, l1_ratios, best = zip(*chosen, strict=True)
        self.alpha_, self.l1_ratio_ = float(np.mean(alphas)), float(np.mean(l1_ratios))
        model.set_params(alpha=self.alpha_, l1_ratio=self.l1_ratio_)
        model.__dict__ |= model._answer(_mean_of_folds(best, has_rows, has_l1=model._l1_ratio() > 0), data.X)
        model.n_iter_ = int(self.n_iter_.max())
        self._take(model, _validation.apply_class_weight(data, self.class_weight, self.classes_))

    def _take(self, model: SoftmaxClassifier, data: Batch) -> None:
        """The attributes of the model chosen, which stands for these rows."""
        model._stream = model._new_stream(len(data.y), float(data.weight.sum()))
        if hasattr(self, "feature_names_in_"):
            model.feature_names_in_ = self.feature_names_in_
        self.best_estimator_, self.coef_, self.intercept_ = model, model.coef_, model.intercept_

    def _flat(self, params: Params) -> Array:
        return np.column_stack(params) if self.fit_intercept else params.coef

    def _grid(self, total_weight: float) -> tuple[Array, Array]:
        """The strengths, falling, and the shares of L1."""
        if np.ndim(self.alphas) == 0:
            Cs = np.logspace(_LEAST_C, _MOST_C, self.alphas)  # type: ignore[arg-type]
            alphas = np.array([alpha_from_C(C, total_weight) for C in Cs])
        else:
            alphas = np.unique(_validation.check_range("alphas", self.alphas, 0.0, np.inf))[::-1]
        return alphas, _validation.check_range("l1_ratios", self.l1_ratios, 0.0, 1.0)

    def _model(self, classes: Array, X: Any) -> SoftmaxClassifier:
        """A classifier of these settings, to hold coefficients."""
        names = ("fit_intercept", "engine", "max_iter", "tol", "class_weight", "random_state")
        model = SoftmaxClassifier(**{name: getattr(self, name) for name in names})
        model.classes_, model.n_features_in_ = classes, X.shape[1]
        return model

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **score_params: Any) -> float:
        """Score by ``scoring`` of the model on other rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, as in ``fit``; at least one > 0.
        **score_params : dict
            For the scorer, if metadata routing is enabled.

        Returns
        -------
        float

        Raises
        ------
        NotFittedError
            Before the first fit.
        ValueError
            If X, y or the weights are not as above, or a keyword is for no one.
        """
        _validation.raise_for_params(score_params, self, "score")
        check_is_fitted(self)
        y = _validation.check_labels(y, warn=False)
        _validation.to_common_dtype(y, self.classes_, "y", "the classes")
        sample_weight = _validation.check_score_weight(sample_weight, X, y)
        scorer = self._scorer(self.classes_)
        if sample_weight is not None and (_validation.routing_enabled() or _validation.accepts_weights(scorer)):
            score_params["sample_weight"] = sample_weight
        if _validation.routing_enabled():
            score_params = process_routing(self, "score", **score_params).scorer.score
        with np.errstate(all="ignore"):
            return float(scorer(self, X, y, **score_params))

    def _scorer(self, classes: Array | None = None) -> Any:
        scorer = get_scorer(self.scoring or "accuracy")
        return scorer if classes is None else _validation.scorer_of_classes(scorer, classes)

    def _routed(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of ``fit``'s keywords those of the splitter and of the scorer."""
        if not _validation.routing_enabled():
            is_taken = _validation.accepts_weights(self._scorer())
            return {}, {name: value for name, value in params.items() if name != "sample_weight" or is_taken}
        routed = process_routing(self, "fit", **params)
        return routed.splitter.split, routed.scorer.score

    def get_metadata_routing(self) -> MetadataRouter:
        """Who gets which metadata.

        Returns
        -------
        MetadataRouter
            Of this, its splitter and its scorer.
        """
        of_fit = MethodMapping().add(caller="fit", callee="split")
        of_score = MethodMapping().add(caller="score", callee="score").add(caller="fit", callee="score")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(splitter=check_cv(self.cv), method_mapping=of_fit).add(
            scorer=self._scorer(), method_mapping=of_score
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _mean_of_folds(models: Sequence[Params], has_rows: Array, *, has_l1: bool) -> Params:
    """Return the mean of the folds' models, a class's over the folds that have rows of it.

    A softmax determines the parameters of a fold up to one shift common to its classes. Where folds lack classes, their
    means over the classes are of different ones: the shifts are then those that bring the folds nearest to the mean,
    by least squares. Coefficients under an L1 penalty, which determines them, are not shifted. A class that no fold has
    rows of is as in the mean of all.
    """
    stacks = [np.stack(parts) for parts in zip(*models, strict=True)]  # (n_folds, n_outputs of coef, ...)
    if has_rows.all() or len(models[0].coef) == 1:
        return Params(*(stack.mean(axis=0) for stack in stacks))
    n_folds_with = has_rows.sum(axis=0)
    share = np.where(n_folds_with > 0, has_rows / np.maximum(n_folds_with, 1), 1 / len(models))
    within = has_rows.astype(float)
    laplacian = np.diag(within.sum(axis=1)) - within @ share.T
    inverse = np.linalg.pinv(laplacian)

    def mean(stack: Array, *, is_shifted: bool) -> Array:
        values = stack.reshape(*stack.shape[:2], -1)
        if is_shifted:
            off = np.einsum("fk,fkp->kp", share, values) - values
            values = values + (inverse @ np.einsum("fk,fkp->fp", within, off))[:, None]
        return np.einsum("fk,fkp->kp", share, values).reshape(stack.shape[1:])

    return Params(mean(stacks[0], is_shifted=not has_l1), mean(stacks[1], is_shifted=True))


class _Judge(NamedTuple):
    """Who scores parameters on rows held out: a copy of ``model`` holds them, ``scorer`` judges it, with ``params``."""

    model: SoftmaxClassifier
    scorer: Any
    params: dict[str, Any]

    def __call__(self, params: Params, held: Batch) -> float:
        model = copy.copy(self.model)  # folds may be threads
        model.__dict__ |= model._answer(params, held.X)
        return float(self.scorer(model, held.X, model.classes_[held.y], **self.params))


def _without_kernel(problem: Problem) -> Problem:
    """Return the problem without its engine, a module, which cannot be pickled for another process."""
    return problem._replace(kernel=None)  # type: ignore[arg-type]


@np.errstate(all="ignore")  # a process or thread of its own does not inherit the caller's settings
def _path_of_fold(
    prepared: PreparedProblem,
    reduced: ReducedProblem,
    data: Batch,
    train: Array,
    test: Array,
    alphas: Array,
    l1_ratio: float,
    settings: Settings,
    rules: Rules,
    judge: _Judge,
    *,
    class_weight: Any,
    n_no_change: int | None,
    seed: int,
    is_told: bool,
) -> list[PathPoint]:
    """The path of a fold; its rows by their places among those of positive weight, -1 for others.

    ``prepared`` is the problem of fewer columns, ``data`` are the rows as they were given, and so the models of the
    path.
    """
    train, test = train[train >= 0], test[test >= 0]
    rows = prepared.problem.data
    part = Batch(*(column[train] for column in rows))
    held = Batch(*(column[test] for column in reduced.problem.data))
    given = held if reduced.problem.data.X is data.X else Batch(*(column[test] for column in data))
    if data.y.min() < data.y.max():  # else no fold can have two
        _validation.check_two_classes(judge.model.classes_[np.unique(part.y)])
    if len(test) == 0:
        raise ValueError("cv must hold out rows of positive weight in each fold, got a fold without.")
    part = _validation.apply_class_weight(part, class_weight, judge.model.classes_)
    judge = judge._replace(params=_validation.params_of_rows(data.X, judge.params, test))
    problem = prepared.problem._replace(data=part, mean_weight=float(part.weight.mean()), alpha=1.0, l1_ratio=l1_ratio)
    problem = problem._replace(kernel=_validation.get_kernel(choose_engine(settings.engine)))
    seen = classes_with_rows(problem)
    few = identity_reduction(problem) if seen is None else restrict_classes(problem, seen)
    if seen is not None:
        is_known = np.isin(held.y, seen)
        held = Batch(held.X[is_known], np.searchsorted(seen, held.y[is_known]), held.weight[is_known])

    def back(params: Params) -> Params:
        return reduced.back(few.back(params))

    with one_blas_thread():
        points = path(
            *(prepared._replace(problem=few.problem), held, few.problem.alpha * alphas, settings, rules),
            score=lambda params: judge(back(params), given),
            n_no_change=n_no_change,
            rng=check_random_state(seed),
        )
    if is_told:
        k = int(np.argmax([point.score for point in points]))
        print(f"l1_ratio {l1_ratio:g}  {len(points)} alphas  best score {points[k].score:.4f} at {alphas[k]:.1e}")
    return [point._replace(params=back(point.params)) for point in points]
