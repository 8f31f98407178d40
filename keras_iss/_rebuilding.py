"""Building the smaller model: new layers from edited configs, cut weights.

The result is made of the layer classes of the original. Configs change only
where the tracing rules said that an entry is the size of an axis.
"""

import collections
import tempfile
import warnings

import keras
import numpy as np
from keras.src.backend import set_keras_mask
from keras.src.models.functional import functional_like_constructor
from keras.src.saving.serialization_lib import SafeModeScope

from keras_iss._optimizer_state import carry_exclusions, like, slots
from keras_iss._scopes import distribution_scope, known_objects
from keras_iss.regularizers import STRENGTH
from keras_iss.structures import quoted
from keras_iss.tracing.graph import found_mask


def rebuild(found, alive, zero):
    """Builds a model without the components that are not alive.

    Args:
        found: `Found` of the model.
        alive: Boolean array: which components stay, numbered as in `found`.
        zero: Boolean array: which of them are to be zero.

    Returns:
        Pair of a new model, with the weights that stay, compiled like the old
        one, and a dict from the `id` of an old variable to the new one.
    """
    old = found.trace.root
    # What is read here was made here: a `Lambda` need not be trusted anew.
    trusted = SafeModeScope(safe_mode=False)
    with distribution_scope(old), known_objects(old), trusted:
        builder = _Builder(found, alive, zero)
        new = builder.model(old)
        builder.carry_weights()
        _warn_of_losses(old, new, builder.variables)
        _compile(old, new, builder.variables, builder.cut)
    return new, builder.variables


class _Builder:
    """Makes a new object for every operation of a model, once.

    Attributes:
        variables: Dict from the `id` of an old variable to the new one.
    """

    def __init__(self, found, alive, zero):
        self._found = found
        self._trace = found.trace
        self._alive = alive
        self._zero = zero
        self._made = {}
        self._pairs = []
        self.variables = {}
        self._settings = collections.defaultdict(list)
        for setting in self._trace.settings:
            self._settings[id(setting.operation)].append(setting)
        self._children = collections.defaultdict(dict)
        for child in self._trace.children:
            self._children[id(child.parent)][child.path] = child.layer
        self._kept = collections.defaultdict(dict)
        self._silent = collections.defaultdict(dict)
        for use in self._trace.uses.values():
            stays = self._stays(use.labels)
            if not stays.all():
                kept = np.flatnonzero(stays)
                self._kept[id(use.variable)][use.axis] = kept
            components = self._found.components_of(use.labels)[stays]
            silent = (components >= 0) & zero[components]
            if silent.any() and use.role != "statistic":
                self._silent[id(use.variable)][use.axis] = silent

    def _stays(self, labels):
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
            new = self._layer(old)
            self._pairs.append((old, new))
            return new
        return _operation_like(old, self._config(old))

    def _config(self, old):
        """The config of an operation, edited."""
        try:
            config = _unbuilt(old.get_config())
        except NotImplementedError:
            if self._settings[id(old)] or getattr(old, "variables", None):
                raise
            return None
        for setting in self._settings[id(old)]:
            value = setting.value
            if setting.labels is not None:
                value = int(self._stays(setting.labels).sum())
            config = _with(config, setting.path, value)
        for path, child in self._children[id(old)].items():
            # Only a draft: what holds it makes its own from the config.
            drafts = _Builder(self._found, self._alive, self._zero)
            draft = drafts.operation(child)
            entry = keras.saving.serialize_keras_object(draft)
            config = _with(config, path, entry)
        return config

    def _layer(self, old):
        try:
            new = _operation_like(old, self._config(old))
        except Exception as error:
            raise ValueError(
                f"`{old.name}` ({type(old).__name__}) cannot be made anew "
                f"from its config: {error}. Its class needs a `get_config` "
                "that its constructor takes back."
            ) from error
        if hasattr(old, "use_cudnn"):
            # Keras does not keep it in the config.
            new.use_cudnn = old.use_cudnn
        if any(id(variable) in self._kept for variable in old.variables):
            _drop_initializers_of_one_shape(new)
        self._share(old, new)
        return new

    def _share(self, old, new):
        """Lets a layer hold what others hold too, or call by itself."""
        for name, inner in _held(old).items():
            if id(inner) in self._made:
                new._tracker.untrack(getattr(new, name))
                setattr(new, name, self._made[id(inner)][0])
            elif hasattr(new, name):
                self._made[id(inner)] = (getattr(new, name), inner)

    # Models.

    def model(self, old):
        """The new model for a model whose graph is known."""
        if type(old).call is keras.Sequential.call and not any(
            self._is_expanded(layer) for layer in old.layers
        ):
            return self._sequential(old)
        graph = self._trace.graph(old)
        inputs = keras.tree.map_structure(
            lambda x: self._input(x._keras_history.operation), graph.inputs
        )
        outputs = graph.run(keras.tree.flatten(inputs), self._call)
        if not isinstance(old, keras.Model):
            return keras.Function(inputs, outputs, name=old.name)
        new = _model_like(old, inputs, outputs)
        if type(new) is type(old):
            self._assign(old, _own_variables(old), _own_variables(new))
        return new

    def _sequential(self, old):
        layers = [
            self._input(layer)
            if isinstance(layer, keras.layers.InputLayer)
            else self.operation(layer)
            for layer in old._layers
        ]
        cls = type(old)
        if cls.__init__ is not keras.Sequential.__init__:
            cls = keras.Sequential
        new = cls(layers, name=old.name, trainable=old.trainable)
        new.dtype_policy = old.dtype_policy
        return new

    def _input(self, layer):
        return type(layer).from_config(self._config(layer)).output

    def _call(self, node, args, kwargs):
        args, kwargs = keras.tree.map_structure(
            self._new_variable, (args, kwargs)
        )
        if self._is_expanded(node.operation):
            return self._call_expanded(node.operation, *args, **kwargs)
        return self.operation(node.operation)(*args, **kwargs)

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
        return type(old) is keras.layers.Bidirectional and (
            old.merge_mode in (None, "concat")
            and self._units(old.forward_layer)
            != self._units(old.backward_layer)
        )

    def _units(self, layer):
        """How many units of a recurrent layer stay."""
        sizes = [one.labels for one in self._settings[id(layer)]]
        if sizes:
            # Of stacked cells, the last one gives the output.
            return int(self._stays(sizes[-1]).sum())
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
        if mask is None and old.return_sequences:
            mask = found_mask(sequences)
        if mask is not None:
            tensors.append(mask)
        block = self._block(old, tensors, mask is not None, training)
        outputs = block(tensors if len(tensors) > 1 else sequences)
        if mask is None or not old.return_sequences:
            return outputs
        outputs = keras.tree.flatten(outputs)
        for x in outputs[: 1 if old.merge_mode else 2]:
            set_keras_mask(x, mask)
        return outputs

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
        self._made[id(old)] = (block, old)
        return block

    # Weights.

    def carry_weights(self):
        """Gives the new layers the weights of the old ones that stay."""
        for old, new in self._pairs:
            self._carry(old, new)
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
            self.variables[id(old)] = new


