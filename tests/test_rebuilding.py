"""The smaller model is made of the real objects of the one that is there."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests.cases import head, inputs_for, lstm, randomize, sequence, tokens

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="nothing of it depends on the backend, and JAX compiles it all",
)

FACTOR = 3.0


def shrunk(model, keep=None):
    """The smaller model, which computes what the pruned one does."""
    randomize(model)
    structures = keras_iss.find_structures(model)
    keep = keep or {
        structure.name: list(range(structure.size - 2))
        for structure in structures.free
    }
    keras_iss.prune(model, keep=keep)
    # What `shrink` compares is not to be what tells.
    small = keras_iss.shrink(model, verify=False)
    assert small.count_params() < model.count_params()
    same_outputs(small, model, inputs_for(model))
    return small


def same_outputs(first, second, x, tolerance=1e-5):
    for wanted, other in zip(
        keras.tree.flatten(first(x)), keras.tree.flatten(second(x)), strict=True
    ):
        wanted, other = map(ops.convert_to_numpy, (wanted, other))
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(
            wanted, other, rtol=tolerance, atol=scale * tolerance
        )


def mask_of(output):
    """The mask that an output carries, as an array, or `None`."""
    mask = keras.src.backend.get_keras_mask(output)
    return None if mask is None else ops.convert_to_numpy(mask)


def after_lstm(*more):
    """A model with some layers behind an LSTM and a dense layer."""
    x = sequence()
    h = layers.Dense(4, name="behind")(lstm(6, name="lstm")(x))
    for layer in more:
        h = layer(h)
    return keras.Model(x, h)


# Functions.


def scaled_by(factor):
    def function(x):
        return ops.tanh(factor * x)

    return function


class Scaling:
    """Called like a function."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x

    def method(self, x):
        return self.factor * ops.tanh(x)


def linear(x):
    """Has the name of a function of Keras."""
    return -2.0 * x


FUNCTIONS = {
    "closures": lambda: (scaled_by(1.0), scaled_by(-3.0)),
    "lambdas that read the module": lambda: (
        lambda x: x * FACTOR,
        lambda x: -x * FACTOR,
    ),
    "callable objects": lambda: (Scaling(1.0), Scaling(-2.0)),
    "methods": lambda: (Scaling(1.0).method, Scaling(-2.0).method),
    "one named like Keras'": lambda: (linear, "linear"),
    "one of numpy": lambda: (np.negative, keras.activations.relu),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize(
    "make",
    [
        lambda f: layers.Dense(4, activation=f),
        lambda f: layers.Activation(f),
        lambda f: layers.Lambda(f),
        lambda f: layers.TimeDistributed(layers.Dense(4, activation=f)),
        lambda f: layers.TimeDistributed(
            keras.Sequential([keras.Input((4,)), layers.Dense(4, activation=f)])
        ),
        lambda f: layers.GRU(
            4, activation="tanh", recurrent_activation=f, return_sequences=True
        ),
    ],
    ids="Dense Activation Lambda TimeDistributed nested GRU".split(),
)
def test_functions_are_the_ones_that_are_there(kind, make):
    functions = FUNCTIONS[kind]()
    if "numpy" in kind:
        # Of NumPy, it cannot run on symbolic tensors.
        functions = (lambda x: ops.negative(x), "relu")
    if isinstance(functions[1], str) and make(linear).name.startswith("lambda"):
        functions = (functions[0], keras.activations.get(functions[1]))
    shrunk(after_lstm(*map(make, functions)))


def test_the_functions_themselves_go_over_not_copies():
    function, other = scaled_by(1.0), Scaling(2.0)
    model = after_lstm(
        layers.Dense(4, activation=function, name="first"),
        layers.Lambda(other, name="second"),
        layers.GRU(4, activation=function, return_sequences=True, name="third"),
    )
    small = shrunk(model)
    assert small.get_layer("first").activation is function
    assert small.get_layer("second").function is other
    assert small.get_layer("third").cell.activation is function


def test_the_directions_of_a_wrapper_keep_functions_set_later():
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True))
    model = after_lstm(both)
    for direction, factor in (
        (both.forward_layer, 1),
        (both.backward_layer, 3),
    ):
        direction.cell.activation = scaled_by(factor)
    shrunk(model)


def test_functions_of_a_lambda_beside_its_own_go_over():
    factor = 2.0
    layer = layers.Lambda(
        lambda x, by: x * by,
        output_shape=lambda shape: shape,
        mask=lambda x, mask: mask,
        arguments={"by": factor},
        name="scale",
    )
    small = shrunk(after_lstm(layer))
    assert small.get_layer("scale").mask is layer.mask


def squares(factor):
    def regularizer(x):
        return factor * ops.sum(ops.square(x))

    return regularizer


def test_regularizers_of_one_name_stay_apart():
    model = after_lstm(
        layers.Dense(4, kernel_regularizer=squares(1.0), name="one"),
        layers.Dense(4, kernel_regularizer=squares(10.0), name="ten"),
    )
    small = shrunk(model)
    for name in ("one", "ten"):
        old, new = (m.get_layer(name).losses[0] for m in (model, small))
        assert float(new) == pytest.approx(float(old), rel=1e-5)


# Classes.


def cell_class(factor):
    class Cell(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = self.state_size = units

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units))

        def call(self, x, states):
            h = ops.tanh(factor * (x @ self.kernel) + 0.5 * states[0])
            return h, [h]

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Cell


