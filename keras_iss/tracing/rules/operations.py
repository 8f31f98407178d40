"""The operations of `keras.ops`, as functional models hold them."""

import keras
import numpy as np

from keras_iss.tracing.labels import Traced
from keras_iss.tracing.registry import operation_rule
from keras_iss.tracing.rules.common import (
    as_traced,
    broadcast,
    concatenation,
    contraction,
    reshaped,
    through,
)

# They are not finite everywhere.
_PARTIAL = (
    "Arccos Arccosh Arcsin Arctanh Log Log10 Log1p Log2 Reciprocal Rsqrt "
    "Sqrt Tan"
).split()

_ALL_ZERO = np.logical_and.reduce
_ANY_ZERO = np.logical_or.reduce


def _never(flags):
    return np.zeros_like(flags[0])


@operation_rule(
    "Abs Absolute Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cast Cbrt "
    "Ceil Celu Clip ConvertToTensor Copy Cos Cosh Deg2rad Elu Erf Erfc Exp "
    "Exp2 Expm1 Fabs Floor Gelu HardShrink HardSigmoid HardSilu HardTanh "
    "Isfinite Isinf Isnan LeakyRelu Log Log10 Log1p Log2 LogSigmoid "
    "LogicalNot NanToNum Negative OnesLike Rad2deg Reciprocal Relu Relu6 "
    "Round Rsqrt SaturateCast Selu Sigmoid Sign Silu Sin Sinh SoftShrink "
    "Softplus Softsign SparsePlus SparseSigmoid Sqrt Square Squareplus "
    "StopGradient Tan Tanh TanhShrink Threshold Trunc ZerosLike"
)
def unary(call, x):
    limits = (getattr(call.operation, name, 0) for name in ("x_min", "x_max"))
    if any(np.ndim(limit) for limit in limits):
        call.pin(x, "compares each unit with a limit of its own")
    if type(call.operation).__name__ in _PARTIAL:
        call.pin(
            [axis.where(~axis.zero) for axis in x.axes if axis is not None],
            "may have no finite value for a removed unit",
        )
    axes = [
        through(call, axis, call.operation.call, "gives what")
        for axis in x.axes
    ]
    return call.output(dict(enumerate(axes)))


@operation_rule("FullLike")
def full_like(call, x, fill_value):
    axes = broadcast(call, [x, as_traced(fill_value)], _never)
    return call.output(dict(enumerate(axes)))


@operation_rule("Add Subtract Maximum Minimum Fmax Fmin")
def zero_where_both_are(call, x1, x2):
    return _binary(call, x1, x2, _ALL_ZERO)


@operation_rule("Multiply")
def zero_where_one_is(call, x1, x2):
    return _binary(call, x1, x2, _ANY_ZERO)


@operation_rule(
    "Equal Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr "
    "LogicalXor Logaddexp NotEqual"
)
def zero_nowhere(call, x1, x2):
    return _binary(call, x1, x2, _never)


@operation_rule("Divide TrueDivide DivideNoNan FloorDivide Mod")
def divide(call, x1, x2):
    divisor = as_traced(x2)
    if divisor.labelled and type(call.operation).__name__ != "DivideNoNan":
        call.pin([x1, x2], "divides by what may be zero for a removed unit")
    return _binary(call, x1, x2, lambda flags: flags[0])


@operation_rule("Power")
def power(call, x1, x2):
    exponent = as_traced(x2)
    if exponent.labelled or isinstance(x2, Traced):
        call.pin([x1, x2], "raises it to a power that is not a number")
        return call.output()
    positive = bool(np.all(keras.ops.convert_to_numpy(x2) > 0))
    if not positive:
        call.pin(x1, "raises it to a power that is not positive")
    if not bool(np.all(keras.ops.convert_to_numpy(x2) % 1 == 0)):
        call.pin(
            [axis.where(~axis.zero) for axis in x1.axes if axis is not None],
            "may have no finite value for a removed unit",
        )
    return _binary(call, x1, x2, lambda flags: flags[0])


def _binary(call, x1, x2, zero):
    axes = broadcast(call, [as_traced(x1), as_traced(x2)], zero)
    return call.output(dict(enumerate(axes)))


