"""Labels and classes: what y may hold, the codes of its labels, and class weights.

``validation`` and ``targets`` use it for every fit, stream, search and cluster.
"""

from __future__ import annotations

import warnings
from datetime import date, timedelta
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import DataConversionWarning

from sksoftmax._data.arrays import LARGEST_EXACT, as_float, check_finite_sum, drop_zero_weight, in_host_memory
from sksoftmax._engines.device import to_numpy
from sksoftmax._maths.objective import class_sums
from sksoftmax._types import Array, Batch


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
        if abs(largest) <= LARGEST_EXACT:
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
    return common if least >= -LARGEST_EXACT and most <= LARGEST_EXACT else None


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
