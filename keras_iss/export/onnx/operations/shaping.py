"""Operations that move numbers and leave them as they are."""

import keras
import numpy as np

from keras_iss.export.onnx.graph import Value
from keras_iss.export.onnx.operations.elementwise import type_of_both
from keras_iss.export.onnx.operations.table import operation

_END = 2**62


@operation("Reshape")
def reshape(lowering, x):
    shape = list(_sizes(lowering, lowering.layer.newshape))
    if shape.count(None) == 1 and -1 not in shape:
        shape[shape.index(None)] = -1
    for axis, size in enumerate(shape):
        if size is not None:
            continue
        # That of the tensor at the same place is copied.
        if axis >= x.rank or x.sizes[axis] is not None:
            lowering.refuse(
                f"a reshape of {x.shape} to {tuple(shape)} has open sizes, "
                "and which is which is not known; write -1 for one of them"
            )
        shape[axis] = 0
    return lowering.node("Reshape", [x, lowering.integers(*shape)])


def _sizes(lowering, shape):
    shape = [shape] if isinstance(shape, int) else list(shape)
    for size in shape:
        if size is not None and not isinstance(size, (int, np.integer)):
            lowering.refuse("a shape is computed from a tensor")
    return shape


@operation("Ravel")
def ravel(lowering, x):
    return lowering.node("Reshape", [x, lowering.integers(-1)])


@operation("Transpose")
def transpose(lowering, x):
    axes = lowering.layer.axes
    if axes is None:
        axes = range(x.rank)[::-1]
    return lowering.transpose(x, [axis % x.rank for axis in axes])


@operation("Swapaxes")
def swapaxes(lowering, x):
    op = lowering.layer
    order = list(range(x.rank))
    a, b = op.axis1 % x.rank, op.axis2 % x.rank
    order[a], order[b] = order[b], order[a]
    return lowering.transpose(x, order)


@operation("Moveaxis")
def moveaxis(lowering, x):
    op = lowering.layer
    source = [axis % x.rank for axis in op.source]
    destination = [axis % x.rank for axis in op.destination]
    order = [axis for axis in range(x.rank) if axis not in source]
    for to, axis in sorted(zip(destination, source)):
        order.insert(to, axis)
    return lowering.transpose(x, order)


@operation("ExpandDims")
def expand_dims(lowering, x):
    axes = lowering.layer.axis
    axes = [axes] if isinstance(axes, int) else axes
    return lowering.node("Unsqueeze", [x, lowering.integers(*axes)])


@operation("Squeeze")
def squeeze(lowering, x):
    axes = lowering.layer.axis
    if axes is None:
        axes = [i for i, size in enumerate(x.sizes) if size == 1]
    axes = [axes] if isinstance(axes, int) else axes
    return lowering.node("Squeeze", [x, lowering.integers(*axes)])


@operation("Concatenate")
def concatenate(lowering, xs):
    dtype = _common(lowering)
    values = [lowering.value(x, dtype) for x in xs]
    axis = lowering.layer.axis
    return lowering.node("Concat", values, axis=axis)


def _common(lowering):
    dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
    return "float32" if dtype == "bfloat16" else dtype


@operation("Stack")
def stack(lowering, xs):
    dtype = _common(lowering)
    axes = lowering.integers(lowering.layer.axis)
    values = [
        lowering.node("Unsqueeze", [lowering.value(x, dtype), axes]) for x in xs
    ]
    return lowering.node("Concat", values, axis=lowering.layer.axis)


@operation("Split")
def split(lowering, x):
    op = lowering.layer
    parts = op.indices_or_sections
    if isinstance(parts, int):
        found = lowering.node(
            "Split", [x], parts, axis=op.axis, num_outputs=parts
        )
        return [found] if parts == 1 else found
    starts, ends = [0, *parts], [*parts, _END]
    return [
        _slice(lowering, x, [start], [end], [op.axis])
        for start, end in zip(starts, ends)
    ]


def _slice(lowering, x, starts, ends, axes, steps=None):
    given = [x, *(lowering.integers(*y) for y in (starts, ends, axes))]
    if steps is not None:
        given.append(lowering.integers(*steps))
    return lowering.node("Slice", given)


