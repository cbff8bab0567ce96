"""Checks and conversions of single values and arrays: numbers, tables, sparse matrices, arrays of other libraries.

The other modules of ``_data``, the functions of ``loss`` and ``verify``, and the predictions call them.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_array, check_consistent_length

from sksoftmax._engines.device import DeviceArray, to_numpy
from sksoftmax._sklearn import namespace_of
from sksoftmax._types import Array, Batch, Params

#: Largest integer up to which float64 represents every integer exactly.
LARGEST_EXACT = 2**53

#: Largest sum of weights for which products with losses are finite.
_LARGEST_SUM = 1e200


def drop_zero_weight(data: Batch) -> Batch:
    """Return the rows of positive weight."""
    is_used = data.weight > 0
    return data if is_used.all() else Batch(*(part[is_used] for part in data))


def check_finite_sum(weight: Array, name: str = "sample_weight") -> None:
    """Raise ValueError if the sum of the weights exceeds `_LARGEST_SUM`."""
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not total <= _LARGEST_SUM:
        raise ValueError(
            f"{name} must sum to {_LARGEST_SUM:g} at most, got {total:g}; divide all weights by the largest, which "
            "leaves the minimum unchanged."
        )


def as_float(value: Any) -> float:
    """Convert a real number to float; return inf or -inf if it overflows, such as an integer of 400 digits."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def check_range(name: str, values: Any, minimum: float, maximum: float) -> Array:
    """Return the values as a 1d array. Raise ValueError if there are none, or one is out of range."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):  # huge integers, complex numbers, strings, ragged lists
        numbers = np.empty(0)
    if (
        numbers.ndim != 1
        or len(numbers) == 0
        or not ((numbers >= minimum) & (numbers <= maximum) & np.isfinite(numbers)).all()
    ):
        raise ValueError(
            f"{name} must hold finite numbers from {minimum:g} to {maximum:g}, at least one, got {values!r}."
        )
    return numbers


def as_array_or_none(values: Any) -> Array:
    """Return the values as an array. For ragged lists, which NumPy rejects, return an array that contains None."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None)


