"""Labels and classes: checks of the labels in y, their codes, and class weights.

``validation``, ``targets`` and ``out_of_core``, the estimators and the Dask workers call these functions.
"""

from __future__ import annotations

import warnings
from datetime import date, timedelta
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import DataConversionWarning

from sksoftmax._data.arrays import LARGEST_EXACT, as_float, as_host_array, check_finite_sum, drop_zero_weight
from sksoftmax._engines.device import to_numpy
from sksoftmax._maths.objective import class_sums
from sksoftmax._types import Array, Batch


def check_labels(y: Any, name: str = "y", *, place: str = "row", warn: bool = True) -> Array:
    """Return labels as a 1d NumPy array of strings, or of numbers or dates in their own dtype.

    Nullable integers of pandas stay integers.

    Parameters
    ----------
    name, place : str
        Names of the argument and of one of its entries in error messages.
    warn : bool
        Whether to issue the DataConversionWarning of scikit-learn if y is a column, which is then ravelled.

    Raises
    ------
    TypeError
        If y is sparse.
    ValueError
        If y is neither one-dimensional nor a column, a label is missing (None, NaN, NA) or infinite, or some labels
        are strings and some are numbers.
    """
    y = as_host_array(y)
    if sp.issparse(y):
        raise TypeError(f"Sparse data was passed for {name}, but dense data is required; pass {name}.toarray().")
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        _raise_for_missing(np.ma.masked, name, f"{place} {np.ma.getmaskarray(y).ravel().argmax()}")
    is_of_pandas = hasattr(y, "dtype") and hasattr(y.dtype, "na_value")  # np.asarray may convert its integers to floats
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
    if values.dtype.kind not in "biufmMU":  # objects, and complex numbers, bytes and records, which raise
        values = _check_one_kind(values, name, place)
        return np.asarray(values.tolist()) if isinstance(y, list | tuple) else values
    if values.dtype.kind in "fmM" and not (is_usable := np.isfinite(values)).all():
        where = int(is_usable.argmin())
        _raise_for_missing(values[where], name, f"{place} {where}")
    return values


def classes_and_codes(labels: Array) -> tuple[Array, Array]:
    """Return the sorted classes, and the code of each label: ``classes[codes]`` are the labels."""
    if not are_compact(labels):
        return np.unique(labels, return_inverse=True)
    numbers = labels if labels.dtype.itemsize == 8 else labels.astype(np.int64)  # differences may exceed a small dtype
    offsets = (numbers - numbers.min()).astype(np.intp)
    is_present = np.bincount(offsets) > 0
    classes = np.flatnonzero(is_present).astype(numbers.dtype) + numbers.min()
    return classes.astype(labels.dtype), (np.cumsum(is_present) - 1)[offsets]


def are_compact(labels: Array) -> bool:
    """Return whether the labels are integers in a range of at most half their number: no sorting is needed."""
    if labels.dtype.kind not in "biu" or len(labels) == 0:
        return False
    return 2 * (int(labels.max()) - int(labels.min()) + 1) <= len(labels)


def _check_one_kind(values: Array, name: str, place: str) -> Array:
    """Return labels as an array of numbers, or of objects if they are strings.

    Raises ValueError if a label is missing or infinite, or if the labels are neither all strings nor all numbers.
    """
    first_positions: dict[str, int] = {}  # by kind
    values = np.asarray(values, dtype=object)
    for where, value in enumerate(values.tolist()):
        if isinstance(value, str):
            first_positions.setdefault("strings", where)
        elif value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant") or _is_not_finite(value):
            _raise_for_missing(value, name, f"{place} {where}")
        else:
            kind = "numbers" if isinstance(value, Real | np.bool_) else type(value).__name__
            first_positions.setdefault(kind, where)
    if len(first_positions) > 1 or not first_positions.keys() <= {"strings", "numbers"}:
        examples = " and ".join(f"{values[where]!r} in {place} {where}" for where in list(first_positions.values())[:2])
        advice = f"decode them, [label.decode() for label in {name}]" if "bytes" in first_positions else "convert them"
        is_complex = any("complex" in kind for kind in first_positions)
        # the wording of scikit-learn, which its estimator checks match
        must = f"{'Complex data not supported: ' if is_complex else ''}{name} must hold"
        raise ValueError(f"{must} labels that are all strings or all numbers, got {examples}; {advice}.")
    return _number_array(values.tolist(), name) if "numbers" in first_positions else values


