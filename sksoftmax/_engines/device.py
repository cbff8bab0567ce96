"""Arrays of other libraries, on their own device, behind NumPy's interface.

The engines and the maths are written once, against NumPy. `DeviceArray` wraps an array of another array-API library
(https://data-apis.org/array-api: PyTorch, CuPy) and implements NumPy's ufuncs (NEP 13) and functions (NEP 18). Operands
move to its device. Results move back to host memory only through `to_host`, or if they are added in place to an array
in host memory. Small arrays stay in host memory: parameters, column moments, and a few numbers per row.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.lib.mixins import NDArrayOperatorsMixin

#: Bytes of X and of raw predictions per block of rows in host memory, so that a block fits in cache.
_BLOCK_SIZE = 2**20

#: Factor on the block size on a device other than the CPU: enough work per block for a graphics card.
_DEVICE_FACTOR = 128

#: NumPy's dtypes, and their names in any array-API namespace.
_DTYPE_NAMES = {np.dtype(name): name for name in ("float32", "float64", "int64", "int32", "bool")}

#: Python operators in place of ufuncs, because they also accept numbers. Other ufuncs are looked up by name.
_OPERATORS: dict[Any, Callable[..., Any]] = {
    **{np.add: operator.add, np.subtract: operator.sub, np.multiply: operator.mul, np.divide: operator.truediv},
    **{np.greater: operator.gt, np.negative: operator.neg, np.absolute: operator.abs},
}


class DeviceArray(NDArrayOperatorsMixin):
    """Array of another library that works in code written for NumPy.

    Parameters
    ----------
    array : array of an array-API library
    xp : module
        Namespace of the library.
    widest_float : dtype of the namespace or None
        Value of the property ``widest_float``; None to look it up when it is needed.
    """

    def __init__(self, array: Any, xp: Any, widest_float: Any = None) -> None:
        self.array = array
        self.xp = xp
        self._widest_float = widest_float

    def __reduce__(self) -> Any:
        return _restore, (self.array, self.xp.__name__)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an array on a device must not move by accident; to_host() moves it")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the array."""
        return next(dtype for dtype, name in _DTYPE_NAMES.items() if self.array.dtype == getattr(self.xp, name))

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def T(self) -> DeviceArray:
        return self._wrap(self.array.T)

    @property
    def widest_float(self) -> Any:
        """The namespace's float64, or float32 if the device has no float64."""
        if self._widest_float is None:
            dtypes = self.xp.__array_namespace_info__().dtypes(device=self.array.device, kind="real floating")
            self._widest_float = dtypes.get("float64", self.xp.float32)
        return self._widest_float

    def __len__(self) -> int:
        return self.shape[0]

    def __float__(self) -> float:
        return float(self.array)

    def __getitem__(self, key: Any) -> DeviceArray:
        """Return part of the array.

        The key is one of

        - a slice, None or an integer, or a tuple of these;
        - an index array or a mask of rows;
        - two index arrays, which select entries of a table.
        """
        if isinstance(key, np.ndarray | DeviceArray):
            rows = np.flatnonzero(key) if key.dtype == bool else key
            return self._wrap(self.xp.take(self.array, self.to_device(rows), axis=0))
        if isinstance(key, tuple) and isinstance(key[0], np.ndarray | DeviceArray):
            return self.reshape(-1)[key[0] * self.shape[1] + key[1]]
        if isinstance(key, slice):
            key = slice(*key.indices(len(self)))
        return self._wrap(self.array[key if isinstance(key, tuple) else (key, ...)])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            return NotImplemented
        operands = [self.to_device(operand) for operand in inputs]
        if ufunc in _OPERATORS:
            result = self._wrap(_OPERATORS[ufunc](*operands))
        elif ufunc is np.matmul:
            result = self._wrap(operator.matmul(*self._promote_dtypes(operands)))
        else:
            result = self._wrap(getattr(self.xp, ufunc.__name__)(*(self._as_array(operand) for operand in operands)))
        if out and isinstance(out[0], np.ndarray):
            out[0][...] = to_host(result)
            return out[0]
        return result

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _FUNCTIONS[function](*args, **kwargs) if function in _FUNCTIONS else NotImplemented

    def to_device(self, values: Any) -> Any:
        """Return the values as an array of the namespace on this array's device; returns numbers unchanged."""
        if isinstance(values, DeviceArray):
            return values.array
        if isinstance(values, np.generic):
            return values.item()
        if not isinstance(values, np.ndarray):
            return values
        if values.dtype == np.float64 and self.widest_float == self.xp.float32:
            values = values.astype(np.float32)
        if not (values.flags.c_contiguous and values.flags.writeable):  # PyTorch rejects or warns about other arrays
            values = values.copy()
        return self.xp.asarray(values, device=self.array.device)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        dtype = np.dtype(dtype)
        xp_dtype = self.widest_float if dtype == np.float64 else getattr(self.xp, _DTYPE_NAMES[dtype])
        return self if not copy and self.array.dtype == xp_dtype else self._wrap(self.xp.astype(self.array, xp_dtype))

    def copy(self) -> DeviceArray:
        return self._wrap(self.xp.asarray(self.array, copy=True))

    def reshape(self, *shape: int) -> DeviceArray:
        return self._wrap(self.xp.reshape(self.array, shape))

    def min(self, axis: int) -> DeviceArray:
        return self._wrap(self.xp.min(self.array, axis=axis))

    def max(self, axis: int) -> DeviceArray:
        return self._wrap(self.xp.max(self.array, axis=axis))

    def argmax(self, axis: int) -> DeviceArray:
        return self._wrap(self.xp.argmax(self.array, axis=axis))

    def sum(self, axis: int | None = None) -> DeviceArray:
        return self._wrap(self.xp.sum(self.array, axis=axis))

    def mean(self, axis: int, dtype: Any) -> DeviceArray:
        """Return the mean along the axis, summed in ``dtype``, which must be float64."""
        assert dtype is np.float64
        return self._wrap(self.xp.sum(self.array, axis=axis, dtype=self.widest_float)) / self.shape[axis]

    def _wrap(self, array: Any) -> DeviceArray:
        """Return an array of the same namespace, wrapped."""
        return DeviceArray(array, self.xp, self._widest_float)

    def _as_array(self, operand: Any) -> Any:
        """Return a number as an array, because the namespace's functions do not accept numbers."""
        if not isinstance(operand, int | float):
            return operand
        return self.xp.asarray(operand, dtype=self.array.dtype, device=self.array.device)

    def _promote_dtypes(self, operands: Sequence[Any]) -> list[Any]:
        """Return the operands in their common dtype, because PyTorch's matmul does not promote dtypes."""
        if len({operand.dtype for operand in operands}) == 1:
            return list(operands)
        dtype = self.xp.result_type(*operands)
        return [self.xp.astype(operand, dtype, copy=False) for operand in operands]


