"""A model one time step at a time, its states going in and out."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_iss._keras.layers import inner_layers
from keras_iss._keras.overrides import take_any_shape
from keras_iss.export.differences import error_of
from keras_iss.export.fused_lstm import FusedError
from keras_iss.export.lowering import ONE_STEP, lower
from keras_iss.export.model import own_message
from keras_iss.export.names import file_name, tensorflow_name, unique


class StreamingError(ValueError):
    """A model that cannot be run one time step at a time."""


class Stepper:
    """One time step of a model as a function with explicit states.

    Attributes:
        function: The `Callable` of the model.
        specs: List of `tf.TensorSpec`: the inputs, one time step long.
        state_names: List of the names of the states in the file.
        state_specs: List of `tf.TensorSpec` of the states.
        keeps_state: Whether a layer keeps its states itself.
    """

    def __init__(self, function, batch_size, change_recurrent=None):
        self.function = function
        self.keeps_state = False
        self._change_recurrent = change_recurrent or (lambda layer: None)
        model = function.model
        for layer in inner_layers(model):
            reason = _reason(layer)
            if reason:
                raise StreamingError(
                    f"`{layer.name}` cannot stream: {reason}. Export with "
                    "streaming=False, or build the model without it."
                )
        self.timed = timed_inputs(function)
        self.specs = [
            x.spec(
                (batch_size, 1, *x.shape[2:])
                if timed
                else (batch_size, *x.shape[1:])
            )
            for x, timed in zip(function.inputs, self.timed)
        ]
        self.state_specs = []
        self._discover()

    def _discover(self):
        found = []

        def starting(layer, initial):
            state = initial()
            counts = [name for name, _ in found if name == layer.name]
            suffix = f"_{len(counts)}" if counts else ""
            leaves = keras.tree.flatten(state)
            for value in leaves:
                shape = value.shape
                _check_zero(layer)
                self.state_specs.append(
                    (layer.name, suffix, shape, value.dtype)
                )
            found.append((layer.name, state))
            return state

        def run(*tensors):
            step = self._stepping(starting, lambda layer, states: None)
            return step(tensors)

        try:
            tf.function(run, autograph=False).get_concrete_function(*self.specs)
        except StreamingError as error:
            raise StreamingError(own_message(error)) from None
        except FusedError:
            raise
        except NotImplementedError as error:
            raise StreamingError(
                f"`{self.function.model.name}` cannot stream: "
                f"{own_message(error)}."
            ) from error
        except Exception as error:
            raise StreamingError(
                f"`{self.function.model.name}` cannot stream: it cannot be "
                f"called on a single time step ({own_message(error)})."
            ) from error
        names = [
            f"{name}{suffix}_state_{_position(self.state_specs, i)}"
            for i, (name, suffix, _, _) in enumerate(self.state_specs)
        ]
        function = self.function
        taken = [x.name for x in function.inputs] + function.output_names
        count = len(taken)
        self.state_names = unique([*taken, *map(file_name, names)])[count:]
        taken = [x.key for x in function.inputs]
        count = len(taken)
        keys = unique([*taken, *map(tensorflow_name, names)])[count:]
        self.state_specs = [
            tf.TensorSpec(shape, dtype, name=key)
            for key, (_, _, shape, dtype) in zip(keys, self.state_specs)
        ]

    def __call__(self, *tensors):
        """Outputs and new states by name, of the inputs and the states."""
        inputs, states = (
            tensors[: len(self.specs)],
            list(tensors[len(self.specs) :]),
        )
        new_states = []

        def starting(layer, initial):
            structure = initial()
            count = len(keras.tree.flatten(structure))
            taken = [states.pop(0) for _ in range(count)]
            return keras.tree.pack_sequence_as(structure, taken)

        def ending(layer, states):
            new_states.extend(keras.tree.flatten(states))

        outputs = self._stepping(starting, ending)(inputs)
        return outputs | dict(zip(self.state_names, new_states))

    def _stepping(self, starting, ending):
        """The function of a copy of the model that runs one time step."""

        def change(model):
            whole = begun_anew(model)

            def with_states(layer):
                if id(layer) in whole:
                    return {}
                own = self._change_recurrent(layer)
                if own is not None:
                    self.keeps_state = True
                    return own
                return _with_states(layer, starting, ending)

            for layer in inner_layers(model):
                # The time axis may be fixed in it.
                take_any_shape(layer)
            lower(
                model,
                dataclasses.replace(ONE_STEP, change_recurrent=with_states),
            )

        return self.function.of_copy(change)

    def check(self, trials):
        """Raises an error if steps give another result than a sequence."""
        if self.keeps_state:
            return
        case = trials.short()
        inputs, whole = case.calls[0], case.expected[0]
        step = tf.function(self, autograph=False)
        states = self.zeros(len(inputs[0]))
        results = []
        for values in self.steps_of(inputs):
            result = step(*values, *states.values())
            states = {name: result[name] for name in states}
            results.append(result)
        for name, value in whole.items():
            parts = [np.asarray(result[name]) for result in results]
            got = joined(value.shape, parts)
            if not error_of([got], [value], False) <= 1e-3:
                raise StreamingError(
                    f"`{self.function.model.name}` cannot stream: its output "
                    f"`{name}`, step by step, is not that of the whole "
                    "sequence. A layer of it looks at several time steps at "
                    "once (a convolution, pooling or attention over time)."
                )

    def zeros(self, batch):
        """Dict of the states of the beginning by name, as arrays."""
        return {
            name: np.zeros([batch, *x.shape[1:]], x.dtype.as_numpy_dtype)
            for name, x in zip(self.state_names, self.state_specs)
        }

    def state_pairs(self):
        """Dict from the key of each state that goes in to its name outside."""
        keys = [spec.name for spec in self.state_specs]
        return dict(zip(keys, self.state_names))

    def steps_of(self, inputs):
        """The inputs of one time step after the other, as lists."""
        steps = max(x.shape[1] for x, timed in zip(inputs, self.timed) if timed)
        for t in range(steps):
            yield [
                x[:, t : t + 1] if timed else x
                for x, timed in zip(inputs, self.timed)
            ]


def begun_anew(model):
    """The ids of the layers inside that begin anew in every time step."""
    return {
        id(inner)
        for layer in inner_layers(model)
        if isinstance(layer, keras.layers.TimeDistributed)
        for inner in inner_layers(layer.layer)
    }


def joined(shape, steps):
    """The outputs of the steps as one, of the shape of the whole output."""
    first = steps[0].shape
    if len(first) > 1 and first[1] == 1 and tuple(shape)[1:2] == (len(steps),):
        return np.concatenate(steps, axis=1)
    # An output of the last time step only.
    return steps[-1]


def timed_inputs(function):
    """For each input of a `Callable`, whether its axis 1 is time."""
    inputs = function.inputs
    dynamic = [len(x.shape) > 1 and x.shape[1] is None for x in inputs]
    if any(dynamic):
        return dynamic
    timed = [
        len(x.shape) > 2
        or (len(x.shape) == 2 and not x.dtype.startswith(("float", "bfloat")))
        for x in inputs
    ]
    if not any(timed):
        raise StreamingError(
            f"`{function.model.name}` has no input with a time axis: there "
            "is nothing to stream. Export it with streaming=False."
        )
    return timed


def _reason(layer):
    if isinstance(layer, keras.layers.Bidirectional):
        return "its backward layer needs the whole sequence"
    if isinstance(layer, keras.layers.RNN) and layer.go_backwards:
        return "it goes backwards, from the end of the sequence"
    return None


def _check_zero(layer):
    with tf.init_scope():
        initial = keras.tree.flatten(type(layer).get_initial_state(layer, 1))
        if any(np.any(np.asarray(value)) for value in initial):
            raise StreamingError(
                f"`{layer.name}` cannot stream: its initial state is not "
                "zero, and a stream begins with states of zeros."
            )


def _with_states(layer, starting, ending):
    original_call, original_loop = layer.call, layer.inner_loop
    original_initial = layer.get_initial_state

    def call(sequences, initial_state=None, mask=None, training=False):
        if initial_state is not None:
            raise StreamingError(
                f"`{layer.name}` cannot stream: the model gives it an "
                "initial state, which every step would give it again."
            )
        return original_call(sequences, mask=mask, training=training)

    def get_initial_state(batch_size):
        return starting(layer, lambda: original_initial(batch_size))

    def recording_loop(sequences, initial_state, mask, training=False):
        last, outputs, states = original_loop(
            sequences, initial_state, mask, training
        )
        ending(layer, states)
        return last, outputs, states

    return {
        "call": call,
        "get_initial_state": get_initial_state,
        "inner_loop": recording_loop,
        "stateful": False,
    }


def _position(specs, i):
    return sum(spec[:2] == specs[i][:2] for spec in specs[:i])