def check_no_mask(values: Any, name: str) -> None:
    """Raise ValueError if the values are a NumPy masked array with a masked value; other code would ignore the mask."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        where = tuple(np.argwhere(np.ma.getmaskarray(values))[0].tolist())
        raise ValueError(
            f"Input {name} contains a masked value, at {where}; fill it, or leave its row out. {name} must hold finite "
            "numbers."
        )


def check_finite_numbers(values: Any, name: str) -> Array:
    """Return the values as a float64 array. Raise ValueError if they are not finite real numbers."""
    check_no_mask(values, name)
    array = as_array_or_none(values)
    if array.dtype.kind == "O" and all(isinstance(value, Real) for value in array.ravel().tolist()):
        array = np.array([as_float(value) for value in array.ravel().tolist()]).reshape(array.shape)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got {type(values).__name__} of dtype {array.dtype}.")
    with np.errstate(over="ignore"):  # longdouble values may overflow
        array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        what = "NaN" if np.isnan(array).any() else "infinity or a value too large for float64"
        raise ValueError(f"Input {name} contains {what}; {name} must hold finite numbers.")
    return array


def check_number(name: str, value: Any, minimum: float = 0.0) -> float:
    """Return the value as a float. Raise ValueError unless it is a finite real scalar >= ``minimum``."""
    converted = as_float(value) if isinstance(value, Real) else np.nan
    if not minimum <= converted < np.inf:
        got = "one too large for float64" if np.isinf(converted) and value != converted else repr(value)
        raise ValueError(f"{name} must be a finite number >= {minimum:g}, got {got}.")
    return converted


def check_integer(name: str, value: Any, minimum: int, maximum: float = np.inf) -> int:
    """Return the value as an int. Raise ValueError unless it is one integer from ``minimum`` to ``maximum``."""
    converted = int(value) if isinstance(value, Integral) else minimum - 1
    if not minimum <= converted <= maximum:
        upper = "" if maximum == np.inf else f" and <= {maximum}"
        raise ValueError(f"{name} must be an integer >= {minimum}{upper}, got {value!r}.")
    return converted


def check_sparse_structure(X: Any, name: str = "X") -> Any:
    """Check the index arrays of a sparse X and return it; with bad indices, kernels would read outside of arrays.

    Makes one pass over the indices. Converts LIL, DOK and DIA matrices to CSR. Returns X unchanged if it is not a
    sparse matrix of two dimensions.

    Raises
    ------
    ValueError
        If an index is out of range or not an integer, ``indptr`` decreases or does not go from 0 to at most the number
        of entries, or the lengths of the arrays do not fit.
    """
    if not sp.issparse(X) or X.ndim != 2:
        return X
    if X.format in ("lil", "dok", "dia"):
        X = X.tocsr()
    if X.format == "coo":
        for size, index, axis in zip(X.shape, (X.row, X.col), ("row", "col"), strict=True):
            if len(index) != len(X.data):
                raise ValueError(
                    f"{name}.{axis} must have one index per entry, {len(X.data)}, got {len(index)}; rebuild {name}."
                )
            _check_index_range(index, size, f"{name}.{axis}")
        return X
    blocks = X.blocksize if X.format == "bsr" else (1, 1)
    n_samples, n_columns = (size // block for size, block in zip(X.shape, blocks, strict=True))
    n_major, n_minor = (n_columns, n_samples) if X.format == "csc" else (n_samples, n_columns)
    if X.indptr.shape != (n_major + 1,) or X.indices.shape != X.data.shape[:1]:
        raise ValueError(
            f"{name} must have an indptr of length {n_major + 1} and as many indices as data, got lengths "
            f"{len(X.indptr)}, {len(X.indices)} and {len(X.data)}; rebuild {name}."
        )
    if X.indptr[0] != 0 or X.indptr[-1] > len(X.indices) or (X.indptr[1:] < X.indptr[:-1]).any():
        raise ValueError(
            f"{name}.indptr must rise from 0 to at most {len(X.indices)}, the number of entries, got numbers "
            f"from {X.indptr.min()} to {X.indptr.max()} that do not; rebuild {name}."
        )
    _check_index_range(X.indices[: X.indptr[-1]], n_minor, f"{name}.indices")
    return X


def _check_index_range(index: Array, size: int, name: str) -> None:
    """Raise ValueError if an index is not an integer from 0 to ``size - 1``."""
    if index.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got dtype {index.dtype}; convert it.")
    unsigned = index.view(f"u{index.dtype.itemsize}")  # negative indices become the largest
    if unsigned.max(initial=0) >= max(size, 1) or (size == 0 and len(index)):
        raise ValueError(
            f"{name} must lie from 0 to {size - 1}, got {index.min()} to {index.max()}; rebuild the matrix."
        )


def check_finite_params(params: Params) -> Params:
    """Return the parameters of the last fit. Raise ValueError if some are NaN or infinite."""
    names = [f"{name}_" for name, part in zip(params._fields, params, strict=True) if not np.isfinite(part).all()]
    if names:
        raise ValueError(
            f"{' and '.join(names)} must be finite to continue the fit, got NaN or infinity; set warm_start=False, "
            "or start from a new estimator."
        )
    return params


def wrap_array(X: Any) -> Any:
    """Wrap X in a DeviceArray if scikit-learn dispatches on its array library; otherwise return X."""
    xp = namespace_of(X)
    return X if xp is None else DeviceArray(X, xp)


def as_host_array(values: Any) -> Any:
    """Convert an array of another library to a NumPy array; return anything else unchanged."""
    return to_numpy(values) if namespace_of(values) is not None else values


def check_numpy(X: Any) -> None:
    """Raise ValueError if X, a batch of ``fit_batches``, is of another array library."""
    if namespace_of(X) is not None:
        raise ValueError(
            f"fit_batches takes NumPy arrays and SciPy's sparse matrices, got {type(X).__module__}; convert the "
            "batches, set array_api_dispatch=False so that scikit-learn converts them, or use fit or partial_fit."
        )


def check_numpy_or_scipy(X: Any, name: str, advice: str) -> None:
    """Raise ValueError if X is of another array library."""
    if isinstance(X, DeviceArray):
        raise ValueError(
            f"{name} takes arrays of NumPy and SciPy, got one of {X.xp.__name__}; convert X, or use {advice}."
        )


def check_table(values: Any, name: str) -> Array:
    """Return the values as a 2d array of float32 or float64. Raise ValueError unless they are dense finite numbers."""
    check_no_mask(values, name)
    try:
        return np.asarray(check_array(values, dtype=[np.float64, np.float32], input_name=name))
    except OverflowError:
        raise too_large_error(name) from None


def too_large_error(name: str) -> ValueError:
    """Return the error for an integer that overflows float64."""
    return ValueError(f"Input {name} contains an integer too large for float64; {name} must hold finite numbers.")


def check_same_length(*columns: Any) -> None:
    """Raise ValueError if the columns differ in their number of rows; None is ignored."""
    check_consistent_length(*columns)


def convert_rows(X: Any, dtype: Any) -> Any:
    """Convert X, which has been checked before, to ``dtype`` and to the layout that `all_rows` returns."""
    if sp.issparse(X):
        return canonicalize(sp.csr_array(check_sparse_structure(X)).astype(dtype, copy=False))
    return np.ascontiguousarray(X, dtype=dtype)


def canonicalize(X: Any) -> Any:
    """Convert a sparse X to a csr_array of contiguous arrays without duplicate entries; return a dense X unchanged."""
    if not sp.issparse(X):
        return X
    X = sp.csr_array(X)
    is_contiguous = all(part.flags.c_contiguous for part in (X.data, X.indices, X.indptr))
    if not (X.has_canonical_format and is_contiguous):
        X = X.copy()
        X.sum_duplicates()
    return X


def check_matrix(X: Any, name: str = "X") -> Any:
    """Return X in float64, dense or as CSR. Raise ValueError if it does not contain finite real numbers."""
    X = as_host_array(X)
    if not sp.issparse(X):
        return check_finite_numbers(X, name)
    X = check_sparse_structure(X, name)
    check_finite_numbers(X.data, f"{name}.data")
    return canonicalize(sp.csr_array(X).astype(np.float64, copy=False))


def check_finite_predictions(raw: Any) -> None:
    """Raise ValueError if a raw prediction is infinite or NaN."""
    xp, array = (raw.xp, raw.array) if isinstance(raw, DeviceArray) else (np, raw)
    if not bool(xp.all(xp.isfinite(array))):
        raise ValueError(
            f"X must have raw predictions, X @ coef_.T + intercept_, that are finite in {raw.dtype}, got an overflow; "
            "scale the columns as for the fit, or pass X as float64."
        )
