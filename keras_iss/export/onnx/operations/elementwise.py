"""Operations that compute each number from those at its place."""

import math

import keras
import numpy as np

from keras_iss.export.onnx.graph import Value
from keras_iss.export.onnx.operations.table import OPERATIONS, operation

# Of one tensor, in the type that Keras says of the output.
_UNARY = {
    "Abs": "Abs",
    "Absolute": "Abs",
    "Arccos": "Acos",
    "Arccosh": "Acosh",
    "Arcsin": "Asin",
    "Arcsinh": "Asinh",
    "Arctan": "Atan",
    "Arctanh": "Atanh",
    "Ceil": "Ceil",
    "Conj": "Identity",
    "Conjugate": "Identity",
    "Copy": "Identity",
    "Cos": "Cos",
    "Cosh": "Cosh",
    "Erf": "Erf",
    "Exp": "Exp",
    "Fabs": "Abs",
    "Floor": "Floor",
    "Identity": "Identity",
    "Log": "Log",
    "Negative": "Neg",
    "Reciprocal": "Reciprocal",
    "Relu": "Relu",
    "Round": "Round",
    "Sigmoid": "Sigmoid",
    "Sign": "Sign",
    "Sin": "Sin",
    "Sinh": "Sinh",
    "Softplus": "Softplus",
    "Softsign": "Softsign",
    "Sqrt": "Sqrt",
    "StopGradient": "Identity",
    "Tan": "Tan",
    "Tanh": "Tanh",
}
# Of two tensors, in the type of the output; of booleans another operator.
_BINARY = {
    "Add": ("Add", "Or"),
    "Subtract": ("Sub", None),
    "Multiply": ("Mul", "And"),
    "Divide": ("Div", None),
    "TrueDivide": ("Div", None),
    "Power": ("Pow", None),
    "Maximum": ("Max", "Or"),
    "Minimum": ("Min", "And"),
}
# Of two tensors in a type of both, to a boolean.
_COMPARISONS = {
    "Equal": "Equal",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
}
_LOGICAL = {"LogicalAnd": "And", "LogicalOr": "Or", "LogicalXor": "Xor"}
# Of no use to ONNX Runtime in arithmetic: it has kernels for wider ones.
_NARROW = ("int8", "int16", "uint8", "uint16", "uint32", "uint64")


def type_of_both(*tensors):
    """The type in which Keras computes with some tensors."""
    kinds = []
    for x in tensors:
        if isinstance(x, (bool, int, float)):
            kinds.append(type(x))
        else:
            kinds.append(keras.backend.standardize_dtype(x.dtype))
    found = keras.backend.result_type(*kinds)
    return "float32" if found == "bfloat16" else found


def computed(lowering, op_type, inputs, dtype, **attributes):
    """A node in a type that ONNX Runtime computes it in."""
    wide = "int64" if dtype in _NARROW else dtype
    values = [lowering.value(x, wide) for x in inputs]
    return lowering.cast(lowering.node(op_type, values, **attributes), dtype)


def _said(lowering):
    dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
    return "float32" if dtype == "bfloat16" else dtype


def _unary(op_type):
    def written(lowering, x):
        return computed(lowering, op_type, [x], _said(lowering))

    return written


def _binary(op_type, of_booleans):
    def written(lowering, x1, x2):
        dtype = _said(lowering)
        if dtype != "bool":
            return computed(lowering, op_type, [x1, x2], dtype)
        if of_booleans is None:
            lowering.refuse(f"{op_type} of booleans has no operator")
        return computed(lowering, of_booleans, [x1, x2], dtype)

    return written


def _comparison(op_type):
    def written(lowering, x1, x2):
        dtype = type_of_both(x1, x2)
        if (dtype == "bool" and op_type != "Equal") or dtype in _NARROW:
            dtype = "int64"
        values = [lowering.value(x, dtype) for x in (x1, x2)]
        return lowering.node(op_type, values, dtype="bool")

    return written


def _logical(op_type):
    def written(lowering, x1, x2):
        values = [as_boolean(lowering, x) for x in (x1, x2)]
        return lowering.node(op_type, values)

    return written


def as_boolean(lowering, x):
    """Whether the numbers of a tensor are others than 0."""
    return lowering.value(x, "bool")


OPERATIONS.update({k: _unary(v) for k, v in _UNARY.items()})
OPERATIONS.update({k: _binary(*v) for k, v in _BINARY.items()})
OPERATIONS.update({k: _comparison(v) for k, v in _COMPARISONS.items()})
OPERATIONS.update({k: _logical(v) for k, v in _LOGICAL.items()})


@operation("NotEqual")
def not_equal(lowering, x1, x2):
    equal = OPERATIONS["Equal"](lowering, x1, x2)
    return lowering.node("Not", [equal])


@operation("LogicalNot")
def logical_not(lowering, x):
    return lowering.node("Not", [as_boolean(lowering, x)])


@operation("Isnan")
def is_nan(lowering, x):
    return lowering.node("IsNaN", [x], dtype="bool")


@operation("Isinf")
def is_inf(lowering, x):
    return lowering.node("IsInf", [x], dtype="bool")


