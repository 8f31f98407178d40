"""Models for the tests: one for each layer type and connection.

A case is a function that returns a model, or a pair of a model and the kinds
of layers to include. `inputs_for` makes data for any of them.
"""

import keras
import numpy as np
from keras import layers, ops

TIME, FEATURES, BATCH = 5, 3, 2

CASES = {}


def case(build):
    """Registers a model under the name of its function."""
    CASES[build.__name__] = build
    return build


def named(name):
    def register(build):
        CASES[name] = build
        return build

    return register


def inputs_for(model, seed=0):
    """Random data for the inputs of a model, nested as it takes them."""
    rng = np.random.default_rng(seed)

    def data(x):
        shape = [
            BATCH if n is None and i == 0 else n or TIME
            for i, n in enumerate(x.shape)
        ]
        if "int" in x.dtype:
            values = rng.integers(1, 10, shape)
            if len(shape) > 1:
                values[0, -2:] = 0  # A padded end, for masks.
            return values.astype("int32")
        return rng.normal(size=shape).astype("float32")

    return keras.tree.map_structure(data, input_of(model))


def input_of(model):
    """The symbolic inputs of a model, nested as it takes them."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input


def randomize(model, seed=0):
    """Gives every weight of a model, biases included, a random value."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = 0.4 * rng.normal(size=variable.shape)
        if "variance" in variable.name or "stddev" in variable.name:
            value = 0.5 + np.abs(value)
        variable.assign(value.astype("float32"))


def sequence():
    return keras.Input((None, FEATURES))


def fixed_sequence():
    return keras.Input((TIME, FEATURES))


def tokens():
    return keras.Input((None,), dtype="int32")


def lstm(units=6, **kwargs):
    kwargs.setdefault("return_sequences", True)
    return layers.LSTM(units, **kwargs)


def head(x):
    return layers.Dense(2, name="head")(x)


# Layers that make units.

for _name, _layer in {
    "lstm": lambda: lstm(),
    "lstm_last_output": lambda: lstm(return_sequences=False),
    "lstm_without_bias": lambda: lstm(use_bias=False),
    "lstm_go_backwards": lambda: lstm(go_backwards=True),
    "lstm_relu": lambda: lstm(activation="relu"),
    "lstm_sigmoid": lambda: lstm(
        activation="sigmoid", recurrent_activation="hard_sigmoid"
    ),
    "lstm_with_dropout": lambda: lstm(
        dropout=0.2, recurrent_dropout=0.2, seed=0
    ),
    "lstm_recurrent_bias_initialized_to_one": lambda: lstm(
        bias_initializer="ones"
    ),
    "gru": lambda: layers.GRU(6, return_sequences=True),
    "gru_last_output": lambda: layers.GRU(6),
    "gru_reset_before": lambda: layers.GRU(
        6, return_sequences=True, reset_after=False
    ),
    "gru_without_bias": lambda: layers.GRU(6, use_bias=False),
    "simple_rnn": lambda: layers.SimpleRNN(6, return_sequences=True),
    "rnn_of_lstm_cell": lambda: layers.RNN(
        layers.LSTMCell(6), return_sequences=True
    ),
    "rnn_of_gru_cell": lambda: layers.RNN(layers.GRUCell(6)),
    "rnn_of_gru_cell_reset_before": lambda: layers.RNN(
        layers.GRUCell(6, reset_after=False)
    ),
    "rnn_of_simple_rnn_cell": lambda: layers.RNN(layers.SimpleRNNCell(6)),
    "rnn_of_stacked_cells": lambda: layers.RNN(
        layers.StackedRNNCells([layers.LSTMCell(6), layers.GRUCell(5)]),
        return_sequences=True,
    ),
    "rnn_of_a_list_of_cells": lambda: layers.RNN(
        [layers.SimpleRNNCell(4), layers.LSTMCell(6), layers.LSTMCell(5)]
    ),
    "bidirectional_concat": lambda: layers.Bidirectional(lstm()),
    "bidirectional_concat_last_output": lambda: layers.Bidirectional(
        lstm(return_sequences=False)
    ),
    "bidirectional_sum": lambda: layers.Bidirectional(lstm(), merge_mode="sum"),
    "bidirectional_mul": lambda: layers.Bidirectional(lstm(), merge_mode="mul"),
    "bidirectional_ave": lambda: layers.Bidirectional(
        layers.GRU(6, return_sequences=True), merge_mode="ave"
    ),
    "bidirectional_gru": lambda: layers.Bidirectional(layers.GRU(6)),
    "bidirectional_simple_rnn": lambda: layers.Bidirectional(
        layers.SimpleRNN(6, return_sequences=True)
    ),
    "bidirectional_rnn_of_stacked_cells": lambda: layers.Bidirectional(
        layers.RNN(
            [layers.LSTMCell(4), layers.GRUCell(6)], return_sequences=True
        )
    ),
    "bidirectional_with_a_backward_layer": lambda: layers.Bidirectional(
        lstm(),
        backward_layer=layers.GRU(6, return_sequences=True, go_backwards=True),
    ),
}.items():

    @named(_name)
    def _maker(layer=_layer):
        x = sequence()
        return keras.Model(x, head(layer()(x)))