def _own_variables(model):
    """The variables of a model that belong to none of its layers."""
    return [*model._trainable_variables, *model._non_trainable_variables]


def _held(layer):
    """Dict from the name of an attribute to the layer that it is."""
    # PyTorch modules keep what they hold apart.
    held = {**vars(layer), **vars(layer).get("_modules", {})}
    return {
        name: value
        for name, value in held.items()
        if isinstance(value, keras.layers.Layer)
    }


def _drop_initializers_of_one_shape(layer):
    """Puts zeros in place of initializers that only make the old shape."""
    for one in layer._flatten_layers():
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


def carried_states(layer):
    """What a stateful layer carries on, which is no variable of a model."""
    return keras.tree.flatten(getattr(layer, "states", None) or [])


def _unbuilt(config):
    """A config whose inner layers are built when they are called.

    Else they are built at once, for the inputs that the old ones had.
    """
    if isinstance(config, dict):
        return {
            key: _unbuilt(value)
            for key, value in config.items()
            if key != "build_config"
        }
    if isinstance(config, (list, tuple)):
        return type(config)(map(_unbuilt, config))
    return config


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


def _operation_like(old, config):
    """A new operation from a config, or a copy of one without any state."""
    stateless = not getattr(old, "variables", None)
    if config is not None:
        try:
            return type(old).from_config(config)
        except Exception:
            # A `Lambda`, say, is only made anew from a trusted file.
            if not stateless:
                raise
    new = object.__new__(type(old))
    vars(new).update(vars(old))
    vars(new).update(_inbound_nodes=[], _outbound_nodes=[])
    return new


def _no_mask(inputs, previous_mask=None):
    return None


def _with_mask(x, mask, name):
    """The same tensor, with a mask.

    Only a model can be told the mask of its input.
    """
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    outputs = keras.layers.Identity(dtype=x.dtype)(inputs)
    model = keras.Model(inputs, outputs, name=name)
    model.supports_masking = True
    return model(x, mask=mask)


def keeps_class(model):
    """Whether a smaller model is of the same class, with its methods."""
    return isinstance(model, keras.Function) and functional_like_constructor(
        type(model)
    )


def _model_like(old, inputs, outputs):
    """A model of the same class if it is made of inputs and outputs."""
    if keeps_class(old):
        new = type(old)(inputs, outputs, name=old.name)
    else:
        new = keras.Model(inputs, outputs, name=old.name)
    new._trainable = old.trainable
    new.dtype_policy = old.dtype_policy
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
    if type(new) is not type(old) and not isinstance(old, keras.Sequential):
        warnings.warn(
            f"`{old.name}` is a `{type(old).__name__}`. The smaller model is a "
            "Functional one of the same layers: it has no methods of that "
            "class, such as a `train_step` of its own.",
            stacklevel=4,
        )


def _compile(old, new, variables, cut):
    """Compiles the new model like the old one, with its optimizer's state."""
    if not old.compiled:
        return
    if type(new).compile is keras.Model.compile:
        arguments = dict(old._compile_config.config)
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
        return type(value).from_config(value.get_config())
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
        for weight in old._trainable_variables
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
