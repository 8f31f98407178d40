"""The graph of a Keras model: its calls, in the order they run."""

import contextlib
import dataclasses
import inspect

import keras
from keras.src.models.functional import Functional


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of a layer or an operation.

    Attributes:
        operation: `keras.Operation` (a layer is one).
        args: Tuple of the positional arguments, with `keras.KerasTensor`s.
        kwargs: Dict of the keyword arguments. A mask that Keras found by
            itself is left out: called anew, a layer finds it anew.
        outputs: Flat list of the output `keras.KerasTensor`s.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: list

    @property
    def inputs(self):
        """Flat list of the `keras.KerasTensor`s that the call reads."""
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return [x for x in leaves if isinstance(x, keras.KerasTensor)]


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """What a model computes.

    Attributes:
        inputs: Nested structure of `keras.KerasTensor`.
        outputs: Nested structure of `keras.KerasTensor`.
        nodes: Tuple of `Node`, each after those it reads.
    """

    inputs: object
    outputs: object
    nodes: tuple

    def run(self, inputs, call):
        """Follows the graph.

        Args:
            inputs: Flat list of what stands for the inputs.
            call: Function from a `Node`, its arguments and its keyword
                arguments to what stands for its outputs, nested as the
                operation nests them.

        Returns:
            What stands for the outputs, nested as the model nests them.
        """
        values = dict(zip(map(id, keras.tree.flatten(self.inputs)), inputs))

        def fill(argument):
            if isinstance(argument, keras.KerasTensor):
                return values[id(argument)]
            return argument

        for node in self.nodes:
            args, kwargs = keras.tree.map_structure(
                fill, (node.args, node.kwargs)
            )
            results = keras.tree.flatten(call(node, args, kwargs))
            values.update(zip(map(id, node.outputs), results))
        return keras.tree.map_structure(fill, self.outputs)


def graph_of(model):
    """The graph of a model or function.

    A subclassed model, or one with a `call` of its own, is called once on
    symbolic inputs of the shapes it was built with; it stays as it was.

    Raises:
        UntraceableError: if there is no graph that could be followed.
    """
    call = type(model).call
    if call is keras.Sequential.call and model._functional:
        return _graph(model._functional)
    if call in (Functional.call, keras.Function.call):
        return _graph(model)
    return _symbolic_graph(model)


def _graph(function):
    by_depth = function._nodes_by_depth
    nodes = [
        Node(
            node.operation,
            tuple(node.arguments.args),
            _without_found_masks(node),
            node.outputs,
        )
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]
    # Without the found masks, what computed them may be read by nobody.
    needed = set(map(id, function.outputs))
    kept = []
    for node in reversed(nodes):
        if any(id(x) in needed for x in node.outputs):
            needed.update(map(id, node.inputs))
            kept.append(node)
    return Graph(
        function._inputs_struct, function._outputs_struct, tuple(kept[::-1])
    )


def _without_found_masks(node):
    kwargs = dict(node.arguments.kwargs)
    masks = [key for key in kwargs if key == "mask" or key.endswith("_mask")]
    if not masks or not isinstance(node.operation, keras.layers.Layer):
        return kwargs
    signature = inspect.signature(node.operation.call)
    bound = signature.bind(*node.arguments.args, **kwargs).arguments
    tensors = {
        name: value
        for name, value in bound.items()
        if name not in masks and _has_tensor(value)
    }
    for key in masks:
        read = tensors.get(key.removesuffix("_mask"))
        if key == "mask" and len(tensors) == 1:
            read = next(iter(tensors.values()))
        if read is not None and _is_mask_of(kwargs[key], read):
            del kwargs[key]
    return kwargs


def _has_tensor(value):
    leaves = keras.tree.flatten(value)
    return any(isinstance(leaf, keras.KerasTensor) for leaf in leaves)


def _is_mask_of(mask, tensors):
    masks, tensors = keras.tree.flatten(mask), keras.tree.flatten(tensors)
    return len(masks) == len(tensors) and all(
        found_mask(tensor) is one for one, tensor in zip(masks, tensors)
    )


def found_mask(tensor):
    """The mask that Keras found for a symbolic tensor, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def _symbolic_graph(model):
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise UntraceableError(
            "does not tell the shapes of its inputs: call it on data first, "
            "and let its `call` take them as one argument"
        )
    stateful = any(
        getattr(layer, "stateful", False) for layer in model._flatten_layers()
    )

    def exact(shape):
        return keras.Input(
            batch_shape=shape if stateful else (None, *shape[1:])
        )

    graph = _call_symbolically(
        model, keras.tree.map_shape_structure(exact, shapes)
    )
    token_inputs = {
        id(x)
        for node in graph.nodes
        for x in node.inputs
        if isinstance(node.operation, keras.layers.Embedding)
    }

    def any_length(x):
        """The same input, its lengths left open."""
        batch, *lengths = x.shape
        if id(x) in token_inputs:
            shape = (batch, *(None for _ in lengths))
            return keras.Input(batch_shape=shape, dtype="int32")
        shape = (batch, *(None for _ in lengths[:-1]), *lengths[-1:])
        return keras.Input(batch_shape=shape, dtype=x.dtype)

    try:
        return _call_symbolically(
            model, keras.tree.map_structure(any_length, graph.inputs)
        )
    except UntraceableError:
        return graph


def _call_symbolically(model, inputs):
    with _unconnected(model):
        try:
            return _graph(keras.Function(inputs, model.call(inputs)))
        except Exception as error:
            raise UntraceableError(
                f"cannot be called on symbolic inputs ({error})"
            ) from error


@contextlib.contextmanager
def _unconnected(model):
    """Forgets the calls that are made of a model's layers meanwhile."""
    layers = list(model._flatten_layers())
    connections = [
        connections
        for layer in layers
        for connections in (layer._inbound_nodes, layer._outbound_nodes)
    ]
    lengths = list(map(len, connections))
    losses = [(layer, list(layer._losses)) for layer in layers]
    try:
        yield
    finally:
        for layer, known in losses:
            layer._losses[:] = known
            layer._loss_ids = {id(loss) for loss in known}
        for calls, length in zip(connections, lengths):
            del calls[length:]


class UntraceableError(Exception):
    """A model has no graph that could be followed; the message says why."""
