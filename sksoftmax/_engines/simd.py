"""The decorator that compiles functions with numba, and SIMD operations on eight classes at a time.

`compiled` and `compiled_row` are built on this module, the only one that imports numba. Each operation is a plain
Python function on flat arrays, which defines its result. In compiled code it is replaced by vector instructions,
because numba does not vectorise a loop over 8 classes: its vectoriser needs long loops and arrays that provably do not
overlap.
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

#: Classes per vector instruction; the classes of a feature are padded to a multiple of it.
LANES = 8

#: Bytes of a cache line.
_LINE = 64

#: Fast-math flags: sums may be reordered and products fused, but infinities keep their meaning.
FAST = {"nnan", "nsz", "reassoc", "contract", "arcp"}

#: Fast-math flags where the order of operations matters: products may be fused, nothing else.
EXACT = {"contract"}

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Fast-math flags of the vector instructions: products may be fused, and the sign of 0 may change.
_FLAGS = ("contract", "nsz")


def compiled(fastmath: set[str]) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles a function at its first call, and caches it on disk if numba can write there."""
    options: dict[str, Any] = {"fastmath": fastmath, "nogil": True, "error_model": "numpy"}

    def decorate(function: _Function) -> _Function:
        try:
            jitted: _Function = njit(cache=True, **options)(function)
        except RuntimeError:  # numba has no folder to write to
            jitted = njit(**options)(function)
        return jitted

    return decorate


def accumulate(table: Array, offset: int, z: Array, first: int, value: float) -> None:
    """Compute ``z[first:first+8] += value * table[offset:offset+8]``."""
    for k in range(LANES):
        z[first + k] += value * table[offset + k]


def accumulate_row(
    table: Array, n_lanes: int, indices: Array, values: Array, start: int, end: int, z: Array, first: int
) -> None:
    """Do `accumulate` for e from start to end: ``offset = indices[e] * n_lanes + first``, ``value = values[e]``.

    The compiled version has two sums in registers: with one sum in memory each addition would wait for the one before.
    """
    for e in range(start, end):
        for k in range(first, first + LANES):
            z[k] += values[e] * table[indices[e] * n_lanes + k]


def accumulate_soft_row(
    table: Array,
    n_lanes: int,
    indices: Array,
    values: Array,
    start: int,
    end: int,
    z: Array,
    first: int,
    l1_thresholds: Array,
) -> None:
    """Do `accumulate_row` with the entries of the table soft-thresholded at ``l1_thresholds[indices[e]]``."""
    for e in range(start, end):
        j = indices[e]
        for k in range(first, first + LANES):
            w = table[j * n_lanes + k]
            z[k] += values[e] * (w - min(max(w, -l1_thresholds[j]), l1_thresholds[j]))


def add_to_row(
    table: Array, n_lanes: int, indices: Array, values: Array, start: int, end: int, z: Array, first: int
) -> None:
    """Compute ``table[offset:offset+8] += value * z[first:first+8]`` for each e, ``offset`` and ``value`` as above."""
    for e in range(start, end):
        for k in range(first, first + LANES):
            table[indices[e] * n_lanes + k] += values[e] * z[k]


def prefetch(array: Array, start: int, end: int) -> None:
    """Prefetch entries ``start`` to ``end`` of the flattened ``array`` into the cache, without waiting."""


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Return the pointer to the first entry of a contiguous array."""
    if array_type.layout != "C":
        raise TypingError("the compiled functions take contiguous arrays only")
    return context.make_array(array_type)(context, builder, array).data


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the pointer to the vector of 8 entries of ``array`` from ``index``."""
    data = _data(context, builder, array_type, array)
    lanes = ir.VectorType(context.get_data_type(array_type.dtype), LANES)
    return builder.bitcast(builder.gep(data, [index]), lanes.as_pointer())


def _load(builder: Any, pointer: Any, dtype: Any) -> Any:
    """Load a vector of 8 entries."""
    loaded = builder.load(pointer)
    loaded.align = dtype.bitwidth // 8  # of one entry: rows need not be aligned to vectors
    return loaded


def _store(builder: Any, value: Any, pointer: Any, dtype: Any) -> None:
    """Store a vector of 8 entries."""
    builder.store(value, pointer).align = dtype.bitwidth // 8


def _broadcast(builder: Any, value: Any) -> Any:
    """Return a vector of 8 copies of ``value``."""
    lanes = ir.VectorType(value.type, LANES)
    undefined = ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _elementwise(builder: Any, name: str, left: Any, right: Any) -> Any:
    """Return the elementwise ``minnum`` or ``maxnum`` of two vectors, by LLVM's intrinsic."""
    lanes = left.type
    lane = "f32" if isinstance(lanes.element, ir.FloatType) else "f64"
    signature = ir.FunctionType(lanes, [lanes, lanes])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}{lane}")
    return builder.call(function, [left, right], fastmath=("nnan", "nsz"))


def _add_product(builder: Any, total: Any, factor: Any, value: Any) -> Any:
    """Return ``total + factor * value`` for vectors ``total`` and ``value`` and a scalar ``factor``."""
    return builder.fadd(total, builder.fmul(_broadcast(builder, factor), value, flags=_FLAGS), flags=_FLAGS)


@intrinsic
def _accumulate(typing: Any, table: Any, offset: Any, z: Any, first: Any, value: Any) -> Any:
    """Emit the vector instructions of `accumulate`."""
    dtype = table.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = _pointer(context, builder, signature.args[0], args[0], args[1])
        target = _pointer(context, builder, signature.args[2], args[2], args[3])
        w, total = _load(builder, source, dtype), _load(builder, target, dtype)
        _store(builder, _add_product(builder, total, args[4], w), target, dtype)
        return context.get_dummy_value()

    return types.void(table, types.intp, z, types.intp, dtype), generate