@operation_rule("Where")
def where(call, condition, x1=None, x2=None):
    if x1 is None or x2 is None:
        call.pin(condition, "looks for positions")
        return call.outputs()
    tensors = [as_traced(x) for x in (condition, x1, x2)]
    axes = broadcast(call, tensors, lambda flags: _ALL_ZERO(flags[1:]))
    return call.output(dict(enumerate(axes)))


@operation_rule("Sum Mean Max Min Amax Amin Std Var")
def zero_of_zeros(call, x):
    initial = getattr(call.operation, "initial", None)
    return _reduced(call, x, keeps_zero=initial is None)


@operation_rule("All Any Argmax Argmin CountNonzero Logsumexp Median Prod Norm")
def reduction(call, x):
    return _reduced(call, x, keeps_zero=False)


def _reduced(call, x, keeps_zero):
    name = type(call.operation).__name__.lower()
    mixed = _dimensions(call.operation.axis, x)
    carried = [i for i in range(len(x.shape)) if i not in mixed]
    x = call.pin_all_but(x, carried, f"takes the {name} over the units")
    axes = [
        axis if axis is None or keeps_zero else axis.with_zero(False)
        for axis in x.axes
    ]
    if not getattr(call.operation, "keepdims", False):
        axes = [axes[i] for i in carried]
    return call.output(dict(enumerate(axes)))


def _dimensions(axis, x):
    """The dimensions that an `axis` argument names, all for `None`."""
    rank = len(x.shape)
    if axis is None:
        return list(range(rank))
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return [i % rank for i in axes]


@operation_rule("Cumsum Cumprod Sort Flip Roll Normalize")
def along_zero(call, x):
    return _along(call, x, keeps_zero=True)


@operation_rule("Argsort LogSoftmax Softmax Sparsemax")
def along(call, x):
    return _along(call, x, keeps_zero=False)


def _along(call, x, keeps_zero):
    name = type(call.operation).__name__.lower()
    mixed = _dimensions(call.operation.axis, x)
    carried = [i for i in range(len(x.shape)) if i not in mixed]
    x = call.pin_all_but(x, carried, f"applies {name} along the units")
    axes = [
        axis if axis is None or keeps_zero else axis.with_zero(False)
        for axis in x.axes
    ]
    return call.output(dict(enumerate(axes)))


@operation_rule("Matmul")
def matmul(call, x1, x2):
    x1, x2 = as_traced(x1), as_traced(x2)
    first = _from_back(x1, ["row", "summed"])
    second = _from_back(x2, ["summed", "column"])
    if len(x2.shape) == 1:
        second = ["summed"]
    if len(x1.shape) == 1:
        first = ["summed"]
    longest = max(first[:-2], second[:-2], key=len)
    kept = longest + [x for x in ("row", "column") if x in first + second]
    return call.output(contraction(call, [first, second], [x1, x2], kept))


def _from_back(x, last):
    """Letters for the dimensions, those of the batch counted from the back."""
    rank = len(x.shape)
    return [f"batch{i}" for i in range(rank - 2, 0, -1)] + last[-rank:]


@operation_rule("Dot Tensordot")
def tensordot(call, x1, x2):
    x1, x2 = as_traced(x1), as_traced(x2)
    ranks = len(x1.shape), len(x2.shape)
    axes = getattr(call.operation, "axes", None)
    if axes is None:
        axes = [-1], [-2 if ranks[1] > 1 else -1]
    elif isinstance(axes, int):
        axes = range(ranks[0] - axes, ranks[0]), range(axes)
    letters = [f"first{i}" for i in range(ranks[0])]
    others = [f"second{i}" for i in range(ranks[1])]
    for n, (i, j) in enumerate(zip(*map(_as_list, axes))):
        letters[i] = others[j] = f"summed{n}"
    if 0 in ranks:
        return _binary(call, x1, x2, _ANY_ZERO)
    kept = [x for x in letters + others if not x.startswith("summed")]
    return call.output(contraction(call, [letters, others], [x1, x2], kept))


def _as_list(axes):
    return list(axes) if isinstance(axes, (list, tuple, range)) else [axes]


