"""The border: what comes in is checked here, once; every private scikit-learn name comes in here too."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from inspect import signature
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from sklearn.base import _fit_context
from sklearn.exceptions import DataConversionWarning, InconsistentVersionWarning
from sklearn.linear_model._base import SparseCoefMixin
from sklearn.metrics import get_scorer_names
from sklearn.utils._array_api import _is_numpy_namespace, get_namespace
from sklearn.utils._metadata_requests import _raise_for_params, _routing_enabled
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_method_params,
    _num_samples,
    check_array,
    check_consistent_length,
    validate_data,
)

from sksoftmax._engines import array_api, naive, vectorized
from sksoftmax._engines.device import DeviceArray, to_numpy
from sksoftmax._maths.objective import class_sums
from sksoftmax._solvers.dual import is_available
from sksoftmax._types import Array, Batch, Kernel, Params
from sksoftmax._version import address

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """No callbacks."""

    def with_callbacks(method: Any) -> Any:
        """The method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "SparseCoefMixin", "with_callbacks"]


class DocumentationLinkMixin:
    """Links an estimator's HTML representation to the page of its class, if the documentation has an address."""

    _doc_link_module = "sksoftmax"

    @property
    def _doc_link_template(self) -> str:
        documentation = address("Documentation").rstrip("/")
        return documentation and documentation + "/api/{estimator_module}.{estimator_name}.html"


_Method = TypeVar("_Method", bound=Callable[..., Any])

#: The engines of sums over rows; "compiled" is the vectorized one but for the solver that visits single rows.
KERNELS: dict[str, Kernel] = {"vectorized": vectorized, "naive": naive}


def as_float(value: Any) -> float:
    """Return a real number in float64; inf or -inf if it is too large, such as an integer of 400 digits."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


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


#: Up to it all integers are float64 numbers.
_LARGEST_EXACT = 2**53

#: Largest sum of weights, whose products with losses are finite.
_LARGEST_SUM = 1e200


class OtherVersionWarning(InconsistentVersionWarning):  # type: ignore[misc]
    """scikit-learn's warning, of this package's versions."""

    def __str__(self) -> str:
        return (
            f"a {self.estimator_name} that sksoftmax {self.original_sklearn_version} wrote is read by sksoftmax "
            f"{self.current_sklearn_version}. The format of its state is the same, so it should predict and go on as "
            "it did; fit it again, or install the other version, to be sure."
        )


def validate_parameters(method: _Method) -> _Method:
    """The method, which first checks the estimator's parameters: InvalidParameterError, before any work."""
    checked: _Method = _fit_context(prefer_skip_nested_validation=True)(method)
    return checked


def callback_context(estimator: Any, max_subtasks: int) -> Any:
    """What tells the callbacks set on a fit (of a meta-estimator's, those that it passes on) of it; None without any.

    To be called once, in a method that `validate_parameters`, or that is ``with_callbacks``.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        return None
    return estimator._init_callback_context(max_subtasks=max_subtasks)


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
    if not is_available():
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


def check_numpy_or_scipy(X: Any, name: str, advice: str) -> None:
    """Raise ValueError if X is of another library."""
    if isinstance(X, DeviceArray):
        raise ValueError(
            f"{name} takes arrays of NumPy and SciPy, got one of {X.xp.__name__}; convert X, or use {advice}."
        )


def raise_for_params(params: dict[str, Any], owner: Any, method: str) -> None:
    """Raise ValueError if there are keywords for other objects, and metadata routing is not enabled."""
    _raise_for_params(params, owner, method)


def routing_enabled() -> bool:
    """Whether scikit-learn's metadata routing is."""
    return bool(_routing_enabled())


def params_of_rows(X: Any, params: dict[str, Any], rows: Array) -> dict[str, Any]:
    """The keywords, those that have an entry for each row of X for these rows."""
    return dict(_check_method_params(X, params=params, indices=rows))


def check_any_folds(n_folds: int, cv: Any) -> None:
    """Raise ValueError if cross-validation has no fold."""
    if n_folds == 0:
        raise ValueError(
            f"cv must give at least one pair of rows to train on and rows to hold out, got none from {cv!r}; give a "
            "list of pairs, or a splitter."
        )


