"""Classes and functions of one's own, for random graphs.

A script that repeats a failure contains the definitions of this file that it
uses, so that each of them stands by itself: it names only the modules that
are imported here and other definitions of this file.
"""

import keras
import numpy as np
from keras import layers, ops

import keras_iss

# Functions.


def doubled(x):
    """Zero at zero."""
    return ops.tanh(2.0 * x)


def shifted(x):
    """Not zero at zero."""
    return ops.tanh(x + 0.5)


def over_units(x):
    """Mixes the units, as softmax does."""
    return x - ops.mean(x, axis=-1, keepdims=True)


def scaled_by(factor):
    def function(x):
        return factor * ops.tanh(x)

    return function


class Scaling:
    """Called like a function."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * ops.tanh(x)

    def method(self, x):
        return ops.tanh(self.factor * x)


FACTOR = 1.5


def by_a_global(x):
    return FACTOR * ops.tanh(x)


def constant(*shape):
    """Random numbers, always the same ones for a shape."""
    value = np.random.default_rng(shape).normal(size=shape)
    return value.astype(keras.config.floatx())


# Layers with a rule.


class Gain(layers.Layer):
    """A factor for each unit."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")

    def call(self, x):
        return x * self.gain


@keras_iss.register_rule(Gain)
def gain_rule(call, x):
    call.bias(call.operation.gain, {0: x.axis(-1)})
    return call.output({-1: x.axes[-1]})


class Offset(layers.Layer):
    """Adds a bias of a size that it is told, and lets masks through."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.supports_masking = True

    def build(self, shape):
        self.offset = self.add_weight(shape=(self.width,), name="offset")

    def call(self, x):
        return x + self.offset

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras_iss.register_rule(Offset)
def offset_rule(call, x):
    call.set_size("width", x.axes[-1])
    call.bias(call.operation.offset, {0: x.axis(-1)})
    return call.output({-1: x.axes[-1]})


class MinimalCell(layers.Layer):
    """A cell with one gate."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], 2 * self.units), name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, 2 * self.units), name="recurrent_kernel"
        )

    def call(self, inputs, states):
        nested = keras.tree.is_nested(states)
        state = keras.tree.flatten(states)[0]
        both = ops.matmul(inputs, self.kernel)
        both = both + ops.matmul(state, self.recurrent_kernel)
        new, gate = ops.split(both, 2, axis=-1)
        gate = ops.sigmoid(gate)
        state = gate * state + (1.0 - gate) * ops.tanh(new)
        return state, [state] if nested else state

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class RuledCell(MinimalCell):
    """The same, with a rule."""


@keras_iss.register_rule(RuledCell)
def cell_rule(call, inputs, states):
    nested = keras.tree.is_nested(states)
    (before,) = keras.tree.flatten(states)
    units = call.units(call.operation.units, "recurrent")
    state = call.tie(units, before.axis(-1))
    columns = units.repeat(2)
    call.weight(call.operation.kernel, {0: inputs.axes[-1], 1: columns})
    call.weight(call.operation.recurrent_kernel, {0: units, 1: columns})
    output = before.replace(
        (inputs.shape[0], call.operation.units),
        (None, state.with_zero(before.axis(-1).zero)),
    )
    return output, [output] if nested else output


# Layers without a rule.


class Residual(layers.Layer):
    """A layer inside a layer."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.inner = layers.Dense(width, activation="tanh")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return x + self.inner(x)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class RecurrentInside(layers.Layer):
    """A recurrent layer inside a layer, with the mask that comes in."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = layers.LSTM(units, return_sequences=True)
        self.supports_masking = True

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x, mask=None):
        return self.inner(x, mask=mask)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Multiplied(layers.Layer):
    """Without a config of its own; its factor is set after it was made."""

    factor = 1.0

    def call(self, x):
        return self.factor * x


class WithoutConfig(layers.Layer):
    """Its constructor does not take what its config holds."""

    def __init__(self, function, width):
        super().__init__()
        self.function = function
        self.dense = layers.Dense(width)

    def call(self, x):
        return self.function(self.dense(x))


class MaskedSum(layers.Layer):
    """Reads its mask."""

    def call(self, x, mask=None):
        if mask is not None:
            x = x * ops.cast(mask, x.dtype)[:, :, None]
        return ops.sum(x, axis=1)

    def compute_mask(self, inputs, previous_mask=None):
        return None


class FirstStepsOnly(layers.Layer):
    """Makes a mask."""

    def call(self, x):
        return ops.copy(x)

    def compute_output_shape(self, shape):
        return shape

    def compute_mask(self, x, previous_mask=None):
        first = np.arange(x.shape[1]) < 2
        return ops.logical_and(ops.ones_like(x[:, :, 0], "bool"), first)


class DropMask(layers.Layer):
    """Takes the mask away."""

    def call(self, x):
        return ops.tanh(x)

    def compute_mask(self, x, previous_mask=None):
        return None


class Tied(layers.Layer):
    """Multiplies by the matrix of another layer."""

    def __init__(self, other, name_of_matrix, **kwargs):
        super().__init__(**kwargs)
        self.other = other
        self.name_of_matrix = name_of_matrix

    def call(self, x):
        matrix = getattr(self.other, self.name_of_matrix)
        return ops.matmul(x, ops.transpose(matrix))

    def get_config(self):
        return {
            **super().get_config(),
            "other": keras.saving.serialize_keras_object(self.other),
            "name_of_matrix": self.name_of_matrix,
        }

    @classmethod
    def from_config(cls, config):
        other = keras.saving.deserialize_keras_object(config.pop("other"))
        return cls(other, **config)


class Branches(layers.Layer):
    """Layers in a list and in a dict, one of them in training only."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.stack = [layers.Dense(width), layers.Dense(width, "tanh")]
        self.named = {"last": layers.Dense(width)}
        self.normalization = layers.BatchNormalization()

    def call(self, x, training=False):
        for layer in self.stack:
            x = layer(x)
        if training:
            x = self.normalization(x, training=True)
        else:
            x = self.normalization(x)
        return self.named["last"](x)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


# Subclasses of layers and models.


class SameLSTM(layers.LSTM):
    """Computes nothing new."""

    note = "mine"


class SquashedLSTM(layers.LSTM):
    """Computes something else than its parent."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return ops.tanh(
            super().call(
                sequences,
                initial_state=initial_state,
                mask=mask,
                training=training,
            )
        )


class Dense(layers.Dense):
    """Has the name of a layer of Keras."""

    def call(self, x, training=None):
        return -super().call(x)


class OwnModel(keras.Model):
    """A Functional model of one's own class, with a setting."""

    def __init__(self, *args, temperature=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.temperature = temperature

    def call(self, inputs, training=None, mask=None):
        outputs = super().call(inputs, training=training, mask=mask)
        return keras.tree.map_structure(lambda x: x / self.temperature, outputs)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


class OwnStep(keras.Model):
    """A Functional model that only trains in a way of its own."""

    def compute_loss(self, x=None, y=None, y_pred=None, **kwargs):
        return 2.0 * super().compute_loss(x=x, y=y, y_pred=y_pred, **kwargs)
