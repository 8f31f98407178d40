"""Attention: features are compared by products summed over the units."""

import keras

from keras_iss.tracing.registry import register_rule

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
        _sum_of_tanh(call, query, key)
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
    if call.operation.use_scale:
        common = call.tie(query.axis(-1), key.axis(-1))
        call.weight(call.operation.scale, {0: common})
    else:
        _sum_of_tanh(call, query, key)
    return _attended(call, value)


def _parts(call, inputs):
    inputs = [
        call.pin_all_but(x, _FEATURES, "attends over the units") for x in inputs
    ]
    return inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else inputs[1]


def _sum_of_tanh(call, query, key):
    """A sum of tanh(query + key): both have to be zero, not one of them."""
    call.contract(call.tie(query.axis(-1), key.axis(-1)))


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
    layer = call.operation
    key = value if key is None else key
    query, value, key = (
        call.pin_all_but(x, _FEATURES, "attends over the units")
        for x in (query, value, key)
    )
    projections = [
        (layer._query_dense, query),
        (layer._key_dense, key),
        (layer._value_dense, value),
        (layer._output_dense, None),
    ]
    if layer._use_gate:
        projections.append((layer._gate_dense, query))
    for projection, read in projections:
        axes = {} if read is None else {0: read.axes[-1]}
        call.weight(projection._kernel, axes)
        call.bias(projection.bias, {})
    if not layer._output_shape:
        # Inferred from the query, which may get narrower.
        call.set_value("output_shape", query.shape[-1])
    return call.outputs()
