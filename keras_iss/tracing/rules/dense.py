"""Dense layers, embeddings and convolutions."""

import keras
import numpy as np

from keras_iss._keras.versions import layer_class
from keras_iss._keras.weights import embeddings_of, kernel_of
from keras_iss.tracing.labels import Axis
from keras_iss.tracing.registry import register_rule
from keras_iss.tracing.rules.activations import (
    is_elementwise,
    keeps_zero,
    pin_unless_elementwise,
    pin_what_is_mixed,
)
from keras_iss.tracing.rules.common import each, pin_if_taken_for_a_bias


@register_rule(keras.layers.Dense)
def dense(call, inputs):
    layer = call.operation
    units = _units(call, layer.units, "units")
    call.weight(kernel_of(layer), {0: inputs.axes[-1], 1: units})
    call.bias(layer.bias, {0: units})
    carried = dict(enumerate(inputs.axes[:-1]))
    pin_what_is_mixed(call, [*carried.values(), units], layer.activation)
    return call.output({**_after_bias(layer, carried), -1: units})


def _units(call, size, key):
    layer = call.operation
    known = is_elementwise(layer.activation)
    return call.units(
        size, "dense", zero=known and keeps_zero(layer.activation), key=key
    )


def _after_bias(layer, axes):
    """Labels of dimensions that a layer carries along, as it leaves them.

    What was zero there is not any more if a bias is added.
    """
    activation = layer.activation
    zero = layer.bias is None and (
        is_elementwise(activation) and keeps_zero(activation)
    )
    return {
        i: axis if zero or axis is None else axis.with_zero(False)
        for i, axis in axes.items()
    }


@register_rule(keras.layers.EinsumDense)
def einsum_dense(call, inputs):
    """Its units are the last letter of the output, if the kernel brings it."""
    layer = call.operation
    read, written = layer.equation.replace(" ", "").split("->")
    read, kernel = read.split(",")
    open_ended = read.startswith("...")
    elided = len(inputs.shape) - len(read.replace("...", ""))
    read, written = (_letters(term, elided) for term in (read, written))
    first_size = elided if open_ended else 1
    axes = dict(zip(read, inputs.axes))
    for letter in set(read) - set(kernel) - set(written):
        call.contract(axes[letter])
    shape = call.output_shapes()[0]
    last = written[-1]
    if last in kernel and last not in read:
        key = ("output_shape", len(written) - 1 - first_size)
        axes[last] = _units(call, shape[-1], key)
    call.weight(
        kernel_of(layer),
        {i: axes.get(letter) for i, letter in enumerate(kernel)},
    )
    if layer.bias is not None:
        ndim = len(layer.bias.shape)
        tail = written[len(written) - ndim :]
        call.bias(
            layer.bias,
            {
                i: axes.get(letter)
                for i, letter in enumerate(tail)
                if layer.bias.shape[i] != 1
            },
        )
    carried = {
        i: axes.get(letter)
        for i, letter in enumerate(written)
        if letter in read
    }
    sizes = layer.partial_output_shape
    for i, axis in carried.items():
        place = i - first_size
        if 0 <= place < len(sizes) and sizes[place] is not None:
            size = Axis.fixed(sizes[place]) if axis is None else axis
            call.set_size(("output_shape", place), size)
    written_axes = [axes.get(letter) for letter in written]
    if layer.bias is not None:
        added = tuple(layer.bias.shape)
        pin_if_taken_for_a_bias(call, written_axes, shape, added)
    pin_what_is_mixed(call, written_axes, layer.activation)
    result = _after_bias(layer, carried)
    if last not in read:
        result[len(written) - 1] = axes.get(last)
    return call.output(result)


def _letters(term, elided):
    """The dimensions of a term, with numbers for those under the ellipsis."""
    if "..." not in term:
        return list(term)
    before, after = term.split("...")
    return [*before, *map(str, range(elided)), *after]


@register_rule(keras.layers.Embedding)
def embedding(call, inputs):
    layer = call.operation
    call.pin(inputs, "looks it up")
    units = call.units(
        layer.output_dim, "embedding", zero=True, key="output_dim"
    )
    call.weight(embeddings_of(layer), {1: units}, uses=0)
    return call.output({-1: units})


