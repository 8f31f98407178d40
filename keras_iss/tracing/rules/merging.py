"""Layers that merge several tensors."""

import keras
import numpy as np

from keras_iss.tracing.registry import register_rule
from keras_iss.tracing.rules.common import (
    broadcast,
    concatenation,
    contraction,
    pin_if_taken_for_a_bias,
)


@register_rule(
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)
def elementwise(call, inputs):
    return _merge(call, inputs, np.logical_and.reduce)


@register_rule(keras.layers.Multiply)
def multiply(call, inputs):
    return _merge(call, inputs, np.logical_or.reduce)


def _merge(call, inputs, zero):
    """Keras gives inputs of lower rank new dimensions behind the batch."""
    rank = max(len(x.shape) for x in inputs)
    aligned = []
    for x in inputs:
        missing = rank - len(x.shape)
        aligned.append(
            x.replace(
                (x.shape[0], *[1] * missing, *x.shape[1:]),
                (x.axes[0], *[None] * missing, *x.axes[1:]),
            )
        )
    if isinstance(call.operation, (keras.layers.Add, keras.layers.Average)):
        for x in aligned[1:]:
            pin_if_taken_for_a_bias(
                call, aligned[0].axes, aligned[0].shape, x.shape, others=aligned
            )
    axes = broadcast(call, aligned, zero)
    return call.output(dict(enumerate(axes)))


@register_rule(keras.layers.Concatenate)
def concatenate(call, inputs):
    return call.output(concatenation(call, inputs, call.operation.axis))


@register_rule(keras.layers.Dot)
def dot(call, inputs):
    layer = call.operation
    first, second = inputs
    axes = layer.axes
    axes = [axes, axes] if isinstance(axes, int) else list(axes)
    ranks = [len(first.shape), len(second.shape)]
    axes = [axis % rank for axis, rank in zip(axes, ranks)]
    letters = [
        ["batch", *(f"first{i}" for i in range(1, ranks[0]))],
        ["batch", *(f"second{i}" for i in range(1, ranks[1]))],
    ]
    for term, axis in zip(letters, axes):
        term[axis] = "summed"
    if layer.normalize:
        # A norm over the units is missed unless they are zero in it.
        for x, axis in zip(inputs, axes):
            call.contract(x.axes[axis])
    kept = [x for term in letters for x in term if x != "summed"]
    kept = [x for i, x in enumerate(kept) if x not in kept[:i]]
    found = contraction(call, letters, [first, second], kept)
    return call.output(found)
