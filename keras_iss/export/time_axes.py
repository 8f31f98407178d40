"""Where the time axis is in what each layer of a model reads.

A model is traced on two lengths: a size that grows with the length is time.
How much it grows tells the rate there; what is left over are time steps that
padding adds, or that a convolution without padding takes off.
"""

import dataclasses
import fractions
import math

import keras
import tensorflow as tf

from keras_iss._keras.layers import inner_layers
from keras_iss._keras.overrides import override, take_any_shape
from keras_iss.export.lowering import LITERT, lower
from keras_iss.export.model import own_message

# Of the lengths: divided by what strides and reshapes usually divide by.
_ROUND = 720


class StreamingError(ValueError):
    """A model that cannot be run step by step."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A size of a tensor, for `n` time steps of the model's input.

    Attributes:
        rate: `Fraction`: the size grows by `rate * n`; 0 for an axis that is
            not time.
        more: Integer: the size is `rate * n + more`.
    """

    rate: fractions.Fraction
    more: int


@dataclasses.dataclass(frozen=True)
class TimeAxes:
    """What grows with the number of time steps.

    Attributes:
        calls: Dict from the number of a layer in `inner_layers` to a list
            with, for each call of it, a tuple of the `Axis` of its first
            input.
        outputs: Dict from the name of an output to a tuple of its `Axis`.
    """

    calls: dict
    outputs: dict


def time_axes(function, timed, batch, left_out):
    """The `TimeAxes` of a model.

    Args:
        function: The `Callable` of the model.
        timed: For each input, whether its axis 1 is time.
        batch: Number of samples in a call, or `None`.
        left_out: Ids of the layers of `function.model` of which nothing is
            asked.

    Raises:
        StreamingError: if the model takes sequences of one length alone.
    """
    layers = inner_layers(function.model)
    asked = {i for i, x in enumerate(layers) if id(x) not in left_out}
    length = _length(layers)
    once, twice = (
        _sizes(function, timed, batch or 1, asked, n)
        for n in (length, 2 * length)
    )
    return TimeAxes(
        {
            number: [
                _axes(*pair, length) for pair in zip(sizes, twice[0][number])
            ]
            for number, sizes in once[0].items()
        },
        {
            name: _axes(sizes, twice[1][name], length)
            for name, sizes in once[1].items()
        },
    )


def without_fixed_time(model):
    """Has a copied model take sequences of any length."""
    for layer in inner_layers(model):
        take_any_shape(layer)
        if isinstance(layer, keras.layers.Reshape):
            rest = layer.target_shape[1:]
            if rest and all(size and size > 0 for size in rest):
                # The same for the length that it was made for.
                override(layer, "target_shape", (-1, *rest))


def _length(layers):
    """A length that all strides divide, and that no window is longer than."""
    divided, read = 1, 0
    for layer in layers:
        strides = _numbers(layer, "strides")
        divided *= max((abs(x) for x in strides), default=1) or 1
        windows = _numbers(layer, "kernel_size") or _numbers(layer, "pool_size")
        read += max(windows, default=0) * max(
            _numbers(layer, "dilation_rate"), default=1
        )
    return divided * _ROUND * (1 + read // _ROUND)


def _numbers(layer, name):
    value = getattr(layer, name, None)
    value = value if isinstance(value, (tuple, list)) else (value,)
    return [x for x in value if isinstance(x, int)]


def _sizes(function, timed, batch, asked, length):
    """The shapes that layers are called on, by number, and of the outputs."""
    seen, entered = {}, []

    def change(model):
        without_fixed_time(model)
        lower(model, LITERT)
        for number, layer in enumerate(inner_layers(model)):
            if number in asked and not isinstance(layer, keras.Model):
                calls = seen.setdefault(number, [])
                override(layer, "call", _recording(layer, calls, entered))

    copied = function.of_copy(change)
    specs = [
        x.spec(
            (x.shape[0] or batch, length, *x.shape[2:])
            if is_timed
            else (x.shape[0] or batch, *x.shape[1:])
        )
        for x, is_timed in zip(function.inputs, timed)
    ]
    try:
        outputs = (
            tf.function(lambda *tensors: copied(tensors), autograph=False)
            .get_concrete_function(*specs)
            .structured_outputs
        )
    except Exception as error:
        name = entered[-1] if entered else function.model.name
        raise StreamingError(
            f"`{function.model.name}` cannot stream: `{name}` cannot be "
            "called on a sequence of another length "
            f"({own_message(error).strip().split(chr(10))[0][:300]})."
        ) from error
    return seen, {name: tuple(x.shape) for name, x in outputs.items()}


def _recording(layer, calls, entered):
    original = layer.call

    def call(*args, **kwargs):
        first = keras.tree.flatten([*args, *kwargs.values()])[0]
        calls.append(tuple(first.shape))
        entered.append(layer.name)
        return original(*args, **kwargs)

    return call


def _axes(once, twice, length):
    return tuple(
        # Where a size is not known before it runs, time is where it was.
        Axis(fractions.Fraction(int(number == 1)), 0)
        if None in pair
        else Axis(
            fractions.Fraction(pair[1] - pair[0], length), 2 * pair[0] - pair[1]
        )
        for number, pair in enumerate(zip(once, twice))
    )


def divisor(fractions_):
    """The least number of which all fractions of it are whole numbers."""
    return math.lcm(*(x.denominator for x in fractions_))
