"""The graph of a Keras model: its calls, in the order they run."""

import dataclasses
import inspect

import keras

from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import (
    forgotten_calls,
    graph_behind,
    inputs_as_given,
    nodes_in_order,
    outputs_as_given,
    recorded_calls,
    training_phase,
)
from keras_iss._keras.layers import inner_layers
from keras_iss._keras.masks import attached_mask, masks_taken_off
from keras_iss._keras.variables import without_values
from keras_iss._objects import remade, unbuilt
from keras_iss.tracing.call_order import check_order_of_states
from keras_iss.tracing.errors import UntraceableError
from keras_iss.tracing.fingerprint import Fingerprint, knows_phases

# Of dimensions that are open, where it may matter.
_TRIED_LENGTHS = (6, 17)


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of a layer or an operation.

    Attributes:
        operation: `keras.Operation` (a layer is one).
        args: Tuple of the positional arguments, with `keras.KerasTensor`s.
        kwargs: Dict of the keyword arguments, the masks that Keras found by
            itself included.
        outputs: Flat list of the output `keras.KerasTensor`s.
        found_masks: Tuple of the keyword arguments that are such masks.
        only_for_masks: Boolean, whether nothing but such masks is computed
            from the outputs.
        unmasked: Tuple of the `keras.KerasTensor`s it reads whose masks an
            earlier call had taken off.
        unmasking: Tuple of those whose masks it takes off itself, while
            others may still have to read them.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: list
    found_masks: tuple = ()
    only_for_masks: bool = False
    unmasked: tuple = ()
    unmasking: tuple = ()

    @property
    def inputs(self):
        """Flat list of the `keras.KerasTensor`s that the call reads."""
        return _tensors((self.args, self.kwargs))

    @property
    def data(self):
        """The same, without the masks that Keras found by itself."""
        return _tensors((self.args, self.given))

    @property
    def given(self):
        """The keyword arguments without the masks that Keras found."""
        return {
            key: value
            for key, value in self.kwargs.items()
            if key not in self.found_masks
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """What a model computes.

    Attributes:
        inputs: Nested structure of `keras.KerasTensor`.
        outputs: Nested structure of `keras.KerasTensor`.
        nodes: Tuple of `Node`, each after those it reads.
        fixed_length: Boolean, whether it holds for inputs of these very
            shapes only, whatever the model itself takes.
    """

    inputs: object
    outputs: object
    nodes: tuple
    fixed_length: bool = False

    def takes(self, tensors):
        """Whether it holds for tensors of these shapes.

        Args:
            tensors: Flat list of what has a `shape`.
        """
        return not self.fixed_length or all(
            tuple(one.shape[1:]) == tuple(x.shape[1:])
            for one, x in zip(tensors, keras.tree.flatten(self.inputs))
        )

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

    A subclassed model, or one with a `call` of its own, is called on symbolic
    inputs of the shapes it was built with; it stays as it was.

    Raises:
        UntraceableError: if there is no graph that could be followed.
    """
    function = graph_behind(model)
    if function is not None:
        return _graph(function)
    return _symbolic_graph(model)


def _graph(function, taken_masks=()):
    nodes = [
        Node(operation, args, kwargs, outputs, _found_masks(call))
        for call in nodes_in_order(function)
        for operation, args, kwargs, outputs in [call]
    ]
    outputs = outputs_as_given(function)
    needed = set(map(id, _tensors(outputs)))
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
    known = [one for one in taken_masks if id(one.tensor) in read]
    return dataclasses.replace(
        node,
        unmasked=tuple(
            one.tensor
            for one in known
            if not made & one.before and not made & one.outputs
        ),
        unmasking=tuple(
            one.tensor for one in known if made & one.outputs and one.before
        ),
    )


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


def _tensors(nested):
    """Flat list of the `keras.KerasTensor`s in a nested structure."""
    return [
        x
        for x in keras.tree.flatten(nested)
        if isinstance(x, keras.KerasTensor)
    ]


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
        if name not in masks and _tensors(value)
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
        attached_mask(tensor) is one for one, tensor in zip(masks, tensors)
    )


# Models whose `call` is Python that has to be followed.


def _symbolic_graph(model):
    """The graph of what a `call` does, whatever the phase and the length.

    Raises:
        UntraceableError: if it does different things in training and in
            inference that one graph cannot show.
    """
    exact = _called(model, _exact_inputs(model))
    _check_open_lengths(model, exact)
    for inputs in _inputs_of_any_length(model, exact):
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


def _check_open_lengths(model, exact):
    """Raises if a `call` decides in Python by a length that is open."""
    inputs = exact.graph.inputs
    if all(None not in x.shape[1:] for x in keras.tree.flatten(inputs)):
        return
    is_tried = False
    for length in (*_TRIED_LENGTHS, *_fixed_lengths(model)):

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


def _fixed_lengths(model):
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
                return _graph(function).run(inputs, call)
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


@dataclasses.dataclass(frozen=True, eq=False)
class _Called:
    """What a `call` did: its graph, and what it is compared by."""

    graph: Graph
    fingerprint: Fingerprint


def _built_shapes(model):
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise UntraceableError(
            "does not tell the shapes of its inputs: call it on data first, "
            "and let its `call` take them as one argument; or, where Keras "
            "kept no shapes of a call, name them by `build(input_shape)`"
        )
    return shapes


def _exact_inputs(model):
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
        inputs = {
            key: keras.tree.map_shape_structure(
                lambda shape: exact(shape, key if _is_shape(value) else None),
                value,
            )
            for key, value in shapes.items()
        }
    else:
        inputs = keras.tree.map_shape_structure(exact, shapes)
    graph = _called(model, inputs).graph
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


def _inputs_of_any_length(model, exact):
    """Yields the same inputs with their lengths left open, widest first."""
    read = {id(x) for node in exact.graph.nodes for x in node.inputs}
    read.update(map(id, _tensors(exact.graph.outputs)))

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


def _called(model, inputs):
    """Calls a model on symbolic inputs, in training and in inference.

    Raises:
        UntraceableError: if it cannot be called, or its graph depends on the
            phase in a way that no single graph shows.
    """
    inference, training = (
        _called_in(model, inputs, phase) for phase in (False, True)
    )
    first, second = Fingerprint(inference), Fingerprint(training)
    if first == second:
        return _Called(_without_phases(inference), first)
    # Dropout that is called in training only is none in inference.
    if first.without_noise == second.without_noise:
        return _Called(_without_phases(training), second)
    raise UntraceableError(
        "does something else in training than in inference, decided in Python "
        "(such as `if training:`): let layers that know `training` decide, "
        "or build it with `keras.Model(inputs, outputs)`"
    )


def _called_in(model, inputs, training):
    takes = "training" in inspect.signature(type(model).call).parameters
    given = {"training": training} if takes else {}
    with forgotten_calls(model), training_phase(model, training):
        try:
            with (
                masks_taken_off(model, _takes_masks_off) as taken,
                recorded_calls(model) as calls,
            ):
                outputs = model.call(inputs, **given)
            graph = _graph(keras.Function(inputs, outputs), taken)
        except Exception as error:
            raise UntraceableError(
                f"cannot be called on symbolic inputs ({message_of(error)})"
            ) from error
    check_order_of_states(graph, calls)
    for node in graph.nodes:
        phase = node.kwargs.get("training")
        if phase not in (None, training) and knows_phases(node.operation):
            raise UntraceableError(
                f"calls `{node.operation.name}` with `training={phase}` "
                f"when it is called with `training={training}` itself, which "
                "a Functional model cannot do: leave `training` out of that "
                "call"
            )
    return graph


def _without_phases(graph):
    """The graph without the `training` that each call was given."""
    nodes = []
    for node in graph.nodes:
        kwargs = {k: v for k, v in node.kwargs.items() if k != "training"}
        nodes.append(dataclasses.replace(node, kwargs=kwargs))
    return dataclasses.replace(graph, nodes=tuple(nodes))
