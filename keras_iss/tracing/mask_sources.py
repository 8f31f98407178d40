"""What makes masks in a model, and whether all of it is in sight."""

import dataclasses

import keras

from keras_iss._keras.layers import inner_layers


@dataclasses.dataclass(frozen=True, eq=False)
class MaskSources:
    """What makes masks, seen from the graph of a whole model.

    Attributes:
        nodes: Set of the `id`s of the nodes of that graph.
        has_any: Boolean, whether any layer may make a mask.
        all_in_sight: Boolean, whether all that may stand in the graph.
    """

    nodes: set
    has_any: bool
    all_in_sight: bool


def mask_sources(model, graph):
    """The `MaskSources` of a model and its graph."""
    operations = {id(node.operation) for node in graph.nodes}
    sources = [
        layer
        for layer in inner_layers(model, include_self=False)
        if _may_make_mask(layer)
    ]
    return MaskSources(
        {id(node) for node in graph.nodes},
        bool(sources),
        all(id(layer) in operations for layer in sources),
    )


def inputs_of_maskings(graph):
    """The `id`s of the tensors that a `Masking` in a graph reads."""
    return {
        id(x)
        for node in graph.nodes
        if type(node.operation) is keras.layers.Masking
        for x in node.inputs
    }


def may_look_at_units(node, in_maskings):
    """Whether what only a mask is computed from may depend on single units.

    A mask says of each time step whether it counts. Stock layers make theirs
    of other masks and of the shapes of what they read; `Masking` looks at the
    values, and so does its rule.

    Args:
        node: `Node`.
        in_maskings: What `inputs_of_maskings` gives for its graph.
    """
    kind = type(node.operation).__name__
    by_shape = kind in ("OnesLike", "ZerosLike")
    by_rule = kind == "NotEqual" and id(node.inputs[0]) in in_maskings
    return not by_shape and not by_rule


def _may_make_mask(layer):
    if isinstance(layer, keras.layers.Embedding):
        return layer.mask_zero
    own = type(layer).__module__.startswith("keras.")
    return isinstance(layer, keras.layers.Masking) or not own
