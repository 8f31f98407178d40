"""Operations that take, put, repeat, pad and pool elements along dimensions."""

import keras
import numpy as np

from keras_iss.tracing.labels import Axis, Traced
from keras_iss.tracing.labels import concatenate as concatenate_axes
from keras_iss.tracing.registry import operation_rule
from keras_iss.tracing.rules.common import (
    as_traced,
    broadcast,
    dimensions,
    each,
)


def _first(flags):
    return flags[0]


@operation_rule("GetItem")
def get_item(call, x, key):
    keys = list(key) if isinstance(key, (list, tuple)) else [key]
    if not all(_is_plain_index(part) for part in keys):
        call.pin(x, "indexes it with a tensor")
        return call.output()
    if not any(part is Ellipsis for part in keys):
        keys.append(Ellipsis)
    consumed = sum(part is not None and part is not Ellipsis for part in keys)
    dimensions = iter(range(len(x.shape)))
    axes = []
    for part in keys:
        if part is None:
            axes.append(None)
        elif part is Ellipsis:
            for _ in range(len(x.shape) - consumed):
                axes.append(x.axes[next(dimensions)])
        else:
            i = next(dimensions)
            axis = x.axes[i]
            if axis is not None and _is_backwards(part):
                axis = Axis(axis.labels[::-1], axis.zero[::-1])
            elif not _is_whole(part, x.shape[i]):
                call.pin(axis, "indexes the units")
                axis = None
            if isinstance(part, slice):
                axes.append(axis)
    return call.output(dict(enumerate(axes)))


def _is_plain_index(key):
    if isinstance(key, bool):
        return False
    return key is None or key is Ellipsis or isinstance(key, (int, slice))


def _is_backwards(key):
    """Whether it is a slice that turns a whole axis around."""
    return key == slice(None, None, -1)


def _is_whole(key, size):
    """Whether a slice takes a whole axis, whatever its size becomes."""
    return (
        isinstance(key, slice)
        and key.start in (None, 0)
        and key.step in (None, 1)
        and (key.stop is None or (size is not None and key.stop >= size))
    )


@operation_rule("Take")
def take(call, x, indices):
    x, indices = as_traced(x), as_traced(indices)
    call.pin(indices, "takes it for an index")
    if call.operation.axis is None:
        call.pin(x, "indexes the units")
        return call.output()
    taken = call.operation.axis % len(x.shape)
    carried = [i for i in range(len(x.shape)) if i != taken]
    x = call.pin_all_but(x, carried, "indexes the units")
    axes = list(x.axes)
    axes[taken : taken + 1] = [None] * len(indices.shape)
    return call.output(dict(enumerate(axes)))


@operation_rule("TakeAlongAxis")
def take_along_axis(call, x, indices):
    x, indices = as_traced(x), as_traced(indices)
    if call.operation.axis is None:
        call.pin([x, indices], "indexes the units")
        return call.output()
    taken = call.operation.axis % len(x.shape)
    carried = [i for i in range(len(x.shape)) if i != taken]
    x = call.pin_all_but(x, carried, "indexes the units")
    indices = call.pin_all_but(indices, carried, "takes it for an index")
    # Along the others they are stretched to one shape; along this one, they
    # have nothing to do with each other.
    axes = broadcast(
        call,
        [
            tensor.replace(
                [1 if i == taken else n for i, n in enumerate(shape)]
            )
            for tensor, shape in ((x, x.shape), (indices, indices.shape))
        ],
        _first,
    )
    return call.output(dict(enumerate(axes)))


@operation_rule("Slice")
def slice_(call, inputs, start_indices):
    inputs = as_traced(inputs)
    axes = {}
    for i, axis in enumerate(inputs.axes):
        if axis is None:
            continue
        if _starts_at_zero(start_indices, i) and (
            call.operation.shape[i] == len(axis)
        ):
            axes[i] = axis
            call.set_size(("shape", i), axis)
        else:
            call.pin(axis, "indexes the units")
    return call.output(axes)


