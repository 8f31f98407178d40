"""Building the smaller model: new layers from edited configs, cut weights.

The result is made of the layer classes of the original. Configs change only
where the tracing rules said that an entry is the size of an axis.
"""

import collections
import collections.abc
import copy
import dataclasses
import functools
import tempfile
import warnings

import keras
import numpy as np

from keras_iss._keras.compiling import compile_arguments
from keras_iss._keras.configs import trusted_configs
from keras_iss._keras.distribution import distribution_scope
from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import graph_behind, nodes_in_order, producer
from keras_iss._keras.layers import (
    attributes,
    carried_states,
    inner_layers,
    internal_names,
    own_variables,
    replace_layer,
    state_of,
)
from keras_iss._keras.masks import (
    attach_mask,
    attached_mask,
    detach_masks,
    masks_of_outputs,
)
from keras_iss._keras.models import layers_with_inputs
from keras_iss._keras.optimizer_state import (
    carry_exclusions,
    like,
    slots,
    weights_of,
)
from keras_iss._objects import remade, unbuilt
from keras_iss._scopes import known_objects
from keras_iss.regularizers import STRENGTH
from keras_iss.structures import quoted
from keras_iss.surgery.attributes import carry_attributes, layer_pairs
from keras_iss.surgery.duplicates import UncopyableError, duplicate
from keras_iss.surgery.loading import (
    loading_problem,
    shares_layers,
    smaller_of_its_class,
)
from keras_iss.surgery.models import model_like, sequential_like
from keras_iss.tracing.graph import UntraceableError
from keras_iss.tracing.rules.recurrent import is_uneven


@dataclasses.dataclass(frozen=True, eq=False)
class Rebuilt:
    """A smaller model, and how it hangs together with the old one.

    Attributes:
        model: The new `keras.Model`.
        variables: Dict from the `id` of an old variable to the new one.
        stays: Function from an array of unit labels to a boolean array.
        call: Function from a `Node` of the old graph, arguments and keyword
            arguments to what the new operation gives for them.
    """

    model: keras.Model
    variables: dict
    stays: collections.abc.Callable
    call: collections.abc.Callable


def rebuild(found, alive, zero):
    """Builds a model without the components that are not alive.

    Args:
        found: `Found` of the model.
        alive: Boolean array: which components stay, numbered as in `found`.
        zero: Boolean array: which of them are to be zero.

    Returns:
        `Rebuilt`: a new model, with the weights that stay, compiled like the
        old one.
    """
    old = found.trace.root
    # What is read here was made here: a `Lambda` need not be trusted anew.
    with distribution_scope(old), known_objects(old), trusted_configs():
        builder = _Builder(found, alive, zero)
        try:
            new = builder.model(old)
        except UntraceableError as error:
            raise ValueError(
                f"`{old.name}` ({type(old).__name__}) cannot be made smaller: "
                f"it {error}."
            ) from error
        builder.carry_weights()
        builder.attach_masks()
        new = _one_that_loads(old, new, builder)
        _warn_of_losses(old, new, builder.variables)
        _compile(old, new, builder.variables, builder.cut)
    return Rebuilt(new, builder.variables, builder.stays, builder.new_call)


