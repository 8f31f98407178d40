"""Products, attention and normalization."""

import keras
import numpy as np

from keras_iss.export.onnx.operations.elementwise import as_boolean, computed
from keras_iss.export.onnx.operations.reductions import moments_of, reduced
from keras_iss.export.onnx.operations.table import operation


def _said(lowering):
    dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
    return "float32" if dtype == "bfloat16" else dtype


@operation("Matmul")
def matmul(lowering, x1, x2):
    return computed(lowering, "MatMul", [x1, x2], _said(lowering))


@operation("Dot")
def dot(lowering, x1, x2):
    x1, x2 = lowering.value(x1), lowering.value(x2)
    if x1.rank == 0 or x2.rank == 0:
        return computed(lowering, "Mul", [x1, x2], _said(lowering))
    if x2.rank > 2:
        lowering.refuse("`dot` with a second factor of more than two axes")
    return computed(lowering, "MatMul", [x1, x2], _said(lowering))


@operation("Tensordot")
def tensordot(lowering, x1, x2):
    axes = lowering.layer.axes
    x1, x2 = lowering.value(x1), lowering.value(x2)
    if isinstance(axes, int):
        axes = range(x1.rank - axes, x1.rank), range(axes)
    first, second = ([a] if isinstance(a, int) else list(a) for a in axes)
    letters = "abcdefghijklmnopqrstuvwxyz"
    one, two = list(letters[: x1.rank]), list(letters[x1.rank :][: x2.rank])
    for a, b in zip(first, second):
        two[b] = one[a]
    summed = {one[a] for a in first}
    kept = [x for x in one + two if x not in summed]
    equation = f"{''.join(one)},{''.join(two)}->{''.join(kept)}"
    dtype = _said(lowering)
    values = [lowering.value(x, dtype) for x in (x1, x2)]
    return lowering.node("Einsum", values, equation=equation)


@operation("Einsum")
def einsum(lowering, *operands):
    dtype = _said(lowering)
    values = [lowering.value(x, dtype) for x in operands]
    equation = lowering.layer.subscripts
    return lowering.node("Einsum", values, equation=equation)


@operation("LayerNorm")
def layer_norm(lowering, x, gamma=None, beta=None):
    op = lowering.layer
    axes = [op.axis] if isinstance(op.axis, int) else list(op.axis)
    axes = sorted(axis % x.rank for axis in axes)
    epsilon = keras.config.epsilon() if op.epsilon is None else op.epsilon
    shape = [1] * x.rank
    for axis in axes:
        shape[axis] = x.sizes[axis]

    def spread(y):
        y = lowering.value(y, x.dtype)
        if y.rank == x.rank or axes == [x.rank - 1]:
            return y
        return lowering.node("Reshape", [y, lowering.integers(*shape)])

    trailing = axes == list(range(axes[0], x.rank))
    if trailing and gamma is not None and not op.rms_scaling:
        parts = [lowering.value(gamma, x.dtype)]
        if beta is not None:
            parts.append(lowering.value(beta, x.dtype))
        return lowering.node(
            "LayerNormalization",
            [x, *parts],
            axis=axes[0],
            epsilon=float(epsilon),
        )
    mean, variance = moments_of(lowering, x, axes, True)
    if not op.rms_scaling:
        x = lowering.node("Sub", [x, mean])
    x = _over_root(lowering, x, variance, epsilon)
    if gamma is not None:
        x = lowering.node("Mul", [x, spread(gamma)])
    if beta is not None and not op.rms_scaling:
        x = lowering.node("Add", [x, spread(beta)])
    return x


def _over_root(lowering, x, square, epsilon):
    square = lowering.node("Add", [square, np.array(epsilon, x.dtype)])
    return lowering.node("Div", [x, lowering.node("Sqrt", [square])])


@operation("RMSNorm")
def rms_norm(lowering, x, scale=None):
    op = lowering.layer
    axes = [op.axis] if isinstance(op.axis, int) else list(op.axis)
    epsilon = keras.config.epsilon() if op.epsilon is None else op.epsilon
    squares = lowering.node("Mul", [x, x])
    mean = reduced(lowering, "ReduceMean", squares, axes, True)
    found = _over_root(lowering, x, mean, epsilon)
    if scale is None:
        return found
    scale = lowering.value(scale, x.dtype)
    if scale.rank not in (x.rank, 1) or axes not in ([-1], [x.rank - 1]):
        lowering.refuse("an RMS normalization of other axes than the last")
    return lowering.node("Mul", [found, scale])


@operation("Normalize")
def normalize(lowering, x):
    op = lowering.layer
    if op.order != 2:
        lowering.refuse(f"`normalize` with order={op.order}")
    epsilon = keras.config.epsilon() if op.epsilon is None else op.epsilon
    size = reduced(lowering, "ReduceL2", x, op.axis, True)
    size = lowering.node("Max", [size, np.array(epsilon, x.dtype)])
    return lowering.node("Div", [x, size])


@operation("DotProductAttention")
def dot_product_attention(
    lowering, query, key, value, bias=None, mask=None, scale=None, **_
):
    op = lowering.layer
    dtype = _said(lowering)
    heads, shared = query.sizes[2], key.sizes[2]
    width = key.sizes[-1]
    if heads != shared and shared != 1:
        lowering.refuse("an attention whose keys have fewer heads")
    if scale is None:
        scale = 1 / np.sqrt(width)
    query = lowering.value(query, dtype)
    query = lowering.node("Mul", [query, np.array(scale, dtype)])
    query = lowering.transpose(query, [0, 2, 1, 3])
    key = lowering.transpose(lowering.value(key, dtype), [0, 2, 3, 1])
    scores = lowering.node("MatMul", [query, key])
    if op.attn_logits_soft_cap:
        cap = np.array(op.attn_logits_soft_cap, dtype)
        scores = lowering.node("Tanh", [lowering.node("Div", [scores, cap])])
        scores = lowering.node("Mul", [scores, cap])
    if bias is not None:
        scores = lowering.node("Add", [scores, lowering.value(bias, dtype)])
    allowed = None if mask is None else as_boolean(lowering, mask)
    if op.is_causal:
        earlier = _no_later_than(lowering, scores)
        allowed = (
            earlier
            if allowed is None
            else lowering.node("And", [allowed, earlier])
        )
    if allowed is not None:
        lowest = np.array(-0.7 * np.finfo(dtype).max, dtype)
        scores = lowering.node("Where", [allowed, scores, lowest], dtype=dtype)
    weights = lowering.node("Softmax", [scores], axis=-1)
    value = lowering.transpose(lowering.value(value, dtype), [0, 2, 1, 3])
    found = lowering.node("MatMul", [weights, value])
    return lowering.transpose(found, [0, 2, 1, 3])


def _no_later_than(lowering, scores):
    """Whether each place may look at another: those up to itself."""
    shape = lowering.node("Shape", [scores], dtype="int64", start=2)
    ones = lowering.node("Expand", [np.array(1, "int64"), shape], dtype="int64")
    return lowering.cast(lowering.node("Trilu", [ones], upper=0), "bool")