def _number_array(values: list[Any], name: str) -> Array:
    """Return numbers as an array that represents integers exactly. Raise ValueError if no dtype does."""
    numbers = np.array(values)
    if numbers.dtype.kind in "biu":
        return numbers
    integers = [int(value) for value in values if isinstance(value, Integral | np.bool_)]
    largest = max(integers, key=abs, default=0)
    if len(integers) < len(values):
        if abs(largest) <= LARGEST_EXACT:
            return numbers
    elif (dtype := _integer_dtype(min(integers), max(integers))) is not None:  # such as np.uint64 and np.int64 together
        return np.array(integers, dtype=dtype)
    raise ValueError(
        f"{name} must hold integers that one dtype of 64 bits holds exactly, got {largest}; convert "
        "them to strings or to codes."
    )


def _integer_dtype(minimum: int, maximum: int) -> Any:
    """Return a 64-bit dtype that holds the integers from ``minimum`` to ``maximum``. Return None if there is none."""
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= minimum and maximum <= np.iinfo(dtype).max:
            return dtype
    return None


def _common_dtype(parts: tuple[Array, Array]) -> Any:
    """Return a dtype that represents the numbers of both parts exactly. Return None if there is none."""
    common: Any = np.result_type(*parts)
    bounds = [(int(part.min()), int(part.max())) for part in parts if part.dtype.kind in "biu"]
    if common.kind != "f" or not bounds:
        return common
    minimum, maximum = min(low for low, _ in bounds), max(high for _, high in bounds)
    if len(bounds) == 2:  # signed and unsigned
        return _integer_dtype(minimum, maximum)
    return common if minimum >= -LARGEST_EXACT and maximum <= LARGEST_EXACT else None


def _is_not_finite(value: Any) -> bool:
    """Return whether a label is a float that is NaN or infinite."""
    return isinstance(value, float | np.floating) and not np.isfinite(value)


def _raise_for_missing(value: Any, name: str, place: str) -> None:
    """Raise ValueError for a missing or infinite label at ``place``."""
    description = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity", "<NA>": "NA", "--": "a masked value"}.get(
        str(value), str(value)
    )
    raise ValueError(f"Input {name} contains {description}, in {place}; a label must be a string or a finite number.")


def _label_kind(labels: Array) -> str:
    """Return "strings", "dates" or "numbers", the kind of checked labels."""
    return {"O": "strings", "U": "strings", "S": "strings", "m": "dates", "M": "dates"}.get(
        labels.dtype.kind, "numbers"
    )


def to_common_dtype(labels: Array, reference: Array, name: str, reference_name: str) -> tuple[Array, Array]:
    """Return checked labels and reference labels, both in a dtype that holds all of them.

    Parameters
    ----------
    name, reference_name : str
        Names of the two arrays in error messages.

    Raises
    ------
    ValueError
        If the kinds (strings, numbers, dates) of the two arrays differ. Or if no common dtype represents both exactly,
        for example integers and floats, or signed and unsigned integers.
    """
    if len(labels) == 0 or len(reference) == 0:
        return labels, reference
    if _label_kind(labels) != _label_kind(reference):
        raise ValueError(
            f"{name} must hold {_label_kind(reference)}, as {reference_name} do, such as {reference.tolist()[0]!r}, "
            f"got {_label_kind(labels)}, such as {labels.tolist()[0]!r} in row 0; convert them."
        )
    if labels.dtype == reference.dtype or _label_kind(reference) != "numbers":
        return labels, reference
    dtype = _common_dtype((labels, reference))
    if dtype is None:
        raise ValueError(
            f"{name} must hold labels that one dtype holds exactly together with {reference_name}, got {labels.dtype} "
            f"and {reference.dtype}, with integers above 2**53; give all labels in one dtype."
        )
    return labels.astype(dtype, copy=False), reference.astype(dtype, copy=False)