class _Builder:
    """Makes a new object for every operation of a model, once.

    Attributes:
        classes_changed: Boolean, whether a model is of another class now.
        variables: Dict from the `id` of an old variable to the new one.
        tensors: Dict from the `id` of an old symbolic tensor to the new one.
    """

    def __init__(self, found, alive, zero):
        self._found = found
        self._trace = found.trace
        self._alive = alive
        self._zero = zero
        self._made = {}
        self._pairs = []
        self._replays = []
        self._masks = {}
        self._copies = {}
        self.classes_changed = False
        self.variables = {}
        self.tensors = {}
        self._settings = collections.defaultdict(list)
        for setting in self._trace.settings:
            self._settings[id(setting.operation)].append(setting)
        self._children = collections.defaultdict(dict)
        for child in self._trace.children:
            self._children[id(child.parent)][child.path] = child.layer
        self._kept = collections.defaultdict(dict)
        self._silent = collections.defaultdict(dict)
        for use in self._trace.uses.values():
            stays = self.stays(use.labels)
            if not stays.all():
                kept = np.flatnonzero(stays)
                self._kept[id(use.variable)][use.axis] = kept
            components = self._found.components_of(use.labels)[stays]
            silent = (components >= 0) & zero[components]
            if silent.any() and use.role != "statistic":
                self._silent[id(use.variable)][use.axis] = silent

    def _for_drafts(self):
        """One that knows all that this one does, and has made nothing."""
        other = copy.copy(self)
        # A copy of this object.
        other._made = {}  # noqa: SLF001
        other._pairs, other._replays = [], []  # noqa: SLF001
        other.variables, other.tensors = {}, {}
        return other

    def stays(self, labels):
        components = self._found.components_of(labels)
        return (components < 0) | self._alive[components]

    def cut(self, value, variable, axes=None):
        """What stays of a value that is laid out like a variable.

        Args:
            value: Tensor.
            variable: The `keras.Variable` it belongs to.
            axes: For each axis of the value, the axis of the variable that
                it is. Defaults to all of them, in order.
        """
        kept = self._kept.get(id(variable), {})
        silent = self._silent.get(id(variable), {})
        axes = range(len(variable.shape)) if axes is None else axes
        # JAX gives the buffers of a model away when it trains.
        if not any(axis in kept or axis in silent for axis in axes):
            return keras.ops.copy(value)
        for i, axis in enumerate(axes):
            if axis in kept:
                value = keras.ops.take(value, kept[axis], axis=i)
            if axis in silent:
                shape = [1] * len(axes)
                shape[i] = -1
                gone = np.reshape(silent[axis], shape)
                value = keras.ops.where(
                    gone, keras.ops.zeros_like(value), value
                )
        return value

    # Operations.

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
        if getattr(old, "variables", None) or self._settings[id(old)]:
            return remade(old, functools.partial(self._edited, old))
        try:
            return remade(old)
        except Exception:
            new = object.__new__(type(old))
            vars(new).update(vars(old))
            vars(new).update(_inbound_nodes=[], _outbound_nodes=[])
            return new

    def _edited(self, old, config, stand_ins):
        """The config of an operation, with its sizes and what it holds."""
        config = unbuilt(config)
        for setting in self._settings[id(old)]:
            value = setting.value
            if setting.labels is not None:
                stays = self.stays(setting.labels)
                if stays.all():
                    continue
                value = int(stays.sum())
            config = _with(config, setting.path, value)
        for path, child in self._children[id(old)].items():
            if isinstance(old, keras.layers.Bidirectional):
                # Only a draft: it makes its own from the config.
                drafts = self._for_drafts()
                entry = unbuilt(stand_ins.serialized(drafts.operation(child)))
            else:
                entry = stand_ins.entry(self.operation(child))
            config = _with(config, path, entry)
        return config

    def _layer(self, old):
        try:
            new = remade(old, functools.partial(self._edited, old))
        except Exception as error:
            return self._duplicate(old, error)
        if hasattr(old, "use_cudnn"):
            # Keras does not keep it in the config.
            new.use_cudnn = old.use_cudnn
        if any(id(variable) in self._kept for variable in old.variables):
            _drop_initializers_of_one_shape(new)
        self._share(old, new)
        carry_attributes(old, new, self._is_resized, self._fresh, built=False)
        self._pairs.append((old, new))
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
        if self._is_resized(old):
            raise ValueError(message) from error
        if isinstance(old, (keras.Function, keras.Sequential)):
            # Not by a copy: it is its graph that makes it.
            return self.model(old)

        def copied(inner):
            new = self.operation(inner)
            _build_like(inner, new)
            return new

        try:
            new, variables = duplicate(old, copied)
        except UncopyableError as reason:
            raise ValueError(
                f"{message} Nor can it be copied as it is: {reason}."
            ) from error
        self.variables.update(variables)
        return new

    def _is_resized(self, layer):
        """Whether something of a layer, or of what it reads, gets smaller."""
        labels = [one.labels for one in self._settings[id(layer)]]
        labels += self._trace.touched.get(id(layer), [])
        return any(
            not self.stays(one).all() for one in labels if one is not None
        ) or any(id(variable) in self._kept for variable in layer.variables)

    def _fresh(self, layer):
        """A layer as its constructor and `build` leave it, or `None`."""
        try:
            if isinstance(layer, keras.Function):
                graph = self._trace.graph(layer)
                return model_like(layer, graph.inputs, graph.outputs)
            new = remade(layer)
            _build_like(layer, new)
        except Exception:
            return None
        return new

    def _share(self, old, new):
        """Lets a layer hold what others hold too, or call by itself."""
        for name, inner in _held(old).items():
            if name not in attributes(new):
                continue
            if id(inner) in self._made:
                replace_layer(new, name, self._made[id(inner)][0])
            else:
                self._made[id(inner)] = (attributes(new)[name], inner)

    # Models.

    def model(self, old):
        """The new model for a model whose graph is known."""
        graph = self._trace.graph(old)
        if type(old).call is keras.Sequential.call and not any(
            self._is_expanded(layer) for layer in old.layers
        ):
            return self._sequential(old, graph)
        inputs = self._inputs(old, graph)
        flat = keras.tree.flatten(inputs)
        self._remember(keras.tree.flatten(graph.inputs), flat)
        outputs = graph.run(flat, self._call)
        if self._trace.call_shapes[id(old)]:
            outputs = _apart(outputs, flat)
        elif old is self._trace.root and self._trace.mask_sources[1]:
            outputs = _without_new_masks(old, graph, inputs, outputs)
        self._replays.append(graph)
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
                stacklevel=5,
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
        shapes = [one for (one,) in self._trace.call_shapes[id(old)]]
        shape = [
            size if all(one[i] == x.shape[i] for one in shapes) else None
            for i, size in enumerate(new.shape)
        ]
        opened = keras.Input(batch_shape=shape, dtype=x.dtype, name=x.name)
        return keras.tree.pack_sequence_as(inputs, [opened])

    def of_the_same_class(self, old):
        """A smaller model made by the constructor of the user's own class.

        With the weights that stay; `None` if there is none.
        """
        variables = state_of(old)
        cut = [self.cut(v.value, v) for v in variables]
        sizes = {
            (v.shape[axis], len(kept))
            for v in variables
            for axis, kept in self._kept.get(id(v), {}).items()
        }
        sizes |= {
            (len(one.labels), int(self.stays(one.labels).sum()))
            for settings in self._settings.values()
            for one in settings
            if one.labels is not None and not self.stays(one.labels).all()
        }
        shapes = [tuple(value.shape) for value in cut]
        new = smaller_of_its_class(old, shapes, sizes)
        if new is None:
            return None
        for one, other, value in zip(variables, state_of(new), cut):
            other.assign(value)
            other.trainable = one.trainable
            self.variables[id(one)] = other
        carry_attributes(old, new, self._is_resized, self._fresh)
        return new

    def _carry_own(self, old, new):
        """What a model holds beside its graph."""
        carry_attributes(old, new, self._is_resized, self._fresh)
        if type(new) is not type(old):
            return
        self._assign(old, own_variables(old), own_variables(new))
        known = attributes(new)
        for name, value in attributes(old).items():
            if name in internal_names(old):
                continue
            for inner, other in layer_pairs(value, known.get(name)):
                if id(inner) not in self._made:
                    _build_like(inner, other)
                    self._made[id(inner)] = (other, inner)
                    self._pairs.append((inner, other))
            leaves = keras.tree.flatten(value)
            if leaves and all(id(one) in self._made for one in leaves):
                # Such as a list of the layers of the graph.
                made = [self._made[id(one)][0] for one in leaves]
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
            self._remember(keras.tree.flatten(graph.inputs), behind.inputs)
            for node, (*_, outputs) in zip(graph.nodes, nodes_in_order(behind)):
                self._remember(node.outputs, outputs)
        return new

    def _input(self, layer):
        return self._stateless(layer).output

    def _call(self, node, args, kwargs):
        """Calls a new operation as the old one was called.

        The masks that Keras found then are given by hand, and no others are
        to be found: which ones are depends on the order of the calls, since
        attention takes them off what it reads.
        """
        args, kwargs = keras.tree.map_structure(
            self._new_variable, (args, kwargs)
        )
        apart = {id(self.tensors[id(x)]): None for x in node.unmasked}
        for x in node.unmasking:
            mask = self._mask_of(x)
            if mask is not None:
                apart[id(self.tensors[id(x)])] = mask
        if apart:
            args, kwargs = keras.tree.map_structure(
                lambda x: (
                    self._with_mask(x, apart[id(x)]) if id(x) in apart else x
                ),
                (args, kwargs),
            )
        outputs = self.new_call(node, args, kwargs)
        for x in keras.tree.flatten(outputs):
            self._masks[id(x)] = attached_mask(x)
        detach_masks(outputs)
        self._remember(node.outputs, keras.tree.flatten(outputs))
        return outputs

    def _mask_of(self, old):
        """The new mask of an old tensor, or `None` if it is not in sight."""
        known = self._masks.get(id(self.tensors[id(old)]))
        if known is None:
            known = self.tensors.get(id(attached_mask(old)))
        return known

    def _with_mask(self, tensor, mask):
        """The same numbers, in a tensor that carries this mask or none."""
        key = id(tensor), id(mask)
        if key not in self._copies:
            made = keras.ops.copy(tensor)
            if mask is not None:
                made = _with_mask(made, mask, None)
            # They are kept, so that their ids stay their own.
            self._copies[key] = made, tensor, mask
        return self._copies[key][0]

    def new_call(self, node, args, kwargs):
        """Calls what has taken the place of an operation."""
        if self._is_expanded(node.operation):
            return self._call_expanded(node.operation, *args, **kwargs)
        return self.operation(node.operation)(*args, **kwargs)

    def _remember(self, old, new):
        self.tensors.update(zip(map(id, old), new))

    def attach_masks(self):
        """Gives symbolic tensors the masks that the old ones have.

        For who builds on them: calls that are there have theirs.
        """
        for graph in self._replays:
            for node in graph.nodes:
                for old in node.outputs:
                    mask = attached_mask(old)
                    if id(mask) in self.tensors:
                        attach_mask(
                            self.tensors[id(old)], self.tensors[id(mask)]
                        )

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

    # Bidirectional layers whose directions differ in size.

    def _is_expanded(self, old):
        """Whether two layers have to take the place of a `Bidirectional`.

        Keras takes its directions to be of one size.
        """
        return (
            type(old) is keras.layers.Bidirectional
            and old.merge_mode in (None, "concat")
            and not is_uneven(old)
            and self._units(old.forward_layer)
            != self._units(old.backward_layer)
        )

    def _units(self, layer):
        """How many units of a recurrent layer stay."""
        sizes = [one.labels for one in self._settings[id(layer)]]
        if sizes:
            # Of stacked cells, the last one gives the output.
            return int(self.stays(sizes[-1]).sum())
        return keras.tree.flatten(layer.state_size)[0]

    def _call_expanded(
        self, old, sequences, initial_state=None, mask=None, training=None
    ):
        """Calls what takes the place of a `Bidirectional`.

        A model of two layers and a concatenation. Flipping the backward
        output loses its mask, so the model is given the mask, where there is
        one, and puts it on what it returns.
        """
        tensors = [sequences, *(initial_state or ())]
        if mask is not None:
            tensors.append(mask)
        if id(old) not in self._made:
            block = self._block(old, tensors, mask is not None, training)
            self._made[id(old)] = (block, old)
        block = self._made[id(old)][0]
        return block(tensors if len(tensors) > 1 else sequences)

    def _block(self, old, tensors, masked, training):
        inputs = [
            keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in tensors
        ]
        sequences, *states = inputs
        given = {} if training is None else {"training": training}
        if masked:
            given["mask"] = states.pop()
        half = len(states) // 2
        directions = []
        for layer, initial in (
            (old.forward_layer, states[:half]),
            (old.backward_layer, states[half:]),
        ):
            initial = {"initial_state": initial} if initial else {}
            output = self.operation(layer)(sequences, **initial, **given)
            directions.append(keras.tree.flatten(output))
        (forward, *first), (backward, *second) = directions
        if old.return_sequences:
            backward = keras.ops.flip(backward, axis=1)
        outputs = [forward, backward]
        if old.merge_mode == "concat":
            outputs = [keras.ops.concatenate(outputs, axis=-1)]
        if masked and old.return_sequences:
            outputs = [
                _with_mask(x, given["mask"], f"{old.name}_mask_{i}")
                for i, x in enumerate(outputs)
            ]
        outputs += [*first, *second]
        block = keras.Model(
            inputs if len(inputs) > 1 else sequences,
            outputs if len(outputs) > 1 else outputs[0],
            name=old.name,
            trainable=old.trainable,
        )
        # Or Keras warns that it would lose the mask, which it does not where
        # there is one to keep.
        block.supports_masking = True
        if not old.return_sequences:
            block.compute_mask = _no_mask
        return block

    # Weights.

    def carry_weights(self):
        """Gives the new layers the weights of the old ones that stay."""
        for old, new in self._pairs:
            self._carry(old, new)
            # Once more: `build` may have set something, too.
            carry_attributes(old, new, self._is_resized, self._fresh)
        self._pairs.clear()

    def _carry(self, old, new):
        inner = self._inner(old, new)
        for old_layer, new_layer in inner:
            self._carry(old_layer, new_layer)
        below = {id(v) for pair in inner for one in pair for v in _state(one)}
        self._assign(
            old,
            [v for v in _state(old) if id(v) not in below],
            [v for v in _state(new) if id(v) not in below],
        )
        _carry_the_rest(old, new)

    def _inner(self, old, new):
        """Pairs of the layers inside two layers, where they are known."""
        children = self._children[id(old)].values()
        if self._is_expanded(old):
            return [(child, new.get_layer(child.name)) for child in children]
        if self._trace.has_graph(old):
            layers = (node.operation for node in self._trace.graph(old).nodes)
            return [
                (layer, new.get_layer(layer.name))
                for layer in layers
                if isinstance(layer, keras.layers.Layer)
            ]
        names = {id(inner): name for name, inner in _held(old).items()}
        return [(child, getattr(new, names[id(child)])) for child in children]

    def _assign(self, layer, old_variables, new_variables):
        if len(old_variables) != len(new_variables):
            raise ValueError(
                f"`{layer.name}` ({type(layer).__name__}) holds the variables "
                f"{quoted(v.path for v in old_variables)}, and a new one made "
                f"from its config {quoted(v.path for v in new_variables)}. "
                "Is something in it quantized, given LoRA weights or held "
                "twice? Shrink first, then change the layer."
            )
        by_name = {v.name: v for v in new_variables}
        if by_name.keys() == {v.name for v in old_variables} and (
            len(by_name) == len(new_variables)
        ):
            # A quantized layer makes them in another order.
            new_variables = [by_name[v.name] for v in old_variables]
        else:
            new_variables = _by_path(old_variables, new_variables)
        for old, new in zip(old_variables, new_variables):
            known = self.variables.get(id(old))
            if known is not None:
                if known is not new:
                    raise ValueError(
                        f"`{layer.name}` ({type(layer).__name__}) shares the "
                        f"variable `{old.path}` with another layer in a way "
                        "that keras-iss cannot make anew. Share the whole "
                        "layer instead, by calling it twice."
                    )
                continue
            value = self.cut(old.value, old)
            if tuple(value.shape) != tuple(new.shape):
                raise RuntimeError(
                    f"`{layer.name}`: the variable `{old.path}` should become "
                    f"{tuple(value.shape)}, and the new layer made it "
                    f"{tuple(new.shape)}. A rule and a config disagree."
                )
            new.assign(value)
            new.trainable = old.trainable
            new.constraint = old.constraint
            self.variables[id(old)] = new


