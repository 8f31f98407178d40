"""Models to export: many layers beside each other, each with an output.

An export of one model with twenty layers takes a fraction of the time of
twenty exports. A family is a function from an input and what it reads to a
dict of outputs by the name of the case.
"""

import keras
import numpy as np
from keras import layers, ops

FEATURES = 3


@keras.saving.register_keras_serializable("keras_iss_tests")
def doubled(x):
    """A function in a module, for a `Lambda`."""
    return FACTOR * x


FACTOR = 2.0


def sequences(layer, units=4, **kwargs):
    return layer(units, return_sequences=True, **kwargs)


def recurrent(x):
    """Each layer type and option, on a sequence without a mask."""
    lstm, gru, simple = layers.LSTM, layers.GRU, layers.SimpleRNN
    of = {
        "lstm": sequences(lstm),
        "lstm_last_output": lstm(4),
        "lstm_without_bias": sequences(lstm, use_bias=False),
        "lstm_relu": sequences(lstm, activation="relu"),
        "lstm_hard_sigmoid": lstm(4, recurrent_activation="hard_sigmoid"),
        "lstm_backwards": sequences(lstm, go_backwards=True),
        "lstm_backwards_last_output": lstm(4, go_backwards=True),
        "lstm_with_dropout": lstm(4, dropout=0.3, recurrent_dropout=0.3),
        "lstm_one_unit": sequences(lstm, 1),
        "gru": sequences(gru),
        "gru_reset_before": sequences(gru, reset_after=False),
        "gru_reset_before_without_bias": gru(
            4, reset_after=False, use_bias=False
        ),
        "gru_without_bias": sequences(gru, use_bias=False),
        "gru_backwards": sequences(gru, go_backwards=True),
        "simple_rnn": sequences(simple),
        "simple_rnn_linear": sequences(simple, activation=None),
        "rnn_of_lstm_cell": layers.RNN(layers.LSTMCell(4)),
        "rnn_of_gru_cell": layers.RNN(layers.GRUCell(4, reset_after=False)),
        "rnn_of_own_cell": layers.RNN(Cell(4), return_sequences=True),
        "rnn_of_a_list": layers.RNN(
            [layers.SimpleRNNCell(4), layers.LSTMCell(5), layers.GRUCell(3)],
            return_sequences=True,
        ),
        "rnn_of_stacked_cells": layers.RNN(
            layers.StackedRNNCells([layers.LSTMCell(4), Cell(3)]),
            go_backwards=True,
        ),
        "rnn_of_one_stacked_cell": layers.RNN([layers.GRUCell(4)]),
        "time_distributed_dense": layers.TimeDistributed(layers.Dense(4)),
        "time_distributed_model": layers.TimeDistributed(
            keras.Sequential(
                [keras.Input((FEATURES,)), layers.Dense(4), layers.ReLU()]
            )
        ),
        "time_distributed_lambda": layers.TimeDistributed(
            layers.Lambda(lambda y: y - ops.mean(y, axis=0, keepdims=True))
        ),
    }
    return {name: layer(x) for name, layer in of.items()}


def directions(x):
    """Layers that read a sequence from both ends."""
    lstm, gru, simple = layers.LSTM, layers.GRU, layers.SimpleRNN
    outputs = {"lstm": sequences(lstm)(x), "lstm_last_output": lstm(4)(x)}
    for mode in ("concat", "sum", "mul", "ave"):
        kind = {"mul": gru, "ave": simple}.get(mode, lstm)
        for name, both in (
            (f"bidirectional_{mode}", sequences(kind)),
            (f"bidirectional_{mode}_last_output", kind(4)),
        ):
            outputs[name] = layers.Bidirectional(both, merge_mode=mode)(x)
    both = layers.Bidirectional(sequences(lstm), merge_mode=None)(x)
    for name, part in zip(("forward", "backward"), both):
        outputs[f"bidirectional_unmerged_{name}"] = part
    outputs["bidirectional_of_two_kinds"] = layers.Bidirectional(
        sequences(lstm), backward_layer=sequences(gru, go_backwards=True)
    )(x)
    for i, part in enumerate(
        layers.Bidirectional(layers.GRU(4, return_state=True))(x)
    ):
        outputs[f"bidirectional_states_{i}"] = part
    back = sequences(lstm, 3, go_backwards=True)(x)
    outputs["directions_of_unequal_sizes"] = layers.Concatenate()(
        [sequences(lstm, 5)(x), ops.flip(back, 1)]
    )
    return outputs


