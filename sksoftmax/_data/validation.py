"""Checks of what users give an estimator: parameters, rows of X and y, weights. Bad input is refused here, once.

The estimators call it first; floors below trust what they get. ``arrays`` checks single values and arrays, ``labels``
checks labels and class weights.
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
    canonicalize,
    check_finite_numbers,
    check_finite_sum,
    check_no_mask,
    check_sparse_structure,
    drop_zero_weight,
    in_host_memory,
    table,
    too_large,
    wrap_array,
)
from sksoftmax._data.labels import check_labels, check_two_classes
from sksoftmax._engines.device import DeviceArray
from sksoftmax._engines.registry import KERNELS, has_compiled
from sksoftmax._sklearn import Interval, StrOptions, n_samples_of, namespace_of
from sksoftmax._types import Array, Batch


class _Range(Interval):  # type: ignore[misc]
    """An interval of real numbers, of which no other type than Python's and NumPy's integers and floats is taken."""

    def is_satisfied_by(self, val: Any) -> bool:
        return isinstance(val, int | float | np.integer | np.floating) and super().is_satisfied_by(as_float(val))


PARAMETER_CONSTRAINTS: dict[str, list[Any]] = {
    "alpha": [_Range(Real, 0, np.finfo(np.float64).max, closed="both")],
    "l1_ratio": [_Range(Real, 0, 1, closed="both")],
    "fit_intercept": ["boolean"],
    "solver": [StrOptions({"auto", "sgd", "adagrad", "adam"})],
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

#: Those of a sweep over the penalty.
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
    """Check that the engine asked for can be had.

    Raises
    ------
    ImportError
        If it needs numba, and there is none.
    ValueError
        If it takes only targets that are one class.
    """
    if estimator.engine != "compiled":
        return
    if not has_compiled():
        raise ImportError("engine='compiled' needs numba: pip install 'sksoftmax[fast]', or use engine='vectorized'.")
    if getattr(estimator, "soft_targets", False) or getattr(estimator, "label_smoothing", 0):
        raise ValueError(
            f"engine='compiled' takes rows of one class each, got soft_targets={estimator.soft_targets} and "
            f"label_smoothing={estimator.label_smoothing:g}; use engine='auto' or 'vectorized'."
        )


def check_no_early_stopping(estimator: Any) -> None:
    """Raise ValueError if the estimator, of a stream, is to stop early."""
    if estimator.early_stopping:
        raise ValueError(
            "early_stopping must be False for partial_fit, which sets no rows aside, got True; set it to False, or use "
            "fit."
        )


def check_hard_labels(estimator: Any, what: str, advice: str) -> None:
    """Raise ValueError if the estimator takes soft targets, and ``what`` does not."""
    if estimator.soft_targets:
        raise ValueError(f"{what} takes labels, got soft_targets=True; {advice}")


def check_any_folds(n_folds: int, cv: Any) -> None:
    """Raise ValueError if cross-validation has no fold."""
    if n_folds == 0:
        raise ValueError(
            f"cv must give at least one pair of rows to train on and rows to hold out, got none from {cv!r}; give a "
            "list of pairs, or a splitter."
        )


@contextmanager
def restore_on_error(estimator: Any) -> Iterator[None]:
    """Within it the estimator is left as it was if anything goes wrong: nothing half-fitted.

    NumPy neither warns nor raises at overflow, whatever its settings: fits look at their results.
    """
    before = dict(vars(estimator))
    try:
        with np.errstate(all="ignore"):
            yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _check_engine_takes(estimator: Any, X: Any) -> None:
    """Raise ValueError if X is of another library, and the engine, or what its rows are to be, is for NumPy's."""
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
    """scikit-learn's validation of X, or of X and y; X of another library becomes a DeviceArray."""
    layout = str(getattr(X, "layout", ""))
    if layout.startswith("torch.") and layout != "torch.strided":
        raise ValueError(
            f"X must be a dense tensor, got one of layout {layout}; pass X.to_dense(), or a sparse matrix of SciPy's."
        )
    check_no_mask(X, "X")
    X = check_sparse_structure(wrap_array(X))
    dtypes: list[Any] = [np.float64, np.float32]
    if isinstance(X, DeviceArray):
        dtypes = [X.widest_float, X.xp.float32]
        X = X.array.detach() if hasattr(X.array, "detach") else X.array  # no graph of PyTorch's is to be built
    try:
        found = validate_data(estimator, X, accept_sparse="csr", dtype=dtypes, **checks)
    except OverflowError:
        raise too_large("X") from None
    if "y" in checks:
        return wrap_array(found[0]), in_host_memory(found[1])
    return wrap_array(found)


