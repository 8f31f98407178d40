"""Layers that carry units along: they have no weights for them."""

import keras
import numpy as np

from keras_iss.tracing.labels import Traced
from keras_iss.tracing.registry import register_rule
from keras_iss.tracing.rules.activations import pin_what_is_mixed, through
from keras_iss.tracing.rules.common import broadcast, dimensions, reshaped


@register_rule(
    keras.layers.Identity,
    keras.layers.ActivityRegularization,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
)
def unchanged(call, inputs, training=None):
    return inputs


@register_rule(keras.layers.Dropout)
def dropout(call, inputs, training=None):
    _sizes_of_noise(call, inputs)
    return inputs


@register_rule(keras.layers.AlphaDropout)
def alpha_dropout(call, inputs, training=None):
    _sizes_of_noise(call, inputs)
    return _moved(inputs)


@register_rule(keras.layers.GaussianNoise)
def gaussian_noise(call, inputs, training=None):
    return _moved(inputs)


def _sizes_of_noise(call, inputs):
    for i, size in enumerate(call.operation.noise_shape or ()):
        if size not in (None, 1):
            call.set_size(("noise_shape", i), inputs.axis(i))


def _moved(inputs):
    """What was zero is not, in training at least."""
    return inputs.replace(
        axes=[
            None if axis is None else axis.with_zero(False)
            for axis in inputs.axes
        ]
    )


@register_rule(keras.layers.Masking)
def masking(call, inputs):
    """A step is masked if all its features have a value: mixed, but for 0."""
    if call.operation.mask_value == 0:
        call.contract(inputs.axes[-1])
    else:
        call.pin(inputs.axes[-1], "compares all the units with a value")
    return inputs


@register_rule(keras.layers.Activation)
def activation(call, inputs):
    function = call.operation.activation
    pin_what_is_mixed(call, inputs.axes, function)
    return _mapped(call, inputs, function)


@register_rule(keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
def activation_layer(call, inputs):
    return _mapped(call, inputs, call.operation.call)


@register_rule(keras.layers.Rescaling)
def rescaling(call, inputs):
    layer = call.operation
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        call.pin(inputs, "has a scale or an offset for each unit")
        return inputs
    return _mapped(call, inputs, layer.call)


def _mapped(call, inputs, function):
    return inputs.replace(
        axes=[
            through(call, axis, function, "gives what") for axis in inputs.axes
        ]
    )


@register_rule(keras.layers.PReLU)
def prelu(call, inputs):
    alpha = call.operation.alpha
    shared = [i for i, n in enumerate(alpha.shape) if n == 1]
    axes = {
        i: inputs.axes[i + 1]
        for i in range(len(alpha.shape))
        if i not in shared
    }
    call.bias(alpha, axes)
    return inputs


@register_rule(keras.layers.Softmax)
def softmax(call, inputs, mask=None):
    if isinstance(mask, Traced):
        # A mask as wide as the units would have to get narrower too.
        broadcast(call, [inputs, mask])
    if call.found_a_mask:
        # Keras aligns a mask of time steps with the last dimension.
        call.pin(inputs, "masks the units")
    mixed = dimensions(call.operation.axis, inputs)
    others = set(range(len(inputs.shape))).difference(mixed)
    return _moved(
        call.pin_all_but(inputs, others, "takes a softmax over the units")
    )


def _layers_of_this_keras(names):
    """Layers that not every version of Keras has."""
    found = (getattr(keras.layers, name, None) for name in names.split())
    return [cls for cls in found if cls is not None]


def _channel(layer, rank):
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first else rank - 1


@register_rule(
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    *_layers_of_this_keras(
        "AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
        "AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D "
        "AdaptiveMaxPooling3D"
    ),
)
def pooling(call, inputs):
    channel = _channel(call.operation, len(inputs.shape))
    inputs = call.pin_all_but(inputs, [channel], "pools over the units")
    return call.output({channel: inputs.axes[channel]})


@register_rule(keras.layers.GlobalAveragePooling1D)
def global_average_pooling_with_mask(call, inputs, mask=None):
    return _global_pooling(call, inputs)


@register_rule(
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
def global_pooling(call, inputs):
    return _global_pooling(call, inputs)


def _global_pooling(call, inputs):
    channel = _channel(call.operation, len(inputs.shape))
    inputs = call.pin_all_but(inputs, [channel], "pools over the units")
    output = channel if call.operation.keepdims else 1
    return call.output({output: inputs.axes[channel]})


@register_rule(
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    keras.layers.UpSampling3D,
)
def over_time_and_space(call, inputs):
    channel = _channel(call.operation, len(inputs.shape))
    inputs = call.pin_all_but(inputs, [channel], "changes their number")
    return call.output({channel: inputs.axes[channel]})


@register_rule(keras.layers.RepeatVector)
def repeat_vector(call, inputs):
    return call.output({0: inputs.axes[0], 2: inputs.axes[1]})


@register_rule(keras.layers.Permute)
def permute(call, inputs):
    order = (0, *call.operation.dims)
    return call.output({i: inputs.axes[j] for i, j in enumerate(order)})


@register_rule(keras.layers.Flatten)
def flatten(call, inputs):
    if call.operation.data_format == "channels_first" and (
        len(inputs.shape) > 2
    ):
        order = (0, *range(2, len(inputs.shape)), 1)
        inputs = Traced(
            tuple(inputs.shape[i] for i in order),
            tuple(inputs.axes[i] for i in order),
        )
    return reshaped(call, inputs, call.output_shapes()[0])


@register_rule(keras.layers.Reshape)
def reshape(call, inputs):
    target = call.operation.target_shape

    def size_key(dimension):
        if target[dimension - 1] == -1:
            return None
        return ("target_shape", dimension - 1)

    return reshaped(call, inputs, call.output_shapes()[0], size_key)


@register_rule(keras.layers.TimeDistributed)
def time_distributed(call, inputs, training=None, mask=None):
    inputs = call.pin_all_but(
        inputs, range(2, len(inputs.shape)), "runs over the units"
    )
    step = Traced(
        (inputs.shape[0], *inputs.shape[2:]),
        (inputs.axes[0], *inputs.axes[2:]),
    )
    result = call.child(call.operation.layer, ("layer",), step)
    if result is None:
        return call.outputs()
    (output,) = result
    return output.replace(
        (output.shape[0], inputs.shape[1], *output.shape[1:]),
        (None, None, *output.axes[1:]),
    )