def _by_path(old_variables, new_variables):
    """The new variables in the order of the old ones, where paths tell it."""
    by_path = {v.path: v for v in new_variables}
    paths = [v.path for v in old_variables]
    if len(by_path) == len(paths) and by_path.keys() == set(paths):
        return [by_path[path] for path in paths]
    return new_variables


def _build_like(old, new):
    """Builds what is not built of a layer, for the shapes of another."""
    count = 0
    while count < len(layers := inner_layers(new)):
        for one, other in zip(inner_layers(old)[count:], layers[count:]):
            count += 1
            if one.built and not other.built:
                other.build_from_config(one.get_build_config() or {})
                # Which may have made layers inside.
                break
        else:
            return


def _held(layer):
    """Dict from the name of an attribute to the layer that it is."""
    return {
        name: value
        for name, value in attributes(layer).items()
        if isinstance(value, keras.layers.Layer)
    }


def _drop_initializers_of_one_shape(layer):
    """Puts zeros in place of initializers that only make the old shape."""
    for one in inner_layers(layer):
        for name, value in list(vars(one).items()):
            if not name.endswith("_initializer") or value is None:
                continue
            constant = isinstance(value, keras.initializers.Constant)
            own = not type(value).__module__.startswith("keras.")
            if own or (constant and np.ndim(value.value)):
                setattr(one, name, keras.initializers.Zeros())