# --- training and prediction ----------------------------------------------------------------------------------


def all_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool, is_stream: bool = False, suffix: str = ""
) -> Batch:
    """Return X, y and the weights, checked; y are still labels, and rows of weight 0 are still there.

    A piece of a stream may have as many classes as rows, of which scikit-learn would warn.

    Parameters
    ----------
    suffix : str
        What ends the arguments' names, in errors.

    Raises
    ------
    ValueError
        If X, y or the weights hold NaN or inf, lengths differ, y is continuous, or a weight is negative.
    """
    _check_engine_takes(estimator, X)
    y = None if y is None else check_labels(y, f"y{suffix}")
    X, y = _validate(estimator, X, y=y, order=_order(estimator, X, is_stream=is_stream), reset=reset)
    with warnings.catch_warnings():
        if is_stream:
            warnings.simplefilter("ignore", UserWarning)
        check_classification_targets(y)
    weight = check_sample_weight(in_host_memory(sample_weight), y, f"sample_weight{suffix}")
    return Batch(canonicalize(X), y, weight)


def drop_zero_weight_or_raise(data: Batch, name: str = "sample_weight") -> Batch:
    """Return the rows of positive weight; ValueError if there is none."""
    data = drop_zero_weight(data)
    check_any_weight(len(data.y), name)
    return data


def check_sample_weight(sample_weight: Any, X: Any, name: str = "sample_weight") -> Array:
    """Return a finite weight for each row of X, 1 for None; ValueError if one is negative, or their sum overflows."""
    n_samples = n_samples_of(X)
    if sample_weight is None:
        return np.ones(n_samples)
    weight = check_finite_numbers(in_host_memory(sample_weight), name)
    weight = np.full(n_samples, weight) if weight.ndim == 0 else np.ascontiguousarray(weight)
    if weight.shape != (n_samples,):
        raise ValueError(f"{name} must be one number, or one a row, of shape ({n_samples},), got shape {weight.shape}.")
    if (weight < 0).any():
        raise ValueError(f"{name} must not be negative, got {weight.min():g}; 0 leaves a row out.")
    check_finite_sum(weight, name)
    return weight


def check_score_weight(sample_weight: Any, X: Any, y: Any) -> Any:
    """Return the weights of rows to score, checked as those of a fit, in the library they came in; None for None."""
    if sample_weight is None:
        return None
    check_consistent_length(X, y)
    weight = check_sample_weight(sample_weight, y)
    check_any_weight(int(np.count_nonzero(weight)))
    return weight if namespace_of(sample_weight) is None else sample_weight


def check_any_weight(n_used: int, name: str = "sample_weight") -> None:
    """Raise ValueError if no row has a positive weight."""
    if n_used == 0:
        raise ValueError(f"{name} must be positive for at least one row, got only zeros.")


def check_any_rows(n_samples: int, name: str, got: str, advice: str) -> None:
    """Raise ValueError if there is no row."""
    if n_samples == 0:
        raise ValueError(f"{name} must hold at least one row, got {got}; {advice}.")


def features(estimator: Any, X: Any, *, reset: bool, is_stream: bool = False) -> Any:
    """X, checked, as `all_rows` gives it."""
    _check_engine_takes(estimator, X)
    return canonicalize(_validate(estimator, X, order=_order(estimator, X, is_stream=is_stream), reset=reset))


def _order(estimator: Any, X: Any, *, is_stream: bool) -> str | None:
    """Return the order of X in memory: rows together, or None, as it is, where a fit copies it so in any case.

    It does if X is float32 and there is an intercept: see `center_columns`.
    """
    dtypes = {str(dtype).lower() for dtype in getattr(X, "dtypes", [getattr(X, "dtype", None)])}
    return None if dtypes == {"float32"} and estimator.fit_intercept and not is_stream else "C"


def prediction_data(estimator: Any, X: Any) -> Any:
    """X, checked, without a copy."""
    return _validate(estimator, X, reset=False)


def plain_data(X: Any, y: Any, sample_weight: Any) -> tuple[Batch, Array]:
    """Return X, y as codes, and the weights, checked and in float64, and the classes; there is no estimator."""
    X = table(X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must be of shape (n_samples, n_features), at least one each, got shape {X.shape}.")
    y = check_labels(y)
    if len(y) != X.shape[0]:
        raise ValueError(f"y must have one label a row of X, {X.shape[0]} labels, got {len(y)}; check both.")
    check_classification_targets(y)
    weight = check_sample_weight(sample_weight, X)
    check_any_weight(int(np.count_nonzero(weight)))
    classes, codes = np.unique(y, return_inverse=True)
    check_two_classes(classes)
    return Batch(X, codes, weight), classes