@operation("Unstack")
def unstack(lowering, x):
    axis = lowering.layer.axis
    count = lowering.layer.num or x.sizes[axis]
    if count is None:
        lowering.refuse("`unstack` along an axis of open size")
    return [
        lowering.node("Gather", [x, np.array(i, "int64")], axis=axis)
        for i in range(count)
    ]


@operation("GetItem")
def get_item(lowering, x, key):
    key = list(key) if isinstance(key, (list, tuple)) else [key]
    if any(isinstance(part, Value) for part in keras.tree.flatten(key)):
        lowering.refuse("it is indexed by a tensor in brackets; use ops.take")
    if Ellipsis not in key:
        key.append(Ellipsis)
    taken = sum(part is not None and part is not Ellipsis for part in key)
    at = key.index(Ellipsis)
    key[at : at + 1] = [slice(None)] * (x.rank - taken)
    axis, picked, added, cuts = 0, [], [], []
    place = 0
    for part in key:
        if part is None:
            added.append(place)
            place += 1
            continue
        if isinstance(part, (int, np.integer)):
            picked.append((axis, int(part)))
        elif isinstance(part, slice):
            cuts.append((axis, part))
            place += 1
        else:
            lowering.refuse(f"it is indexed by {part!r}")
        axis += 1
    x = _cut(lowering, x, cuts)
    for axis, index in reversed(picked):
        x = lowering.node("Gather", [x, np.array(index, "int64")], axis=axis)
    if added:
        x = lowering.node("Unsqueeze", [x, lowering.integers(*added)])
    return Value(x.name, x.dtype, x.shape)


def _cut(lowering, x, cuts):
    starts, ends, axes, steps = [], [], [], []
    for axis, part in cuts:
        for number in (part.start, part.stop, part.step):
            if number is not None and not isinstance(number, (int, np.integer)):
                lowering.refuse("it is cut at a place that a tensor says")
        if part == slice(None):
            continue
        step = 1 if part.step is None else part.step
        first, last = (0, _END) if step > 0 else (_END, -_END)
        starts.append(first if part.start is None else part.start)
        ends.append(last if part.stop is None else part.stop)
        axes.append(axis)
        steps.append(step)
    return _slice(lowering, x, starts, ends, axes, steps) if axes else x


@operation("Slice")
def slice_at(lowering, x, start_indices):
    if isinstance(start_indices, Value) or any(
        isinstance(start, Value) for start in start_indices
    ):
        lowering.refuse("it is cut at a place that a tensor says")
    sizes = lowering.layer.shape
    starts = [int(start) for start in start_indices]
    ends = [
        _END if size is None else start + size
        for start, size in zip(starts, sizes)
    ]
    return _slice(lowering, x, starts, ends, list(range(len(starts))))


@operation("Take")
def take(lowering, x, indices):
    axis = lowering.layer.axis
    x = lowering.value(x)
    if axis is None:
        x = lowering.node("Reshape", [x, lowering.integers(-1)])
        axis = 0
    indices = lowering.value(indices)
    if indices.dtype not in ("int32", "int64"):
        indices = lowering.cast(indices, "int64")
    return lowering.node("Gather", [x, indices], axis=axis)


@operation("TakeAlongAxis")
def take_along_axis(lowering, x, indices):
    axis = lowering.layer.axis
    indices = lowering.value(indices, "int64")
    if axis is None:
        lowering.refuse("`take_along_axis` over all axes")
    return lowering.node("GatherElements", [x, indices], axis=axis)


@operation("Flip")
def flip(lowering, x):
    axes = lowering.layer.axis
    axes = range(x.rank) if axes is None else axes
    return flipped(lowering, x, [axes] if isinstance(axes, int) else list(axes))


def flipped(lowering, x, axes):
    """A tensor with some axes in reverse order."""
    count = len(axes)
    return _slice(
        lowering, x, [-1] * count, [-_END] * count, axes, [-1] * count
    )


@operation("Repeat")
def repeat(lowering, x):
    op = lowering.layer
    if not isinstance(op.repeats, (int, np.integer)):
        lowering.refuse("`repeat` with a number for each place")
    axis = op.axis
    if axis is None:
        x = lowering.node("Reshape", [x, lowering.integers(-1)])
        x.shape, axis = (None,), 0
    axis %= x.rank
    new = lowering.node("Unsqueeze", [x, lowering.integers(axis + 1)])
    counts = [1] * (x.rank + 1)
    counts[axis + 1] = int(op.repeats)
    new = lowering.node("Expand", [new, lowering.integers(*counts)])
    sizes = [0] * axis + [-1] + list(x.sizes[axis + 1 :])
    if None in sizes[axis + 1 :]:
        shape = lowering.node("Shape", [x], dtype="int64")
        factors = np.ones(x.rank, "int64")
        factors[axis] = op.repeats
        target = lowering.node("Mul", [shape, factors])
    else:
        target = lowering.integers(*sizes)
    return lowering.node("Reshape", [new, target])