@case
def bidirectional_none():
    x = sequence()
    forward, backward = layers.Bidirectional(lstm(), merge_mode=None)(x)
    return keras.Model(x, [head(forward), layers.Dense(3)(backward)])


@case
def bidirectional_stack():
    x = sequence()
    h = layers.Bidirectional(lstm(5))(x)
    h = layers.Bidirectional(lstm(6, return_sequences=False))(h)
    return keras.Model(x, head(h))


@case
def conv_lstm_1d():
    x = keras.Input((TIME, 6, 2))
    h = layers.ConvLSTM1D(5, 3, padding="same", return_sequences=True)(x)
    h = layers.ConvLSTM1D(4, 3)(h)
    return keras.Model(x, head(layers.GlobalAveragePooling1D()(h)))


@case
def conv_lstm_2d():
    x = keras.Input((3, 4, 5, 2))
    h = layers.ConvLSTM2D(5, 2, padding="same", return_sequences=True)(x)
    h = layers.ConvLSTM2D(4, 2, strides=2)(h)
    return keras.Model(x, head(layers.Flatten()(h)))


@case
def conv_lstm_2d_states():
    x = keras.Input((3, 4, 5, 2))
    _, h, c = layers.ConvLSTM2D(5, 2, padding="same", return_state=True)(x)
    y = layers.ConvLSTM2D(5, 2, padding="same")(x, initial_state=[h, c])
    return keras.Model(x, head(layers.GlobalMaxPooling2D()(y)))


@case
def included_dense():
    x = sequence()
    h = layers.Dense(8, activation="relu")(x)
    h = layers.Dense(7, activation="sigmoid")(h)
    h = lstm()(h)
    h = layers.Dense(5, activation="tanh", use_bias=False)(h)
    return keras.Model(x, head(h)), ("recurrent", "dense")


@case
def included_einsum_dense():
    x = fixed_sequence()
    h = layers.EinsumDense("abc,cd->abd", (TIME, 7), bias_axes="d")(x)
    h = layers.EinsumDense("...x,xy->...y", 6, activation="relu")(h)
    h = layers.EinsumDense("abc,bcd->abd", (TIME, 5), bias_axes="bd")(h)
    return keras.Model(x, head(h)), ("dense",)


@case
def included_embedding():
    x = tokens()
    h = layers.Embedding(10, 7)(x)
    h = lstm()(h)
    return keras.Model(x, head(h)), ("recurrent", "embedding")


@case
def included_embedding_in_a_residual_connection():
    x = tokens()
    h = layers.Embedding(10, 6)(x)
    h = layers.Add()([h, lstm(6)(h)])
    return keras.Model(x, head(h)), ("recurrent", "embedding")


# Layers that read units.

for _name, _layer in {
    "read_by_dense": lambda: layers.Dense(4, activation="softmax"),
    "read_by_einsum_dense": lambda: layers.EinsumDense(
        "abc,cde->abde", (None, 2, 3), bias_axes="de"
    ),
    "read_by_einsum_dense_with_ellipsis": lambda: layers.EinsumDense(
        "...x,xy->...y", 4
    ),
    "read_by_conv_1d": lambda: layers.Conv1D(4, 2, padding="causal"),
    "read_by_lstm": lambda: lstm(4),
    "read_by_gru": lambda: layers.GRU(4),
    "read_by_simple_rnn": lambda: layers.SimpleRNN(4),
    "read_by_cells": lambda: layers.RNN(
        [layers.GRUCell(3), layers.LSTMCell(4)]
    ),
    "read_by_a_separable_convolution": lambda: layers.SeparableConv1D(4, 2),
    "read_by_a_depthwise_convolution": lambda: layers.DepthwiseConv1D(
        2, depth_multiplier=2
    ),
    "read_by_bidirectional": lambda: layers.Bidirectional(layers.GRU(4)),
    "read_by_batch_normalization": lambda: layers.BatchNormalization(),
    "read_by_batch_normalization_without_scale": lambda: (
        layers.BatchNormalization(scale=False)
    ),
    "read_by_batch_normalization_renorm": lambda: layers.BatchNormalization(
        renorm=True
    ),
}.items():

    @named(_name)
    def _consumer(layer=_layer):
        x = sequence()
        return keras.Model(x, head(layer()(lstm()(x))))


