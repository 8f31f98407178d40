"""Operations that join, split, move and reshape dimensions."""

import numpy as np

from keras_iss.tracing.labels import Traced
from keras_iss.tracing.registry import operation_rule
from keras_iss.tracing.rules.common import (
    as_traced,
    concatenation,
    dimensions,
    reshaped,
)


@operation_rule("Concatenate")
def concatenate(call, xs):
    xs = [as_traced(x) for x in xs]
    return call.output(concatenation(call, xs, call.operation.axis))


@operation_rule("Append")
def append(call, x1, x2):
    if call.operation.axis is None:
        call.pin([x1, x2], "flattens it")
        return call.output()
    xs = [as_traced(x1), as_traced(x2)]
    return call.output(concatenation(call, xs, call.operation.axis))


@operation_rule("Stack")
def stack(call, x):
    xs = [as_traced(tensor) for tensor in x]
    axes = [
        call.tie(*(tensor.axis(i) for tensor in xs))
        for i in range(len(xs[0].shape))
    ]
    axes.insert(call.operation.axis % (len(axes) + 1), None)
    return call.output(dict(enumerate(axes)))


@operation_rule("Hstack Vstack Dstack")
def stack_along(call, xs):
    """They are given the dimensions that they lack, and joined along one."""
    xs = [as_traced(x) for x in xs]
    kind = type(call.operation).__name__
    if kind == "Hstack":
        dimension = min(1, len(xs[0].shape) - 1)
    elif kind == "Vstack":
        xs, dimension = [_in_front(x, 2) for x in xs], 0
    else:
        xs = [_in_front(x, 2) for x in xs]
        xs = [
            x.replace((*x.shape, 1), (*x.axes, None))
            if len(x.shape) == 2
            else x
            for x in xs
        ]
        dimension = 2
    return call.output(concatenation(call, xs, dimension))


def _in_front(x, rank):
    """A tensor with dimensions of size 1 in front."""
    missing = max(0, rank - len(x.shape))
    return x.replace((*[1] * missing, *x.shape), (*[None] * missing, *x.axes))


@operation_rule("Split ArraySplit Unstack")
def split(call, x):
    return _split(call, x, call.operation.axis)


@operation_rule("Hsplit Vsplit Dsplit")
def split_along(call, x):
    kind = type(call.operation).__name__
    axis = {"Hsplit": min(1, len(x.shape) - 1), "Vsplit": 0, "Dsplit": 2}[kind]
    return _split(call, x, axis)


def _split(call, x, axis):
    axis %= len(x.shape)
    carried = [i for i in range(len(x.shape)) if i != axis]
    x = call.pin_all_but(x, carried, "splits the units")
    axes = list(x.axes)
    if type(call.operation).__name__ == "Unstack":
        del axes[axis]
    return [
        Traced.of(shape, dict(enumerate(axes)))
        for shape in call.output_shapes()
    ]


@operation_rule("Transpose")
def transpose(call, x):
    order = call.operation.axes or range(len(x.shape))[::-1]
    return _ordered(call, x, order)


@operation_rule("Swapaxes")
def swapaxes(call, x):
    order = list(range(len(x.shape)))
    i, j = call.operation.axis1, call.operation.axis2
    order[i], order[j] = order[j], order[i]
    return _ordered(call, x, order)


@operation_rule("Moveaxis")
def moveaxis(call, x):
    order = np.moveaxis(
        np.empty(range(len(x.shape))),
        call.operation.source,
        call.operation.destination,
    ).shape
    return _ordered(call, x, order)


def _ordered(call, x, order):
    return call.output({i: x.axes[j] for i, j in enumerate(order)})


@operation_rule("ExpandDims")
def expand_dims(call, x):
    added = call.operation.axis
    added = added if isinstance(added, (list, tuple)) else [added]
    rank = len(x.shape) + len(added)
    added = {i % rank for i in added}
    axes = iter(x.axes)
    return call.output(
        {i: None if i in added else next(axes) for i in range(rank)}
    )


@operation_rule("Squeeze")
def squeeze(call, x):
    if call.operation.axis is None:
        call.pin(x, "drops every dimension of size 1, as the units may become")
        return call.output()
    dropped = dimensions(call.operation.axis, x)
    call.pin([x.axes[i] for i in dropped], "drops the dimension of the units")
    axes = [axis for i, axis in enumerate(x.axes) if i not in dropped]
    return call.output(dict(enumerate(axes)))


@operation_rule("Reshape")
def reshape(call, x):
    new_shape = call.operation.newshape
    if isinstance(new_shape, int):
        new_shape = (new_shape,)

    def size_key(dimension):
        if new_shape[dimension] in (None, -1):
            return None
        return ("newshape", dimension)

    return reshaped(call, x, call.output_shapes()[0], size_key)


@operation_rule("Ravel")
def ravel(call, x):
    return reshaped(call, x, call.output_shapes()[0])


@operation_rule("BroadcastTo")
def broadcast_to(call, x):
    shape = call.operation.shape
    axes = {}
    for i in range(-len(x.shape), 0):
        if x.axes[i] is not None and shape[i] in (x.shape[i], -1, None):
            axes[len(shape) + i] = x.axes[i]
            if shape[i] == x.shape[i]:
                call.set_size(("shape", len(shape) + i), x.axes[i])
        else:
            call.pin(x.axes[i], "stretches a single unit")
    return call.output(axes)
