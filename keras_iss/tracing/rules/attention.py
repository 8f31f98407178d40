"""Attention: features are compared by products summed over the units."""

import keras
import numpy as np

from keras_iss._keras.weights import (
    attention_projections,
    given_output_shape,
    kernel_of,
)
from keras_iss.tracing.labels import Traced
from keras_iss.tracing.registry import register_rule
from keras_iss.tracing.rules.common import broadcast

_FEATURES = [-1]


@register_rule(keras.layers.Attention)
def attention(
    call,
    inputs,
    mask=None,
    training=None,
    return_attention_scores=False,
    use_causal_mask=False,
):
    query, value, key = _parts(call, inputs)
    if call.operation.score_mode == "dot":
        call.contract(query.axis(-1), key.axis(-1))
    else:
        call.contract(_compared(call, query, key))
    if call.operation.scale is not None:
        call.bias(call.operation.scale, {})
    return _attended(call, value)


@register_rule(keras.layers.AdditiveAttention)
def additive_attention(
    call,
    inputs,
    mask=None,
    training=None,
    return_attention_scores=False,
    use_causal_mask=False,
):
    query, value, key = _parts(call, inputs)
    common, scale = _compared(call, query, key), call.operation.scale
    if (
        scale is not None
        and common is not None
        and len(common) == scale.shape[0]
    ):
        call.weight(scale, {0: common})
    else:
        # One number for all the features, if there is one.
        call.weight(scale, {})
        call.contract(common)
    return _attended(call, value)


def _parts(call, inputs):
    inputs = [
        call.pin_all_but(x, _FEATURES, "attends over the units") for x in inputs
    ]
    return inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else inputs[1]


def _compared(call, query, key):
    """The features of tanh(query + key), one of which may be of one feature.

    They are zero where both are, not where one is.
    """
    features = [Traced.of(x.shape[-1:], {0: x.axes[-1]}) for x in (query, key)]
    (common,) = broadcast(call, features, np.logical_and.reduce)
    return common


def _attended(call, value):
    first, *scores = call.outputs()
    return [first.replace(axes=[*first.axes[:-1], value.axes[-1]]), *scores]


@register_rule(keras.layers.MultiHeadAttention)
def multi_head_attention(
    call,
    query,
    value,
    key=None,
    query_mask=None,
    value_mask=None,
    key_mask=None,
    attention_mask=None,
    return_attention_scores=False,
    training=None,
    use_causal_mask=False,
):
    key = value if key is None else key
    query, value, key = (
        call.pin_all_but(x, _FEATURES, "attends over the units")
        for x in (query, value, key)
    )
    _projections(call, query, value, key)
    if not given_output_shape(call.operation):
        # Inferred from the query, which may get narrower.
        call.set_value("output_shape", query.shape[-1])
    return call.outputs()


@register_rule(keras.layers.GroupQueryAttention)
def grouped_query_attention(
    call,
    query,
    value,
    key=None,
    query_mask=None,
    value_mask=None,
    key_mask=None,
    attention_mask=None,
    return_attention_scores=False,
    training=None,
    use_causal_mask=False,
):
    """Query, value and output have to be of one width, the key does not."""
    key = value if key is None else key
    query, value = (
        call.pin_all_but(x, [], "gives an output as wide as query and value")
        for x in (query, value)
    )
    key = call.pin_all_but(key, _FEATURES, "attends over the units")
    _projections(call, query, value, key)
    return call.outputs()


def _projections(call, query, value, key):
    """Dense layers in front of an attention, and behind it."""
    layers = attention_projections(call.operation)
    read_by = [
        (layers.query, query),
        (layers.key, key),
        (layers.value, value),
        (layers.output, None),
    ]
    if layers.gate is not None:
        read_by.append((layers.gate, query))
    for projection, read in read_by:
        axes = {} if read is None else {0: read.axes[-1]}
        call.weight(kernel_of(projection), axes)
        call.bias(projection.bias, {})
