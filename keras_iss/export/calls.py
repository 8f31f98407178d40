"""What stands in for `call` of layers that are not recurrent.

Each function takes a `Lowering` and what `call` takes; see
`register_lowering`.
"""

import keras
import tensorflow as tf

from keras_iss._keras.layers import takes_mask, takes_training
from keras_iss.export.shapes import batch_major, sizes, time_major


def dense(lowering, inputs, training=None):
    """`Dense.call` without the reshapes around its product."""
    layer = lowering.layer
    if (
        not lowering.for_litert
        or inputs.shape.rank < 3
        or layer.quantization_mode is not None
    ):
        return lowering.original(inputs, training=training)
    return _with_bias_and_activation(layer, tf.matmul(inputs, layer.kernel))


def einsum_dense(lowering, inputs, training=None):
    """`EinsumDense.call` as a plain product, where it sums over nothing.

    For such an equation, with time of any length, TensorFlow makes a batch
    of matrix products whose shape the converter gets wrong.
    """
    layer = lowering.layer
    inputs_and_kernel, _, wanted = layer.equation.partition("->")
    letters = inputs_and_kernel.split(",")
    sums_over_nothing = all(
        "." not in part
        and len(set(part)) == len(part)
        and set(part) <= set(wanted)
        for part in letters
    )
    if (
        not lowering.for_litert
        or not sums_over_nothing
        or layer.quantization_mode is not None
    ):
        return lowering.original(inputs, training=training)
    x = _spread(inputs, letters[0], wanted) * _spread(
        layer.kernel, letters[1], wanted
    )
    return _with_bias_and_activation(layer, x)


def layer_normalization(lowering, inputs):
    """`LayerNormalization.call` without a negation.

    LiteRT has that in float only.
    """
    layer = lowering.layer
    if not lowering.for_litert or layer.rms_scaling:
        return lowering.original(inputs)
    mean, variance = tf.nn.moments(inputs, layer.axis, keepdims=True)
    x = (inputs - mean) * tf.math.rsqrt(variance + layer.epsilon)
    shape = [
        size if axis in [i % inputs.shape.rank for i in layer.axis] else 1
        for axis, size in enumerate(inputs.shape)
    ]
    if layer.gamma is not None:
        x = x * tf.reshape(layer.gamma, shape)
    if layer.beta is not None:
        x = x + tf.reshape(layer.beta, shape)
    return x


def unit_normalization(lowering, inputs):
    """`UnitNormalization.call` without a division by zero.

    Keras limits the infinite quotient of a vector of zeros, of which LiteRT
    makes NaN.
    """
    if not lowering.for_litert or lowering.layer.compute_dtype != "float32":
        return lowering.original(inputs)
    squares = tf.reduce_sum(
        tf.square(inputs), lowering.layer.axis, keepdims=True
    )
    return inputs * tf.math.rsqrt(tf.maximum(squares, 1e-24))


def _with_bias_and_activation(layer, x):
    if layer.bias is not None:
        x = x + layer.bias
    return x if layer.activation is None else layer.activation(x)


def _spread(x, letters, wanted):
    """A tensor with axes in the wanted order, those it lacks of size 1."""
    there = [letter for letter in wanted if letter in letters]
    x = tf.transpose(x, [letters.index(letter) for letter in there])
    for axis, letter in enumerate(wanted):
        if letter not in letters:
            x = tf.expand_dims(x, axis)
    return x


def embedding(lowering, inputs, *args, **kwargs):
    """`Embedding.call` in the order in which a recurrent layer reads it.

    It is the numbers that are transposed then and not the vectors: the
    converter takes out the transposition that follows with its reverse.
    """
    original = lowering.original
    if (
        not lowering.for_litert
        or inputs.shape.rank != 2
        or inputs.shape[0] == 1
    ):
        return original(inputs, *args, **kwargs)
    return batch_major(original(tf.transpose(inputs), *args, **kwargs))


def time_distributed(lowering, inputs, training=None, mask=None):
    """`TimeDistributed.call` in one call of its layer, or in a loop."""
    inner = lowering.layer.layer
    if training or (mask is not None and takes_mask(inner)):
        return lowering.original(inputs, training=training, mask=mask)
    kwargs = {"training": False} if takes_training(inner) else {}
    known = inputs.shape[2:].is_fully_defined()
    if known and _acts_on_each_sample(inner):
        x = tf.reshape(inputs, [-1, *inputs.shape[2:]])
        x = inner.call(x, **kwargs)
        return tf.reshape(x, [*sizes(inputs, 2), *x.shape[1:]])
    if known and inputs.shape[1] is None and not _acts_on_each_sample(inner):
        _, outputs, _ = lowering.loop(
            time_major(inputs),
            lambda x, states: (inner.call(x, **kwargs), states),
            [],
            None,
            every_step=True,
            zero_masked=False,
        )
        outputs = batch_major(outputs)
        outputs.set_shape([inputs.shape[0], *outputs.shape[1:]])
        return outputs
    return lowering.original(inputs, training=training, mask=mask)


def _acts_on_each_sample(layer):
    """Whether the layer does to a batch what it does to each sample."""
    return (
        type(layer).__module__.startswith("keras.")
        and not isinstance(layer, (keras.Model, keras.layers.Lambda))
        and not getattr(layer, "stateful", False)
    )