def connected(x):
    """Layers that give and take states, are shared, nested or stacked."""
    outputs = {}
    y, h, c = sequences(layers.LSTM, return_state=True)(x)
    outputs |= {"states_y": y, "states_h": h, "states_c": c}
    for name, layer in {
        "lstm": sequences(layers.LSTM),
        "lstm_backwards": sequences(layers.LSTM, go_backwards=True),
        "lstm_cell": layers.RNN(layers.LSTMCell(4)),
    }.items():
        outputs[f"decoder_{name}"] = layer(x, initial_state=[h, c])
    for name, layer in {
        "gru": sequences(layers.GRU),
        "simple_rnn": layers.SimpleRNN(4),
    }.items():
        outputs[f"decoder_{name}"] = layer(x, initial_state=[h])
    outputs["decoder_bidirectional"] = layers.Bidirectional(layers.LSTM(4))(
        x, initial_state=[h, c, c, h]
    )
    cells = [layers.LSTMCell(4), layers.GRUCell(3)]
    last, lstm_states, gru_state = layers.RNN(cells, return_state=True)(x)
    outputs["stacked_states"] = layers.Concatenate()(
        [last, *lstm_states, gru_state]
    )
    shared = sequences(layers.LSTM, FEATURES)
    once = shared(x)
    outputs |= {"shared_once": once, "shared_twice": shared(once)}
    inner = keras.Input((None, FEATURES))
    nested = keras.Model(inner, layers.GRU(4)(sequences(layers.LSTM)(inner)))
    outputs |= {"nested": nested(x), "nested_again": nested(once)}
    outputs["sequential_inside"] = keras.Sequential(
        [sequences(layers.LSTM), layers.Dense(2)]
    )(x)
    stacked = x
    for units in (4, 3, 5):
        stacked = sequences(layers.LSTM, units)(stacked)
        stacked = layers.Dropout(0.5)(stacked)
    outputs["stacked_layers"] = layers.Dense(2, activation="softmax")(stacked)
    outputs["batch_normalization"] = layers.BatchNormalization()(once)
    outputs["layer_normalization"] = layers.LayerNormalization()(once)
    outputs["scaled"] = layers.EinsumDense("btd,d->btd", (None, FEATURES))(once)
    outputs["spread"] = layers.EinsumDense(
        "btd,ed->betd", (2, None, FEATURES), bias_axes="d"
    )(once)
    outputs["convolution"] = layers.Conv1D(4, 3, padding="same")(once)
    outputs["separable"] = layers.SeparableConv1D(4, 3, padding="same")(once)
    outputs["pooling"] = layers.GlobalMaxPooling1D()(once)
    outputs["attention"] = layers.Attention()([once, stacked[..., :FEATURES]])
    outputs["reshape"] = layers.Reshape((-1, 1, FEATURES))(once)
    outputs["ops_mean"] = ops.mean(once, axis=1)
    outputs["residual"] = layers.LSTM(4)(layers.Add()([once, x]))
    outputs["lambda"] = layers.Lambda(lambda y: y * 2 + 1)(once)
    repeated = layers.RepeatVector(4)(h)
    outputs["repeat_vector"] = sequences(layers.GRU)(repeated)
    outputs["time_distributed_lstm"] = layers.TimeDistributed(layers.LSTM(3))(
        layers.Reshape((-1, FEATURES, 1))(x)
    )
    return outputs


def masked(x):
    """Recurrent layers behind a mask."""
    lstm, gru, simple = layers.LSTM, layers.GRU, layers.SimpleRNN
    zero = {"zero_output_for_mask": True}
    of = {
        "lstm": sequences(lstm),
        "lstm_last_output": lstm(4),
        "lstm_zero_output": sequences(lstm, **zero),
        "lstm_zero_output_last_output": lstm(4, **zero),
        "lstm_backwards": sequences(lstm, go_backwards=True),
        "lstm_backwards_last_output": lstm(4, go_backwards=True),
        "lstm_backwards_zero": sequences(lstm, go_backwards=True, **zero),
        "gru": sequences(gru),
        "gru_reset_before": gru(4, reset_after=False),
        "gru_backwards": gru(4, go_backwards=True),
        "simple_rnn": sequences(simple),
        "simple_rnn_zero_output": sequences(simple, **zero),
        "rnn_of_cell": layers.RNN(layers.LSTMCell(4)),
        "rnn_of_own_cell": layers.RNN(Cell(4), return_sequences=True),
        "rnn_of_a_list": layers.RNN(
            [layers.GRUCell(4), layers.LSTMCell(3)], return_sequences=True
        ),
        "rnn_of_a_list_zero_output": layers.RNN(
            [layers.GRUCell(4), layers.LSTMCell(3)],
            return_sequences=True,
            **zero,
        ),
        "bidirectional": layers.Bidirectional(sequences(lstm)),
        "bidirectional_last_output": layers.Bidirectional(gru(4)),
        "bidirectional_sum": layers.Bidirectional(
            sequences(gru), merge_mode="sum"
        ),
        "bidirectional_zero_output": layers.Bidirectional(
            sequences(simple, **zero)
        ),
        "time_distributed": layers.TimeDistributed(layers.Dense(4)),
    }
    outputs = {name: layer(x) for name, layer in of.items()}
    y, h, c = sequences(lstm, return_state=True)(x)
    outputs |= {"states_y": y, "states_h": h, "states_c": c}
    outputs["decoder"] = gru(4)(x, initial_state=h)
    outputs["stacked"] = gru(4)(sequences(lstm)(x))
    return outputs


