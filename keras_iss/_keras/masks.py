"""The masks that Keras attaches to tensors."""

import keras
from keras.src.backend import set_keras_mask


def attached_mask(tensor):
    """The mask that a tensor carries, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def attach_mask(tensor, mask):
    """Gives a tensor a mask, or takes it off where `mask` is `None`."""
    if mask is not None or attached_mask(tensor) is not None:
        set_keras_mask(tensor, mask)


def detach_masks(tensors):
    """Takes the masks off all tensors of a nested structure."""
    for x in keras.tree.flatten(tensors):
        if isinstance(x, keras.KerasTensor):
            attach_mask(x, None)
