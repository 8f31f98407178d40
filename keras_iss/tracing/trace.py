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
from keras_iss._keras.masks import attached_mask
from keras_iss._objects import is_own, remade
from keras_iss.tracing.configs import no_trace_left, takes_another
from keras_iss.tracing.graph import UntraceableError, graph_of
from keras_iss.tracing.labels import FIXED, Axis, Labels, Traced
from keras_iss.tracing.registry import (
    has_own_rule,
    is_built_in,
    is_replaced,
    rule_for,
    why_no_rule,
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


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """An entry of an operation's config that a cut changes.

    Attributes:
        operation: The `keras.Operation` whose config it is.
        path: Tuple of keys into the config.
        labels: Integer array: the entry is the number of those that stay.
        value: The entry, where `labels` is `None`.
    """

    operation: keras.Operation
    path: tuple
    labels: np.ndarray | None = None
    value: object = None


@dataclasses.dataclass(frozen=True, eq=False)
class Child:
    """A layer that another one holds, in its config under `path`."""

    parent: keras.Operation
    path: tuple
    layer: keras.layers.Layer


@dataclasses.dataclass(frozen=True, eq=False)
class Conflict:
    """Axes along only one of which units may go.

    Attributes:
        axes: List of integer arrays, the labels of each.
        outcome: Integer array, labels that stand for what comes of them.
        reason: String, why the others stay.
    """

    axes: list
    outcome: np.ndarray
    reason: str


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


class Call:
    """One call of a layer or operation, as its rule sees it.

    Attributes:
        operation: The `keras.layers.Layer` or `keras.Operation`.
        name: String, its name with the path to it.
        args: Tuple of its arguments, `Traced` in place of tensors.
        kwargs: Dict of its keyword arguments.
        node: The `Node` of the graph, or `None` inside another layer.
        is_first: Boolean, whether the operation stands in a graph and was
            not called before.
        consumed: List of lists of `Axis`, what each statement of its rule
            says that the output holds no more.
    """

    def __init__(self, trace, operation, name, node=None, config=None):
        self.operation = operation
        self.name = name
        self.args, self.kwargs = (), {}
        self.is_first = True
        self.consumed = []
        self._trace = trace
        self.node = node
        self._config = config or _Config(operation)

    def __repr__(self):
        return f"<Call of {self.title}>"

    @property
    def title(self):
        """How messages name the operation."""
        return f"`{self.name}` ({type(self.operation).__name__})"

    @property
    def found_a_mask(self):
        """Whether Keras found a mask for what the layer is called on."""
        if self.node is None:
            return False
        masks = [self.node.kwargs[key] for key in self.node.found_masks]
        return any(x is not None for x in keras.tree.flatten(masks))

    @property
    def include(self):
        """Tuple of the kinds of layers whose units were asked for."""
        return self._trace.include

    @property
    def without_rule(self):
        """What messages say of an operation that has no rule."""
        return why_no_rule(self.operation)

    def units(self, size, kind, zero=False, key="units"):
        """Makes units.

        Args:
            size: Integer, how many.
            kind: `"recurrent"`, `"dense"` or `"embedding"`: what `include`
                must name for the units to be a structure.
            zero: Boolean, whether the layer's output is exactly zero for a
                unit whose weights and biases are all zero.
            key: String or tuple, where the layer's config holds `size`.

        Returns:
            An `Axis`.
        """
        labels = self._trace.units(self, size, kind, key)
        if kind == "recurrent":
            for variable in self.operation.weights:
                self._trace.recurrent.add(id(variable))
        axis = Axis(labels, np.full(size, zero))
        self.set_size(key, axis)
        return axis

    def unbound(self, size):
        """An `Axis` that takes the units of whatever it is tied to.

        For tensors that the layer makes to measure, such as initial states
        of zeros, and for variables that are read in several ways.
        """
        labels = self._trace.unbound(self.operation, size)
        return Axis(labels, np.full(size, True))

    def weight(self, variable, axes, uses=1):
        """Says which units the axes of a weight matrix divide.

        Args:
            variable: `keras.Variable`.
            axes: Dict from an axis of the variable to an `Axis`, or to
                `None` where its positions must stay. Axes that are left out
                must stay too.
            uses: Integer, how often each element is multiplied in one time
                step; 0 where rows are only looked up.
        """
        multiplied = self._trace.multiplied
        multiplied[id(variable)] = multiplied.get(id(variable), 0) + uses
        self._consume(axes)
        self._use(variable, axes, "weight")

    def bias(self, variable, axes):
        """Like `weight`, for a bias, scale or offset: not in the length."""
        self._use(variable, axes, "bias")

    def state(self, variable, axes):
        """Like `weight`, for a state that is kept between calls."""
        self._use(variable, axes, "state")

    def statistic(self, variable, axes):
        """Like `weight`, for a statistic: cut, but never zeroed."""
        self._use(variable, axes, "statistic")

    def _use(self, variable, axes, role):
        if variable is None:
            return
        axes = {axis % len(variable.shape): one for axis, one in axes.items()}
        for axis, size in enumerate(variable.shape):
            one = axes.get(axis)
            labels = Axis.fixed(size).labels if one is None else one.labels
            if len(labels) != size:
                raise ValueError(
                    f"The rule of {self.title} gives {len(labels)} labels to "
                    f"axis {axis} of `{variable.path}`, of size {size}."
                )
            self._trace.use(
                variable,
                axis,
                labels,
                role,
                self.name,
                f"{self.title} uses `{variable.path}` for these units and "
                "for what must stay",
            )

    def _consume(self, tensors):
        """Notes that the output need not hold the units of some axes."""
        found = []
        for leaf in keras.tree.flatten(tensors):
            if isinstance(leaf, Axis):
                found.append(leaf)
            elif isinstance(leaf, Traced):
                found += [x for x in leaf.axes if x is not None]
        self.consumed.append(found)

    def tie(self, *axes, where="joins it with an axis that must stay"):
        """Says that axes must stay equal, position by position.

        Args:
            *axes: `Axis` objects of one length, or `None` for an axis that
                must stay.
            where: String, said of the operation where units meet an axis
                that must stay.

        Returns:
            An `Axis` with the common labels, or `None` if none has any. It is
            zero where all of them are.
        """
        labelled = [one for one in axes if one is not None and one.labelled]
        if not labelled:
            return None
        first = labelled[0]
        if len({len(one) for one in axes if one is not None}) > 1:
            self._trace.pin(labelled, f"{self.title} stretches an axis")
            return None
        zero = first.zero
        for one in axes:
            one = Axis.fixed(len(first)) if one is None else one
            self._trace.labels.tie(
                first.labels, one.labels, f"{self.title} {where}"
            )
            zero = zero & one.zero
        common = np.where(
            first.labels == FIXED,
            np.max([one.labels for one in labelled], axis=0),
            first.labels,
        )
        return Axis(common, zero)

    def pin(self, tensors, what):
        """Says that units must stay.

        Args:
            tensors: Nested structure of `Traced` and `Axis`.
            what: String, what the operation does with them:
                `"sorts the units"`.
        """
        self._consume(tensors)
        self._trace.pin(tensors, f"{self.title} {what}")

    def pin_all_but(self, tensor, dimensions, what):
        """Pins the labels of every dimension but the given ones.

        Returns:
            The tensor without those labels.
        """
        keep = {i % len(tensor.shape) for i in dimensions}
        for i in tensor.labelled:
            if i not in keep:
                self.pin(tensor.axes[i], what)
        return tensor.replace(
            axes=[x if i in keep else None for i, x in enumerate(tensor.axes)]
        )

    def may_go(self, axis):
        """Whether any unit along an axis may go, as far as is known yet."""
        return axis is not None and not (
            self._trace.labels.pinned(axis.labels).all()
        )

    def only_one(self, axes, what, size):
        """Says that units may go along one of several axes at most.

        Args:
            axes: List of `Axis` along which some may go, as far as is known
                yet. If no unit but those of one of them may go in the end,
                the model is walked once more, and `may_go` says so from the
                start.
            what: String, what the operation does to them, as in `pin`.
            size: Integer, the size of the axis that they come to.

        Returns:
            An `Axis` that stands for it until then.
        """
        self._consume(axes)
        labels = self._trace.labels.new(size)
        self._trace.conflicts.append(
            Conflict(
                [one.labels for one in axes], labels, f"{self.title} {what}"
            )
        )
        return Axis(labels, np.full(size, True))

    def contract(self, *axes):
        """Says that a product is summed over the units without weights.

        Args:
            *axes: The `Axis` (or `None`) of each factor. Removed units are
                missed by nobody where one of the factors is zero.
        """
        self._consume(axes)
        common = self.tie(
            *axes, where="sums products with an axis that must stay"
        )
        if common is None:
            return
        zero = np.any([one.zero for one in axes if one is not None], axis=0)
        free = common.labels != FIXED
        self._trace.labels.pin(
            common.labels[free & ~zero],
            f"{self.title} sums over the units without weights, and they are "
            "not zero when removed",
        )
        self._trace.contracted.append(common.labels[free & zero])

    def set_size(self, key, axis):
        """Says that a config entry is the size of an axis.

        Args:
            key: String or tuple, a path into the layer's config.
            axis: `Axis` or `None`, which says nothing.
        """
        if axis is None:
            return
        operation, path = self._config.locate(key)
        if axis.labelled and not self._trace.can_resize(self, operation, path):
            self.pin(
                axis,
                f"cannot be made with another `{path[-1]}`: its constructor "
                "and `get_config` would have to hand it on",
            )
        known = self._trace.sizes.setdefault((id(operation), path), axis)
        self.tie(known, axis, where="is called on an axis that must stay, too")
        if axis.labelled:
            self._add_setting(key, labels=axis.labels)

    def set_value(self, key, value):
        """Says that a config entry must be given, as it was inferred."""
        self._add_setting(key, value=value)

    def _add_setting(self, key, **entry):
        operation, path = self._config.locate(key)
        self._trace.settings.append(Setting(operation, path, **entry))

    def inner(self, layer, *args, config, name=None, **kwargs):
        """Traces a layer or cell whose config is part of this one's.

        Args:
            layer: The inner layer.
            *args: Its arguments, `Traced`.
            config: Where the entries of its config stand in this layer's:
                a tuple put before its keys, or a dict from its keys.
            name: String, what its units are called. Defaults to
                `"{name of this layer}/{name of the inner layer}"`.
            **kwargs: Its keyword arguments.

        Returns:
            What its rule returns; `None` if it has none.
        """
        self._consume((args, kwargs))
        call = Call(
            self._trace,
            layer,
            name or f"{self.name}/{layer.name}",
            config=_Config(self.operation, config, self._config),
        )
        return self._trace.apply(call, args, kwargs)

    def child(self, layer, path, *args, **kwargs):
        """Traces a layer that this one wraps.

        Args:
            layer: The wrapped layer.
            path: Tuple of keys, where this layer's config holds it.
            *args: Its arguments, `Traced`.
            **kwargs: Its keyword arguments.

        Returns:
            Flat list of its outputs, `Traced`; `None` if it has no rule.
        """
        self._consume((args, kwargs))
        self._trace.children.append(Child(self.operation, path, layer))
        call = Call(self._trace, layer, f"{self.name}/{layer.name}")
        outputs = self._trace.apply(call, args, kwargs)
        return None if outputs is None else keras.tree.flatten(outputs)

    def output_shapes(self):
        """List of the shapes of the outputs, flat."""
        if self.node is not None:
            return [x.shape for x in self.node.outputs]

        def symbolic(x):
            return keras.KerasTensor(x.shape) if isinstance(x, Traced) else x

        args, kwargs = keras.tree.map_structure(
            symbolic, (self.args, self.kwargs)
        )
        spec = self.operation.compute_output_spec(*args, **kwargs)
        return [x.shape for x in keras.tree.flatten(spec)]

    def output(self, axes=None, index=0):
        """An output with labels on some dimensions.

        Args:
            axes: Dict from dimension (may be negative) to `Axis` or `None`.
            index: Integer, which output, in flat order.
        """
        return Traced.of(self.output_shapes()[index], axes)

    def outputs(self):
        """List of all the outputs, without labels."""
        return [Traced.of(shape) for shape in self.output_shapes()]

    def same_size(self, *axes):
        """Says that axes must stay of one size, whichever units go.

        None becomes smaller than what must stay of another.
        """
        self._trace.equal_sizes.append(tuple(one.labels for one in axes))

    def at_least(self, axis, size):
        """Says that an axis must keep a number of positions.

        Args:
            axis: `Axis`.
            size: Integer, how many have to stay if there are as many.
        """
        self.same_size(axis, Axis.fixed(min(size, len(axis))))

    def mask_is_known(self):
        """Whether it is known here if the input comes with a mask.

        Inside a nested model or a wrapper, a mask that was found outside
        arrives unseen; and one that is found inside leaves unseen.
        """
        in_sight, has_sources, all_in_sight = self._trace.mask_sources
        if self.node is None or id(self.node) not in in_sight:
            return not has_sources
        if any(attached_mask(x) is not None for x in self.node.inputs):
            return True
        return all_in_sight


class _Config:
    """Where the entries of an operation's config are.

    Args:
        operation: The operation, or the one whose config holds it.
        within: Tuple put before every key, or a dict from key to path.
        outer: The `_Config` that holds it, if any.
    """

    def __init__(self, operation, within=(), outer=None):
        self._operation = operation
        self._within = within
        self._outer = outer

    def locate(self, key):
        """The operation and path of an entry."""
        if isinstance(self._within, dict):
            path = self._within[key]
        else:
            path = key if isinstance(key, tuple) else (key,)
            path = (*self._within, *path)
        path = path if isinstance(path, tuple) else (path,)
        if self._outer is not None:
            return self._outer.locate(path)
        return self._operation, path


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
