"""What Keras' layers do along time: how far they read, at which strides."""

import keras

from keras_iss.export.time_axes import StreamingError

_layers = keras.layers


def _ranked(*names):
    """Classes by name, for one, two and three axes."""
    return {
        kind: rank
        for rank in (1, 2, 3)
        for name in names
        # Not each is there for three axes, or in older Keras.
        if (kind := getattr(_layers, name.format(rank), None))
    }


def _named(*names):
    kinds = [getattr(_layers, name, None) for name in names]
    return tuple(x for x in kinds if x)


_CONVOLUTION = _ranked("Conv{}D", "DepthwiseConv{}D", "SeparableConv{}D")
_TRANSPOSED = _ranked("Conv{}DTranspose")
_POOLING = _ranked("MaxPooling{}D", "AveragePooling{}D")
_WHOLE_POOLING = _ranked(
    "GlobalMaxPooling{}D",
    "GlobalAveragePooling{}D",
    "AdaptiveMaxPooling{}D",
    "AdaptiveAveragePooling{}D",
)
_PADDING = _ranked("ZeroPadding{}D")
_CROPPING = _ranked("Cropping{}D")
_RANKS = (
    _CONVOLUTION
    | _TRANSPOSED
    | _POOLING
    | _WHOLE_POOLING
    | _PADDING
    | _CROPPING
)
_CONVOLUTIONS, _SLIDING = tuple(_CONVOLUTION), tuple(_CONVOLUTION | _POOLING)
_ATTENTION = _named(
    "Attention",
    "AdditiveAttention",
    "MultiHeadAttention",
    "GroupQueryAttention",
)
_OVER_AXIS = _named(
    "LayerNormalization", "RMSNormalization", "UnitNormalization", "Softmax"
)
_MOVING = (
    *_RANKS,
    *_ATTENTION,
    *_OVER_AXIS,
    *_ranked("UpSampling{}D"),
    _layers.GroupNormalization,
    _layers.Flatten,
    _layers.Permute,
    _layers.Reshape,
)


def may_move_time(layer):
    """Whether behind a layer time may be another axis, or go at another rate.

    Or be none any more.
    """
    return isinstance(layer, _MOVING)


def over_time(layer, axes):
    """Where a layer slides along time.

    Args:
        layer: `keras.layers.Layer`.
        axes: Tuple of the `Axis` of its input.

    Yields:
        Pairs of the place among the axes that the layer slides along, and the
        number of the axis.
    """
    rank = _rank(layer)
    if rank is None:
        return
    last = len(axes) - (not _channels_first(layer))
    for place, number in enumerate(range(last - rank, last)):
        if axes[number].rate:
            yield place, number


def rates(layer, axes):
    """The rates at which a layer gives time steps, as fractions."""
    for place, number in over_time(layer, axes):
        if isinstance(layer, _SLIDING):
            yield axes[number].rate / _sizes(layer)[place][1]


def steps_before(layer, place, axis):
    """How many time steps before the new ones a layer must be given.

    Args:
        layer: `keras.layers.Layer` that slides along time.
        place: Integer, see `over_time`.
        axis: The `Axis` of its input there.

    Raises:
        StreamingError: if it reads time steps that are yet to come.
    """
    if isinstance(layer, tuple(_WHOLE_POOLING)):
        refuse(
            layer,
            "it pools over all time steps",
            "The last output of a recurrent layer stands for all of them, "
            "and is known at each.",
        )
    if isinstance(layer, tuple(_CROPPING)):
        if any(_pair(layer.cropping, layer, place)):
            refuse(
                layer,
                "it takes time steps off the sequence",
                "Pad before the sequence alone, and take nothing off.",
            )
        return 0
    if isinstance(layer, tuple(_PADDING)):
        before, behind = _pair(layer.padding, layer, place)
        if behind:
            refuse(
                layer,
                "it pads the end of the sequence, and a stream has none",
                f"Pad before the sequence alone, by {before + behind}.",
            )
        return before
    span, stride = _sizes(layer)[place] if _has_sizes(layer) else (0, 1)
    if isinstance(layer, tuple(_TRANSPOSED)):
        if span + 1 > stride:
            refuse(
                layer,
                "what it gives for one time step overlaps with that for the "
                "next",
                "With a kernel_size of its strides, none overlap.",
            )
        return 0
    if isinstance(layer, _SLIDING):
        if layer.padding == "causal":
            return span
        _check_ahead(layer, span, span + 1 - stride, axis)
    return 0


