"""The graph of a Functional model, as Keras holds it."""

import dataclasses
import inspect

import keras

from keras_iss._keras.graphs import (
    inputs_as_given,
    nodes_in_order,
    outputs_as_given,
)
from keras_iss._keras.masks import attached_mask
from keras_iss.tracing.nodes import Graph, Node, tensors_in


def function_graph(function, taken_masks=()):
    """The graph of a function.

    Args:
        function: `keras.Function`.
        taken_masks: What `masks_taken_off` gave while it was made.

    Returns:
        `Graph`.
    """
    nodes = [
        Node(operation, args, kwargs, outputs, _found_masks(call))
        for call in nodes_in_order(function)
        for operation, args, kwargs, outputs in [call]
    ]
    outputs = outputs_as_given(function)
    needed = set(map(id, tensors_in(outputs)))
    for i, node in reversed(list(enumerate(nodes))):
        if any(id(x) in needed for x in node.outputs):
            needed.update(map(id, node.data))
        else:
            nodes[i] = dataclasses.replace(node, only_for_masks=True)
    nodes = _after_owners(nodes)
    if taken_masks:
        nodes = [_with_unmasked(node, taken_masks) for node in nodes]
    return Graph(inputs_as_given(function), outputs, tuple(nodes))


def _after_owners(nodes):
    """The nodes, those that read a layer's variables after a call of it.

    A layer that is made anew has its variables once it is called.
    """
    read = {
        id(v): v
        for node in nodes
        for v in keras.tree.flatten((node.args, node.kwargs))
        if isinstance(v, keras.Variable)
    }
    if not read:
        return nodes
    owners = {
        id(v): id(node.operation)
        for node in nodes
        for v in getattr(node.operation, "variables", ())
        if id(v) in read
    }
    waiting = {id(x) for node in nodes for x in node.outputs}
    waiting.update(owners.values())
    ordered, pending = [], list(nodes)

    def is_ready(node, with_owners=True):
        needed = {
            owners.get(id(v), id(v)) if isinstance(v, keras.Variable) else id(v)
            for v in keras.tree.flatten((node.args, node.kwargs))
            if with_owners or not isinstance(v, keras.Variable)
        }
        return not needed & waiting

    def put(node):
        ordered.append(node)
        waiting.difference_update(map(id, node.outputs))
        waiting.discard(id(node.operation))

    while pending:
        later = []
        for node in pending:
            if is_ready(node):
                put(node)
            else:
                later.append(node)
        if len(later) == len(pending):
            # The owner itself waits for who reads its variable.
            first = next(x for x in later if is_ready(x, with_owners=False))
            put(first)
            later.remove(first)
        pending = later
    return ordered


def _with_unmasked(node, taken_masks):
    if not isinstance(node.operation, keras.layers.Layer):
        return node
    read = set(map(id, node.data))
    made = set(map(id, node.outputs))
    known = [taken for taken in taken_masks if id(taken.tensor) in read]
    return dataclasses.replace(
        node,
        unmasked=tuple(
            taken.tensor
            for taken in known
            if not made & taken.before and not made & taken.outputs
        ),
        unmasking=tuple(
            taken.tensor
            for taken in known
            if made & taken.outputs and taken.before
        ),
    )


def _found_masks(call):
    """Which keyword arguments of a call are masks that Keras found."""
    operation, args, kwargs, _ = call
    masks = [key for key in kwargs if key == "mask" or key.endswith("_mask")]
    if not masks or not isinstance(operation, keras.layers.Layer):
        return ()
    signature = inspect.signature(operation.call)
    # Keras takes `training` for layers whose `call` does not.
    taken = {
        key: value
        for key, value in kwargs.items()
        if key != "training" or key in signature.parameters
    }
    bound = signature.bind(*args, **taken).arguments
    tensors = {
        name: value
        for name, value in bound.items()
        if name not in masks and tensors_in(value)
    }
    found = []
    for key in masks:
        read = tensors.get(key.removesuffix("_mask"))
        if key == "mask" and len(tensors) == 1:
            read = next(iter(tensors.values()))
        if read is not None and _is_mask_of(kwargs[key], read):
            found.append(key)
    return tuple(found)


def _is_mask_of(mask, tensors):
    masks, tensors = keras.tree.flatten(mask), keras.tree.flatten(tensors)
    return len(masks) == len(tensors) and all(
        attached_mask(tensor) is mask for mask, tensor in zip(masks, tensors)
    )
