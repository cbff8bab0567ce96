"""Checks of single values and arrays: numbers, tables, sparse structure, arrays of other libraries.

The other modules of this wing, the functions of ``loss`` and ``verify`` and the predictions use them.
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

#: Up to it all integers are float64 numbers.
LARGEST_EXACT = 2**53


#: Largest sum of weights, whose products with losses are finite.
_LARGEST_SUM = 1e200


def drop_zero_weight(data: Batch) -> Batch:
    """Return the rows of positive weight."""
    is_used = data.weight > 0
    return data if is_used.all() else Batch(*(part[is_used] for part in data))


def check_finite_sum(weight: Array, name: str = "sample_weight") -> None:
    """Raise ValueError if the sum of weights, or of what they are multiplied by, overflows."""
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not total <= _LARGEST_SUM:
        raise ValueError(
            f"{name} must sum to {_LARGEST_SUM:g} at most, got {total:g}; divide all weights by the largest, which "
            "changes no minimum."
        )


def as_float(value: Any) -> float:
    """Return a real number in float64; inf or -inf if it is too large, such as an integer of 400 digits."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


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


def _in_range(index: Array, size: int, name: str) -> None:
    if index.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got dtype {index.dtype}; convert it.")
    unsigned = index.view(f"u{index.dtype.itemsize}")  # in which negative ones are the largest
    if unsigned.max(initial=0) >= max(size, 1) or (size == 0 and len(index)):
        raise ValueError(
            f"{name} must lie from 0 to {size - 1}, got {index.min()} to {index.max()}; build the matrix anew."
        )


def check_finite_params(params: Params) -> Params:
    """Return the parameters of the last fit; ValueError if some are NaN or infinite."""
    names = [f"{name}_" for name, part in zip(params._fields, params, strict=True) if not np.isfinite(part).all()]
    if names:
        raise ValueError(
            f"{' and '.join(names)} must be finite for a fit to go on from, got NaN or infinity; set warm_start=False, "
            "or start from a new estimator."
        )
    return params


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


def check_numpy_or_scipy(X: Any, name: str, advice: str) -> None:
    """Raise ValueError if X is of another library."""
    if isinstance(X, DeviceArray):
        raise ValueError(
            f"{name} takes arrays of NumPy and SciPy, got one of {X.xp.__name__}; convert X, or use {advice}."
        )


def check_table(values: Any, name: str) -> Array:
    """Return dense finite numbers in two dimensions, in float32 or float64; ValueError, which names them, otherwise."""
    check_no_mask(values, name)
    try:
        return np.asarray(check_array(values, dtype=[np.float64, np.float32], input_name=name))
    except OverflowError:
        raise too_large(name) from None


def too_large(name: str) -> ValueError:
    return ValueError(f"Input {name} contains an integer too large for float64; {name} must hold finite numbers.")


def check_same_length(*columns: Any) -> None:
    """Raise ValueError if they have not as many rows; None is left out."""
    check_consistent_length(*columns)


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


def table(X: Any, name: str = "X") -> Any:
    """Return X, dense or as CSR, in float64; ValueError, which names it, if it does not hold finite real numbers."""
    X = in_host_memory(X)
    if not sp.issparse(X):
        return check_finite_numbers(X, name)
    X = check_sparse_structure(X, name)
    check_finite_numbers(X.data, f"{name}.data")
    return canonicalize(sp.csr_array(X).astype(np.float64, copy=False))


def check_finite_predictions(raw: Any) -> None:
    """Raise ValueError if a raw prediction is inf or NaN."""
    xp, array = (raw.xp, raw.array) if isinstance(raw, DeviceArray) else (np, raw)
    if not bool(xp.all(xp.isfinite(array))):
        raise ValueError(
            f"X must have raw predictions, X @ coef_.T + intercept_, that are finite in {raw.dtype}, got an overflow; "
            "scale the columns as those of the fit, or pass X as float64."
        )
