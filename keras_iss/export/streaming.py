"""A model some time steps at a time, its states going in and out."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_iss._keras.layers import inner_layers
from keras_iss._keras.overrides import override
from keras_iss.export.differences import error_of
from keras_iss.export.fused_lstm import FusedError
from keras_iss.export.lowering import (
    LITERT,
    STEP,
    UNROLLED,
    UNROLLED_STEP,
    lower,
)
from keras_iss.export.model import own_message
from keras_iss.export.names import file_name, tensorflow_name, unique
from keras_iss.export.time_axes import StreamingError, without_fixed_time
from keras_iss.export.windows import windows_of, with_buffer


class Stepper:
    """Some time steps of a model as a function with explicit states.

    Args:
        function: The `Callable` of the model.
        batch_size: Number of samples in a call, or `None`.
        change_recurrent: See `lowering.Target`.
        frames: Integer, how many time steps of its inputs a call takes.
        unrolled: Whether each of them has operations of its own, with no
            loop.

    Attributes:
        function: The `Callable` of the model.
        frames: Integer, as above.
        timed: List of booleans: for each input, whether its axis 1 is time.
        shapes: Dict from the name of an output to its shape in a step.
        specs: List of `tf.TensorSpec`: the inputs, so many time steps long.
        state_names: List of the names of the states in the file.
        state_specs: List of `tf.TensorSpec` of the states.
        keeps_state: Whether a layer keeps its states itself.
    """

    def __init__(
        self,
        function,
        batch_size,
        change_recurrent=None,
        frames=1,
        unrolled=False,
    ):
        self.function = function
        self.frames = frames
        self.keeps_state = False
        self._batch_size = batch_size
        self._change_recurrent = change_recurrent or (lambda layer: None)
        self._targets = (
            (UNROLLED_STEP, UNROLLED) if unrolled else (STEP, LITERT)
        )
        self.timed = timed_inputs(function)
        _check_lengths(function, self.timed, frames)
        anew = begun_anew(function.model)
        self._windows = windows_of(
            function, self.timed, batch_size, frames, anew
        )
        for layer in self._over_time(function.model):
            reason = _reason(layer)
            if reason:
                raise StreamingError(
                    f"`{layer.name}` cannot stream: {reason}. Export with "
                    "streaming=False, or build the model without it."
                )
        self.specs = [
            x.spec(
                (batch_size, frames, *x.shape[2:])
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
                if isinstance(layer, keras.layers.RNN):
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
            graph = tf.function(run, autograph=False)
            outputs = graph.get_concrete_function(*self.specs)
            outputs = outputs.structured_outputs
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
                f"called on {_steps(self.frames)} ({own_message(error)})."
            ) from error
        self.shapes = {name: tuple(x.shape) for name, x in outputs.items()}
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
        """The function of a copy of the model that runs one step."""

        def with_states(layer):
            own = self._change_recurrent(layer)
            if own is not None:
                self.keeps_state = True
                return own
            return _with_states(layer, starting, ending)

        def change(model):
            without_fixed_time(model)
            over_time, whole = self._targets
            over_time = dataclasses.replace(
                over_time, change_recurrent=with_states
            )
            going_on = {id(layer) for layer in self._over_time(model)}
            lower(
                model,
                over_time,
                {
                    id(layer): whole
                    for layer in inner_layers(model)
                    if id(layer) not in going_on
                },
            )
            layers = inner_layers(model)
            for number, windows in self._windows.past.items():
                if any(windows):
                    own = with_buffer(layers[number], windows, starting, ending)
                    override(layers[number], "call", own)

        return self.function.of_copy(change)

    def _over_time(self, model):
        """The layers of a copy that go on in a step from the one before."""
        anew = begun_anew(model)
        layers = inner_layers(model)
        anew |= {id(layers[number]) for number in self._windows.anew}
        for layer in layers:
            both_ways = isinstance(layer, keras.layers.Bidirectional)
            inner = layer.forward_layer if both_ways else layer
            if id(layer) not in anew and id(inner) not in anew:
                yield layer

    def check(self, trials):
        """Raises an error if steps give another result than a sequence."""
        if self.keeps_state:
            # What keeps its states does so in the file alone.
            plain = Stepper(self.function, self._batch_size, None, self.frames)
            plain.check(trials)
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
            if not error_of([got], [value], False) <= _tolerance(value):
                raise StreamingError(
                    f"`{self.function.model.name}` cannot stream: its output "
                    f"`{name}`, step by step, is not that of the whole "
                    "sequence. It looks at several time steps at once by "
                    "something else than a causal convolution: an operation "
                    "or a layer of its own that shifts, sums or compares time "
                    "steps."
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

    def outputs_over_time(self):
        """List of the names of the outputs whose axis 1 is time."""
        lengths = [
            x.shape[1]
            for x, timed in zip(self.function.inputs, self.timed)
            if timed
        ]
        steps = None if None in lengths else lengths[0] // self.frames
        return [
            name
            for name, x in self.function.output_shapes(self._batch_size).items()
            if _is_over_time(x["shape"], self.shapes[name], steps)
        ]

    def steps_of(self, inputs):
        """The inputs of one step after the other, as lists.

        Time steps at the end that fill no step are left out.
        """
        n = self.frames
        count = max(x.shape[1] for x, timed in zip(inputs, self.timed) if timed)
        for t in range(0, count - n + 1, n):
            yield [
                x[:, t : t + n] if timed else x
                for x, timed in zip(inputs, self.timed)
            ]

    def whole_steps(self, arrays, argument):
        """Data of which each sequence is a number of steps.

        Args:
            arrays: List of arrays, one for each input.
            argument: Name of the argument, for messages.

        Returns:
            The same, without time steps at the end that fill no step.

        Raises:
            ValueError: if there is not a single step.
        """
        n, cut = self.frames, []
        for x, array, timed in zip(self.function.inputs, arrays, self.timed):
            if timed and array.shape[1] < n:
                raise ValueError(
                    f"`{argument}` has {_steps(array.shape[1])} at input "
                    f"`{x.name}`, and a call of `step` takes {n}: give longer "
                    "sequences."
                )
            end = array.shape[1] // n * n if timed else None
            cut.append(array[:, :end] if timed else array)
        return cut


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
    if len(first) > 1 and tuple(shape)[1:2] == (len(steps) * first[1],):
        return np.concatenate(steps, axis=1)
    # An output of the last time step only.
    return steps[-1]


def _is_over_time(whole, step, steps):
    """Whether axis 1 of an output is time, of a whole sequence and a step."""
    if len(whole) < 2 or whole[1] is None or steps is None:
        return len(whole) > 1 and whole[1] is None
    # Of a single step, a vector is taken for that of the last time step.
    return whole[1] == steps * step[1] and (steps > 1 or len(whole) > 2)


def _steps(count):
    return "a single time step" if count == 1 else f"{count} time steps"


def _tolerance(value):
    """How far steps may be from the whole: far less than time makes."""
    finite = value[np.isfinite(value)].astype("float64")
    if not finite.size:
        return 1e-3
    spread = finite.std() / max(1.0, np.abs(finite).max())
    return min(max(0.01 * spread, 2e-5), 1e-3)


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


def _check_lengths(function, timed, frames):
    fixed = {
        x.name: x.shape[1]
        for x, is_timed in zip(function.inputs, timed)
        if is_timed and x.shape[1] is not None
    }
    if len(set(fixed.values())) > 1:
        raise StreamingError(
            f"`{function.model.name}` cannot stream: its inputs have "
            f"different numbers of time steps, {fixed}. Leave that number "
            "open where there is one: keras.Input((None, features))."
        )
    for name, length in fixed.items():
        if length % frames:
            raise StreamingError(
                f"`{function.model.name}` cannot stream {_steps(frames)} at a "
                f"time: its input `{name}` has {length}, of which that is no "
                "divisor. Leave their number open: keras.Input((None, "
                "features))."
            )


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