def accepts_weights(scorer: Any) -> bool:
    """Return whether a scorer, or the metric of one of scikit-learn's, takes sample_weight."""
    try:
        parameters = signature(getattr(scorer, "_score_func", scorer)).parameters.values()
    except (TypeError, ValueError):  # compiled
        return True
    return any(each.name == "sample_weight" or each.kind is each.VAR_KEYWORD for each in parameters)


def scorer_of_classes(scorer: Any, classes: Array) -> Any:
    """Return the scorer; one of scikit-learn's, of probabilities, with the labels of all classes.

    A metric would otherwise take those of the rows that it is given, which may lack some.
    """
    metric = getattr(scorer, "_score_func", None)
    names = {} if metric is None else signature(metric).parameters
    if "labels" not in names or getattr(scorer, "_response_method", "predict") == "predict":
        return scorer
    known: dict[str, Any] = {"labels": classes}
    if len(classes) == 2 and "pos_label" in names and names["pos_label"].default is None:
        known["pos_label"] = classes[1]
    scorer = copy.copy(scorer)
    scorer._kwargs = {**known, **scorer._kwargs}
    return scorer


def check_range(name: str, values: Any, least: float, most: float) -> Array:
    """The values, an array in one dimension; ValueError if there is none, or one is out of range."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):  # too large an integer, complex numbers, strings, other lengths
        numbers = np.empty(0)
    if (
        numbers.ndim != 1
        or len(numbers) == 0
        or not ((numbers >= least) & (numbers <= most) & np.isfinite(numbers)).all()
    ):
        raise ValueError(f"{name} must hold finite numbers from {least:g} to {most:g}, at least one, got {values!r}.")
    return numbers


def as_array(values: Any) -> Array:
    """Return the values as an array; of lists of several lengths, which NumPy refuses, one that holds None."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None)


