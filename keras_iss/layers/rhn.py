"""Recurrent Highway Networks.

An LSTM goes through one nonlinear layer from one time step to the next. A
Recurrent Highway Network goes through several, and each of their units has a
gate that decides how much of it goes on unchanged.

```python
tokens = keras.Input((None,), dtype="int32")
x = keras.layers.Embedding(10_000, 830)(tokens)
x = keras_iss.layers.RHN(830, depth=10, return_sequences=True)(x)
model = keras.Model(tokens, keras.layers.Dense(10_000)(x))
```
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_iss._keras.cells import DropoutRNNCell
from keras_iss.export import register_cell_lowering
from keras_iss.refit.places import Bias, Place
from keras_iss.refit.readers import StateReader, register_cell_reader
from keras_iss.tracing import (
    Traced,
    keeps_zero,
    pin_unless_elementwise,
    register_rule,
    run_over_time,
)


@keras.saving.register_keras_serializable(package="keras_iss")
class RHNCell(keras.layers.Layer, DropoutRNNCell):
    """One time step of a Recurrent Highway Network.

    From the state `s`, each of the `depth` micro-layers computes

        h = activation(W_h s + b_h)
        t = recurrent_activation(W_t s + b_t)
        s = (h - s) t + s

    and the first one reads the input `x` too, as `W_h [x; s]`. The last `s`
    is the output and the state. The carry gate is `1 - t`.

    Args:
        units: Positive integer, the size of the state.
        depth: Positive integer, the number of micro-layers in a time step.
        activation: Of `h`. Defaults to `"tanh"`.
        recurrent_activation: Of the transform gate `t`. Defaults to
            `"sigmoid"`.
        use_bias: Boolean.
        kernel_initializer: Of the weights of the input.
        recurrent_initializer: Of those of the state.
        bias_initializer: Of `b_h`.
        transform_bias_initializer: Of `b_t`. Defaults to the constant -2, so
            that the state at first mostly goes on unchanged.
        kernel_regularizer, recurrent_regularizer, bias_regularizer:
            Regularizers of the weights; that of the bias is for both biases.
        kernel_constraint, recurrent_constraint, bias_constraint: Constraints
            of the weights.
        dropout: Float between 0 and 1, of the input.
        recurrent_dropout: Float between 0 and 1, of the state that the
            micro-layers read. Both masks stay the same for all time steps
            and micro-layers ("variational"), and are shared by `h` and `t`.
        seed: Integer seed of the dropout.

    Call arguments:
        inputs: Tensor of shape `(batch, features)`.
        states: Tensor of shape `(batch, units)`, or a list of it.
        training: Boolean, whether to drop.

    Sources: equations 7 to 9 of [Zilly et al., 2017](
    https://arxiv.org/abs/1607.03474), with coupled gates; the dropout is that
    of [Gal & Ghahramani, 2016](https://arxiv.org/abs/1512.05287).
    """

    def __init__(
        self,
        units: int,
        depth: int = 10,
        activation: str | Callable = "tanh",
        recurrent_activation: str | Callable = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        transform_bias_initializer: Any = None,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in (("units", units), ("depth", depth)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer, not {value!r}."
                )
        for name, rate in (
            ("dropout", dropout),
            ("recurrent_dropout", recurrent_dropout),
        ):
            if not 0 <= rate < 1:
                raise ValueError(
                    f"`{name}` must be at least 0 and below 1, not {rate!r}."
                )
        super().__init__(**kwargs)
        self.units = units
        self.depth = depth
        self.activation = keras.activations.get(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.use_bias = use_bias
        if transform_bias_initializer is None:
            transform_bias_initializer = keras.initializers.Constant(-2.0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(
            recurrent_initializer
        )
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.transform_bias_initializer = keras.initializers.get(
            transform_bias_initializer
        )
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(
            recurrent_regularizer
        )
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.recurrent_constraint = keras.constraints.get(recurrent_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.state_size = units
        self.output_size = units

    def build(self, input_shape):
        """Makes the weights: the columns of `h`, then those of `t`."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], 2 * self.units),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernels = [
            self.add_weight(
                shape=(self.units, 2 * self.units),
                name=f"recurrent_kernel_{i}",
                initializer=self.recurrent_initializer,
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
            )
            for i in range(self.depth)
        ]
        self.biases, self.transform_biases = [], []
        if self.use_bias:
            self.biases = self._biases("bias", self.bias_initializer)
            self.transform_biases = self._biases(
                "transform_bias", self.transform_bias_initializer
            )
        self.built = True

    def _biases(self, name, initializer):
        return [
            self.add_weight(
                shape=(self.units,),
                name=f"{name}_{i}",
                initializer=initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
            for i in range(self.depth)
        ]

    def call(self, inputs, states, training=False):
        """The output and the new states."""
        nested = keras.tree.is_nested(states)
        state = keras.tree.flatten(states)[0]
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        mask = None
        if training and self.recurrent_dropout:
            mask = self.get_recurrent_dropout_mask(state)
        state = self.micro_layers(ops.matmul(inputs, self.kernel), state, mask)
        return state, [state] if nested else state

    def micro_layers(self, x, state, mask=None):
        """The state after all micro-layers, of the projected inputs."""
        return self.micro_layer_states(x, state, mask)[-1]

    def micro_layer_states(self, x, state, mask=None):
        """List of the state before each micro-layer, and after the last."""
        states = [state]
        for i, kernel in enumerate(self.recurrent_kernels):
            read = state if mask is None else state * mask
            both = ops.matmul(read, kernel)
            if i == 0:
                both = both + x
            if self.use_bias:
                both = both + ops.concatenate(
                    [self.biases[i], self.transform_biases[i]]
                )
            h, t = ops.split(both, 2, axis=-1)
            h = self.activation(h)
            t = self.recurrent_activation(t)
            state = (h - state) * t + state
            states.append(state)
        return states

    def get_initial_state(self, batch_size=None):
        """Zeros of shape `(batch_size, units)`, in a list."""
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype)]

    def get_config(self):
        """What the constructor takes."""
        serialized = {
            name: module.serialize(getattr(self, name))
            for names, module in _SERIALIZED
            for name in names
        }
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {**super().get_config(), **plain, **serialized}


