"""The table of layers that are written otherwise than their `call` says.

Those that it does not hold are followed through their `call`.
"""

import keras
import numpy as np

from keras_iss._keras.classes import is_keras_class
from keras_iss._keras.layers import inner_layers, takes_mask
from keras_iss._keras.overrides import CAUSAL_MASK, SCORE_MASK, SCORES
from keras_iss.export.onnx import followed, recurrent, scan
from keras_iss.export.onnx.graph import Value


def entry_of(layer):
    """The function that writes a layer, or `None`.

    Subclasses are written like their base where they compute alike.
    """
    for cls in type(layer).__mro__:
        if cls in _TABLE:
            function, methods = _TABLE[cls]
            for name in methods:
                if _method(layer, name) not in _known_methods(name):
                    return None
            return function
    return None


def _method(layer, name):
    return vars(layer).get(name, getattr(type(layer), name, None))


def _known_methods(name):
    return [getattr(cls, name, None) for cls in _OWN]


def time_distributed(lowering, inputs, training=None, mask=None):
    """One call of the layer on all time steps, or a loop over them."""
    inner = lowering.layer.layer
    if mask is not None and not takes_mask(inner):
        mask = None
    sizes = inputs.sizes
    if not _acts_on_each_sample(inner):
        return scan.over_time(lowering, inner, inputs, mask)
    if None in sizes[2:]:
        return scan.over_time(lowering, inner, inputs, mask)
    kwargs = {}
    if mask is not None:
        kwargs["mask"] = _merged(lowering, mask)
    found = lowering.call(inner, _merged(lowering, inputs), **kwargs)
    if not isinstance(found, Value):
        lowering.refuse("the layer that it calls has several outputs")
    shape = lowering.node("Shape", [inputs], dtype="int64", end=2)
    rest = found.sizes[1:]
    if None in rest:
        own = lowering.node("Shape", [found], dtype="int64", start=1)
    else:
        own = lowering.integers(*rest)
    shape = lowering.node("Concat", [shape, own], axis=0)
    new = lowering.node("Reshape", [found, shape])
    new.shape = (*sizes[:2], *rest)
    return new


def _merged(lowering, x):
    """A tensor whose time steps are further samples."""
    rest = x.sizes[2:]
    new = lowering.node("Reshape", [x, lowering.integers(-1, *rest)])
    new.shape = (None, *rest)
    return new


def _acts_on_each_sample(layer):
    """Whether the layer does to a batch what it does to each sample."""
    return all(
        is_keras_class(type(x))
        and not isinstance(x, (keras.Model, keras.layers.Lambda))
        and not getattr(x, "stateful", False)
        for x in inner_layers(layer)
    )


def rescaling(lowering, inputs):
    """`Rescaling.call`, which computes with a backend's own functions."""
    layer = lowering.layer
    dtype = layer.compute_dtype
    x = lowering.value(inputs, dtype)
    scale = lowering.value(np.asarray(layer.scale, dtype))
    offset = lowering.value(np.asarray(layer.offset, dtype))
    if max(scale.rank, offset.rank) and (
        keras.config.image_data_format() == "channels_first"
    ):
        lowering.refuse("a rescaling of each channel, with channels first")
    x = lowering.node("Mul", [x, scale])
    x = lowering.node("Add", [x, offset])
    return _like(x, inputs)


def _like(x, inputs):
    x.shape = inputs.shape
    return x


def normalization(lowering, inputs):
    """`Normalization.call`, which does so, too."""
    layer = lowering.layer
    dtype = layer.compute_dtype
    mean = keras.ops.convert_to_numpy(layer.mean).astype(dtype)
    variance = keras.ops.convert_to_numpy(layer.variance).astype(dtype)
    width = np.maximum(
        np.sqrt(variance), np.array(keras.config.epsilon(), dtype)
    )
    x = lowering.value(inputs, dtype)
    if layer.invert:
        x = lowering.node("Mul", [x, width])
        return _like(lowering.node("Add", [x, mean]), inputs)
    x = lowering.node("Sub", [x, mean])
    return _like(lowering.node("Div", [x, width]), inputs)


# Of a class: its function, and the methods that a subclass must not have
# written anew.
_RUN_OVER_TIME = ("call", "inner_loop", "get_initial_state")
_TABLE = {
    keras.layers.RNN: (recurrent.rnn, _RUN_OVER_TIME),
    keras.layers.Bidirectional: (recurrent.bidirectional, ("call",)),
    keras.layers.TimeDistributed: (time_distributed, ("call",)),
    keras.layers.AdditiveAttention: (
        followed.additive_attention,
        ("call", SCORES, SCORE_MASK),
    ),
    keras.layers.Attention: (
        followed.attention,
        ("call", SCORE_MASK),
    ),
    keras.layers.MultiHeadAttention: (
        followed.multi_head_attention,
        ("call", CAUSAL_MASK),
    ),
    keras.layers.GroupQueryAttention: (
        followed.multi_head_attention,
        ("call", CAUSAL_MASK),
    ),
    keras.layers.BatchNormalization: (followed.batch_normalization, ("call",)),
    keras.layers.Conv1D: (followed.convolution, ("call", "convolution_op")),
    keras.layers.Conv2D: (followed.convolution, ("call", "convolution_op")),
    keras.layers.Conv3D: (followed.convolution, ("call", "convolution_op")),
    keras.layers.Rescaling: (rescaling, ("call",)),
    keras.layers.Normalization: (normalization, ("call",)),
}
_OWN = (
    *_TABLE,
    keras.layers.LSTM,
    keras.layers.GRU,
    keras.layers.SimpleRNN,
    # All three of them have their methods from one class.
    keras.layers.ConvLSTM1D,
)
