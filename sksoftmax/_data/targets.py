"""What y may be, with the rows that it is of: labels, or soft targets; of a fit, of a stream, for validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_consistent_length

from sksoftmax._data import validation as _validation
from sksoftmax._types import Array, Batch

#: Rows for early stopping as ``fit`` is given them: X, y, weights or None.
Validation = tuple[Any, Any, Any]

#: How far from 1 the sum of a row of targets may be, which were rounded to half precision or to three digits.
_ROUNDING_OF_TARGETS = 2e-3


def fit_data(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Batch, Array]:
    """Return the rows of positive weight, checked, with y as codes or, if the estimator takes them, targets.

    And the classes, those of all rows: rows of weight 0 are left out otherwise, as if they had not been given.

    Raises
    ------
    ValueError
        As `all_rows` and `soft_data`; if no row has a positive weight, or all are of one class.
    """
    if estimator.soft_targets:
        rows, classes = soft_data(estimator, X, y, sample_weight, reset=True)
        _validation.check_two_classes(classes[rows.y.any(axis=0)])
    else:
        rows = _validation.all_rows(estimator, X, y, sample_weight, reset=True)
        classes, codes = np.unique(rows.y, return_inverse=True)
        _validation.check_two_classes(classes)
        rows = rows._replace(y=codes)
    return _validation.drop_zero_weight_or_raise(rows), classes


def soft_data(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool, is_stream: bool = False, suffix: str = ""
) -> tuple[Batch, Array]:
    """Return the rows, checked, with y as targets in X's dtype; and the classes, sorted.

    These are numbers from 0, or of a data frame the names of its columns.

    Parameters
    ----------
    suffix : str
        What ends the arguments' names, in errors.

    Raises
    ------
    ValueError
        If X or the weights are not what `all_rows` takes; if y is not two-dimensional, has other numbers than
        finite ones >= 0, one column only, a row whose sum is not 1 but for rounding, or two columns of one name.
    """
    X = _validation.features(estimator, X, reset=reset, is_stream=is_stream)
    table, classes = target_table(y, f"y{suffix}", X.dtype)
    check_consistent_length(X, table)
    return Batch(X, table, _validation.check_sample_weight(sample_weight, X, f"sample_weight{suffix}")), classes


def target_table(y: Any, name: str, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Soft targets, checked, whose rows sum to 1; and the classes of the columns, sorted. Errors as `soft_data`."""
    if np.ndim(y) != 2:
        raise ValueError(
            f"{name} must have the shape (n_samples, n_classes) with soft_targets=True, got {np.ndim(y)} dimensions; "
            "set soft_targets=False for labels."
        )
    of_frame = _of_columns(np.asarray(y.columns), name) if hasattr(y, "columns") else None
    table = _validation.check_table(y, name)
    n_classes = table.shape[1]
    if n_classes < 2:
        raise ValueError(f"{name} must have a column for each of at least two classes, got {n_classes}.")
    if (table < 0).any():
        raise ValueError(f"{name} must hold shares >= 0 of each class, got {table.min():g}.")
    sums = table.sum(axis=1, dtype=np.float64)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _ROUNDING_OF_TARGETS:
        raise ValueError(
            f"the rows of {name} must sum to 1, got {sums[worst]:g} in row {worst}; divide each row by its sum, which "
            "sample_weight can take."
        )
    classes, order = of_frame or (np.arange(n_classes), slice(None))
    table = table[:, order].astype(dtype, order="C")
    table /= table.sum(axis=1, keepdims=True, dtype=np.float64)
    return table, classes


def _of_columns(names: Array, argument: str) -> tuple[Array, Array]:
    """The classes, sorted, and where their columns are."""
    try:
        classes, order = np.unique(names, return_index=True)
    except TypeError:  # strings and numbers
        classes = names[:0]
    if len(classes) < len(names):
        raise ValueError(
            f"the columns of {argument} must have names of their own, all strings or all numbers, got {names.tolist()}."
        )
    return classes, order


