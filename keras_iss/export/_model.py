"""What an export needs to know of a Keras model."""

import copy
import dataclasses
import inspect
import keyword
import re

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional

from keras_iss._keras.copies import copy_sharing_variables
from keras_iss._keras.layers import inner_layers
from keras_iss._keras.scopes import set_scope_name


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        given: The name that Keras gives it.
        name: Its name in a TFLite file.
        key: Its name in a SavedModel, and inside TensorFlow.
        shape: Tuple of the sizes, `None` where it is dynamic.
        dtype: Name of the dtype.
    """

    given: str
    name: str
    key: str
    shape: tuple
    dtype: str

    def spec(self, shape=None):
        """The `tf.TensorSpec`, of its own shape or another."""
        shape = self.shape if shape is None else shape
        return tf.TensorSpec(shape, self.dtype, name=self.key)


def isolated(model, own=()):
    """A copy of a model that an export can change and call.

    It shares the weights. Its stateful layers have states of their own,
    which are zero.

    Args:
        model: A built `keras.Model`.
        own: Variables of the model of which the copy has its own, too, with
            the values of now.
    """
    # TensorFlow saves no variable whose name it does not take.
    unnameable = [x for x in model.variables if scope_name(x.path) != x.path]
    replaced = {
        id(variable): _variable_like(variable, np.array(variable))
        for variable in [*own, *unnameable]
    }
    for state in states_of(model):
        replaced[id(state)] = _variable_like(state, np.zeros(state.shape))
    copied = copy_sharing_variables(model, replaced, _python_function)
    for layer in inner_layers(copied):
        if scope_name(layer.name) != layer.name:
            set_scope_name(layer, scope_name(layer.name))
    return copied


def scope_name(name):
    """The name of a layer's operations, where TensorFlow sets limits."""
    name = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"


def _variable_like(variable, value):
    return keras.Variable(
        value,
        dtype=variable.dtype,
        trainable=False,
        autocast=False,
    )


def _python_function(x):
    # A graph of its own would hold on to the layers that were copied.
    graph = isinstance(x, tf.types.experimental.PolymorphicFunction)
    return x.python_function if graph else None


def states_of(model):
    """List of the variables that stateful layers keep."""
    return [
        state
        for layer in inner_layers(model)
        if isinstance(layer, keras.layers.RNN) and layer.stateful
        for state in keras.tree.flatten(layer.states)
    ]


class Callable:
    """A built model as a function from a list to a dict of tensors.

    Attributes:
        model: The `keras.Model`; not the user's, but a copy, see `isolated`.
        inputs: List of `Input`.
        output_names: List of the names of the outputs.
    """

    def __init__(self, model):
        self.model = model
        self._functional = _functional(model)
        self._structure, self.inputs = _inputs_of(model)
        self.output_names = self._output_names()

    def _output_names(self):
        names = None
        structure = getattr(self._functional, "_outputs_struct", None)
        if structure is not None and not isinstance(structure, dict):
            names = list(self._functional.output_names)
        count = len(keras.tree.flatten(structure))
        if names is None or len(names) != count:
            outputs = self._raw(
                [
                    keras.KerasTensor(x.shape, x.dtype, name=x.key)
                    for x in self.inputs
                ]
            )
            if isinstance(outputs, dict):
                names = [
                    f"{key}_{i}" if i else key
                    for key in sorted(outputs)
                    for i in range(len(keras.tree.flatten(outputs[key])))
                ]
            else:
                count = len(keras.tree.flatten(outputs))
                names = (
                    ["output"]
                    if count == 1
                    else [f"output_{i}" for i in range(count)]
                )
        return unique(names)

    def _raw(self, tensors):
        if self._functional is None:
            args = keras.tree.pack_sequence_as(self._structure, tensors)
            if self.model._call_has_training_arg:
                args["training"] = False
            return self.model(**args)
        structure = keras.tree.pack_sequence_as(self._structure, tensors)
        return self.model(structure, training=False)

    @property
    def variables(self):
        """List of the `tf.Variable`s that a call may read."""
        return [v.value for v in [*self.model.variables, *self.states]]

    @property
    def states(self):
        """List of the variables that stateful layers keep."""
        return states_of(self.model)

    def of_copy(self, change):
        """The same of a copy of the model, with the same states.

        Args:
            change: Function that changes the copy in place.
        """
        new = copy.copy(self)
        new.model = copy_sharing_variables(
            self.model, unwrapped=_python_function
        )
        new._functional = _functional(new.model)
        change(new.model)
        return new

    def output_shapes(self, batch_size):
        """Dict from the name of an output to its shape and dtype."""
        inputs = [
            keras.KerasTensor((batch_size, *x.shape[1:]), x.dtype)
            for x in self.inputs
        ]
        outputs = keras.tree.flatten(self._raw(inputs))
        return {
            name: {"shape": list(x.shape), "dtype": str(x.dtype)}
            for name, x in zip(self.output_names, outputs)
        }

    def __call__(self, tensors):
        """Outputs by name, of a list of tensors in the order of `inputs`."""
        outputs = keras.tree.flatten(self._raw(list(tensors)))
        return dict(zip(self.output_names, outputs))