def _check_ahead(layer, span, ahead, axis):
    """Raises an error if a layer reads more than what padding put before."""
    if ahead <= (axis.more if layer.padding == "valid" else 0):
        return
    name = "ZeroPadding1D" if _rank(layer) == 1 else "ZeroPadding2D"
    causal = isinstance(layer, _layers.Conv1D)
    refuse(
        layer,
        f"with padding={layer.padding!r} it reads time steps that are yet to "
        "come",
        'Give it padding="causal".'
        if causal
        else 'Give it padding="valid", and put a '
        f"keras.layers.{name} before it, which pads the beginning of the "
        f"sequence alone, by {span}.",
    )


def check_axes(layer, axes):
    """Raises an error if a layer sums over time, or makes one of its steps.

    Args:
        layer: `keras.layers.Layer`.
        axes: Tuple of the `Axis` of its input.

    Raises:
        StreamingError: that names it.
    """
    time = {i for i, axis in enumerate(axes) if axis.rate} - {0}
    if isinstance(layer, _ATTENTION):
        along = layer.get_config().get("attention_axes")
        if 1 in time and along in (None, 1, (1,), [1]):
            refuse(
                layer,
                "it attends to all time steps",
                "A recurrent layer carries along what was before.",
            )
    elif isinstance(layer, _layers.Flatten) and time:
        refuse(
            layer,
            "it makes one vector of all time steps",
            "keras.layers.TimeDistributed(keras.layers.Flatten()) makes one "
            "of each.",
        )
    elif isinstance(layer, _layers.GroupNormalization):
        if time - {layer.axis % len(axes)}:
            refuse(
                layer,
                "it takes the mean of all time steps",
                "LayerNormalization takes that of each.",
            )
    elif isinstance(layer, _OVER_AXIS):
        over = layer.axis
        over = over if isinstance(over, (list, tuple)) else [over]
        if time & {number % len(axes) for number in over}:
            refuse(
                layer,
                "it normalizes over time",
                "Over the features, with axis=-1, it can.",
            )


def without_padding(layer, axis):
    """The `padding` of a layer that adds no zeros along an axis."""
    if not isinstance(layer, tuple(_PADDING)):
        return "valid"
    if _rank(layer) == 1:
        return (0, 0)
    padding = list(layer.padding)
    padding[axis - (2 if _channels_first(layer) else 1)] = (0, 0)
    return tuple(padding)


def refuse(layer, reason, next_step):
    """Raises the error that a layer cannot stream.

    Args:
        layer: `keras.layers.Layer`.
        reason: Text that says why, without a full stop.
        next_step: Sentence that says what to do instead.
    """
    raise StreamingError(f"`{layer.name}` cannot stream: {reason}. {next_step}")


def _rank(layer):
    ranks = (rank for kind, rank in _RANKS.items() if isinstance(layer, kind))
    return next(ranks, None)


def _channels_first(layer):
    # Cropping1D has no such setting.
    return getattr(layer, "data_format", None) == "channels_first"


def _has_sizes(layer):
    return isinstance(layer, (*_SLIDING, *_TRANSPOSED))


def _sizes(layer):
    """Pairs of how far beyond the first it reads, and the stride, by place."""
    rank = _rank(layer)
    if isinstance(layer, tuple(_POOLING)):
        spans = [size - 1 for size in _each(layer.pool_size, rank)]
    else:
        spans = [
            (size - 1) * rate
            for size, rate in zip(
                _each(layer.kernel_size, rank),
                _each(layer.dilation_rate, rank),
            )
        ]
    return list(zip(spans, _each(layer.strides, rank)))


def _each(value, rank):
    return list(value) if isinstance(value, (list, tuple)) else [value] * rank


def _pair(value, layer, place):
    return value if _rank(layer) == 1 else value[place]