@register_rule(layer_class("ReversibleEmbedding"))
def reversible_embedding(call, inputs, reverse=False):
    """One axis for lookup and projection: a unit goes from both or neither."""
    layer = call.operation
    if reverse:
        tokens = call.pin_all_but(inputs, [-1], "projects it")
        units = tokens.axes[-1]
        call.set_size("output_dim", units)
    else:
        call.pin(inputs, "looks it up")
        if "embedding" in call.include:
            units = call.units(
                layer.output_dim, "embedding", zero=True, key="output_dim"
            )
        else:
            units = call.unbound(layer.output_dim)
            call.set_size("output_dim", units)
    tied = layer.tie_weights
    call.weight(embeddings_of(layer), {1: units}, uses=int(reverse and tied))
    if not tied:
        call.weight(layer.reverse_embeddings, {0: units}, uses=int(reverse))
    return call.output({} if reverse else {-1: units})


@register_rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def convolution(call, inputs):
    return _convolution(call, inputs, channels=-2)


@register_rule(
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
def transposed_convolution(call, inputs):
    return _convolution(call, inputs, channels=-1)


def _convolution(call, inputs, channels):
    """A convolution whose kernel has the input's channels along one axis."""
    layer = call.operation
    channel, inputs = _channel_alone(call, inputs)
    if getattr(layer, "groups", 1) != 1:
        inputs = call.pin_all_but(inputs, [], "groups the units")
    axes = {channels: inputs.axes[channel]}
    call.weight(kernel_of(layer), axes, uses=_places(call))
    call.bias(layer.bias, {})
    return call.output()


@register_rule(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def separable_convolution(call, inputs):
    layer = call.operation
    channel, inputs = _channel_alone(call, inputs)
    units = inputs.axes[channel]
    several = each(units, layer.depth_multiplier)
    places = _places(call)
    call.weight(layer.depthwise_kernel, {-2: units}, uses=places)
    call.weight(layer.pointwise_kernel, {-2: several}, uses=places)
    call.bias(layer.bias, {})
    return call.output()


@register_rule(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def depthwise_convolution(call, inputs):
    """Each unit is convolved alone, and comes out as several."""
    layer = call.operation
    channel, inputs = _channel_alone(call, inputs)
    units = inputs.axes[channel]
    several = each(units, layer.depth_multiplier)
    call.weight(layer.kernel, {-2: units}, uses=_places(call))
    call.bias(layer.bias, {0: several})
    written = [None] * len(inputs.shape)
    written[channel] = several
    if channel == 1:
        # The last dimension is one of space.
        on_tensorflow = keras.backend.backend() == "tensorflow"
        if layer.bias is not None and on_tensorflow:
            # No CPU runs it there, so that other backends lose nothing.
            added = (1, *layer.bias.shape, *[1] * layer.rank)
            pin_if_taken_for_a_bias(
                call, written, call.output_shapes()[0], added
            )
        pin_unless_elementwise(call, written, activation=layer.activation)
    else:
        pin_what_is_mixed(call, written, layer.activation)
    if several is not None:
        # Its kernel and its bias are zero, whatever it is called on.
        zero = is_elementwise(layer.activation) and keeps_zero(layer.activation)
        written[channel] = several.with_zero(zero)
    return call.output({channel: written[channel]})


def _channel_alone(call, inputs):
    """The dimension of the channels, and the input with units there only."""
    first = call.operation.data_format == "channels_first"
    channel = 1 if first else len(inputs.shape) - 1
    return channel, call.pin_all_but(
        inputs, [channel], "convolves over the units"
    )


def _places(call):
    """How often a kernel is used in one time step: once along time."""
    layer = call.operation
    if layer.rank == 1:
        return 1
    shape = call.output_shapes()[0]
    first = layer.data_format == "channels_first"
    spatial = shape[2:] if first else shape[1:-1]
    return int(np.prod([n or 1 for n in spatial]))
