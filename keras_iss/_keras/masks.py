"""The masks that Keras attaches to tensors."""

import contextlib
import dataclasses

import keras
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

from keras_iss._keras.graphs import (
    forgotten_calls,
    graph_behind,
    inputs_as_given,
)


def attached_mask(tensor):
    """The mask that a tensor carries, or `None`."""
    return get_keras_mask(tensor)


def attach_mask(tensor, mask):
    """Gives a tensor a mask, or takes it off where `mask` is `None`."""
    if mask is not None or attached_mask(tensor) is not None:
        set_keras_mask(tensor, mask)


def detach_masks(tensors):
    """Takes the masks off all tensors of a nested structure."""
    for x in keras.tree.flatten(tensors):
        if isinstance(x, keras.KerasTensor):
            attach_mask(x, None)


def masks_of_outputs(model):
    """The masks that the outputs of a model of a graph carry when it runs.

    They depend on the order in which Keras runs the layers, since attention
    takes masks off what it reads.

    Returns:
        Flat list of symbolic masks and `None`.
    """
    function = graph_behind(model)
    with forgotten_calls(model):
        outputs = keras.tree.flatten(function.call(inputs_as_given(function)))
    return list(map(attached_mask, outputs))


@dataclasses.dataclass(frozen=True, eq=False)
class TakenMask:
    """A mask that a call took off a tensor.

    Attributes:
        tensor: `keras.KerasTensor`.
        mask: The mask it had.
        before: Set of the `id`s of the outputs of the calls that read the
            tensor while it had its mask.
        outputs: Set of the `id`s of the outputs of the call itself.
    """

    tensor: keras.KerasTensor
    mask: keras.KerasTensor
    before: set
    outputs: set


@contextlib.contextmanager
def masks_taken_off(model, takes_off):
    """Symbolic calls inside take off the masks that real calls take off.

    Keras' attention takes the mask off what it reads, which symbolic calls do
    to stand-ins only. Afterwards every tensor has its mask again.

    Args:
        model: `keras.Model` whose layers are called.
        takes_off: Function from a layer, and the tensors that it is called
            on, to those whose masks it takes off.

    Yields:
        List that gets the `TakenMask`s.
    """
    taken, made_later = [], []
    layers = list(model._flatten_layers(include_self=False))

    def readers_of(tensor):
        return {
            id(output)
            for layer in layers
            for node in layer._inbound_nodes
            if any(x is tensor for x in node.input_tensors)
            for output in node.outputs
        }

    def hooked(layer):
        call = layer.symbolic_call

        def symbolic_call(*args, **kwargs):
            outputs = call(*args, **kwargs)
            tensors = [
                x
                for x in keras.tree.flatten((args, kwargs))
                if attached_mask(x) is not None
            ]
            for x in takes_off(layer, tensors) if tensors else ():
                if attached_mask(x) is None:
                    continue
                mask = TakenMask(x, attached_mask(x), readers_of(x), set())
                taken.append(mask)
                made_later.append((mask, layer, len(layer._inbound_nodes)))
                attach_mask(x, None)
            return outputs

        return symbolic_call

    for layer in layers:
        vars(layer)["symbolic_call"] = hooked(layer)
    try:
        yield taken
    finally:
        for layer in layers:
            vars(layer).pop("symbolic_call", None)
        for mask in taken:
            attach_mask(mask.tensor, mask.mask)
        for mask, layer, number in made_later:
            for node in layer._inbound_nodes[number : number + 1]:
                mask.outputs.update(map(id, node.outputs))