def check_no_mask(values: Any, name: str) -> None:
    """Raise ValueError if the values are a masked array of NumPy's with a value masked, which others would read."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        where = tuple(np.argwhere(np.ma.getmaskarray(values))[0].tolist())
        raise ValueError(
            f"Input {name} contains a masked value, at {where}; fill it, or leave its row out. {name} must hold finite "
            "numbers."
        )


def check_finite_numbers(values: Any, name: str) -> Array:
    """Return the values as an array in float64; ValueError, which names them, if they are not finite real numbers."""
    check_no_mask(values, name)
    array = as_array(values)
    if array.dtype.kind == "O" and all(isinstance(value, Real) for value in array.ravel().tolist()):
        array = np.array([as_float(value) for value in array.ravel().tolist()]).reshape(array.shape)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got {type(values).__name__} of dtype {array.dtype}.")
    with np.errstate(over="ignore"):  # of wider floats
        array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        what = "NaN" if np.isnan(array).any() else "infinity or a value too large for float64"
        raise ValueError(f"Input {name} contains {what}; {name} must hold finite numbers.")
    return array


def check_number(name: str, value: Any, least: float = 0.0) -> float:
    """Return the value in float64; ValueError unless it is one finite real number, not an array, >= ``least``."""
    converted = as_float(value) if isinstance(value, Real) else np.nan
    if not least <= converted < np.inf:
        got = "one too large for float64" if np.isinf(converted) and value != converted else repr(value)
        raise ValueError(f"{name} must be a finite number >= {least:g}, got {got}.")
    return converted


def check_integer(name: str, value: Any, least: int, most: float = np.inf) -> int:
    """Return the value; ValueError unless it is one integer from ``least`` to ``most``."""
    converted = int(value) if isinstance(value, Integral) else least - 1
    if not least <= converted <= most:
        to = "" if most == np.inf else f" and <= {most}"
        raise ValueError(f"{name} must be an integer >= {least}{to}, got {value!r}.")
    return converted


def check_sparse_structure(X: Any, name: str = "X") -> Any:
    """Return X, if it is sparse with indices that lie inside it; kernels would read elsewhere with others.

    One pass over the indices. What scipy.sparse keeps otherwise than by arrays of indices becomes CSR.

    Raises
    ------
    ValueError
        If an index is out of range or not an integer, ``indptr`` falls or is not from 0 to at most the number of
        entries, or the arrays have lengths that do not fit.
    """
    if not sp.issparse(X) or X.ndim != 2:
        return X
    if X.format in ("lil", "dok", "dia"):
        X = X.tocsr()
    if X.format == "coo":
        for size, index, axis in zip(X.shape, (X.row, X.col), ("row", "col"), strict=True):
            if len(index) != len(X.data):
                raise ValueError(
                    f"{name}.{axis} must have one index an entry, {len(X.data)}, got {len(index)}; build {name} anew."
                )
            _in_range(index, size, f"{name}.{axis}")
        return X
    blocks = X.blocksize if X.format == "bsr" else (1, 1)
    n_samples, n_columns = (size // block for size, block in zip(X.shape, blocks, strict=True))
    n_major, n_minor = (n_columns, n_samples) if X.format == "csc" else (n_samples, n_columns)
    if X.indptr.shape != (n_major + 1,) or X.indices.shape != X.data.shape[:1]:
        raise ValueError(
            f"{name} must have an indptr of length {n_major + 1} and as many indices as data, got lengths "
            f"{len(X.indptr)}, {len(X.indices)} and {len(X.data)}; build {name} anew."
        )
    if X.indptr[0] != 0 or X.indptr[-1] > len(X.indices) or (X.indptr[1:] < X.indptr[:-1]).any():
        raise ValueError(
            f"{name}.indptr must rise from 0 to at most {len(X.indices)}, the number of entries, got other numbers, "
            f"from {X.indptr.min()} to {X.indptr.max()}; build {name} anew."
        )
    _in_range(X.indices[: X.indptr[-1]], n_minor, f"{name}.indices")
    return X


def check_finite_params(params: Params) -> Params:
    """Return the parameters of the last fit; ValueError if some are NaN or infinite."""
    names = [f"{name}_" for name, part in zip(params._fields, params, strict=True) if not np.isfinite(part).all()]
    if names:
        raise ValueError(
            f"{' and '.join(names)} must be finite for a fit to go on from, got NaN or infinity; set warm_start=False, "
            "or start from a new estimator."
        )
    return params


def _in_range(index: Array, size: int, name: str) -> None:
    if index.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got dtype {index.dtype}; convert it.")
    unsigned = index.view(f"u{index.dtype.itemsize}")  # in which negative ones are the largest
    if unsigned.max(initial=0) >= max(size, 1) or (size == 0 and len(index)):
        raise ValueError(
            f"{name} must lie from 0 to {size - 1}, got {index.min()} to {index.max()}; build the matrix anew."
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


# --- arrays of other libraries ------------------------------------------------------------------------------


def get_kernel(engine: str) -> Kernel:
    """The engine of this name, as `choose_engine` has it."""
    return array_api if engine == "array_api" else KERNELS[engine]


def namespace_of(X: Any) -> Any:
    """The array API namespace of X where scikit-learn dispatches on it; None for what is, or is made, NumPy's."""
    if isinstance(X, np.ndarray) or not hasattr(X, "__dlpack__"):
        return None
    xp, is_dispatched = get_namespace(X)
    return xp if is_dispatched and not _is_numpy_namespace(xp) else None


def wrap_array(X: Any) -> Any:
    """X as a DeviceArray, if it is dispatched on."""
    xp = namespace_of(X)
    return X if xp is None else DeviceArray(X, xp)


def in_host_memory(values: Any) -> Any:
    """An array of another library as NumPy's; anything else as it is."""
    return to_numpy(values) if namespace_of(values) is not None else values


def check_numpy(X: Any) -> None:
    """Raise ValueError if X, of a batch of fit_batches, is of another library."""
    if namespace_of(X) is not None:
        raise ValueError(
            f"fit_batches takes NumPy arrays and SciPy's sparse matrices, got {type(X).__module__}; convert the "
            "batches, leave out array_api_dispatch=True, without which scikit-learn does, or use fit or partial_fit."
        )


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
        raise _too_large("X") from None
    if "y" in checks:
        return wrap_array(found[0]), in_host_memory(found[1])
    return wrap_array(found)