@operation("Tile")
def tile(lowering, x):
    repeats = _sizes(lowering, lowering.layer.repeats)
    repeats = [1] * (x.rank - len(repeats)) + repeats
    if len(repeats) > x.rank:
        new = list(range(len(repeats) - x.rank))
        x = lowering.node("Unsqueeze", [x, lowering.integers(*new)])
    return lowering.node("Tile", [x, lowering.integers(*repeats)])


@operation("BroadcastTo")
def broadcast_to(lowering, x):
    shape = _sizes(lowering, lowering.layer.shape)
    aligned = [1] * (len(shape) - x.rank) + list(x.sizes)
    for size, own in zip(shape, aligned):
        if size is None and own is not None:
            lowering.refuse(
                f"{x.shape} is broadcast to {tuple(shape)}, whose open size "
                "is not its own"
            )
    sizes = [1 if size is None else size for size in shape]
    return lowering.node("Expand", [x, lowering.integers(*sizes)])


@operation("Pad")
def pad(lowering, x, constant_values=None):
    op = lowering.layer
    widths = list(op.pad_width)
    if len(widths) == 1:
        widths = widths * x.rank
    modes = {"constant": "constant", "reflect": "reflect", "edge": "edge"}
    if op.mode not in modes:
        lowering.refuse(f"padding in mode {op.mode!r} has no operator")
    pads = [before for before, _ in widths] + [after for _, after in widths]
    given = [x, lowering.integers(*pads)]
    if op.mode == "constant" and constant_values:
        given.append(lowering.value(constant_values, x.dtype))
    return lowering.node("Pad", given, mode=modes[op.mode])


@operation("Roll")
def roll(lowering, x):
    op = lowering.layer
    if not isinstance(op.shift, int) or not isinstance(op.axis, int):
        lowering.refuse("`roll` over several axes")
    if not op.shift:
        return lowering.node("Identity", [x])
    last = _slice(lowering, x, [-op.shift], [_END], [op.axis])
    first = _slice(lowering, x, [0], [-op.shift], [op.axis])
    return lowering.node("Concat", [last, first], axis=op.axis)


@operation("Tril", "Triu")
def triangle(lowering, x):
    op = lowering.layer
    upper = int(type(op).__name__ == "Triu")
    place = np.array(op.k, "int64")
    if x.dtype == "bool":
        numbers = lowering.cast(x, "int64")
        found = lowering.node("Trilu", [numbers, place], upper=upper)
        return lowering.cast(found, "bool")
    return lowering.node("Trilu", [x, place], upper=upper)


@operation("OneHot")
def one_hot(lowering, x):
    op = lowering.layer
    if op.sparse:
        lowering.refuse("a sparse tensor")
    dtype = _common(lowering)
    x = lowering.cast(x, "int64")
    # What lies outside of the table gives zeros; ONNX counts from its end.
    axis = op.axis % (x.rank + 1)
    row = np.arange(op.num_classes).reshape([-1] + [1] * (x.rank - axis))
    new = lowering.node("Unsqueeze", [x, lowering.integers(axis)])
    found = lowering.node("Equal", [new, row.astype("int64")], dtype="bool")
    return lowering.cast(found, dtype)


@operation("Isin", "IsIn")
def is_in(lowering, x1, x2):
    op = lowering.layer
    dtype = type_of_both(x1, x2)
    values = lowering.value(x2, dtype)
    flat = lowering.node("Reshape", [values, lowering.integers(-1)])
    new = lowering.node(
        "Unsqueeze", [lowering.value(x1, dtype), lowering.integers(-1)]
    )
    same = lowering.node("Equal", [new, flat], dtype="bool")
    found = lowering.node(
        "ReduceMax",
        [lowering.cast(same, "int32"), lowering.integers(-1)],
        keepdims=0,
    )
    found = lowering.cast(found, "bool")
    return lowering.node("Not", [found]) if op.invert else found
