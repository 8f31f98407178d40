"""The walk over a model: rules in, ties and pins out."""

import collections
import dataclasses
import functools
import inspect
import warnings

import keras
import numpy as np

from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import producer
from keras_iss._keras.layers import inner_layers
from keras_iss._objects import is_own, remade
from keras_iss.tracing.call import Call, Setting
from keras_iss.tracing.configs import no_trace_left, takes_another
from keras_iss.tracing.graph import UntraceableError, graph_of
from keras_iss.tracing.labels import FIXED, Axis, Labels, Traced
from keras_iss.tracing.registry import (
    has_own_rule,
    is_built_in,
    is_replaced,
    rule_for,
)

KINDS = ("recurrent", "dense", "embedding")


@dataclasses.dataclass(frozen=True, eq=False)
class Maker:
    """A layer axis whose units were asked for."""

    name: str
    labels: np.ndarray


class Names:
    """Names that are given once."""

    def __init__(self):
        self._taken = set()
        self._counts = {}

    def of(self, names):
        """The first of some names that is free, numbered if none is."""
        name = next((x for x in names if x not in self._taken), None)
        while name is None:
            count = self._counts.get(names[0], 1) + 1
            self._counts[names[0]] = count
            if (numbered := f"{names[0]}_{count}") not in self._taken:
                name = numbered
        self._taken.add(name)
        return name


@dataclasses.dataclass(eq=False)
class Use:
    """What the units of one axis of one variable are, and who reads it.

    The names of the layers that do are the keys of `layers`.
    """

    variable: keras.Variable
    axis: int
    labels: np.ndarray
    role: str
    layers: dict


