"""Checks of the input of an estimator: parameters, X and y, sample weights.

The estimators call these functions first. Invalid input raises here, once; the modules below do not check it again.
``arrays`` checks single values and arrays, and ``labels`` checks labels and class weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer_names
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    validate_data,
)

from sksoftmax._data.arrays import (
    as_float,
    as_host_array,
    canonicalize,
    check_finite_numbers,
    check_finite_sum,
    check_matrix,
    check_no_mask,
    check_sparse_structure,
    drop_zero_weight,
    too_large_error,
    wrap_array,
)
from sksoftmax._data.labels import are_compact, check_labels, check_two_classes, classes_and_codes
from sksoftmax._engines import compiled
from sksoftmax._engines.device import DeviceArray
from sksoftmax._engines.registry import KERNELS, has_compiled
from sksoftmax._engines.threads import COPY_WORK, map_in_order
from sksoftmax._sklearn import Interval, StrOptions, count_samples, namespace_of
from sksoftmax._types import Array, Batch

#: Entries of X that are summed at once to see whether they are finite.
_SUMMED_ENTRIES = 2**18


class _Range(Interval):  # type: ignore[misc]
    """Interval of real numbers that accepts only the integers and floats of Python and NumPy."""

    def is_satisfied_by(self, val: Any) -> bool:
        return isinstance(val, int | float | np.integer | np.floating) and super().is_satisfied_by(as_float(val))

    def __str__(self) -> str:
        text: str = super().__str__()
        return text.replace(f"{np.finfo(np.float64).max}]", "inf)")


class _Solvers(StrOptions):  # type: ignore[misc]
    """Names of solvers, for users who look for those of ``LogisticRegression``."""

    def __str__(self) -> str:
        return f"{super().__str__()} ('auto' replaces the solvers of LogisticRegression)"


PARAMETER_CONSTRAINTS: dict[str, list[Any]] = {
    "alpha": [_Range(Real, 0, np.finfo(np.float64).max, closed="both")],
    "l1_ratio": [_Range(Real, 0, 1, closed="both")],
    "fit_intercept": ["boolean"],
    "solver": [_Solvers({"auto", "dual", "sgd", "adagrad", "adam"})],
    "engine": [StrOptions({"auto", "compiled", *KERNELS})],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"auto"}), _Range(Real, 0, np.finfo(np.float64).max, closed="right")],
    "schedule": [StrOptions({"constant", "inverse_scaling", "linear", "cosine"})],
    "power_t": [_Range(Real, 0, None, closed="left")],
    "momentum": [_Range(Real, 0, 1, closed="left")],
    "nesterov": ["boolean"],
    "average": ["boolean"],
    "beta_1": [_Range(Real, 0, 1, closed="left")],
    "beta_2": [_Range(Real, 0, 1, closed="left")],
    "epsilon": [_Range(Real, 0, None, closed="neither")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [_Range(Real, 0, None, closed="left")],
    "shuffle": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [_Range(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "class_weight": [dict, StrOptions({"balanced"}), None],
    "soft_targets": ["boolean"],
    "label_smoothing": [_Range(Real, 0, 1, closed="left")],
    "warm_start": ["boolean"],
    "keep_rows": ["boolean"],
    "half_life": [_Range(Real, 0, None, closed="neither"), None],
    "allow_new_classes": ["boolean"],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

#: Constraints of the parameters of `SoftmaxClassifierCV`.
SWEEP_CONSTRAINTS: dict[str, list[Any]] = {
    "alphas": [Interval(Integral, 1, None, closed="left"), "array-like"],
    "l1_ratios": ["array-like"],
    "cv": ["cv_object"],
    "scoring": [StrOptions(set(get_scorer_names())), callable, None],
    "refit": ["boolean"],
    "n_alphas_no_change": [Interval(Integral, 1, None, closed="left"), None],
    "store_coefs": ["boolean"],
    "n_jobs": [Integral, None],
    **{
        name: PARAMETER_CONSTRAINTS[name]
        for name in ("fit_intercept", "engine", "max_iter", "tol", "class_weight", "random_state", "verbose")
    },
}


def check_engine_available(estimator: Any) -> None:
    """Check that this installation has the engine of the estimator, and that the dual solver fits its parameters.

    Raises
    ------
    ImportError
        If the engine is "compiled" or the solver is "dual", and the package was installed without kernels.
    ValueError
        If the solver is "dual" and the engine is another, or ``soft_targets`` or ``label_smoothing`` is set.
    """
    is_dual = getattr(estimator, "solver", "auto") == "dual"
    if not is_dual and estimator.engine != "compiled":
        return
    if is_dual and estimator.engine not in ("auto", "compiled"):
        raise ValueError(
            f"solver='dual' needs the compiled engine, got engine={estimator.engine!r}; use engine='auto', or "
            "solver='auto'."
        )
    if not has_compiled():
        name, value = ("solver", "dual") if is_dual else ("engine", "compiled")
        raise ImportError(
            f"{name}={value!r} needs the compiled kernels, which this installation lacks ({compiled.missing}). "
            f"Install a C++ compiler, then sksoftmax again; or use {name}='auto'."
        )
    if is_dual and (estimator.soft_targets or estimator.label_smoothing):
        raise ValueError(
            f"solver='dual' takes one class per row, got soft_targets={estimator.soft_targets} and "
            f"label_smoothing={estimator.label_smoothing:g}; use solver='auto'."
        )


def check_no_early_stopping(estimator: Any) -> None:
    """Raise ValueError if ``early_stopping`` is set; called by ``partial_fit``."""
    if estimator.early_stopping:
        raise ValueError(
            "early_stopping must be False for partial_fit, which holds out no rows, got True; set it to False, or use "
            "fit."
        )


def check_hard_labels(estimator: Any, name: str, advice: str) -> None:
    """Raise ValueError if the estimator takes soft targets; ``name`` is the method or option that does not."""
    if estimator.soft_targets:
        raise ValueError(f"{name} takes labels, got soft_targets=True; {advice}")


def check_any_folds(n_folds: int, cv: Any) -> None:
    """Raise ValueError if ``cv`` gives no fold."""
    if n_folds == 0:
        raise ValueError(
            f"cv must give at least one pair of rows to train on and rows to hold out, got none from {cv!r}; give a "
            "list of pairs, or a splitter."
        )


@contextmanager
def restore_on_error(estimator: Any) -> Iterator[None]:
    """Restore the attributes of the estimator if the block raises, so that it is not left half fitted.

    Within the block NumPy neither warns nor raises on floating-point errors, because a fit checks its results.
    """
    attributes = dict(vars(estimator))
    try:
        with np.errstate(all="ignore"):
            yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(attributes)
        raise


def _check_engine_accepts(estimator: Any, X: Any) -> None:
    """Raise ValueError if X is of another array library and the engine or the kind of target needs NumPy."""
    if namespace_of(X) is None:
        return
    if getattr(estimator, "soft_targets", False) or getattr(estimator, "label_smoothing", 0):
        raise ValueError(
            "soft_targets and label_smoothing take NumPy arrays and SciPy's sparse matrices, got "
            f"{type(X).__module__} under array_api_dispatch=True; convert X, or give labels."
        )
    if estimator.engine in ("compiled", "naive"):
        raise ValueError(
            f"engine={estimator.engine!r} takes NumPy arrays and SciPy's sparse matrices, got {type(X).__module__} "
            "under array_api_dispatch=True; use engine='auto'."
        )


def _validate(estimator: Any, X: Any, **checks: Any) -> Any:
    """Validate X, or X and y, with scikit-learn; wrap X of another array library in a DeviceArray."""
    layout = str(getattr(X, "layout", ""))
    if layout.startswith("torch.") and layout != "torch.strided":
        raise ValueError(
            f"X must be a dense tensor, got one of layout {layout}; pass X.to_dense(), or a SciPy sparse matrix."
        )
    check_no_mask(X, "X")
    X = check_sparse_structure(wrap_array(X))
    dtypes: list[Any] = [np.float64, np.float32]
    if isinstance(X, DeviceArray):
        dtypes = [X.widest_float, X.xp.float32]
        # without detach PyTorch would build an autograd graph
        X = X.array.detach() if hasattr(X.array, "detach") else X.array
    try:
        arrays = validate_data(
            estimator, X, accept_sparse="csr", dtype=dtypes, ensure_all_finite=not _has_finite_sums(X), **checks
        )
    except OverflowError:
        raise too_large_error("X") from None
    if "y" in checks:
        return wrap_array(arrays[0]), as_host_array(arrays[1])
    return wrap_array(arrays)


def _has_finite_sums(X: Any) -> bool:
    """Return whether sums of blocks of X are finite, so that all its entries are; scikit-learn checks other X.

    The blocks are summed side by side. Returns False if X is not a table of NumPy in float32 or float64.
    """
    if not (isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype in (np.float32, np.float64)):
        return False
    size = max(1, _SUMMED_ENTRIES // max(1, X.shape[1]))
    blocks = [X[start : start + size] for start in range(0, len(X), size)]
    with np.errstate(all="ignore"):  # inf - inf, and sums that overflow
        return all(map_in_order(lambda block: bool(np.isfinite(block.sum())), blocks, COPY_WORK * X.size))


# --- training and prediction ----------------------------------------------------------------------------------


def check_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool, is_stream: bool = False, suffix: str = ""
) -> Batch:
    """Check X, y and the sample weights, and return them with y as labels; keep the rows of weight 0.

    Parameters
    ----------
    reset : bool
        Whether to set the number and names of the features; otherwise X must match them.
    is_stream : bool
        Whether the rows are a chunk of a stream. A chunk may have as many classes as rows, so the warning of
        scikit-learn about it is suppressed.
    suffix : str
        Suffix of the names of y and the weights in error messages, such as "_val".

    Raises
    ------
    ValueError
        If X, y or the weights contain NaN or inf, lengths differ, y is continuous, or a weight is negative.
    """
    _check_engine_accepts(estimator, X)
    y = None if y is None else check_labels(y, f"y{suffix}")
    X, y = _validate(estimator, X, y=y, order=_memory_order(estimator, X, is_stream=is_stream), reset=reset)
    if not are_compact(y):  # compact labels are neither continuous nor too many
        with warnings.catch_warnings():
            if is_stream:
                warnings.simplefilter("ignore", UserWarning)
            check_classification_targets(y)
    weight = check_sample_weight(as_host_array(sample_weight), y, f"sample_weight{suffix}")
    return Batch(canonicalize(X), y, weight)


def check_and_drop_zero_weight(data: Batch, name: str = "sample_weight") -> Batch:
    """Return the rows of positive weight. Raise ValueError if there are none."""
    data = drop_zero_weight(data)
    check_any_weight(len(data.y), name)
    return data


def check_sample_weight(sample_weight: Any, X: Any, name: str = "sample_weight") -> Array:
    """Return an array of one weight per row of X; all weights are 1 if ``sample_weight`` is None.

    Raises
    ------
    ValueError
        If a weight is negative, NaN or infinite, the shape does not fit X, or the sum overflows.
    """
    n_samples = count_samples(X)
    if sample_weight is None:
        return np.ones(n_samples)
    weight = check_finite_numbers(as_host_array(sample_weight), name)
    weight = np.full(n_samples, weight) if weight.ndim == 0 else np.ascontiguousarray(weight)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"{name} must be one number, or one per row, of shape ({n_samples},), got shape {weight.shape}."
        )
    if (weight < 0).any():
        raise ValueError(f"{name} must not be negative, got {weight.min():g}; use 0 to leave a row out.")
    check_finite_sum(weight, name)
    return weight


def check_score_weight(sample_weight: Any, X: Any, y: Any) -> Any:
    """Check the sample weights of a score as those of a fit. Return None if they are None.

    Weights of another array library are returned in that library.
    """
    if sample_weight is None:
        return None
    check_consistent_length(X, y)
    weight = check_sample_weight(sample_weight, y)
    check_any_weight(int(np.count_nonzero(weight)))
    return weight if namespace_of(sample_weight) is None else sample_weight


def check_any_weight(n_used: int, name: str = "sample_weight") -> None:
    """Raise ValueError if no row has a positive weight."""
    if n_used == 0:
        raise ValueError(
            f"{name} must be positive for at least one row, got only zeros; give at least one row a positive weight."
        )


def check_any_rows(n_samples: int, name: str, got: str, advice: str) -> None:
    """Raise ValueError if there are no rows."""
    if n_samples == 0:
        raise ValueError(f"{name} must hold at least one row, got {got}; {advice}.")


def check_features(estimator: Any, X: Any, *, reset: bool, is_stream: bool = False) -> Any:
    """Check X and return it as `check_rows` does."""
    _check_engine_accepts(estimator, X)
    return canonicalize(_validate(estimator, X, order=_memory_order(estimator, X, is_stream=is_stream), reset=reset))


def _memory_order(estimator: Any, X: Any, *, is_stream: bool) -> str | None:
    """Return "C" to store X by rows, or None to keep its memory order.

    Returns None if X is float32 and the fit has an intercept, except for a stream. The fit then makes a copy stored by
    rows anyway: see `center_columns`.
    """
    dtypes = {str(dtype).lower() for dtype in getattr(X, "dtypes", [getattr(X, "dtype", None)])}
    return None if dtypes == {"float32"} and estimator.fit_intercept and not is_stream else "C"


def check_prediction_data(estimator: Any, X: Any) -> Any:
    """Check X for a prediction, without a copy."""
    return _validate(estimator, X, reset=False)


def check_data_without_estimator(X: Any, y: Any, sample_weight: Any) -> tuple[Batch, Array]:
    """Check X, y and the weights without an estimator; return them in float64, with y as codes, and the classes."""
    X = check_matrix(X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must be of shape (n_samples, n_features), at least one each, got shape {X.shape}.")
    y = check_labels(y)
    if len(y) != X.shape[0]:
        raise ValueError(f"y must have one label per row of X, {X.shape[0]} labels, got {len(y)}; check both.")
    check_classification_targets(y)
    weight = check_sample_weight(sample_weight, X)
    check_any_weight(int(np.count_nonzero(weight)))
    classes, codes = classes_and_codes(y)
    check_two_classes(classes)
    return Batch(X, codes, weight), classes
