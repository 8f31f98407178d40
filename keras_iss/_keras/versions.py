"""What not every version of Keras has."""

import keras


def layer_class(name):
    """The class in `keras.layers` of a name.

    Where Keras has none yet, a layer class that stands in for it, of which no
    model holds a layer.
    """
    known = getattr(keras.layers, name, None)
    return known or type(name, (keras.layers.Layer,), {})
