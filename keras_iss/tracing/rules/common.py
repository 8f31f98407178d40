"""What many rules share: activations, broadcasting, contraction."""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_iss.tracing.call import Call
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


# They mix along the last dimension, and nowhere else.
_ALONG_THE_LAST = [
    getattr(module, name)
    for module in (keras.activations, keras.ops)
    for name in ("softmax", "log_softmax", "sparsemax")
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


def keeps_zero(function: Callable | None) -> bool:
    """Whether an elementwise function is zero at zero.

    Args:
        function: Function of a tensor, such as an activation; `None` is the
            identity.

    Returns:
        Boolean.

    Examples:
        >>> import keras
        >>> from keras_iss.tracing import keeps_zero
        >>> keeps_zero(keras.ops.tanh), keeps_zero(keras.ops.sigmoid)
        (True, False)
    """
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


def pin_unless_elementwise(
    call: Call, tensors: Any, **activations: Callable | None
) -> None:
    """Pins units that an activation may mix.

    Args:
        call: The `Call`.
        tensors: Nested structure of `Traced` and `Axis`, what the
            activations are taken of.
        **activations: Functions of a tensor, or `None`. Their keywords are
            how the reason names them.

    Examples:
        >>> from keras_iss.tracing import pin_unless_elementwise
        >>> def rule(call, x):
        ...     activation = call.operation.activation
        ...     pin_unless_elementwise(call, x, activation=activation)
        ...     return call.output(dict(enumerate(x.axes)))
    """
    for name, activation in activations.items():
        if not is_elementwise(activation):
            shown = getattr(activation, "__name__", repr(activation))
            call.pin(
                tensors,
                f"has the {name.replace('_', ' ')} `{shown}`, which is not "
                "known to act on each unit alone",
            )


def pin_what_is_mixed(call, axes, activation):
    """Pins units that the activation of a tensor may mix.

    Args:
        call: The `Call`.
        axes: List with an `Axis` or `None` for each dimension of the tensor.
        activation: Function of the tensor, or `None`.
    """
    if any(activation is known for known in _ALONG_THE_LAST):
        axes = axes[-1:]
    pin_unless_elementwise(call, axes, activation=activation)


def as_traced(value):
    """A constant among an operation's arguments as a tensor to stay."""
    if isinstance(value, Traced):
        return value
    return Traced.of(tuple(getattr(value, "shape", np.shape(value))))


def dimensions(axis, tensor):
    """The dimensions that an `axis` argument names, all for `None`.

    Returns:
        Sorted list of integers.
    """
    rank = len(tensor.shape)
    if axis is None:
        return list(range(rank))
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return sorted({i % rank for i in axes})


def each(axis, times):
    """An axis with every position several times in a row, or `None`."""
    if axis is None:
        return None
    return Axis(np.repeat(axis.labels, times), np.repeat(axis.zero, times))


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
        sizes = [x.shape[i] if len(x.shape) >= -i else None for x in tensors]
        present = [len(x.shape) >= -i for x in tensors]
        wide = [there and n != 1 for there, n in zip(present, sizes)]
        if any(wide):
            for x, size in zip(tensors, sizes):
                if size == 1:
                    call.pin(x.axes[i], "stretches a single unit")
        else:
            wide = present
        known = [x.axis(i) if own else None for x, own in zip(tensors, wide)]
        common = call.tie(*itertools.compress(known, wide))
        if common is not None:
            never = np.zeros(len(common), bool)
            flags = [never if one is None else one.zero for one in known]
            common = common.with_zero(zero(flags))
        axes.append(common)
    return axes


def elementwise(call, tensors, zero):
    """The output of an elementwise operation of several tensors.

    Args:
        call: The `Call` of an operation of `keras.ops`.
        tensors: List of `Traced` and constants.
        zero: As in `broadcast`; not asked where all but one of the tensors
            are single numbers, as the function of that one can be tried.
    """
    # A variable is a number that may be another one later.
    numbers = [
        not isinstance(x, (Traced, keras.Variable)) and np.ndim(x) == 0
        for x in tensors
    ]
    if numbers.count(False) == 1:
        place = numbers.index(False)

        def function(x):
            return call.operation.call(
                *(x if i == place else one for i, one in enumerate(tensors))
            )

        axes = [
            through(call, axis, function, "gives what")
            for axis in as_traced(tensors[place]).axes
        ]
    else:
        axes = broadcast(call, [as_traced(x) for x in tensors], zero)
    return call.output(dict(enumerate(axes)))


def pin_if_taken_for_a_bias(call, axes, shape, added, others=()):
    """Pins the units of a sum that Keras on TensorFlow may take for another.

    Keras adds a second summand that is longer than one in a single dimension
    to the last axis of the first, if that is as long, whichever dimension it
    is. Where the sizes decide it, none of them may change.

    Args:
        call: The `Call`.
        axes: List of `Axis` and `None`, the axes of the first summand.
        shape: Tuple, its shape.
        added: Tuple, the shape of the second summand.
        others: Nested structure of `Traced` and `Axis` that are pinned too.
    """
    longer = [i for i, size in enumerate(added) if size != 1]
    if len(shape) < 2 or len(longer) != 1 or longer[0] == len(added) - 1:
        return
    size, last = added[longer[0]], shape[-1]
    if size is None or (axes[-1] is None and last is not None and last > size):
        # Units that go only make it shorter.
        return
    call.pin(
        [axes, others],
        "adds what Keras on TensorFlow may take for a bias of the last axis",
    )


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
        repeated = [i for i, x in enumerate(letters) if letters.count(x) > 1]
        others = set(range(len(letters))).difference(repeated)
        tensor = call.pin_all_but(tensor, others, "takes a diagonal")
        for i, letter in enumerate(letters):
            found.setdefault(letter, []).append((tensor, i))
    axes = {}
    for letter, places in found.items():
        wide = [(x, i) for x, i in places if x.shape[i] != 1]
        if wide:
            for x, i in places:
                if x.shape[i] == 1:
                    call.pin(x.axes[i], "stretches a single unit")
        wide = wide or places
        if not any(x.axes[i] is not None for x, i in wide):
            continue
        if letter in kept:
            common = call.tie(*(x.axis(i) for x, i in wide))
            if common is not None:
                known = [x.axis(i) for x, i in wide]
                zero = np.any([x.zero for x in known if x is not None], axis=0)
                axes[kept.index(letter)] = common.with_zero(zero)
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
                call.pin(
                    [x.axes[i] for x in tensors],
                    "joins it with an axis of unknown size",
                )
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
        labelled = [i for i in old if call.may_go(tensor.axes[i])]
        if len(labelled) > 1:
            # There is nothing to lose along an axis of one unit.
            for i in labelled:
                if tensor.shape[i] == 1:
                    call.pin(tensor.axes[i], "drops the dimension of the unit")
            labelled = [i for i in labelled if tensor.shape[i] != 1]
        if not labelled:
            continue
        sizes = [tensor.shape[i] for i in old]
        wide = [j for j in new if shape[j] != 1]
        what = "breaks the axis of the units apart"
        if None in sizes or len(wide) != 1:
            call.pin([tensor.axes[i] for i in labelled], what)
            continue
        if len(labelled) > 1:
            axes[wide[0]] = call.only_one(
                [tensor.axes[i] for i in labelled], what, shape[wide[0]]
            )
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