def scale_class(factor):
    class Scale(layers.Layer):
        def call(self, x):
            return factor * x

        def compute_output_shape(self, shape):
            return shape

    return Scale


def test_classes_of_one_name_stay_apart():
    shrunk(
        after_lstm(
            layers.RNN(cell_class(1.0)(4), return_sequences=True),
            layers.RNN(cell_class(-2.0)(4), return_sequences=True),
            layers.TimeDistributed(scale_class(2.0)()),
            layers.TimeDistributed(scale_class(-1.0)()),
        )
    )


def test_a_class_that_was_registered_anew_stays_the_old_one():
    """As by a cell of a notebook that runs twice."""
    first = keras.saving.register_keras_serializable("again")(scale_class(2.0))
    wrapped = layers.TimeDistributed(first())
    keras.saving.register_keras_serializable("again")(scale_class(-7.0))
    small = shrunk(after_lstm(wrapped))
    assert type(small.layers[-1].layer) is first


def test_a_class_that_has_the_name_of_one_of_keras_stays_itself():
    class Dense(layers.Dense):
        def call(self, x):
            return -super().call(x)

    shrunk(after_lstm(Dense(4), layers.TimeDistributed(Dense(3))))


# Attributes.


class Gain(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gain = 1.0
        self.function = None
        self.tags = {"a": [1, 2]}

    def call(self, x):
        x = self.gain * x
        return x if self.function is None else self.function(x)

    def compute_output_shape(self, shape):
        return shape


def test_what_was_set_on_a_layer_goes_over():
    gain = Gain(name="gain")
    model = after_lstm(gain, layers.TimeDistributed(Gain(name="inner")))
    gain.gain, gain.function = 3.0, lambda x: x + FACTOR
    gain.tags["a"].append(3)
    gain.added = "later"
    model.layers[-1].layer.gain = -2.0
    small = shrunk(model)
    new = small.get_layer("gain")
    assert (new.gain, new.function, new.added) == (3.0, gain.function, "later")
    assert new.tags["a"] == [1, 2, 3]
    assert small.layers[-1].layer.gain == -2.0


def test_what_was_set_on_stock_layers_goes_over():
    model = after_lstm(layers.Dropout(0.5, name="dropout"))
    model.get_layer("lstm").note = "mine"
    model.get_layer("dropout").rate = 0.1
    model.get_layer("behind").supports_masking = False
    model.vocabulary = ["a", "b"]
    small = shrunk(model)
    assert small.get_layer("lstm").note == "mine"
    assert small.get_layer("dropout").rate == 0.1
    assert not small.get_layer("behind").supports_masking
    assert small.vocabulary == ["a", "b"]


class Rescaled(layers.Layer):
    """Follows the units; one number is of their size, another is set."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.factor = 1.0 / width
        self.temperature = 1.0

    def call(self, x):
        return x / self.temperature

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras_iss.register_rule(Rescaled)
def rescaled(call, x):
    call.set_size("width", x.axes[-1])
    return call.output({-1: x.axes[-1]})


def test_what_follows_from_a_size_is_not_taken_for_set_later():
    x = sequence()
    layer = Rescaled(6, name="rescaled")
    model = keras.Model(x, head(layer(lstm(6, name="lstm")(x))))
    layer.temperature = 0.25
    new = shrunk(model, {"lstm": [0, 1, 3]}).get_layer("rescaled")
    assert (new.width, new.factor, new.temperature) == (3, 1 / 3, 0.25)


class ClosesOverItself(layers.Layer):
    """Its constructor makes a function that reads it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1.0
        self.function = lambda x: x * self.factor

    def call(self, x):
        return self.function(x)


def test_a_function_of_the_constructor_reads_the_new_layer():
    layer = ClosesOverItself(name="layer")
    model = after_lstm(layer)
    layer.factor = 2.0
    small = shrunk(model)
    new = small.get_layer("layer")
    new.factor = 0.0
    assert not ops.convert_to_numpy(small(inputs_for(model))).any()
    assert ops.convert_to_numpy(model(inputs_for(model))).any()


# Layers that cannot be made from a config.


class Composite(layers.Layer):
    """A layer of layers, without a config."""

    def __init__(self, parts, function):
        super().__init__(name="composite")
        self.parts = list(parts)
        self.by_name = {"last": layers.Dense(3)}
        self.function = function
        self.dropout = layers.Dropout(0.5, seed=1)

    def call(self, x, training=False):
        for part in self.parts:
            x = self.function(part(x))
        return self.dropout(self.by_name["last"](x), training=training)


def test_a_layer_of_layers_without_a_config_stays():
    parts = [layers.Dense(4, name="a"), layers.GRU(5, return_sequences=True)]
    model = after_lstm(Composite(parts, lambda x: x * FACTOR))
    small = shrunk(model)
    new = small.get_layer("composite")
    assert type(new) is Composite and new.parts[0] is not parts[0]
    assert len(small.weights) == len(model.weights)
    assert not {id(v) for v in small.variables} & {
        id(v) for v in model.variables
    }
    x = inputs_for(model)
    small.compile("sgd", "mse")
    small.train_on_batch(x, np.zeros((2, 5, 3)))


class NoWayBack(layers.Layer):
    """A layer with a rule whose constructor does not take its config."""

    def __init__(self, width, function):
        super().__init__(name="stubborn")
        self.width, self.function = width, function

    def call(self, x):
        return self.function(x)


@keras_iss.register_rule(NoWayBack)
def no_way_back(call, x):
    call.set_size("width", x.axes[-1])
    return call.output({-1: x.axes[-1]})


def test_a_layer_that_could_not_be_made_smaller_pins():
    x = sequence()
    h = NoWayBack(6, lambda x: x)(lstm(6, name="lstm")(x))
    model = keras.Model(x, head(layers.GRU(5, name="gru")(h)))
    structures = keras_iss.find_structures(model)
    assert structures["lstm"].pinned.startswith("`stubborn` (NoWayBack) cannot")
    assert structures["gru"].pinned is None
    shrunk(model)


# Models of one's own class.


class Weighted(keras.Model):
    def __init__(self, *args, alpha=1.0, function=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.alpha = alpha
        self.function = function
        self.heads = [layers.Dense(1, name="head_a")]
        self.heads[0].build((None, None, 2))
        self.steps = 0

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        y_pred = self.function(self.heads[0](y_pred))
        return self.alpha * ops.mean(ops.square(y - y_pred))


def weighted(**kwargs):
    x = sequence()
    return Weighted(x, head(lstm(6, name="lstm")(x)), **kwargs)


def test_a_model_of_ones_own_class_keeps_settings_layers_and_losses():
    model = weighted(alpha=5.0, function=scaled_by(2.0))
    model.steps = 7
    model.compile("sgd", run_eagerly=True)
    x, y = np.ones((4, 5, 3), "float32"), np.ones((4, 5, 1), "float32")
    model.fit(x, y, verbose=0)
    keras_iss.prune(model, keep={"lstm": 3})
    small = keras_iss.shrink(model)
    assert type(small) is Weighted
    assert (small.alpha, small.steps) == (5.0, 7)
    assert small.function is model.function
    old, new = (holder.heads[0].kernel for holder in (model, small))
    np.testing.assert_array_equal(np.array(new), np.array(old))
    for trained in (model, small):
        trained.fit(x, y, epochs=2, verbose=0, shuffle=False)
    assert small.evaluate(x, y, verbose=0) == pytest.approx(
        model.evaluate(x, y, verbose=0), rel=1e-4
    )


class Stacked(keras.Sequential):
    """A Sequential model with a constructor of its own."""

    def __init__(self, layers=None, name=None, extra=1.0):
        super().__init__(layers, name=name)
        self.extra = extra


class Fixed(keras.Sequential):
    """One that makes its layers itself."""

    def __init__(self, units):
        super().__init__(
            [keras.Input((5, 3)), layers.LSTM(units), layers.Dense(2)]
        )


def test_sequential_models_of_ones_own_class():
    model = Stacked([keras.Input((5, 3)), layers.LSTM(6), layers.Dense(2)])
    model.extra = 2.0
    small = shrunk(model)
    assert type(small) is Stacked and small.extra == 2.0
    with pytest.warns(UserWarning, match="is a `Fixed`"):
        assert type(shrunk(Fixed(6))) is keras.Sequential


# Masks.


def masked_tokens(x):
    return layers.Embedding(10, 4, mask_zero=True)(x)


def attention_beside_lstm(e):
    h = lstm(6, return_sequences=False)(e)
    a = layers.MultiHeadAttention(2, 2)(e, e)
    for _ in range(3):
        a = layers.Dense(4)(a)
    return [h, a]


def attention_before_lstm(e):
    a = layers.MultiHeadAttention(2, 2)(e, e)
    return [a, layers.Dense(3)(layers.Dense(3)(lstm(6)(e)))]


def attention_over_recurrent_layers(e):
    h = lstm(6)(e)
    a = layers.MultiHeadAttention(2, 2)(h, h)
    return [layers.GRU(5)(h), layers.Dense(2)(layers.Dense(2)(a))]


def two_attentions_and_a_sum(e):
    first = layers.MultiHeadAttention(2, 2)(e, e)
    second = layers.MultiHeadAttention(1, 2)(e, e)
    h = layers.GRU(6, return_sequences=True)(layers.Add()([e, first]))
    return [layers.LSTM(4)(h), lstm(5)(layers.Dropout(0.1)(second))]


def attention_and_a_masked_concatenation(e):
    h = layers.Concatenate()([e, lstm(6)(e)])
    return [layers.GRU(5)(h), layers.MultiHeadAttention(1, 2)(e, e)]


def attention_query_and_value_apart(e):
    h = lstm(4)(e)
    return [layers.Attention()([h, e]), layers.GRU(5)(h), layers.LSTM(3)(e)]


def masking_of_units_beside_attention(e):
    h = layers.Masking()(lstm(6)(e))
    a = layers.Dense(2)(layers.MultiHeadAttention(1, 2)(e, e))
    return [layers.GRU(5)(h), layers.Dense(2)(a)]


@pytest.mark.parametrize(
    "build",
    [
        attention_beside_lstm,
        attention_before_lstm,
        attention_over_recurrent_layers,
        two_attentions_and_a_sum,
        attention_and_a_masked_concatenation,
        attention_query_and_value_apart,
        masking_of_units_beside_attention,
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_every_layer_sees_the_mask_that_it_saw(build):
    x = tokens()
    outputs = [layers.Dense(2)(y) for y in build(masked_tokens(x))]
    small = shrunk(keras.Model(x, outputs))
    # Whoever builds on it finds the masks, too.
    embedded = next(
        x for x in small.layers if isinstance(x, layers.Embedding)
    ).output
    assert small.layers and embedded is not None


@pytest.mark.parametrize("given", ["none", "states", "mask", "both"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_directions_of_unequal_size_see_the_mask_that_they_saw(
    given, sequences, merge_mode
):
    x = tokens()
    e = masked_tokens(x)
    kwargs = {}
    if given in ("states", "both"):
        kwargs["initial_state"] = [layers.Dense(6)(e[:, 0]) for _ in range(4)]
    if given in ("mask", "both"):
        kwargs["mask"] = ops.not_equal(x, 3)
    both = layers.Bidirectional(
        lstm(6, return_sequences=sequences), merge_mode=merge_mode, name="both"
    )
    h = keras.tree.flatten(both(e, **kwargs))
    outputs = [layers.Dense(2)(y) for y in h]
    if sequences:
        outputs += [layers.GRU(3)(y) for y in h]
    model = keras.Model(x, outputs)
    names = [
        structure.name for structure in keras_iss.find_structures(model).free
    ]
    keep = {name: 3 + i for i, name in enumerate(names[:2])}
    if given in ("states", "both"):
        # States tie their sizes to those of the dense layers, which stay.
        assert not names[:2] or keep
    if keep:
        shrunk(model, keep)


# Models whose `call` is Python.


class Own(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.lstm = layers.LSTM(6, name="lstm", return_sequences=True)
        self.dropout = layers.Dropout(0.5, name="dropout")
        self.extra = layers.Dense(2, name="extra")
        self.norm = layers.BatchNormalization(name="norm")
        self.dense = layers.Dense(2, name="dense")


class DropsOutInTraining(Own):
    def call(self, x, training=False):
        h = self.lstm(x)
        if training:
            h = self.dropout(h, training=True)
        return self.dense(h)


class HandsTrainingOn(Own):
    def call(self, x, training=None):
        h = self.dropout(self.lstm(x), training=training)
        return self.dense(self.norm(h, training=training))


class LeavesTrainingToKeras(Own):
    def call(self, x):
        return self.dense(self.norm(self.dropout(self.lstm(x))))


class LooksAtTheLength(Own):
    def call(self, x):
        return self.dense(self.lstm(x)) * float(x.shape[1] or 1)


class LoopsOverTime(Own):
    def call(self, x):
        h = self.lstm(x)
        return ops.stack([self.dense(h[:, t]) for t in range(x.shape[1])], 1)


class CountsItsCalls(Own):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def call(self, x):
        self.calls += 1
        return self.dense(self.lstm(x))


def built(cls):
    model = cls()
    model(np.ones((2, 5, 3), "float32"))
    randomize(model)
    return model


class WeightsOfTheLength(Own):
    """A dense layer reads as many numbers as there are time steps."""

    def call(self, x):
        h = self.lstm(x)
        return self.dense(ops.einsum("btu,bsu->bts", h, h))


class ProductsOverTime(Own):
    def __init__(self):
        super().__init__()
        self.dot = layers.Dot(axes=(1, 1))

    def call(self, x):
        h = self.lstm(x)
        return self.dense(self.dot([x, ops.transpose(h, (0, 1, 2))]))


class Flattens(Own):
    def __init__(self):
        super().__init__()
        self.flatten = layers.Flatten()

    def call(self, x):
        return self.dense(self.flatten(self.lstm(x)))


EXACT = [
    WeightsOfTheLength,
    ProductsOverTime,
    Flattens,
    DropsOutInTraining,
    HandsTrainingOn,
    LeavesTrainingToKeras,
    LooksAtTheLength,
    LoopsOverTime,
    CountsItsCalls,
]


@pytest.mark.filterwarnings("ignore:.*Functional one")
@pytest.mark.filterwarnings("ignore:.*lengths of its inputs")
@pytest.mark.filterwarnings("ignore:The variables")
@pytest.mark.parametrize("cls", EXACT)
def test_a_call_in_python_comes_back_exact(cls):
    model = built(cls)
    keras_iss.prune(model, keep={"lstm": [0, 2, 3]})
    small = keras_iss.shrink(model, verify=False)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    same_outputs(small, model, x, 1e-5)
    noisy = [
        (ops.convert_to_numpy(called(x, training=True)) for _ in range(2))
        for called in (model, small)
    ]
    changes = [not np.allclose(a, b) for a, b in noisy]
    assert changes[0] == changes[1]


@pytest.mark.filterwarnings("ignore:.*Functional one")
@pytest.mark.filterwarnings("ignore:The variables")
@pytest.mark.parametrize(
    "cls", [LooksAtTheLength, LoopsOverTime, WeightsOfTheLength, Flattens]
)
def test_a_call_that_looks_at_the_length_takes_that_length_alone(cls):
    model = built(cls)
    with pytest.warns(UserWarning, match="`own` .* takes inputs of the shapes"):
        small = keras_iss.shrink(model, keep={"lstm": 3})
    with pytest.raises(ValueError, match="expected shape"):
        small(np.ones((2, 6, 3), "float32"))


@pytest.mark.filterwarnings("ignore:The variables")
def test_what_a_call_counts_is_as_before():
    model = built(CountsItsCalls)
    before = model.calls
    keras_iss.find_structures(model)
    assert model.calls == before


class BranchesInTraining(Own):
    def call(self, x, training=False):
        h = self.lstm(x)
        return self.extra(h) if training else self.dense(h)


class AlwaysDropsOut(Own):
    def call(self, x):
        return self.dense(self.dropout(self.lstm(x), training=True))


class NeverTrainsItsStatistics(Own):
    def call(self, x):
        return self.dense(self.norm(self.lstm(x), training=False))


class Random(Own):
    def call(self, x):
        return self.dense(self.lstm(x)) * float(
            np.random.default_rng().random()
        )


class ReadsValues(Own):
    def call(self, x):
        if float(ops.sum(x)) > 0:
            return self.dense(self.lstm(x))
        return self.extra(self.lstm(x))


REFUSED = {
    BranchesInTraining: "does something else in training",
    AlwaysDropsOut: "calls `dropout` with `training=True`",
    NeverTrainsItsStatistics: "calls `norm` with `training=False`",
    Random: "does something else in training",
    ReadsValues: "(cannot be called on symbolic|does not tell the shapes of)",
}


@pytest.mark.parametrize("cls", REFUSED)
def test_a_call_that_no_graph_shows_is_refused_with_the_reason(cls):
    model = built(cls)
    (structure,) = keras_iss.find_structures(model)
    assert re.search(REFUSED[cls], structure.pinned)
    with pytest.raises(ValueError, match=f"`own` .*{REFUSED[cls]}"):
        keras_iss.shrink(model)


@pytest.mark.filterwarnings("ignore:.*Functional one")
@pytest.mark.filterwarnings("ignore:The variables")
def test_a_frozen_layer_may_be_called_with_a_phase_of_its_own():
    model = NeverTrainsItsStatistics()
    model.norm.trainable = False
    model(np.ones((2, 5, 3), "float32"))
    keras_iss.shrink(model, keep={"lstm": 3})


# What comes out can be saved and loaded.


def wrapped_and_called(x):
    dense = layers.Dense(4, name="shared")
    return dense(layers.TimeDistributed(dense)(x))


def in_two_models(x):
    dense = layers.Dense(4, name="shared")
    for _ in range(2):
        y = keras.Input((None, 4))
        x = keras.Model(y, dense(y))(x)
    return x


def cell_in_two_layers(x):
    cell = layers.LSTMCell(4, name="shared")
    return layers.Add()(
        [
            layers.RNN(cell, return_sequences=True, go_backwards=back)(x)
            for back in (False, True)
        ]
    )


@pytest.mark.parametrize(
    "build", [wrapped_and_called, in_two_models, cell_in_two_layers]
)
def test_a_model_that_keras_cannot_load_is_said_to_be_one(build, tmp_path):
    model = after_lstm()
    model = keras.Model(model.input, build(model.output))
    randomize(model)
    with pytest.warns(UserWarning, match="cannot be loaded.*`shared`"):
        small = keras_iss.shrink(model, keep={"lstm": 3})
    # It is true.
    small.save(tmp_path / "small.keras")
    with pytest.raises(ValueError, match="could not be loaded"):
        keras.models.load_model(tmp_path / "small.keras")


def test_a_shared_layer_that_keras_can_load_is_no_reason_for_a_warning(
    tmp_path, recwarn
):
    dense = layers.Dense(4, name="shared")
    model = after_lstm(dense, dense, layers.TimeDistributed(dense))
    small = shrunk(model)
    assert not [w for w in recwarn if "loaded" in str(w.message)]
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    x = inputs_for(model)
    np.testing.assert_allclose(
        ops.convert_to_numpy(again(x)),
        ops.convert_to_numpy(small(x)),
        atol=1e-6,
    )


class Feedback(keras.Model):
    """A cell that runs over time and is called by itself, too."""

    def __init__(self, sizes, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.sizes = list(sizes)
        self.factor = factor
        self.cell = layers.GRUCell(sizes[0])
        self.rnn = layers.RNN(self.cell, return_state=True, name="rnn")
        self.dense = layers.Dense(sizes[1], name="dense")

    def build(self, shape):
        self.rnn.build(shape)
        self.dense.build((None, self.sizes[0]))

    def call(self, x):
        h, state = self.rnn(x)
        h, _ = self.cell(self.dense(h) * self.factor, [state])
        return self.dense(h)

    def get_config(self):
        return {"sizes": self.sizes, "factor": self.factor}


def test_a_model_that_only_its_class_can_load_keeps_its_class(tmp_path):
    # The size of the units is also another one's.
    model = Feedback((3, 3))
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    model(x)
    randomize(model)
    model.factor = 0.5
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.train_on_batch(x, np.zeros((2, 3)))
    keras_iss.prune(model, keep={"rnn": 2})
    small = keras_iss.shrink(model)
    assert type(small) is Feedback and small.sizes == [2, 3]
    assert small.factor == 0.5
    same_outputs(small, model, x, 1e-5)
    for trained in (model, small):
        trained.train_on_batch(x, np.ones((2, 3)))
    same_outputs(small, model, x, 1e-4)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(
        tmp_path / "small.keras", custom_objects={"Feedback": Feedback}
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(again(x)),
        ops.convert_to_numpy(small(x)),
        atol=1e-6,
    )


# What random graphs found.


class TimesLength(keras.Model):
    """Multiplies by the number of time steps, read in Python."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.rnn = layers.LSTM(units, return_sequences=True)

    def call(self, x):
        h = self.rnn(x)
        return h * float(h.shape[1] or 1)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_an_inner_model_that_reads_an_open_length_stays_as_it_is():
    x = keras.Input((None, 3))
    model = keras.Model(x, head(lstm(5, name="outer")(TimesLength()(x))))
    assert shrunk(model).get_layer("outer").units == 3


def test_an_inner_model_that_was_built_for_a_length_is_called_on_another():
    inner = TimesLength()
    inner(np.zeros((1, 4, 3), "float32"))
    x = keras.Input((None, 3))
    model = keras.Model(x, head(lstm(5, name="outer")(inner(x))))
    assert shrunk(model).get_layer("outer").units == 3


def test_a_call_takes_the_one_length_that_an_inner_call_reads():
    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.gru = layers.GRU(5, return_sequences=True, name="gru")
            self.inner = TimesLength()

        def call(self, x):
            return self.inner(self.gru(x))

    model = Outer()
    model(np.zeros((2, 4, 3), "float32"))
    with pytest.warns(UserWarning, match="lengths of its inputs in Python"):
        small = keras_iss.shrink(model, keep={"gru": 3})
    assert small.input_shape == (None, 4, 3)


class TimesLengthOfAFixedOne(keras.Model):
    """As `TimesLength`, but what is called first tells it a length to take."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        h = self.inner(x)
        return h * float(h.shape[1] or 1)


@pytest.mark.parametrize(
    "inner",
    [
        layers.GRU(4, return_sequences=True),
        layers.Conv1D(4, 2, padding="same"),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
    ],
)
def test_a_length_is_tried_that_an_inner_model_fixes(inner):
    x = keras.Input((None, 3))
    inner = keras.Sequential([keras.Input((4, 3)), inner])
    h = TimesLengthOfAFixedOne(inner)(x)
    model = keras.Model(x, head(lstm(5, name="outer")(h)))
    assert shrunk(model).get_layer("outer").units == 3


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda: layers.Bidirectional(layers.GRU(4)),
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]),
        lambda: keras.Sequential(
            [layers.TimeDistributed(layers.Dense(3)), layers.GRU(4)]
        ),
        lambda: layers.Bidirectional(
            layers.RNN([layers.GRUCell(3), layers.SimpleRNNCell(4)])
        ),
    ],
)
def test_features_of_a_call_are_not_taken_for_time_steps(wrapped):
    """A layer inside another has weights of their size, too."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn = wrapped()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(self.rnn(keras.ops.expand_dims(x, 1)))

    model = Model()
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    model(x)
    randomize(model)
    first = keras_iss.find_structures(model).free[0]
    small = keras_iss.shrink(model, keep={first.name: range(first.size)})
    assert small.input_shape == (None, 3)
    keras_iss.prune(model, keep={first.name: [1]})
    same_outputs(keras_iss.shrink(model), model, x)


def mask_as_it_was(inputs, mask):
    return mask


def doubled_in_a_lambda(x):
    return 2.0 * x


@pytest.mark.parametrize(
    "mask", [mask_as_it_was, lambda x, mask: mask, lambda x, mask: None]
)
@pytest.mark.parametrize("named", [True, False])
def test_the_mask_function_of_a_lambda_stays(mask, named):
    function = doubled_in_a_lambda if named else (lambda x: 2.0 * x)
    x = sequence()
    h = layers.Masking()(x)
    h = lstm(5, return_sequences=True, name="lstm")(h)
    h = layers.Lambda(function, mask=mask, name="doubled")(h)
    model = keras.Model(x, head(layers.GRU(3, name="gru")(h)))
    small = shrunk(model)
    assert small.get_layer("doubled").mask is mask


class Tempered(keras.Model):
    """A Functional model of one's own class, with a `call` of its own."""

    def __init__(self, *args, temperature=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.temperature = temperature

    def call(self, inputs, training=None, mask=None):
        outputs = super().call(inputs, training=training, mask=mask)
        return keras.tree.map_structure(lambda x: x / self.temperature, outputs)


def tempered_at_the_top(x, y):
    return Tempered(x, y)


def tempered_inside(x, y):
    return keras.Model(x, Tempered(x, y)(x))


@pytest.mark.parametrize("build", [tempered_at_the_top, tempered_inside])
@pytest.mark.parametrize("nested", [list, dict])
def test_a_functional_model_with_a_call_of_its_own(build, nested):
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    rnn = lstm(5, return_sequences=False, name="lstm")
    y = head(layers.Add()([rnn(a), rnn(b)]))
    x = [a, b] if nested is list else {"a": a, "b": b}
    assert shrunk(build(x, y)).count_params()


def test_an_inner_model_may_give_back_what_it_got():
    class Second(keras.Model):
        def call(self, inputs):
            return inputs[1]

    x, y = sequence(), keras.Input((3,))
    h = lstm(5, name="lstm")(x)
    model = keras.Model([x, y], [head(h), Second()([h, y])])
    shrunk(model)


@pytest.mark.parametrize("length", [None, 4])
def test_an_inner_sequential_model_takes_other_lengths_than_its_input(length):
    inner = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
        ],
        name="inner",
    )
    x = keras.Input((length, 3))
    model = keras.Model(x, head(inner(x)))
    randomize(model)
    # Its directions have other sizes then, and two layers take its place.
    name = next(iter(keras_iss.find_structures(model))).name
    keras_iss.prune(model, keep={name: 2})
    small = keras_iss.shrink(model, verify=False)
    values = np.random.default_rng(0).normal(size=(2, length or 3, 3))
    same_outputs(small, model, values.astype("float32"))


def test_directions_of_different_sizes_stay_and_are_named():
    x = sequence()
    both = layers.Bidirectional(
        layers.LSTM(4, return_sequences=True),
        backward_layer=layers.GRU(6, return_sequences=True, go_backwards=True),
        name="both",
    )
    found = keras_iss.find_structures(keras.Model(x, both(x)))
    assert all("`both`" in structure.pinned for structure in found)
    assert all("different sizes" in structure.pinned for structure in found)


@pytest.mark.parametrize("first", [False, True])
def test_an_operation_reads_a_variable_whichever_way_keras_sorts(first):
    x = sequence()
    h = lstm(5, name="lstm")(x)
    dense = layers.Dense(5, name="dense")
    read = ops.matmul(h, dense.kernel) if dense.built else None
    called = dense(h)
    read = ops.matmul(h, dense.kernel) if read is None else read
    order = [read, called] if first else [called, read]
    model = keras.Model(x, head(lstm(4, name="last")(layers.Add()(order))))
    assert shrunk(model).get_layer("last").units == 2


# Masks that attention takes off.


class Attentive(keras.Model):
    """Calls other layers before and after an attention that reads the same."""

    def __init__(self, after, before, inside):
        super().__init__()
        self.embedding = layers.Embedding(10, 4, mask_zero=True)
        self.rnn = layers.LSTM(5, return_sequences=True, name="lstm")
        self.attention = layers.MultiHeadAttention(2, 2)
        self.before, self.after = before, after
        self.join, self.last = layers.Concatenate(), layers.Dense(2)
        if inside:
            x = keras.Input((None, 5))
            self.attention = keras.Model(
                x, layers.MultiHeadAttention(2, 2)(x, x)
            )
        self.inside = inside

    def call(self, x):
        h = self.rnn(self.embedding(x))
        outputs = [layer(h) for layer in self.before]
        y = self.attention(h) if self.inside else self.attention(h, h)
        outputs += [layer(h) for layer in self.after]
        return [*outputs, y, self.last(self.join([h, y]))]


READERS = {
    "recurrent": lambda: layers.GRU(3, return_sequences=True),
    "distributed": lambda: layers.TimeDistributed(layers.Dense(2)),
    "dense": lambda: layers.Dense(2),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(2)),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_what_attention_did_to_a_mask_is_as_it_was(reader, when, inside):
    made = {"before": [], "after": [], when: [READERS[reader]()]}
    model = Attentive(made["after"], made["before"], inside)
    x = np.array([[1, 2, 3, 0, 0], [4, 0, 5, 6, 0]])
    model(x)
    randomize(model)
    keras_iss.prune(model, keep={"lstm": 3})
    small = keras_iss.shrink(model, verify=False)
    assert small.get_layer("lstm").units == 3
    same_outputs(small, model, x)
    for got, other in zip(small(x), model(x)):
        masks = [getattr(y, "_keras_mask", None) for y in (got, other)]
        assert (masks[0] is None) == (masks[1] is None)


# Surgery on what surgery gave, and wrappers of models.


class Twice(layers.Wrapper):
    """Without a rule."""

    def call(self, x):
        return self.layer(self.layer(x))


def squashing(x):
    return ops.tanh(2.0 * x)


def functional_inside(activation=squashing):
    x = keras.Input((None, 6))
    h = layers.LSTM(6, activation=activation, return_sequences=True)(x)
    return keras.Model(x, h)


def two_directions_inside():
    x = keras.Input((None, 6))
    h = layers.Bidirectional(
        layers.GRU(3), name="both", backward_layer=uneven_backwards(3)
    )(x)
    return keras.Model(x, layers.RepeatVector(4)(h))


def uneven_backwards(units):
    return layers.GRU(units, go_backwards=True)


@pytest.mark.parametrize(
    "inside",
    [
        functional_inside,
        lambda: functional_inside(lambda x: ops.tanh(3.0 * x)),
        lambda: keras.Sequential(
            [
                keras.Input((None, 6)),
                layers.Dense(6, activation=lambda x: squashing(x)),
            ]
        ),
        lambda: keras.Sequential([keras.Input((None, 6)), functional_inside()]),
        two_directions_inside,
    ],
)
def test_a_model_in_a_wrapper_without_a_rule_stays_as_it_is(inside):
    model = after_lstm(layers.Dense(6), Twice(inside(), name="wrapper"))
    shrunk(model, {"lstm": [0, 1, 3]})


@pytest.mark.parametrize("between", ["nothing", "dropout", "masking", "lstm"])
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_directions_with_initial_states_keep_the_mask_of_their_output(
    between, merge_mode
):
    """Keras gives them none, and the mask goes on behind them."""
    words, x = keras.Input((None,), dtype="int32"), keras.Input((None, 3))
    h = layers.Embedding(10, 4, mask_zero=between != "masking")(words)
    if between != "nothing":
        h = {
            "dropout": layers.Dropout(0.1),
            "masking": layers.Masking(),
            "lstm": layers.LSTM(4, return_sequences=True, name="before"),
        }[between](h)
    states = [
        state
        for name in ("first", "second")
        for state in layers.LSTM(4, return_state=True, name=name)(x)[1:]
    ]
    both = layers.Bidirectional(
        layers.LSTM(4, return_sequences=True), merge_mode, name="both"
    )(h, initial_state=states)
    model = keras.Model(
        [words, x], [layers.Dense(2)(y) for y in keras.tree.flatten(both)]
    )
    small = shrunk(model, {"first": [0, 1, 3], "second": [0, 2]})
    inputs = [
        np.array([[1, 2, 0, 0], [0, 3, 4, 5]]),
        np.random.default_rng(0).normal(size=(2, 4, 3)),
    ]
    masks = [
        [mask_of(y) for y in keras.tree.flatten(each(inputs))]
        for each in (model, small)
    ]
    assert between == "masking" or masks[0][0] is not None
    for one, other in zip(*masks, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one == other).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_directions_of_different_sizes_can_be_cut_again(masked, wrapped):
    x = keras.Input((4, 3, 5))
    y = keras.Input((3, 5))
    h = layers.Masking()(y) if masked else y
    h = layers.Bidirectional(layers.GRU(5), name="both")(h)
    inner = keras.Model(y, layers.Dense(2)(h))
    if wrapped:
        model = keras.Model(x, layers.TimeDistributed(inner)(x))
    else:
        model = inner
    names = [
        structure.name for structure in keras_iss.find_structures(model).free
    ]
    assert len(names) == 2
    sizes = dict(zip(names, ([0, 2], [1, 2, 3, 4])))
    small = shrunk(model, sizes)
    again = keras_iss.find_structures(small)
    assert [structure.size for structure in again.free] == [2, 4]
    shrunk(
        small, {structure.name: structure.size - 1 for structure in again.free}
    )


# What a file would forget.


class Multiplied(layers.Layer):
    """Without a config of its own; its factor is set after it was made."""

    factor = 1.0

    def call(self, x):
        return self.factor * x


class Scaled(keras.Model):
    """Sets something in a layer that its config does not hold."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.rnn = layers.LSTM(5, name="lstm")
        self.layer = layer

    def call(self, x):
        return self.layer(self.rnn(x))


def in_a_local_class(kind, registered=False):
    class Local(kind):
        pass

    if registered:
        keras.saving.register_keras_serializable("tests")(Local)
    return Local


def local_model():
    class Inner(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.layer = in_a_local_class(layers.Dense)(2)

        def call(self, x):
            return self.layer(x)

    return Inner()


class Outer(keras.Model):
    """Its constructor makes a class, which a file of it need not name."""

    def __init__(self, kind=layers.Dense, **kwargs):
        super().__init__(**kwargs)
        self.rnn = layers.LSTM(5, name="lstm")
        self.layer = in_a_local_class(kind)(2)

    def call(self, x):
        return self.layer(self.rnn(x))


def called(model):
    model(np.zeros((1, 4, 3), "float32"))
    return model


def in_a_functional_model():
    x = keras.Input((4, 3))
    return keras.Model(x, Outer()(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: called(Outer()),
        lambda: called(Scaled(local_model())),
        in_a_functional_model,
    ],
)
def test_a_class_that_only_a_function_holds_is_said_to_be_needed(
    make, tmp_path
):
    model = make()
    with pytest.warns(UserWarning, match="inside functions.*`Local`"):
        small = keras_iss.shrink(model)
    small.save(tmp_path / "small.keras")
    known = {"Outer": Outer, "Scaled": Scaled}
    with pytest.raises(TypeError, match="Local"):
        keras.models.load_model(tmp_path / "small.keras", known)


@pytest.mark.parametrize(
    "make",
    [
        lambda: called(Scaled(in_a_local_class(layers.Dense, True)(2))),
        lambda: after_lstm(in_a_local_class(layers.Dense)(2)),
    ],
)
def test_a_class_that_is_found_or_needed_anyway_is_no_reason_for_a_warning(
    make, recwarn
):
    keras_iss.shrink(make())
    assert not [w for w in recwarn if "loaded" in str(w.message)]


def test_a_seed_is_nothing_that_a_file_would_lose(recwarn):
    class Model(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.rnn = layers.SimpleRNN(5, recurrent_dropout=0.2, seed=1)
            self.head = layers.Dense(2)

        def call(self, x, training=False):
            return self.head(self.rnn(x, training=training))

    model = Model()
    model(np.zeros((1, 4, 3), "float32"))
    keras_iss.shrink(model)
    assert not [w for w in recwarn if "`seed`" in str(w.message)]


@keras.saving.register_keras_serializable("tests")
class Noisy(layers.Layer):
    """Drops some in training; how much is in no config."""

    part = 0.0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        if not training:
            return x
        return keras.random.dropout(x, self.part, seed=self.seed_generator)


def noisy():
    layer = Noisy(name="noisy")
    layer.part = 0.5
    return layer


def multiplied():
    layer = Multiplied(name="multiplied")
    layer.factor = 0.5
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (multiplied, "`factor` of `multiplied`"),
        (noisy, "`part` of `noisy`"),
        (lambda: layers.Dense(2, activation=scaled_by(2.0)), "`function`"),
        # Its outputs are the same, and the mask that they carry is not.
        (
            lambda: layers.Lambda(
                lambda x: 2.0 * x, mask=lambda x, _: x[..., 0] > 0
            ),
            "`mask`",
        ),
    ],
)
def test_what_a_file_would_forget_is_said(make, message):
    model = Scaled(make())
    model(np.zeros((1, 4, 3), "float32"))
    with pytest.warns(UserWarning, match=f"cannot be loaded.*{message}"):
        keras_iss.shrink(model)
