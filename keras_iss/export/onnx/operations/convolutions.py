"""Convolutions and pooling.

Those of Keras have their channels last, if nothing else is asked for; those
of ONNX have them first.
"""

import keras
import numpy as np

from keras_iss.export.onnx.arrays import array_of
from keras_iss.export.onnx.graph import Value
from keras_iss.export.onnx.operations.table import operation


@operation("Conv")
def conv(lowering, inputs, kernel):
    kernel = _value_of_same_type(lowering, kernel, inputs)
    channels = inputs.sizes[_channel_axis(lowering, inputs)]
    if channels is None:
        lowering.refuse("the number of channels is open")
    weights = _with_outputs_first(lowering, kernel)
    groups = channels // kernel.sizes[-2]
    return _convolved(lowering, inputs, weights, kernel.sizes[:-2], groups)


def _value_of_same_type(lowering, kernel, inputs):
    return lowering.value(kernel, inputs.dtype)


def _with_outputs_first(lowering, kernel):
    rank = kernel.rank
    return lowering.transpose(kernel, [rank - 1, rank - 2, *range(rank - 2)])


@operation("DepthwiseConv")
def depthwise_conv(lowering, inputs, kernel):
    kernel = _value_of_same_type(lowering, kernel, inputs)
    return _depthwise(lowering, inputs, kernel)


def _depthwise(lowering, inputs, kernel):
    rank = kernel.rank
    *sizes, channels, multiplier = kernel.sizes
    weights = lowering.transpose(kernel, [rank - 2, rank - 1, *range(rank - 2)])
    weights = lowering.reshape(weights, (channels * multiplier, 1, *sizes))
    return _convolved(lowering, inputs, weights, sizes, channels)


@operation("SeparableConv")
def separable_conv(lowering, inputs, depthwise_kernel, pointwise_kernel):
    depthwise_kernel = _value_of_same_type(lowering, depthwise_kernel, inputs)
    pointwise_kernel = _value_of_same_type(lowering, pointwise_kernel, inputs)
    found = _depthwise(lowering, inputs, depthwise_kernel)
    found.shape = (None,) * inputs.rank
    weights = _with_outputs_first(lowering, pointwise_kernel)
    return _with_channels_first(
        lowering, found, lambda x: lowering.node("Conv", [x, weights])
    )


def _convolved(lowering, inputs, weights, sizes, groups):
    op = lowering.layer
    count = len(sizes)
    strides = _each(op.strides, count)
    dilations = _each(op.dilation_rate, count)
    padding = _padding(lowering, sizes, strides, dilations)
    return _with_channels_first(
        lowering,
        inputs,
        lambda x: lowering.node(
            "Conv",
            [x, weights],
            group=groups,
            strides=strides,
            dilations=dilations,
            **padding,
        ),
    )


