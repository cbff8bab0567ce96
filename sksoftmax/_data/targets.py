"""Checks of y together with X: labels or soft targets, of a fit, of ``partial_fit``, or for early stopping.

The estimators call these functions; `target_table` also serves ``score``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_consistent_length

from sksoftmax._data import arrays as _arrays
from sksoftmax._data import labels as _labels
from sksoftmax._data import validation as _validation
from sksoftmax._types import Array, Batch

#: Early-stopping rows as the user gives them to ``fit``: X, y, and the weights or None.
Validation = tuple[Any, Any, Any]

#: Allowed distance from 1 of the sum of a row of targets: the rounding of half precision, or of three digits.
_ROUNDING_OF_TARGETS = 2e-3


def fit_data(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Batch, Array]:
    """Check the data of a fit; return the rows of positive weight, with y as codes or targets, and the classes.

    y holds targets with ``soft_targets=True``. The classes include the labels of rows of weight 0.

    Raises
    ------
    ValueError
        As `all_rows` and `soft_data`; if no row has a positive weight; or if there is only one class.
    """
    if estimator.soft_targets:
        rows, classes = soft_data(estimator, X, y, sample_weight, reset=True)
        _labels.check_two_classes(classes[rows.y.any(axis=0)])
    else:
        rows = _validation.check_rows(estimator, X, y, sample_weight, reset=True)
        classes, codes = _labels.classes_and_codes(rows.y)
        _labels.check_two_classes(classes)
        rows = rows._replace(y=codes)
    return _validation.check_and_drop_zero_weight(rows), classes


def soft_data(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool, is_stream: bool = False, suffix: str = ""
) -> tuple[Batch, Array]:
    """Check data with soft targets; return the rows, with y as targets in X's dtype, and the sorted classes.

    The classes are 0 to n_classes - 1; for a data frame they are the names of its columns.

    Parameters
    ----------
    suffix : str
        Appended to the names of the arguments in error messages.

    Raises
    ------
    ValueError
        If `all_rows` refuses X or the weights, or `target_table` refuses y.
    """
    X = _validation.check_features(estimator, X, reset=reset, is_stream=is_stream)
    table, classes = target_table(y, f"y{suffix}", X.dtype)
    check_consistent_length(X, table)
    return Batch(X, table, _validation.check_sample_weight(sample_weight, X, f"sample_weight{suffix}")), classes


def target_table(y: Any, name: str, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Check soft targets; return them with rows that sum to 1 and columns sorted by class, and the classes.

    Raises
    ------
    ValueError
        If y is not two-dimensional, has only one column, or numbers that are negative or not finite; if the sum of a
        row differs from 1 by more than rounding; or if two columns have the same name, or names of different types.
    """
    if np.ndim(y) != 2:
        raise ValueError(
            f"{name} must have the shape (n_samples, n_classes) with soft_targets=True, got {np.ndim(y)} dimensions; "
            "set soft_targets=False for labels."
        )
    frame_columns = _classes_of_columns(np.asarray(y.columns), name) if hasattr(y, "columns") else None
    table = _arrays.check_table(y, name)
    n_classes = table.shape[1]
    if n_classes < 2:
        raise ValueError(f"{name} must have a column for each of at least two classes, got {n_classes}.")
    if (table < 0).any():
        raise ValueError(f"{name} must hold shares >= 0 of each class, got {table.min():g}.")
    sums = table.sum(axis=1, dtype=np.float64)
    i_worst = int(np.abs(sums - 1).argmax())
    if abs(sums[i_worst] - 1) > _ROUNDING_OF_TARGETS:
        raise ValueError(
            f"the rows of {name} must sum to 1, got {sums[i_worst]:g} in row {i_worst}; divide each row by its sum, "
            "which sample_weight can take."
        )
    classes, order = frame_columns or (np.arange(n_classes), slice(None))
    table = table[:, order].astype(dtype, order="C")
    table /= table.sum(axis=1, keepdims=True, dtype=np.float64)
    return table, classes


def _classes_of_columns(names: Array, argument: str) -> tuple[Array, Array]:
    """Return the names of the columns, sorted, and the position of each; raise ValueError as `target_table`."""
    try:
        classes, order = np.unique(names, return_index=True)
    except TypeError:  # strings and numbers
        classes = names[:0]
    if len(classes) < len(names):
        raise ValueError(
            f"the columns of {argument} must have names of their own, all strings or all numbers, got {names.tolist()}."
        )
    return classes, order


def check_same_classes(target_classes: Array, classes: Array, name: str = "y") -> None:
    """Raise ValueError if the classes of soft targets differ from ``classes``."""
    if not np.array_equal(target_classes, classes):
        raise ValueError(
            f"{name} must have a column for each of the classes {classes.tolist()}, got {target_classes.tolist()}."
        )


