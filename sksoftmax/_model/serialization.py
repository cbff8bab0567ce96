"""How an estimator is written down, by pickle, joblib, copy and skops: as plain data, beside a version and a format.

What a file holds is made before the estimator sees any of it. So no private class of this package is in it: the
named tuples of the parts are written as dicts of their fields, and whatever another version has made of these
classes, reading gets as far as the error that says so.

`STATE_FORMAT` is the contract. Raise it by 1, in the same commit, when a state that was written before would no longer
be read or would mean something else: a field of one of `_KINDS` renamed, removed, or added without a default; a
fitted attribute, a constructor's parameter, that changes its meaning; a solver whose state goes on differently. No need
for a new parameter or field with a default that keeps the old behaviour: states without it get the default.
``tests/test_state.py`` holds the fields of the format.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import scipy.sparse as sp

from sksoftmax._data.validation import OtherVersionWarning
from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._solvers._first_order import FirstOrderState
from sksoftmax._solvers.adam import AdamMemory
from sksoftmax._solvers.schedule_free import ScheduleFreeState
from sksoftmax._training.stream import RowBuffer, Stream
from sksoftmax._types import Batch, Moments, Params
from sksoftmax._version import __version__

#: See the module: what one version writes under a number, every version with that number reads.
STATE_FORMAT = 1

#: The named tuples that a fitted estimator holds, by the name that they have in its state.
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

#: Sparse matrices, which not every skops knows or trusts: ``partial_fit``'s rows, and ``coef_`` after ``sparsify``.
_SPARSE: dict[str, Any] = {kind.__name__: kind for kind in (sp.csr_array, sp.csr_matrix)}

#: Keys of what is written besides the attributes, and of the name of a kind.
_VERSION, _FORMAT, _KIND = "_sksoftmax_version", "_state_format", "__kind__"


def to_state(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes as plain data (arrays are not copied), with the version and the format."""
    state = {name: _to_plain(value) for name, value in attributes.items()}
    return {**state, _VERSION: __version__, _FORMAT: STATE_FORMAT}


def from_state(state: dict[str, Any], cls: type) -> dict[str, Any]:
    """The attributes of an estimator of class ``cls`` from what `to_state` gave.

    Raises
    ------
    ValueError
        If the state is of another format.

    Warns
    -----
    InconsistentVersionWarning
        If another version wrote it.
    """
    version, number = state.get(_VERSION), state.get(_FORMAT)
    if number != STATE_FORMAT:
        raise ValueError(_refusal(cls, version, number))
    if version != __version__:
        warnings.warn(
            OtherVersionWarning(
                estimator_name=cls.__name__, current_sklearn_version=__version__, original_sklearn_version=version
            ),
            stacklevel=3,  # this, __setstate__: who loads
        )
    attributes = {name: _from_plain(value) for name, value in state.items() if name not in (_VERSION, _FORMAT)}
    return {**_defaults(cls), **attributes}


def _refusal(cls: type, version: str | None, number: int | None) -> str:
    if number is None:
        writer, advice = "has no format, as none had at first", "Fit the model again."
    else:
        writer = f"was written by sksoftmax {version} in format {number}"
        advice = f"Fit the model again, or read it by that version: pip install 'sksoftmax=={version}'."
    reader = f"sksoftmax {__version__} reads a {cls.__name__} whose state has format {STATE_FORMAT}"
    return f"{reader}; this one {writer}. {advice}"


def _defaults(cls: type) -> dict[str, Any]:
    """The constructor's parameters that have a default: one that the state's version had not is as if not given."""
    parameters = inspect.signature(cls).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _to_plain(value: Any) -> Any:
    """The value in dicts, tuples and arrays."""
    name = type(value).__name__
    if _SPARSE.get(name) is type(value):
        return {_KIND: name, "parts": (value.data, value.indices, value.indptr), "shape": value.shape}
    if _KINDS.get(name) is type(value):
        return {_KIND: name, **{field: _to_plain(part) for field, part in value._asdict().items()}}
    return tuple(map(_to_plain, value)) if type(value) is tuple else value


def _from_plain(value: Any) -> Any:
    """What `_to_plain` was given."""
    if type(value) is tuple:
        return tuple(map(_from_plain, value))
    if not isinstance(value, dict) or _KIND not in value:
        return value
    if value[_KIND] in _SPARSE:
        return _SPARSE[value[_KIND]](value["parts"], shape=value["shape"])
    return _KINDS[value[_KIND]](**{name: _from_plain(part) for name, part in value.items() if name != _KIND})