@operation_rule("Einsum")
def einsum(call, *operands):
    operands = [as_traced(x) for x in operands]
    subscripts = call.operation.subscripts.replace(" ", "")
    if "->" not in subscripts:
        call.pin(operands, "has an equation without an output")
        return call.outputs()
    terms, output = subscripts.split("->")
    terms = [
        _einsum_letters(term, len(x.shape))
        for term, x in zip(terms.split(","), operands)
    ]
    elided = max((t for t in terms), key=lambda t: sum(map(_is_elided, t)))
    elided = [letter for letter in elided if _is_elided(letter)]
    before, dots, after = output.partition("...")
    kept = [*before, *(elided if dots else []), *after]
    return call.output(contraction(call, terms, operands, kept))


def _is_elided(letter):
    return letter.isdigit()


def _einsum_letters(term, rank):
    """Letters for the dimensions; those elided are counted from the back."""
    before, dots, after = term.partition("...")
    elided = rank - len(before) - len(after) if dots else 0
    return [*before, *map(str, range(elided - 1, -1, -1)), *after]


@operation_rule("Concatenate")
def concatenate(call, xs):
    xs = [as_traced(x) for x in xs]
    return call.output(concatenation(call, xs, call.operation.axis))


@operation_rule("Append")
def append(call, x1, x2):
    if call.operation.axis is None:
        call.pin([x1, x2], "flattens it")
        return call.output()
    xs = [as_traced(x1), as_traced(x2)]
    return call.output(concatenation(call, xs, call.operation.axis))


@operation_rule("Stack")
def stack(call, x):
    xs = [as_traced(one) for one in x]
    axes = [
        call.tie(*(one.axis(i) for one in xs)) for i in range(len(xs[0].shape))
    ]
    axes.insert(call.operation.axis % (len(axes) + 1), None)
    return call.output(dict(enumerate(axes)))


@operation_rule("Split ArraySplit Unstack")
def split(call, x):
    axis = call.operation.axis % len(x.shape)
    carried = [i for i in range(len(x.shape)) if i != axis]
    x = call.pin_all_but(x, carried, "splits the units")
    axes = list(x.axes)
    if type(call.operation).__name__ == "Unstack":
        del axes[axis]
    return [
        Traced.of(shape, dict(enumerate(axes)))
        for shape in call.output_shapes()
    ]


@operation_rule("Transpose")
def transpose(call, x):
    order = call.operation.axes or range(len(x.shape))[::-1]
    return _ordered(call, x, order)


@operation_rule("Swapaxes")
def swapaxes(call, x):
    order = list(range(len(x.shape)))
    i, j = call.operation.axis1, call.operation.axis2
    order[i], order[j] = order[j], order[i]
    return _ordered(call, x, order)


@operation_rule("Moveaxis")
def moveaxis(call, x):
    order = np.moveaxis(
        np.empty(range(len(x.shape))),
        call.operation.source,
        call.operation.destination,
    ).shape
    return _ordered(call, x, order)


def _ordered(call, x, order):
    return call.output({i: x.axes[j] for i, j in enumerate(order)})


@operation_rule("ExpandDims")
def expand_dims(call, x):
    added = call.operation.axis
    added = added if isinstance(added, (list, tuple)) else [added]
    rank = len(x.shape) + len(added)
    added = {i % rank for i in added}
    axes = iter(x.axes)
    return call.output(
        {i: None if i in added else next(axes) for i in range(rank)}
    )


@operation_rule("Squeeze")
def squeeze(call, x):
    if call.operation.axis is None:
        call.pin(x, "drops every dimension of size 1, as the units may become")
        return call.output()
    dropped = _dimensions(call.operation.axis, x)
    call.pin([x.axes[i] for i in dropped], "drops the dimension of the units")
    axes = [axis for i, axis in enumerate(x.axes) if i not in dropped]
    return call.output(dict(enumerate(axes)))


@operation_rule("Reshape")
def reshape(call, x):
    new_shape = call.operation.newshape
    if isinstance(new_shape, int):
        new_shape = (new_shape,)

    def size_key(dimension):
        if new_shape[dimension] in (None, -1):
            return None
        return ("newshape", dimension)

    return reshaped(call, x, call.output_shapes()[0], size_key)


