"""What the tracer finds, and what it leaves alone."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests.cases import (
    CASES,
    FEATURES,
    TIME,
    fixed_sequence,
    head,
    lstm,
    randomize,
    sequence,
)

BACKEND = keras.backend.backend()


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
    "dense_of_time_with_a_sum": lambda h: layers.Dense(
        4, activation=lambda x: ops.cumsum(x, axis=1), name="dense_of_time"
    )(ops.transpose(h, (0, 2, 1))),
    "einsum_dense_of_time_with_a_sum": lambda h: layers.EinsumDense(
        "btu,tc->buc",
        (6, 4),
        activation=lambda x: ops.flip(x, axis=1),
        name="einsum_dense_of_time",
    )(h),
    "einsum_dense_of_the_units": lambda h: layers.EinsumDense(
        "btu,tc->bcu",
        (4, 6),
        activation="softmax",
        name="einsum_dense_of_the_units",
    )(h),
    "depthwise_conv1d_of_units": lambda h: layers.DepthwiseConv1D(
        1, activation="softmax"
    )(h),
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
    structure = structure_read_by(MIXING[name])
    assert structure.pinned
    named = structure.pinned.replace("`", " ").split()
    assert any(
        word.startswith(name.split("_of_")[0].split("_over_")[0])
        for word in named
    ), structure.pinned


@pytest.mark.parametrize("backward", [False, True])
def test_an_activation_that_mixes_the_units_pins_them(backward):
    x = sequence()
    layer = layers.LSTM(6, activation="softmax", name="lstm")
    if backward:
        layer = layers.Bidirectional(layer)
    model = keras.Model(x, head(layer(x)))
    for structure in keras_iss.find_structures(model):
        assert "softmax" in structure.pinned


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
    structure = keras_iss.find_structures(keras.Model(x, head(h)))["gru"]
    assert "activation" in structure.pinned


def test_a_model_output_pins():
    x = sequence()
    h = lstm(6, name="lstm")(x)
    structure = keras_iss.find_structures(keras.Model(x, [h, head(h)]))["lstm"]
    assert "output of the model" in structure.pinned


def test_a_state_from_outside_pins():
    x, state = sequence(), keras.Input((6,))
    h = layers.GRU(6, name="gru")(x, initial_state=state)
    structure = keras_iss.find_structures(keras.Model([x, state], head(h)))[
        "gru"
    ]
    assert structure.pinned


def test_units_that_were_not_asked_for_pin_what_they_meet():
    x, h = fixed()
    y = layers.Add()([h, layers.Dense(6, name="projection")(x)])
    model = keras.Model(x, head(y))
    structure = keras_iss.find_structures(model)["lstm"]
    assert "projection" in structure.pinned and "'dense'" in structure.pinned
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
    assert structures["lstm"].norms()[3] == 0
    assert structures["lstm"].removed().tolist() == [False] * 4 + [True] * 2
    small = keras_iss.shrink(model)
    x = np.random.default_rng(0).normal(size=(2, 4, FEATURES))
    y, z = (ops.convert_to_numpy(called(x)) for called in (model, small))
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
    for structure in structures:
        assert "`outer` (Unknown) has no rule" in structure.pinned


def test_a_recurrent_layer_over_a_cell_without_a_rule_is_listed_and_pinned():
    x = sequence()
    model = keras.Model(x, head(layers.RNN(UnknownCell(), name="rnn")(x)))
    structure = keras_iss.find_structures(model)["rnn"]
    assert structure.size == 4 and "UnknownCell" in structure.pinned


def test_a_subclass_of_a_known_layer_is_not_taken_for_it():
    class Doubled(layers.LSTM):
        def call(self, sequences, initial_state=None, mask=None):
            return 2 * super().call(sequences, initial_state, mask)[..., ::-1]

    x = sequence()
    model = keras.Model(x, head(Doubled(6, name="doubled")(x)))
    structure = keras_iss.find_structures(model)["doubled"]
    assert (
        structure.size == 6
        and "`doubled` (Doubled) has no rule" in structure.pinned
    )


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

    model, found = structure()
    assert found.pinned is None
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


class OfTheLast(keras.layers.Layer):
    """A factor for each feature; its rule knows of the last dimension."""

    def build(self, shape):
        self.factor = self.add_weight(
            shape=(shape[-1],), initializer="random_normal", name="factor"
        )

    def call(self, x):
        return x * self.factor


@keras_iss.register_rule(OfTheLast)
def of_the_last(call, x):
    call.bias(call.operation.factor, {0: x.axis(-1)})
    return call.output({-1: x.axes[-1]})


def units_by_units(h):
    return ops.einsum("btu,btv->buv", h, h)


@pytest.mark.parametrize(
    "before",
    [
        layers.Permute((2, 1)),
        lambda h: ops.swapaxes(h, 1, 2),
        units_by_units,
        lambda h: ops.expand_dims(h[:, -1], -1),
        lambda h: ops.stack([ops.transpose(h, (0, 2, 1))] * 2, axis=1),
    ],
)
def test_units_along_a_dimension_that_a_rule_does_not_mention_stay(before):
    x = keras.Input((5, 4))
    h = OfTheLast(name="own")(before(lstm(6, name="lstm")(x)))
    model = keras.Model(x, layers.Dense(2)(h))
    reason = keras_iss.find_structures(model)["lstm"].pinned
    assert "`own` (OfTheLast) has a rule that does not say" in reason


class Forgets(OfTheLast):
    def call(self, x):
        return x * self.factor


@keras_iss.register_rule(Forgets)
def forgets(call, x):
    call.bias(call.operation.factor, {0: x.axis(-1)})
    call.tie(x.axis(-1), x.axis(-1))
    return call.output()


def test_units_that_a_rule_forgets_to_hand_on_stay():
    x = keras.Input((5, 4))
    h = Forgets(name="own")(lstm(6, name="lstm")(x))
    model = keras.Model(x, layers.Dense(2)(h))
    reason = keras_iss.find_structures(model)["lstm"].pinned
    assert "`own` (Forgets) has a rule that does not say" in reason


class SumOfProducts(keras.layers.Layer):
    def call(self, x, y):
        return ops.sum(x * y, axis=-1)


@keras_iss.register_rule(SumOfProducts)
def sum_of_products(call, x, y):
    call.contract(x.axis(-1), y.axis(-1))
    return call.output()


class OwnDense(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)


@keras_iss.register_rule(OwnDense)
def own_dense(call, x):
    call.weight(call.operation.kernel, {0: x.axis(-1)})
    return call.output()


@pytest.mark.parametrize(
    "read",
    [lambda h: SumOfProducts()(h, h), OwnDense(), OfTheLast()],
)
def test_units_that_a_rule_mentions_may_go(read):
    x = keras.Input((5, 4))
    y = read(lstm(6, name="lstm")(x))
    model = keras.Model(x, layers.Dense(2)(y))
    assert keras_iss.find_structures(model)["lstm"].pinned is None
    keras_iss.shrink(model, keep={"lstm": [0, 2, 3]})


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
    assert [
        structure.size for structure in keras_iss.find_structures(model)
    ] == [2, 4]


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
    structure = keras_iss.find_structures(model)["recurrent"]
    assert structure.pinned is None and structure.consumers == ("dense",)
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
    structure = keras_iss.find_structures(model)["recurrent"]
    assert structure.size == 6 and "`unsteady` (Unsteady)" in structure.pinned


def test_a_variable_with_two_owners_pins_if_one_must_keep_it():
    x, z = keras.Input((None, 6)), keras.Input((None, 6))
    shared = layers.Dense(2, name="shared")
    y = layers.Concatenate(axis=1)([shared(lstm(6, name="lstm")(x)), shared(z)])
    structure = keras_iss.find_structures(keras.Model([x, z], y))["lstm"]
    assert "`shared`" in structure.pinned and "kernel" in structure.pinned


# Subclasses, and layers that were changed after they were made.


def in_a_model(layer, units=6):
    """A model around a recurrent layer."""
    x = sequence()
    model = keras.Model(x, head(layer(x)))
    randomize(model)
    return model


@keras.saving.register_keras_serializable("tests")
class Compatible(layers.LSTM):
    """Takes an argument that old files have."""

    def __init__(self, *args, time_major=False, **kwargs):
        super().__init__(*args, **kwargs)


class Renamed(layers.GRU):
    """Another name, and nothing else."""


class OfAnotherCell(layers.SimpleRNN):
    """A constructor that puts in what the rule reads."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.cell.activation = keras.activations.sigmoid

    def get_config(self):
        return {**super().get_config(), "activation": "sigmoid"}

    @classmethod
    def from_config(cls, config):
        config.pop("activation")
        return cls(**config)