def check_table(values: Any, name: str) -> Array:
    """Return dense finite numbers in two dimensions, in float32 or float64; ValueError, which names them, otherwise."""
    check_no_mask(values, name)
    try:
        return np.asarray(check_array(values, dtype=[np.float64, np.float32], input_name=name))
    except OverflowError:
        raise _too_large(name) from None


def _too_large(name: str) -> ValueError:
    return ValueError(f"Input {name} contains an integer too large for float64; {name} must hold finite numbers.")


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


def drop_zero_weight(data: Batch) -> Batch:
    """Return the rows of positive weight."""
    is_used = data.weight > 0
    return data if is_used.all() else Batch(*(part[is_used] for part in data))


def drop_zero_weight_or_raise(data: Batch, name: str = "sample_weight") -> Batch:
    """Return the rows of positive weight; ValueError if there is none."""
    data = drop_zero_weight(data)
    check_any_weight(len(data.y), name)
    return data


def check_sample_weight(sample_weight: Any, X: Any, name: str = "sample_weight") -> Array:
    """Return a finite weight for each row of X, 1 for None; ValueError if one is negative, or their sum overflows."""
    n_samples = _num_samples(X)
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


def check_finite_sum(weight: Array, name: str = "sample_weight") -> None:
    """Raise ValueError if the sum of weights, or of what they are multiplied by, overflows."""
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not total <= _LARGEST_SUM:
        raise ValueError(
            f"{name} must sum to {_LARGEST_SUM:g} at most, got {total:g}; divide all weights by the largest, which "
            "changes no minimum."
        )


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


def check_finite_predictions(raw: Any) -> None:
    """Raise ValueError if a raw prediction is inf or NaN."""
    xp, array = (raw.xp, raw.array) if isinstance(raw, DeviceArray) else (np, raw)
    if not bool(xp.all(xp.isfinite(array))):
        raise ValueError(
            f"X must have raw predictions, X @ coef_.T + intercept_, that are finite in {raw.dtype}, got an overflow; "
            "scale the columns as those of the fit, or pass X as float64."
        )


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


def table(X: Any, name: str = "X") -> Any:
    """Return X, dense or as CSR, in float64; ValueError, which names it, if it does not hold finite real numbers."""
    X = in_host_memory(X)
    if not sp.issparse(X):
        return check_finite_numbers(X, name)
    X = check_sparse_structure(X, name)
    check_finite_numbers(X.data, f"{name}.data")
    return canonicalize(sp.csr_array(X).astype(np.float64, copy=False))


def check_same_length(*columns: Any) -> None:
    """Raise ValueError if they have not as many rows; None is left out."""
    check_consistent_length(*columns)


def n_samples_of(X: Any) -> int:
    """Rows of anything that X may be."""
    return int(_num_samples(X))


def as_rows(X: Any, dtype: Any) -> Any:
    """X, checked before, as `all_rows` gives it."""
    if sp.issparse(X):
        return canonicalize(sp.csr_array(check_sparse_structure(X)).astype(dtype, copy=False))
    return np.ascontiguousarray(X, dtype=dtype)


def canonicalize(X: Any) -> Any:
    """A sparse X as a csr_array of contiguous arrays without duplicate entries; a dense one as it is."""
    if not sp.issparse(X):
        return X
    X = sp.csr_array(X)
    is_contiguous = all(part.flags.c_contiguous for part in (X.data, X.indices, X.indptr))
    if not (X.has_canonical_format and is_contiguous):
        X = X.copy()
        X.sum_duplicates()
    return X


# --- labels ---------------------------------------------------------------------------------------------------


