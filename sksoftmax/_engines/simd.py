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
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from sksoftmax._types import Array

#: Classes that one vector instruction takes; rows of coefficients are padded to a multiple.
LANES = 8

#: Bytes that a cache takes at a time.
_LINE = 64

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


def accumulate_row(
    table: Array, n_lanes: int, indices: Array, values: Array, start: int, end: int, z: Array, first: int
) -> None:
    """``accumulate`` from ``at = indices[e] * n_lanes + first``, ``value = values[e]``, for e from start to end.

    Compiled, the sums are two, in registers: one in memory would wait for itself.
    """
    for e in range(start, end):
        for k in range(first, first + LANES):
            z[k] += values[e] * table[indices[e] * n_lanes + k]


def accumulate_soft_row(
    table: Array, n_lanes: int, indices: Array, values: Array, start: int, end: int, z: Array, first: int, soft: Array
) -> None:
    """``accumulate_row``, of the table's numbers soft-thresholded at ``soft[indices[e]]``."""
    for e in range(start, end):
        j = indices[e]
        for k in range(first, first + LANES):
            w = table[j * n_lanes + k]
            z[k] += values[e] * (w - min(max(w, -soft[j]), soft[j]))


def add_to_row(
    table: Array, n_lanes: int, indices: Array, values: Array, start: int, end: int, z: Array, first: int
) -> None:
    """``table[at:at+8] += value * z[first:first+8]`` of the same entries."""
    for e in range(start, end):
        for k in range(first, first + LANES):
            table[indices[e] * n_lanes + k] += values[e] * z[k]


def prefetch(array: Array, start: int, end: int) -> None:
    """Ask memory for the numbers of ``array`` from ``start`` to ``end``, all its axes as one, without waiting."""


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Pointer to an array's first number; those that follow are taken to be next to each other."""
    if array_type.layout != "C":
        raise TypingError("the kernels take contiguous arrays")
    return context.make_array(array_type)(context, builder, array).data


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to the 8 numbers of ``array`` from ``index``."""
    data = _data(context, builder, array_type, array)
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


def _entries(context: Any, builder: Any, signature: Any, args: Any) -> Callable[[Any], tuple[Any, Any, Any]]:
    """An entry's number to its column, its value, and the pointer to its 8 numbers of the table.

    ``args`` are those of ``accumulate_row`` and its like.
    """
    of_table, _, of_indices, of_values, *_ = signature.args
    table, n_lanes, indices, values, _, _, _, first, *_ = args
    indices = _data(context, builder, of_indices, indices)
    values = _data(context, builder, of_values, values)

    def entry(e: Any) -> tuple[Any, Any, Any]:
        column = context.cast(builder, builder.load(builder.gep(indices, [e])), of_indices.dtype, types.intp)
        at = builder.add(builder.mul(column, n_lanes), first)
        return column, builder.load(builder.gep(values, [e])), _pointer(context, builder, of_table, table, at)

    return entry


def _summed_row(context: Any, builder: Any, signature: Any, args: Any, changed: Callable[[Any, Any], Any]) -> Any:
    """``z[first:first+8] +=`` the sum of the row's values times what ``(column, numbers)`` is ``changed`` to."""
    entry, (start, end, of_z, first) = _entries(context, builder, signature, args), args[4:8]
    dtype = signature.args[0].dtype
    lanes = ir.VectorType(context.get_data_type(dtype), LANES)
    target, one = _pointer(context, builder, signature.args[6], of_z, first), ir.Constant(start.type, 1)
    even, odd = (cgutils.alloca_once(builder, lanes) for _ in range(2))
    builder.store(_load(builder, target, dtype), even)
    builder.store(ir.Constant(lanes, [0.0] * LANES), odd)

    def plus_entry(total: Any, e: Any) -> None:
        column, value, source = entry(e)
        w = changed(column, _load(builder, source, dtype))
        builder.store(_plus_product(builder, builder.load(total), value, w), total)

    n_entries = builder.sub(end, start)
    with cgutils.for_range(builder, builder.ashr(n_entries, one)) as loop:
        e = builder.add(start, builder.shl(loop.index, one))
        plus_entry(even, e)
        plus_entry(odd, builder.add(e, one))
    with builder.if_then(builder.trunc(n_entries, ir.IntType(1))):
        plus_entry(even, builder.sub(end, one))
    _store(builder, builder.fadd(builder.load(even), builder.load(odd), flags=_FLAGS), target, dtype)
    return context.get_dummy_value()