@case
def read_by_conv_2d():
    x = keras.Input((3, 4, 5, 2))
    h = layers.ConvLSTM2D(5, 2, padding="same")(x)
    h = layers.Conv2D(3, 2)(h)
    return keras.Model(x, head(layers.GlobalAveragePooling2D()(h)))


@case
def read_by_multi_head_attention():
    x = sequence()
    query, value, key = lstm(6)(x), lstm(5)(x), lstm(4)(x)
    h = layers.MultiHeadAttention(2, 3)(query, value, key)
    return keras.Model(x, head(h))


@case
def read_by_multi_head_attention_as_itself():
    x = sequence()
    h = lstm(6)(x)
    h = layers.MultiHeadAttention(2, 3, output_shape=4)(h, h)
    return keras.Model(x, head(h))


@case
def read_by_a_tied_embedding():
    x = tokens()
    embedding = layers.ReversibleEmbedding(10, 6)
    h = lstm(6)(embedding(x))
    return keras.Model(x, embedding(h, reverse=True))


@case
def read_by_an_untied_reversible_embedding():
    x = tokens()
    embedding = layers.ReversibleEmbedding(10, 6, tie_weights=False)
    h = lstm(6)(embedding(x))
    return keras.Model(x, embedding(h, reverse=True))


# Layers that carry units.

for _name, _layer in {
    "through_dropout": lambda: layers.Dropout(0.3),
    "through_dropout_with_noise_shape": lambda: layers.Dropout(
        0.3, noise_shape=(None, 1, 6)
    ),
    "through_spatial_dropout": lambda: layers.SpatialDropout1D(0.3),
    "through_gaussian_dropout": lambda: layers.GaussianDropout(0.3),
    "through_gaussian_noise": lambda: layers.GaussianNoise(0.3),
    "through_alpha_dropout": lambda: layers.AlphaDropout(0.3),
    "through_activation": lambda: layers.Activation("gelu"),
    "through_sigmoid": lambda: layers.Activation("sigmoid"),
    "through_relu": lambda: layers.ReLU(max_value=1.0),
    "through_leaky_relu": lambda: layers.LeakyReLU(),
    "through_elu": lambda: layers.ELU(),
    "through_prelu": lambda: layers.PReLU(shared_axes=[1]),
    "through_softmax_over_time": lambda: layers.Softmax(axis=1),
    "through_activity_regularization": lambda: layers.ActivityRegularization(
        l2=0.1
    ),
    "through_identity": lambda: layers.Identity(),
    "through_masking": lambda: layers.Masking(0.0),
    "through_time_distributed": lambda: layers.TimeDistributed(layers.Dense(4)),
    "through_time_distributed_dropout": lambda: layers.TimeDistributed(
        layers.Dropout(0.3)
    ),
    "through_max_pooling": lambda: layers.MaxPooling1D(2),
    "through_average_pooling": lambda: layers.AveragePooling1D(2),
    "through_global_max_pooling": lambda: layers.GlobalMaxPooling1D(),
    "through_global_average_pooling": lambda: layers.GlobalAveragePooling1D(
        keepdims=True
    ),
    "through_flatten": lambda: layers.Flatten(),
    "through_reshape": lambda: layers.Reshape((1, TIME, 6)),
    "through_reshape_to_one_axis": lambda: layers.Reshape((TIME * 6,)),
    "through_reshape_with_unknown": lambda: layers.Reshape((-1, 6)),
    "through_permute": lambda: layers.Permute((2, 1)),
    "through_cropping": lambda: layers.Cropping1D(1),
    "through_zero_padding": lambda: layers.ZeroPadding1D(1),
    "through_up_sampling": lambda: layers.UpSampling1D(2),
}.items():

    @named(_name)
    def _carrier(layer=_layer):
        x = fixed_sequence()
        h = layer()(lstm(6)(x))
        if len(h.shape) == 3 and h.shape[1] == 6:
            h = layers.Permute((2, 1))(layers.Dense(4)(h))
        return keras.Model(x, head(h))