class Wrapped(layers.Dense):
    """Between two constructors, another one."""


class WrappedTwice(Wrapped):
    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Compatible(6, name="one"),
        lambda: Renamed(6, name="one", return_sequences=True),
        lambda: OfAnotherCell(6, name="one"),
        lambda: layers.Bidirectional(
            Compatible(6, name="one"), merge_mode="sum"
        ),
    ],
)
def test_a_subclass_with_a_constructor_only_has_the_rule_of_its_parent(make):
    model = in_a_model(make())
    structures = keras_iss.find_structures(model)
    structure = structures.free[0]
    keras_iss.prune(model, keep={structure.name: [1, 4]})
    small = keras_iss.shrink(model)
    assert small.count_params() < model.count_params()
    x = np.random.default_rng(0).normal(size=(2, 4, FEATURES))
    y, z = (ops.convert_to_numpy(called(x)) for called in (model, small))
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)


def test_a_subclass_of_a_subclass_with_a_constructor_only_carries_units():
    x = sequence()
    h = lstm(6, name="lstm")(x)
    model = keras.Model(x, head(WrappedTwice(4)(h)))
    assert keras_iss.find_structures(model)["lstm"].pinned is None


class Louder(layers.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 2 * super().call(sequences, initial_state, mask, training)


class Halved:
    """Comes between a layer and what it inherits from."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return super().call(sequences, initial_state, mask, training) / 2


class Mixed(Halved, layers.GRU):
    """Defines nothing itself."""


class OtherMask(layers.LSTM):
    def compute_mask(self, inputs, mask):
        return None


class Property(layers.GRU):
    @property
    def return_state(self):
        return False

    @return_state.setter
    def return_state(self, value):
        pass


class OtherCell(layers.LSTMCell):
    def call(self, inputs, states, training=False):
        output, states = super().call(inputs, states, training)
        return ops.flip(output, -1), states


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Louder(6, name="one"), "`call`"),
        (lambda: Mixed(6, name="one"), "`call`"),
        (lambda: OtherMask(6, name="one"), "`compute_mask`"),
        (lambda: Property(6, name="one"), "`return_state`"),
    ],
)
def test_a_subclass_that_defines_a_method_needs_to_be_told_of(make, named):
    structure = keras_iss.find_structures(in_a_model(make()))["one"]
    assert structure.size == 6
    cls = type(make())
    assert f"it defines {named}" in structure.pinned
    assert f"register_rule({cls.__name__}, like=" in structure.pinned


def test_a_cell_that_defines_a_method_pins():
    model = in_a_model(layers.RNN(OtherCell(6), name="one"))
    assert "OtherCell" in keras_iss.find_structures(model)["one"].pinned


def test_like_says_that_a_subclass_computes_what_its_parent_does():
    class Logged(layers.LSTM):
        def call(
            self, sequences, initial_state=None, mask=None, training=False
        ):
            return super().call(sequences, initial_state, mask, training)

    class LoggedCell(layers.GRUCell):
        def call(self, inputs, states, training=False):
            return super().call(inputs, states, training)

    keras_iss.register_rule(Logged, like=layers.LSTM)
    keras_iss.register_rule(LoggedCell, like=layers.GRUCell)
    for layer in (Logged(6), layers.RNN([layers.GRUCell(3), LoggedCell(6)])):
        model = in_a_model(layer)
        structures = keras_iss.find_structures(model)
        assert len(structures.free) == len(structures)
        small = keras_iss.shrink(model, keep={structures.free[-1].name: 2})
        assert small.count_params() < model.count_params()


def test_like_takes_a_parent_with_a_rule():
    class Mine(layers.LSTM):
        pass

    class Base(layers.Layer):
        pass

    class Derived(Base):
        pass

    with pytest.raises(TypeError, match="`Mine` is a subclass"):
        keras_iss.register_rule(Mine, like=layers.GRU)
    with pytest.raises(TypeError, match="like='LSTM'"):
        keras_iss.register_rule(Mine, like="LSTM")
    with pytest.raises(ValueError, match="`Base` has none"):
        keras_iss.register_rule(Derived, like=Base)
    with pytest.raises(TypeError, match="Received none"):
        keras_iss.register_rule(like=layers.LSTM)


def test_a_subclass_whose_constructor_knows_the_size_pins():
    class Encoder(layers.LSTM):
        def __init__(self, **kwargs):
            kwargs.pop("units", None)
            super().__init__(6, **kwargs)

    model = in_a_model(Encoder(name="one"))
    before = keras.layers.LSTM(2).name
    structure = keras_iss.find_structures(model)["one"]
    assert "another `units`" in structure.pinned
    # Finding made a layer to try it, and nothing shows of that.
    number = int(before.rpartition("_")[2]) if "_" in before else 0
    assert keras.layers.LSTM(2).name == f"lstm_{number + 1}"


@pytest.mark.parametrize("name", ["call", "compute_mask", "build", "__call__"])
def test_a_method_that_was_replaced_on_the_layer_pins(name):
    layer = layers.LSTM(6, name="one")
    model = in_a_model(layer)
    assert keras_iss.find_structures(model)["one"].pinned is None
    before = getattr(layer, name)

    @functools.wraps(before)
    def replacement(*args, **kwargs):
        return before(*args, **kwargs)

    vars(layer)[name] = replacement
    reason = keras_iss.find_structures(model)["one"].pinned
    assert f"its `{name}` was replaced" in reason


def test_a_method_that_was_replaced_on_a_cell_or_in_a_wrapper_pins():
    for layer in (
        layers.GRU(6, name="one"),
        layers.Bidirectional(layers.GRU(6, name="one"), name="both"),
        layers.RNN([layers.GRUCell(6), layers.LSTMCell(4)], name="one"),
    ):
        model = in_a_model(layer)
        inner = layer._flatten_layers()[-1]
        call = inner.call
        inner.call = lambda *args, **kwargs: call(*args, **kwargs)
        for structure in keras_iss.find_structures(model):
            assert "its `call` was replaced" in structure.pinned


def test_a_model_whose_call_was_replaced_pins():
    x = sequence()
    inner = keras.Model(x, lstm(6, name="lstm")(x), name="inner")
    for model in (inner, keras.Model(x, head(inner(x)))):
        inner.call = lambda x, **kwargs: x
        for structure in keras_iss.find_structures(model):
            assert (
                "`inner` (Functional) has no rule: its `call`"
                in structure.pinned
            )
        del inner.call


def test_a_call_that_was_replaced_on_a_class_pins(monkeypatch):
    model = in_a_model(layers.GRU(6, name="one"))
    call = layers.GRU.call
    monkeypatch.setattr(
        layers.GRU, "call", lambda *args, **kwargs: call(*args, **kwargs)
    )
    assert "`call` of GRU was replaced" in (
        keras_iss.find_structures(model)["one"].pinned
    )


@pytest.mark.parametrize("return_sequences", [False, True])
def test_directions_of_a_subclass_of_bidirectional_stay_of_one_size(
    return_sequences,
):
    class Both(layers.Bidirectional):
        """Surgery does not take it apart."""

    x = sequence()
    layer = layers.GRU(6, return_sequences=return_sequences)
    model = keras.Model(x, head(Both(layer)(x)))
    structures = keras_iss.find_structures(model)
    first, second = (structure.name for structure in structures.free)
    stays = structures.staying({first: [0, 1], second: [0, 1, 2, 3]})
    assert [x.sum() for x in stays.values()] == [4, 4]


# Rules that fail.


def test_a_model_does_not_fail_for_a_mistake_in_a_rule_of_keras_iss(
    monkeypatch,
):
    from keras_iss.tracing import registry

    def mistaken(call, x1, x2):
        return call.output({0: x1.axes[7]})

    mistaken.__module__ = "keras_iss.tracing.rules.elementwise"
    monkeypatch.setitem(registry._OPERATION_RULES, "Multiply", mistaken)
    x, h = fixed()
    model = keras.Model(x, head(h * 2.0))
    with pytest.warns(UserWarning, match="rule failed.*report it"):
        structure = keras_iss.find_structures(model)["lstm"]
    assert "IndexError" in structure.pinned


def test_an_error_of_a_rule_of_ones_own_is_raised():
    class Failing(layers.Layer):
        def call(self, x):
            return x

        def compute_output_shape(self, shape):
            return shape

    @keras_iss.register_rule(Failing)
    def rule(call, x):
        raise IndexError("a mistake of one's own")

    x = sequence()
    h = layers.TimeDistributed(Failing())(lstm(6)(x))
    for y in (h, Failing()(h)):
        with pytest.raises(IndexError, match="of one's own"):
            keras_iss.find_structures(keras.Model(x, head(y)))


# Axes of which only one may lose units.


def outer_product(first, second):
    """All the products of two vectors, in a row."""
    pairs = first[:, :, None] * second[:, None, :]
    return layers.Flatten()(pairs)


def vectors(*sizes):
    x = keras.Input((TIME, FEATURES))
    names = "abcdefg"
    return x, [layers.GRU(n, name=name)(x) for n, name in zip(sizes, names)]


def test_of_two_axes_in_a_row_the_longer_one_loses_units():
    x, (a, b) = vectors(3, 6)
    model = keras.Model(x, head(outer_product(a, b)))
    structures = keras_iss.find_structures(model)
    assert "breaks the axis of the units apart" in structures["a"].pinned
    assert structures["b"].pinned is None
    assert_cut_without_a_trace(model, {"b": [2, 4]})


def assert_cut_without_a_trace(model, keep):
    randomize(model)
    keras_iss.prune(model, keep=keep)
    small = keras_iss.shrink(model)
    assert small.count_params() < model.count_params()
    x = np.random.default_rng(0).normal(size=(2, TIME, FEATURES))
    for wanted, other in zip(
        *(keras.tree.flatten(model(x)) for model in (model, small))
    ):
        np.testing.assert_allclose(
            *map(ops.convert_to_numpy, (wanted, other)), rtol=1e-5, atol=1e-5
        )


def test_an_axis_that_stays_for_what_comes_later_does_not_pin_another():
    x, (a, b) = vectors(3, 6)
    model = keras.Model(x, [head(outer_product(a, b)), b])
    structures = keras_iss.find_structures(model)
    assert "output of the model" in structures["b"].pinned
    assert structures["a"].pinned is None
    assert_cut_without_a_trace(model, {"a": [1]})


def test_what_comes_of_it_is_tied_as_if_it_had_been_known():
    """The sum needs the product's units, which only the second walk has."""
    x, (a, b, c) = vectors(3, 2, 6)
    y = layers.Add()([outer_product(a, b), c])
    model = keras.Model(x, [head(y), b])
    structures = keras_iss.find_structures(model)
    assert structures["a"].pinned is None
    assert structures["c"] is structures["a"]
    assert_cut_without_a_trace(model, {"a": [0, 2]})


def test_what_comes_of_it_stays_if_it_has_to():
    x, (a, b, c) = vectors(3, 2, 6)
    y = layers.Add()([outer_product(a, b), c])
    model = keras.Model(x, [head(y), a, b])
    for structure in keras_iss.find_structures(model):
        assert structure.pinned, structure.name


def test_one_conflict_may_wait_for_another():
    x, (a, b, c) = vectors(2, 2, 2)
    first = outer_product(a, b)
    second = outer_product(first, c)
    model = keras.Model(x, [head(second), layers.Dense(1)(first)])
    structures = keras_iss.find_structures(model)
    free = [structure.name for structure in structures.free]
    assert len(free) == 1
    assert_cut_without_a_trace(model, {free[0]: [1]})


def test_units_that_were_not_asked_for_do_not_pin_what_they_are_laid_beside():
    x, h = fixed()
    weights = layers.Dense(2, name="weights")(h)
    context = layers.Dot(axes=(1, 1))([weights, h])
    model = keras.Model(x, head(layers.Flatten()(context)))
    assert keras_iss.find_structures(model)["lstm"].pinned is None
    both = keras_iss.find_structures(model, ("recurrent", "dense"))
    assert both["lstm"].pinned is None
    assert "breaks the axis" in both["weights"].pinned
    assert_cut_without_a_trace(model, {"lstm": [0, 3]})


@pytest.mark.parametrize(
    "drop",
    [
        layers.Flatten(),
        lambda x: ops.squeeze(x, 1),
        lambda x: ops.reshape(x, (-1, 6)),
        lambda x: layers.Reshape((6,))(x),
        lambda x: x[:, 0],
        lambda x: layers.Reshape((1, 6, 1))(x)[:, 0, :, 0],
    ],
)
@pytest.mark.parametrize("include", [("recurrent",), ("recurrent", "dense")])
def test_attention_weights_do_not_pin_what_they_weigh(drop, include):
    x, h = fixed()
    weights = layers.Softmax(axis=1)(layers.Dense(1)(h))
    context = layers.Dot(axes=(1, 1))([weights, h])
    model = keras.Model(x, head(drop(context)))
    assert keras_iss.find_structures(model, include)["lstm"].pinned is None


@pytest.mark.parametrize("widths", [(4, 1), (1, 4), (4, 4), (1, 1)])
@pytest.mark.parametrize(
    "attention",
    [
        lambda: layers.Attention(score_mode="concat"),
        lambda: layers.Attention(score_mode="concat", use_scale=True),
        lambda: layers.AdditiveAttention(),
        lambda: layers.AdditiveAttention(use_scale=False),
    ],
)
@pytest.mark.parametrize("labelled", ["query", "key", "both"])
def test_features_that_attention_stretches_are_exact_or_pinned(
    widths, attention, labelled
):
    x = fixed_sequence()
    query, key = (
        (lstm if labelled in (name, "both") else layers.Dense)(n, name=name)(x)
        for name, n in zip(("query", "key"), widths)
    )
    value = lstm(5, name="value")(x)
    model = keras.Model(x, head(attention()([query, value, key])))
    randomize(model)
    structures = keras_iss.find_structures(model)
    assert structures["value"].pinned is None
    assert_cut_without_a_trace(
        model, {structure.name: [0] for structure in structures.free}
    )


def test_what_keras_iss_cannot_ask_of_the_numbers_of_a_dot_mode_is_pinned():
    """Keras makes the model, though it could not run."""
    x = fixed_sequence()
    y = layers.Attention()([lstm(4, name="lstm")(x), x, layers.Dense(1)(x)])
    structure = keras_iss.find_structures(keras.Model(x, head(y)))["lstm"]
    assert "stretches" in structure.pinned


def one_long_dimension(shape):
    """A sum with a constant, of a sequence of 4 steps and 6 units."""

    def add(x):
        steps = shape[-2] if len(shape) > 1 and shape[-1] == 1 else 4
        h = layers.LSTM(6, return_sequences=True, name="lstm")(x[:, :steps])
        return h + np.ones(shape, "float32")

    return add


def merged(layer):
    def merge(x):
        h = layers.LSTM(6, return_sequences=True, name="lstm")(x)
        return layer()([h, keras.ops.sum(x, axis=-1, keepdims=True)])

    return merge


def depthwise(steps, **kwargs):
    def convolve(x):
        h = layers.LSTM(6, return_sequences=True, name="lstm")(x[:, :steps])
        return layers.DepthwiseConv1D(
            1, data_format="channels_first", **kwargs
        )(layers.Permute((2, 1))(h))

    return convolve


@pytest.mark.parametrize(
    ("build", "is_free"),
    [
        (one_long_dimension((4, 1)), False),
        (one_long_dimension((1, 4, 1)), False),
        (one_long_dimension((6, 1)), False),
        (one_long_dimension((8, 1)), False),
        (one_long_dimension((1, 1)), True),
        (one_long_dimension((1, 1, 1)), True),
        (merged(layers.Add), False),
        (merged(layers.Average), False),
        (merged(layers.Subtract), True),
        (depthwise(4), BACKEND != "tensorflow"),
        (depthwise(6), BACKEND != "tensorflow"),
        (depthwise(8), True),
        (depthwise(4, use_bias=False), True),
    ],
)
def test_what_keras_may_take_for_a_bias_of_the_last_axis(build, is_free):
    """On TensorFlow, a sum with a `(4, 1)` depends on the number of units."""
    x = keras.Input(batch_shape=(1, 8, 3))
    y = layers.Dense(2)(layers.Flatten()(build(x)))
    pinned = keras_iss.find_structures(keras.Model(x, y))["lstm"].pinned
    assert (pinned is None) == is_free
    assert is_free or "for a bias of the last axis" in pinned


@pytest.mark.parametrize(
    ("bias_axes", "is_free"), [("t", False), ("e", True), ("te", True)]
)
def test_a_bias_that_keras_may_add_to_another_axis(bias_axes, is_free):
    x = keras.Input((4, 3))
    h = layers.EinsumDense(
        "btd,de->bte", (4, 6), bias_axes=bias_axes, name="projected"
    )(layers.LSTM(5, return_sequences=True)(x))
    model = keras.Model(x, layers.Dense(2)(h))
    pinned = keras_iss.find_structures(model, "dense")["projected"].pinned
    assert (pinned is None) == is_free
    assert is_free or "for a bias of the last axis" in pinned
