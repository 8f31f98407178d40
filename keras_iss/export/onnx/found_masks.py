"""The masks that Keras finds by itself on what a layer is called on."""

import keras

from keras_iss._keras.masks import attached_mask
from keras_iss.export.onnx.graph import Value


def mask_of(x):
    """The mask of a `Value`, or `None`."""
    return x.mask if isinstance(x, Value) else None


def find_masks(arguments, kwargs):
    """Gives a call the masks of the tensors that it is called on."""
    tensors = {
        name: value
        for name, value in arguments.items()
        if _is_of_tensors(value)
    }
    for name, value in tensors.items():
        key = "mask" if len(tensors) == 1 else f"{name}_mask"
        if key in arguments and arguments[key] is None:
            kwargs[key] = keras.tree.map_structure(mask_of, value)


def _is_of_tensors(value):
    flat = keras.tree.flatten(value)
    return any(isinstance(x, Value) for x in flat) and all(
        x is None or isinstance(x, Value) for x in flat
    )


def without_found_masks(operation, args, kwargs):
    """The keyword arguments of a call but for masks that Keras found."""
    if not isinstance(operation, keras.layers.Layer):
        return kwargs
    known = {
        id(attached_mask(x))
        for x in keras.tree.flatten((args, kwargs))
        if isinstance(x, keras.KerasTensor) and attached_mask(x) is not None
    }

    def is_found(key, value):
        if key != "mask" and not key.endswith("_mask"):
            return False
        masks = keras.tree.flatten(value)
        return all(x is None or id(x) in known for x in masks)

    return {k: v for k, v in kwargs.items() if not is_found(k, v)}
