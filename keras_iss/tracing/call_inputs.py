"""Symbolic inputs that a `call` in Python is called on to follow it."""

import keras

from keras_iss._keras.graphs import graph_behind, inputs_as_given
from keras_iss._keras.layers import inner_layers
from keras_iss.tracing.errors import UntraceableError
from keras_iss.tracing.nodes import tensors_in


def _built_shapes(model):
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise UntraceableError(
            "does not tell the shapes of its inputs: call it on data first, "
            "and let its `call` take them as one argument; or, where Keras "
            "kept no shapes of a call, name them by `build(input_shape)`"
        )
    return shapes


def inputs_as_built(model):
    """Symbolic inputs of the shapes that a model was built with.

    Of a `keras.Function` they have its dtypes; of others, those of floats.

    Raises:
        UntraceableError: if the model does not tell the shapes.
    """
    if isinstance(model, keras.Function):
        return keras.tree.map_structure(_input_like, inputs_as_given(model))
    shapes = _built_shapes(model)
    stateful = any(
        getattr(layer, "stateful", False) for layer in inner_layers(model)
    )

    def exact(shape, name=None):
        shape = shape if stateful else (None, *shape[1:])
        return keras.Input(batch_shape=shape, name=name)

    if isinstance(shapes, dict):
        # Keras wants inputs to be called what they are in a dict.
        return {
            key: keras.tree.map_shape_structure(
                lambda shape: exact(shape, key if _is_shape(value) else None),
                value,
            )
            for key, value in shapes.items()
        }
    return keras.tree.map_shape_structure(exact, shapes)


def as_tokens(inputs, graph):
    """The same inputs, integers where a graph looks them up."""
    tokens = _token_inputs(graph)

    def typed(x):
        if id(x) not in tokens:
            return x
        return keras.Input(batch_shape=x.shape, dtype="int32", name=x.name)

    return keras.tree.map_structure(typed, inputs) if tokens else inputs


def _input_like(x):
    return keras.Input(
        batch_shape=x.shape, dtype=x.dtype, sparse=x.sparse, name=x.name
    )


def _is_shape(value):
    return isinstance(value, (tuple, list)) and all(
        size is None or isinstance(size, int) for size in value
    )


def looks_up(operation):
    """Whether an operation takes integers for numbers of entries."""
    lookups = (
        keras.layers.CategoryEncoding,
        keras.layers.Embedding,
        keras.layers.IntegerLookup,
    )
    return isinstance(operation, lookups) or (
        type(operation).__name__ == "OneHot"
    )


def _token_inputs(graph):
    """The `id`s of the inputs that are numbers of entries."""
    return {
        id(x)
        for node in graph.nodes
        for x in node.inputs
        if looks_up(node.operation)
    }


def inputs_of_any_length(model, exact):
    """Yields the same inputs with their lengths left open, widest first."""
    read = {id(x) for node in exact.graph.nodes for x in node.inputs}
    read.update(map(id, tensors_in(exact.graph.outputs)))

    def opened(last, flat=1):
        def open_up(x):
            batch, *lengths = x.shape
            whole = x.dtype.startswith(("int", "uint"))
            kept = 1 if len(lengths) > 1 else flat
            # Of what is not read, nobody knows what it is.
            kept = 0 if whole or id(x) not in read else kept
            count = max(len(lengths) - kept, 0)
            count = count if last is None else min(count, last)
            shape = (batch, *[None] * count, *lengths[count:])
            return keras.Input(batch_shape=shape, dtype=x.dtype, name=x.name)

        return open_up

    inputs = exact.graph.inputs
    ranks = [len(x.shape) for x in keras.tree.flatten(inputs)]
    if 2 in ranks:
        # Numbers at time steps, or features?
        yield keras.tree.map_structure(opened(None, flat=0), inputs)
    yield keras.tree.map_structure(opened(None), inputs)
    if max(ranks, default=0) > 3:
        # Of images over time, the time alone.
        yield keras.tree.map_structure(opened(1), inputs)


def fixed_lengths(model):
    """The sizes that models inside a model fix in their inputs."""
    functions = [
        graph_behind(layer)
        for layer in inner_layers(model)
        if layer is not model and isinstance(layer, keras.Model)
    ]
    return sorted(
        {
            size
            for function in functions
            if function is not None
            for x in keras.tree.flatten(inputs_as_given(function))
            for size in x.shape[1:]
            if size is not None
        }
    )