def check_classes(classes: Any) -> Array:
    """Return the labels of the argument ``classes``, sorted and without duplicates.

    Raises
    ------
    ValueError
        If ``classes`` is empty or not one-dimensional, or if `check_labels` raises.
    """
    values = as_host_array(classes)
    if np.ndim(np.asarray(values, dtype=object)) != 1:
        raise ValueError(
            f"classes must be a list or an array of labels in one dimension, got {type(classes).__name__}; pass "
            "numpy.unique(y_all), for example."
        )
    unique = np.unique(check_labels(values, "classes", place="position"))
    if len(unique) == 0:
        raise ValueError("classes must hold all labels that will ever come, got none; pass at least two labels.")
    return unique


def check_two_classes(classes: Array, name: str = "y") -> None:
    """Raise ValueError if there is only one class."""
    if len(classes) < 2:
        raise ValueError(
            f"{name} must hold at least two classes, got only one class, {classes.tolist()[0]!r}; add another class."
        )


def union_classes(
    reference: Array, labels: Array, name: str = "y", reference_name: str = "the earlier labels"
) -> Array:
    """Return the sorted union of two arrays of labels. Raises ValueError if `to_common_dtype` does."""
    labels, reference = to_common_dtype(labels, reference, name, reference_name)
    return np.union1d(reference, labels) if len(reference) else np.unique(labels)


def encode_labels(y: Array, classes: Array, advice: str, name: str = "y") -> Array:
    """Return the positions of the labels y in the sorted ``classes``.

    Raises ValueError, with a message that ends with ``advice``, if a label is not one of the classes.
    """
    y, classes = to_common_dtype(y, classes, name, "the classes")
    unseen = np.setdiff1d(y, classes)
    if len(unseen):
        raise ValueError(
            f"{name} must hold labels of the classes {classes.tolist()} only, got {unseen.tolist()} as well; {advice}"
        )
    return np.searchsorted(classes, y)


def resolve_stream_classes(estimator: Any, classes: Any, y: Array) -> Array:
    """Return the classes of a ``partial_fit``: the argument ``classes``, or the classes of an earlier call.

    With ``allow_new_classes`` of the estimator, return the union of both and of the labels in y.

    Raises
    ------
    ValueError
        If there is only one class. Without ``allow_new_classes`` also if the first call has no ``classes``, or if
        ``classes`` differ from those of an earlier call.
    """
    previous = np.asarray(to_numpy(estimator.classes_)) if hasattr(estimator, "classes_") else None
    given = None if classes is None else check_classes(classes)
    if estimator.allow_new_classes:
        union = np.empty(0) if previous is None else previous
        union = union if given is None else union_classes(union, given, "classes", "the known classes")
        union = union_classes(union, y, "y", "the known classes")
        if len(union) == 1:
            raise ValueError(
                f"the first call to partial_fit must have at least two classes, got only {union.tolist()[0]!r}; pass "
                "classes= with all labels that will ever come, or rows of another class."
            )
        return union
    if given is None:
        if previous is None:
            raise ValueError(
                "classes must be passed on the first call to partial_fit: all labels that will ever come, "
                "such as numpy.unique(y_all); or set allow_new_classes=True."
            )
        return previous
    check_two_classes(given, "classes")
    if previous is not None and not np.array_equal(*to_common_dtype(given, previous, "classes", "the known classes")):
        raise ValueError(
            f"classes={given.tolist()} is not the same as on the last call to partial_fit, {previous.tolist()}; leave "
            "classes out, set allow_new_classes=True, or start from a new estimator."
        )
    return given