def _restore(array: Any, namespace: str) -> DeviceArray:
    """Return the array of a pickled ``DeviceArray``, wrapped."""
    return DeviceArray(array, importlib.import_module(namespace))


def _first_device_array(*operands: Any) -> DeviceArray:
    """Return the first operand that is a ``DeviceArray``."""
    return next(operand for operand in operands if isinstance(operand, DeviceArray))


def _concatenate(arrays: Sequence[Any], axis: int = 0) -> DeviceArray:
    one = _first_device_array(*arrays)
    return DeviceArray(one.xp.concat([one.to_device(array) for array in arrays], axis=axis), one.xp)


def _where(condition: Any, yes: Any, no: Any) -> DeviceArray:
    one = _first_device_array(condition, yes, no)
    return DeviceArray(one.xp.where(*(one.to_device(operand) for operand in (condition, yes, no))), one.xp)


#: Implementations of NumPy's functions that are not ufuncs.
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.concatenate: _concatenate,
    np.outer: lambda left, right: left[:, None] * right[None, :],
    np.vdot: lambda left, right: (left * right).sum(),
    np.where: _where,
}


def to_host(values: Any) -> Any:
    """Return the values in host memory; returns values other than a ``DeviceArray`` unchanged."""
    return to_numpy(values.array) if isinstance(values, DeviceArray) else values


def to_numpy(array: Any) -> Any:
    """Return an array of any library as a NumPy array; shares its memory if it is in host memory.

    Returns NumPy arrays and SciPy's sparse matrices unchanged. Copies a read-only array of another library.
    """
    if isinstance(array, np.ndarray) or sp.issparse(array):
        return array
    if hasattr(array, "detach"):  # PyTorch
        return array.detach().cpu().numpy()
    if hasattr(array, "get"):  # CuPy
        return array.get()
    values = np.from_dlpack(array)
    return values if values.flags.writeable else values.copy()


def to_device_of(values: Any, X: Any, dtype: Any = None) -> Any:
    """Return the values on the device of X, in ``dtype``; None for the dtype of X."""
    values = values.astype(X.dtype if dtype is None else dtype, copy=False)
    must_move = isinstance(X, DeviceArray) and not isinstance(values, DeviceArray)
    return DeviceArray(X.to_device(values), X.xp) if must_move else values


def match_device(values: Any, X: Any) -> Any:
    """Return the values on the device and in the dtype of X; returns them unchanged if X is in NumPy or SciPy."""
    return to_device_of(values, X) if isinstance(X, DeviceArray) else values


def columns_to_device(X: Any, *columns: Any) -> Iterator[Any]:
    """Yield arrays of one entry per row on the device of X, so that they move once and not for every block or batch."""
    return (to_device_of(values, X, values.dtype) for values in columns)


def zeros_on_device(shape: tuple[int, ...], X: Any, dtype: Any = np.float64) -> Any:
    """Return zeros on the device of X."""
    return to_device_of(np.zeros(shape, dtype), X, dtype)


def sum_of_squares(table: Any, axis: int) -> Any:
    """Return the sum of squares of a dense table along the axis."""
    if isinstance(table, DeviceArray):
        return (table * table).sum(axis=axis)
    return np.einsum("ij,ij->j" if axis == 0 else "ij,ij->i", table, table)


def is_in_host_memory(X: Any) -> bool:
    """Return whether X is in the memory of the CPU, by the name of its device."""
    return not isinstance(X, DeviceArray) or "cpu" in str(X.array.device).lower()


def block_size(X: Any) -> int:
    """Return the bytes of X and of raw predictions per block of rows."""
    return _BLOCK_SIZE * block_factor(X)


def block_factor(X: Any) -> int:
    """Return the factor on the size of blocks of rows, relative to blocks in host memory."""
    return 1 if is_in_host_memory(X) else _DEVICE_FACTOR
