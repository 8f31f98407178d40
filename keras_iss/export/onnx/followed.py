"""Layers that are followed through their `call`, but for a part of it.

That part does not take symbolic tensors of open sizes, or no symbolic tensors
at all, and computes the same here.
"""

import contextlib
import dataclasses

import keras
from keras import ops

from keras_iss._keras.cells import DropoutRNNCell
from keras_iss._keras.copies import copy_sharing_variables
from keras_iss._keras.layers import attributes, inner_layers
from keras_iss._keras.overrides import (
    CAUSAL_MASK,
    SCORE_MASK,
    SCORES,
    overridden,
    override,
)
from keras_iss._keras.variables import taking_symbolic_tensors
from keras_iss.export.onnx.operations import convolutions


def followable(model):
    """A copy of a model whose layers can be called on symbolic tensors.

    Its variables and activations take them, and cells drop nothing: they make
    the numbers for that in inference, too.

    Args:
        model: A built `keras.Model`, which stays as it is.
    """
    copied = copy_sharing_variables(
        model,
        {id(v): taking_symbolic_tensors(v) for v in model.variables},
    )
    for layer in inner_layers(copied):
        if isinstance(layer, DropoutRNNCell):
            override(layer, "dropout", 0.0)
            override(layer, "recurrent_dropout", 0.0)
        for name, value in list(attributes(layer).items()):
            for known, other in _ACTIVATIONS:
                if value is known:
                    override(layer, name, other)
    return copied


def _mish(x):
    return ops.multiply(x, ops.tanh(ops.softplus(x)))


def _hard_silu(x):
    return ops.multiply(x, ops.hard_sigmoid(x))


_ACTIVATIONS = (
    (keras.activations.mish, _mish),
    (keras.activations.hard_silu, _hard_silu),
)


def _with(lowering, parts, args, kwargs):
    """Follows the `call` of a layer, with other methods inside."""
    layer = lowering.layer
    original = layer.call

    def call(*args, **kwargs):
        with contextlib.ExitStack() as stack:
            for name, method in parts.items():
                stack.enter_context(overridden(layer, name, method))
            return original(*args, **kwargs)

    return lowering.trace(call, *args, **kwargs)


def _places(like, axis):
    """The number of each place along an axis, from 1 on."""
    return ops.cumsum(ops.ones_like(like, dtype="int32"), axis=axis)


def _score_mask(scores, v_mask, use_causal_mask):
    if not use_causal_mask:
        return v_mask
    one = scores[:1, :, :]
    causal = ops.greater_equal(_places(one, -2), _places(one, -1))
    if v_mask is None:
        return causal
    return ops.logical_and(ops.expand_dims(v_mask, axis=-2), causal)


def attention(lowering, *args, **kwargs):
    """`Attention.call`, whose causal mask is of the sizes of a tensor."""
    parts = {SCORE_MASK: _score_mask}
    return _with(lowering, parts, args, kwargs)


def additive_attention(lowering, *args, **kwargs):
    """The same, and without a factor of 1 that symbolic tensors do not take."""
    layer = lowering.layer
    scale = layer.scale if layer.use_scale else None

    def scores(query, key):
        query = ops.expand_dims(query, axis=-2)
        key = ops.expand_dims(key, axis=-3)
        both = ops.tanh(ops.add(query, key))
        if scale is not None:
            both = ops.multiply(both, scale)
        return ops.sum(both, axis=-1)

    parts = {SCORE_MASK: _score_mask, SCORES: scores}
    return _with(lowering, parts, args, kwargs)


def _causal_mask(query, value=None):
    value = query if value is None else value
    row, column = _places(query[:1, :, :1], 1), _places(value[:1, :, :1], 1)
    return ops.greater_equal(row, ops.swapaxes(column, 1, 2))


def multi_head_attention(lowering, *args, **kwargs):
    """`MultiHeadAttention.call`, and that of grouped queries."""
    parts = {CAUSAL_MASK: _causal_mask}
    return _with(lowering, parts, args, kwargs)


def batch_normalization(lowering, inputs, **_):
    """`BatchNormalization.call` in inference."""
    layer = lowering.layer
    op = _Operation(axis=layer.axis, epsilon=layer.epsilon)
    found = convolutions.batch_norm(
        dataclasses.replace(lowering, layer=op),
        inputs,
        layer.moving_mean,
        layer.moving_variance,
        layer.beta if layer.center else None,
        layer.gamma if layer.scale else None,
    )
    found.shape = inputs.shape
    return found


@dataclasses.dataclass(frozen=True)
class _Operation:
    """What the functions of the table read of an operation."""

    axis: int = -1
    epsilon: float = 0.0
    strides: tuple = ()
    padding: str = "valid"
    data_format: str | None = None
    dilation_rate: tuple = ()


def convolution(lowering, inputs):
    """A convolution in groups, which Keras cannot run on symbolic tensors."""
    layer = lowering.layer
    if layer.groups == 1:
        return lowering.trace(layer.call, inputs)
    padding, x = layer.padding, inputs
    if padding == "causal":
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        widths = [(0, 0), (before, 0), (0, 0)]
        if layer.data_format == "channels_first":
            widths = [(0, 0), (0, 0), (before, 0)]
        x = lowering.trace(lambda y: ops.pad(y, widths), x)
        padding = "valid"
    op = _Operation(
        strides=layer.strides,
        padding=padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )
    found = convolutions.conv(
        dataclasses.replace(lowering, layer=op), x, layer.kernel
    )
    found.shape = tuple(layer.compute_output_shape(inputs.sizes))

    def rest(y):
        if layer.use_bias:
            shape = [1] * len(y.shape)
            first = layer.data_format == "channels_first"
            shape[1 if first else -1] = -1
            y = ops.add(y, ops.reshape(layer.bias, shape))
        return y if layer.activation is None else layer.activation(y)

    return lowering.trace(rest, found)
