"""Operations that sum, reduce, order or sort along dimensions."""

import dataclasses

import numpy as np

from keras_iss.tracing.labels import Axis
from keras_iss.tracing.registry import operation_rule
from keras_iss.tracing.rules.common import (
    as_traced,
    broadcast,
    dimensions,
)


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
        axes=[None if i in mixed else axis for i, axis in enumerate(x.axes)]
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
    reduced = _reduced(call, x, keeps_zero=True, axis=call.operation.axes)
    return [reduced.replace(output.shape) for output in outputs]


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
        known if known is None or keeps_zero else known.with_zero(False)
        for known in x.axes
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
        Axis(known.labels[::-1], known.zero[::-1])
        if i in flipped and known is not None
        else known
        for i, known in enumerate(x.axes)
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
        known if known is None or keeps_zero else known.with_zero(False)
        for known in x.axes
    ]
    return call.output(dict(enumerate(axes)))