def _inputs_of(model):
    """The structure of a model's inputs, and a list of `Input`."""
    functional = _functional(model)
    if functional is None:
        structure, found = _recorded_inputs(model)
    else:
        structure = functional._inputs_struct
        found = [
            (x.name, tuple(x.shape), keras.backend.standardize_dtype(x.dtype))
            for x in keras.tree.flatten(structure)
        ]
    given = [name for name, _, _ in found]
    return structure, [
        Input(*names, shape, dtype)
        for *names, (_, shape, dtype) in zip(
            given,
            unique(map(file_name, given)),
            unique(map(tensorflow_name, given)),
            found,
        )
    ]


def _functional(model):
    if isinstance(model, Functional):
        return model
    if isinstance(model, keras.Sequential):
        return model._functional
    return None


def _recorded_inputs(model):
    """Inputs of a subclassed model, as it was built with."""
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        return None, []
    structure, inputs = {}, []
    for name, value in shapes.items():
        name = name.removesuffix("_shape")
        if name == "input":
            name = next(iter(inspect.signature(model.call).parameters))
        structure[name] = _leaves(value, name, inputs, model.input_dtype)
    return structure, inputs


def _leaves(value, name, inputs, dtype):
    if isinstance(value, dict):
        return {
            key: _leaves(value[key], f"{name}_{key}", inputs, dtype)
            for key in sorted(value)
        }
    if all(isinstance(size, (int, type(None))) for size in value):
        inputs.append((name, (None, *value[1:]), dtype))
        return 0
    return [
        _leaves(part, f"{name}_{i}", inputs, dtype)
        for i, part in enumerate(value)
    ]


def file_name(name):
    """The name of an input in a TFLite file.

    The name that Keras gives it, with `_` for what is neither a letter nor a
    digit, a dot or `_`. `self` and what begins with a digit have `input_`
    before them.
    """
    name = "".join(c if c.isalnum() or c in "_." else "_" for c in name)
    if not name or name[0].isdigit() or name == "self":
        return f"input_{name}"
    return name