def check_labels(y: Any, name: str = "y", *, place: str = "row", warn: bool = True) -> Array:
    """Return labels as a NumPy array in one dimension: strings, or numbers in their own dtype, nullable integers too.

    Parameters
    ----------
    name, place : str
        What errors call the argument, and one of its entries.
    warn : bool
        Whether a column is ravelled with scikit-learn's DataConversionWarning, or without.

    Raises
    ------
    TypeError
        If they are sparse.
    ValueError
        If they are neither one-dimensional nor a column, one is missing (None, NaN, NA) or infinite, or some are
        strings and some numbers.
    """
    y = in_host_memory(y)
    if sp.issparse(y):
        raise TypeError(f"Sparse data was passed for {name}, but dense data is required; pass {name}.toarray().")
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        _raise_for_missing(np.ma.masked, name, f"{place} {np.ma.getmaskarray(y).ravel().argmax()}")
    is_of_pandas = hasattr(y, "dtype") and hasattr(y.dtype, "na_value")  # NumPy would make floats of its integers
    values = np.asarray(y, dtype=object) if is_of_pandas or isinstance(y, list | tuple) else np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        if warn:
            warnings.warn(
                f"A column-vector {name} was passed when a 1d array was expected. Please change the shape of {name} to "
                "(n_samples,), for example using ravel().",
                DataConversionWarning,
                stacklevel=2,
            )
        values = values.ravel()
    if values.ndim != 1:
        raise ValueError(f"{name} should be a 1d array, got an array of shape {values.shape} instead.")
    if values.dtype.kind not in "biufmMU":  # objects; complex numbers, bytes and records raise as such objects do
        values = _of_one_kind(values, name, place)
        return np.asarray(values.tolist()) if isinstance(y, list | tuple) else values
    if values.dtype.kind in "fmM" and not (is_usable := np.isfinite(values)).all():
        where = int(is_usable.argmin())
        _raise_for_missing(values[where], name, f"{place} {where}")
    return values


def _of_one_kind(values: Array, name: str, place: str) -> Array:
    """Return an array as one of numbers, or of objects if it holds strings; errors as `check_labels`."""
    first: dict[str, int] = {}
    values = np.asarray(values, dtype=object)
    for where, value in enumerate(values.tolist()):
        if isinstance(value, str):
            first.setdefault("strings", where)
        elif value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant") or _is_not_finite(value):
            _raise_for_missing(value, name, f"{place} {where}")
        else:
            first.setdefault("numbers" if isinstance(value, Real | np.bool_) else type(value).__name__, where)
    if len(first) > 1 or not first.keys() <= {"strings", "numbers"}:
        found = " and ".join(f"{values[where]!r} in {place} {where}" for where in list(first.values())[:2])
        advice = f"decode them, [label.decode() for label in {name}]" if "bytes" in first else "convert them"
        is_complex = any("complex" in kind for kind in first)
        must = f"{'Complex data not supported: ' if is_complex else ''}{name} must hold"  # scikit-learn's words
        raise ValueError(f"{must} labels that are all strings or all numbers, got {found}; {advice}.")
    return _numbers(values.tolist(), name) if "numbers" in first else values


def _numbers(values: list[Any], name: str) -> Array:
    """Return numbers as an array that keeps all digits of integers; ValueError, which names them, if there is none."""
    numbers = np.array(values)
    if numbers.dtype.kind in "biu":
        return numbers
    integers = [int(value) for value in values if isinstance(value, Integral | np.bool_)]
    largest = max(integers, key=abs, default=0)
    if len(integers) < len(values):
        if abs(largest) <= _LARGEST_EXACT:
            return numbers
    elif (dtype := _integer_type(min(integers), max(integers))) is not None:  # such as np.uint64 beside np.int64
        return np.array(integers, dtype=dtype)
    raise ValueError(
        f"{name} must hold integers that one dtype of 64 bits holds exactly, got {largest}; give strings, or codes."
    )


def _integer_type(least: int, most: int) -> Any:
    """Return a type of 64 bits that holds the integers from ``least`` to ``most``; None if there is none."""
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
            return dtype
    return None


def _common_dtype(parts: tuple[Array, Array]) -> Any:
    """Return the dtype in which numbers keep all digits; None if there is none."""
    common: Any = np.result_type(*parts)
    ends = [(int(part.min()), int(part.max())) for part in parts if part.dtype.kind in "biu"]
    if common.kind != "f" or not ends:
        return common
    least, most = min(low for low, _ in ends), max(high for _, high in ends)
    if len(ends) == 2:  # signed and unsigned
        return _integer_type(least, most)
    return common if least >= -_LARGEST_EXACT and most <= _LARGEST_EXACT else None


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float | np.floating) and not np.isfinite(value)


