"""Operations that are written as others of `keras.ops`."""

import math

from keras import ops

from keras_iss.export.onnx.operations.table import OPERATIONS, operation

# Functions of the tensors that the operation is called on.
_COMPOSED = {
    "Cbrt": lambda x: ops.multiply(
        ops.sign(x), ops.power(ops.absolute(x), 1 / 3)
    ),
    "Deg2rad": lambda x: ops.multiply(x, math.pi / 180),
    "Exp2": lambda x: ops.exp(ops.multiply(x, math.log(2))),
    "Hypot": lambda x, y: ops.sqrt(ops.add(ops.square(x), ops.square(y))),
    "Logaddexp2": lambda x, y: ops.divide(
        ops.logaddexp(
            ops.multiply(x, math.log(2)), ops.multiply(y, math.log(2))
        ),
        math.log(2),
    ),
    "Rad2deg": lambda x: ops.multiply(x, 180 / math.pi),
    "Trunc": lambda x: ops.multiply(ops.sign(x), ops.floor(ops.absolute(x))),
}


def _composed(function):
    def written(lowering, *tensors):
        return lowering.trace(function, *tensors)

    return written


OPERATIONS.update({k: _composed(v) for k, v in _COMPOSED.items()})


@operation("Average")
def average(lowering, x, weights=None):
    axis = lowering.layer.axis
    if weights is None:
        return lowering.trace(lambda y: ops.mean(y, axis=axis), x)
    if len(weights.shape) != len(x.shape):
        lowering.refuse("an average by weights of another shape")

    def weighted(y, w):
        total = ops.sum(ops.multiply(y, w), axis=axis)
        return ops.divide(total, ops.sum(w, axis=axis))

    return lowering.trace(weighted, x, weights)


@operation("Outer")
def outer(lowering, x1, x2):
    def product(a, b):
        return ops.multiply(ops.reshape(a, (-1, 1)), ops.reshape(b, (1, -1)))

    return lowering.trace(product, x1, x2)


@operation("Ptp")
def range_of(lowering, x):
    axis, keepdims = lowering.layer.axis, lowering.layer.keepdims
    return lowering.trace(
        lambda y: ops.subtract(
            ops.max(y, axis=axis, keepdims=keepdims),
            ops.min(y, axis=axis, keepdims=keepdims),
        ),
        x,
    )


@operation("Diff")
def difference(lowering, a):
    axis = lowering.layer.axis % a.rank
    before, after = [slice(None)] * a.rank, [slice(None)] * a.rank
    before[axis], after[axis] = slice(None, -1), slice(1, None)

    def differences(x):
        for _ in range(lowering.layer.n):
            x = ops.subtract(x[tuple(after)], x[tuple(before)])
        return x

    return lowering.trace(differences, a)


@operation("NanToNum")
def nan_to_num(lowering, x):
    op = lowering.layer
    highest, lowest = op.posinf, op.neginf
    if highest is None or lowest is None:
        highest = 3.4028234663852886e38 if highest is None else highest
        lowest = -3.4028234663852886e38 if lowest is None else lowest

    def finite(y):
        y = ops.where(ops.isnan(y), op.nan, y)
        infinite = ops.isinf(y)
        above = ops.logical_and(infinite, ops.greater(y, 0))
        below = ops.logical_and(infinite, ops.less(y, 0))
        return ops.where(above, highest, ops.where(below, lowest, y))

    return lowering.trace(finite, x)
