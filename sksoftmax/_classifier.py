"""``SoftmaxClassifier``: the estimator, from checked input to fitted attributes.

Its docstring is the reference of all parameters. `_data` checks and encodes the input, `_training` runs the fits, and
this module turns their results into attributes. ``SoftmaxClassifierCV``, ``dask`` and ``onnx`` build on the class.
"""

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

from sksoftmax import _sklearn
from sksoftmax._data import arrays as _arrays
from sksoftmax._data import labels as _labels
from sksoftmax._data import out_of_core, parameter_names
from sksoftmax._data import targets as _targets
from sksoftmax._data import validation as _validation
from sksoftmax._data.placement import check_device_of_fit, labels_like, place_like
from sksoftmax._engines import array_api, registry, vectorized
from sksoftmax._engines.device import DeviceArray, to_host, to_numpy
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._maths.objective import center_params, prior_params
from sksoftmax._maths.reduction import add_classes
from sksoftmax._model import conversion, serialization
from sksoftmax._model.predictions import PredictionsMixin
from sksoftmax._training.callbacks import Task, combine_monitors, task_of, verbose_monitor
from sksoftmax._training.fit import minimize
from sksoftmax._training.loop import Result, StoppingCriteria
from sksoftmax._training.plan import choose_engine
from sksoftmax._training.settings import Settings
from sksoftmax._training.stopping import StopReason
from sksoftmax._training.stream import (
    REFIT_TOL,
    Stream,
    StreamUpdate,
    new_stream,
    update_stream,
    with_classes,
    with_intercept,
)
from sksoftmax._types import Array, Batch, DataSource, Params, Problem, is_finite


