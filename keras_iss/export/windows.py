"""Layers that read several time steps at once, in a stream.

A causal convolution reads some time steps before. In a step these come out of
a buffer, as a state that goes in and out: zeros at first, as the layer pads
with. `ZeroPadding1D` before what does not pad is the same. Whatever reads time
steps that are yet to come is refused.
"""

import dataclasses

import keras
import tensorflow as tf

from keras_iss._keras.layers import inner_layers
from keras_iss._keras.overrides import overridden
from keras_iss.export import sliding
from keras_iss.export.time_axes import StreamingError, divisor, time_axes


@dataclasses.dataclass(frozen=True)
class Window:
    """What a call of a layer in a step reads.

    Attributes:
        axis: Integer, the axis of its input that is time.
        new: Integer, how many time steps are new in each step.
        past: Integer, how many before these it reads out of its buffer.
    """

    axis: int
    new: int
    past: int


@dataclasses.dataclass(frozen=True)
class Windows:
    """What the layers of a model read in a step.

    Attributes:
        past: Dict from the number of a layer in `inner_layers` to a list with
            a `Window`, or `None`, for each call of it.
        anew: Set of the numbers of recurrent layers along something else than
            time: they begin anew in each step.
    """

    past: dict
    anew: set


def windows_of(function, timed, batch, frames, left_out):
    """The `Windows` of a model.

    Args:
        function: The `Callable` of the model.
        timed: For each input, whether its axis 1 is time.
        batch: Number of samples in a call, or `None`.
        frames: Integer, the time steps of the input in a step.
        left_out: Ids of layers of `function.model` that are called on single
            time steps.

    Raises:
        StreamingError: that names the layer which reads ahead, or what
            `frames` must be a multiple of.
    """
    layers = inner_layers(function.model)
    if not any(map(sliding.may_move_time, layers)):
        return Windows({}, set())
    found = time_axes(function, timed, batch, left_out)
    anew, rates, past = set(), {}, {}
    for number, calls in found.calls.items():
        layer = layers[number]
        if isinstance(layer, keras.layers.RNN) and not any(
            axes[1].rate for axes in calls
        ):
            anew.add(number)
            continue
        for axes in calls:
            for axis in axes:
                rates.setdefault(axis.rate, layer.name)
            for rate in sliding.rates(layer, axes):
                rates.setdefault(rate, layer.name)
    for number, calls in found.calls.items():
        if number not in anew:
            past[number] = [
                _window(layers[number], axes, frames) for axes in calls
            ]
    _check_outputs(function.model, found.outputs)
    _check_frames(function.model, rates, frames)
    return Windows(past, anew)


def _check_frames(model, rates, frames):
    multiple = divisor(rates)
    if frames % multiple == 0:
        return
    name = next(x for rate, x in rates.items() if frames % rate.denominator)
    raise StreamingError(
        f"`{model.name}` cannot stream {frames} time "
        f"step{'' if frames == 1 else 's'} at a time: `{name}` makes one of "
        f"several. Give streaming={multiple}, or a multiple of it."
    )


def _check_outputs(model, outputs):
    for name, axes in outputs.items():
        for axis in axes:
            if axis.rate and axis.more:
                raise StreamingError(
                    f"`{model.name}` cannot stream: its output `{name}` has "
                    f"{_compared(axis.more)} than its input. Pad with as many "
                    "zeros, before the sequence, as the convolution behind "
                    "reads."
                )


def _window(layer, axes, frames):
    """The `Window` of a call, or `None`."""
    if isinstance(layer, keras.layers.RNN):
        if axes[1].more:
            sliding.refuse(
                layer,
                f"it would read {_compared(axes[1].more)} than the model",
                "Pad with as many zeros, before the sequence, as the "
                "convolution behind reads.",
            )
        return None
    sliding.check_axes(layer, axes)
    for place, number in sliding.over_time(layer, axes):
        past = sliding.steps_before(layer, place, axes[number])
        if past:
            return Window(number, int(axes[number].rate * frames), past)
    return None


def _compared(more):
    count = abs(more)
    steps = "time step" if count == 1 else "time steps"
    return f"{count} {steps} {'more' if more > 0 else 'less'}"


def with_buffer(layer, windows, starting, ending):
    """What stands in for `call` of a layer that reads time steps before.

    Args:
        layer: The layer, of a copied model.
        windows: List of a `Window`, or `None`, for each call.
        starting: Function from the layer and a function without arguments,
            which gives what the state begins with, to the state.
        ending: Function of the layer and its new state.
    """
    original, calls = layer.call, iter(windows)

    def call(inputs, *args, **kwargs):
        window = next(calls, None)
        if window is None:
            return original(inputs, *args, **kwargs)
        axis = window.axis
        before = starting(layer, lambda: _zeros(inputs, axis, window.past))
        x = tf.concat([before, inputs], axis)
        ending(layer, _part(x, axis, window.new, window.past))
        padding = sliding.without_padding(layer, axis)
        with overridden(layer, "padding", padding):
            return original(x, *args, **kwargs)

    return call


def _zeros(x, axis, count):
    shape = x.shape.as_list()
    shape[axis] = count
    given = tf.shape(x)
    sizes = [given[i] if n is None else n for i, n in enumerate(shape)]
    zeros = tf.zeros(sizes, x.dtype)
    zeros.set_shape(shape)
    return zeros


def _part(x, axis, start, count):
    where = [slice(None)] * x.shape.rank
    where[axis] = slice(start, start + count)
    return x[tuple(where)]