_PLAIN = (
    "units",
    "depth",
    "use_bias",
    "dropout",
    "recurrent_dropout",
    "seed",
)
_SERIALIZED = (
    (("activation", "recurrent_activation"), keras.activations),
    (
        (
            "kernel_initializer",
            "recurrent_initializer",
            "bias_initializer",
            "transform_bias_initializer",
        ),
        keras.initializers,
    ),
    (
        ("kernel_regularizer", "recurrent_regularizer", "bias_regularizer"),
        keras.regularizers,
    ),
    (
        ("kernel_constraint", "recurrent_constraint", "bias_constraint"),
        keras.constraints,
    ),
)
_OF_THE_CELL = (*_PLAIN, *(name for names, _ in _SERIALIZED for name in names))


@keras.saving.register_keras_serializable(package="keras_iss")
class RHN(keras.layers.RNN):
    """Recurrent Highway Network: an `RHNCell`, run over time.

    Args:
        units: Positive integer, the size of the state.
        depth: Positive integer, the number of micro-layers in a time step.
        return_sequences: Boolean. This and `return_state`, `go_backwards`,
            `stateful`, `unroll` and `zero_output_for_mask` are as in
            `keras.layers.RNN`.
        **kwargs: The other arguments of `RHNCell`, and those of a layer.

    Call arguments:
        sequences: Tensor of shape `(batch, time, features)`.
        initial_state: List of a tensor of shape `(batch, units)`.
        mask: Boolean tensor of shape `(batch, time)`.
        training: Boolean, whether to drop.

    Example:
    ```python
    layer = keras_iss.layers.RHN(8, depth=3, return_sequences=True)
    layer(np.zeros((2, 5, 4))).shape  # (2, 5, 8)
    ```

    Source: [Zilly et al., 2017](https://arxiv.org/abs/1607.03474).
    """

    def __init__(
        self,
        units: int,
        depth: int = 10,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        of_the_cell = {
            name: kwargs.pop(name) for name in _OF_THE_CELL if name in kwargs
        }
        cell = RHNCell(
            units,
            depth,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="rhn_cell",
            **of_the_cell,
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        self.input_spec = keras.layers.InputSpec(ndim=3)

    @property
    def units(self):
        """The size of the state."""
        return self.cell.units

    @property
    def depth(self):
        """The number of micro-layers in a time step."""
        return self.cell.depth

    def get_config(self):
        """What the constructor takes."""
        config = super().get_config()
        del config["cell"]
        of_the_cell = self.cell.get_config()
        return {**config, **{name: of_the_cell[name] for name in _OF_THE_CELL}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The layer that a config describes."""
        return cls(**config)


@register_rule(RHNCell)
def rhn_cell(call, inputs, states, training=None):
    """The width is one structure: every micro-layer adds to the same state.

    A removed unit stays at zero if it starts there: what it adds is the
    activation of 0.
    """
    cell = call.operation
    nested = keras.tree.is_nested(states)
    (before,) = keras.tree.flatten(states)
    units = call.units(cell.units, "recurrent")
    state = call.tie(units, before.axis(-1))
    zero = before.axis(-1).zero & keeps_zero(cell.activation)
    columns = units.repeat(2)
    call.weight(cell.kernel, {0: inputs.axes[-1], 1: columns})
    for kernel in cell.recurrent_kernels:
        call.weight(kernel, {0: units, 1: columns})
    for bias in [*cell.biases, *cell.transform_biases]:
        call.bias(bias, {0: units})
    pin_unless_elementwise(
        call,
        units,
        activation=cell.activation,
        recurrent_activation=cell.recurrent_activation,
    )
    output = Traced.of(
        (inputs.shape[0], cell.units), {-1: state.with_zero(zero)}
    )
    return output, [output] if nested else output


@register_rule(RHN)
def rhn(call, sequences, initial_state=None, mask=None, training=None):
    """The cell has the layer's own entries for its config."""
    return run_over_time(call, sequences, initial_state)


@register_cell_lowering(RHNCell)
def lowered_rhn_cell(lowering, x):
    """The product with the inputs is taken for all time steps at once."""
    cell = lowering.layer

    def step(x, states):
        state = cell.micro_layers(x, states[0])
        return state, [state]

    return lowering.project(x, cell.kernel), step


@register_cell_reader(RHNCell)
def rhn_cell_reader(cell):
    """Every micro-layer reads the state that the one before it leaves."""

    def biases(i):
        if not cell.use_bias:
            return ()
        return Bias(cell.biases[i]), Bias(cell.transform_biases[i])

    states = tuple(
        Place(kernel, biases=biases(i), is_recurrent=True)
        for i, kernel in enumerate(cell.recurrent_kernels)
    )

    def read(steps, before):
        projected = ops.matmul(steps, cell.kernel)
        return list(zip(states, cell.micro_layer_states(projected, before)))

    return Place(cell.kernel, biases=biases(0)), StateReader(states, read)