@case
def through_repeat_vector():
    x = sequence()
    h = layers.RepeatVector(4)(layers.GRU(6)(x))
    return keras.Model(x, head(lstm(5)(h)))


@case
def through_a_mask():
    x = tokens()
    h = layers.Embedding(10, 4, mask_zero=True)(x)
    h = layers.Dropout(0.2)(lstm(6)(h))
    return keras.Model(x, head(layers.GRU(5)(h)))


@case
def through_a_mask_and_bidirectional_layers():
    x = tokens()
    h = layers.Embedding(10, 4, mask_zero=True)(x)
    h = layers.Bidirectional(lstm(6))(h)
    h = layers.Dropout(0.2)(h)
    h = layers.Bidirectional(layers.GRU(5, return_sequences=True))(h)
    return keras.Model(x, head(h))


@case
def through_a_mask_and_the_ends_of_both_directions():
    x = tokens()
    h = layers.Embedding(10, 4, mask_zero=True)(x)
    return keras.Model(x, head(layers.Bidirectional(layers.GRU(6))(h)))


@case
def through_a_mask_and_a_concatenation():
    x = tokens()
    h = layers.Embedding(10, 4, mask_zero=True)(x)
    h = layers.Concatenate()([lstm(6)(h), lstm(5)(h)])
    return keras.Model(x, head(layers.GRU(4)(h)))


@case
def through_a_mask_from_outside_a_nested_model():
    inner = keras.Input((None, 4))
    h = layers.Bidirectional(lstm(6))(inner)
    inner = keras.Model(inner, layers.GRU(5)(h))
    x = tokens()
    h = layers.Embedding(10, 4, mask_zero=True)(x)
    return keras.Model(x, head(inner(h)))


# Layers that merge units.

for _name, _layer in {
    "merged_by_add": layers.Add,
    "merged_by_subtract": layers.Subtract,
    "merged_by_multiply": layers.Multiply,
    "merged_by_average": layers.Average,
    "merged_by_maximum": layers.Maximum,
    "merged_by_minimum": layers.Minimum,
    "merged_by_concatenate": layers.Concatenate,
}.items():

    @named(_name)
    def _merge(layer=_layer):
        x = sequence()
        h = layer()([lstm(6)(x), layers.GRU(6, return_sequences=True)(x)])
        return keras.Model(x, head(h))


@case
def merged_by_add_of_other_rank():
    x = sequence()
    h = layers.Add()([lstm(6)(x), layers.GRU(6)(x)])
    return keras.Model(x, head(h))


@case
def merged_by_add_of_a_concatenation():
    x = sequence()
    h = layers.Concatenate()([lstm(2)(x), lstm(4)(x)])
    h = layers.Add()([h, layers.GRU(6, return_sequences=True)(x)])
    return keras.Model(x, head(h))


@case
def merged_by_concatenate_over_time():
    x = sequence()
    h = layers.Concatenate(axis=1)([lstm(6)(x), lstm(6)(x)])
    return keras.Model(x, head(h))


@case
def merged_by_dot_over_the_units():
    x = fixed_sequence()
    return keras.Model(x, head(layers.Dot(axes=-1)([lstm(6)(x), lstm(6)(x)])))


@case
def merged_by_normalized_dot():
    x = sequence()
    h = layers.Dot(axes=1, normalize=True)([layers.GRU(6)(x), layers.GRU(6)(x)])
    return keras.Model(x, head(h))


@case
def merged_by_dot_over_time():
    x = fixed_sequence()
    h = layers.Dot(axes=1)([lstm(6)(x), layers.Dense(4)(x)])
    return keras.Model(x, head(layers.Permute((2, 1))(h)))


@case
def merged_by_attention():
    x = sequence()
    query, value, key = lstm(6)(x), lstm(5)(x), lstm(6)(x)
    h = layers.Attention(use_scale=True)([query, value, key])
    return keras.Model(x, head(h))