def _starts_at_zero(indices, dimension):
    if isinstance(indices, Traced):
        return False
    try:
        return int(np.asarray(indices[dimension])) == 0
    except (TypeError, ValueError):
        return False  # Some of them are tensors of the model.


@operation_rule("SliceUpdate")
def slice_update(call, inputs, start_indices, updates):
    inputs, updates = as_traced(inputs), as_traced(updates)
    axes = {}
    for i, (old, new) in enumerate(zip(inputs.axes, updates.axes)):
        whole = inputs.shape[i] == updates.shape[i]
        if old is None and new is None:
            continue
        if whole and _starts_at_zero(start_indices, i):
            axes[i] = call.tie(inputs.axis(i), updates.axis(i))
        else:
            call.pin([old, new], "writes into the units")
    return call.output(axes)


@operation_rule("ScatterUpdate")
def scatter_update(call, inputs, indices, updates):
    """Writes into the first dimensions, as many as an index has numbers."""
    inputs, indices, updates = map(as_traced, (inputs, indices, updates))
    call.pin(indices, "takes it for an index")
    depth = indices.shape[-1]
    if depth is None or call.operation.reduction not in (None, "add"):
        call.pin([inputs, updates], "writes into the units")
        return call.output()
    rank = len(inputs.shape)
    inputs = call.pin_all_but(inputs, range(depth, rank), "writes into them")
    lead = len(updates.shape) - (rank - depth)
    updates = call.pin_all_but(
        updates, range(lead, len(updates.shape)), "writes them"
    )
    return call.output(
        {
            i: call.tie(inputs.axis(i), updates.axis(i - depth + lead))
            for i in range(depth, rank)
        }
    )


@operation_rule("Repeat")
def repeat(call, x):
    axis, times = call.operation.axis, call.operation.repeats
    if axis is None:
        call.pin(x, "flattens it")
        return call.output()
    (place,) = dimensions(axis, x)
    axes = list(x.axes)
    if axes[place] is not None:
        if np.ndim(times):
            call.pin(axes[place], "repeats each unit a number of times")
            axes[place] = None
        else:
            axes[place] = each(axes[place], int(times))
    return call.output(dict(enumerate(axes)))


@operation_rule("Tile")
def tile(call, x):
    repeats = call.operation.repeats
    repeats = list(repeats) if isinstance(repeats, (list, tuple)) else [repeats]
    rank = max(len(repeats), len(x.shape))
    repeats = [1] * (rank - len(repeats)) + repeats
    axes = [None] * (rank - len(x.shape)) + list(x.axes)
    for i, times in enumerate(repeats):
        if axes[i] is not None and times != 1:
            axes[i] = axes[i].repeat(int(times))
    return call.output(dict(enumerate(axes)))


@operation_rule("Pad")
def pad(call, x, constant_values=None):
    widths = np.broadcast_to(call.operation.pad_width, (len(x.shape), 2))
    constant = call.operation.mode == "constant"
    zero = not constant or constant_values is None
    axes = []
    for axis, (before, after) in zip(x.axes, widths.tolist()):
        if axis is not None and (before or after):
            if constant:
                axis = concatenate_axes(
                    [Axis.fixed(before), axis, Axis.fixed(after)]
                )
            else:
                call.pin(axis, "pads the units with others of them")
                axis = None
        elif axis is not None and not zero:
            axis = axis.with_zero(False)
        axes.append(axis)
    return call.output(dict(enumerate(axes)))


@operation_rule("MaxPool AveragePool AdaptiveAveragePool AdaptiveMaxPool")
def pool(call, inputs):
    first = call.operation.data_format or keras.config.image_data_format()
    channel = 1 if first == "channels_first" else len(inputs.shape) - 1
    inputs = call.pin_all_but(inputs, [channel], "pools over the units")
    return call.output({channel: inputs.axes[channel]})
