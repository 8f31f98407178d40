"""What many rules share: broadcasting, contraction, another shape."""

import itertools

import keras
import numpy as np

from keras_iss.tracing.labels import Axis, Traced, concatenate
from keras_iss.tracing.rules.activations import through


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
            flags = [never if axis is None else axis.zero for axis in known]
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
                *(
                    x if i == place else number
                    for i, number in enumerate(tensors)
                )
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
    axes = {}
    for letter, places in _places(call, terms, tensors).items():
        wide = _without_stretched(call, places)
        if not any(x.axes[i] is not None for x, i in wide):
            continue
        known = [x.axis(i) for x, i in wide]
        if letter not in kept:
            call.contract(*known)
            continue
        common = call.tie(*known)
        if common is not None:
            zero = np.any([x.zero for x in known if x is not None], axis=0)
            axes[kept.index(letter)] = common.with_zero(zero)
    return axes


def _places(call, terms, tensors):
    """Dict from a letter to the tensors and dimensions that it stands for."""
    places = {}
    for letters, tensor in zip(terms, tensors):
        repeated = [i for i, x in enumerate(letters) if letters.count(x) > 1]
        others = set(range(len(letters))).difference(repeated)
        tensor = call.pin_all_but(tensor, others, "takes a diagonal")
        for i, letter in enumerate(letters):
            places.setdefault(letter, []).append((tensor, i))
    return places


def _without_stretched(call, places):
    """Of dimensions that meet, those that are not stretched to the others."""
    wide = [(x, i) for x, i in places if x.shape[i] != 1]
    if not wide:
        return places
    for x, i in places:
        if x.shape[i] == 1:
            call.pin(x.axes[i], "stretches a single unit")
    return wide


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
        labelled = _dimensions_that_may_go(call, tensor, old)
        if not labelled:
            continue
        wide = [j for j in new if shape[j] != 1]
        what = "breaks the axis of the units apart"
        if any(tensor.shape[i] is None for i in old) or len(wide) != 1:
            call.pin([tensor.axes[i] for i in labelled], what)
        elif len(labelled) > 1:
            axes[wide[0]] = call.only_one(
                [tensor.axes[i] for i in labelled], what, shape[wide[0]]
            )
        else:
            axes[wide[0]] = _flattened(tensor, old, labelled[0])
    for j, size in enumerate(shape):
        key = size_key(j) if size_key else None
        if key is not None and size is not None:
            call.set_size(key, axes.get(j) or Axis.fixed(size))
    return Traced.of(shape, axes)


def _dimensions_that_may_go(call, tensor, dimensions):
    """Those of some dimensions along which units may go, as far as is known.

    There is nothing to lose along an axis of one unit beside another one.
    """
    labelled = [i for i in dimensions if call.may_go(tensor.axes[i])]
    if len(labelled) < 2:
        return labelled
    for i in labelled:
        if tensor.shape[i] == 1:
            call.pin(tensor.axes[i], "drops the dimension of the unit")
    return [i for i in labelled if tensor.shape[i] != 1]


def _flattened(tensor, dimensions, labelled):
    """The axis of several dimensions in one, of which one has labels.

    Args:
        tensor: `Traced`.
        dimensions: List of integers, in order.
        labelled: Integer, that one of them.

    Returns:
        `Axis`.
    """
    axis = tensor.axes[labelled]
    sizes = [tensor.shape[i] for i in dimensions]
    around = [1] * len(dimensions)
    around[dimensions.index(labelled)] = -1
    return Axis(
        np.broadcast_to(axis.labels.reshape(around), sizes).ravel(),
        np.broadcast_to(axis.zero.reshape(around), sizes).ravel(),
    )


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
