"""The names under which a backend knows the operations of a layer."""

import keras


def set_scope_name(layer, name):
    """Has a layer call itself by another name towards its backend.

    Args:
        layer: A `keras.Layer`, which is changed.
        name: The name.
    """
    vars(layer)["_open_name_scope"] = lambda: keras.name_scope(
        name, caller=layer
    )
