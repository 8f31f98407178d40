"""The graph of a Keras model: its calls, in the order they run."""

import dataclasses

import keras

from keras_iss._keras.graphs import forgotten_calls, graph_behind
from keras_iss._keras.variables import without_values
from keras_iss._objects import remade, unbuilt
from keras_iss.tracing.call_inputs import (
    as_tokens,
    fixed_lengths,
    inputs_as_built,
    inputs_of_any_length,
)
from keras_iss.tracing.called_graph import called
from keras_iss.tracing.errors import UntraceableError
from keras_iss.tracing.function_graph import function_graph

# Of dimensions that are open, where it may matter.
_TRIED_LENGTHS = (6, 17)


def graph_of(model):
    """The graph of a model or function.

    A subclassed model, or one with a `call` of its own, is called on symbolic
    inputs of the shapes it was built with; it stays as it was.

    Raises:
        UntraceableError: if there is no graph that could be followed.
    """
    function = graph_behind(model)
    if function is not None:
        return function_graph(function)
    return _symbolic_graph(model)


def _takes_masks_off(layer, tensors):
    """Which of the tensors a layer is called on lose their masks by it."""
    if isinstance(layer, keras.layers.MultiHeadAttention):
        return tensors
    if not isinstance(layer, keras.Model):
        return ()
    try:
        graph = graph_of(layer)
    except UntraceableError:
        return ()
    inputs = keras.tree.flatten(graph.inputs)
    if len(inputs) != len(tensors):
        return ()
    lost = {
        id(x)
        for node in graph.nodes
        if isinstance(node.operation, keras.layers.Layer)
        for x in _takes_masks_off(node.operation, node.inputs)
    }
    return [x for x, inside in zip(tensors, inputs) if id(inside) in lost]


# Models whose `call` is Python that has to be followed.


def _symbolic_graph(model):
    """The graph of what a `call` does, whatever the phase and the length.

    Raises:
        UntraceableError: if it does different things in training and in
            inference that one graph cannot show.
    """
    exact = _called(model, _exact_inputs(model))
    _check_open_lengths(model, exact)
    for inputs in inputs_of_any_length(model, exact):
        try:
            longer = _called(model, inputs)
        except UntraceableError:
            continue
        if (
            longer.fingerprint == exact.fingerprint
            and _calls_models_as_they_are(longer.graph)
            and _can_be_built(model, longer.graph)
        ):
            return longer.graph
    # It looks at the length, so that this one is its length.
    return dataclasses.replace(exact.graph, fixed_length=True)


def _exact_inputs(model):
    inputs = inputs_as_built(model)
    if isinstance(model, keras.Function):
        return inputs
    return as_tokens(inputs, _called(model, inputs).graph)


def _called(model, inputs):
    return called(model, inputs, _takes_masks_off)


def _check_open_lengths(model, exact):
    """Raises if a `call` decides in Python by a length that is open."""
    inputs = exact.graph.inputs
    if all(None not in x.shape[1:] for x in keras.tree.flatten(inputs)):
        return
    is_tried = False
    for length in (*_TRIED_LENGTHS, *fixed_lengths(model)):

        def closed(x, length=length):
            shape = [length if n is None else n for n in x.shape[1:]]
            return keras.Input(
                batch_shape=(x.shape[0], *shape), dtype=x.dtype, name=x.name
            )

        try:
            closer = _called(model, keras.tree.map_structure(closed, inputs))
        except UntraceableError:
            # It may be too short, or fit no other length.
            continue
        is_tried = True
        if closer.fingerprint != exact.fingerprint:
            raise UntraceableError(
                "looks at the lengths of its inputs in Python, and is called "
                "on inputs whose lengths are open: give the inputs of the "
                "whole model fixed lengths"
            )
    if not is_tried:
        raise UntraceableError(
            "is called on inputs whose lengths are open, and cannot be called "
            "on any of those that were tried: give the inputs of the whole "
            "model fixed lengths"
        )


def _calls_models_as_they_are(graph):
    """Whether models in a graph that hold for one length only get that."""
    for node in graph.nodes:
        if isinstance(node.operation, keras.Model):
            try:
                inside = graph_of(node.operation)
            except UntraceableError:
                # It stays a layer, and takes what it takes.
                continue
            if not inside.takes(node.inputs):
                return False
    return True


def _can_be_built(model, graph):
    """Whether new layers can be called as those of a graph are.

    A layer may have weights of the size of a length that is open there.
    """
    made = {}

    def call(node, args, kwargs):
        operation = node.operation
        if isinstance(operation, keras.Model) and args:
            function = graph_behind(operation)
            if function is not None:
                inputs = keras.tree.flatten(args[0])
                return function_graph(function).run(inputs, call)
        if id(operation) not in made:
            made[id(operation)] = _made_anew(operation)
        return made[id(operation)](*args, **kwargs)

    inputs = [
        keras.Input(batch_shape=x.shape, dtype=x.dtype)
        for x in keras.tree.flatten(graph.inputs)
    ]
    try:
        with forgotten_calls(model), without_values():
            graph.run(inputs, call)
    except Exception:
        return False
    return True


def _made_anew(operation):
    """A new layer, not built; what is no layer, or cannot be, as it is."""
    is_model = isinstance(operation, (keras.Model, keras.Function))
    if is_model or not isinstance(operation, keras.layers.Layer):
        return operation
    try:
        return remade(operation, lambda config, _: unbuilt(config))
    except Exception:
        return operation
