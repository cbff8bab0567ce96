"""How functions are compiled, and eight classes at a time: what numba does not turn into SIMD by itself.

Plain functions on flat arrays, which are their own definition; compiled code gets vector instructions in their
place. (numba's loop vectoriser wants long loops and proof that the arrays do not overlap, and a loop over 8
classes has neither.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from sksoftmax._types import Array

#: Classes that one vector instruction takes; rows of coefficients are padded to a multiple.
LANES = 8

#: Freedom of compiled code: sums may be reordered and products fused, but infinities mean what they mean; products
#: fused only.
FAST = {"nnan", "nsz", "reassoc", "contract", "arcp"}
EXACT = {"contract"}

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Freedom that the vector instructions have: fused products, and no care for the sign of 0.
_FLAGS = ("contract", "nsz")


def compiled(fastmath: set[str]) -> Callable[[_Function], _Function]:
    """Decorator: the function compiled at its first call, and kept on disk where there is a place for it."""
    options: dict[str, Any] = {"fastmath": fastmath, "nogil": True, "error_model": "numpy"}

    def decorate(function: _Function) -> _Function:
        try:
            kept: _Function = njit(cache=True, **options)(function)
        except RuntimeError:  # no folder that numba may write to
            kept = njit(**options)(function)
        return kept

    return decorate


def accumulate(table: Array, at: int, z: Array, first: int, value: float) -> None:
    """``z[first:first+8] += value * table[at:at+8]``."""
    for k in range(LANES):
        z[first + k] += value * table[at + k]


def accumulate_soft(table: Array, at: int, z: Array, first: int, value: float, threshold: float) -> None:
    """``z[first:first+8] += value * soft(table[at:at+8])``, soft-thresholded at ``threshold``."""
    for k in range(LANES):
        w = table[at + k]
        z[first + k] += value * (w - min(max(w, -threshold), threshold))


def add_to(table: Array, at: int, z: Array, first: int, value: float) -> None:
    """``table[at:at+8] += value * z[first:first+8]``."""
    for k in range(LANES):
        table[at + k] += value * z[first + k]


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to the 8 numbers of ``array`` from ``index``."""
    data = context.make_array(array_type)(context, builder, array).data
    lanes = ir.VectorType(context.get_data_type(array_type.dtype), LANES)
    return builder.bitcast(builder.gep(data, [index]), lanes.as_pointer())


def _load(builder: Any, pointer: Any, dtype: Any) -> Any:
    loaded = builder.load(pointer)
    loaded.align = dtype.bitwidth // 8  # that of one number: rows need not start at a vector's bounds
    return loaded


def _store(builder: Any, value: Any, pointer: Any, dtype: Any) -> None:
    builder.store(value, pointer).align = dtype.bitwidth // 8


def _splat(builder: Any, value: Any) -> Any:
    """A vector of 8 times ``value``."""
    lanes = ir.VectorType(value.type, LANES)
    undefined = ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _extreme(builder: Any, name: str, left: Any, right: Any) -> Any:
    """``llvm.minnum`` or ``llvm.maxnum`` of two vectors."""
    lanes = left.type
    lane = "f32" if isinstance(lanes.element, ir.FloatType) else "f64"
    signature = ir.FunctionType(lanes, [lanes, lanes])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}{lane}")
    return builder.call(function, [left, right], fastmath=("nnan", "nsz"))


def _plus_product(builder: Any, total: Any, factor: Any, value: Any) -> Any:
    """``total + factor * value``, the factor a number."""
    return builder.fadd(total, builder.fmul(_splat(builder, factor), value, flags=_FLAGS), flags=_FLAGS)


@intrinsic
def _accumulate(typing: Any, table: Any, at: Any, z: Any, first: Any, value: Any) -> Any:
    dtype = table.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = _pointer(context, builder, signature.args[0], args[0], args[1])
        target = _pointer(context, builder, signature.args[2], args[2], args[3])
        w, total = _load(builder, source, dtype), _load(builder, target, dtype)
        _store(builder, _plus_product(builder, total, args[4], w), target, dtype)
        return context.get_dummy_value()

    return types.void(table, types.intp, z, types.intp, dtype), generate


@intrinsic
def _accumulate_soft(typing: Any, table: Any, at: Any, z: Any, first: Any, value: Any, threshold: Any) -> Any:
    dtype = table.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = _pointer(context, builder, signature.args[0], args[0], args[1])
        target = _pointer(context, builder, signature.args[2], args[2], args[3])
        w, total = _load(builder, source, dtype), _load(builder, target, dtype)
        most = _splat(builder, args[5])
        least = builder.fsub(ir.Constant(most.type, [0.0] * LANES), most)
        clipped = _extreme(builder, "minnum", _extreme(builder, "maxnum", w, least), most)
        w = builder.fsub(w, clipped, flags=_FLAGS)
        _store(builder, _plus_product(builder, total, args[4], w), target, dtype)
        return context.get_dummy_value()

    return types.void(table, types.intp, z, types.intp, dtype, dtype), generate


@intrinsic
def _add_to(typing: Any, table: Any, at: Any, z: Any, first: Any, value: Any) -> Any:
    dtype = table.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _pointer(context, builder, signature.args[0], args[0], args[1])
        source = _pointer(context, builder, signature.args[2], args[2], args[3])
        w, change = _load(builder, target, dtype), _load(builder, source, dtype)
        _store(builder, _plus_product(builder, w, args[4], change), target, dtype)
        return context.get_dummy_value()

    return types.void(table, types.intp, z, types.intp, dtype), generate


# numba compares the parameters of the two functions, annotations and all: hence functions without any
overload(accumulate, inline="always")(
    lambda table, at, z, first, value: lambda table, at, z, first, value: _accumulate(table, at, z, first, value)
)
overload(accumulate_soft, inline="always")(
    lambda table, at, z, first, value, threshold: (
        lambda table, at, z, first, value, threshold: _accumulate_soft(table, at, z, first, value, threshold)
    )
)
overload(add_to, inline="always")(
    lambda table, at, z, first, value: lambda table, at, z, first, value: _add_to(table, at, z, first, value)
)