def check_same_classes(given: Array, known: Array, name: str = "y") -> None:
    """Raise ValueError if the columns of soft targets are not those of the classes known."""
    if not np.array_equal(given, known):
        raise ValueError(f"{name} must have a column for each of the classes {known.tolist()}, got {given.tolist()}.")


def stream_data(estimator: Any, X: Any, y: Any, classes: Any, sample_weight: Any) -> tuple[Batch, Array]:
    """Return the rows of a partial_fit that have a positive weight, with y as codes or targets, and the classes.

    Raises
    ------
    ValueError
        As `all_rows`, `soft_data` and `stream_classes`; if y is not of the classes, or would have new ones as soft
        targets.
    """
    is_first = not hasattr(estimator, "classes_")
    if estimator.soft_targets:
        if estimator.allow_new_classes:
            _validation.check_hard_labels(
                estimator, "allow_new_classes=True", "give y a column for each class that will ever come."
            )
        rows, own = soft_data(estimator, X, y, sample_weight, reset=is_first, is_stream=True)
        known = _validation.stream_classes(estimator, own if is_first and classes is None else classes, own)
        check_same_classes(own, known)
        return _validation.drop_zero_weight(rows), known
    rows = _validation.all_rows(estimator, X, y, sample_weight, reset=is_first, is_stream=True)
    known = _validation.stream_classes(estimator, classes, rows.y)
    codes = _validation.codes_of(
        rows.y, known, "give all classes that will ever come in the first call, or set allow_new_classes=True."
    )
    return _validation.drop_zero_weight(rows._replace(y=codes)), known


def validation_given(early_stopping: bool, X: Any, y: Any, sample_weight: Any) -> Validation | None:
    """The validation rows that ``fit`` is given, not checked yet; None if it is given none.

    Raises
    ------
    ValueError
        If X, or y, comes alone, the weights without them, or all of them without early stopping.
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
    """The validation rows that count, checked as X and y are, and coded."""
    if validation is None:
        return None
    X, y, sample_weight = validation
    if estimator.soft_targets:
        rows, own = soft_data(estimator, X, y, sample_weight, reset=False, suffix="_val")
        check_same_classes(own, classes, "y_val")
    else:
        rows = _validation.all_rows(estimator, X, y, sample_weight, reset=False, is_stream=True, suffix="_val")
        codes = _validation.codes_of(rows.y, classes, "leave rows of other classes out.", name="y_val")
        rows = rows._replace(y=codes)
    return _validation.drop_zero_weight_or_raise(rows, "sample_weight_val")


def split_validation(data: Batch, classes: Array, fraction: float, rng: np.random.RandomState) -> tuple[Batch, Batch]:
    """Return the rows to train on, and those that early stopping sets aside: a part of each class; of targets any.

    Raises
    ------
    ValueError
        If a class has one row only, or either part would have fewer rows than classes, or none.
    """
    n_samples, has_labels = len(data.y), data.y.ndim == 1
    counts = np.bincount(data.y, minlength=len(classes)) if has_labels else np.empty(0, dtype=np.intp)
    advice = "give fit X_val and y_val, or set early_stopping=False."
    if (counts == 1).any():
        lonely = classes[counts == 1].tolist()
        raise ValueError(
            "early_stopping=True sets a part of each class aside, and needs at least 2 rows of positive weight of "
            f"each, got 1 of {', '.join(map(repr, lonely))}; {advice}"
        )
    n_held = int(np.ceil(fraction * n_samples))
    n_least = max(1, int(np.count_nonzero(counts)))
    if min(n_held, n_samples - n_held) < n_least:
        raise ValueError(
            f"early_stopping=True must have a row of each class, {n_least} rows, to train on and to set aside, got "
            f"{n_samples - n_held} and {n_held} by validation_fraction={fraction:g} of {n_samples} rows; change "
            f"validation_fraction, {advice}"
        )
    rows, held = train_test_split(
        np.arange(n_samples), test_size=fraction, stratify=data.y if has_labels else None, random_state=rng
    )
    return Batch(*(part[rows] for part in data)), Batch(*(part[held] for part in data))
