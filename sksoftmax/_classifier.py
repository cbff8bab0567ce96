"""``SoftmaxClassifier``: the estimator, from checked input to fitted attributes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sksoftmax._data import out_of_core
from sksoftmax._data import targets as _targets
from sksoftmax._data import validation as _validation
from sksoftmax._data.placement import device_of_fit, labels_like, place_like
from sksoftmax._engines import array_api, vectorized
from sksoftmax._engines.device import DeviceArray, to_host, to_numpy
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._maths.objective import center_params, prior_params
from sksoftmax._maths.reduction import add_classes
from sksoftmax._model import conversion, serialization
from sksoftmax._model.predictions import PredictionsMixin
from sksoftmax._training.callbacks import Task, combine_monitors, task_of, verbose_monitor
from sksoftmax._training.fit import minimize
from sksoftmax._training.loop import Result, Rules
from sksoftmax._training.plan import Settings, choose_engine
from sksoftmax._training.stopping import StopReason
from sksoftmax._training.stream import TOL, Stream, new_stream, update_stream, with_classes, with_intercept
from sksoftmax._types import Array, Batch, DataSource, Params, Problem, is_finite


class SoftmaxClassifier(
    _validation.CallbackSupportMixin,  # type: ignore[misc]
    _validation.SparseCoefMixin,  # type: ignore[misc]
    _validation.DocumentationLinkMixin,
    PredictionsMixin,
    ClassifierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Softmax (multinomial logistic) regression trained by minibatches.

    Minimises, over the coefficients W and the intercepts b, ::

        F = sum_i w_i * [logsumexp(z_i) - z_i[y_i]] / sum_i w_i
            + alpha * ((1 - l1_ratio) / 2 * ||W||^2 + l1_ratio * ||W||_1),      z_i = W x_i + b

    which is ``LogisticRegression``'s objective with ``alpha = 1 / (C * sum_i w_i)``, and has the same minimum.
    With the default ``solver="auto"`` there is nothing to tune and nothing to scale: minibatch steps are taken
    in the metric of a bound of F's curvature (Boehning, 1992), which makes them independent of the columns'
    scales and correlations, and Newton steps finish the fit, with gradients over all rows and the curvature of a
    part of them.

    Parameters
    ----------
    alpha : float, default=1e-4
        Strength of the penalty, >= 0. It multiplies the penalty on the *mean* loss, so its effect depends
        neither on the number of rows nor on the batch size. The intercept is not penalised.
    l1_ratio : float, default=0.0
        Share of L1 in the penalty, in [0, 1], as ``LogisticRegression``'s: 0 is L2, 1 is L1, anything between is the
        elastic net. With any but 0 many coefficients are exactly 0, but for averages over the updates, which
        ``average=True`` and ``partial_fit``, of rows that it does not keep, answer with.
    fit_intercept : bool, default=True
        Whether the model has an intercept for each class.
    solver : {"auto", "sgd", "adagrad", "adam"}, default="auto"
        How to minimise F.

        - "auto": chooses from the shape of the data, needs no tuning and no scaling; see ``solver_info_``.
        - "sgd": stochastic gradient descent, plain (``momentum=0``), with momentum, or with Nesterov's.
        - "adagrad": Duchi, Hazan & Singer (2011).
        - "adam": Kingma & Ba (2015).

        All but "auto" need columns of similar scale to get anywhere, as everywhere.
    engine : {"auto", "compiled", "vectorized", "naive"}, default="auto"
        What computes losses and gradients.

        - "vectorized": NumPy/SciPy.
        - "compiled": for ``solver="auto"``, visits of single rows compiled by numba (``pip install
          'sksoftmax[fast]'``): dual coordinate ascent, which Newton steps finish should it not reach ``tol``. The
          first fit of a process compiles for some seconds, and later processes load what it kept in some tenths.
          A named solver and, without L1, a ``batch_size`` or ``learning_rate`` given take the vectorized way.
        - "naive": the same sums by explicit Python loops over samples, classes and features, for verification and
          teaching (a thousand times slower).
        - "auto": "compiled" where numba is installed and it pays, else "vectorized". It pays for at least 200 columns,
          and more than 256 rows or a Hessian too large to factorise, if n_samples x n_classes probabilities take at
          most 64 MiB or 4 times X's memory; without L1, dense X of which more than a quarter is not 0 must have 3000
          coefficients, and of more than two rows a column 500 columns and 30000 coefficients.

        X of another library than NumPy (see ``fit``) is computed with by that, under "auto" and "vectorized".
        What ran is in ``solver_info_``.
    batch_size : int or "auto", default="auto"
        Rows of a minibatch, >= 1. For ``solver="auto"``, "auto" is n_features, at least 256 and at most 4096,
        and data of fewer than 16 such batches are left to the Newton steps alone; a number given is used. For
        the other solvers it is 256.
    learning_rate : float or "auto", default="auto"
        Base step length, > 0. "auto" is derived from the data: for "sgd" 1 / L, L the curvature of a batch;
        for "adagrad" and "adam" the change of all parameters that changes a raw prediction by 1; for "auto" a
        number below 1 in the metric, for the minibatches alone. Its use is reported in ``solver_info_``.
    schedule : {"linear", "cosine", "inverse_scaling", "constant"}, default="linear"
        Factor on the learning rate over the updates of "sgd", "adagrad" and "adam": from 1 to 0 at
        ``max_iter``, along a line or half a cosine; ``(step + 1) ** -power_t``; or 1. In ``partial_fit``,
        which knows no end, "linear" and "cosine" are constant.
    power_t : float, default=0.5
        Exponent of "inverse_scaling", >= 0.
    momentum : float, default=0.9
        Share of the last update that is kept in the next, in [0, 1); for "sgd" and "auto".
    nesterov : bool, default=True
        Whether the momentum is Nesterov's.
    average : bool, default=False
        Whether "sgd" answers with the polynomial-decay average of its iterates.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay of Adam's running means, in [0, 1).
    epsilon : float, default=1e-8
        Added to the denominators of "adam" and "adagrad", > 0.
    max_iter : int, default=100
        Most epochs, >= 1: passes of minibatches, and Newton steps (of several passes each).
    tol : float, default=1e-3
        The fit ends when F is estimated to be within ``tol``, relative, of its minimum: ``(F - F*) / F*``,
        >= 0. The estimate is the duality gap of a Newton step along which rows may saturate, or for compiled fits a
        bound by duality if that is small enough. Below the rounding of X's dtype it counts as that. With
        ``solver="auto"``, float64 data of at most 256 rows and some 300 coefficients are always fitted to that, which
        costs little: the answer then depends neither on the seed nor on the order of the rows.
    shuffle : bool, default=True
        Whether each epoch visits the rows in a new random order.
    early_stopping : bool, default=False
        Whether to end when the accuracy on rows that are not trained on has not improved for ``n_iter_no_change``
        epochs, with the coefficients of the best epoch. These rows are those given to ``fit`` as ``X_val``, or else a
        stratified part of X (of soft targets a random one) that is set aside. A fit that reaches ``tol`` before ends
        there, with its last.
    validation_fraction : float, default=0.1
        Share of the rows set aside, in (0, 1); not used with ``X_val``.
    n_iter_no_change : int, default=5
        Epochs without a better validation score before early stopping, >= 1.
    class_weight : dict or "balanced", default=None
        Factors on the sample weights by class label, >= 0; 1 for classes that a dict does not name; "balanced" makes
        all classes weigh the same. With ``allow_new_classes=True`` the dict of ``partial_fit`` may name classes that
        are still to come. Of a row of soft targets each class's share is multiplied by its factor.
    soft_targets : bool, default=False
        Whether y is, instead of labels, a table of shape (n_samples, n_classes) of the share of each class in each
        row: what a teacher model predicts (distillation), or how annotators voted. Rows are >= 0 and sum to 1. F is the
        cross-entropy, with ``- t_i . log softmax(z_i)`` for a row t_i of the table in place of ``logsumexp(z_i) -
        z_i[y_i]``: the same as n_classes rows of weights ``t_i``, one of each class, in place of each row. Its minimum
        holds the entropy of the targets, which no model gets below, and ``tol`` and ``excess_`` are relative to all of
        it: to be as close to the targets as to labels, lower ``tol``.
        For ``fit`` of X in memory and ``partial_fit``; never the compiled engine.
    label_smoothing : float, default=0.0
        Share s of each target that is spread evenly over the classes, in [0, 1): ``(1 - s) t_i + s / n_classes``, t_i
        being 1 for the row's label and 0 elsewhere, or a row of soft targets. Labels that may be wrong then ask for no
        probabilities beyond ``1 - s + s / n_classes``. ``class_weight`` counts by the labels, before. For the
        validation score the labels are what they are. Never the compiled engine.
    warm_start : bool, default=False
        Whether ``fit`` starts from the coefficients of the last fit, if there was one. If F is larger there than at the
        class priors, as after a change of units, it starts from the priors.
    keep_rows : bool, default=True
        Whether ``partial_fit`` with ``solver="auto"`` keeps the rows it is given, up to 256 MiB of X, and is fitted to
        all of them again when the new ones ask for it. The model is then near F's minimum over all rows so far; and it,
        and its pickle, hold these rows. Beyond that, and with False, each row is seen once and forgotten.
    half_life : float or None, default=None
        Rows after which what ``partial_fit`` has learned weighs half, > 0: for streams whose meaning drifts; no rows
        are kept. None forgets nothing. For ``solver="auto"`` alone; the others adapt at the pace of
        ``learning_rate``.
    allow_new_classes : bool, default=False
        Whether ``partial_fit`` takes labels that it has not been told of: ``classes_`` then grows. A new class starts
        with a probability of at most 1 / 2n after n rows, so that old predictions hardly move.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling and of the early stopping split. The same int gives the same coefficients, bit
        for bit, on one machine.
    verbose : int, default=0
        1 prints a line an epoch of a fit: its number; F at its end, which may take a pass of its own; the excess as
        ``excess_curve_`` has it, "-" where it is not known; the validation score, if there is one; the seconds since
        training began; and the rows a second, of an epoch all rows counted once.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients; float32 if X was, unless rounding to float32 would take F further from its minimum than ``tol``,
        as for columns that are far from 0 and vary little: then float64, in which predictions are computed, too. With
        more than two classes the rows sum to 0 (to rounding), unless ``l1_ratio > 0``.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Intercepts; zeros if ``fit_intercept=False``. They and ``coef_`` are arrays of X's library, on its device (see
        ``fit``).
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted; of y's library. Of soft targets the numbers of their columns, from 0, or the columns'
        names if y was a data frame: then the columns of ``predict_proba`` are in the order of the names, sorted,
        whatever y's.
    n_iter_ : int
        Epochs run; of ``partial_fit`` those of its last fit to the rows kept, or 1.
    n_features_in_ : int
        Columns seen in fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if X had names and all of them strings.
    loss_curve_ : list of float
        F after each epoch, over all training rows (a sample's epochs are not among them). For minibatches of
        ``solver="auto"`` and compiled epochs it is the mean of F over the epoch, an estimate that ``verbose`` marks; if
        it was below F at the end of a fit that reached ``tol``, it is raised to that. The last number is always F
        itself, after the last epoch. (Early stopping keeps the coefficients of the best epoch.)
    excess_curve_ : list of float
        Estimate of ``(F - F*) / F*`` after each epoch, as far as it was known then; inf where it was not, as after
        minibatches. The first ones are rough.
    validation_scores_ : list of float
        Accuracy on the validation rows, as ``score``, after each epoch; only with ``early_stopping=True``.
    stop_reason_ : str
        "tol", "max_iter", "early_stopping", "precision" (no step changes F by more than rounding), "separable"
        (``alpha=0`` and all rows are predicted right, so that F has no minimum), or "callback" (one has asked for it;
        the coefficients are those of the last epoch). "max_iter" and "precision" with an excess above ``tol``, and
        "separable", warn.
    excess_ : float
        Estimate of ``(F - F*) / F*`` for the parameters handed over; inf if it is not known, as after early stopping or
        if a callback ended the fit before there was an estimate, and if F has no minimum ("separable").
    solver_info_ : dict
        What ran: "solver" (several, joined by "+", one after the other), "engine"; and what else "auto" chose:
        "batch_size", "learning_rate", "metric", "curvature"; and "sample", the rows that a model was fitted to first
        where memory does not hold all, or, of a stream, "kept", its rows and how many of them the last fit was to, or
        "waiting", those that are too few for a step.

    Notes
    -----
    ``loss_curve_``, ``excess_curve_``, ``validation_scores_``, ``stop_reason_`` and ``excess_`` are of ``fit`` and
    ``fit_batches``; ``partial_fit`` drops them.

    Vectorized, X is copied once if it is dense float32 and there is an intercept: less a centre of its columns it keeps
    the digits that products with coefficients need. Otherwise it is not, unless it is an integer, Fortran-ordered
    or non-CSR matrix, or has rows of weight 0; or has twice as many dense columns as rows or more, of which,
    without L1, the rows' own space is taken: a copy in float64, and n_samples x n_samples numbers that float64 is
    computed with. Besides it, a fit keeps a few numbers a row (codes, weights, the order of the epoch); for "auto"
    X'X while that pays, the rows that the curvature is estimated from (a tenth, or all of a small X's), while
    n_classes <= n_features one table of n_samples x n_classes probabilities in X's dtype, and the Hessian of up to
    1000 unknowns (8 MB, and as much again while it is made) or, where it is no larger than X or 64 MiB, of more; or
    n_classes matrices of n_features x n_features in the same limits. Soft targets are copied once, in X's dtype;
    smoothed labels take no table. Everything else is made of blocks of rows of about 1 MiB. Compiled, a fit keeps
    besides X one more copy of a sparse X's values (or a copy as CSR of a dense X of mostly zeros, at most half of
    it), the order, and in X's dtype n_samples x n_classes probabilities and up to 18 tables of n_features x
    n_classes, n_classes rounded up to a multiple of 8 (1 for two classes).

    With scikit-learn 1.9 and later ``fit`` and ``fit_batches`` take its callbacks: ``set_callbacks(ProgressBar())``,
    ``ScoringMonitor``, or an object of your own with the four methods of ``sklearn.callback.FitCallback``. The epochs
    are the subtasks of a fit; a method ``on_fit_task_end`` that returns True ends it, without a warning. The methods
    are given, if they ask for them, X, y and ``sample_weight`` as ``fit`` was, and as ``fitted_estimator`` the model as
    it stands, with all attributes of a fit but ``solver_info_`` (None before the first epoch is over); making it takes
    a copy of the coefficients. The epochs of a fit to a sample, and ``partial_fit``, are not told of.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The same model by passes over all rows.
    sklearn.linear_model.SGDClassifier : One-vs-rest; its probabilities are not a softmax's.

    References
    ----------
    Boehning (1992), Multinomial logistic regression algorithm, Ann. Inst. Statist. Math. 44(1), 197-200.

    Shalev-Shwartz & Zhang (2013), Stochastic dual coordinate ascent methods for regularized loss minimization,
    J. Mach. Learn. Res. 14, 567-599.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sksoftmax import SoftmaxClassifier
    >>> X, y = load_wine(return_X_y=True)  # as they come: columns from 0.1 to 1680
    >>> clf = SoftmaxClassifier(random_state=0).fit(X, y)
    >>> clf.score(X, y)
    1.0
    >>> clf.stop_reason_
    'tol'
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = _validation.PARAMETER_CONSTRAINTS

    def __init__(
        self,
        alpha: float = 1e-4,
        *,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        solver: str = "auto",
        engine: str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        schedule: str = "linear",
        power_t: float = 0.5,
        momentum: float = 0.9,
        nesterov: bool = True,
        average: bool = False,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        max_iter: int = 100,
        tol: float = 1e-3,
        shuffle: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        class_weight: dict[Any, float] | str | None = None,
        soft_targets: bool = False,
        label_smoothing: float = 0.0,
        warm_start: bool = False,
        keep_rows: bool = True,
        half_life: float | None = None,
        allow_new_classes: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.engine = engine
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.power_t = power_t
        self.momentum = momentum
        self.nesterov = nesterov
        self.average = average
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.soft_targets = soft_targets
        self.label_smoothing = label_smoothing
        self.warm_start = warm_start
        self.keep_rows = keep_rows
        self.half_life = half_life
        self.allow_new_classes = allow_new_classes
        self.random_state = random_state
        self.verbose = verbose

    @_validation.validate_parameters
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the model to the rows of X.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Finite numbers of any scale. float32 is kept, anything else becomes float64; CSR is used as it is. Of a
            numpy.memmap, or another array that reads a file as it is sliced and has ``chunks`` (HDF5's, Zarr's), of
            more than 128 MiB, memory holds a sample: see ``fit_batches``. Under
            ``sklearn.config_context(array_api_dispatch=True)`` also a dense array of another library, such as a PyTorch
            tensor, on any device: what is done to its rows is done there.
        y : array-like of shape (n_samples,), or (n_samples, n_classes) with ``soft_targets=True``
            Labels of at least two classes, all numbers or all strings, none missing; nullable integers of pandas stay
            integers; of any library and device that X may be of. Or targets: the share of each class in each row, >= 0;
            rows sum to 1 up to rounding (2e-3), which is divided out. A data frame's column names are then the labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, >= 0, whose sum is at most 1e200; an integer weight is the same as that many rows, 0 as none. A
            class whose rows all weigh 0 is in ``classes_`` nevertheless, with a probability of at most 1 / 2n after n
            rows of positive weight (of more under L1, and without intercept). The coefficients of the other classes
            are as if it had no rows: their differences minimise F without it.
        X_val : array-like or sparse matrix of shape (n_val, n_features), default=None
            Rows for ``early_stopping``, with the columns of X; all of X is then trained on. In a ``Pipeline`` they go
            through the same transformers as X with ``Pipeline(..., transform_input=["X_val"])``.
        y_val : array-like of shape (n_val,) or (n_val, n_classes), default=None
            Their labels, of classes that y has; or targets, as y.
        sample_weight_val : array-like of shape (n_val,), default=None
            Their weights in the validation score, >= 0; ``class_weight`` is not multiplied in.

        Returns
        -------
        self : SoftmaxClassifier

        Raises
        ------
        ValueError
            If X, y or the weights are not as above, a parameter is out of range, or ``warm_start`` meets other
            classes or another number of columns than the last fit, or coefficients that are not finite; if
            ``early_stopping`` has too few rows to set a part aside; if one of ``X_val`` and ``y_val`` is missing,
            ``early_stopping`` is False with them, or they do not go with X and y; or if X is of another library than
            NumPy or SciPy with ``engine`` "compiled" or "naive", soft targets or label smoothing.
        ImportError
            If ``engine="compiled"``, and numba is missing: the command that installs it.

        Warns
        -----
        ConvergenceWarning
            If ``max_iter`` epochs, or the precision of X's dtype, end the fit above ``tol``.
        """
        task = task_of(self, X, y, sample_weight)  # outside: after an error it is still to be torn down
        with _validation.restore_on_error(self), one_blas_thread():
            _validation.check_engine_available(self)
            validation = _targets.validation_given(self.early_stopping, X_val, y_val, sample_weight_val)
            if y is not None and out_of_core.is_on_disk(X):  # type: ignore[redundant-expr]  # users can pass None
                _validation.check_hard_labels(
                    self, "fit of an array on disk", "give it X in memory, or give parts to partial_fit."
                )
                result = self._fit_read(out_of_core.of_array(X, y, sample_weight), None, validation, task)
            else:
                data, classes = _targets.fit_data(self, X, y, sample_weight)
                result = self._fit_rows(data, classes, validation, task)
                if not self.soft_targets:
                    self.classes_ = labels_like(classes, y)
        self._warn_if_above_tol(result)
        return self

    @_validation.validate_parameters
    def fit_batches(self, batches: Any, classes: ArrayLike | None = None) -> Self:
        """Fit the model to rows that memory does not hold, read in several passes.

        The same minimum as ``fit``'s, and the same stop. One pass checks the rows and keeps a sample of them, of at
        most 128 MiB; a model is fitted to the sample; and from there Newton steps, with the gradient of all rows and
        the curvature of the sample, lead to the minimum over all rows, a pass or two each. If the sample is all rows
        there are no more passes, and the result is that of ``fit``. The solvers by name take their epochs over all
        rows instead, a pass each and one for F, shuffled by windows of some 32 MiB.

        Parameters
        ----------
        batches : iterable, or callable that returns an iterator
            What gives the rows, the same in every pass, as tuples ``(X, y)`` or ``(X, y, sample_weight)``, each as
            ``fit`` takes them; of any numbers of rows, all dense or all sparse. Such as a list, an object with
            ``__iter__``, or a generator function; not a generator, which can be read only once. It may fill the same
            arrays anew for every batch. The order of the rows may change from pass to pass.
        classes : array-like of shape (n_classes,), default=None
            All labels; None for those that are there.

        Returns
        -------
        self : SoftmaxClassifier

        Raises
        ------
        TypeError
            If ``batches`` can be read only once, or does not give tuples.
        ValueError
            As ``fit``; if the rows are not the same in every pass; or with ``early_stopping=True`` where they are more
            than the sample. Each pass compares the number of rows, the labels and the classes' weights with the first;
            the second, third, fourth, eighth, sixteenth, ... also the sums of X's columns, and that they are finite.
        ImportError
            As ``fit``.

        Warns
        -----
        ConvergenceWarning
            As ``fit``.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sksoftmax import SoftmaxClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> def batches():  # files, say
        ...     for start in range(0, len(y), 500):
        ...         yield X[start : start + 500], y[start : start + 500]
        >>> clf = SoftmaxClassifier(random_state=0).fit_batches(batches)
        >>> clf.score(X, y) > 0.99
        True
        """
        task = task_of(self)
        with _validation.restore_on_error(self), one_blas_thread():
            _validation.check_engine_available(self)
            _validation.check_hard_labels(
                self, "fit_batches", "fit takes soft targets in memory, partial_fit a part at a time."
            )
            result = self._fit_read(out_of_core.of_batches(batches), classes, None, task)
        self._warn_if_above_tol(result)
        return self

    def _fit_read(
        self, source: out_of_core.Source, classes: ArrayLike | None, validation: _targets.Validation | None, task: Task
    ) -> Result:
        """Fit to rows that are read in passes: as ``fit_batches`` says."""
        found = out_of_core.survey(self, source, classes, check_random_state(self.random_state))
        if found.is_all:
            return self._fit_rows(found.data, found.classes, validation, task)
        if self.early_stopping and validation is None:
            raise ValueError(
                "early_stopping=True sets rows aside, and needs all of them in memory, which holds a sample only. Give "
                "fit an X_val and y_val of your own, or set early_stopping=False."
            )
        held = _targets.validation_data(self, validation, found.classes)
        sample, data_source = out_of_core.with_class_weight(found, source, self.class_weight)
        return self._fit_coded(sample, found.classes, data_source, held, task)

    def _fit_rows(self, data: Batch, classes: Array, validation: _targets.Validation | None, task: Task) -> Result:
        """Fit to coded rows in memory."""
        held = _targets.validation_data(self, validation, classes)
        return self._fit_coded(
            _validation.apply_class_weight(data, self.class_weight, classes), classes, None, held, task
        )

    def _fit_coded(
        self, data: Batch, classes: Array, data_source: DataSource | None, held: Batch | None, task: Task
    ) -> Result:
        """Fit to coded rows, or to the ``data_source`` that they are a sample of, class weights multiplied in.

        ``held`` are the rows for early stopping; None for a part of these.
        """
        before = self._fitted_params() if self.warm_start else None
        rng = check_random_state(self.random_state)
        if self.early_stopping and held is None:
            data, held = _targets.split_validation(data, classes, self.validation_fraction, rng)
        problem = self._problem(data, len(classes), float(data.weight.mean()), data_source)
        params = prior_params(problem)
        if before is not None:
            params = self._warm_params(before, params, classes)
        rules = Rules(self.max_iter, self.tol, _scorer(held), self.n_iter_no_change)
        self._forget_outcome()
        monitors = task.monitors(
            lambda result: {**self._outcome(result, classes, data.X), **self._answer(result.params, data.X)}
        )
        result, info = minimize(
            *(problem, params, self._settings(), rules),
            is_warm=before is not None,
            rng=rng,
            monitor=combine_monitors(
                [verbose_monitor(problem.n_total_samples), *monitors] if self.verbose else monitors
            ),
        )
        self.__dict__ |= self._outcome(result, classes, data.X)
        self.solver_info_ = {"engine": choose_engine(self.engine, data.X), "solver": result.solver, **info}
        self._stream = self._new_stream(problem.n_total_samples, problem.n_total_samples * problem.mean_weight)
        task.end()
        return result

    @_validation.validate_parameters
    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn the rows of X, from where the last call ended.

        With ``solver="auto"`` a stream of up to 256 MiB is kept (see ``keep_rows``), and the model is fitted to all
        rows so far, to an excess of 1e-2, in these cases:

        - A class first comes, or ``alpha``, ``l1_ratio``, ``fit_intercept`` or ``label_smoothing`` has changed.
        - The new rows are as many as those before; if few rows have much of the weight, their weight is a quarter of
          that of those before.
        - The new rows show that F at the coefficients is 2 % above the minimum, and are a quarter of those before. A
          twentieth is enough if few rows have much of the weight, or equal probabilities would be better for the new
          rows; one row, if these would be better for all rows.

        If a fit takes hardly any time, fewer new rows are enough in all these cases.

        Between such fits the coefficients stay. The rows of a longer stream, or of one after ``fit``, are seen once:
        the columns' scales and correlations are learned as they come, and the coefficients are an average over the
        updates (schedule-free: Defazio et al., 2024), so that neither scaling nor an end of the stream need be known;
        under ``l1_ratio > 0`` it has few exact zeros. Pieces wait until together they make a batch, or an eighth of the
        rows before. "sgd", "adagrad" and "adam" take a step a batch. ``max_iter`` bounds a fit to the rows kept;
        ``tol`` does not apply. Rows of weight 0 change nothing: if a first call has no others, all classes are as
        probable until rows come that have weight.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            As in ``fit``.
        y : array-like of shape (n_samples,), or (n_samples, n_classes) with ``soft_targets=True``
            Labels; not all classes need be there. Or targets as in ``fit``, which tell the classes.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come, in one dimension; needed in the first call only, and not there with
            ``allow_new_classes=True``, which wants two classes.
        sample_weight : array-like of shape (n_samples,), default=None
            As in ``fit``.

        Returns
        -------
        self : SoftmaxClassifier

        Raises
        ------
        ValueError
            If X, y or the weights are not as above, y holds a label that is not among the classes, the number of
            columns or X's library or device has changed, ``class_weight="balanced"``, or ``early_stopping=True``. The
            model is then as it was.
        ImportError
            As ``fit``.
        FloatingPointError
            If the coefficients overflow, as a named solver's may. The model is then as it was.

        Warns
        -----
        ConvergenceWarning
            If the model was fitted again to the rows that it keeps, and F may be more than 1 % above its minimum, or
            has none (``alpha=0``, and no row is on the wrong side).
        """
        with _validation.restore_on_error(self), one_blas_thread():
            _validation.check_engine_available(self)
            _validation.check_no_early_stopping(self)
            if self.class_weight == "balanced":
                raise ValueError(
                    "class_weight='balanced' needs all rows, and partial_fit sees some; give the weights as a "
                    "dict, such as dict(zip(classes, sklearn.utils.compute_class_weight('balanced', "
                    "classes=classes, y=y_sample)))."
                )
            device_of_fit(self, X, "partial_fit")
            data, known = _targets.stream_data(self, X, y, classes, sample_weight)
            data = _validation.apply_class_weight(
                data, self.class_weight, known, is_stream=True, may_name_others=self.allow_new_classes
            )
            if len(data.y) > 0:
                self._forget_outcome()
                self._advance(data, known)
            elif not hasattr(self, "coef_"):
                self._begin(data.X, known)
            else:
                return self
            self.classes_ = known if self.soft_targets else labels_like(known, y)
        return self

    def _begin(self, X: Any, classes: Array) -> None:
        """Be a model of these classes that has learned nothing: all are as probable."""
        n_outputs = 1 if len(classes) == 2 else len(classes)
        self.__dict__ |= self._answer(Params(np.zeros((n_outputs, X.shape[1])), np.zeros(n_outputs)), X)
        self._stream, self.solver_info_, self.n_iter_ = self._new_stream(0, 0.0), {}, 0

    def _advance(self, data: Batch, classes: Array) -> None:
        """The stream after these rows, whose codes are of ``classes``; the attributes follow."""
        stream = getattr(self, "_stream", None) or self._new_stream(0, 0.0)
        if stream.has_other_targets(data.y):
            raise ValueError(
                "soft_targets must be what it was for the rows that partial_fit keeps, got "
                f"{self.soft_targets}; set it back, or start from a new estimator."
            )
        _validation.check_finite_sum(np.array([stream.weight, data.weight.sum()]))
        known = to_numpy(getattr(self, "classes_", classes))
        places = np.searchsorted(classes, known.astype(classes.dtype))
        if len(known) < len(classes):
            stream = with_classes(stream, places, len(classes), **self._kind())

        def before() -> Params | None:
            params = self._fitted_params()
            n_samples = stream.n_samples
            if params is None or n_samples == 0:
                return None
            wide = add_classes(params, places, len(classes), n_samples, **self._kind())
            return with_intercept(wide, bool(self.fit_intercept))

        problem = self._problem(data, len(classes), 1.0)
        rng = check_random_state(self.random_state)
        after, params, info, n_epochs, result = update_stream(stream, problem, before, self._settings(), rng)
        if params is not None:
            if not is_finite(Params(*(part.astype(data.X.dtype) for part in params))):
                raise FloatingPointError(
                    f"the coefficients of this pass overflow at learning_rate={info['learning_rate']}; the model is as "
                    + (
                        "it was. Scale the columns, or pass X as float64."
                        if self.solver == "auto"
                        else "it was. Lower learning_rate, scale the columns, or use solver='auto'."
                    )
                )
            self.__dict__ |= self._answer(params, data.X)
        self._stream, self.solver_info_, self.n_iter_ = after, info, n_epochs
        if result is not None:
            self._warn_if_above_tol(result, stream_tol=TOL, stacklevel=5)

    def _kind(self) -> dict[str, bool]:
        return {"has_l1": self._l1_ratio() > 0, "has_intercept": bool(self.fit_intercept)}

    def _new_stream(self, n_samples: int, weight: float) -> Stream:
        return new_stream(self._settings(), has_l1=self._l1_ratio() > 0, n_samples=n_samples, weight=weight)

    def to_sklearn(self) -> LogisticRegression:
        """The same model as scikit-learn's ``LogisticRegression``, fitted, for all that takes one.

        Its predictions are this model's, and its parameters say the same objective: ``C = 1 / (alpha * the sum of the
        weights of the rows fitted to)``, class weights multiplied in and the rows that ``early_stopping`` sets aside
        left out, and inf for ``alpha=0``; so that its clone, fitted to these rows, has the same minimum. ``max_iter``
        is handed on, ``tol`` as the smaller of its root and 1e-4, since ``LogisticRegression``'s is of the gradient.
        With L1 the solver is "saga", otherwise "lbfgs": these need columns of similar scale.

        Returns
        -------
        LogisticRegression
            With ``coef_`` of shape (n_classes, n_features), or (1, n_features) for two classes, dense; of copies.

        Raises
        ------
        NotFittedError
            If this model is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from sksoftmax import SoftmaxClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> SoftmaxClassifier(random_state=0).fit(X, y).to_sklearn().score(X, y)
        1.0
        """
        check_is_fitted(self)
        return conversion.to_logistic(self, self._stream.weight)

    @classmethod
    def from_sklearn(cls, model: LogisticRegression, *, total_weight: float) -> Self:
        """A model of this class that predicts as a fitted ``LogisticRegression`` does.

        From there ``partial_fit`` goes on, and ``fit`` with ``warm_start=True``. ``alpha = 1 / (C * total_weight)``,
        ``l1_ratio``, ``fit_intercept``, ``class_weight``, ``random_state``, ``warm_start`` and ``max_iter`` are handed
        on; the other parameters, ``tol`` among them, have their defaults. (The minimum of "liblinear" is another one,
        where the intercept is penalised.)

        Parameters
        ----------
        model : LogisticRegression
            Fitted; of two classes, or multinomial.
        total_weight : float
            Sum of the weights of the rows that ``model`` was fitted to, class weights multiplied in, > 0: their number
            where there were no weights. ``C`` counts against the sum of their losses, ``alpha`` against the mean, and
            a ``LogisticRegression`` does not say how many they were. What they weigh beside those of ``partial_fit``
            depends on it, too.

        Returns
        -------
        SoftmaxClassifier

        Raises
        ------
        TypeError
            If ``model`` is no ``LogisticRegression``.
        NotFittedError
            If it is not fitted.
        ValueError
            If it is one-vs-rest, or ``total_weight`` is not > 0.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sksoftmax import SoftmaxClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> model = LogisticRegression(C=0.1, max_iter=10000).fit(X, y)
        >>> clf = SoftmaxClassifier.from_sklearn(model, total_weight=len(y))
        >>> bool((clf.predict(X) == model.predict(X)).all()), round(clf.alpha, 4)
        (True, 0.0562)
        """
        new: Self = conversion.from_logistic(cls, model, total_weight)
        new._stream = new._new_stream(max(1, round(total_weight)), float(total_weight))
        return new

    def __getstate__(self) -> dict[str, Any]:
        return serialization.to_state(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(serialization.from_state(state, type(self)))

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy: the share of the rows whose label is predicted.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), or with ``soft_targets=True`` also of shape (n_samples, n_classes)
            Labels; or targets as ``fit`` takes them, of which a row counts as much as it gives to the class predicted.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, as in ``fit``; at least one > 0.

        Returns
        -------
        float
            In [0, 1].

        Raises
        ------
        ValueError
            If X, y or the weights are not as above.
        """
        if not getattr(self, "soft_targets", False) or np.ndim(y) != 2:
            if _validation.namespace_of(y) is None:
                y = _validation.check_labels(y, warn=False)
                _validation.to_common_dtype(y, to_numpy(self.classes_), "y", "the classes")
            weight = _validation.check_score_weight(sample_weight, X, y)
            with np.errstate(all="ignore"):
                return float(super().score(X, y, weight))
        codes = np.searchsorted(self.classes_, self.predict(X))
        table, classes = _targets.target_table(y, "y")
        _targets.check_same_classes(classes, self.classes_)
        _validation.check_same_length(codes, table)
        return _accuracy(codes, table, _validation.check_score_weight(sample_weight, codes, table))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = self.engine in ("auto", "vectorized")
        return tags

    def _settings(self) -> Settings:
        values = {name: getattr(self, name) for name in Settings._fields}
        for name in ("batch_size", "learning_rate"):
            values[name] = None if values[name] == "auto" else values[name]
        values["half_life"] = np.inf if self.half_life is None else self.half_life
        return Settings(**values)

    def _problem(
        self, data: Batch, n_classes: int, mean_weight: float, data_source: DataSource | None = None
    ) -> Problem:
        kernel = _validation.get_kernel(choose_engine(self.engine, data.X))
        if data_source is not None:
            mean_weight = float(data_source.class_weights.sum()) / data_source.n_samples
        l1_ratio = self._l1_ratio()
        of_data = (data, n_classes, float(self.alpha), self.fit_intercept, kernel, mean_weight)
        return Problem(*of_data, l1_ratio, data_source, float(self.label_smoothing))

    def _l1_ratio(self) -> float:
        """The share of L1, 0 where there is no penalty to share: F is then smooth."""
        return float(self.l1_ratio) if self.alpha else 0.0

    def _fitted_params(self) -> Params | None:
        """The coefficients of the last fit, in float64; None before it. ValueError if they are not finite."""
        if not hasattr(self, "coef_"):
            return None
        coef = to_numpy(self.coef_)  # sparse after sparsify
        coef = coef.toarray() if sp.issparse(coef) else coef
        params = Params(np.array(coef, dtype=np.float64), np.array(to_numpy(self.intercept_), dtype=np.float64))
        return _validation.check_finite_params(params)

    def _warm_params(self, before: Params, cold: Params, classes: Array) -> Params:
        known = to_numpy(self.classes_)
        if not np.array_equal(*_validation.to_common_dtype(classes, known, "y", "the classes of the last fit")):
            raise ValueError(
                f"warm_start needs the classes of the last fit, {known.tolist()}, got "
                f"{classes.tolist()}; set warm_start=False, or use partial_fit with all classes."
            )
        if before.coef.shape != cold.coef.shape:
            raise ValueError(
                f"warm_start needs the {before.coef.shape[1]} features of the last fit, got "
                f"{cold.coef.shape[1]}; set warm_start=False."
            )
        start = center_params(before, has_l1=self._l1_ratio() > 0)
        return start._replace(intercept=start.intercept * self.fit_intercept)

    def _answer(self, params: Params, X: Any) -> dict[str, Any]:
        """The attributes that hold the parameters, of X's library and dtype."""
        params = center_params(params, has_l1=self._l1_ratio() > 0)
        return _attributes(Params(*(part.astype(X.dtype) for part in params)), X)

    def _forget_outcome(self) -> None:
        """Drop what an earlier fit said of how it went."""
        attributes = ("loss_curve_", "excess_curve_", "validation_scores_", "stop_reason_", "excess_", "solver_info_")
        for name in (*attributes, "_has_more_digits"):
            self.__dict__.pop(name, None)

    def _outcome(self, result: Result, classes: Array, X: Any) -> dict[str, Any]:
        """The attributes that a fit leaves, but what was chosen."""
        scores = {"validation_scores_": result.validation_scores} if self.early_stopping else {}
        return {
            **_attributes(result.params, X),
            "classes_": classes,
            "n_iter_": len(result.loss_curve),
            "loss_curve_": result.loss_curve,
            "excess_curve_": [_known(excess) for excess in result.excess_curve],
            **scores,
            "stop_reason_": str(result.stop_reason),
            "excess_": _known(result.excess),
        }

    def _warn_if_above_tol(self, result: Result, *, stream_tol: float | None = None, stacklevel: int = 4) -> None:
        """Warn if the fit, or the one of ``partial_fit`` to the rows it keeps, ended without having reached a minimum.

        At the default ``stacklevel`` the warning names the line that called ``fit``: this, fit, scikit-learn's check of
        parameters, the caller.
        """
        reasons = (StopReason.MAX_ITER, StopReason.PRECISION, StopReason.SEPARABLE)
        if result.stop_reason not in reasons or result.excess <= (stream_tol or self.tol):
            return
        warnings.warn(
            f"SoftmaxClassifier did not converge: {self._outcome_in_words(result, stream_tol)}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )

    def _outcome_in_words(self, result: Result, stream_tol: float | None) -> str:
        """How far F is from its minimum, why, and what to do."""
        n_epochs = len(result.loss_curve)
        if result.stop_reason is StopReason.SEPARABLE:
            return (
                "the classes can be separated without error and alpha=0, so F has no minimum and the coefficients grow "
                f"without bound; the fit ended after {n_epochs} epochs. Set alpha > 0."
            )
        figure = f"about {result.excess:.1e}, above" if np.isfinite(result.excess) else "not known to be below"
        aim = f"tol={self.tol:g}" if stream_tol is None else f"the {stream_tol:g} that partial_fit aims at"
        or_tol = "" if stream_tol else " or tol"
        found = f"after {n_epochs} epochs (max_iter={self.max_iter}) (F - F*) / F* is {figure} {aim}."
        if result.stop_reason is StopReason.PRECISION:
            is_single = to_numpy(self.coef_).dtype == np.float32
            remedy = "Pass X as float64, centre" if is_single else "Remove outlying values, centre"
            or_raise = "" if stream_tol else ", or raise tol"
            return f"{found} No step changes F by more than rounding. {remedy} or scale the columns{or_raise}."
        if self.solver == "auto":
            return f"{found} Raise max_iter{or_tol}."
        return (
            f"{found} Scale the columns, change learning_rate, raise max_iter, or use solver='auto', which needs none "
            "of this."
        )


def _attributes(params: Params, X: Any) -> dict[str, Any]:
    """The attributes that hold the parameters, in their dtype and of X's library."""
    has_more_digits = bool(params.coef.dtype != X.dtype)
    kept = {"_has_more_digits": True} if has_more_digits else {}
    return {"coef_": place_like(params.coef, X), "intercept_": place_like(params.intercept, X), **kept}


def _known(excess: float) -> float:
    """Return the estimate; inf where it overflowed."""
    return np.inf if np.isnan(excess) else float(excess)


def _scorer(held: Batch | None) -> Callable[[Params], float] | None:
    """Accuracy on the validation rows."""
    if held is None:
        return None
    X, y, weight = held

    def score(params: Params) -> float:
        engine = array_api if isinstance(X, DeviceArray) else vectorized
        raw = engine.raw_prediction(params, X)
        predicted = to_host(raw.argmax(axis=0) if len(raw) > 1 else raw[0] > 0).astype(np.intp)
        return _accuracy(predicted, y, weight)

    return score


def _accuracy(predicted: Array, y: Array, weight: Any) -> float:
    """Mean share that the targets, or codes, give to the classes predicted."""
    right = predicted == y if y.ndim == 1 else y[np.arange(len(y)), predicted]
    with np.errstate(all="ignore"):
        return float(np.average(right, weights=weight))
