"""From the graph of one Keras to the same layers of another, and weights."""

import inspect
import typing

import keras
import numpy as np

from keras_iss._keras import tf_keras_graphs
from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import functional_of
from keras_iss.tracing.graph import graph_of

# Arguments that change no value: how a layer computes, or draws at random.
_OF_NO_VALUE = ("implementation", "seed", "input_length", "synchronized")

# The layer, and the names of an argument in Keras 3 and Keras 2.
_RENAMED = {"LeakyReLU": ("negative_slope", "alpha")}

# What they hold is in no weights.
_WITH_TABLES = (
    *("Discretization", "IntegerLookup", "StringLookup", "TextVectorization"),
    "Lambda",
)


class Conversion:
    """From one Keras, `old`, to another, `new`; both are modules."""

    def __init__(self, old, new):
        self._old = old
        self._new = new
        self._to_2 = old is keras
        self._name = "Keras 2" if self._to_2 else "Keras 3"
        # Layers that are shared stay so.
        self._layers = {}

    def model(self, model):
        if type(model) is self._old.Sequential:
            new = self._sequential(model)
        elif type(model) in self._functional_classes():
            new = self._functional(model)
        else:
            self._refuse(
                model,
                "is neither a Sequential nor a functional model",
                "Build it from layers with keras.Model(inputs, outputs)",
            )
        if not model.trainable:
            new.trainable = False
            for layer in model.layers:
                if id(layer) in self._layers:
                    _set_trainable(self._layers[id(layer)][1], layer)
        return new

    def _functional_classes(self):
        x = self._old.Input((1,))
        return type(self._old.Model(x, x)), self._old.Model

    def _sequential(self, model):
        if not model.built or not model.inputs:
            self._refuse(
                model, "has no inputs yet", "Begin it with keras.Input"
            )
        new = self._new.Sequential(
            [self._input(model.inputs[0])], name=model.name
        )
        for layer in model.layers:
            new.add(self._layer(layer))
        for layer in model.layers:
            self._copy_weights(layer)
        return new

    def _input(self, x):
        options = {
            "name": x.name.split(":")[0] if not self._to_2 else x.name,
            "dtype": _dtype_name(x.dtype),
            "batch_size": x.shape[0],
        }
        return self._new.Input(tuple(x.shape[1:]), **options)

    def _functional(self, model):
        nodes, inputs, outputs = (
            _graph_3(model) if self._to_2 else tf_keras_graphs.graph(model)
        )
        values = {}
        new_inputs = keras.tree.map_structure(self._input, inputs)
        for x, value in zip(
            keras.tree.flatten(inputs), keras.tree.flatten(new_inputs)
        ):
            values[id(x)] = value
        for operation, args, kwargs, made in nodes:
            if not isinstance(operation, self._old.layers.Layer) or (
                tf_keras_graphs.is_operation(operation)
            ):
                self._refuse(
                    operation,
                    "is an operation, not a layer",
                    "Write it as a layer, such as layers.Add or "
                    "layers.Rescaling",
                )
            layer = self._layer(operation)
            args, kwargs = self._arguments(operation, args, kwargs, values)
            result = layer(*args, **kwargs)
            for x, value in zip(
                keras.tree.flatten(made), keras.tree.flatten(result)
            ):
                values[id(x)] = value
            self._copy_weights(operation)
        new_outputs = keras.tree.map_structure(lambda x: values[id(x)], outputs)
        return self._new.Model(new_inputs, new_outputs, name=model.name)

    def _arguments(self, layer, args, kwargs, values):
        """The arguments of a call, of the tensors of the new graph."""
        kwargs = {k: v for k, v in kwargs.items() if v is not None}
        mask = kwargs.get("mask")
        if self._to_2 and mask is not None and id(mask) not in values:
            # Keras 2 hands it on by itself.
            del kwargs["mask"]
        kwargs.pop("training", None)
        rnn = (self._old.layers.RNN, self._old.layers.Bidirectional)
        if isinstance(layer, rnn) and isinstance(args[0], (list, tuple)):
            # Keras 2 has the states among the inputs.
            first, *states = args[0]
            args = (first, *args[1:])
            kwargs["initial_state"] = states
        if kwargs.get("constants") is not None:
            self._refuse(layer, "takes constants", "Leave them out")

        def value(x):
            if id(x) in values:
                return values[id(x)]
            if hasattr(x, "shape") and not isinstance(x, np.ndarray):
                self._refuse(
                    layer,
                    "reads a tensor that no layer of the model gives",
                    "Make it an input of the model",
                )
            return x

        return keras.tree.map_structure(value, (tuple(args), kwargs))

    # Layers.

    def _layer(self, layer):
        if id(layer) not in self._layers:
            if isinstance(layer, self._old.Model):
                new = self.model(layer)
            else:
                config = self._config(layer, type(layer), layer.get_config())
                cls = getattr(self._new.layers, type(layer).__name__)
                try:
                    new = cls.from_config(config)
                except Exception as error:
                    self._refuse(layer, message_of(error), "Change that option")
            self._layers[id(layer)] = layer, new
        return self._layers[id(layer)][1]

    def _config(self, layer, cls, config):
        name = cls.__name__
        other = getattr(self._new.layers, name, None)
        if getattr(self._old.layers, name, None) is not cls:
            self._refuse(
                layer,
                f"is a {cls.__module__}.{name}, no layer of Keras itself",
                "Strip wrappers of TF Model Optimization, and replace layers "
                "of your own with stock ones",
            )
        if other is None or name in _WITH_TABLES:
            self._refuse(
                layer,
                f"is a {name}, which cannot be carried over",
                f"Replace it with a layer that {self._name} has, or leave it "
                "out of the model",
            )
        config = dict(config)
        if name in _RENAMED:
            old, new = _RENAMED[name]
            old, new = (old, new) if self._to_2 else (new, old)
            config[new] = config.pop(old)
        config.pop("batch_input_shape", None)
        known, _ = _constructor(other)
        _, defaults = _constructor(cls)
        result = {}
        for key, value in config.items():
            if key in known:
                result[key] = self._value(layer, key, value)
            elif (
                key not in _OF_NO_VALUE
                and value != defaults.get(key)
                and value not in (None, False)
            ):
                self._refuse(
                    layer,
                    f"has {key}={value!r}, which {self._name} lacks",
                    f"Build it without `{key}`",
                )
        if name == "BatchNormalization" and isinstance(result["axis"], list):
            # Once built, Keras 2 has a list of one.
            (result["axis"],) = result["axis"]
        if name == "Bidirectional":
            for key, prefix in (("layer", "forward_"), ("backward_layer", "")):
                if result.get(key):
                    inner = result[key]["config"]
                    inner["name"] = inner["name"].removeprefix(prefix)
        return result

    def _value(self, layer, key, value):
        if key == "dtype":
            return self._policy(layer, value)
        if isinstance(value, (list, tuple)):
            return [self._value(layer, key, x) for x in value]
        if value == "hard_sigmoid":
            self._refuse(
                layer,
                f"has {key}='hard_sigmoid', another function in {self._name}",
                "Use 'sigmoid'",
            )
        if not isinstance(value, dict) or "class_name" not in value:
            return value
        name, config = value["class_name"], value.get("config")
        for module in ("initializers", "regularizers", "constraints"):
            old = getattr(getattr(self._old, module), name, None)
            if old is not None:
                new = getattr(getattr(self._new, module), name, None)
                if new is None:
                    break
                known, _ = _constructor(new)
                config = {k: v for k, v in config.items() if k in known}
                return {**_named(module, name), "config": config}
        old = getattr(self._old.layers, str(name), None)
        if old is not None and value.get("registered_name") is None:
            config = self._config(layer, old, config)
            return {**_named("layers", name), "config": config}
        self._refuse(
            layer,
            f"has {key}={name if name != 'function' else config!r}, which "
            f"{self._name} lacks",
            "Use one of Keras itself",
        )

    def _policy(self, layer, value):
        if isinstance(value, dict):
            value = value["config"].get("name", value["class_name"])
        if str(value).startswith(("int8", "int4", "float8", "gptq")):
            self._refuse(
                layer, f"is quantized ({value})", "Convert it before that"
            )
        return value

    def _copy_weights(self, layer):
        """After both layers are built."""
        if isinstance(layer, self._old.Model):
            return
        new = self._layers[id(layer)][1]
        old_weights, weights = layer.weights, new.weights
        found, wanted = (
            [(_last_name(v), tuple(v.shape)) for v in some]
            for some in (old_weights, weights)
        )
        if found != wanted:
            self._refuse(
                layer,
                f"has the weights {found}, and in {self._name} {wanted}",
                "Replace it with another layer",
            )
        new.set_weights(
            [keras.ops.convert_to_numpy(v) for v in old_weights]
            if self._to_2
            else layer.get_weights()
        )
        if hasattr(new, "finalize_state"):
            new.finalize_state()
        _set_trainable(new, layer)

    def _refuse(self, layer, found, step) -> typing.NoReturn:
        raise ValueError(
            f"`{layer.name}` ({type(layer).__name__}) {found}: it cannot "
            f"become a layer of {self._name}. {step}."
        )