@intrinsic
def _accumulate_row(
    typing: Any, table: Any, n_lanes: Any, indices: Any, values: Any, start: Any, end: Any, z: Any, first: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _summed_row(context, builder, signature, args, lambda column, w: w)

    return types.void(table, types.intp, indices, values, types.intp, types.intp, z, types.intp), generate


@intrinsic
def _accumulate_soft_row(
    typing: Any,
    table: Any,
    n_lanes: Any,
    indices: Any,
    values: Any,
    start: Any,
    end: Any,
    z: Any,
    first: Any,
    soft: Any,
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        thresholds = _data(context, builder, signature.args[8], args[8])

        def softened(column: Any, w: Any) -> Any:
            most = _splat(builder, builder.load(builder.gep(thresholds, [column])))
            least = builder.fsub(ir.Constant(most.type, [0.0] * LANES), most)
            clipped = _extreme(builder, "minnum", _extreme(builder, "maxnum", w, least), most)
            return builder.fsub(w, clipped, flags=_FLAGS)

        return _summed_row(context, builder, signature, args, softened)

    return types.void(table, types.intp, indices, values, types.intp, types.intp, z, types.intp, soft), generate


@intrinsic
def _add_to_row(
    typing: Any, table: Any, n_lanes: Any, indices: Any, values: Any, start: Any, end: Any, z: Any, first: Any
) -> Any:
    dtype = table.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entry, (start, end, of_z, first) = _entries(context, builder, signature, args), args[4:]
        change = _load(builder, _pointer(context, builder, signature.args[6], of_z, first), dtype)
        with cgutils.for_range_slice(builder, start, end, ir.Constant(start.type, 1), start.type) as (e, _):
            _, value, target = entry(e)
            _store(builder, _plus_product(builder, _load(builder, target, dtype), value, change), target, dtype)
        return context.get_dummy_value()

    return types.void(table, types.intp, indices, values, types.intp, types.intp, z, types.intp), generate


@intrinsic
def _prefetch(typing: Any, array: Any, start: Any, end: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _data(context, builder, signature.args[0], args[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        how = [ir.Constant(number, k) for k in (0, 3, 1)]  # to be read, and kept, and it is data
        first, last = (builder.ptrtoint(builder.gep(data, [at]), args[1].type) for at in args[1:])
        line = ir.Constant(first.type, _LINE)
        first = builder.and_(first, ir.Constant(first.type, -_LINE))
        with cgutils.for_range_slice(builder, first, last, line, first.type) as (at, _):
            builder.call(function, [builder.inttoptr(at, byte), *how])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


# numba compares the parameters of the two functions, annotations and all: hence functions without any
overload(accumulate, inline="always")(
    lambda table, at, z, first, value: lambda table, at, z, first, value: _accumulate(table, at, z, first, value)
)
overload(accumulate_row, inline="always")(
    lambda table, n_lanes, indices, values, start, end, z, first: (
        lambda table, n_lanes, indices, values, start, end, z, first: _accumulate_row(
            table, n_lanes, indices, values, start, end, z, first
        )
    )
)
overload(accumulate_soft_row, inline="always")(
    lambda table, n_lanes, indices, values, start, end, z, first, soft: (
        lambda table, n_lanes, indices, values, start, end, z, first, soft: _accumulate_soft_row(
            table, n_lanes, indices, values, start, end, z, first, soft
        )
    )
)
overload(add_to_row, inline="always")(
    lambda table, n_lanes, indices, values, start, end, z, first: (
        lambda table, n_lanes, indices, values, start, end, z, first: _add_to_row(
            table, n_lanes, indices, values, start, end, z, first
        )
    )
)
overload(prefetch, inline="always")(lambda array, start, end: lambda array, start, end: _prefetch(array, start, end))