def _carry_the_rest(old, new):
    """What a layer keeps beside its variables and its config."""
    if hasattr(old, "lora_alpha"):
        new.lora_alpha = old.lora_alpha
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)
    if hasattr(new, "finalize_state"):
        new.finalize_state()


def _state(layer):
    """Everything a layer keeps: variables, and the states of an RNN."""
    variables = [v for v in layer.variables if v.name != STRENGTH]
    return [*variables, *carried_states(layer)]


def _with(config, path, value):
    """A config with another entry."""
    if not path:
        return value
    key, *rest = path
    if isinstance(config, (list, tuple)):
        changed = list(config)
        changed[key] = _with(changed[key], rest, value)
        return type(config)(changed)
    if isinstance(config, dict):
        return {**config, key: _with(config.get(key), rest, value)}
    # An integer stands for a shape of one dimension.
    return value


def _no_mask(inputs, previous_mask=None):
    return None


def _apart(outputs, inputs):
    """The outputs of a model, none of them the tensor that an input is.

    Keras takes a call of a model that gives back what it got for a cycle.
    """
    given = set(map(id, inputs))

    def apart(x):
        if id(x) not in given:
            return x
        return keras.layers.Identity(dtype=x.dtype)(x)

    return keras.tree.map_structure(apart, outputs)


