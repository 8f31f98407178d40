"""What not every version of Keras has.

Where Keras has no class of a name yet, a class stands in for it, of which
nothing that a user passes is an instance.
"""

import keras


def layer_class(name):
    """The class in `keras.layers` of a name, or its stand-in."""
    return _class(keras.layers, name, keras.layers.Layer)


def callback_class(name):
    """The class in `keras.callbacks` of a name, or its stand-in."""
    return _class(keras.callbacks, name, keras.callbacks.Callback)


def _class(module, name, base):
    return getattr(module, name, None) or type(name, (base,), {})
