"""The graphs behind Keras models, and calls on symbolic inputs."""

import contextlib

import keras
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext
from keras.src.models.functional import Functional

from keras_iss._keras.layers import internal_names


def graph_behind(model):
    """The `keras.Function` whose graph is what the model computes, or `None`.

    `None` for a model with a `call` of its own, in its class or set on the
    instance.
    """
    call = vars(model).get("call", type(model).call)
    if call is keras.Sequential.call:
        return model._functional
    if call in (Functional.call, keras.Function.call):
        return model
    return None


def functional_of(model):
    """The Functional model that a model is or, as a Sequential, holds.

    Unlike `graph_behind`, it does not ask whether the model has a `call` of
    its own. `None` for any other model or layer.
    """
    if isinstance(model, Functional):
        return model
    if isinstance(model, keras.Sequential):
        return model._functional
    return None


def nodes_in_order(function):
    """The calls of a `keras.Function` in the order in which they run.

    Returns:
        List of tuples `(operation, args, kwargs, outputs)`.
    """
    by_depth = function._nodes_by_depth
    return [
        _as_call(node)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def _as_call(node):
    return (
        node.operation,
        tuple(node.arguments.args),
        dict(node.arguments.kwargs),
        node.outputs,
    )


def inputs_as_given(function):
    """The symbolic inputs of a `keras.Function`, nested as it takes them."""
    return function._inputs_struct


def outputs_as_given(function):
    """The symbolic outputs of a `keras.Function`, nested as it gives them."""
    return function._outputs_struct


def producer(tensor):
    """The operation that a symbolic tensor is an output of."""
    return tensor._keras_history.operation


def call_behind(tensor):
    """The call that a symbolic tensor is an output of.

    Returns:
        Tuple `(operation, args, kwargs, outputs)`, or `None` if it is the
        output of none.
    """
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    node = history.operation._inbound_nodes[history.node_index]
    if node.is_input:
        return None
    return _as_call(node)


@contextlib.contextmanager
def training_phase(layer, training):
    """Calls inside are as if within a call of a layer with this `training`.

    Args:
        layer: `keras.layers.Layer`, whose `call` is called directly.
        training: Boolean.
    """
    key = "current_call_ctx"
    before = global_state.get_global_attribute(key)
    context = CallContext(entry_layer=layer)
    context.training = training
    global_state.set_global_attribute(key, context)
    try:
        yield
    finally:
        global_state.set_global_attribute(key, before)


@contextlib.contextmanager
def forgotten_calls(model):
    """Forgets the calls that are made of a model's layers meanwhile.

    What a `call` counts in numbers of its own is set back, too.
    """
    layers = list(model._flatten_layers())
    connections = [
        connections
        for layer in layers
        for connections in (layer._inbound_nodes, layer._outbound_nodes)
    ]
    lengths = list(map(len, connections))
    losses = [(layer, list(layer._losses)) for layer in layers]
    plain = [
        (vars(layer), _plain_attributes(layer))
        for layer in layers
        if layer.built
    ]
    try:
        yield
    finally:
        for attributes, known in plain:
            attributes.update(known)
        for layer, known in losses:
            layer._losses[:] = known
            layer._loss_ids = {id(loss) for loss in known}
        for calls, length in zip(connections, lengths):
            del calls[length:]


@contextlib.contextmanager
def recorded_calls(model):
    """Records in which order the layers of a model are called.

    Symbolically, and not from within each other.

    Yields:
        List that gets, afterwards, a pair for each call: the layer and the
        flat list of its outputs.
    """
    layers = list(model._flatten_layers(include_self=False))
    made, calls, open_calls = [], [], []

    def hooked(layer, call):
        def symbolic_call(*args, **kwargs):
            if not open_calls:
                made.append((layer, len(layer._inbound_nodes)))
            open_calls.append(layer)
            try:
                return call(*args, **kwargs)
            finally:
                open_calls.pop()

        return symbolic_call

    before = [vars(layer).get("symbolic_call") for layer in layers]
    for layer in layers:
        vars(layer)["symbolic_call"] = hooked(layer, layer.symbolic_call)
    try:
        yield calls
    finally:
        for layer, known in zip(layers, before):
            vars(layer).pop("symbolic_call")
            if known is not None:
                vars(layer)["symbolic_call"] = known
        calls += [
            (layer, list(node.outputs))
            for layer, number in made
            for node in layer._inbound_nodes[number : number + 1]
        ]


def _plain_attributes(layer):
    plain = (bool, int, float, str, type(None))
    hidden = internal_names(layer)
    return {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, plain) and name not in hidden
    }


def copy_without_calls(operation):
    """A copy of an operation that no graph has a call of."""
    new = object.__new__(type(operation))
    vars(new).update(vars(operation))
    vars(new).update(_inbound_nodes=[], _outbound_nodes=[])
    return new