def _without_new_masks(old, graph, inputs, outputs):
    """Outputs that carry a mask only where those of the old model do."""
    if graph_behind(old) is None:
        before = map(attached_mask, keras.tree.flatten(graph.outputs))
    else:
        before = masks_of_outputs(old)
    after = masks_of_outputs(keras.Model(inputs, outputs))
    flat = [
        keras.ops.copy(x) if one is None and other is not None else x
        for x, one, other in zip(keras.tree.flatten(outputs), before, after)
    ]
    return keras.tree.pack_sequence_as(outputs, flat)


def _with_mask(x, mask, name):
    """The same tensor, with a mask.

    Only a model can be told the mask of its input.
    """
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    outputs = keras.layers.Identity(dtype=x.dtype)(inputs)
    model = keras.Model(inputs, outputs, name=name)
    model.supports_masking = True
    return model(x, mask=mask)


def _one_that_loads(old, new, builder):
    """The new model; or where Keras could not load it, one of the old class.

    Warns if neither can be loaded.
    """
    another_class = type(new) is not type(old)
    if not builder.classes_changed and not shares_layers(new):
        return new
    problem = loading_problem(new, old)
    if problem is None:
        return new
    if another_class and not isinstance(old, keras.Sequential):
        of_the_class = builder.of_the_same_class(old)
        if of_the_class is not None:
            return of_the_class
    warnings.warn(
        f"The smaller model of `{old.name}` computes what it should, but a "
        f"file that it is saved to cannot be loaded as that: {problem}",
        stacklevel=4,
    )
    return new


