"""Whether a graph calls layers that keep a state as Python called them.

A Functional model orders its calls by what they read. That is another order
than the one of a `call` in Python, and calls whose outputs nobody reads are
left out.
"""

import collections

import keras

from keras_iss._keras.layers import inner_layers, own_variables
from keras_iss.tracing.errors import UntraceableError

# Averages over batches, which no call reads in training, nor sets in inference;
# and numbers that are found beforehand.
_FREE_ORDER = (
    keras.layers.BatchNormalization,
    keras.layers.Normalization,
)


def check_order_of_states(graph, calls):
    """Raises if a state would be read and set in another order.

    Args:
        graph: `Graph` of a `call` in Python.
        calls: List of pairs of a layer and the flat list of its outputs, in
            the order in which Python called them.

    Raises:
        UntraceableError: if a layer with a state is called in another order
            in the graph, or fewer times.
    """
    in_python = _calls_by_state(calls)
    if not any(len(outputs) > 1 for _, outputs in in_python.values()):
        return
    in_graph = _calls_by_state(
        (node.operation, node.outputs) for node in graph.nodes
    )
    for key, (layer, outputs) in in_graph.items():
        if outputs != in_python.get(key, (layer, outputs))[1]:
            raise UntraceableError(
                f"calls `{layer.name}` ({type(layer).__name__}), which keeps "
                "a state, several times, and a Functional model would not do "
                "so in this order: let each call read what the one before "
                "gave, or use a layer for each"
            )


def _calls_by_state(calls):
    """Dict from the `id` of a layer with a state to it and its calls."""
    found = collections.defaultdict(list)
    layers = {}
    for operation, outputs in calls:
        if not isinstance(operation, keras.layers.Layer):
            continue
        for layer in inner_layers(operation):
            if _keeps_state(layer):
                layers[id(layer)] = layer
                found[id(layer)].append(tuple(map(id, outputs)))
    return {key: (layers[key], found[key]) for key in found}


def _keeps_state(layer):
    """Whether a call of a layer may change what the next one gives."""
    if getattr(layer, "stateful", False):
        return True
    if not layer.trainable or isinstance(layer, _FREE_ORDER):
        return False
    return any(not variable.trainable for variable in own_variables(layer))
