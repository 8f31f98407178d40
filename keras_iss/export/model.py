"""What an export needs to know of a Keras model."""

import copy
import dataclasses
import inspect

import keras
import numpy as np

from keras_iss._keras.copies import copy_sharing_variables
from keras_iss._keras.graphs import (
    functional_of,
    inputs_as_given,
    outputs_as_given,
)
from keras_iss._keras.layers import (
    build_shapes,
    inner_layers,
    takes_training,
)
from keras_iss._keras.overrides import compute_in, override
from keras_iss._keras.scopes import set_scope_name
from keras_iss.export.names import (
    file_name,
    scope_name,
    tensorflow_name,
    unique,
)
from keras_iss.export.signature import inputs_from


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
        import tensorflow as tf

        shape = self.shape if shape is None else shape
        return tf.TensorSpec(shape, self.dtype, name=self.key)


_GIVEN = "_inputs_given"


def with_inputs(model, signature):
    """The `Callable` of a copied model that reads what a user says.

    Args:
        model: What `isolated` gives, which is changed.
        signature: What `signature.normalized` gives, or `None` for what Keras
            knows of it.

    Raises:
        ValueError: if it cannot be called on that.
    """
    if signature is None:
        return Callable(model)
    override(model, _GIVEN, inputs_from(model, signature))
    try:
        return Callable(model)
    except Exception as error:
        message = own_message(error).rsplit("Error encountered:", 1)[-1]
        raise ValueError(
            f"`{model.name}` cannot be called on what `input_signature` says: "
            f"{message.strip()[:500]}"
        ) from error


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
        id(variable): _variable_like(
            variable, keras.ops.convert_to_numpy(variable)
        )
        for variable in [*own, *unnameable]
    }
    for state in states_of(model):
        replaced[id(state)] = _variable_like(state, np.zeros(state.shape))
    copied = copy_sharing_variables(model, replaced, _python_function)
    for layer in inner_layers(copied):
        if scope_name(layer.name) != layer.name:
            set_scope_name(layer, scope_name(layer.name))
    return copied


def _variable_like(variable, value):
    return keras.Variable(
        value,
        dtype=variable.dtype,
        trainable=False,
        autocast=False,
    )


def _python_function(x):
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

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
        self._structure, self.inputs = inputs_of(model)
        self.output_names = self._output_names()

    @property
    def _functional(self):
        return functional_of(self.model)

    def _output_names(self):
        names = None
        structure = None
        if self._functional is not None:
            structure = outputs_as_given(self._functional)
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

    def nested(self, tensors):
        """Inputs as the model takes them, of a list in their order."""
        return keras.tree.pack_sequence_as(self._structure, tensors)

    def _raw(self, tensors):
        if self._functional is None:
            args = self.nested(tensors)
            if takes_training(self.model):
                args["training"] = False
            return self.model(**args)
        return self.model(self.nested(tensors), training=False)

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


def inputs_of(model):
    """What a model reads.

    Returns:
        Tuple of its inputs nested as the model takes them, and a list of
        `Input`, which is empty where Keras knows of none.
    """
    functional = functional_of(model)
    if _GIVEN in vars(model):
        structure, found = vars(model)[_GIVEN]
    elif functional is None:
        structure, found = _recorded_inputs(model)
    else:
        structure = inputs_as_given(functional)
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


def _recorded_inputs(model):
    """Inputs of a subclassed model, as it was built with."""
    shapes = build_shapes(model)
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
            compute_in(layer, "float32")


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
    import tensorflow as tf

    def reset():
        for state in function.states:
            state.value.assign(tf.zeros_like(state.value))
        return {"done": tf.constant(True)}

    return tf.function(reset, autograph=False).get_concrete_function()