def _warn_of_losses(old, new, variables):
    """Says what of a model of the user's own class does not go over."""
    left = [v.path for v in old.weights if id(v) not in variables]
    if left:
        warnings.warn(
            f"The variables {quoted(left)} belong to no layer of the graph of "
            f"`{old.name}`: the smaller model does without them.",
            stacklevel=4,
        )
    if type(new) is not type(old) and type(old) is not keras.Sequential:
        kind = (
            "Sequential" if isinstance(new, keras.Sequential) else "Functional"
        )
        warnings.warn(
            f"`{old.name}` is a `{type(old).__name__}`. The smaller model is a "
            f"{kind} one of the same layers: it has no methods of that class, "
            "such as a `train_step` of its own.",
            stacklevel=4,
        )


def _compile(old, new, variables, cut):
    """Compiles the new model like the old one, with its optimizer's state."""
    if not old.compiled:
        return
    if type(new).compile is keras.Model.compile:
        arguments = compile_arguments(old)
        # As it is, not as it was given: it may be wrapped to scale losses.
        arguments["optimizer"] = like(old.optimizer) if old.optimizer else None
        for key in ("metrics", "weighted_metrics"):
            arguments[key] = keras.tree.map_structure(
                _metric_like, arguments[key]
            )
        new.compile(**arguments, auto_scale_loss=False)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It speaks of loading.
            new.compile_from_config(old.get_compile_config())
    if not new.compiled:
        warnings.warn(
            f"`{old.name}` has a `compile` of its own, and no "
            "`compile_from_config`: compile the smaller model yourself.",
            stacklevel=4,
        )
    elif old.optimizer is not None:
        carry_exclusions(old.optimizer, new.optimizer, variables)
        if old.optimizer.built:
            _carry_optimizer(new, old.optimizer, new.optimizer, variables, cut)


