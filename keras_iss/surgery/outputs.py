"""Symbolic outputs with the masks that they must have, and no others."""

import keras

from keras_iss._keras.graphs import graph_behind
from keras_iss._keras.masks import attached_mask, masks_of_outputs


def no_mask(inputs, previous_mask=None):
    """A `compute_mask` that gives none."""
    return None


def with_mask(x, mask, name):
    """The same tensor, with a mask.

    Only a model can be told the mask of its input.
    """
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    outputs = keras.layers.Identity(dtype=x.dtype)(inputs)
    model = keras.Model(inputs, outputs, name=name)
    model.supports_masking = True
    return model(x, mask=mask)


def without_new_masks(old, graph, inputs, outputs):
    """Outputs that carry a mask only where those of the old model do."""
    if graph_behind(old) is None:
        before = map(attached_mask, keras.tree.flatten(graph.outputs))
    else:
        before = masks_of_outputs(old)
    after = masks_of_outputs(keras.Model(inputs, outputs))
    flat = [
        keras.ops.copy(x) if mask is None and other is not None else x
        for x, mask, other in zip(keras.tree.flatten(outputs), before, after)
    ]
    return keras.tree.pack_sequence_as(outputs, flat)


def distinct_from_inputs(outputs, inputs):
    """The outputs of a model, none of them the tensor that an input is.

    Keras takes a call of a model that gives back what it got for a cycle.
    """
    given = set(map(id, inputs))

    def another(x):
        if id(x) not in given:
            return x
        return keras.layers.Identity(dtype=x.dtype)(x)

    return keras.tree.map_structure(another, outputs)
