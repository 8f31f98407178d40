"""New layers and models in place of the old ones, each made once.

Configs change only where the tracing rules said that an entry is the size of
an axis.
"""

import collections
import copy
import functools
import warnings

import keras

from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import (
    copy_without_calls,
    graph_behind,
    nodes_in_order,
    producer,
)
from keras_iss._keras.layers import (
    attributes,
    inner_layers,
    internal_names,
    own_variables,
    replace_layer,
    state_of,
)
from keras_iss._keras.masks import attached_mask
from keras_iss._keras.models import layers_with_inputs
from keras_iss._messages import quoted
from keras_iss._objects import remade, unbuilt
from keras_iss.surgery.attributes import carry_attributes, layer_pairs
from keras_iss.surgery.bidirectional import expanded, is_expanded
from keras_iss.surgery.calling import Calls
from keras_iss.surgery.cutting import Cut
from keras_iss.surgery.duplicates import UncopyableError, duplicate
from keras_iss.surgery.loading import smaller_of_its_class
from keras_iss.surgery.models import model_like, sequential_like
from keras_iss.surgery.outputs import distinct_from_inputs, without_new_masks
from keras_iss.surgery.unbuilt import (
    build_like,
    drop_initializers_of_one_shape,
    held_layers,
    with_entry,
)
from keras_iss.surgery.weights import Weights
from keras_iss.tracing.rules.recurrent import is_uneven