def _metric_like(value):
    """A new metric from its config; anything else as it is."""
    if not isinstance(value, keras.metrics.Metric):
        return value
    try:
        return remade(value)
    except Exception as error:
        raise ValueError(
            f"The metric `{value.name}` ({type(value).__name__}) cannot be "
            f"made anew from its config: {error}. Its class needs a "
            "`get_config` that its constructor takes back; or shrink the "
            "model before it is compiled."
        ) from error


def _carry_optimizer(model, old, new, variables, cut):
    """Gives a new optimizer what the old one keeps for each weight."""
    weights = [
        variables[id(weight)]
        for weight in weights_of(old)
        if id(weight) in variables
    ]
    if {id(v) for v in weights} == {id(v) for v in model.trainable_variables}:
        # In another order, maybe, which is the one that JAX goes by.
        weights = model.trainable_variables
    new.build(weights)
    kept = {
        (kind, id(variables[id(weight)])): cut(slot.value, weight, axes)
        for kind, slot, weight, axes in slots(old)
        if id(weight) in variables
    }
    lost, carried = [], set()
    for kind, slot, weight, _ in slots(new):
        slot.assign(kept[kind, id(weight)])
        carried.add(id(slot))
    apart = {id(slot) for _, slot, _, _ in slots(old)}
    counters = [v for v in old.variables if id(v) not in apart]
    others = [v for v in new.variables if id(v) not in carried]
    for old_variable, new_variable in zip(counters, others, strict=True):
        if old_variable.shape == new_variable.shape:
            new_variable.assign(cut(old_variable.value, old_variable))
        else:
            lost.append(old_variable.path)
    if lost:
        warnings.warn(
            f"The optimizer `{old.name}` keeps {quoted(lost)} in a way that "
            "keras-iss does not know: they start anew.",
            stacklevel=2,
        )
