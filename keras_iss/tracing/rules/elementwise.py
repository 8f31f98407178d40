"""Operations of `keras.ops` that act on each element alone."""

import dataclasses

import keras
import numpy as np

from keras_iss.tracing.labels import Traced
from keras_iss.tracing.registry import operation_rule
from keras_iss.tracing.rules.activations import through
from keras_iss.tracing.rules.common import (
    as_traced,
    broadcast,
    elementwise,
    pin_if_taken_for_a_bias,
)

# They are not finite everywhere.
_PARTIAL = (
    "Arccos Arccosh Arcsin Arctanh Erfinv Log Log10 Log1p Log2 Reciprocal "
    "Rsqrt Sqrt Tan"
).split()

# They give no negative number, and no smaller one than for zero.
_NOT_NEGATIVE = "Abs Absolute Fabs Relu Relu6 Square".split()

_ALL_ZERO = np.logical_and.reduce
_ANY_ZERO = np.logical_or.reduce


def _never(flags):
    return np.zeros_like(flags[0])


def _first(flags):
    return flags[0]


@operation_rule(
    "Abs Absolute Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Array "
    "BitwiseInvert BitwiseNot Cast Cbrt Ceil Celu Clip Conjugate "
    "ConvertToTensor Copy Cos Cosh Deg2rad Elu Erf Erfc Erfinv Exp Exp2 Expm1 "
    "Fabs Floor Gelu HardShrink HardSigmoid HardSilu HardTanh I0 Imag Isfinite "
    "Isinf Isnan Isneginf Isposinf Isreal LeakyRelu Log Log10 Log1p Log2 "
    "LogSigmoid LogicalNot NanToNum Negative OnesLike Rad2deg Real Reciprocal "
    "Relu Relu6 Round Rsqrt SaturateCast Selu Sigmoid Sign Signbit Silu Sin "
    "Sinc Sinh SoftShrink Softplus Softsign SparsePlus SparseSigmoid Sqrt "
    "Square Squareplus StopGradient Tan Tanh TanhShrink Threshold Trunc "
    "ZerosLike"
)
def unary(call, x, dtype=None):
    # Older Keras versions give the dtype of zeros and ones with the call.
    kind = type(call.operation).__name__
    limits = (getattr(call.operation, name, 0) for name in ("x_min", "x_max"))
    if any(np.ndim(limit) for limit in limits):
        call.pin(x, "compares each unit with a limit of its own")
    if kind in _PARTIAL:
        _pin_unless_zero(call, x)
    axes = [
        through(call, axis, call.operation.call, "gives what")
        for axis in x.axes
    ]
    output = call.output(dict(enumerate(axes)))
    return dataclasses.replace(output, not_negative=kind in _NOT_NEGATIVE)


def _pin_unless_zero(call, x):
    """Pins units of which it is not known what is left when they go."""
    call.pin(
        [axis.where(~axis.zero) for axis in x.axes if axis is not None],
        "may have no finite value for a removed unit",
    )


@operation_rule("FullLike")
def full_like(call, x, fill_value):
    axes = broadcast(call, [x, as_traced(fill_value)], _never)
    return call.output(dict(enumerate(axes)))


@operation_rule(
    "Arctan2 BitwiseAnd BitwiseOr BitwiseXor Fmax Fmin Greater Heaviside "
    "Hypot Less LogicalOr LogicalXor Maximum Minimum NotEqual Subtract"
)
def zero_where_both_are(call, x1, x2):
    return elementwise(call, [x1, x2], _ALL_ZERO)


@operation_rule("Add")
def add(call, x1, x2):
    first, second = as_traced(x1), as_traced(x2)
    pin_if_taken_for_a_bias(
        call, first.axes, first.shape, second.shape, others=second
    )
    return elementwise(call, [x1, x2], _ALL_ZERO)


@operation_rule("LogicalAnd Multiply")
def zero_where_one_is(call, x1, x2):
    return elementwise(call, [x1, x2], _ANY_ZERO)


@operation_rule("Equal GreaterEqual LessEqual Logaddexp Logaddexp2")
def zero_nowhere(call, x1, x2):
    return elementwise(call, [x1, x2], _never)


@operation_rule("Divide TrueDivide DivideNoNan FloorDivide Fmod Mod")
def divide(call, x1, x2):
    if type(call.operation).__name__ != "DivideNoNan":
        what = "divides by what may be zero for a removed unit"
        call.pin(as_traced(x2), what)
    return elementwise(call, [x1, x2], _first)


@operation_rule("Power")
def power(call, x1, x2):
    if isinstance(x2, Traced):
        positive = not isinstance(x1, Traced) and np.all(_numbers(x1) > 0)
        if not positive:
            call.pin([x1, x2], "raises it to a power that is not a number")
        return elementwise(call, [x1, x2], _never)
    if not np.all(_numbers(x2) > 0):
        call.pin(x1, "raises it to a power that is not positive")
    if not np.all(_numbers(x2) % 1 == 0):
        _pin_unless_zero(call, x1)
    return elementwise(call, [x1, x2], _first)


def _numbers(x):
    return keras.ops.convert_to_numpy(x)


@operation_rule("Where")
def where(call, condition, x1=None, x2=None):
    if x1 is None or x2 is None:
        call.pin(condition, "looks for positions")
        return call.outputs()
    tensors = [as_traced(x) for x in (condition, x1, x2)]
    # Where a choice is the number zero, the other one decides.
    decisive = [i for i, x in enumerate((x1, x2), 1) if not _is_zero(x)]

    def zero(flags):
        return _ALL_ZERO([flags[i] for i in decisive or [1]])

    axes = broadcast(call, tensors, zero)
    return call.output(dict(enumerate(axes)))


def _is_zero(x):
    return (
        not isinstance(x, (Traced, keras.Variable))
        and np.ndim(x) == 0
        and bool(_numbers(x) == 0)
    )


@operation_rule("Select")
def select(call, condlist, choicelist, default=0):
    tensors = [as_traced(x) for x in (*condlist, *choicelist, default)]
    axes = broadcast(
        call, tensors, lambda flags: _ALL_ZERO(flags[len(condlist) :])
    )
    (shape,) = call.output_shapes()
    if len(axes) != len(shape) or any(
        axis is not None and len(axis) != size
        for axis, size in zip(axes, shape)
    ):
        # Keras takes the first choice for as large as all of them.
        call.pin(tensors, "has a choice larger than the first one")
        return call.output()
    return call.output(dict(enumerate(axes)))
