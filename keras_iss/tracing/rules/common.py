"""What many rules share: activations, broadcasting, contraction."""

import keras
import numpy as np

from keras_iss.tracing.labels import Axis, Traced, concatenate

_ELEMENTWISE_NAMES = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu "
    "hard_swish hard_tanh leaky_relu linear log_sigmoid mish relu relu6 "
    "selu sigmoid silu soft_shrink softplus softsign sparse_plus "
    "sparse_sigmoid squareplus swish tanh tanh_shrink threshold"
).split()

_ELEMENTWISE = [
    getattr(module, name)
    for module in (keras.activations, keras.ops)
    for name in _ELEMENTWISE_NAMES
    if hasattr(module, name)
]


def is_elementwise(activation):
    """Whether an activation is known to act on each unit alone."""
    return activation is None or any(
        activation is known for known in _ELEMENTWISE
    )


def value_at_zero(function):
    """The value of an elementwise function at zero, or `None` if unknown."""
    if function is None:
        return 0.0
    try:
        value = keras.ops.convert_to_numpy(function(keras.ops.zeros((1,))))
        return float(value[0]) if value.shape == (1,) else None
    except Exception:
        return None


def keeps_zero(function):
    """Whether an elementwise function is zero at zero."""
    return value_at_zero(function) == 0.0


def through(call, axis, function, what):
    """An axis of what an elementwise function gives.

    Pins it where a removed unit would give no finite number, which even a
    zero weight could not silence.
    """
    if axis is None:
        return None
    value = value_at_zero(function)
    if value is not None and not np.isfinite(value):
        call.pin(axis, f"{what} is not finite at zero")
    return axis.with_zero(axis.zero & (value == 0.0))


def pin_unless_elementwise(call, tensors, **activations):
    """Pins units that an activation may mix."""
    for name, activation in activations.items():
        if not is_elementwise(activation):
            shown = getattr(activation, "__name__", repr(activation))
            call.pin(
                tensors,
                f"has the {name.replace('_', ' ')} `{shown}`, which is not "
                "known to act on each unit alone",
            )


def as_traced(value):
    """A constant among an operation's arguments as a tensor to stay."""
    if isinstance(value, Traced):
        return value
    return Traced.of(tuple(getattr(value, "shape", np.shape(value))))


def broadcast(call, tensors, zero=np.logical_and.reduce):
    """The labels of an elementwise function of several tensors.

    Args:
        call: The `Call`.
        tensors: List of `Traced`, constants included.
        zero: Function from a list of boolean arrays, one for each tensor, to
            the one for the output: where it is zero given where they are.

    Returns:
        List of `Axis` or `None`, for the dimensions of the output.
    """
    rank = max(len(x.shape) for x in tensors)
    axes = []
    for i in range(-rank, 0):
        present = [x for x in tensors if len(x.shape) >= -i]
        wide = [x for x in present if x.shape[i] != 1]
        for x in present:
            if wide and x.shape[i] == 1 and x.axes[i] is not None:
                call.pin(x.axes[i], "stretches a single unit")
        wide = wide or present
        common = call.tie(*(x.axis(i) for x in wide))
        if common is not None:
            never = np.zeros(len(common), bool)
            flags = [
                x.axis(i).zero if x in wide and x.axis(i) is not None else never
                for x in tensors
            ]
            common = common.with_zero(zero(flags))
        axes.append(common)
    return axes


def contraction(call, terms, tensors, kept):
    """Products of tensors, summed over some of their dimensions.

    Args:
        call: The `Call`.
        terms: For each tensor, a letter for each of its dimensions.
        tensors: List of `Traced`.
        kept: The letters of the output, in order.

    Returns:
        Dict from dimension of the output to `Axis`.
    """
    found = {}
    for letters, tensor in zip(terms, tensors):
        if len(set(letters)) < len(letters):
            call.pin(tensor, "takes a diagonal")
            # What it meets on its way keeps its size.
            tensor = Traced.of(tensor.shape)
        for i, letter in enumerate(letters):
            found.setdefault(letter, []).append((tensor, i))
    axes = {}
    for letter, places in found.items():
        wide = [(x, i) for x, i in places if x.shape[i] != 1] or places
        for x, i in places:
            if x.axes[i] is not None and (x, i) not in wide:
                call.pin(x.axes[i], "stretches a single unit")
        if not any(x.axes[i] is not None for x, i in wide):
            continue
        if letter in kept:
            common = call.tie(*(x.axis(i) for x, i in wide))
            if common is not None:
                known = [x.axis(i) for x, i in wide]
                zero = np.any([x.zero for x in known if x is not None], axis=0)
                axes[kept.index(letter)] = common.with_zero(zero)
        elif len(tensors) == 1:
            call.pin([x.axes[i] for x, i in wide], "sums over the units")
        else:
            call.contract(*(x.axis(i) for x, i in wide))
    return axes


def concatenation(call, tensors, dimension):
    """Tensors joined along a dimension.

    Returns:
        Dict from dimension of the output to `Axis`.
    """
    rank = len(tensors[0].shape)
    dimension %= rank
    axes = {}
    for i in range(rank):
        if i != dimension:
            axes[i] = call.tie(*(x.axis(i) for x in tensors))
        elif any(x.axes[i] is not None for x in tensors):
            parts = [x.axis(i) for x in tensors]
            if any(part is None for part in parts):
                call.pin(tensors, "joins it with an axis of unknown size")
            else:
                axes[i] = concatenate(parts)
    return axes


def reshaped(call, tensor, shape, size_key=None):
    """A tensor in another shape.

    Args:
        call: The `Call`.
        tensor: `Traced`.
        shape: The new shape, `None` where it is not known.
        size_key: Function from a dimension of the output to the place of its
            size in the operation's config, or to `None`.

    Returns:
        The output, `Traced`.
    """
    axes = {}
    for old, new in _blocks(tensor.shape, shape):
        labelled = [i for i in old if tensor.axes[i] is not None]
        if not labelled:
            continue
        sizes = [tensor.shape[i] for i in old]
        wide = [j for j in new if shape[j] != 1]
        if len(labelled) > 1 or None in sizes or len(wide) != 1:
            call.pin(tensor, "breaks the axis of the units apart")
            continue
        axis = tensor.axes[labelled[0]]
        around = [1] * len(old)
        around[old.index(labelled[0])] = -1
        axes[wide[0]] = Axis(
            np.broadcast_to(axis.labels.reshape(around), sizes).ravel(),
            np.broadcast_to(axis.zero.reshape(around), sizes).ravel(),
        )
    for j, size in enumerate(shape):
        key = size_key(j) if size_key else None
        if key is not None and size is not None:
            call.set_size(key, axes.get(j) or Axis.fixed(size))
    return Traced.of(shape, axes)


def _blocks(old, new):
    """Groups of dimensions that hold the same elements, before and after.

    Found from the back: where the products of the last dimensions are equal,
    a reshape keeps them among themselves. What is in front of a dimension of
    unknown size is one group.
    """
    i, j = len(old), len(new)
    while i or j:
        before, after, a, b = [], [], 1, 1
        while not (before and after and a == b):
            if i and (a <= b or not j):
                i -= 1
                before.insert(0, i)
                a = None if old[i] is None else a * old[i]
            elif j:
                j -= 1
                after.insert(0, j)
                b = None if new[j] is None else b * new[j]
            else:
                break
            if a is None or b is None:
                yield [*range(i), *before], [*range(j), *after]
                return
        yield before, after