class Trace:
    """Everything that is learnt on a walk over a model.

    Args:
        model: The model.
        include: Tuple of the kinds of layers whose units are wanted.
        before: Optional `Trace` of an earlier walk over the same model. What
            had to stay on it does so from the start.
    """

    def __init__(self, model, include, before=None):
        self.root = model
        self.include = include
        self.labels = Labels()
        self.makers = []
        self.uses = {}
        self.multiplied = {}
        self.recurrent = set()
        self.contracted = []
        self.settings = []
        self.children = []
        self.equal_sizes = []
        self.sizes = {}
        self.conflicts = []
        self._units = {}
        self._unbound = collections.Counter()
        self.resizable = {} if before is None else before.resizable
        self._staying = {} if before is None else before.staying_units()
        self._maker_names = Names()
        self.warned = set() if before is None else before.warned
        self._whole = set()
        self.graphs = {} if before is None else before.graphs
        self._called = set()
        self._entered = {}
        self.call_shapes = collections.defaultdict(list)
        self._raised_by_own_rule = None
        self.remade = {} if before is None else before.remade
        self.traced = {}
        self.touched = {}

    def run(self):
        """Walks the model from its inputs to its outputs."""
        root = self.root
        try:
            inputs = keras.tree.flatten(self.graph(root).inputs)
        except UntraceableError as error:
            self._seal(Call(self, root, root.name), (), {}, str(error))
            return
        outputs = self.follow(root, [Traced.of(x.shape) for x in inputs])
        self.pin(outputs, f"it is an output of the model `{root.name}`")

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
        """What makes masks, seen from the graph of the whole model.

        Returns:
            Tuple of the `id` of every node of that graph, whether any layer
            may make a mask, and whether all that may stand in the graph.
        """
        nodes = self.graph(self.root).nodes
        operations = {id(node.operation) for node in nodes}
        sources = [
            layer
            for layer in inner_layers(self.root, include_self=False)
            if _may_make_mask(layer)
        ]
        return (
            {id(node) for node in nodes},
            bool(sources),
            all(id(layer) in operations for layer in sources),
        )

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

        def call(node, args, kwargs):
            one = Call(self, node.operation, prefix + node.operation.name, node)
            if node.only_for_masks:
                return self._masked(one, args, kwargs, in_maskings)
            # The rules of the layers that make masks have dealt with them.
            kwargs = {key: kwargs[key] for key in node.given}
            outputs = self.apply(one, args, kwargs)
            flat = keras.tree.flatten(outputs)
            self.traced.update(zip(map(id, node.outputs), flat))
            return outputs

        graph = self.graph(model)
        in_maskings = {
            id(x)
            for node in graph.nodes
            if type(node.operation) is keras.layers.Masking
            for x in node.inputs
        }
        return graph.run(inputs, call)

    def _masked(self, call, args, kwargs, in_maskings):
        """What only a mask is computed from, which no unit may change.

        A mask says of each time step whether it counts. Stock layers make
        theirs of other masks and of the shapes of what they read; `Masking`
        looks at the values, and so does its rule.
        """
        reads = [
            x
            for x in keras.tree.flatten((args, kwargs))
            if isinstance(x, Traced) and x.labelled
        ]
        kind = type(call.operation).__name__
        by_shape = kind in ("OnesLike", "ZerosLike")
        by_rule = kind == "NotEqual" and id(call.node.inputs[0]) in in_maskings
        if reads and not by_shape and not by_rule:
            self.pin(reads, f"{call.title} makes a mask of it")
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
        operation = call.operation
        call.is_first = (
            call.node is not None and id(operation) not in self._called
        )
        self._called.add(id(operation))
        for constant in keras.tree.flatten((args, kwargs)):
            if isinstance(constant, keras.Variable):
                self.fix(constant, f"{call.title} reads a variable directly")
        if isinstance(operation, keras.layers.Layer):
            args, kwargs = keras.tree.map_structure(
                _constant_traced, (args, kwargs)
            )
        call.args, call.kwargs = args, kwargs
        rule = rule_for(operation)
        if getattr(operation, "quantization_mode", None) is not None:
            why = (
                f"is quantized ({operation.quantization_mode}), and only "
                "float weights can be cut: shrink first, then quantize"
            )
            self._warn(f"{call.title} {why}.")
            return self._opaque(call, args, kwargs, why)
        if rule is not None and is_own(type(operation)):
            why = self._why_not_remade(operation)
            if why is not None:
                return self._opaque(call, args, kwargs, why)
        if rule is None:
            if isinstance(operation, (keras.Model, keras.Function)) and not (
                isinstance(operation, keras.Model) and is_replaced(operation)
            ):
                return self._nested(call, args, kwargs)
            return self._opaque(call, args, kwargs, call.without_rule)
        try:
            bound = inspect.signature(rule).bind(call, *args, **kwargs)
        except TypeError:
            why = "is called in a way that its rule does not know"
            return self._opaque(call, args, kwargs, why)
        for name, value in bound.arguments.items():
            if name == "mask" or name.endswith("_mask"):
                self.pin(value, f"{call.title} takes it for a mask")
        try:
            outputs = rule(call, *args, **kwargs)
            self._check(call, args, kwargs, outputs)
            if not is_built_in(rule):
                self._pin_unexplained(call, args, kwargs, outputs)
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
        """Why a layer of one's own could not be made in another size."""
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
                    self.settings.append(Setting(layer, path, axis.labels))
        return tied

    def _check(self, call, args, kwargs, outputs):
        """Pins what a rule says nothing of, and what cannot be."""
        for output in keras.tree.flatten(outputs):
            for i in output.labelled:
                if output.shape[i] not in (None, len(output.axes[i])):
                    raise ValueError(
                        f"The rule of {call.title} gives "
                        f"{len(output.axes[i])} labels to dimension {i} of an "
                        f"output of shape {output.shape}."
                    )
        if not isinstance(call.operation, keras.layers.Layer):
            return
        for variable in call.operation.weights:
            if (id(variable), 0) not in self.uses and len(variable.shape):
                why = (
                    f"{call.title} has a variable `{variable.path}` that its "
                    "rule does not know"
                )
                self.pin((args, kwargs, outputs), why)
                for used in call.operation.weights:
                    self.fix(used, why)
                return

    def _pin_unexplained(self, call, args, kwargs, outputs):
        """Pins the units that a rule of a user's own loses.

        It may have been written with the units of the last dimension in mind
        alone. Units along another one would be lost from sight.
        """
        tensors = [
            x
            for x in keras.tree.flatten((args, kwargs))
            if isinstance(x, Traced)
        ]
        if not any(x.labelled for x in tensors):
            return
        handed_on = [a for x in keras.tree.flatten(outputs) for a in x.axes]
        said = []
        for axes in (handed_on, *call.consumed):
            said.append(collections.Counter())
            for axis in axes:
                said[-1].update(self._different(axis))
        for x in tensors:
            # The same units may run along several dimensions of one tensor.
            needed = collections.Counter()
            for i in x.labelled:
                found = self._different(x.axes[i])
                needed.update(found)
                if not all(
                    any(counter[unit] >= needed[unit] for counter in said)
                    for unit in found
                ):
                    self.pin(
                        x.axes[i],
                        f"{call.title} has a rule that does not say what "
                        f"becomes of the units along axis {i} of its input "
                        "(`call.output` hands them on, `call.weight` or "
                        "`call.contract` sums over them)",
                    )

    def _different(self, axis):
        """Set of the units along an axis, tied ones being one."""
        if axis is None:
            return set()
        labels = axis.labels[axis.labels != FIXED]
        return set(self.labels.roots(labels).tolist())

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
        self.pin((args, kwargs), reason)
        if not isinstance(operation, keras.layers.Layer):
            return
        if "recurrent" in self.include:
            for layer in inner_layers(operation):
                if isinstance(layer, keras.layers.RNN):
                    self._list(layer, call, reason)
        for variable in operation.weights:
            if len(variable.shape) > 1:
                self.multiplied.setdefault(id(variable), 1)
            self.fix(variable, reason)

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
        labels = self.labels.new(max(sizes[0], 1))
        self.makers.append(Maker(self._maker_names.of([name]), labels))
        self.labels.pin(labels, reason)

    def pin(self, tensors, reason):
        """Pins every label of every tensor in a nested structure."""
        for leaf in keras.tree.flatten(tensors):
            if isinstance(leaf, Axis):
                self.labels.pin(leaf.labels, reason)
            elif isinstance(leaf, Traced):
                for axis in leaf.axes:
                    if axis is not None:
                        self.labels.pin(axis.labels, reason)

    def fix(self, variable, reason):
        """Pins whatever units lie in a variable, now or later."""
        for axis, size in enumerate(variable.shape):
            labels = Axis.fixed(size).labels
            self.use(variable, axis, labels, "weight", None, reason)

    def use(self, variable, axis, labels, role, layer, reason):
        """Says which units divide an axis of a variable."""
        known = self.uses.get((id(variable), axis))
        if known is None:
            layers = {} if layer is None else {layer: None}
            self.uses[id(variable), axis] = Use(
                variable, axis, labels, role, layers
            )
            return
        self.labels.tie(known.labels, labels, reason)
        if (known.labels == FIXED).all():
            known.labels = labels
        if role == "weight":
            known.role = role
        if layer is not None:
            known.layers[layer] = None

    def units(self, call, size, kind, key):
        """The labels of the units that a layer makes, the same every time."""
        memo = (id(call.operation), key)
        if memo not in self._units:
            labels = self._new(memo, size)
            if kind in self.include:
                name = self._maker_names.of([call.name])
                self.makers.append(Maker(name, labels))
            else:
                wanted = (*self.include, kind)
                self.labels.pin(
                    labels,
                    f"the units of {call.title} were not asked for "
                    f"(include={wanted!r} would let them go)",
                )
        return self._units[memo]

    def unbound(self, operation, size):
        """Labels that take the units of whatever they are tied to."""
        self._unbound[id(operation)] += 1
        return self._new((id(operation), self._unbound[id(operation)]), size)

    def _new(self, memo, size):
        self._units[memo] = labels = self.labels.new(size)
        for positions, reason in self._staying.get(memo, ()):
            if positions.max() < size:
                self.labels.pin(labels[positions], reason)
        return labels

    def staying_units(self):
        """What had to stay on this walk.

        Returns:
            Dict from what made labels to a list of pairs: the positions along
            its axis that stay, and why.
        """
        return {
            memo: self.labels.by_reason(labels)
            for memo, labels in self._units.items()
            if self.labels.pinned(labels).any()
        }

    def staying_count(self):
        """Integer, how many of the labels stay."""
        return sum(
            int(self.labels.pinned(labels).sum())
            for labels in self._units.values()
        )

    def can_resize(self, call, operation, path):
        """Whether an entry of a config can be another number.

        Known of classes with rules of their own. A subclass that goes by its
        parent's rule may have a constructor that knows better.
        """
        borrowed = [
            one
            for one in (call.operation, operation)
            if isinstance(one, keras.layers.Layer)
            and not has_own_rule(type(one))
        ]
        if not borrowed:
            return True
        memo = (id(operation), path)
        if memo not in self.resizable:
            self.resizable[memo] = takes_another(operation, path)
        return self.resizable[memo]

    def open_conflicts(self):
        """Conflicts of axes of which some may still lose units.

        What comes of the others stays.

        Returns:
            List of pairs of a `Conflict` and the labels that may go, an array
            for each of its axes that has some.
        """
        if not self.conflicts:
            return []
        wanted = np.zeros(len(self.labels), bool)
        for maker in self.makers:
            wanted[self.labels.roots(maker.labels)] = True
        waiting = self.conflicts
        while True:
            found = [(one, self._may_go(one, wanted)) for one in waiting]
            for one, free in found:
                if not free:
                    self.labels.pin(one.outcome, one.reason)
            waiting = [one for one, free in found if free]
            if len(waiting) == len(found):
                return found

    def _may_go(self, conflict, wanted):
        """The labels of each axis that may go; those of nobody stay."""
        for labels in conflict.axes:
            own = wanted[self.labels.roots(labels)] | (labels == FIXED)
            self.labels.pin(labels[~own], "no layer that was asked for has it")
        free = [x[~self.labels.pinned(x)] for x in conflict.axes]
        return [labels for labels in free if len(labels)]


def _may_make_mask(layer):
    if isinstance(layer, keras.layers.Embedding):
        return layer.mask_zero
    own = type(layer).__module__.startswith("keras.")
    return isinstance(layer, keras.layers.Masking) or not own


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
