"""What the tracer finds, and what it leaves alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests.cases import CASES, FEATURES, TIME, head, lstm, sequence


def fixed(units=6):
    """A model's input, and an LSTM of it that is called `lstm`."""
    x = keras.Input((TIME, FEATURES))
    return x, layers.LSTM(units, return_sequences=True, name="lstm")(x)


def structure_read_by(function):
    """The structure of an LSTM whose output a function reads."""
    x, h = fixed()
    y = keras.tree.flatten(function(h))[0]
    y = layers.Dense(1)(layers.Flatten()(ops.cast(y, "float32")))
    return keras_iss.find_structures(keras.Model(x, y))["lstm"]


# Name in the reason: what the operation does to the units.
MIXING = {
    "sum_of_what_is_not_zero": lambda h: ops.sum(ops.sigmoid(h), axis=-1),
    "sum_of_a_shifted_unit": lambda h: ops.sum(h + 1.0, axis=(1, 2)),
    "norm_of_what_is_not_zero": lambda h: ops.norm(ops.cos(h), axis=-1),
    "norm_of_the_smallest": lambda h: ops.norm(h, ord=float("-inf"), axis=-1),
    "norm_of_negative_order": lambda h: ops.norm(h, ord=-1, axis=(1, 2)),
    "normalize_of_what_is_not_zero": lambda h: ops.normalize(ops.exp(h)),
    "unit_normalization_of_what_is_not_zero": lambda h: (
        layers.UnitNormalization()(ops.softplus(h))
    ),
    "any_of_what_is_not_zero": lambda h: ops.any(h < 0.5, axis=-1),
    "count_nonzero_of_what_is_not_zero": lambda h: ops.count_nonzero(
        ops.equal(h, 0), axis=(1, 2)
    ),
    "all": lambda h: ops.all(h > 0, axis=-1),
    "cumsum_of_what_is_not_zero": lambda h: ops.cumsum(ops.sigmoid(h), axis=-1),
    "einsum_of_what_is_not_zero": lambda h: ops.einsum(
        "btu,btu->bt", ops.exp(h), ops.exp(h)
    ),
    "max_of_negative_ones": lambda h: ops.max(-ops.abs(h), axis=-1),
    "repeat_of_various_times": lambda h: ops.repeat(
        h, np.array([1, 2, 1, 2, 1, 2]), axis=-1
    ),
    "pad_of_edges": lambda h: ops.pad(
        h, ((0, 0), (0, 0), (1, 1)), mode="reflect"
    ),
    "average": lambda h: ops.average(
        h, axis=1, weights=np.arange(5.0, dtype="float32")
    ),
    "quantile": lambda h: ops.quantile(h, 0.5, axis=-1),
    "slice_update": lambda h: ops.slice_update(
        h, (0, 0, 1), np.ones((1, 2, 2), "float32")
    ),
    "layer_normalization_of_time": lambda h: layers.LayerNormalization(axis=1)(
        h
    ),
    "depthwise_conv1d_over_the_units": lambda h: layers.DepthwiseConv1D(2)(
        layers.Permute((2, 1))(h)
    ),
    "softmax_mask": lambda h: layers.Softmax(axis=1, name="softmax_mask")(
        h, mask=np.ones((1, 1, 6), "float32")
    ),
    "softmax": lambda h: ops.softmax(h, axis=-1),
    "log_softmax": lambda h: ops.log_softmax(h),
    "activation": lambda h: layers.Activation("softmax")(h),
    "softmax_layer": lambda h: layers.Softmax(name="softmax_layer")(h),
    "mean": lambda h: ops.mean(h, axis=(1, 2)),
    "max": lambda h: ops.max(h, axis=2, keepdims=True),
    "min": lambda h: ops.min(h, axis=(1, 2), keepdims=True),
    "prod": lambda h: ops.prod(h, axis=-1),
    "std": lambda h: ops.std(h, axis=-1),
    "var": lambda h: ops.var(h, axis=-1),
    "argmax": lambda h: ops.argmax(h, axis=-1),
    "argsort": lambda h: ops.argsort(h),
    "sort": lambda h: ops.sort(h),
    "top_k": lambda h: ops.top_k(h, 2)[0],
    "logsumexp": lambda h: ops.logsumexp(h, axis=-1),
    "cumprod": lambda h: ops.cumprod(h, axis=2),
    "roll": lambda h: ops.roll(h, 1, axis=2),
    "get_item": lambda h: h[:, :, :3],
    "get_item_of_one": lambda h: h[..., 0],
    "take": lambda h: ops.take(h, np.array([0, 1]), axis=2),
    "take_along_axis": lambda h: ops.take_along_axis(
        h, np.zeros((1, 1, 6), "int32"), axis=2
    ),
    "slice": lambda h: ops.slice(h, [0, 0, 0], [1, TIME, 3]),
    "split": lambda h: ops.split(h, 2, axis=-1),
    "unstack": lambda h: ops.unstack(h, axis=-1),
    "reshape": lambda h: ops.reshape(h, (-1, TIME, 2, 3)),
    "reshape_layer": lambda h: layers.Reshape(
        (3, TIME * 2), name="reshape_layer"
    )(h),
    "matmul": lambda h: ops.matmul(h, np.ones((6, 2), "float32")),
    "tensordot": lambda h: ops.tensordot(h, np.ones((6, 2), "float32"), 1),
    "tril": lambda h: ops.tril(h),
    "fft": lambda h: ops.fft((h, h))[0],
    "glu": lambda h: ops.glu(h),
    "squeeze": lambda h: ops.squeeze(h[:, :1]),
    "log": lambda h: ops.log(h),
    "reciprocal": lambda h: ops.reciprocal(h),
    "divide": lambda h: 1.0 / h,
    "log_of_one_at_zero": lambda h: ops.log(ops.exp(h) - 1.5),
    "log1p": lambda h: ops.log1p(-(1 - h * h)),
    "arctanh": lambda h: ops.arctanh(1 - h * h),
    "sqrt": lambda h: ops.sqrt(h - 1.0),
    "power": lambda h: (h - 1.0) ** 0.5,
    "clip": lambda h: ops.clip(h, np.zeros(6), np.ones(6)),
    "einsum_of_a_diagonal": lambda h: ops.einsum(
        "ii,bti->bti", np.eye(6, dtype="float32"), h
    ),
    "add": lambda h: h + np.ones(6, "float32"),
    "multiply": lambda h: h * np.ones((TIME, 6), "float32"),
    "layer_normalization": lambda h: layers.LayerNormalization()(h),
    "group_normalization": lambda h: layers.GroupNormalization(2)(h),
    "rms_normalization": lambda h: layers.RMSNormalization()(h),
    "batch_normalization": lambda h: layers.BatchNormalization(axis=1)(h),
    "spectral_normalization": lambda h: layers.SpectralNormalization(
        layers.Dense(2)
    )(h),
    "conv1d_groups": lambda h: layers.Conv1D(
        2, 2, groups=2, name="conv1d_groups"
    )(h),
    "conv1d_over_the_units": lambda h: layers.Conv1D(
        2, 2, name="conv1d_over_the_units"
    )(layers.Permute((2, 1))(h)),
    "lstm_over_the_units": lambda h: layers.LSTM(2, name="lstm_over_the_units")(
        layers.Permute((2, 1))(h)
    ),
    "max_pooling1d": lambda h: layers.MaxPooling1D(2)(
        layers.Permute((2, 1))(h)
    ),
    "global_average_pooling1d": lambda h: layers.GlobalAveragePooling1D()(
        layers.Permute((2, 1))(h)
    ),
    "masking": lambda h: layers.Masking(0.5)(h),
    "lambda": lambda h: layers.Lambda(lambda x: x * 2, name="lambda")(h),
    "grouped_query_attention": lambda h: layers.GroupQueryAttention(2, 2, 1)(
        h, h
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_or_indexes_the_units_pins_them_and_is_named(name):
    one = structure_read_by(MIXING[name])
    assert one.pinned
    named = one.pinned.replace("`", " ").split()
    assert any(
        word.startswith(name.split("_of_")[0].split("_over_")[0])
        for word in named
    ), one.pinned


@pytest.mark.parametrize("backward", [False, True])
def test_an_activation_that_mixes_the_units_pins_them(backward):
    x = sequence()
    layer = layers.LSTM(6, activation="softmax", name="lstm")
    if backward:
        layer = layers.Bidirectional(layer)
    model = keras.Model(x, head(layer(x)))
    for one in keras_iss.find_structures(model):
        assert "softmax" in one.pinned


@pytest.mark.parametrize(
    "shared",
    [
        lambda: layers.Reshape((TIME, 6), name="shared"),
        lambda: layers.Dropout(0.5, noise_shape=(None, 1, 6), name="shared"),
    ],
)
def test_a_size_in_a_shared_layer_pins_what_meets_what_must_stay(shared):
    shared = shared()
    x = keras.Input((TIME, 3))
    first = shared(layers.LSTM(6, return_sequences=True, name="lstm")(x))
    model = keras.Model(x, [head(first), shared(layers.Dense(6)(x))])
    assert keras_iss.find_structures(model)["lstm"].pinned


def test_finding_leaves_the_losses_of_a_subclassed_model():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm = layers.LSTM(4, activity_regularizer="l2")
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(self.lstm(x))

    model = Model()
    model(np.ones((2, TIME, 3), "float32"))
    before = list(model.losses)
    keras_iss.find_structures(model)
    assert len(model.losses) == len(before) == 1


def test_an_activation_of_ones_own_pins():
    x = sequence()
    h = layers.GRU(6, activation=lambda x: ops.tanh(x), name="gru")(x)
    one = keras_iss.find_structures(keras.Model(x, head(h)))["gru"]
    assert "activation" in one.pinned


def test_a_model_output_pins():
    x = sequence()
    h = lstm(6, name="lstm")(x)
    one = keras_iss.find_structures(keras.Model(x, [h, head(h)]))["lstm"]
    assert "output of the model" in one.pinned


def test_a_state_from_outside_pins():
    x, state = sequence(), keras.Input((6,))
    h = layers.GRU(6, name="gru")(x, initial_state=state)
    one = keras_iss.find_structures(keras.Model([x, state], head(h)))["gru"]
    assert one.pinned


def test_units_that_were_not_asked_for_pin_what_they_meet():
    x, h = fixed()
    y = layers.Add()([h, layers.Dense(6, name="projection")(x)])
    model = keras.Model(x, head(y))
    one = keras_iss.find_structures(model)["lstm"]
    assert "projection" in one.pinned and "'dense'" in one.pinned
    both = keras_iss.find_structures(model, include=("recurrent", "dense"))
    assert both["lstm"] is both["projection"]
    assert both["lstm"].pinned is None


def test_sums_over_units_need_units_that_are_zero_when_removed():
    def scores(**kwargs):
        x = sequence()
        h = lstm(6, name="lstm", **kwargs)(x)
        h = layers.Attention()([h, h])
        return keras_iss.find_structures(keras.Model(x, head(h)))["lstm"]

    assert scores().pinned is None and scores().contracted
    assert "not zero when removed" in scores(activation="sigmoid").pinned


def test_a_component_with_a_bias_stays_where_units_are_summed():
    x = sequence()
    h = lstm(6, name="lstm")(x)
    model = keras.Model(x, head(layers.Attention()([h, h])))
    structures = keras_iss.prune(model, keep={"lstm": [0, 1, 2]})
    bias = model.get_layer("lstm").cell.bias
    value = np.array(bias)
    value[3 + 12] = 0.5  # The candidate of component 3.
    bias.assign(value)
    assert structures["lstm"].lengths()[3] == 0
    assert structures["lstm"].removed().tolist() == [False] * 4 + [True] * 2
    small = keras_iss.shrink(model)
    x = np.random.default_rng(0).normal(size=(2, 4, FEATURES))
    y, z = (ops.convert_to_numpy(one(x)) for one in (model, small))
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)


class Unknown(keras.layers.Layer):
    """A layer without a rule, with a recurrent layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.GRU(4, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * 2


class UnknownCell(keras.layers.Layer):
    """A cell without a rule."""

    state_size = 4

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, inputs, states):
        output = ops.tanh(ops.matmul(inputs, self.kernel) + states[0])
        return output, [output]


def test_a_recurrent_layer_in_a_layer_without_a_rule_is_listed_and_pinned():
    x = sequence()
    model = keras.Model(x, head(Unknown(name="outer")(lstm(6, name="lstm")(x))))
    structures = keras_iss.find_structures(model)
    assert structures["outer/inner"].size == 4
    for one in structures:
        assert "`outer` (Unknown) has no rule" in one.pinned


def test_a_recurrent_layer_over_a_cell_without_a_rule_is_listed_and_pinned():
    x = sequence()
    model = keras.Model(x, head(layers.RNN(UnknownCell(), name="rnn")(x)))
    one = keras_iss.find_structures(model)["rnn"]
    assert one.size == 4 and "UnknownCell" in one.pinned


def test_a_subclass_of_a_known_layer_is_not_taken_for_it():
    class Doubled(layers.LSTM):
        def call(self, sequences, initial_state=None, mask=None):
            return 2 * super().call(sequences, initial_state, mask)[..., ::-1]

    x = sequence()
    model = keras.Model(x, head(Doubled(6, name="doubled")(x)))
    one = keras_iss.find_structures(model)["doubled"]
    assert one.size == 6 and "`doubled` (Doubled) has no rule" in one.pinned


def test_a_rule_of_ones_own_frees_the_units():
    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x):
            return x * self.scale

    def structure():
        x = sequence()
        h = Scale(name="scale")(lstm(6, name="lstm")(x))
        model = keras.Model(x, head(h))
        return model, keras_iss.find_structures(model)["lstm"]

    assert "`scale` (Scale) has no rule" in structure()[1].pinned

    @keras_iss.register_rule(Scale)
    def rule(call, x):
        call.bias(call.operation.scale, {0: x.axes[-1]})
        return call.output({-1: x.axes[-1]})

    model, one = structure()
    assert one.pinned is None
    small = keras_iss.shrink(model, keep={"lstm": 4})
    assert small.get_layer("scale").scale.shape == (4,)


def test_a_rule_that_forgets_a_variable_pins():
    class Forgetful(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x):
            return x * self.scale

    @keras_iss.register_rule(Forgetful)
    def rule(call, x):
        return call.output({-1: x.axes[-1]})

    x = sequence()
    model = keras.Model(x, head(Forgetful()(lstm(6, name="lstm")(x))))
    assert "scale" in keras_iss.find_structures(model)["lstm"].pinned


def test_rules_are_for_layer_classes():
    with pytest.raises(TypeError, match="layer classes"):
        keras_iss.register_rule("lstm")


def test_the_units_of_an_encoder_and_its_decoder_are_one_structure():
    model = CASES["states_of_an_encoder_in_a_decoder"]()
    structures = keras_iss.find_structures(model)
    assert len(structures) == 1
    assert structures["decoder"] is structures["encoder"]
    assert structures["encoder"].makers == ("encoder", "decoder")


def test_a_layer_that_meets_two_others_is_split_between_them():
    model = CASES["merged_by_add_of_a_concatenation"]()
    assert [one.size for one in keras_iss.find_structures(model)] == [2, 4]


def test_positions_of_components_are_in_the_order_of_the_units():
    x, h = fixed(3)
    structures = keras_iss.find_structures(
        keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))
    )
    by_name = {
        (part.variable.name, part.axis): part.index.tolist()
        for part in structures["lstm"].slices
        if "lstm" in part.variable.path
    }
    gates = [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert by_name == {
        ("kernel", 1): gates,
        ("recurrent_kernel", 0): [[0], [1], [2]],
        ("recurrent_kernel", 1): gates,
        ("bias", 0): gates,
    }
    variable, axis, index = structures["lstm"].slices[-1]
    assert (variable.name, axis) == ("kernel", 0)
    assert index.tolist() == [
        [k + 3 * t for t in range(TIME)] for k in range(3)
    ]


def test_finding_leaves_no_trace_on_a_subclassed_model():
    from tests.cases import Subclassed

    model = Subclassed()
    model(np.zeros((2, 4), "int32"))
    one = keras_iss.find_structures(model)["recurrent"]
    assert one.pinned is None and one.consumers == ("dense",)
    assert not any(layer._inbound_nodes for layer in model.layers)


def test_a_subclassed_model_without_a_graph_is_listed_and_pinned():
    class Unsteady(keras.Model):
        def __init__(self):
            super().__init__(name="unsteady")
            self.recurrent = lstm(6, name="recurrent")

        def call(self, x):
            if float(ops.convert_to_numpy(ops.sum(x))) > 0:
                return self.recurrent(x)
            return self.recurrent(-x)

    model = Unsteady()
    model(np.ones((2, 4, 3), "float32"))
    one = keras_iss.find_structures(model)["recurrent"]
    assert one.size == 6 and "`unsteady` (Unsteady)" in one.pinned


def test_a_variable_with_two_owners_pins_if_one_must_keep_it():
    x, z = keras.Input((None, 6)), keras.Input((None, 6))
    shared = layers.Dense(2, name="shared")
    y = layers.Concatenate(axis=1)([shared(lstm(6, name="lstm")(x)), shared(z)])
    one = keras_iss.find_structures(keras.Model([x, z], y))["lstm"]
    assert "`shared`" in one.pinned and "kernel" in one.pinned