@case
def merged_by_attention_in_concat_mode():
    x = sequence()
    h = layers.Attention(score_mode="concat")([lstm(6)(x), lstm(6)(x)])
    return keras.Model(x, head(h))


@case
def merged_by_additive_attention():
    x = sequence()
    h = layers.AdditiveAttention()([lstm(6)(x), lstm(6)(x)])
    return keras.Model(x, head(h))


@case
def merged_by_additive_attention_without_scale():
    x = sequence()
    h = layers.AdditiveAttention(use_scale=False)([lstm(6)(x), lstm(6)(x)])
    return keras.Model(x, head(h))


# Sums over the units, and axes beside them.


@case
def a_distance_of_two_sequences():
    x, z = tokens(), tokens()
    embedding, shared = layers.Embedding(10, 4, mask_zero=True), layers.LSTM(6)
    u, v = shared(embedding(x)), shared(embedding(z))
    distance = ops.sum(ops.abs(u - v), axis=-1, keepdims=True)
    return keras.Model([x, z], ops.exp(-distance))


@case
def a_cosine_of_two_sequences():
    x, z = sequence(), sequence()
    normalize = layers.UnitNormalization()
    u, v = normalize(layers.GRU(6)(x)), normalize(layers.GRU(6)(z))
    return keras.Model([x, z], layers.Dot(axes=1)([u, v]))


@case
def attention_flattened():
    x = fixed_sequence()
    h = lstm(6)(x)
    weights = layers.Softmax(axis=1)(layers.Dense(1)(h))
    context = layers.Flatten()(layers.Dot(axes=(1, 1))([weights, h]))
    return keras.Model(x, head(context))


@case
def attention_to_one_feature():
    x = sequence()
    h = layers.AdditiveAttention()([lstm(6)(x), lstm(5)(x), lstm(1)(x)])
    return keras.Model(x, head(h))


# States.


@case
def states_returned():
    x = sequence()
    y, h, c = lstm(6, return_state=True)(x)
    return keras.Model(x, [head(y), layers.Dense(2)(h), layers.Dense(3)(c)])


@case
def states_of_an_encoder_in_a_decoder():
    x, z = sequence(), keras.Input((None, 4))
    _, h, c = layers.LSTM(6, return_state=True, name="encoder")(x)
    y = lstm(6, name="decoder")(z, initial_state=[h, c])
    return keras.Model([x, z], head(y))


@case
def state_of_a_gru_in_a_gru():
    x, z = sequence(), keras.Input((None, 4))
    _, h = layers.GRU(6, return_state=True)(x)
    y = layers.GRU(6)(z, initial_state=h)
    return keras.Model([x, z], head(y))


@case
def states_of_a_bidirectional_layer():
    x, z = sequence(), keras.Input((None, 4))
    _, *states = layers.Bidirectional(layers.LSTM(6, return_state=True))(x)
    y = layers.Bidirectional(lstm(6))(z, initial_state=states)
    return keras.Model([x, z], head(y))


@case
def states_of_a_bidirectional_layer_joined():
    x, z = sequence(), keras.Input((None, 4))
    _, h1, c1, h2, c2 = layers.Bidirectional(layers.LSTM(3, return_state=True))(
        x
    )
    h = layers.Concatenate()([h1, h2])
    c = layers.Concatenate()([c1, c2])
    y = lstm(6)(z, initial_state=[h, c])
    return keras.Model([x, z], head(y))


@case
def states_of_stacked_cells():
    x, z = sequence(), keras.Input((None, 4))
    cells = [layers.LSTMCell(5), layers.GRUCell(6)]
    _, *states = layers.RNN(cells, return_state=True)(x)
    cells = [layers.LSTMCell(5), layers.GRUCell(6)]
    y = layers.RNN(cells)(z, initial_state=states)
    return keras.Model([x, z], head(y))


@case
def states_kept():
    x = keras.Input(batch_shape=(BATCH, TIME, FEATURES))
    h = lstm(6, stateful=True)(x)
    return keras.Model(x, head(layers.GRU(5, stateful=True)(h)))


@case
def states_kept_bidirectional():
    x = keras.Input(batch_shape=(BATCH, TIME, FEATURES))
    h = layers.Bidirectional(lstm(6, stateful=True))(x)
    return keras.Model(x, head(h))


# Models in models, and layers that are shared.