class SoftmaxClassifier(
    _sklearn.CallbackSupportMixin,  # type: ignore[misc]
    _sklearn.SparseCoefMixin,  # type: ignore[misc]
    _sklearn.DocumentationLinkMixin,
    parameter_names.HintsMixin,
    PredictionsMixin,
    ClassifierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Softmax (multinomial logistic) regression trained by minibatches.

    It minimises, over the coefficients W and the intercepts b, the objective ::

        F = sum_i w_i * [logsumexp(z_i) - z_i[y_i]] / sum_i w_i
            + alpha * ((1 - l1_ratio) / 2 * ||W||^2 + l1_ratio * ||W||_1),      z_i = W x_i + b

    which is the objective of ``LogisticRegression`` with ``alpha = 1 / (C * sum_i w_i)``, and has the same minimum.

    The default ``solver="auto"`` needs no tuning and no scaling. Its minibatch steps are preconditioned by a bound on
    the curvature of F (Boehning, 1992), which makes them independent of the scales and correlations of the columns.
    Newton steps then finish the fit, with gradients over all rows and a curvature estimated from a subsample; or L-BFGS
    with a preconditioner does, on dense rows whose Hessian is large. Where Newton steps are cheap, the fit consists of
    them alone, and may start from the fit of a sample.

    Parameters
    ----------
    alpha : float, default=1e-4
        Strength of the penalty, >= 0. It multiplies the penalty on the *mean* loss, so its effect depends neither on
        the number of rows nor on the batch size. The intercept is not penalised.
    l1_ratio : float, default=0.0
        Fraction of L1 in the penalty, in [0, 1], as in ``LogisticRegression``: 0 is L2, 1 is L1, and values in between
        are the elastic net. If positive, many coefficients are exactly 0. The exception is averaged coefficients, which
        are rarely exactly 0: those of ``average=True``, and of ``partial_fit`` on rows that it does not keep.
    fit_intercept : bool, default=True
        Whether to fit an intercept for each class.
    solver : {"auto", "dual", "sgd", "adagrad", "adam"}, default="auto"
        Algorithm that minimises F.

        - "auto": chosen from the shape of the data. It needs no tuning and no scaling; see ``solver_info_``.
        - "dual": dual coordinate ascent on single rows, and Newton steps if it does not reach ``tol``. It needs the
          compiled engine. Fits that it cannot do (data out of memory, streams, columns with overflowing squares)
          proceed as with "auto".
        - "sgd": stochastic gradient descent: plain (``momentum=0``), with momentum, or with Nesterov momentum.
        - "adagrad": Duchi, Hazan & Singer (2011).
        - "adam": Kingma & Ba (2015).

        "sgd", "adagrad" and "adam" converge only slowly if the columns have different scales. "auto" chooses "dual" if
        the engine is compiled and all these conditions hold:

        - X has at least 200 columns.
        - The table of n_samples x n_classes probabilities takes at most 64 MiB, or at most 4 times the memory of X.
        - Without L1: X has more than 256 rows, or the Hessian is too large to factorise.
        - Without L1, if X is dense with more than a quarter of nonzeros: there are at least 3000 coefficients.
        - The same for more than two rows per column: at least 500 columns and 30000 coefficients.
        - Without L1: neither ``batch_size`` nor ``learning_rate`` is given.
    engine : {"auto", "compiled", "vectorized", "naive"}, default="auto"
        Implementation of the losses and gradients.

        - "compiled": kernels in C++. The package is installed without them if there is no compiler.
        - "vectorized": NumPy and SciPy alone.
        - "naive": explicit Python loops over samples, classes and features, for verification and teaching (about a
          thousand times slower).
        - "auto": "compiled", or "vectorized" if there are no kernels.

        If X is an array of another library than NumPy (see ``fit``), that library does the computations, under "auto"
        and "vectorized". ``solver_info_`` reports the engine that ran.
    batch_size : int or "auto", default="auto"
        Rows per minibatch, >= 1. For ``solver="auto"``, "auto" is the larger of n_features and n_samples / 512, but at
        least 256 and at most 4096. (On a device other than the CPU it is n_samples / 256.) If these are fewer than 16
        batches, the fit consists of Newton steps alone, unless ``batch_size`` or ``learning_rate`` is given. For the
        other solvers "auto" is n_samples / 64 (for "sgd" n_features if that is larger), but at least 16, and at most
        256 and n_samples / 8; all rows if they are fewer than 128; and 256 in ``partial_fit``.
    learning_rate : float or "auto", default="auto"
        Base step length, > 0. "auto" derives it from the data:

        - for "sgd", 1 / L, where L is the curvature of a batch;
        - for "adam", the change of all parameters that changes a raw prediction by 2 on average;
        - for "adagrad", the change of one parameter that does;
        - for "auto", a factor below 1 on the preconditioned minibatch steps. Newton steps do not use it.

        ``solver_info_`` reports the value used.
    schedule : {"linear", "cosine", "inverse_scaling", "constant"}, default="linear"
        Factor on the learning rate of "sgd", "adagrad" and "adam" over the updates:

        - "linear": falls from 1 to 0 at ``max_iter``, along a line.
        - "cosine": falls from 1 to 0 at ``max_iter``, along half a cosine.
        - "inverse_scaling": ``(step + 1) ** -power_t``.
        - "constant": 1.

        In ``partial_fit``, which has no fixed end, "linear" and "cosine" are constant.
    power_t : float, default=0.5
        Exponent of "inverse_scaling", >= 0.
    momentum : float, default=0.9
        Fraction of the last update that is added to the next, in [0, 1); for "sgd" and "auto".
    nesterov : bool, default=True
        Whether to use Nesterov momentum.
    average : bool, default=False
        Whether "sgd" returns the polynomial-decay average of its iterates.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of Adam's running means, in [0, 1).
    epsilon : float, default=1e-8
        Constant added to the denominators of "adam" and "adagrad", > 0.
    max_iter : int, default=100
        Maximum number of epochs, >= 1. An epoch is a pass of minibatches, or Newton steps that take several passes.
    tol : float, default=1e-3
        Tolerance for the stopping criterion, >= 0. The fit ends when the estimated excess ``(F - F*) / F*`` over the
        minimum F* is at most ``tol``. The estimate is the duality gap of a Newton step, in which the probabilities of
        rows may saturate at 0 or 1. Compiled fits use a bound from the dual problem if that bound is small enough.
        Values below the machine epsilon of X's dtype are replaced by it.

        With ``solver="auto"``, float64 data of at most 256 rows and about 300 coefficients are always fitted to the
        limit of rounding, which costs little. The result then depends neither on the seed nor on the order of the rows.
    shuffle : bool, default=True
        Whether to visit the rows in a new random order in each epoch.
    early_stopping : bool, default=False
        Whether to end the fit when the accuracy on validation rows has not improved for ``n_iter_no_change`` epochs.
        The coefficients are then those of the best epoch. The validation rows are the ``X_val`` given to ``fit``.
        Without ``X_val``, a part of X is set aside and not trained on: a stratified part, or a random one for soft
        targets. A fit that reaches ``tol`` first ends there, with its last coefficients.
    validation_fraction : float, default=0.1
        Fraction of the rows to set aside for validation, in (0, 1). Not used with ``X_val``.
    n_iter_no_change : int, default=5
        Number of epochs without a better validation score after which early stopping ends the fit, >= 1.
    class_weight : dict or "balanced", default=None
        Factors on the sample weights by class label, >= 0. Classes that a dict does not name have a factor of 1.
        "balanced" gives all classes the same total weight. With ``allow_new_classes=True`` the dict for ``partial_fit``
        may name classes that have not come yet. For soft targets, the factor multiplies the class's fraction of a row.
    soft_targets : bool, default=False
        Whether y is a table of shape (n_samples, n_classes) instead of labels. A row holds the fraction of each class,
        such as the probabilities of a teacher model (distillation) or the votes of annotators. Rows are >= 0 and sum to
        1. F is then the cross-entropy: ``- t_i . log softmax(z_i)``, for a row t_i of the table, replaces
        ``logsumexp(z_i) - z_i[y_i]``. This is the same as n_classes copies of each row, one for each class, with
        weights ``t_i``.

        The minimum of F includes the entropy of the targets, which no model can remove, and ``tol`` and ``excess_`` are
        relative to the whole of F. Use a smaller ``tol`` for the same accuracy as with labels. Soft targets are
        supported by ``fit`` on X in memory and by ``partial_fit``, but not by ``solver="dual"``.
    label_smoothing : float, default=0.0
        Fraction s of each target that is spread evenly over the classes, in [0, 1). The target becomes
        ``(1 - s) t_i + s / n_classes``, where t_i is the one-hot label or the row of soft targets. So no target exceeds
        ``1 - s + s / n_classes``, which limits the effect of wrong labels. ``class_weight`` and the validation score
        use the targets before smoothing. Not supported by ``solver="dual"``.
    warm_start : bool, default=False
        Whether ``fit`` starts from the coefficients of the last fit, if there was one. If F is larger there than at the
        class priors, for example after a change of units, the fit starts from the priors.
    keep_rows : bool, default=True
        Whether ``partial_fit`` with ``solver="auto"`` keeps the rows it is given, up to 256 MiB of X. It refits the
        model to all of them when the new rows require it, so that the model is near the minimum of F over all rows so
        far. The estimator and its pickle contain these rows. Beyond 256 MiB, or if False, each row is used once and
        discarded.
    half_life : float or None, default=None
        Number of rows after which the influence of old rows on ``partial_fit`` has halved, > 0. Use it for streams
        whose distribution drifts; no rows are kept. None never discounts old rows. Only used by ``solver="auto"``; the
        other solvers adapt at the pace of ``learning_rate``.
    allow_new_classes : bool, default=False
        Whether ``partial_fit`` accepts labels that are not in ``classes_``, which then grows. A new class starts with a
        probability of at most 1 / 2n after n rows, so that earlier predictions hardly change.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling and of the early-stopping split. Pass an int for coefficients that are the same, bit for
        bit, in every run on one machine.
    verbose : int, default=0
        If 1, print a line for each epoch of a fit, with these entries:

        - the number of the epoch;
        - F at its end, which may take an extra pass;
        - the excess as in ``excess_curve_``, or "-" if it is not known;
        - the validation score, if there is one;
        - the seconds since training began;
        - the rows per second, where an epoch counts each row once.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients. They are float32 if X is, unless rounding to float32 would raise the excess of F above ``tol``, as
        for columns that are far from 0 and vary little. They are then float64, and predictions are computed in float64
        too. With more than two classes the rows sum to 0 (up to rounding), unless ``l1_ratio > 0``.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Intercepts; zeros if ``fit_intercept=False``. ``coef_`` and ``intercept_`` are arrays of X's library, on X's
        device (see ``fit``).
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted, in an array of y's library. For soft targets, the numbers of the columns, from 0; if y was
        a data frame, the names of the columns, sorted. The columns of ``predict_proba`` are in this sorted order, even
        if the columns of y are not.
    n_iter_ : int
        Number of epochs run. After ``partial_fit``, the epochs of the last refit to the kept rows, or 1 if no rows are
        kept.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen during fit. Defined only if X has feature names that are all strings.
    loss_curve_ : list of float
        F after each epoch, over all training rows. Epochs of a fit to a sample are not included. For minibatches of
        ``solver="auto"`` and for epochs of the dual solver, the mean of F over the epoch, unless ``verbose`` has F
        evaluated. If that mean is below F at the end of a fit that reached ``tol``, it is raised to the final F. The
        last number is always F itself, after the last epoch. (Early stopping keeps the coefficients of the best epoch.)
    excess_curve_ : list of float
        Estimate of ``(F - F*) / F*`` after each epoch; inf if there was none, as after minibatches. The first estimates
        are rough.
    validation_scores_ : list of float
        Accuracy on the validation rows after each epoch, as ``score`` computes it. Only with ``early_stopping=True``.
    stop_reason_ : str
        Why the fit ended:

        - "tol": the estimated excess is at most ``tol``.
        - "max_iter": ``max_iter`` epochs have run.
        - "early_stopping": the validation score has stopped improving.
        - "precision": no step changes F by more than rounding.
        - "separable": ``alpha=0`` and all rows are predicted correctly, so that F has no minimum.
        - "callback": a callback ended the fit. The coefficients are those of the last epoch.

        A ``ConvergenceWarning`` is issued for "separable", and for "max_iter" and "precision" if the excess is above
        ``tol``.
    excess_ : float
        Estimate of ``(F - F*) / F*`` at the fitted parameters. It is inf after early stopping, if F has no minimum
        ("separable"), and if a callback ended the fit before the first estimate.
    solver_info_ : dict
        What ran:

        - "solver": the solvers, joined by "+" in the order in which they ran.
        - "engine": the engine.
        - "batch_size", "learning_rate", "metric" (preconditioner of the minibatches), "curvature": the other choices.
        - "sample": if the rows do not fit in memory, the rows that a model was fitted to first.
        - "kept": for a stream, the number of rows kept, and how many of them the last fit used.
        - "waiting": for a stream, the rows that are too few for a step so far.

    Notes
    -----
    ``fit`` and ``fit_batches`` set ``loss_curve_``, ``excess_curve_``, ``validation_scores_``, ``stop_reason_`` and
    ``excess_``; ``partial_fit`` deletes them.

    A fit without the dual solver copies X once in these cases, and not otherwise:

    - X is dense float32 and there is an intercept. A centre is subtracted from the columns, so that float32 keeps the
      digits that products with the coefficients need.
    - X is an integer, Fortran-ordered or non-CSR matrix, or has rows of weight 0.
    - X is dense with at least twice as many columns as rows, has at most 1000 rows (or 200 per class), and there is no
      L1. The copy is in float64. The solver then uses a float64 table of n_samples x n_samples: the coordinates of the
      rows in the space that they span.

    Besides X, such a fit holds:

    - a few numbers per row: codes, weights, the order of the epoch;
    - soft targets, copied once in X's dtype (smoothed labels need no table);
    - for "auto", X'X if it is worth its cost;
    - for "auto", the rows that the curvature is estimated from: a tenth of the rows, or all rows of a small X;
    - for "auto", if n_classes <= n_features, one table of n_samples x n_classes probabilities in X's dtype;
    - for "auto", the Hessian of up to 1000 unknowns (8 MB, and twice that while it is computed), or a larger Hessian of
      at most the size of X or 64 MiB;
    - in the place of such a Hessian, n_classes matrices of n_features x n_features, within the same limits;
    - blocks of rows of about 1 MiB for everything else, one for each thread and one more, and what is computed of them.

    Sums over many rows use as many threads as the BLAS would, with the same result to the bit for any number. Set
    OMP_NUM_THREADS or use ``threadpoolctl.threadpool_limits`` to limit them.

    Besides X, a fit by the dual solver holds one more copy of the values of a sparse X (or a CSR copy of a dense X of
    mostly zeros, at most half its size) and the order of the epoch. In X's dtype it also holds n_samples x n_classes
    probabilities and up to 18 tables of n_features x n_classes, where n_classes is rounded up to a multiple of 8 (1 for
    two classes).

    With scikit-learn 1.9 and later, ``fit`` and ``fit_batches`` support callbacks: ``set_callbacks(ProgressBar())``,
    ``ScoringMonitor``, or an object with the four methods of ``sklearn.callback.FitCallback``. The epochs are the
    subtasks of a fit. If a method ``on_fit_task_end`` returns True, the fit ends, without a warning. The methods can
    ask for X, y and ``sample_weight``, as passed to ``fit``, and for ``fitted_estimator``. This is the model after the
    last epoch (None before the end of the first), with all attributes of a fit except ``solver_info_``. Making it
    copies the coefficients. Callbacks are not called for the epochs of a fit to a sample, nor by ``partial_fit``.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The same model, fitted by passes over all rows.
    sklearn.linear_model.SGDClassifier : One-vs-rest classifiers, whose probabilities are not a softmax.

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

    @parameter_names.with_hints
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

    @_sklearn.validate_parameters
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
            Finite numbers of any scale. float32 is kept, other dtypes become float64; CSR is used as it is. A
            ``numpy.memmap``, or another array on disk with ``chunks`` (HDF5, Zarr), of more than 128 MiB is read in
            passes, and memory holds only a sample: see ``fit_batches``. With
            ``sklearn.config_context(array_api_dispatch=True)``, X may also be a dense array of another library, such as
            a PyTorch tensor, on any device. Computations on its rows then run on that device.
        y : array-like of shape (n_samples,), or (n_samples, n_classes) with ``soft_targets=True``
            Labels of at least two classes, all numbers or all strings, without missing values. Nullable integers of
            pandas stay integers. Any library and device that X may have is accepted. With ``soft_targets=True``, the
            fraction of each class in each row, >= 0. Rows must sum to 1 within 2e-3, and are then normalised. The
            column names of a data frame are the class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, >= 0, whose sum is at most 1e200. An integer weight is the same as that many copies of the row. A
            class whose rows all have weight 0 is still in ``classes_``, with a probability of at most 1 / 2n after n
            rows of positive weight (more with L1 or without an intercept). The differences of the other classes'
            coefficients minimise F without this class.
        X_val : array-like or sparse matrix of shape (n_val, n_features), default=None
            Validation rows for ``early_stopping``, with the columns of X. All of X is then used for training. In a
            ``Pipeline``, set ``Pipeline(..., transform_input=["X_val"])`` to transform them like X.
        y_val : array-like of shape (n_val,) or (n_val, n_classes), default=None
            Labels of ``X_val``, among the classes of y; or soft targets, as y.
        sample_weight_val : array-like of shape (n_val,), default=None
            Weights of ``X_val`` in the validation score, >= 0, without ``class_weight``.

        Returns
        -------
        self : SoftmaxClassifier
            Fitted estimator.

        Raises
        ------
        ValueError
            - If X, y or the weights are not as above, or a parameter is out of range.
            - If ``warm_start=True`` and the classes or the number of columns differ from the last fit, or its
              coefficients are not finite.
            - If ``early_stopping=True`` and there are too few rows to set a part aside.
            - If only one of ``X_val`` and ``y_val`` is given, they do not match X and y, or ``early_stopping=False``.
            - If X is of another library than NumPy or SciPy, and ``engine`` is "compiled" or "naive", or soft targets
              or label smoothing are used.
        ImportError
            If ``engine="compiled"`` or ``solver="dual"``, and the package was installed without kernels.

        Warns
        -----
        ConvergenceWarning
            If the fit ends above ``tol``, after ``max_iter`` epochs or at the precision of X's dtype, or if F has no
            minimum (``alpha=0`` and all rows are predicted correctly).
        """
        task = task_of(self, X, y, sample_weight)  # outside, because it must be torn down after an error too
        with _validation.restore_on_error(self), one_blas_thread():
            _validation.check_engine_available(self)
            validation = _targets.validation_arguments(self.early_stopping, X_val, y_val, sample_weight_val)
            if y is not None and out_of_core.is_on_disk(X):  # type: ignore[redundant-expr]  # users can pass None
                _validation.check_hard_labels(
                    self, "fit of an array on disk", "pass X in memory, or pass parts of it to partial_fit."
                )
                result = self._fit_out_of_core(out_of_core.array_source(X, y, sample_weight), None, validation, task)
            else:
                data, classes = _targets.fit_data(self, X, y, sample_weight)
                result = self._fit_in_memory(data, classes, validation, task)
                if not self.soft_targets:
                    self.classes_ = labels_like(classes, y)
        self._warn_if_above_tol(result)
        return self

    @_sklearn.validate_parameters
    def fit_batches(self, batches: Any, classes: ArrayLike | None = None) -> Self:
        """Fit the model out of core: to rows that are read in several passes.

        The minimum and the stopping criterion are those of ``fit``. The fit has three steps:

        1. One pass checks the rows and keeps a sample of at most 128 MiB.
        2. A model is fitted to the sample.
        3. Newton steps, with the gradient of all rows and the curvature of the sample, lead to the minimum over all
           rows. Each takes a pass or two.

        If the sample holds all rows, no more passes follow, and the result is that of ``fit``. Named solvers skip steps
        2 and 3. Their epochs take a pass each, over rows shuffled in windows of about 32 MiB, and another pass for F.

        Parameters
        ----------
        batches : iterable, or callable that returns an iterator
            Source of the rows as tuples ``(X, y)`` or ``(X, y, sample_weight)``, each as ``fit`` takes them. Batches
            may have any number of rows, but are all dense or all sparse. Every pass must give the same rows; their
            order may change.

            Pass a list, an object with ``__iter__``, or a generator function, but not a generator, which can be read
            only once. The same arrays may be refilled for every batch.
        classes : array-like of shape (n_classes,), default=None
            All labels. None takes the labels in the rows.

        Returns
        -------
        self : SoftmaxClassifier
            Fitted estimator.

        Raises
        ------
        TypeError
            If ``batches`` can be read only once, or does not give tuples.
        ValueError
            - As ``fit``.
            - If ``early_stopping=True`` and the sample does not hold all rows.
            - If the rows are not the same in every pass. Each pass compares the number of rows, the labels and the
              weights of the classes with the first pass. Passes 2, 3, 4, 8, 16, ... also compare the sums of the
              columns of X, and check that they are finite.
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
        >>> def batches():  # for example one file at a time
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
                self, "fit_batches", "use fit with X in memory, or partial_fit with a part at a time."
            )
            result = self._fit_out_of_core(out_of_core.batches_source(batches), classes, None, task)
        self._warn_if_above_tol(result)
        return self

    def _fit_out_of_core(
        self, source: out_of_core.Source, classes: ArrayLike | None, validation: _targets.Validation | None, task: Task
    ) -> Result:
        """Fit to rows that are read in passes, as ``fit_batches`` describes."""
        survey = out_of_core.survey(self, source, classes, check_random_state(self.random_state))
        if survey.is_all:
            return self._fit_in_memory(survey.data, survey.classes, validation, task)
        if self.early_stopping and validation is None:
            raise ValueError(
                "early_stopping=True must have all rows in memory to set some aside, got more rows than the sample in "
                "memory. Pass X_val and y_val to fit, or set early_stopping=False."
            )
        validation_rows = _targets.validation_data(self, validation, survey.classes)
        sample, data_source = out_of_core.sample_and_source(survey, source, self.class_weight)
        return self._fit_coded(sample, survey.classes, data_source, validation_rows, task)

    def _fit_in_memory(self, data: Batch, classes: Array, validation: _targets.Validation | None, task: Task) -> Result:
        """Fit to coded rows in memory, without class weights so far."""
        validation_rows = _targets.validation_data(self, validation, classes)
        data = _labels.apply_class_weight(data, self.class_weight, classes)
        return self._fit_coded(data, classes, None, validation_rows, task)

    def _fit_coded(
        self, data: Batch, classes: Array, data_source: DataSource | None, validation_rows: Batch | None, task: Task
    ) -> Result:
        """Fit to coded rows, class weights included, or to the ``data_source`` that they are a sample of.

        ``validation_rows`` are for early stopping; if None, a part of ``data`` is set aside.
        """
        last_params = self._fitted_params() if self.warm_start else None
        rng = check_random_state(self.random_state)
        if self.early_stopping and validation_rows is None:
            data, validation_rows = _targets.split_validation(data, classes, self.validation_fraction, rng)
        problem = self._problem(data, len(classes), float(data.weight.mean()), data_source)
        params = prior_params(problem)
        if last_params is not None:
            params = self._warm_params(last_params, params, classes)
        criteria = StoppingCriteria(self.max_iter, self.tol, _validation_scorer(validation_rows), self.n_iter_no_change)
        self._delete_fit_attributes()
        monitors = task.monitors(
            lambda result: {
                **self._fit_attributes(result, classes, data.X),
                **self._centered_coef_attributes(result.params, data.X),
            }
        )
        print_end = None
        if self.verbose:
            monitor, print_end = verbose_monitor(problem.n_total_samples)
            monitors = [monitor, *monitors]
        result, info = minimize(
            *(problem, params, self._settings(), criteria),
            is_warm=last_params is not None,
            rng=rng,
            monitor=combine_monitors(monitors),
        )
        if print_end is not None:
            print_end(result)
        self.__dict__ |= self._fit_attributes(result, classes, data.X)
        self.solver_info_ = {"engine": choose_engine(self.engine, data.X), "solver": result.solver, **info}
        self._stream = self._new_stream(problem.n_total_samples, problem.n_total_samples * problem.mean_weight)
        task.end()
        return result

    @_sklearn.validate_parameters
    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Update the model with the rows of X, continuing from the last call.

        With ``solver="auto"``, up to 256 MiB of X are kept (see ``keep_rows``). The model is refitted to all rows so
        far, to an excess of 1e-2, in these cases:

        - A class comes for the first time, or ``alpha``, ``l1_ratio``, ``fit_intercept`` or ``label_smoothing`` has
          changed.
        - The rows or their weight have doubled since the last fit. A quarter more is enough if few rows have much of
          the weight.
        - The new rows show that F is 2 % above its minimum, and there are a quarter more rows. A twentieth more is
          enough if few rows have much of the weight, or if equal probabilities would suit the new rows better. One row
          is enough if equal probabilities would suit all rows better.

        If a fit takes hardly any time, fewer new rows are enough. Between refits the coefficients do not change.

        The rows of a longer stream, or of a stream after ``fit``, are used once, by schedule-free steps (Defazio et
        al., 2024). These estimate the scales and correlations of the columns as the rows come, and average the
        coefficients over the updates, so they need neither scaling nor the length of the stream. With ``l1_ratio > 0``
        the averages have few exact zeros. Rows are buffered until they make a batch, or an eighth of the rows before.
        "sgd", "adagrad" and "adam" take one step per batch.

        ``max_iter`` limits a refit; ``tol`` is not used. Rows of weight 0 change nothing. If the first call has only
        such rows, all classes have equal probabilities until others come.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            As in ``fit``.
        y : array-like of shape (n_samples,), or (n_samples, n_classes) with ``soft_targets=True``
            Labels; some classes may be missing. Or soft targets as in ``fit``, whose columns give the classes.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come, in one dimension. Required in the first call only; not required with
            ``allow_new_classes=True`` if y has at least two classes.
        sample_weight : array-like of shape (n_samples,), default=None
            As in ``fit``.

        Returns
        -------
        self : SoftmaxClassifier
            Updated estimator.

        Raises
        ------
        ValueError
            If X, y or the weights are not as above, y has a label that is not among the classes, the number of
            columns or X's library or device has changed, ``class_weight="balanced"``, or ``early_stopping=True``.
        ImportError
            As ``fit``.
        FloatingPointError
            If the coefficients overflow, as those of a named solver may. After any error the model is unchanged.

        Warns
        -----
        ConvergenceWarning
            If a refit ends with an estimated excess above 1e-2, or F has no minimum (``alpha=0`` and all rows are
            predicted correctly).
        """
        with _validation.restore_on_error(self), one_blas_thread():
            self._check_stream_parameters()
            check_device_of_fit(self, X, "partial_fit")
            data, labels = _targets.stream_data(self, X, y, classes, sample_weight)
            data = _labels.apply_class_weight(
                data, self.class_weight, labels, is_stream=True, allow_unseen_classes=self.allow_new_classes
            )
            if len(data.y) > 0:
                self._delete_fit_attributes()
                self._update_stream(data, labels)
            elif not hasattr(self, "coef_"):
                self._init_without_rows(data.X, labels)
            else:
                return self
            self.classes_ = labels if self.soft_targets else labels_like(labels, y)
        return self

    def _check_stream_parameters(self) -> None:
        """Raise ImportError or ValueError if the parameters are not for ``partial_fit``."""
        _validation.check_engine_available(self)
        _validation.check_no_early_stopping(self)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight must be a dict or None for partial_fit, which does not have all rows, got 'balanced'; "
                "pass the weights as a dict, such as dict(zip(classes, sklearn.utils.compute_class_weight('balanced', "
                "classes=classes, y=y_sample)))."
            )

    def _init_without_rows(self, X: Any, classes: Array) -> None:
        """Set the attributes of a model of these classes before any row: equal probabilities."""
        n_outputs = 1 if len(classes) == 2 else len(classes)
        params = Params(np.zeros((n_outputs, X.shape[1])), np.zeros(n_outputs))
        self.__dict__ |= self._centered_coef_attributes(params, X)
        self._stream, self.solver_info_, self.n_iter_ = self._new_stream(0, 0.0), {}, 0

    def _update_stream(self, data: Batch, classes: Array) -> None:
        """Update the stream and the attributes with rows whose codes are positions in ``classes``."""
        stream = getattr(self, "_stream", None) or self._new_stream(0, 0.0)
        if stream.has_other_targets(data.y):
            raise ValueError(
                "soft_targets must be the same for all rows that partial_fit keeps, got "
                f"soft_targets={self.soft_targets} after rows with the other setting; set it back, or use a new "
                "estimator."
            )
        _arrays.check_finite_sum(np.array([stream.weight, data.weight.sum()]))
        old_classes = to_numpy(getattr(self, "classes_", classes))
        places = np.searchsorted(classes, old_classes.astype(classes.dtype))
        if len(old_classes) < len(classes):
            stream = with_classes(stream, places, len(classes), **self._penalty_flags())

        def last_params() -> Params | None:
            params = self._fitted_params()
            n_samples = stream.n_samples
            if params is None or n_samples == 0:
                return None
            params = add_classes(params, places, len(classes), n_samples, **self._penalty_flags())
            return with_intercept(params, bool(self.fit_intercept))

        problem = self._problem(data, len(classes), 1.0)
        rng = check_random_state(self.random_state)
        update = update_stream(stream, problem, last_params, self._settings(), rng)
        if update.params is not None:
            self._check_no_overflow(update, data.X.dtype)
            self.__dict__ |= self._centered_coef_attributes(update.params, data.X)
        self._stream, self.solver_info_, self.n_iter_ = update.stream, update.info, update.n_epochs
        if update.result is not None:
            self._warn_if_above_tol(update.result, stream_tol=REFIT_TOL, stacklevel=5)

    def _check_no_overflow(self, update: StreamUpdate, dtype: Any) -> None:
        """Raise FloatingPointError if the new parameters are not finite in X's dtype."""
        assert update.params is not None
        if is_finite(Params(*(part.astype(dtype) for part in update.params))):
            return
        advice = "Lower learning_rate, scale the columns, or use solver='auto'."
        if self.solver in ("auto", "dual"):
            advice = "Scale the columns, or pass X as float64."
        raise FloatingPointError(
            f"the coefficients must be finite in {dtype}, got an overflow at "
            f"learning_rate={update.info['learning_rate']}; the model is unchanged. {advice}"
        )

    def _penalty_flags(self) -> dict[str, bool]:
        """Return the flags on which the coefficients of a class without rows depend."""
        return {"has_l1": self._l1_ratio() > 0, "has_intercept": bool(self.fit_intercept)}

    def _new_stream(self, n_samples: int, weight: float) -> Stream:
        """Return the state of a stream after rows that are not kept, of this number and total weight."""
        return new_stream(self._settings(), has_l1=self._l1_ratio() > 0, n_samples=n_samples, weight=weight)

    def to_sklearn(self) -> LogisticRegression:
        """Convert the model to a fitted ``LogisticRegression`` with the same predictions.

        Use it with tools that expect a ``LogisticRegression``. Its parameters define the same objective, so that a
        clone of it, fitted to the same rows, has the same minimum:

        - ``C = 1 / (alpha * total_weight)``, or inf for ``alpha=0``. The total is over the rows of the fit, without the
          rows that ``early_stopping`` set aside, and includes class weights.
        - ``max_iter`` is the same. ``tol`` is the smaller of the square root of this ``tol`` and 1e-4, because the
          ``tol`` of ``LogisticRegression`` is on the gradient.
        - The solver is "saga" with L1, otherwise "lbfgs". Both need columns of similar scale.

        Returns
        -------
        LogisticRegression
            Fitted, with copies of the attributes; ``coef_`` is dense, of shape (n_classes, n_features), or
            (1, n_features) for two classes.

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
        """Convert a fitted ``LogisticRegression`` to a model of this class with the same predictions.

        ``partial_fit``, and ``fit`` with ``warm_start=True``, continue from its coefficients. ``alpha`` becomes
        ``1 / (C * total_weight)``. ``l1_ratio``, ``fit_intercept``, ``class_weight``, ``random_state``, ``warm_start``
        and ``max_iter`` are copied. The other parameters, including ``tol``, have their defaults. (The minimum of
        "liblinear" differs, because that solver penalises the intercept.)

        Parameters
        ----------
        model : LogisticRegression
            Fitted model; for two classes, or multinomial.
        total_weight : float
            Sum of the weights of the rows that ``model`` was fitted to, class weights included, > 0; the number of rows
            if there were no weights. A ``LogisticRegression`` does not store it, and it is needed because ``C`` weighs
            the sum of the losses and ``alpha`` their mean. It also sets the weight of these rows relative to the rows
            of ``partial_fit``.

        Returns
        -------
        SoftmaxClassifier
            Fitted estimator.

        Raises
        ------
        TypeError
            If ``model`` is not a ``LogisticRegression``.
        NotFittedError
            If ``model`` is not fitted.
        ValueError
            If ``model`` is one-vs-rest, or ``total_weight`` is not > 0.

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
        """Return the accuracy on the given rows and labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Test rows.
        y : array-like of shape (n_samples,), or with ``soft_targets=True`` also of shape (n_samples, n_classes)
            Labels, or soft targets as ``fit`` takes them. The score of a row with soft targets is the fraction that the
            targets give to the predicted class.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, as in ``fit``; at least one > 0.

        Returns
        -------
        float
            Weighted mean accuracy of ``self.predict(X)``, in [0, 1].

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If X, y or the weights are not as above.
        """
        if not getattr(self, "soft_targets", False) or np.ndim(y) != 2:
            if _sklearn.namespace_of(y) is None:
                y = _labels.check_labels(y, warn=False)
                _labels.to_common_dtype(y, to_numpy(self.classes_), "y", "the classes")
            weight = _validation.check_score_weight(sample_weight, X, y)
            with np.errstate(all="ignore"):
                return float(super().score(X, y, weight))
        codes = np.searchsorted(self.classes_, self.predict(X))
        table, classes = _targets.target_table(y, "y")
        _targets.check_same_classes(classes, self.classes_)
        _arrays.check_same_length(codes, table)
        return _accuracy(codes, table, _validation.check_score_weight(sample_weight, codes, table))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = self.engine in ("auto", "vectorized")
        return tags

    def _settings(self) -> Settings:
        """Return the parameters of the solvers, with None for "auto"."""
        values = {name: getattr(self, name) for name in Settings._fields if name != "use_dual"}
        if self.solver == "dual":
            values.update(solver="auto", use_dual=True)
        for name in ("batch_size", "learning_rate"):
            values[name] = None if values[name] == "auto" else values[name]
        values["half_life"] = np.inf if self.half_life is None else self.half_life
        return Settings(**values)

    def _problem(
        self, data: Batch, n_classes: int, mean_weight: float, data_source: DataSource | None = None
    ) -> Problem:
        """Return the problem of these rows, or of the ``data_source`` that they are a sample of."""
        kernel = registry.get_kernel(choose_engine(self.engine, data.X))
        if data_source is not None:
            mean_weight = float(data_source.class_weights.sum()) / data_source.n_samples
        l1_ratio = self._l1_ratio()
        alpha, smoothing = float(self.alpha), float(self.label_smoothing)
        return Problem(
            data, n_classes, alpha, self.fit_intercept, kernel, mean_weight, l1_ratio, data_source, smoothing
        )

    def _l1_ratio(self) -> float:
        """Return ``l1_ratio``, or 0 if ``alpha=0``: without a penalty F is smooth."""
        return float(self.l1_ratio) if self.alpha else 0.0

    def _fitted_params(self) -> Params | None:
        """Return the parameters of the last fit in float64; None before it. Raise ValueError if they are not finite."""
        if not hasattr(self, "coef_"):
            return None
        coef = to_numpy(self.coef_)  # sparse after sparsify
        coef = coef.toarray() if sp.issparse(coef) else coef
        params = Params(np.array(coef, dtype=np.float64), np.array(to_numpy(self.intercept_), dtype=np.float64))
        return _arrays.check_finite_params(params)

    def _warm_params(self, last: Params, cold: Params, classes: Array) -> Params:
        """Return the parameters of the last fit as a start; raise ValueError if they do not fit the problem."""
        last_classes = to_numpy(self.classes_)
        if not np.array_equal(*_labels.to_common_dtype(classes, last_classes, "y", "the classes of the last fit")):
            raise ValueError(
                f"warm_start needs the classes of the last fit, {last_classes.tolist()}, got {classes.tolist()}; set "
                "warm_start=False, or use partial_fit with all classes."
            )
        if last.coef.shape != cold.coef.shape:
            raise ValueError(
                f"warm_start needs the {last.coef.shape[1]} features of the last fit, got {cold.coef.shape[1]}; set "
                "warm_start=False."
            )
        start = center_params(last, has_l1=self._l1_ratio() > 0)
        return start._replace(intercept=start.intercept * self.fit_intercept)

    def _centered_coef_attributes(self, params: Params, X: Any) -> dict[str, Any]:
        """Return ``coef_`` and ``intercept_``, centred over the classes, in X's library and dtype."""
        params = center_params(params, has_l1=self._l1_ratio() > 0)
        return _coef_attributes(Params(*(part.astype(X.dtype) for part in params)), X)

    def _delete_fit_attributes(self) -> None:
        """Delete the attributes that describe how an earlier fit went."""
        attributes = ("loss_curve_", "excess_curve_", "validation_scores_", "stop_reason_", "excess_", "solver_info_")
        for name in (*attributes, "_has_more_digits"):
            self.__dict__.pop(name, None)

    def _fit_attributes(self, result: Result, classes: Array, X: Any) -> dict[str, Any]:
        """Return the attributes of a fit, except ``solver_info_``."""
        scores = {"validation_scores_": result.validation_scores} if self.early_stopping else {}
        return {
            **_coef_attributes(result.params, X),
            "classes_": classes,
            "n_iter_": len(result.loss_curve),
            "loss_curve_": result.loss_curve,
            "excess_curve_": [_inf_if_nan(excess) for excess in result.excess_curve],
            **scores,
            "stop_reason_": str(result.stop_reason),
            "excess_": _inf_if_nan(result.excess),
        }

    def _warn_if_above_tol(self, result: Result, *, stream_tol: float | None = None, stacklevel: int = 4) -> None:
        """Warn if the fit, or a refit of ``partial_fit`` if ``stream_tol`` is given, ended above its tolerance.

        The default ``stacklevel`` makes the warning point to the caller of ``fit``. It counts the frames of this
        method, of ``fit``, of scikit-learn's parameter validation, and of the caller.
        """
        reasons = (StopReason.MAX_ITER, StopReason.PRECISION, StopReason.SEPARABLE)
        if result.stop_reason not in reasons or result.excess <= (stream_tol or self.tol):
            return
        warnings.warn(
            f"SoftmaxClassifier did not converge: {self._convergence_message(result, stream_tol)}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )

    def _convergence_message(self, result: Result, stream_tol: float | None) -> str:
        """Return how far F is from its minimum, why, and what to do."""
        n_epochs = len(result.loss_curve)
        if result.stop_reason is StopReason.SEPARABLE:
            return (
                "the classes can be separated without error and alpha=0, so F has no minimum and the coefficients grow "
                f"without bound; the fit ended after {n_epochs} epochs. Set alpha > 0."
            )
        figure = f"about {result.excess:.1e}, above" if np.isfinite(result.excess) else "not known to be below"
        target = f"tol={self.tol:g}" if stream_tol is None else f"{stream_tol:g}, the tolerance of partial_fit"
        or_tol = "" if stream_tol else " or tol"
        result_text = f"after {n_epochs} epochs (max_iter={self.max_iter}) (F - F*) / F* is {figure} {target}."
        if result.stop_reason is StopReason.PRECISION:
            is_single = to_numpy(self.coef_).dtype == np.float32
            remedy = "Pass X as float64, centre" if is_single else "Remove outlying values, centre"
            or_raise = "" if stream_tol else ", or raise tol"
            return f"{result_text} No step changes F by more than rounding. {remedy} or scale the columns{or_raise}."
        if self.solver in ("auto", "dual"):
            return f"{result_text} Raise max_iter{or_tol}."
        return (
            f"{result_text} Scale the columns, change learning_rate, raise max_iter, or use solver='auto', which needs "
            "none of this."
        )


def _coef_attributes(params: Params, X: Any) -> dict[str, Any]:
    """Return ``coef_`` and ``intercept_`` in X's library, in the dtype of ``params``."""
    has_more_digits = bool(params.coef.dtype != X.dtype)
    flag = {"_has_more_digits": True} if has_more_digits else {}
    return {"coef_": place_like(params.coef, X), "intercept_": place_like(params.intercept, X), **flag}


def _inf_if_nan(excess: float) -> float:
    """Return the estimate of the excess; inf if it overflowed to NaN."""
    return np.inf if np.isnan(excess) else float(excess)


def _validation_scorer(rows: Batch | None) -> Callable[[Params], float] | None:
    """Return a function that computes the accuracy of parameters on the validation rows; None without rows."""
    if rows is None:
        return None
    X, y, weight = rows

    def score(params: Params) -> float:
        engine = array_api if isinstance(X, DeviceArray) else vectorized
        raw = engine.raw_prediction(params, X)
        predicted = to_host(raw.argmax(axis=0) if len(raw) > 1 else raw[0] > 0).astype(np.intp)
        return _accuracy(predicted, y, weight)

    return score


def _accuracy(predicted: Array, y: Array, weight: Any) -> float:
    """Return the weighted mean accuracy for codes, or the mean fraction that targets give to the predicted classes."""
    scores = predicted == y if y.ndim == 1 else y[np.arange(len(y)), predicted]
    with np.errstate(all="ignore"):
        return float(np.average(scores, weights=weight))
