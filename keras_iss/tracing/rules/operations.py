"""The operations of `keras.ops`, as functional models hold them."""

import dataclasses

import keras
import numpy as np

from keras_iss.tracing.labels import Axis, Traced
from keras_iss.tracing.labels import concatenate as concatenate_axes
from keras_iss.tracing.registry import operation_rule
from keras_iss.tracing.rules.common import (
    as_traced,
    broadcast,
    concatenation,
    contraction,
    dimensions,
    each,
    elementwise,
    pin_if_taken_for_a_bias,
    reshaped,
    through,
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


@operation_rule("Any CountNonzero Nansum Sum")
def summed(call, x):
    """A unit that is zero adds nothing."""
    return _reduced(call, _contracted(call, x), keeps_zero=True)


def _contracted(call, x):
    """The tensor without labels where it is summed over the units."""
    mixed = dimensions(call.operation.axis, x)
    for i in mixed:
        call.contract(x.axes[i])
    return x.replace(
        axes=[None if i in mixed else one for i, one in enumerate(x.axes)]
    )


@operation_rule("Norm")
def norm(call, x):
    """A sum, a maximum of what is not negative, or singular values.

    All but those of negative order, which look for the smallest: it is that
    of a unit that is zero.
    """
    order = call.operation.ord
    if order is None or isinstance(order, str) or order >= 0:
        return summed(call, x)
    return _reduced(call, x, keeps_zero=False)


@operation_rule("Amax Max")
def maximum(call, x):
    if x.not_negative:
        x = _contracted(call, x)
    return zero_of_zeros(call, x)


@operation_rule("Amin Mean Min Nanmax Nanmean Nanmin Nanstd Nanvar Ptp Std Var")
def zero_of_zeros(call, x):
    initial = getattr(call.operation, "initial", None)
    return _reduced(call, x, keeps_zero=initial is None)


@operation_rule(
    "All Argmax Argmin Logsumexp Median Nanargmax Nanargmin Nanmedian Nanprod "
    "Prod"
)
def reduction(call, x):
    return _reduced(call, x, keeps_zero=False)


@operation_rule("Nanpercentile Nanquantile Percentile Quantile")
def quantile(call, x, q):
    call.pin(as_traced(q), "takes it for the part that is below")
    return _reduced(call, x, keeps_zero=False, added=len(as_traced(q).shape))


@operation_rule("Average")
def average(call, x, weights=None):
    if weights is not None:
        weights = as_traced(weights)
        call.pin(weights, "divides by its sum")
        if len(weights.shape) == len(x.shape):
            broadcast(call, [x, weights])
        else:
            # Keras aligns them with one dimension or another.
            call.pin(x, "weighs it along one dimension")
    return _reduced(call, x, keeps_zero=True)


@operation_rule("Trapezoid")
def trapezoid(call, y):
    if np.ndim(call.operation.x) > 1:
        call.pin(y, "takes the trapezoid over steps of several dimensions")
    return _reduced(call, y, keeps_zero=True)


@operation_rule("Moments")
def moments(call, x):
    """Mean and variance."""
    outputs = call.outputs()
    one = _reduced(call, x, keeps_zero=True, axis=call.operation.axes)
    return [one.replace(output.shape) for output in outputs]


def _reduced(call, x, keeps_zero, added=0, axis=dataclasses.MISSING):
    """A reduction of some dimensions, in which units must stay.

    Args:
        call: The `Call`.
        x: `Traced`.
        keeps_zero: Boolean, whether zeros come to zero.
        added: Integer, how many dimensions the output has in front.
        axis: What is reduced. Defaults to what the operation says.
    """
    if axis is dataclasses.MISSING:
        axis = call.operation.axis
    name = type(call.operation).__name__.lower()
    mixed = dimensions(axis, x)
    carried = [i for i in range(len(x.shape)) if i not in mixed]
    x = call.pin_all_but(x, carried, f"takes the {name} over the units")
    axes = [
        one if one is None or keeps_zero else one.with_zero(False)
        for one in x.axes
    ]
    if not getattr(call.operation, "keepdims", False):
        axes = [axes[i] for i in carried]
    return call.output(dict(enumerate(axes, start=added)))


@operation_rule("Cumsum Nancumsum")
def cumulative_sum(call, x):
    """A unit that is zero adds nothing to those behind it."""
    axis = call.operation.axis
    if axis is None:
        return _along(call, x, keeps_zero=True)
    (place,) = dimensions(axis, x)
    summed = x.axes[place]
    call.contract(summed)
    axes = list(x.axes)
    if summed is not None:
        axes[place] = summed.with_zero(False)
    return call.output(dict(enumerate(axes)))


@operation_rule("Normalize")
def normalize(call, x):
    for i in dimensions(call.operation.axis, x):
        call.contract(x.axes[i])
    return call.output(dict(enumerate(x.axes)))


@operation_rule("Flip Fliplr Flipud")
def flip(call, x):
    kind = type(call.operation).__name__
    axis = {"Fliplr": 1, "Flipud": 0}.get(
        kind, getattr(call.operation, "axis", None)
    )
    flipped = dimensions(axis, x)
    axes = [
        Axis(one.labels[::-1], one.zero[::-1])
        if i in flipped and one is not None
        else one
        for i, one in enumerate(x.axes)
    ]
    return call.output(dict(enumerate(axes)))


@operation_rule("Cumprod Diff Glu Nancumprod Roll Sort")
def along_zero(call, x):
    return _along(call, x, keeps_zero=True)


@operation_rule("Argpartition Argsort LogSoftmax Softmax Sparsemax")
def along(call, x):
    return _along(call, x, keeps_zero=False)


@operation_rule("Tril Triu")
def triangle(call, x):
    return _along(call, x, keeps_zero=True, axis=(-2, -1))


@operation_rule("TopK")
def top_k(call, x):
    values = _along(call, x, keeps_zero=True, axis=-1)
    indices = [x if x is None else x.with_zero(False) for x in values.axes]
    return [values, values.replace(axes=indices)]


def _along(call, x, keeps_zero, axis=dataclasses.MISSING):
    """Something that mixes along some dimensions, and nowhere else."""
    if axis is dataclasses.MISSING:
        axis = call.operation.axis
    name = type(call.operation).__name__.lower()
    mixed = dimensions(axis, x)
    carried = [i for i in range(len(x.shape)) if i not in mixed]
    x = call.pin_all_but(x, carried, f"applies {name} along the units")
    axes = [
        one if one is None or keeps_zero else one.with_zero(False)
        for one in x.axes
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
    if any(len(as_traced(x).shape) == 0 for x in (x1, x2)):
        return elementwise(call, [x1, x2], _ANY_ZERO)
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
    kept = [x for x in letters + others if not x.startswith("summed")]
    return call.output(contraction(call, [letters, others], [x1, x2], kept))


@operation_rule("Inner")
def inner(call, x1, x2):
    if any(len(as_traced(x).shape) == 0 for x in (x1, x2)):
        return elementwise(call, [x1, x2], _ANY_ZERO)
    x1, x2 = as_traced(x1), as_traced(x2)
    letters = [f"first{i}" for i in range(len(x1.shape) - 1)]
    others = [f"second{i}" for i in range(len(x2.shape) - 1)]
    terms = [[*letters, "summed"], [*others, "summed"]]
    return call.output(contraction(call, terms, [x1, x2], letters + others))


@operation_rule("Vdot")
def vdot(call, x1, x2):
    """The product of all the elements, in order."""
    x1, x2 = as_traced(x1), as_traced(x2)
    if x1.shape != x2.shape:
        call.pin([x1, x2], "flattens it")
        return call.output()
    letters = list(range(len(x1.shape)))
    return call.output(contraction(call, [letters, letters], [x1, x2], []))


@operation_rule("CDist")
def distances(call, x, y):
    """Square roots of sums of squares of differences: both have to be zero."""
    x, y = as_traced(x), as_traced(y)
    features = [Traced.of(one.shape[-1:], {0: one.axes[-1]}) for one in (x, y)]
    (common,) = broadcast(call, features, _ALL_ZERO)
    call.contract(common)
    for one in (x, y):
        call.pin(one.axes[:-1], "measures distances between the units")
    return call.output()


def _as_list(axes):
    return list(axes) if isinstance(axes, (list, tuple, range)) else [axes]


@operation_rule("Einsum")
def einsum(call, *operands):
    operands = [as_traced(x) for x in operands]
    subscripts = call.operation.subscripts.replace(" ", "")
    terms, arrow, output = subscripts.partition("->")
    if not arrow:
        # What occurs once is kept, in the order of the alphabet.
        letters = terms.replace(",", "").replace("...", "")
        once = sorted(x for x in set(letters) if letters.count(x) == 1)
        output = "".join(["..." * ("..." in terms), *once])
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


@operation_rule("Hstack Vstack Dstack")
def stack_along(call, xs):
    """They are given the dimensions that they lack, and joined along one."""
    xs = [as_traced(x) for x in xs]
    kind = type(call.operation).__name__
    if kind == "Hstack":
        dimension = min(1, len(xs[0].shape) - 1)
    elif kind == "Vstack":
        xs, dimension = [_in_front(x, 2) for x in xs], 0
    else:
        xs = [_in_front(x, 2) for x in xs]
        xs = [
            x.replace((*x.shape, 1), (*x.axes, None))
            if len(x.shape) == 2
            else x
            for x in xs
        ]
        dimension = 2
    return call.output(concatenation(call, xs, dimension))


def _in_front(x, rank):
    """A tensor with dimensions of size 1 in front."""
    missing = max(0, rank - len(x.shape))
    return x.replace((*[1] * missing, *x.shape), (*[None] * missing, *x.axes))


@operation_rule("Split ArraySplit Unstack")
def split(call, x):
    return _split(call, x, call.operation.axis)


@operation_rule("Hsplit Vsplit Dsplit")
def split_along(call, x):
    kind = type(call.operation).__name__
    axis = {"Hsplit": min(1, len(x.shape) - 1), "Vsplit": 0, "Dsplit": 2}[kind]
    return _split(call, x, axis)


def _split(call, x, axis):
    axis %= len(x.shape)
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
    dropped = dimensions(call.operation.axis, x)
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
            axis = x.axes[i]
            if axis is not None and _is_backwards(one):
                axis = Axis(axis.labels[::-1], axis.zero[::-1])
            elif not _is_whole(one, x.shape[i]):
                call.pin(axis, "indexes the units")
                axis = None
            if isinstance(one, slice):
                axes.append(axis)
    return call.output(dict(enumerate(axes)))


def _is_plain_index(key):
    if isinstance(key, bool):
        return False
    return key is None or key is Ellipsis or isinstance(key, (int, slice))


def _is_backwards(key):
    """Whether it is a slice that turns a whole axis around."""
    return key == slice(None, None, -1)


def _is_whole(key, size):
    """Whether a slice takes a whole axis, whatever its size becomes."""
    return (
        isinstance(key, slice)
        and key.start in (None, 0)
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


@operation_rule("TakeAlongAxis")
def take_along_axis(call, x, indices):
    x, indices = as_traced(x), as_traced(indices)
    if call.operation.axis is None:
        call.pin([x, indices], "indexes the units")
        return call.output()
    taken = call.operation.axis % len(x.shape)
    carried = [i for i in range(len(x.shape)) if i != taken]
    x = call.pin_all_but(x, carried, "indexes the units")
    indices = call.pin_all_but(indices, carried, "takes it for an index")
    # Along the others they are stretched to one shape; along this one, they
    # have nothing to do with each other.
    axes = broadcast(
        call,
        [
            one.replace([1 if i == taken else n for i, n in enumerate(shape)])
            for one, shape in ((x, x.shape), (indices, indices.shape))
        ],
        _first,
    )
    return call.output(dict(enumerate(axes)))


@operation_rule("Slice")
def slice_(call, inputs, start_indices):
    inputs = as_traced(inputs)
    axes = {}
    for i, axis in enumerate(inputs.axes):
        if axis is None:
            continue
        if _starts_at_zero(start_indices, i) and (
            call.operation.shape[i] == len(axis)
        ):
            axes[i] = axis
            call.set_size(("shape", i), axis)
        else:
            call.pin(axis, "indexes the units")
    return call.output(axes)


def _starts_at_zero(indices, dimension):
    if isinstance(indices, Traced):
        return False
    try:
        return int(np.asarray(indices[dimension])) == 0
    except (TypeError, ValueError):
        return False  # Some of them are tensors of the model.


@operation_rule("SliceUpdate")
def slice_update(call, inputs, start_indices, updates):
    inputs, updates = as_traced(inputs), as_traced(updates)
    axes = {}
    for i, (old, new) in enumerate(zip(inputs.axes, updates.axes)):
        whole = inputs.shape[i] == updates.shape[i]
        if old is None and new is None:
            continue
        if whole and _starts_at_zero(start_indices, i):
            axes[i] = call.tie(inputs.axis(i), updates.axis(i))
        else:
            call.pin([old, new], "writes into the units")
    return call.output(axes)


@operation_rule("ScatterUpdate")
def scatter_update(call, inputs, indices, updates):
    """Writes into the first dimensions, as many as an index has numbers."""
    inputs, indices, updates = map(as_traced, (inputs, indices, updates))
    call.pin(indices, "takes it for an index")
    depth = indices.shape[-1]
    if depth is None or call.operation.reduction not in (None, "add"):
        call.pin([inputs, updates], "writes into the units")
        return call.output()
    rank = len(inputs.shape)
    inputs = call.pin_all_but(inputs, range(depth, rank), "writes into them")
    lead = len(updates.shape) - (rank - depth)
    updates = call.pin_all_but(
        updates, range(lead, len(updates.shape)), "writes them"
    )
    return call.output(
        {
            i: call.tie(inputs.axis(i), updates.axis(i - depth + lead))
            for i in range(depth, rank)
        }
    )


@operation_rule("Repeat")
def repeat(call, x):
    axis, times = call.operation.axis, call.operation.repeats
    if axis is None:
        call.pin(x, "flattens it")
        return call.output()
    (place,) = dimensions(axis, x)
    axes = list(x.axes)
    if axes[place] is not None:
        if np.ndim(times):
            call.pin(axes[place], "repeats each unit a number of times")
            axes[place] = None
        else:
            axes[place] = each(axes[place], int(times))
    return call.output(dict(enumerate(axes)))


@operation_rule("Tile")
def tile(call, x):
    repeats = call.operation.repeats
    repeats = list(repeats) if isinstance(repeats, (list, tuple)) else [repeats]
    rank = max(len(repeats), len(x.shape))
    repeats = [1] * (rank - len(repeats)) + repeats
    axes = [None] * (rank - len(x.shape)) + list(x.axes)
    for i, times in enumerate(repeats):
        if axes[i] is not None and times != 1:
            axes[i] = axes[i].repeat(int(times))
    return call.output(dict(enumerate(axes)))


@operation_rule("Pad")
def pad(call, x, constant_values=None):
    widths = np.broadcast_to(call.operation.pad_width, (len(x.shape), 2))
    constant = call.operation.mode == "constant"
    zero = not constant or constant_values is None
    axes = []
    for axis, (before, after) in zip(x.axes, widths.tolist()):
        if axis is not None and (before or after):
            if constant:
                axis = concatenate_axes(
                    [Axis.fixed(before), axis, Axis.fixed(after)]
                )
            else:
                call.pin(axis, "pads the units with others of them")
                axis = None
        elif axis is not None and not zero:
            axis = axis.with_zero(False)
        axes.append(axis)
    return call.output(dict(enumerate(axes)))


@operation_rule("MaxPool AveragePool AdaptiveAveragePool AdaptiveMaxPool")
def pool(call, inputs):
    first = call.operation.data_format or keras.config.image_data_format()
    channel = 1 if first == "channels_first" else len(inputs.shape) - 1
    inputs = call.pin_all_but(inputs, [channel], "pools over the units")
    return call.output({channel: inputs.axes[channel]})