@operation_rule("Ravel")
def ravel(call, x):
    return reshaped(call, x, call.output_shapes()[0])


@operation_rule("BroadcastTo")
def broadcast_to(call, x):
    shape = call.operation.shape
    axes = {}
    for i in range(-len(x.shape), 0):
        if x.axes[i] is not None and shape[i] in (x.shape[i], -1, None):
            axes[len(shape) + i] = x.axes[i]
            if shape[i] == x.shape[i]:
                call.set_size(("shape", len(shape) + i), x.axes[i])
        else:
            call.pin(x.axes[i], "stretches a single unit")
    return call.output(axes)


@operation_rule("GetItem")
def get_item(call, x, key):
    keys = list(key) if isinstance(key, (list, tuple)) else [key]
    if not all(_is_plain_index(one) for one in keys):
        call.pin(x, "indexes it with a tensor")
        return call.output()
    if not any(one is Ellipsis for one in keys):
        keys.append(Ellipsis)
    consumed = sum(one is not None and one is not Ellipsis for one in keys)
    dimensions = iter(range(len(x.shape)))
    axes = []
    for one in keys:
        if one is None:
            axes.append(None)
        elif one is Ellipsis:
            for _ in range(len(x.shape) - consumed):
                axes.append(x.axes[next(dimensions)])
        else:
            i = next(dimensions)
            whole = isinstance(one, slice) and _is_whole(one, x.shape[i])
            if not whole:
                call.pin(x.axes[i], "indexes the units")
            if isinstance(one, slice):
                axes.append(x.axes[i] if whole else None)
    return call.output(dict(enumerate(axes)))


def _is_plain_index(key):
    if isinstance(key, bool):
        return False
    return key is None or key is Ellipsis or isinstance(key, (int, slice))


def _is_whole(key, size):
    """Whether a slice takes a whole axis, whatever its size becomes."""
    return (
        key.start in (None, 0)
        and key.step in (None, 1)
        and (key.stop is None or (size is not None and key.stop >= size))
    )


@operation_rule("Take")
def take(call, x, indices):
    x, indices = as_traced(x), as_traced(indices)
    call.pin(indices, "takes it for an index")
    if call.operation.axis is None:
        call.pin(x, "indexes the units")
        return call.output()
    taken = call.operation.axis % len(x.shape)
    carried = [i for i in range(len(x.shape)) if i != taken]
    x = call.pin_all_but(x, carried, "indexes the units")
    axes = list(x.axes)
    axes[taken : taken + 1] = [None] * len(indices.shape)
    return call.output(dict(enumerate(axes)))


@operation_rule("Repeat")
def repeat(call, x):
    axis = call.operation.axis
    repeated = _dimensions(axis, x)
    carried = [i for i in range(len(x.shape)) if i not in repeated]
    x = call.pin_all_but(x, carried, "repeats the units")
    if axis is None:
        return call.output()
    return call.output(dict(enumerate(x.axes)))


@operation_rule("Tile")
def tile(call, x):
    repeats = call.operation.repeats
    repeats = list(repeats) if isinstance(repeats, (list, tuple)) else [repeats]
    rank = max(len(repeats), len(x.shape))
    repeats = [1] * (rank - len(repeats)) + repeats
    axes = [None] * (rank - len(x.shape)) + list(x.axes)
    for i, times in enumerate(repeats):
        if times != 1 and axes[i] is not None:
            call.pin(axes[i], "repeats the units")
            axes[i] = None
    return call.output(dict(enumerate(axes)))


@operation_rule("Pad")
def pad(call, x, constant_values=None):
    widths = np.broadcast_to(call.operation.pad_width, (len(x.shape), 2))
    carried = [i for i, width in enumerate(widths) if not width.any()]
    x = call.pin_all_but(x, carried, "pads the units")
    zero = constant_values is None and call.operation.mode == "constant"
    axes = [
        axis if axis is None or zero else axis.with_zero(False)
        for axis in x.axes
    ]
    return call.output(dict(enumerate(axes)))