def _entry_reader(context: Any, builder: Any, signature: Any, args: Any) -> Callable[[Any], tuple[Any, Any, Any]]:
    """Return a function of e that gives the column and value of entry e, and the pointer to its 8 table entries.

    ``args`` are the arguments of `accumulate_row`, or of a function with the same first arguments.
    """
    table_type, _, indices_type, values_type, *_ = signature.args
    table, n_lanes, indices, values, _, _, _, first, *_ = args
    indices = _data(context, builder, indices_type, indices)
    values = _data(context, builder, values_type, values)

    def entry(e: Any) -> tuple[Any, Any, Any]:
        column = context.cast(builder, builder.load(builder.gep(indices, [e])), indices_type.dtype, types.intp)
        offset = builder.add(builder.mul(column, n_lanes), first)
        return column, builder.load(builder.gep(values, [e])), _pointer(context, builder, table_type, table, offset)

    return entry


def _accumulate_entries(
    context: Any, builder: Any, signature: Any, args: Any, transform: Callable[[Any, Any], Any]
) -> Any:
    """Compute ``z[first:first+8] += sum_e value_e * transform(column_e, w_e)``, w_e the 8 table entries of entry e."""
    entry, (start, end, z_array, first) = _entry_reader(context, builder, signature, args), args[4:8]
    dtype = signature.args[0].dtype
    lanes = ir.VectorType(context.get_data_type(dtype), LANES)
    target, one = _pointer(context, builder, signature.args[6], z_array, first), ir.Constant(start.type, 1)
    even, odd = (cgutils.alloca_once(builder, lanes) for _ in range(2))
    builder.store(_load(builder, target, dtype), even)
    builder.store(ir.Constant(lanes, [0.0] * LANES), odd)

    def plus_entry(total: Any, e: Any) -> None:
        column, value, source = entry(e)
        w = transform(column, _load(builder, source, dtype))
        builder.store(_add_product(builder, builder.load(total), value, w), total)

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
    """Emit the vector instructions of `accumulate_row`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _accumulate_entries(context, builder, signature, args, lambda column, w: w)

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
    l1_thresholds: Any,
) -> Any:
    """Emit the vector instructions of `accumulate_soft_row`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        thresholds = _data(context, builder, signature.args[8], args[8])

        def softened(column: Any, w: Any) -> Any:
            upper = _broadcast(builder, builder.load(builder.gep(thresholds, [column])))
            lower = builder.fsub(ir.Constant(upper.type, [0.0] * LANES), upper)
            clipped = _elementwise(builder, "minnum", _elementwise(builder, "maxnum", w, lower), upper)
            return builder.fsub(w, clipped, flags=_FLAGS)

        return _accumulate_entries(context, builder, signature, args, softened)

    return types.void(
        table, types.intp, indices, values, types.intp, types.intp, z, types.intp, l1_thresholds
    ), generate


@intrinsic
def _add_to_row(
    typing: Any, table: Any, n_lanes: Any, indices: Any, values: Any, start: Any, end: Any, z: Any, first: Any
) -> Any:
    """Emit the vector instructions of `add_to_row`."""
    dtype = table.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entry, (start, end, z_array, first) = _entry_reader(context, builder, signature, args), args[4:]
        change = _load(builder, _pointer(context, builder, signature.args[6], z_array, first), dtype)
        with cgutils.for_range_slice(builder, start, end, ir.Constant(start.type, 1), start.type) as (e, _):
            _, value, target = entry(e)
            _store(builder, _add_product(builder, _load(builder, target, dtype), value, change), target, dtype)
        return context.get_dummy_value()

    return types.void(table, types.intp, indices, values, types.intp, types.intp, z, types.intp), generate


@intrinsic
def _prefetch(typing: Any, array: Any, start: Any, end: Any) -> Any:
    """Emit the vector instructions of `prefetch`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _data(context, builder, signature.args[0], args[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        hints = [ir.Constant(number, k) for k in (0, 3, 1)]  # read access, high locality, data cache
        first, last = (builder.ptrtoint(builder.gep(data, [address]), args[1].type) for address in args[1:])
        line = ir.Constant(first.type, _LINE)
        first = builder.and_(first, ir.Constant(first.type, -_LINE))
        with cgutils.for_range_slice(builder, first, last, line, first.type) as (address, _):
            builder.call(function, [builder.inttoptr(address, byte), *hints])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


# numba compares the signatures of the two functions, annotations included: hence lambdas without annotations
overload(accumulate, inline="always")(
    lambda table, offset, z, first, value: (
        lambda table, offset, z, first, value: _accumulate(table, offset, z, first, value)
    )
)
overload(accumulate_row, inline="always")(
    lambda table, n_lanes, indices, values, start, end, z, first: (
        lambda table, n_lanes, indices, values, start, end, z, first: _accumulate_row(
            table, n_lanes, indices, values, start, end, z, first
        )
    )
)
overload(accumulate_soft_row, inline="always")(
    lambda table, n_lanes, indices, values, start, end, z, first, l1_thresholds: (
        lambda table, n_lanes, indices, values, start, end, z, first, l1_thresholds: _accumulate_soft_row(
            table, n_lanes, indices, values, start, end, z, first, l1_thresholds
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