def _raise_for_missing(value: Any, name: str, place: str) -> None:
    what = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity", "<NA>": "NA", "--": "a masked value"}.get(
        str(value), str(value)
    )
    raise ValueError(f"Input {name} contains {what}, in {place}; a label must be a string or a finite number.")


def _kind(of_labels: Array) -> str:
    return {"O": "strings", "U": "strings", "S": "strings", "m": "dates", "M": "dates"}.get(
        of_labels.dtype.kind, "numbers"
    )


def to_common_dtype(of_labels: Array, known: Array, name: str, of_known: str) -> tuple[Array, Array]:
    """Return labels, which have been checked, and those known, in a dtype that holds both.

    Raises
    ------
    ValueError
        If there are strings in one and numbers in the other; or integers and floats, or signed and unsigned integers,
        that no common dtype holds exactly.
    """
    if len(of_labels) == 0 or len(known) == 0:
        return of_labels, known
    if _kind(of_labels) != _kind(known):
        raise ValueError(
            f"{name} must hold {_kind(known)}, as {of_known} do, such as {known.tolist()[0]!r}, got "
            f"{_kind(of_labels)}, such as {of_labels.tolist()[0]!r} in row 0; convert them."
        )
    if of_labels.dtype == known.dtype or _kind(known) != "numbers":
        return of_labels, known
    dtype = _common_dtype((of_labels, known))
    if dtype is None:
        raise ValueError(
            f"{name} must hold labels that one dtype holds exactly together with {of_known}, got {of_labels.dtype} "
            f"beside {known.dtype}, and integers above 2**53; give all labels in one dtype."
        )
    return of_labels.astype(dtype, copy=False), known.astype(dtype, copy=False)


def given_classes(classes: Any) -> Array:
    """Return the labels given as ``classes``, sorted.

    Raises
    ------
    ValueError
        If they are not one-dimensional, there is none, or they are not what `check_labels` takes.
    """
    values = in_host_memory(classes)
    if np.ndim(np.asarray(values, dtype=object)) != 1:
        raise ValueError(
            f"classes must be a list or an array of labels in one dimension, got {type(classes).__name__}; pass "
            "numpy.unique(y_all), say."
        )
    found = np.unique(check_labels(values, "classes", place="position"))
    if len(found) == 0:
        raise ValueError("classes must hold all labels that will ever come, got none.")
    return found


def check_two_classes(classes: Array, name: str = "y") -> None:
    """Raise ValueError if there is only one class."""
    if len(classes) < 2:
        raise ValueError(
            f"{name} must hold at least two classes, got only one class, {classes.tolist()[0]!r}; give another one."
        )


def union_classes(known: Array, found: Array, name: str = "y", of_known: str = "the labels before") -> Array:
    """Return all of two arrays of labels, sorted; ValueError if they are not of one kind."""
    found, known = to_common_dtype(found, known, name, of_known)
    return np.union1d(known, found) if len(known) else np.unique(found)


def codes_of(y: Array, classes: Array, advice: str, name: str = "y") -> Array:
    """Return codes of the labels y; ValueError, which ends with the advice, if one is not of ``classes`` (sorted)."""
    y, classes = to_common_dtype(y, classes, name, "the classes")
    unseen = np.setdiff1d(y, classes)
    if len(unseen):
        raise ValueError(
            f"{name} must hold labels of the classes {classes.tolist()} only, got {unseen.tolist()} as well; {advice}"
        )
    return np.searchsorted(classes, y)