@case
def sequential():
    return keras.Sequential(
        [keras.Input((None, FEATURES)), lstm(6), layers.GRU(5), layers.Dense(2)]
    )


@case
def sequential_with_bidirectional():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            layers.Bidirectional(lstm(6)),
            layers.GRU(5),
            layers.Dense(2),
        ]
    )


@case
def nested_functional():
    inner = keras.Input((None, 6))
    inner = keras.Model(inner, lstm(5)(inner), name="inner")
    x = sequence()
    return keras.Model(x, head(inner(lstm(6)(x))))


@case
def nested_sequential_called_twice():
    inner = keras.Sequential([keras.Input((None, 3)), lstm(6), layers.GRU(5)])
    x, z = sequence(), sequence()
    return keras.Model([x, z], head(layers.Subtract()([inner(x), inner(z)])))


@case
def nested_with_several_inputs_and_outputs():
    a, b = keras.Input((None, 6)), keras.Input((None, 6))
    h = layers.Add()([lstm(6)(a), b])
    inner = keras.Model([a, b], {"sum": h, "last": layers.GRU(5)(h)})
    x = sequence()
    outputs = inner([lstm(6)(x), lstm(6)(x)])
    return keras.Model(
        x, [head(outputs["sum"]), layers.Dense(2)(outputs["last"])]
    )


@case
def nested_twice():
    innermost = keras.Sequential([keras.Input((None, 6)), lstm(5)])
    inner = keras.Sequential([keras.Input((None, 3)), lstm(6), innermost])
    x = sequence()
    return keras.Model(x, head(inner(x)))


@case
def time_distributed_lstm():
    x = keras.Input((3, TIME, FEATURES))
    h = layers.TimeDistributed(layers.LSTM(6))(x)
    return keras.Model(x, head(layers.GRU(5)(h)))


@case
def time_distributed_bidirectional():
    x = keras.Input((3, TIME, FEATURES))
    h = layers.TimeDistributed(layers.Bidirectional(lstm(6)))(x)
    return keras.Model(x, head(h))


@case
def time_distributed_model():
    inner = keras.Sequential(
        [
            keras.Input((TIME, FEATURES)),
            layers.Bidirectional(lstm(6)),
            layers.GRU(5),
        ]
    )
    x = keras.Input((3, TIME, FEATURES))
    h = layers.TimeDistributed(inner)(x)
    return keras.Model(x, head(layers.GRU(4)(h)))


@case
def shared_lstm():
    x, z = sequence(), sequence()
    shared = layers.LSTM(6)
    h = layers.Concatenate()([shared(x), shared(z)])
    return keras.Model([x, z], head(h))


@case
def shared_bidirectional():
    x, z = sequence(), sequence()
    shared = layers.Bidirectional(lstm(6))
    h = layers.Attention()([shared(x), shared(z)])
    return keras.Model([x, z], head(h))


@case
def shared_dense():
    x = sequence()
    shared = layers.Dense(2)
    y = layers.Add()([shared(lstm(6)(x)), shared(lstm(6)(x))])
    return keras.Model(x, y)


@case
def shared_lstm_in_a_loop():
    x = keras.Input((None, 6))
    shared = lstm(6)
    return keras.Model(x, head(shared(shared(lstm(6)(x)))))