def apply_class_weight(
    data: Batch, class_weight: Any, classes: Array, *, is_stream: bool = False, allow_unseen_classes: bool = False
) -> Batch:
    """Multiply the sample weights by class weights, as ``LogisticRegression`` does, and drop rows of weight 0.

    The y of ``data`` holds codes or soft targets. For soft targets, the fraction of each class is multiplied by its
    class weight. The products are divided by their sum, and the sample weight is multiplied by it.

    Raises
    ------
    ValueError
        As `class_weight_factors`, whose ``totals`` are 1 for a chunk of a stream (``is_stream``).
    """
    if class_weight is None:
        return data
    totals = np.ones(len(classes)) if is_stream else class_sums(data.y, data.weight, len(classes))
    factors = class_weight_factors(class_weight, classes, totals, allow_unseen_classes=allow_unseen_classes)
    if data.y.ndim == 1:
        return drop_zero_weight(data._replace(weight=data.weight * factors[data.y]))
    y = data.y * factors
    sums = y.sum(axis=1)
    y /= np.where(sums > 0, sums, 1.0)[:, None]
    return drop_zero_weight(Batch(data.X, y.astype(data.y.dtype, copy=False), data.weight * sums))


def _check_key(label: Any, classes: Array) -> None:
    """Raise ValueError if a key of ``class_weight`` is not of the same kind as the classes."""
    is_number = isinstance(label, Real | np.bool_) and abs(as_float(label)) < np.inf  # NaN is not
    kind = "strings" if isinstance(label, str) else "numbers" if is_number else "dates"
    is_date = kind == "dates" and isinstance(label, np.datetime64 | np.timedelta64 | date | timedelta | int)
    if kind != _label_kind(classes) or (kind == "dates" and not is_date):
        raise ValueError(
            f"class_weight must have labels as keys, {_label_kind(classes)} as the classes {classes.tolist()} are, got "
            f"{label!r}; correct the keys."
        )


def class_weight_factors(
    class_weight: Any, classes: Array, totals: Array, *, allow_unseen_classes: bool = False
) -> Array:
    """Return the factor of the sample weights of each class.

    A dict is looked up by the labels themselves, so that the string "1" is not the number 1. Classes that are not among
    its keys have factor 1.

    Parameters
    ----------
    totals : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    allow_unseen_classes : bool
        Whether a dict may have keys of classes that have not occurred yet.

    Returns
    -------
    ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If a class weight is negative or not finite, or the sum of the products with ``totals`` overflows. If all these
        products are 0. If a dict has a key that is not a class and also lacks a class; with ``allow_unseen_classes``
        instead if such a key is not of the same kind (strings, numbers, dates) as the classes.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if class_weight == "balanced":  # uses weighted counts, so that an integer weight equals repeated rows
        return totals.sum() / (np.count_nonzero(totals) * np.where(totals > 0, totals, 1.0))
    if not all(
        isinstance(weight, Real | np.bool_) and 0 <= as_float(weight) < np.inf for weight in class_weight.values()
    ):
        raise ValueError(f"class_weight must hold finite weights >= 0, got {class_weight!r}; correct the weights.")
    names = classes.tolist()
    others = [label for label in class_weight if label not in set(names)]
    if allow_unseen_classes:
        for label in others:
            _check_key(label, classes)
    if others and not allow_unseen_classes and not class_weight.keys() >= set(names):
        raise ValueError(f"class_weight must name classes of y, which are {names}, got {others}; correct the keys.")
    factors = np.array([float(class_weight.get(name, 1.0)) for name in names])
    if not (factors * totals > 0).any():
        raise ValueError(
            f"class_weight must be positive for at least one class of the rows, got {class_weight!r}; increase one."
        )
    check_finite_sum(factors * totals, "class_weight times sample_weight")
    return factors