def stream_classes(estimator: Any, classes: Any, y: Array) -> Array:
    """Return the classes of a partial_fit: those given, or those known from an earlier call.

    With the estimator's ``allow_new_classes`` also those that y has besides.

    Raises
    ------
    ValueError
        If none are known and none given, if those given differ from those known, or if there is one only.
    """
    known = np.asarray(to_numpy(estimator.classes_)) if hasattr(estimator, "classes_") else None
    given = None if classes is None else given_classes(classes)
    if estimator.allow_new_classes:
        found = np.empty(0) if known is None else known
        found = found if given is None else union_classes(found, given, "classes", "the classes known")
        found = union_classes(found, y, "y", "the classes known")
        if len(found) == 1:
            raise ValueError(
                f"the first call to partial_fit must know at least two classes, got only {found.tolist()[0]!r}; pass "
                "classes=, with others that will come, or rows of another class."
            )
        return found
    if given is None:
        if known is None:
            raise ValueError(
                "classes must be passed on the first call to partial_fit: all labels that will ever come, "
                "such as numpy.unique(y_all); or set allow_new_classes=True."
            )
        return known
    check_two_classes(given, "classes")
    if known is not None and not np.array_equal(*to_common_dtype(given, known, "classes", "the classes known")):
        raise ValueError(
            f"classes={given.tolist()} is not the same as on the last call to partial_fit, {known.tolist()}; leave "
            "classes out, set allow_new_classes=True, or start from a new estimator."
        )
    return given


def apply_class_weight(
    data: Batch, class_weight: Any, classes: Array, *, is_stream: bool = False, may_name_others: bool = False
) -> Batch:
    """The rows, coded, with class weights multiplied in as ``LogisticRegression`` does; those of weight 0 left out.

    Of soft targets each share of a class is weighed: what is left is a target again, of a row of their common weight.

    Raises
    ------
    ValueError
        If a class weight is negative or not finite, the sum of the weights overflows, all rows have weight 0 (for a
        piece of a stream all classes), or a dict names a class that is not there, and not all that are.
    """
    if class_weight is None:
        return data
    totals = np.ones(len(classes)) if is_stream else class_sums(data.y, data.weight, len(classes))
    factors = class_factors(class_weight, classes, totals, may_name_others=may_name_others)
    if data.y.ndim == 1:
        return drop_zero_weight(data._replace(weight=data.weight * factors[data.y]))
    y = data.y * factors
    sums = y.sum(axis=1)
    y /= np.where(sums > 0, sums, 1.0)[:, None]
    return drop_zero_weight(Batch(data.X, y.astype(data.y.dtype, copy=False), data.weight * sums))


def _check_key(label: Any, classes: Array) -> None:
    """Raise ValueError if a key of class_weight can be no label beside the classes."""
    is_number = isinstance(label, Real | np.bool_) and abs(as_float(label)) < np.inf  # NaN is not
    kind = "strings" if isinstance(label, str) else "numbers" if is_number else "dates"
    is_date = kind == "dates" and isinstance(label, np.datetime64 | np.timedelta64 | date | timedelta | int)
    if kind != _kind(classes) or (kind == "dates" and not is_date):
        raise ValueError(
            f"class_weight must have labels as keys, {_kind(classes)} as the classes {classes.tolist()} are, got "
            f"{label!r}; correct the keys."
        )


def class_factors(class_weight: Any, classes: Array, totals: Array, *, may_name_others: bool = False) -> Array:
    """Return what to multiply the weights of each class's rows by, where ``totals`` are their sums.

    A dict is looked up by our labels, so that strings that read as numbers stay strings; classes that it does not name
    have 1. ``may_name_others`` says that classes may come later. Errors as `apply_class_weight`.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if class_weight == "balanced":  # of the weighted rows: integer weights are repeated rows here too
        return totals.sum() / (np.count_nonzero(totals) * np.where(totals > 0, totals, 1.0))
    if not all(
        isinstance(weight, Real | np.bool_) and 0 <= as_float(weight) < np.inf for weight in class_weight.values()
    ):
        raise ValueError(f"class_weight must hold finite weights >= 0, got {class_weight!r}.")
    names = classes.tolist()
    others = [label for label in class_weight if label not in set(names)]
    if may_name_others:
        for label in others:
            _check_key(label, classes)
    if others and not may_name_others and not class_weight.keys() >= set(names):
        raise ValueError(f"class_weight must name classes of y, which are {names}, got {others}; correct the keys.")
    factors = np.array([float(class_weight.get(name, 1.0)) for name in names])
    if not (factors * totals > 0).any():
        raise ValueError(f"class_weight must be positive for a class of the rows given, got {class_weight!r}.")
    check_finite_sum(factors * totals, "class_weight times sample_weight")
    return factors
