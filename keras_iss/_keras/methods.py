"""What Keras does to the methods of a layer."""

import keras

_WRAPPED = ("build", "quantize")


def is_put_there_by_keras(layer, name):
    """Whether a method found on a layer itself is Keras' own doing.

    The constructor of every layer wraps some of the methods of its class, and
    keeps what it made on the layer.
    """
    value = vars(layer)[name]
    wrapped = getattr(value, "__wrapped__", None)
    made_in = getattr(value, "__globals__", {}).get("__name__")
    return (
        name in _WRAPPED
        and made_in == keras.layers.Layer.__module__
        and getattr(wrapped, "__func__", None) is getattr(type(layer), name)
    )