@operation("Isfinite")
def is_finite(lowering, x):
    either = lowering.node(
        "Or", [is_nan(lowering, x), is_inf(lowering, x)], dtype="bool"
    )
    return lowering.node("Not", [either])


@operation("Cast", "SaturateCast")
def cast(lowering, x):
    return _alike(lowering, lowering.value(x, _said(lowering)))


def _alike(lowering, x):
    # Another tensor in Keras, with no mask of its own.
    return Value(x.name, x.dtype, x.shape)


@operation("ConvertToTensor")
def convert_to_tensor(lowering, x):
    return _alike(lowering, lowering.value(x, _said(lowering)))


@operation("Where")
def where(lowering, condition, x1=None, x2=None):
    if x1 is None or x2 is None:
        lowering.refuse("`where` with a condition alone gives indices")
    dtype = _said(lowering)
    return lowering.node(
        "Where",
        [
            as_boolean(lowering, condition),
            lowering.value(x1, dtype),
            lowering.value(x2, dtype),
        ],
        dtype=dtype,
    )


@operation("Clip")
def clip(lowering, x):
    op = lowering.layer
    dtype = _said(lowering)
    x = computed(lowering, "Max", [x, op.x_min], dtype)
    return computed(lowering, "Min", [x, op.x_max], dtype)


@operation("Square")
def square(lowering, x):
    return computed(lowering, "Mul", [x, x], _said(lowering))


@operation("Rsqrt")
def rsqrt(lowering, x):
    root = computed(lowering, "Sqrt", [x], _said(lowering))
    return lowering.node("Reciprocal", [root])


@operation("Log1p")
def log1p(lowering, x):
    return computed(
        lowering,
        "Log",
        [computed(lowering, "Add", [x, 1.0], _said(lowering))],
        _said(lowering),
    )


@operation("Expm1")
def expm1(lowering, x):
    power = computed(lowering, "Exp", [x], _said(lowering))
    return computed(lowering, "Sub", [power, 1.0], _said(lowering))


def _scaled_log(base):
    def written(lowering, x):
        dtype = _said(lowering)
        found = computed(lowering, "Log", [x], dtype)
        return computed(lowering, "Mul", [found, 1 / math.log(base)], dtype)

    return written


OPERATIONS.update({"Log2": _scaled_log(2), "Log10": _scaled_log(10)})


@operation("FloorDivide")
def floor_divide(lowering, x1, x2):
    dtype = _said(lowering)
    if dtype.startswith("float"):
        found = computed(lowering, "Div", [x1, x2], dtype)
        return lowering.node("Floor", [found])
    # Integers are cut off towards zero.
    rest = mod(lowering, x1, x2)
    whole = computed(lowering, "Sub", [x1, rest], dtype)
    return computed(lowering, "Div", [whole, x2], dtype)


@operation("Mod")
def mod(lowering, x1, x2):
    dtype = _said(lowering)
    if not dtype.startswith("float"):
        return computed(lowering, "Mod", [x1, x2], dtype)
    quotient = computed(lowering, "Div", [x1, x2], dtype)
    whole = computed(
        lowering, "Mul", [lowering.node("Floor", [quotient]), x2], dtype
    )
    return computed(lowering, "Sub", [x1, whole], dtype)


@operation("DivideNoNan")
def divide_no_nan(lowering, x1, x2):
    dtype = _said(lowering)
    x1, x2 = lowering.value(x1, dtype), lowering.value(x2, dtype)
    zero = lowering.value(0.0, dtype)
    none = lowering.node("Equal", [x2, zero], dtype="bool")
    safe = lowering.node(
        "Where", [none, lowering.value(1.0, dtype), x2], dtype=dtype
    )
    found = lowering.node("Div", [x1, safe])
    return lowering.node("Where", [none, zero, found], dtype=dtype)


@operation("ZerosLike", "OnesLike", "FullLike")
def full_like(lowering, x, fill_value=None, **_):
    if fill_value is None:
        fill_value = int(type(lowering.layer).__name__ == "OnesLike")
    dtype = _said(lowering)
    shape = lowering.node("Shape", [x], dtype="int64")
    return lowering.node(
        "Expand", [lowering.value(fill_value, dtype), shape], dtype=dtype
    )


@operation("Logaddexp")
def logaddexp(lowering, x1, x2):
    dtype = _said(lowering)
    larger = computed(lowering, "Max", [x1, x2], dtype)
    gap = lowering.node("Abs", [computed(lowering, "Sub", [x1, x2], dtype)])
    power = lowering.node("Exp", [lowering.node("Neg", [gap])])
    rest = lowering.node(
        "Log", [computed(lowering, "Add", [power, 1.0], dtype)]
    )
    return lowering.node("Add", [larger, rest])


@operation("Heaviside")
def heaviside(lowering, x1, x2):
    dtype = _said(lowering)
    x1 = lowering.value(x1, dtype)
    zero = lowering.value(np.zeros((), dtype))
    above = lowering.cast(
        lowering.node("Greater", [x1, zero], dtype="bool"), dtype
    )
    none = lowering.node("Equal", [x1, zero], dtype="bool")
    return lowering.node(
        "Where", [none, lowering.value(x2, dtype), above], dtype=dtype
    )
