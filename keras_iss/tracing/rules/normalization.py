"""Normalization with a scale, an offset and statistics for each unit."""

import keras

from keras_iss.tracing.registry import register_rule


@register_rule(keras.layers.BatchNormalization)
def batch_normalization(call, inputs, training=None, mask=None):
    layer = call.operation
    inputs = call.pin_all_but(inputs, [layer.axis], "normalizes over the units")
    units = inputs.axes[layer.axis]
    for scale in (layer.gamma, layer.beta):
        call.bias(scale, {0: units})
    statistics = [layer.moving_mean, layer.moving_variance]
    if layer.renorm:
        statistics += [
            layer.moving_stddev,
            layer.renorm_mean,
            layer.renorm_stddev,
        ]
    for statistic in statistics:
        call.statistic(statistic, {0: units})
    if units is None:
        return call.output()
    # Scaled by zero and shifted by zero, whatever the statistics are.
    return call.output({layer.axis: units.with_zero(layer.scale)})
