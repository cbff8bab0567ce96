"""State of an estimator for pickle, joblib, copy and skops: plain data with a version and a format number.

The estimators' ``__getstate__`` and ``__setstate__`` call `to_state` and `from_state`. A loader creates all objects in
a file before ``__setstate__`` runs. So a state has no private class of this package: the named tuples are written as
dicts of their fields. Then a file of any other version loads far enough to raise the error about its format.

`STATE_FORMAT` identifies the format. Raise it by 1, in the same commit, if states written before can no longer be read
or would mean something else:

- a field of one of `_KINDS` is renamed, removed, or added without a default;
- a fitted attribute or a constructor parameter changes its meaning;
- a solver continues differently from the same state.

A new parameter or field needs no new format if its default keeps the old behaviour: states without it get the default.
``tests/model/test_serialization.py`` lists the fields of the format.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import scipy.sparse as sp

from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._sklearn import OtherVersionWarning
from sksoftmax._solvers._first_order import FirstOrderState
from sksoftmax._solvers.adam import AdamMemory
from sksoftmax._solvers.schedule_free import ScheduleFreeState
from sksoftmax._training.stream import RowBuffer, Stream
from sksoftmax._types import Batch, Moments, Params
from sksoftmax._version import __version__

#: Format of the state: every version with the same number can read it. See the module's docstring.
STATE_FORMAT = 1

#: Named tuples that a fitted estimator holds, by their names in the state.
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        AdamMemory,
        Batch,
        FirstOrderState,
        RowBuffer,
        Moments,
        Params,
        GramPreconditioner,
        ScheduleFreeState,
        Stream,
    )
}

#: Sparse matrices of a state: the rows that ``partial_fit`` buffers, and ``coef_`` after ``sparsify``. They are written
#: as dicts of their arrays, because some versions of skops do not know or trust them.
_SPARSE: dict[str, Any] = {kind.__name__: kind for kind in (sp.csr_array, sp.csr_matrix)}

#: Key of the version of the package that wrote the state.
_VERSION = "_sksoftmax_version"

#: Key of the format number.
_FORMAT = "_state_format"

#: Key of a class name, in the dict of a named tuple or a sparse matrix.
_KIND = "__kind__"


def to_state(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes as plain data, with the version and the format; arrays are not copied."""
    state = {name: _to_plain(value) for name, value in attributes.items()}
    return {**state, _VERSION: __version__, _FORMAT: STATE_FORMAT}


def from_state(state: dict[str, Any], cls: type) -> dict[str, Any]:
    """Return the attributes of an estimator of class ``cls`` from a state that `to_state` made.

    Raises
    ------
    ValueError
        If the state has another format.

    Warns
    -----
    InconsistentVersionWarning
        If another version wrote the state.
    """
    version, number = state.get(_VERSION), state.get(_FORMAT)
    if number != STATE_FORMAT:
        raise ValueError(_format_error(cls, version, number))
    if version != __version__:
        warnings.warn(
            OtherVersionWarning(
                estimator_name=cls.__name__, current_sklearn_version=__version__, original_sklearn_version=version
            ),
            stacklevel=3,  # the caller of __setstate__
        )
    attributes = {name: _from_plain(value) for name, value in state.items() if name not in (_VERSION, _FORMAT)}
    return {**_default_params(cls), **attributes}


def _format_error(cls: type, version: str | None, number: int | None) -> str:
    """Return the error message for a state of another format."""
    if number is None:
        writer, advice = "has no format, as none had at first", "Fit the model again."
    else:
        writer = f"was written by sksoftmax {version} in format {number}"
        advice = f"Fit the model again, or load it with sksoftmax {version}."
    reader = f"sksoftmax {__version__} reads a {cls.__name__} whose state has format {STATE_FORMAT}"
    return f"{reader}; this one {writer}. {advice}"


def _default_params(cls: type) -> dict[str, Any]:
    """Return the defaults of the constructor's parameters, for those that the version of the state did not have."""
    parameters = inspect.signature(cls).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _to_plain(value: Any) -> Any:
    """Return the value with named tuples and sparse matrices as dicts."""
    name = type(value).__name__
    if _SPARSE.get(name) is type(value):
        return {_KIND: name, "parts": (value.data, value.indices, value.indptr), "shape": value.shape}
    if _KINDS.get(name) is type(value):
        return {_KIND: name, **{field: _to_plain(part) for field, part in value._asdict().items()}}
    return tuple(map(_to_plain, value)) if type(value) is tuple else value


def _from_plain(value: Any) -> Any:
    """Return the value that `_to_plain` was given."""
    if type(value) is tuple:
        return tuple(map(_from_plain, value))
    if not isinstance(value, dict) or _KIND not in value:
        return value
    if value[_KIND] in _SPARSE:
        return _SPARSE[value[_KIND]](value["parts"], shape=value["shape"])
    return _KINDS[value[_KIND]](**{name: _from_plain(part) for name, part in value.items() if name != _KIND})