def stream_data(estimator: Any, X: Any, y: Any, classes: Any, sample_weight: Any) -> tuple[Batch, Array]:
    """Check the data of partial_fit; return the rows of positive weight, with y as codes or targets, and the classes.

    Raises
    ------
    ValueError
        As `all_rows`, `soft_data` and `stream_classes`; if y has labels that are not among the classes; or if
        ``allow_new_classes`` is combined with soft targets.
    """
    is_first = not hasattr(estimator, "classes_")
    if estimator.soft_targets:
        if estimator.allow_new_classes:
            _validation.check_hard_labels(
                estimator, "allow_new_classes=True", "give y a column for each class that will ever come."
            )
        rows, target_classes = soft_data(estimator, X, y, sample_weight, reset=is_first, is_stream=True)
        given = target_classes if is_first and classes is None else classes
        classes = _labels.resolve_stream_classes(estimator, given, target_classes)
        check_same_classes(target_classes, classes)
        return _arrays.drop_zero_weight(rows), classes
    rows = _validation.check_rows(estimator, X, y, sample_weight, reset=is_first, is_stream=True)
    classes = _labels.resolve_stream_classes(estimator, classes, rows.y)
    codes = _labels.encode_labels(
        rows.y, classes, "give all classes that will ever come in the first call, or set allow_new_classes=True."
    )
    return _arrays.drop_zero_weight(rows._replace(y=codes)), classes


def validation_arguments(early_stopping: bool, X: Any, y: Any, sample_weight: Any) -> Validation | None:
    """Return the early-stopping rows that the user gave to ``fit``, unchecked; None if there are none.

    Raises
    ------
    ValueError
        If only one of X and y is given, or the weights without them, or any without early stopping.
    """
    if X is None and y is None:
        if sample_weight is not None:
            raise ValueError(
                "sample_weight_val must come with X_val and y_val, got neither; pass them or leave it out."
            )
        return None
    if X is None or y is None:
        given, missing = ("y_val", "X_val") if X is None else ("X_val", "y_val")
        raise ValueError(f"{given} must come with {missing}, got {missing}=None; pass both.")
    if not early_stopping:
        raise ValueError(
            "X_val and y_val are for early stopping, got early_stopping=False; set early_stopping=True, or leave them "
            "out."
        )
    return X, y, sample_weight


def validation_data(estimator: Any, validation: Validation | None, classes: Array) -> Batch | None:
    """Check the early-stopping rows; return those of positive weight, with y as codes or targets; None for None.

    Raises
    ------
    ValueError
        As `all_rows` and `soft_data`; if y has other classes than ``classes``; or if no row has a positive weight.
    """
    if validation is None:
        return None
    X, y, sample_weight = validation
    if estimator.soft_targets:
        rows, target_classes = soft_data(estimator, X, y, sample_weight, reset=False, suffix="_val")
        check_same_classes(target_classes, classes, "y_val")
    else:
        rows = _validation.check_rows(estimator, X, y, sample_weight, reset=False, is_stream=True, suffix="_val")
        codes = _labels.encode_labels(rows.y, classes, "leave rows of other classes out.", name="y_val")
        rows = rows._replace(y=codes)
    return _validation.check_and_drop_zero_weight(rows, "sample_weight_val")


def split_validation(data: Batch, classes: Array, fraction: float, rng: np.random.RandomState) -> tuple[Batch, Batch]:
    """Split the rows into training and early-stopping rows, stratified by class; at random for soft targets.

    Raises
    ------
    ValueError
        If a class has only one row, or either part would have fewer rows than classes, or no row.
    """
    n_samples, has_labels = len(data.y), data.y.ndim == 1
    counts = np.bincount(data.y, minlength=len(classes)) if has_labels else np.empty(0, dtype=np.intp)
    advice = "give fit X_val and y_val, or set early_stopping=False."
    if (counts == 1).any():
        single = classes[counts == 1].tolist()
        raise ValueError(
            "early_stopping=True sets a part of each class aside, and needs at least 2 rows of positive weight of "
            f"each, got 1 of {', '.join(map(repr, single))}; {advice}"
        )
    n_held_out = int(np.ceil(fraction * n_samples))
    min_rows = max(1, int(np.count_nonzero(counts)))
    if min(n_held_out, n_samples - n_held_out) < min_rows:
        raise ValueError(
            f"early_stopping=True must have a row of each class, {min_rows} rows, to train on and to set aside, got "
            f"{n_samples - n_held_out} and {n_held_out} by validation_fraction={fraction:g} of {n_samples} rows; "
            f"change validation_fraction, {advice}"
        )
    rows, held_out = train_test_split(
        np.arange(n_samples), test_size=fraction, stratify=data.y if has_labels else None, random_state=rng
    )
    return Batch(*(part[rows] for part in data)), Batch(*(part[held_out] for part in data))