def tensorflow_name(name):
    """The name of an input in a SavedModel, where TensorFlow sets limits.

    The name that Keras gives it, with `_` for all but ASCII letters, digits
    and `_`. `self`, the keywords of Python and what does not begin with a
    letter have `input_` before them; a name without a letter or digit left
    is `input`.
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if not name.strip("_"):
        return "input"
    if name == "self" or keyword.iskeyword(name) or not name[0].isalpha():
        return f"input_{name}"
    return name


def unique(names):
    """A list of the names, with a number behind those that are not new."""
    seen, unique = set(), []
    for name in names:
        new, count = name, 0
        while new in seen:
            count += 1
            new = f"{name}_{count}"
        seen.add(new)
        unique.append(new)
    return unique


def check(model):
    """Raises an error that says why the model cannot be exported.

    Raises:
        TypeError: if it is no `keras.Model`.
        ValueError: if it is not built, reads strings, or a weight is not
            finite.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"An export takes a keras.Model, not {type(model).__name__}."
        )
    if not model.built or (
        _functional(model) is None and not _recorded_inputs(model)[1]
    ):
        raise ValueError(
            f"`{model.name}` has not been built: call the model on data, or "
            "give it an Input, before exporting it."
        )
    _check_arguments(model)
    for x in _inputs_of(model)[1]:
        if x.dtype == "string":
            raise ValueError(
                f"Input `{x.name}` of `{model.name}` is of dtype string. "
                "Look the strings up before the model (with "
                "`keras.layers.StringLookup` in the data pipeline) and "
                "export a model that reads the integers."
            )
    for layer in inner_layers(model):
        for variable in (
            layer._trainable_variables + layer._non_trainable_variables
        ):
            value = keras.ops.convert_to_numpy(variable)
            if value.dtype.kind != "f" and value.dtype.kind != "V":
                continue
            if not np.isfinite(value.astype("float32")).all():
                raise ValueError(
                    f"Weight `{variable.path}` of layer `{layer.name}` holds "
                    "NaN or infinity: the model's outputs would be no "
                    "numbers. Restore weights from before training diverged."
                )


def check_not_quantized(model):
    """Raises an error if Keras has quantized the model already."""
    for layer in inner_layers(model):
        policy = layer.dtype_policy
        mode = getattr(policy, "quantization_mode", None)
        if mode is not None:
            raise ValueError(
                f"`{layer.name}` of `{model.name}` is quantized by Keras "
                f"({mode}), and a TFLite file has its own quantization. Export "
                f"the model of before `quantize({mode!r})`, with "
                'quantize="int8", "int8_full" or "float16".'
            )


def _check_arguments(model):
    """Of a subclassed model, Keras records the first argument alone."""
    if _functional(model) is not None:
        return
    parameters = list(inspect.signature(model.call).parameters.values())
    others = [
        x.name
        for x in parameters[1:]
        if x.default is x.empty
        and x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)
        and x.name not in ("training", "mask")
    ]
    if others:
        raise ValueError(
            f"`{model.name}` is called with more than one argument "
            f"({parameters[0].name}, {', '.join(others)}), and Keras keeps "
            "the shape of the first alone. Let it take one dict of inputs, or "
            "build it with keras.Model(inputs, outputs)."
        )


def own_message(error):
    """The message of an error without what Keras puts around it."""
    text = str(error)
    if "\x1b[1m" in text:
        text = text.rsplit("\x1b[1m", 1)[1].split("\x1b[0m")[0]
    return text


def compute_in_float32(model):
    """Has the layers of a copy that compute in half precision not do so."""
    for layer in inner_layers(model):
        policy = layer.dtype_policy
        if policy.compute_dtype in ("float16", "bfloat16"):
            set_attribute(layer, "_dtype_policy", keras.DTypePolicy("float32"))


def set_attribute(layer, name, value):
    """Sets an attribute of a copied layer."""
    # In the instance's own dictionary: Keras' tracking sees nothing of it.
    layer.__dict__[name] = value


def assigned(model, graph):
    """The variables of a model that a graph of it may change.

    Args:
        model: The `keras.Model`.
        graph: The `tf.Graph` of a call.

    Returns:
        List of Keras variables: none, or all that are not trained.
    """
    definition = graph.as_graph_def()
    nodes = list(definition.node)
    for part in definition.library.function:
        nodes += part.node_def
    if not any(x.op.startswith(("Assign", "ResourceScatter")) for x in nodes):
        return []
    return [x for x in model.variables if not x.trainable]


def reset_function(function):
    """The signature `reset`: it sets the states of stateful layers to zero."""

    def reset():
        for state in function.states:
            state.value.assign(tf.zeros_like(state.value))
        return {"done": tf.constant(True)}

    return tf.function(reset, autograph=False).get_concrete_function()