class Builder:
    """Makes a new object for every operation of a model, once.

    Args:
        found: `Found` of the model.
        alive: Boolean array: which components stay, numbered as in `found`.
        zero: Boolean array: which of them are to be zero.

    Attributes:
        cut: `Cut`, what stays.
        classes_changed: Boolean, whether a model is of another class now.
    """

    def __init__(self, found, alive, zero):
        self._trace = found.trace
        self.cut = Cut(found, alive, zero)
        self._made = {}
        self._weights = Weights(self.cut, self._inner)
        self._calls = Calls()
        self.classes_changed = False
        self._children = collections.defaultdict(dict)
        for child in self._trace.statements.children:
            self._children[id(child.parent)][child.path] = child.layer

    @property
    def variables(self):
        """Dict from the `id` of an old variable to the new one."""
        return self._weights.variables

    def _for_drafts(self):
        """One that knows all that this one does, and has made nothing."""
        other = copy.copy(self)
        other.begin_anew()
        return other

    def begin_anew(self):
        """Forgets what was made."""
        self._made, self._calls = {}, Calls()
        self._weights = Weights(self.cut, self._inner)

    def operation(self, old):
        """The new object for a layer, a model or an operation."""
        if id(old) not in self._made:
            # The old object is kept, so that its id stays its own.
            self._made[id(old)] = (self._make(old), old)
        return self._made[id(old)][0]

    def _make(self, old):
        if isinstance(old, (keras.Model, keras.Function)) and (
            self._trace.has_graph(old)
        ):
            return self.model(old)
        if isinstance(old, keras.layers.Layer):
            return self._layer(old)
        return self._stateless(old)

    def _stateless(self, old):
        """A new operation from its config, or a copy of one."""
        if getattr(old, "variables", None) or self.cut.settings(old):
            return remade(old, functools.partial(self._edited, old))
        try:
            return remade(old)
        except Exception:
            return copy_without_calls(old)

    def _edited(self, old, config, stand_ins):
        """The config of an operation, with its sizes and what it holds."""
        config = unbuilt(config)
        for setting in self.cut.settings(old):
            value = setting.value
            if setting.labels is not None:
                stays = self.cut.stays(setting.labels)
                if stays.all():
                    continue
                value = int(stays.sum())
            config = with_entry(config, setting.path, value)
        for path, child in self._children[id(old)].items():
            if isinstance(old, keras.layers.Bidirectional):
                # Only a draft: it makes its own from the config.
                drafts = self._for_drafts()
                entry = unbuilt(stand_ins.serialized(drafts.operation(child)))
            else:
                entry = stand_ins.entry(self.operation(child))
            config = with_entry(config, path, entry)
        return config

    def _layer(self, old):
        try:
            new = remade(old, functools.partial(self._edited, old))
        except Exception as error:
            return self._duplicate(old, error)
        if hasattr(old, "use_cudnn"):
            # Keras does not keep it in the config.
            new.use_cudnn = old.use_cudnn
        if any(map(self.cut.changes_size, old.variables)):
            drop_initializers_of_one_shape(new)
        self._share(old, new)
        self._carry_attributes(old, new, built=False)
        self._weights.add(old, new)
        return new

    def _duplicate(self, old, error):
        """A copy of a layer that cannot be made from its config.

        Args:
            old: The layer, of which nothing may change its size.
            error: What making it from its config raised.
        """
        message = (
            f"`{old.name}` ({type(old).__name__}) cannot be made anew from "
            f"its config: {message_of(error)}. Its class needs a "
            "`get_config` that its constructor takes back."
        )
        if self.cut.is_resized(old):
            raise ValueError(message) from error
        if isinstance(old, (keras.Function, keras.Sequential)):
            # Not by a copy: it is its graph that makes it.
            return self.model(old)

        def copied(inner):
            new = self.operation(inner)
            build_like(inner, new)
            return new

        try:
            new, variables = duplicate(old, copied)
        except UncopyableError as reason:
            raise ValueError(
                f"{message} Nor can it be copied as it is: {reason}."
            ) from error
        self.variables.update(variables)
        return new

    def _fresh(self, layer):
        """A layer as its constructor and `build` leave it, or `None`."""
        try:
            if isinstance(layer, keras.Function):
                graph = self._trace.graph(layer)
                return model_like(layer, graph.inputs, graph.outputs)
            new = remade(layer)
            build_like(layer, new)
        except Exception:
            return None
        return new

    def _share(self, old, new):
        """Lets a layer hold what others hold too, or call by itself."""
        for name, inner in held_layers(old).items():
            if name not in attributes(new):
                continue
            if id(inner) in self._made:
                replace_layer(new, name, self._made[id(inner)][0])
            else:
                self._made[id(inner)] = (attributes(new)[name], inner)

    def model(self, old):
        """The new model for a model whose graph is known."""
        graph = self._trace.graph(old)
        if type(old).call is keras.Sequential.call and not any(
            is_expanded(layer, self.cut) for layer in old.layers
        ):
            return self._sequential(old, graph)
        inputs = self._inputs(old, graph)
        flat = keras.tree.flatten(inputs)
        outputs = self._calls.follow(graph, flat, self._call)
        if self._trace.call_shapes[id(old)]:
            outputs = distinct_from_inputs(outputs, flat)
        elif old is self._trace.root and self._trace.mask_sources.has_any:
            outputs = without_new_masks(old, graph, inputs, outputs)
        if not isinstance(old, keras.Model):
            return keras.Function(inputs, outputs, name=old.name)
        new = model_like(old, inputs, outputs)
        if isinstance(old, keras.Function):
            # Losses may be given by these names.
            new.output_names = list(old.output_names)
        if type(new) is not type(old):
            self.classes_changed = True
            self._check_shapes_hold(old)
        if graph.fixed_length:
            shapes = [x.shape for x in flat]
            warnings.warn(
                f"The `call` of `{old.name}` ({type(old).__name__}) looks at "
                "the lengths of its inputs in Python: the smaller model takes "
                f"inputs of the shapes {quoted(shapes)} only.",
                stacklevel=6,
            )
        self._carry_own(old, new)
        return new

    def _check_shapes_hold(self, old):
        """Raises if a model that checks shapes would be given wrong ones."""
        if old is self._trace.root:
            return
        for layer in inner_layers(self._trace.root):
            if type(layer) is keras.layers.Bidirectional and is_uneven(layer):
                raise ValueError(
                    f"`{old.name}` ({type(old).__name__}) would become a "
                    "Functional model, which checks the shapes of what it is "
                    f"called on, and `{layer.name}` (Bidirectional) has "
                    "directions of different sizes, for which Keras declares "
                    "a wrong shape. Give both directions one size, or call "
                    f"the layers of `{old.name}` directly."
                )

    def _inputs(self, old, graph):
        """New symbolic inputs, nested as the model takes them."""
        inputs = keras.tree.map_structure(
            lambda x: self._input(producer(x)), graph.inputs
        )
        if type(old).call is not keras.Sequential.call:
            return inputs
        # It takes any length that its layers take, which a graph does not.
        (x,), (new,) = map(keras.tree.flatten, (graph.inputs, inputs))
        shapes = [given for (given,) in self._trace.call_shapes[id(old)]]
        shape = [
            size if all(given[i] == x.shape[i] for given in shapes) else None
            for i, size in enumerate(new.shape)
        ]
        opened = keras.Input(batch_shape=shape, dtype=x.dtype, name=x.name)
        return keras.tree.pack_sequence_as(inputs, [opened])

    def of_the_same_class(self, old):
        """A smaller model made by the constructor of the user's own class.

        With the weights that stay; `None` if there is none.
        """
        variables = state_of(old)
        values = [self.cut.of_value(v.value, v) for v in variables]
        sizes = self.cut.sizes(variables)
        shapes = [tuple(value.shape) for value in values]
        new = smaller_of_its_class(old, shapes, sizes)
        if new is None:
            return None
        for before, after, value in zip(variables, state_of(new), values):
            after.assign(value)
            after.trainable = before.trainable
            self.variables[id(before)] = after
        self._carry_attributes(old, new)
        return new

    def _carry_own(self, old, new):
        """What a model holds beside its graph."""
        self._carry_attributes(old, new)
        if type(new) is not type(old):
            return
        self._weights.assign(old, own_variables(old), own_variables(new))
        known = attributes(new)
        for name, value in attributes(old).items():
            if name in internal_names(old):
                continue
            for inner, other in layer_pairs(value, known.get(name)):
                if id(inner) not in self._made:
                    build_like(inner, other)
                    self._made[id(inner)] = (other, inner)
                    self._weights.add(inner, other)
            leaves = keras.tree.flatten(value)
            if leaves and all(id(leaf) in self._made for leaf in leaves):
                # Such as a list of the layers of the graph.
                made = [self._made[id(leaf)][0] for leaf in leaves]
                setattr(new, name, keras.tree.pack_sequence_as(value, made))

    def _sequential(self, old, graph):
        layers = [
            self._input(layer)
            if isinstance(layer, keras.layers.InputLayer)
            else self.operation(layer)
            for layer in layers_with_inputs(old)
        ]
        new = sequential_like(old, layers)
        self._carry_own(old, new)
        behind = graph_behind(new)
        if behind is not None:
            self._calls.remember(
                keras.tree.flatten(graph.inputs), behind.inputs
            )
            for node, (*_, outputs) in zip(graph.nodes, nodes_in_order(behind)):
                self._calls.remember(node.outputs, outputs)
        return new

    def _input(self, layer):
        return self._stateless(layer).output

    def _call(self, node, args, kwargs):
        """Calls a new operation as the old one was called."""
        args, kwargs = keras.tree.map_structure(
            self._new_variable, (args, kwargs)
        )
        return self._calls.make(self.new_call, node, args, kwargs)

    def new_call(self, node, args, kwargs):
        """Calls what has taken the place of an operation."""
        if is_expanded(node.operation, self.cut):
            return self._call_expanded(node, *args, **kwargs)
        return self.operation(node.operation)(*args, **kwargs)

    def attach_masks(self):
        """Gives symbolic tensors the masks that the old ones have."""
        self._calls.attach_masks()

    def _new_variable(self, argument):
        if not isinstance(argument, keras.Variable):
            return argument
        self.carry_weights()
        if id(argument) not in self.variables:
            raise ValueError(
                f"The model reads the variable `{argument.path}` before the "
                "layer that owns it is called. Read it in a layer of your own."
            )
        return self.variables[id(argument)]

    def _call_expanded(
        self, node, sequences, initial_state=None, mask=None, training=None
    ):
        """Calls what takes the place of a `Bidirectional`."""
        old = node.operation
        tensors = [sequences, *(initial_state or ())]
        masked = mask is not None
        if not masked and attached_mask(node.outputs[0]) is not None:
            # With initial states, the output has a mask that no direction
            # is given.
            read = (*node.args, node.kwargs.get("sequences"))[0]
            mask = self._calls.mask_of(read)
        if mask is not None:
            tensors.append(mask)
        if id(old) not in self._made:
            block = expanded(
                old, tensors, mask is not None, masked, training, self.operation
            )
            self._made[id(old)] = (block, old)
        block = self._made[id(old)][0]
        return block(tensors if len(tensors) > 1 else sequences)

    def carry_weights(self):
        """Gives the new layers the weights of the old ones that stay."""
        # Attributes once more: `build` may have set something, too.
        self._weights.carry(self._carry_attributes)

    def _carry_attributes(self, old, new, built=True):
        carry_attributes(old, new, self.cut.is_resized, self._fresh, built)

    def _inner(self, old, new):
        """Pairs of the layers inside two layers, where they are known."""
        children = self._children[id(old)].values()
        if is_expanded(old, self.cut):
            return [(child, new.get_layer(child.name)) for child in children]
        if self._trace.has_graph(old):
            layers = (node.operation for node in self._trace.graph(old).nodes)
            return [
                (layer, new.get_layer(layer.name))
                for layer in layers
                if isinstance(layer, keras.layers.Layer)
            ]
        names = {id(inner): name for name, inner in held_layers(old).items()}
        return [(child, getattr(new, names[id(child)])) for child in children]
