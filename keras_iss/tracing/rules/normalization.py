"""Normalization: over the batch it leaves units alone, over them it does not.

A mean over the units is divided by their number, so that it changes when a
unit goes. A norm is a sum, to which a unit that is zero adds nothing.
"""

import keras

from keras_iss._keras.weights import moving_statistics
from keras_iss.tracing.registry import register_rule
from keras_iss.tracing.rules.common import dimensions


@register_rule(keras.layers.BatchNormalization)
def batch_normalization(call, inputs, training=None, mask=None):
    layer = call.operation
    inputs = call.pin_all_but(inputs, [layer.axis], "normalizes over the units")
    units = inputs.axes[layer.axis]
    for scale in (layer.gamma, layer.beta):
        call.bias(scale, {0: units})
    for statistic in moving_statistics(layer):
        call.statistic(statistic, {0: units})
    if units is None:
        return call.output()
    masked = mask is not None or call.found_a_mask
    may_be_masked = masked or not call.mask_is_known()
    if may_be_masked and keras.backend.backend() != "tensorflow":
        # Keras' masked mean of one channel has no dimensions, which its
        # training step on JAX and PyTorch cannot do with.
        call.at_least(units, 2)
    # Scaled by zero and shifted by zero, whatever the statistics are.
    return call.output({layer.axis: units.with_zero(layer.scale)})


@register_rule(keras.layers.LayerNormalization, keras.layers.RMSNormalization)
def over_dimensions(call, inputs):
    layer = call.operation
    mixed = dimensions(layer.axis, inputs)
    # Keras scales the last dimensions whichever it normalizes, and PyTorch
    # normalizes them.
    last = range(len(inputs.shape) - len(mixed), len(inputs.shape))
    carried = set(range(len(inputs.shape))).difference(mixed, last)
    kept = call.pin_all_but(
        inputs, carried, "takes a mean over the units, which counts them"
    )
    for name in ("gamma", "beta", "scale"):
        variable = getattr(layer, name, None)
        if isinstance(variable, keras.Variable):
            call.bias(variable, {})
    axes = [x if x is None else x.with_zero(False) for x in kept.axes]
    return kept.replace(axes=axes)


@register_rule(keras.layers.GroupNormalization)
def group_normalization(call, inputs):
    layer = call.operation
    call.pin(inputs, "takes a mean over groups of the units, which counts them")
    for variable in (layer.gamma, layer.beta):
        call.bias(variable, {})
    return call.output()


@register_rule(keras.layers.UnitNormalization)
def unit_normalization(call, inputs):
    for i in dimensions(call.operation.axis, inputs):
        call.contract(inputs.axes[i])
    return inputs