def _graph_3(model):
    function = functional_of(model)
    graph = graph_of(function)
    of_masks = _makers_of_masks(graph)
    nodes = [
        (node.operation, node.args, dict(node.kwargs), node.outputs)
        for node in graph.nodes
        if not node.only_for_masks and id(node) not in of_masks
    ]
    return nodes, graph.inputs, graph.outputs


def _makers_of_masks(graph):
    """The `id`s of the operations that compute what Keras 2 finds by itself.

    In a model that was cloned or loaded, the masks of `Masking` and of
    `Embedding` are arguments like others.
    """
    masked = {
        id(x)
        for node in graph.nodes
        if isinstance(node.operation, keras.layers.Masking)
        or getattr(node.operation, "mask_zero", False)
        for x in node.data
    }
    found, masks = set(), set()
    for node in graph.nodes:
        kind, read = type(node.operation).__name__, set(map(id, node.data))
        if isinstance(node.operation, keras.layers.Layer):
            continue
        if (kind == "NotEqual" and read & masked) or (
            kind == "Any" and read <= masks
        ):
            found.add(id(node))
            masks.update(map(id, node.outputs))
    return found


def _set_trainable(new, old):
    if new.trainable != old.trainable:
        new.trainable = old.trainable


def _named(module, name):
    return {
        "module": f"keras.{module}",
        "class_name": name,
        "registered_name": None,
    }


def _last_name(variable):
    return variable.name.split("/")[-1].split(":")[0]


def _dtype_name(dtype):
    return dtype if isinstance(dtype, str) else dtype.name


def _constructor(cls):
    """The arguments that a class takes, and the defaults of them."""
    names, defaults = {"name", "trainable", "dtype"}, {}
    for parent in reversed(cls.__mro__):
        if "__init__" not in vars(parent):
            continue
        try:
            parameters = inspect.signature(parent.__init__).parameters
        except ValueError:
            continue
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            # It hands nothing on to its parents.
            names = {"name", "trainable", "dtype"} & set(parameters)
        for parameter in parameters.values():
            names.add(parameter.name)
            defaults[parameter.name] = parameter.default
    return names, defaults
