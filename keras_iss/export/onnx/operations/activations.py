"""Activations, as operators or from several."""

import math

import keras

from keras_iss.export.onnx.operations.elementwise import computed
from keras_iss.export.onnx.operations.table import operation


@operation("Relu6")
def relu6(lowering, x):
    return lowering.node("Clip", [x, *_numbers(lowering, x, 0.0, 6.0)])


def _numbers(lowering, x, *numbers):
    return [lowering.value(number, x.dtype) for number in numbers]


@operation("ReLU")
def bounded_relu(lowering, x):
    """`keras.activations.relu` with its arguments."""
    op = lowering.layer
    zero, threshold = _numbers(lowering, x, 0.0, op.threshold)
    if op.threshold:
        above = lowering.node("Greater", [x, threshold], dtype="bool")
        found = lowering.node("Where", [above, x, zero], dtype=x.dtype)
    else:
        found = lowering.node("Relu", [x])
    if op.max_value is not None:
        highest = lowering.value(op.max_value, x.dtype)
        found = lowering.node("Min", [found, highest])
    if op.negative_slope:
        below = lowering.node("Relu", [lowering.node("Sub", [threshold, x])])
        slope = lowering.value(op.negative_slope, x.dtype)
        below = lowering.node("Mul", [below, slope])
        found = lowering.node("Sub", [found, below])
    return found


@operation("LeakyRelu")
def leaky_relu(lowering, x):
    slope = float(lowering.layer.negative_slope)
    return lowering.node("LeakyRelu", [x], alpha=slope)


@operation("Elu")
def elu(lowering, x):
    return lowering.node("Elu", [x], alpha=float(lowering.layer.alpha))


@operation("Celu")
def celu(lowering, x):
    return lowering.node("Celu", [x], alpha=float(lowering.layer.alpha))


@operation("Selu")
def selu(lowering, x):
    return lowering.node("Selu", [x])


@operation("HardSigmoid")
def hard_sigmoid(lowering, x):
    return lowering.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)


@operation("HardSilu")
def hard_silu(lowering, x):
    return lowering.node("Mul", [x, hard_sigmoid(lowering, x)])


@operation("Silu")
def silu(lowering, x):
    return lowering.node("Mul", [x, lowering.node("Sigmoid", [x])])


@operation("Mish")
def mish(lowering, x):
    soft = lowering.node("Softplus", [x])
    return lowering.node("Mul", [x, lowering.node("Tanh", [soft])])


@operation("LogSigmoid")
def log_sigmoid(lowering, x):
    soft = lowering.node("Softplus", [lowering.node("Neg", [x])])
    return lowering.node("Neg", [soft])


@operation("Gelu")
def gelu(lowering, x):
    half, one = _numbers(lowering, x, 0.5, 1.0)
    if lowering.layer.approximate:
        scale, cubic = _numbers(lowering, x, math.sqrt(2 / math.pi), 0.044715)
        cube = lowering.node("Mul", [lowering.node("Mul", [x, x]), x])
        inner = lowering.node("Add", [x, lowering.node("Mul", [cube, cubic])])
        inner = lowering.node("Tanh", [lowering.node("Mul", [inner, scale])])
    else:
        root = lowering.value(math.sqrt(2), x.dtype)
        inner = lowering.node("Erf", [lowering.node("Div", [x, root])])
    share = lowering.node("Mul", [lowering.node("Add", [inner, one]), half])
    return lowering.node("Mul", [x, share])


@operation("HardTanh")
def hard_tanh(lowering, x):
    return lowering.node("Clip", [x, *_numbers(lowering, x, -1.0, 1.0)])


@operation("TanhShrink")
def tanh_shrink(lowering, x):
    return lowering.node("Sub", [x, lowering.node("Tanh", [x])])


@operation("SoftShrink")
def soft_shrink(lowering, x):
    threshold = float(lowering.layer.threshold)
    return lowering.node("Shrink", [x], lambd=threshold, bias=threshold)


@operation("HardShrink")
def hard_shrink(lowering, x):
    return lowering.node("Shrink", [x], lambd=float(lowering.layer.threshold))


@operation("Threshold")
def threshold(lowering, x):
    op = lowering.layer
    limit, default = _numbers(
        lowering, x, op.threshold, getattr(op, "default_value", op.threshold)
    )
    above = lowering.node("Greater", [x, limit], dtype="bool")
    return lowering.node("Where", [above, x, default], dtype=x.dtype)


@operation("Squareplus")
def squareplus(lowering, x):
    b, half = _numbers(lowering, x, lowering.layer.b, 0.5)
    inside = lowering.node("Add", [lowering.node("Mul", [x, x]), b])
    both = lowering.node("Add", [x, lowering.node("Sqrt", [inside])])
    return lowering.node("Mul", [both, half])


@operation("Glu")
def glu(lowering, x):
    axis = lowering.layer.axis
    value, gate = lowering.node("Split", [x], 2, axis=axis, num_outputs=2)
    return lowering.node("Mul", [value, lowering.node("Sigmoid", [gate])])


@operation("Softmax", "LogSoftmax")
def softmax(lowering, x):
    axis = lowering.layer.axis
    name = type(lowering.layer).__name__
    dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
    x = lowering.value(x, dtype)
    if axis is None:
        flat = lowering.node("Reshape", [x, lowering.integers(1, -1)])
        found = lowering.node(name, [flat], axis=1)
        shape = lowering.node("Shape", [x], dtype="int64")
        return lowering.node("Reshape", [found, shape])
    if isinstance(axis, (list, tuple)):
        return _softmax_over(lowering, x, name, list(axis))
    return lowering.node(name, [x], axis=axis)


def _softmax_over(lowering, x, name, axes):
    """Over several axes at once."""
    axes = lowering.integers(*axes)
    highest = lowering.node("ReduceMax", [x, axes], keepdims=1)
    x = lowering.node("Sub", [x, highest])
    power = lowering.node("Exp", [x])
    total = lowering.node("ReduceSum", [power, axes], keepdims=1)
    if name == "Softmax":
        return lowering.node("Div", [power, total])
    return lowering.node("Sub", [x, lowering.node("Log", [total])])


@operation("SparsePlus")
def sparse_plus(lowering, x):
    one, low, quarter, zero = _numbers(lowering, x, 1.0, -1.0, 0.25, 0.0)
    raised = lowering.node("Add", [x, one])
    curve = lowering.node("Mul", [raised, raised])
    curve = lowering.node("Mul", [curve, quarter])
    inside = lowering.node("Less", [x, one], dtype="bool")
    found = lowering.node("Where", [inside, curve, x], dtype=x.dtype)
    below = lowering.node("LessOrEqual", [x, low], dtype="bool")
    return lowering.node("Where", [below, zero, found], dtype=x.dtype)


@operation("SparseSigmoid")
def sparse_sigmoid(lowering, x):
    one, low, half = _numbers(lowering, x, 1.0, -1.0, 0.5)
    x = computed(lowering, "Min", [x, one], x.dtype)
    x = lowering.node("Max", [x, low])
    return lowering.node("Mul", [lowering.node("Add", [x, one]), half])
