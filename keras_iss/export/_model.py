"""What an export needs to know of a Keras model."""

import contextlib
import dataclasses
import inspect

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional

from keras_iss.export._recurrent import replace


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        name: The name that Keras gives it.
        shape: Tuple of the sizes, `None` where it is dynamic.
        dtype: Name of the dtype.
    """

    name: str
    shape: tuple
    dtype: str

    def spec(self, shape=None):
        """The `tf.TensorSpec`, of its own shape or another."""
        shape = self.shape if shape is None else shape
        return tf.TensorSpec(shape, self.dtype, name=self.name)


class Callable:
    """A built model as a function from a list to a dict of tensors.

    Attributes:
        model: The `keras.Model`.
        inputs: List of `Input`.
        output_names: List of the names of the outputs.
    """

    def __init__(self, model):
        self.model = model
        self._functional = _functional(model)
        if self._functional is not None:
            tensors = keras.tree.flatten(self._functional._inputs_struct)
            self._structure = self._functional._inputs_struct
            inputs = [
                (
                    x.name,
                    tuple(x.shape),
                    keras.backend.standardize_dtype(x.dtype),
                )
                for x in tensors
            ]
        else:
            self._structure, inputs = _recorded_inputs(model)
        names = _unique(_identifier(name) for name, _, _ in inputs)
        self.inputs = [
            Input(name, shape, dtype)
            for name, (_, shape, dtype) in zip(names, inputs)
        ]
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
                    keras.KerasTensor(x.shape, x.dtype, name=x.name)
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
        return _unique(names)

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
        return [
            state
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.RNN) and layer.stateful
            for state in keras.tree.flatten(layer.states)
        ]

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

    def fresh(self, tensors):
        """As a call, but stateful layers keep the states they had."""
        before = [np.array(state) for state in self.states]
        try:
            outputs = self(tensors)
        finally:
            for state, value in zip(self.states, before):
                state.assign(value)
        return {name: np.asarray(x) for name, x in outputs.items()}

    def __call__(self, tensors):
        """Outputs by name, of a list of tensors in the order of `inputs`."""
        outputs = keras.tree.flatten(self._raw(list(tensors)))
        return dict(zip(self.output_names, outputs))


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


def _identifier(name):
    name = "".join(c if c.isalnum() or c in "_." else "_" for c in name)
    return name if name and not name[0].isdigit() else f"input_{name}"


def _unique(names):
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
    for x in Callable(model).inputs:
        if x.dtype == "string":
            raise ValueError(
                f"Input `{x.name}` of `{model.name}` is of dtype string. "
                "Look the strings up before the model (with "
                "`keras.layers.StringLookup` in the data pipeline) and "
                "export a model that reads the integers."
            )
    for layer in model._flatten_layers():
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


@contextlib.contextmanager
def float32(model):
    """Layers that compute in half precision compute in float32 inside."""
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            policy = layer.dtype_policy
            if policy.compute_dtype in ("float16", "bfloat16") and not (
                getattr(policy, "quantization_mode", None)
            ):
                replace(
                    stack, layer, "_dtype_policy", keras.DTypePolicy("float32")
                )
        yield


@contextlib.contextmanager
def zero_states(model):
    """Stateful layers begin with states of zeros inside."""
    states = Callable(model).states
    before = [np.array(state) for state in states]
    try:
        for state in states:
            state.assign(np.zeros(state.shape))
        yield
    finally:
        for state, value in zip(states, before):
            state.assign(value)


def reset_function(function):
    """The signature `reset`: it sets the states of stateful layers to zero."""

    def reset():
        for state in function.states:
            state.value.assign(tf.zeros_like(state.value))
        return {"done": tf.constant(True)}

    return tf.function(reset, autograph=False).get_concrete_function()