def _padding(lowering, sizes, strides, dilations):
    padding = lowering.layer.padding
    if padding == "valid":
        return {}
    if padding != "same":
        lowering.refuse(f"padding={padding!r}")
    if all(stride == 1 for stride in strides):
        totals = [
            (size - 1) * dilation for size, dilation in zip(sizes, dilations)
        ]
        before = [total // 2 for total in totals]
        return {"pads": before + [t - b for t, b in zip(totals, before)]}
    if any(dilation != 1 for dilation in dilations):
        lowering.refuse('strides and dilations at once, with padding="same"')
    return {"auto_pad": "SAME_UPPER"}


def _each(value, count):
    return [value] * count if isinstance(value, int) else list(value)


def _is_channels_first(lowering):
    data_format = lowering.layer.data_format
    if data_format is None:
        data_format = keras.config.image_data_format()
    return data_format == "channels_first"


def _channel_axis(lowering, x):
    return 1 if _is_channels_first(lowering) else x.rank - 1


def _with_channels_first(lowering, x, written):
    """What a function of a tensor with its channels first gives."""
    if _is_channels_first(lowering):
        return written(x)
    rank = x.rank
    x = lowering.transpose(x, [0, rank - 1, *range(1, rank - 1)])
    return lowering.transpose(written(x), [0, *range(2, rank), 1])


@operation("ConvTranspose")
def conv_transpose(lowering, inputs, kernel):
    op = lowering.layer
    kernel = _value_of_same_type(lowering, kernel, inputs)
    sizes = kernel.sizes[:-2]
    strides = _each(op.strides, len(sizes))
    dilations = _each(op.dilation_rate, len(sizes))
    given = op.output_padding
    given = [None] * len(sizes) if given is None else _each(given, len(sizes))
    if any(x is not None for x in given):
        lowering.refuse("a transposed convolution with `output_padding`")
    before, after, further = [], [], []
    for size, stride, dilation in zip(sizes, strides, dilations):
        # Over how much the ends of two neighbours overlap.
        overlap = (size - 1) * dilation + 1 - stride
        cut = max(overlap, 0) if op.padding == "same" else 0
        before.append(cut // 2)
        after.append(cut - cut // 2)
        further.append(max(-overlap, 0))
    rank = kernel.rank
    weights = lowering.transpose(kernel, [rank - 1, rank - 2, *range(rank - 2)])
    return _with_channels_first(
        lowering,
        inputs,
        lambda x: lowering.node(
            "ConvTranspose",
            [x, weights],
            strides=strides,
            dilations=dilations,
            pads=before + after,
            output_padding=further,
        ),
    )


@operation("MaxPool", "AveragePool")
def pool(lowering, inputs):
    op = lowering.layer
    count = inputs.rank - 2
    size = _each(op.pool_size, count)
    strides = size if op.strides is None else _each(op.strides, count)
    if (
        op.padding == "same"
        and type(op).__name__ == "AveragePool"
        and keras.backend.backend() == "torch"
    ):
        return _torch_average(lowering, inputs, size, strides)
    return _with_channels_first(
        lowering,
        inputs,
        lambda x: lowering.node(
            type(op).__name__,
            [x],
            kernel_shape=size,
            strides=strides,
            auto_pad="SAME_UPPER" if op.padding == "same" else None,
        ),
    )


def _torch_average(lowering, inputs, size, strides):
    """As Keras pads on PyTorch: unequal ends repeat what is at the edge."""
    first = _is_channels_first(lowering)
    lengths = inputs.sizes[2:] if first else inputs.sizes[1:-1]
    before, after = [], []
    for length, width, stride in zip(lengths, size, strides):
        total = width - 1
        if stride != 1 and length is None:
            lowering.refuse(
                "on PyTorch, Keras' average pooling with padding='same' and "
                "strides depends on a length that is open",
                "Fix that length in the model's `keras.Input`.",
            )
        if stride != 1:
            total = max((-(-length // stride) - 1) * stride + width - length, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    pads = before + after

    def written(x):
        inside = {"pads": pads}
        if before != after:
            widths = [0, 0, *before, 0, 0, *after]
            x = lowering.node(
                "Pad", [x, lowering.integers(*widths)], mode="edge"
            )
            inside = {}
        return lowering.node(
            "AveragePool", [x], kernel_shape=size, strides=strides, **inside
        )

    return _with_channels_first(lowering, inputs, written)


@operation("BatchNorm")
def batch_norm(lowering, x, mean, variance, offset=None, scale=None):
    """As a product and a sum, whose numbers are constants."""
    op = lowering.layer
    given = [mean, variance, offset, scale]
    if any(isinstance(y, Value) for y in given):
        lowering.refuse("its statistics are computed from its inputs")
    mean, variance, offset, scale = (
        y if y is None else array_of(y)[0].astype("float64") for y in given
    )
    factor = 1 / np.sqrt(variance + op.epsilon)
    if scale is not None:
        factor = factor * scale
    added = -mean * factor
    if offset is not None:
        added = added + offset
    shape = [1] * x.rank
    shape[op.axis] = -1
    x = lowering.node("Mul", [x, factor.reshape(shape).astype(x.dtype)])
    return lowering.node("Add", [x, added.reshape(shape).astype(x.dtype)])
