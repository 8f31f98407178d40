"""Operations that reduce axes, or look along one."""

import keras
import numpy as np

from keras_iss.export.onnx.operations.elementwise import as_boolean, computed
from keras_iss.export.onnx.operations.table import OPERATIONS, operation

_REDUCED = {
    "Amax": "ReduceMax",
    "Amin": "ReduceMin",
    "Max": "ReduceMax",
    "Mean": "ReduceMean",
    "Min": "ReduceMin",
    "Prod": "ReduceProd",
    "Sum": "ReduceSum",
}


def reduced(lowering, op_type, x, axes, keepdims):
    """A reduction over some axes, or over all of them."""
    axes = None if axes is None else lowering.integers(*_listed(axes))
    return lowering.node(op_type, [x, axes], keepdims=int(bool(keepdims)))


def _listed(axes):
    return [axes] if isinstance(axes, int) else list(axes)


def _reduction(op_type):
    def written(lowering, x):
        op = lowering.layer
        if getattr(op, "initial", None) is not None:
            lowering.refuse("`initial` of a maximum or minimum has no operator")
        dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
        wide = dtype
        if dtype == "bool":
            wide = "int32"
        found = reduced(
            lowering, op_type, lowering.value(x, wide), op.axis, op.keepdims
        )
        return lowering.cast(found, dtype)

    return written


OPERATIONS.update({k: _reduction(v) for k, v in _REDUCED.items()})


def _of_booleans(op_type):
    def written(lowering, x):
        op = lowering.layer
        numbers = lowering.cast(as_boolean(lowering, x), "int32")
        found = reduced(lowering, op_type, numbers, op.axis, op.keepdims)
        return lowering.cast(found, "bool")

    return written


OPERATIONS.update(
    {"Any": _of_booleans("ReduceMax"), "All": _of_booleans("ReduceMin")}
)


@operation("CountNonzero")
def count_nonzero(lowering, x):
    numbers = lowering.cast(as_boolean(lowering, x), "int32")
    return reduced(lowering, "ReduceSum", numbers, lowering.layer.axis, False)


def moments_of(lowering, x, axes, keepdims):
    """Mean and variance of a tensor over some axes."""
    mean = reduced(lowering, "ReduceMean", x, axes, True)
    away = lowering.node("Sub", [x, mean])
    squares = lowering.node("Mul", [away, away])
    variance = reduced(lowering, "ReduceMean", squares, axes, keepdims)
    if not keepdims:
        mean = reduced(lowering, "ReduceMean", x, axes, False)
    return mean, variance


@operation("Moments")
def moments(lowering, x):
    op = lowering.layer
    return moments_of(lowering, x, op.axes, op.keepdims)


@operation("Var", "Std")
def variance(lowering, x):
    op = lowering.layer
    dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
    x = lowering.value(x, dtype)
    _, found = moments_of(lowering, x, op.axis, op.keepdims)
    if type(op).__name__ == "Std":
        found = lowering.node("Sqrt", [found])
    return found


@operation("Logsumexp")
def logsumexp(lowering, x):
    op = lowering.layer
    return reduced(lowering, "ReduceLogSumExp", x, op.axis, op.keepdims)


@operation("Norm")
def norm(lowering, x):
    op = lowering.layer
    if op.ord not in (None, 2, "fro") or (
        op.ord is not None and op.axis is not None and len(op.axis) > 1
    ):
        lowering.refuse(f"`norm` with ord={op.ord!r} has no operator")
    return reduced(lowering, "ReduceL2", x, op.axis, op.keepdims)


@operation("Argmax", "Argmin")
def argmax(lowering, x):
    op = lowering.layer
    name = {"Argmax": "ArgMax", "Argmin": "ArgMin"}[type(op).__name__]
    dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
    if x.dtype == "bool":
        x = lowering.cast(x, "int32")
    axis = op.axis
    if axis is None:
        if op.keepdims:
            lowering.refuse("an index over all axes, kept, has no operator")
        x = lowering.node("Reshape", [x, lowering.integers(-1)])
        axis = 0
    found = lowering.node(
        name, [x], dtype="int64", axis=axis, keepdims=int(op.keepdims)
    )
    return lowering.cast(found, dtype)


@operation("Cumsum")
def cumsum(lowering, x):
    op = lowering.layer
    dtype = keras.backend.standardize_dtype(lowering.outputs.dtype)
    axis = op.axis
    if axis is None:
        x = lowering.node("Reshape", [x, lowering.integers(-1)])
        axis = 0
    return computed(
        lowering, "Identity", [_cumulated(lowering, x, axis, dtype)], dtype
    )


def _cumulated(lowering, x, axis, dtype):
    wide = dtype if dtype in ("float32", "float64", "int64") else "int32"
    values = [lowering.value(x, wide), np.array(axis, "int64")]
    return lowering.node("CumSum", values)


@operation("TopK")
def top_k(lowering, x):
    op = lowering.layer
    values, indices = lowering.node(
        "TopK", [x, lowering.integers(op.k)], 2, axis=-1, sorted=1
    )
    indices.dtype = "int64"
    return values, lowering.cast(indices, "int32")


@operation("Sort", "Argsort")
def sort(lowering, x):
    op = lowering.layer
    axis = op.axis
    if axis is None:
        x = lowering.node("Reshape", [x, lowering.integers(-1)])
        axis = 0
    shape = lowering.node("Shape", [x], dtype="int64")
    count = lowering.node("Gather", [shape, lowering.integers(axis)], axis=0)
    values, indices = lowering.node(
        "TopK", [x, count], 2, axis=axis, largest=0, sorted=1
    )
    if type(op).__name__ == "Sort":
        return values
    indices.dtype = "int64"
    return lowering.cast(indices, "int32")