class Subclassed(keras.Model):
    """A model without a graph of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed = layers.Embedding(10, 4)
        self.recurrent = lstm(6, name="recurrent")
        self.drop = layers.Dropout(0.2)
        self.out = layers.Dense(2)

    def call(self, inputs, training=False):
        h = self.drop(self.recurrent(self.embed(inputs)), training=training)
        return self.out(ops.tanh(h))


@case
def nested_subclassed():
    x = tokens()
    return keras.Model(x, head(Subclassed()(x)))


# Operations of keras.ops. `h` and `g` are LSTMs of 6 units.

for _name, _function in {
    "ops_arithmetic": lambda h, g: 2.0 * h - g * h + (-g) / 3.0 + 1.0,
    "ops_power": lambda h, g: h**2 + g,
    "ops_divide_no_nan": lambda h, g: ops.divide_no_nan(h, g),
    "ops_unary": lambda h, g: ops.exp(ops.tanh(h)) + ops.abs(ops.sin(g)),
    "ops_clip": lambda h, g: ops.clip(h, -0.1, 0.2) + g,
    "ops_activations": lambda h, g: ops.gelu(h) + ops.leaky_relu(g) * h,
    "ops_cast": lambda h, g: ops.cast(ops.cast(h, "float16"), "float32") + g,
    "ops_where": lambda h, g: ops.where(h > g, h, g),
    "ops_maximum": lambda h, g: ops.maximum(h, g) - ops.minimum(h, 0.0),
    "ops_comparison": lambda h, g: h * ops.cast(ops.greater(g, 0), "float32"),
    "ops_like": lambda h, g: h * ops.zeros_like(g) + ops.ones_like(h) * g,
    "ops_softmax_over_time": lambda h, g: ops.softmax(h, axis=1) + g,
    "ops_attention": lambda h, g: ops.matmul(
        ops.softmax(ops.matmul(h, ops.transpose(g, (0, 2, 1)))), g
    ),
    "ops_attention_by_einsum": lambda h, g: ops.einsum(
        "bij,bju->biu", ops.softmax(ops.einsum("biu,bju->bij", h, g)), h
    ),
    "ops_einsum_with_ellipsis": lambda h, g: ops.einsum(
        "...tu,...tu->...u", h, g
    ),
    "ops_tensordot_over_time": lambda h, g: ops.tensordot(
        h, np.ones((TIME, 2), "float32"), axes=[[1], [0]]
    )[..., 0],
    "ops_outer_product": lambda h, g: ops.matmul(
        ops.matmul(ops.expand_dims(h, -1), ops.expand_dims(g, -2)),
        ops.expand_dims(g, -1),
    )[..., 0],
    "ops_concatenate": lambda h, g: ops.concatenate([h, g], axis=-1),
    "ops_concatenate_over_time": lambda h, g: ops.concatenate([h, g], axis=1),
    "ops_stack": lambda h, g: ops.sum(ops.stack([h, g], axis=1), axis=1),
    "ops_split_over_time": lambda h, g: ops.split(h, [2], axis=1)[0],
    "ops_unstack": lambda h, g: ops.unstack(h, axis=1)[2],
    "ops_transpose": lambda h, g: ops.transpose(
        ops.transpose(h, (0, 2, 1)) * 2.0, (0, 2, 1)
    ),
    "ops_swapaxes": lambda h, g: ops.swapaxes(ops.swapaxes(h, 1, 2), 1, 2),
    "ops_moveaxis": lambda h, g: ops.moveaxis(ops.moveaxis(h, 2, 0), 0, 2),
    "ops_reshape": lambda h, g: ops.reshape(h, (-1, TIME, 1, 6))[:, :, 0],
    "ops_reshape_batch": lambda h, g: ops.reshape(
        ops.reshape(h, (-1, 6)), (-1, TIME, 6)
    ),
    "ops_reshape_to_one_axis": lambda h, g: ops.reshape(h, (-1, TIME * 6)),
    "ops_expand_and_squeeze": lambda h, g: ops.squeeze(
        ops.expand_dims(h, 1) + ops.expand_dims(g, 1), axis=1
    ),
    "ops_broadcast": lambda h, g: h + g[:, :1],
    "ops_broadcast_to": lambda h, g: ops.broadcast_to(
        h[:, None, 0, :], (BATCH, 4, 6)
    ),
    "ops_slice_of_time": lambda h, g: h[:, 1:-1] + g[:, ::2][:, :3],
    "ops_last_step": lambda h, g: h[:, -1, :] * g[:, 0],
    "ops_new_axis": lambda h, g: (h[:, None] + g[:, :, None])[:, 0],
    "ops_whole_slice": lambda h, g: h[..., :6] + g[:, :, 0:],
    "ops_mean_over_time": lambda h, g: ops.mean(h, axis=1, keepdims=True) + g,
    "ops_max_over_time": lambda h, g: ops.max(h, axis=1) + ops.min(g, axis=1),
    "ops_std_over_time": lambda h, g: ops.std(h, axis=1) + ops.var(g, axis=1),
    "ops_norm_over_time": lambda h, g: ops.norm(h, axis=1) + g[:, 0],
    "ops_logsumexp_over_time": lambda h, g: ops.logsumexp(h, axis=1),
    "ops_cumsum_over_time": lambda h, g: ops.cumsum(h, axis=1) + g,
    "ops_flip_time": lambda h, g: ops.flip(h, axis=1) + ops.roll(g, 1, axis=1),
    "ops_sort_time": lambda h, g: ops.sort(h, axis=1),
    "ops_take_time": lambda h, g: ops.take(h, np.array([0, 2]), axis=1),
    "ops_repeat_time": lambda h, g: ops.repeat(h, 2, axis=1),
    "ops_tile_time": lambda h, g: ops.tile(h, (1, 2, 1)),
    "ops_pad_time": lambda h, g: ops.pad(h, ((0, 0), (1, 0), (0, 0))),
    "ops_take_along_time": lambda h, g: ops.take_along_axis(
        h, ops.argsort(g, axis=1), axis=1
    ),
    "ops_slice": lambda h, g: ops.slice_update(
        h, (0, 1, 0), ops.slice(g, (0, 0, 0), (BATCH, 2, 6))
    ),
    "ops_repeated_and_turned": lambda h, g: ops.flip(
        ops.repeat(h, 2, axis=-1), axis=-1
    ),
    "ops_stop_gradient": lambda h, g: ops.stop_gradient(h) + g,
}.items():

    @named(_name)
    def _operation(function=_function):
        x = fixed_sequence()
        return keras.Model(x, head(function(lstm(6)(x), lstm(6)(x))))


# What several layers hold, or what is made in a way of its own.


@case
def wrapped_and_called_by_itself():
    x, dense = sequence(), layers.Dense(4)
    wrapped = layers.TimeDistributed(dense)(lstm(6)(x))
    return keras.Model(x, head(wrapped + dense(lstm(6)(x)))), (
        "recurrent",
        "dense",
    )


@case
def called_by_itself_and_wrapped():
    x, dense = sequence(), layers.Dense(4)
    called = dense(lstm(6)(x))
    return keras.Model(
        x, head(called + layers.TimeDistributed(dense)(lstm(6)(x)))
    )


@case
def wrapped_twice():
    x, dense = sequence(), layers.Dense(4)
    first, second = (layers.TimeDistributed(dense)(lstm(6)(x)) for _ in "ab")
    return keras.Model(x, head(first * second))


@case
def a_nested_model_wrapped_and_called():
    inner = keras.Sequential([keras.Input((TIME, 3)), lstm(6), layers.GRU(5)])
    x, z = fixed_sequence(), keras.Input((4, TIME, 3))
    return keras.Model(
        [x, z], [head(inner(x)), layers.TimeDistributed(inner)(z)[:, :, :0]]
    )


@case
def an_explicit_mask_of_uneven_directions():
    x = tokens()
    h = layers.Embedding(10, 4)(x)
    h = layers.Bidirectional(layers.LSTM(6))(h, mask=ops.not_equal(x, 0))
    return keras.Model(x, head(h))


@case
def constants_as_inputs_of_layers():
    x = sequence()
    h = lstm(6, name="free")(x)
    state = ops.ones((BATCH, 6))
    fixed = lstm(6)(x, initial_state=[state, state])
    fixed = layers.Multiply()([fixed, np.ones((1, 1, 6), "float32")])
    return keras.Model(x, head(layers.Concatenate()([h, fixed])))


@case
def an_initializer_of_one_shape():
    x = sequence()
    kernel = keras.initializers.Constant(np.ones((6, 2)))
    dense = layers.Dense(2, kernel_initializer=kernel)
    return keras.Model(x, dense(lstm(6)(x)))


@case
def einsum_dense_of_the_first_dimensions():
    x = fixed_sequence()
    h = layers.Permute((2, 1))(lstm(6)(x))
    return keras.Model(x, layers.EinsumDense("ab...,bc->ac...", 4)(h))


@case
def low_rank_adaptation():
    x = sequence()
    dense = layers.Dense(4)
    model = keras.Model(x, head(lstm(5)(dense(lstm(6)(x)))))
    dense.enable_lora(2, lora_alpha=7.0)
    return model


@case
def an_equation_with_an_unknown_size():
    x, z = fixed_sequence(), keras.Input((None, TIME))
    h = layers.Permute((2, 1))(lstm(6)(x))
    y = ops.einsum("but,bft->bf", h, z)
    return keras.Model([x, z], [head(lstm(5, name="free")(x)), y])


@case
def repeated_with_the_batch():
    x = keras.Input(batch_shape=(BATCH, TIME, 3))
    h = layers.RepeatVector(4)(ops.transpose(layers.GRU(6)(x)))
    return keras.Model(x, head(ops.transpose(h, (2, 1, 0))))
