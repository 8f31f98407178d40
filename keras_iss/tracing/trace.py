"""The walk over a model: rules in, ties and pins out."""

import collections
import functools
import inspect
import warnings

import keras
import numpy as np

from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import producer
from keras_iss._keras.layers import inner_layers
from keras_iss._objects import is_own, remade
from keras_iss.tracing.call import Call
from keras_iss.tracing.configs import no_trace_left
from keras_iss.tracing.errors import UntraceableError
from keras_iss.tracing.graph import graph_of
from keras_iss.tracing.labels import Traced
from keras_iss.tracing.mask_sources import (
    inputs_of_maskings,
    mask_sources,
    may_look_at_units,
)
from keras_iss.tracing.registry import is_built_in, is_replaced, rule_for
from keras_iss.tracing.rule_checks import check_outputs, pin_unexplained
from keras_iss.tracing.statements import Setting, Statements


class Trace:
    """Everything that is learnt on a walk over a model.

    Args:
        model: The model.
        include: Tuple of the kinds of layers whose units are wanted.
        before: Optional `Trace` of an earlier walk over the same model. What
            had to stay on it does so from the start.

    Attributes:
        root: The model.
        include: As given.
        statements: `Statements`, what the rules say.
        graphs: Dict from the `id` of a model inside to its `Graph`.
        traced: Dict from the `id` of a symbolic tensor to its `Traced`.
        touched: Dict from the `id` of an operation to a list of integer
            arrays, the labels of all that it reads and gives.
        call_shapes: Dict from the `id` of a model inside to the shapes of the
            inputs of each of its calls.
    """

    def __init__(self, model, include, before=None):
        self.root = model
        self.include = include
        self.statements = Statements(
            include, None if before is None else before.statements
        )
        self.graphs = {} if before is None else before.graphs
        self.traced = {}
        self.touched = {}
        self.call_shapes = collections.defaultdict(list)
        self._called = set()
        self._entered = {}
        self._whole = set()
        self.remade = {} if before is None else before.remade
        self.warned = set() if before is None else before.warned
        self._raised_by_own_rule = None

    def run(self):
        """Walks the model from its inputs to its outputs."""
        root = self.root
        try:
            inputs = keras.tree.flatten(self.graph(root).inputs)
        except UntraceableError as error:
            self._seal(Call(self, root, root.name), (), {}, str(error))
            return
        outputs = self.follow(root, [Traced.of(x.shape) for x in inputs])
        self.statements.pin(
            outputs, f"it is an output of the model `{root.name}`"
        )

    def seal(self, why):
        """Takes the model for one that nothing is known of."""
        self._seal(Call(self, self.root, self.root.name), (), {}, why)

    def graph(self, model):
        """The graph of a model, made once."""
        if id(model) not in self.graphs:
            self.graphs[id(model)] = graph_of(model)
        return self.graphs[id(model)]

    @functools.cached_property
    def mask_sources(self):
        """`MaskSources` of the whole model."""
        return mask_sources(self.root, self.graph(self.root))

    def has_graph(self, model):
        """Whether a model was walked."""
        return id(model) in self.graphs and id(model) not in self._whole

    def follow(self, model, inputs, prefix=""):
        """Walks the graph of a model.

        Args:
            model: A `keras.Model` or `keras.Function`.
            inputs: Flat list of `Traced`.
            prefix: String, put before the names of what is inside.

        Returns:
            Its outputs, nested as the model nests them.
        """
        graph = self.graph(model)
        in_maskings = inputs_of_maskings(graph)

        def apply(node, args, kwargs):
            call = Call(
                self, node.operation, prefix + node.operation.name, node
            )
            if node.only_for_masks:
                return self._make_mask(call, args, kwargs, in_maskings)
            # The rules of the layers that make masks have dealt with them.
            kwargs = {key: kwargs[key] for key in node.given}
            outputs = self.apply(call, args, kwargs)
            flat = keras.tree.flatten(outputs)
            self.traced.update(zip(map(id, node.outputs), flat))
            return outputs

        return graph.run(inputs, apply)

    def _make_mask(self, call, args, kwargs, in_maskings):
        """What only a mask is computed from, which no unit may change."""
        reads = [
            x
            for x in keras.tree.flatten((args, kwargs))
            if isinstance(x, Traced) and x.labelled
        ]
        if reads and may_look_at_units(call.node, in_maskings):
            self.statements.pin(reads, f"{call.title} makes a mask of it")
        return call.outputs()

    def apply(self, call, args, kwargs):
        """Applies the rule of an operation to what it is called on."""
        outputs = self._apply(call, args, kwargs)
        touched = self.touched.setdefault(id(call.operation), [])
        touched += [
            axis.labels
            for x in keras.tree.flatten((args, kwargs, outputs))
            if isinstance(x, Traced)
            for axis in x.axes
            if axis is not None
        ]
        return outputs

    def _apply(self, call, args, kwargs):
        args, kwargs = self._begin(call, args, kwargs)
        rule = rule_for(call.operation)
        why = self._why_not_followed(call, rule)
        if why is not None:
            return self._opaque(call, args, kwargs, why)
        if rule is None:
            return self._nested(call, args, kwargs)
        return self._by_rule(rule, call, args, kwargs)

    def _begin(self, call, args, kwargs):
        """Notes a call, and gives its arguments with constants as tensors."""
        operation = call.operation
        call.is_first = (
            call.node is not None and id(operation) not in self._called
        )
        self._called.add(id(operation))
        for constant in keras.tree.flatten((args, kwargs)):
            if isinstance(constant, keras.Variable):
                self.statements.fix(
                    constant, f"{call.title} reads a variable directly"
                )
        if isinstance(operation, keras.layers.Layer):
            args, kwargs = keras.tree.map_structure(
                _constant_traced, (args, kwargs)
            )
        call.args, call.kwargs = args, kwargs
        return args, kwargs

    def _why_not_followed(self, call, rule):
        """Why nothing is known of an operation; `None` if something is."""
        operation = call.operation
        mode = getattr(operation, "quantization_mode", None)
        if mode is not None:
            why = (
                f"is quantized ({mode}), and only float weights can be cut: "
                "shrink first, then quantize"
            )
            self._warn(f"{call.title} {why}.")
            return why
        if rule is None:
            return None if _has_its_graph(operation) else call.without_rule
        return self._why_not_remade(operation)

    def _by_rule(self, rule, call, args, kwargs):
        """What the rule of an operation gives."""
        try:
            bound = inspect.signature(rule).bind(call, *args, **kwargs)
        except TypeError:
            why = "is called in a way that its rule does not know"
            return self._opaque(call, args, kwargs, why)
        for name, value in bound.arguments.items():
            if name == "mask" or name.endswith("_mask"):
                self.statements.pin(value, f"{call.title} takes it for a mask")
        try:
            outputs = rule(call, *args, **kwargs)
            check_outputs(self.statements, call, args, kwargs, outputs)
            if not is_built_in(rule):
                pin_unexplained(self.statements, call, args, kwargs, outputs)
        except Exception as error:
            if not is_built_in(rule) or error is self._raised_by_own_rule:
                self._raised_by_own_rule = error
                raise
            # Nobody's model is to fail for a mistake in the tracer.
            why = f"is not followed: its rule failed ({error!r})"
            self._warn(
                f"{call.title} {why}. Please report it. Its units keep their "
                "number."
            )
            return self._opaque(call, args, kwargs, why)
        return outputs

    def _warn(self, message):
        """Warns, once in all the walks over a model."""
        if message not in self.warned:
            self.warned.add(message)
            warnings.warn(message, stacklevel=2)

    def _why_not_remade(self, operation):
        """Why a layer of a user's own could not be made in another size."""
        if not is_own(type(operation)):
            return None
        if id(operation) not in self.remade:
            why = None
            try:
                with no_trace_left():
                    remade(operation)
            except Exception as error:
                why = (
                    f"cannot be made anew from its config "
                    f"({message_of(error)}): its class needs a `get_config` "
                    "that its constructor takes back"
                )
            self.remade[id(operation)] = why
        return self.remade[id(operation)]

    def _nested(self, call, args, kwargs):
        """Walks a model that is called inside another one."""
        try:
            graph = self.graph(call.operation)
        except UntraceableError as error:
            return self._opaque(call, args, kwargs, str(error))
        if not graph.takes(keras.tree.flatten(args)):
            return self._of_another_length(call, args, kwargs)
        given, expected = args[:1], (graph.inputs,)
        if len(keras.tree.flatten(graph.inputs)) == 1:
            expected = (keras.tree.flatten(graph.inputs)[0],)
            given = tuple(keras.tree.flatten(given))
        if (
            len(args) != 1
            or set(kwargs) - {"training", "mask"}
            or _ranks(given) != _ranks(expected)
        ):
            why = "is called in another way than it was built"
            return self._opaque(call, args, kwargs, why)
        given = keras.tree.flatten(given)
        self.call_shapes[id(call.operation)].append([x.shape for x in given])
        given = self._enter(call, given)
        return self.follow(call.operation, given, f"{call.name}/")

    def _of_another_length(self, call, args, kwargs):
        """A model whose graph holds for another length stays a layer."""
        why = "looks at the lengths of its inputs in Python"
        if id(call.operation) in self._entered:
            raise UntraceableError(
                f"calls `{call.name}`, which {why}, on several lengths"
            )
        self._whole.add(id(call.operation))
        return self._opaque(
            call, args, kwargs, f"{why}, and is called on another one"
        )

    def _enter(self, call, given):
        """Ties what a nested model is called on, all calls being of one size.

        Returns:
            List of the inputs, `Traced`.
        """
        inputs = keras.tree.flatten(self.graph(call.operation).inputs)
        before = self._entered.setdefault(id(call.operation), given)
        tied = []
        for x, old, new in zip(inputs, before, given):
            axes = {
                i: call.tie(old.axis(i), new.axis(i))
                for i in {*old.labelled, *new.labelled}
            }
            tied.append(Traced.of(new.shape, axes))
            layer = producer(x)
            for i, axis in axes.items():
                if axis is not None:
                    path = ("batch_shape", i)
                    self.statements.settings.append(
                        Setting(layer, path, axis.labels)
                    )
        return tied

    def _opaque(self, call, args, kwargs, why):
        """The outputs of an operation that nothing is known of.

        `None` inside another layer, which knows the shapes.
        """
        self._seal(call, args, kwargs, why)
        return call.outputs() if call.node is not None else None

    def _seal(self, call, args, kwargs, why):
        """Pins all that an operation reads, and lists what is inside it."""
        reason = f"{call.title} {why}"
        operation = call.operation
        self.statements.pin((args, kwargs), reason)
        if not isinstance(operation, keras.layers.Layer):
            return
        if "recurrent" in self.include:
            for layer in inner_layers(operation):
                if isinstance(layer, keras.layers.RNN):
                    self._list(layer, call, reason)
        for variable in operation.weights:
            if len(variable.shape) > 1:
                self.statements.multiplied.setdefault(id(variable), 1)
            self.statements.fix(variable, reason)

    def _list(self, layer, outer, reason):
        """Lists a recurrent layer that the walk does not reach."""
        name = outer.name
        if layer is not outer.operation:
            name = f"{outer.name}/{layer.name}"
        shape = (layer.get_build_config() or {}).get("input_shape")
        if rule_for(layer) is not None and isinstance(shape, (tuple, list)):
            self.apply(Call(self, layer, name), (Traced.of(shape),), {})
            return
        sizes = keras.tree.flatten(layer.state_size)
        self.statements.pinned_units(name, max(sizes[0], 1), reason)


def _has_its_graph(operation):
    """Whether an operation is a model that computes what its graph says."""
    if isinstance(operation, keras.Model):
        return not is_replaced(operation)
    return isinstance(operation, keras.Function)


def _constant_traced(value):
    """A constant tensor that a layer is called on, as one to stay."""
    if isinstance(value, (keras.Variable, np.ndarray)) or (
        not isinstance(value, keras.KerasTensor) and keras.ops.is_tensor(value)
    ):
        return Traced.of(tuple(value.shape))
    return value


def _ranks(tensors):
    """The ranks of tensors, in the structure they come in."""
    return keras.tree.map_structure(
        lambda x: len(x.shape), keras.tree.lists_to_tuples(tensors)
    )