def masking(x):
    return masked(layers.Masking()(x))


def embedding(x):
    y = layers.Embedding(7, 4, mask_zero=True)(x)
    two = {
        "lstm": sequences(layers.LSTM)(y),
        "bidirectional": layers.Bidirectional(layers.GRU(4))(y),
    }
    plain = layers.Embedding(7, 4)(x)
    return two | {"no_mask": layers.LSTM(4)(plain)}


def images(x):
    """Layers that read more than vectors at each time step."""
    flat = layers.TimeDistributed(layers.Flatten())(x)
    pooled = layers.TimeDistributed(
        layers.Conv1D(2, 2, padding="same", activation="relu")
    )(x)
    return {
        "conv_lstm": layers.ConvLSTM1D(2, 3, return_sequences=True)(x),
        "conv_lstm_last_output": layers.ConvLSTM1D(2, 3, padding="same")(x),
        "conv_lstm_backwards": layers.ConvLSTM1D(
            2, 2, go_backwards=True, return_sequences=True
        )(x),
        "bidirectional_conv_lstm": layers.Bidirectional(
            layers.ConvLSTM1D(2, 3, return_sequences=True)
        )(x),
        "time_distributed_lstm": layers.TimeDistributed(layers.LSTM(3))(x),
        "time_distributed_bidirectional": layers.TimeDistributed(
            layers.Bidirectional(layers.GRU(3))
        )(x),
        "time_distributed_flatten": layers.LSTM(3)(flat),
        "time_distributed_convolution": pooled,
    }


def several(x):
    """A few of all, where all would take too long."""
    y = layers.Masking()(x)
    cells = [layers.LSTMCell(4), layers.GRUCell(3)]
    of = {
        "lstm": sequences(layers.LSTM),
        "gru_reset_before": layers.GRU(4, reset_after=False),
        "rnn_of_a_list": layers.RNN(cells, return_sequences=True),
        "bidirectional": layers.Bidirectional(
            sequences(layers.SimpleRNN, zero_output_for_mask=True),
            merge_mode="sum",
        ),
    }
    outputs = {}
    for name, layer in of.items():
        outputs |= {name: layer(x), f"masked_{name}": layer(y)}
    outputs["time_distributed"] = layers.TimeDistributed(layers.Dense(2))(
        outputs["masked_lstm"]
    )
    return outputs


# What the families read: shape but for batch and time, and dtype.
FAMILIES = {
    recurrent: ((FEATURES,), "float32"),
    directions: ((FEATURES,), "float32"),
    connected: ((FEATURES,), "float32"),
    masking: ((FEATURES,), "float32"),
    several: ((FEATURES,), "float32"),
    embedding: ((), "int32"),
    images: ((4, 2), "float32"),
}


def build(family, batch=None, time=None):
    """A model of a family, with random weights."""
    rest, dtype = FAMILIES[family]
    x = keras.Input(
        (time, *rest), batch_size=batch, dtype=dtype, name="sequence"
    )
    model = keras.Model(x, family(x), name=family.__name__)
    return randomize(model)


def randomize(model, seed=0):
    """Gives every weight a random value that tells its place."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if not variable.dtype.startswith(("float", "bfloat")):
            continue
        value = rng.normal(size=variable.shape) / 2
        if "variance" in variable.name:
            value = 0.5 + np.abs(value)
        variable.assign(value)
    return model


def data_for(family, batch, steps, seed=0):
    """Inputs of a family; where it masks, with masked steps everywhere."""
    rest, dtype = FAMILIES[family]
    rng = np.random.default_rng(seed)
    shape = (batch, steps, *rest)
    if dtype == "int32":
        x = rng.integers(1, 7, shape).astype(dtype)
    else:
        x = rng.normal(size=shape).astype(dtype)
    if family in (masking, embedding, several):
        gone = rng.random((batch, steps)) < 0.3
        gone[0, : steps // 4] = True
        gone[0, steps - steps // 4 :] = True
        if batch > 1:
            gone[1] = True
        if batch > 2:
            gone[2] = False
        x[gone] = 0
    return x


@keras.saving.register_keras_serializable("keras_iss_tests")
class Cell(layers.Layer):
    """A cell of one's own: two states, of other sizes than the output."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, 2]
        self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1] + self.units, self.units))
        self.other = self.add_weight((self.units, 2))

    def call(self, x, states):
        h, e = states
        both = ops.concatenate([x, h], axis=-1)
        new = ops.tanh(both @ self.kernel) + ops.sum(e, -1, keepdims=True)
        e = 0.5 * e + ops.sigmoid(new @ self.other)
        return ops.relu(new), [new, e]

    def get_config(self):
        return super().get_config() | {"units": self.units}
