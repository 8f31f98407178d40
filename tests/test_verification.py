"""A smaller model is compared with the pruned one before it is handed over."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from keras_iss.surgery import verification
from keras_iss.surgery.rebuilding import rebuild
from keras_iss.surgery.sampling import Sampler, vocabulary
from keras_iss.surgery.verification import VerificationError
from keras_iss.tracing.find import find
from keras_iss.tracing.graph import graph_of
from keras_iss.tracing.registry import _LAYER_RULES
from tests.cases import head, inputs_for, lstm, randomize, sequence, tokens

not_compiled = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="nothing of it depends on the backend, and JAX compiles it all",
)


@pytest.fixture
def wrong_rule():
    """Registers rules for the time of a test."""
    before = dict(_LAYER_RULES)

    def register(cls):
        @keras_iss.register_rule(cls)
        def rule(call, x, training=None, mask=None):
            return call.output({-1: x.axes[-1]})

    yield register
    _LAYER_RULES.clear()
    _LAYER_RULES.update(before)


def values(model):
    return [np.array(w) for w in model.get_weights()]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class Mean(layers.Layer):
    """Subtracts the mean over the units: one less, and all change."""

    def call(self, x):
        return x - ops.mean(x, axis=-1, keepdims=True)


class MeanInTraining(layers.Layer):
    def call(self, x, training=False):
        return x - ops.mean(x, axis=-1, keepdims=True) if training else x


class MeanOfMasked(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        if mask is None:
            return x
        mean = ops.mean(x, axis=-1, keepdims=True)
        return ops.where(ops.expand_dims(mask, -1), x, x - mean)


class MaskOfWide(MeanOfMasked):
    """Hands its mask on by how many units it sees."""

    def call(self, x):
        return 2 * x

    def compute_mask(self, x, mask=None):
        return mask if x.shape[-1] == 6 else None


def with_layer(cls, x=None, **kwargs):
    x = sequence() if x is None else x
    h = x
    if x.dtype == "int32":
        h = layers.Embedding(10, 4, mask_zero=True)(x)
    h = cls(name="between")(lstm(6, name="lstm")(h))
    # So that what differs at masked steps shows.
    model = keras.Model(x, layers.Dense(2, name="head", **kwargs)(h))
    randomize(model)
    return model


@pytest.mark.parametrize(
    ("cls", "phase"), [(Mean, "inference"), (MeanInTraining, "training")]
)
def test_a_wrong_rule_is_noticed_and_the_layer_is_named(cls, phase, wrong_rule):
    wrong_rule(cls)
    model = with_layer(cls)
    before = values(model)
    match = f"in {phase}, they part at `between` .{cls.__name__}"
    with pytest.raises(VerificationError, match=match):
        keras_iss.shrink(model, keep={"lstm": 3})
    assert same(before, values(model))
    assert keras_iss.shrink(model, keep={"lstm": 3}, verify=False) is not None


def test_masked_steps_are_compared_where_the_model_masks(wrong_rule):
    wrong_rule(MeanOfMasked)
    keras_iss.shrink(with_layer(MeanOfMasked), keep={"lstm": 3})
    with pytest.raises(VerificationError, match="`between`"):
        keras_iss.shrink(with_layer(MeanOfMasked, tokens()), keep={"lstm": 3})


def test_masks_of_outputs_are_compared(wrong_rule):
    """A loss leaves out what they do."""
    wrong_rule(MaskOfWide)
    keras_iss.shrink(with_layer(MaskOfWide), keep={"lstm": 3})
    model = with_layer(MaskOfWide, tokens())
    with pytest.raises(VerificationError, match="masks of output 0 differ"):
        keras_iss.shrink(model, keep={"lstm": 3})


@not_compiled
def test_small_outputs_are_compared_by_their_size(wrong_rule):
    wrong_rule(Mean)
    model = with_layer(Mean)
    kernel = model.get_layer("head").kernel
    kernel.assign(1e-3 * np.array(kernel))
    model.get_layer("head").bias.assign([0.0, 0.0])
    with pytest.raises(VerificationError, match="`between`"):
        keras_iss.shrink(model, keep={"lstm": 3})


@not_compiled
def test_rounding_is_no_difference():
    """Large numbers cancel, and little but rounding is left."""
    x = sequence()
    h = lstm(64, name="lstm")(x)
    up = layers.Dense(3, kernel_initializer="ones")(1e4 * h)
    down = layers.Dense(3, kernel_initializer="ones")(-1e4 * h)
    model = keras.Model(x, layers.Dense(2)(up + down))
    keras_iss.shrink(model, keep={"lstm": 40})


def test_a_model_and_its_states_stay_as_they_are():
    x = keras.Input(batch_shape=(2, 4, 3))
    h = layers.LSTM(6, stateful=True, return_sequences=True, name="lstm")(x)
    h = layers.BatchNormalization()(h)
    model = keras.Model(x, head(layers.GaussianNoise(0.1, seed=1)(h)))
    model(np.ones((2, 4, 3), "float32"))
    states = [np.array(s) for s in model.get_layer("lstm").states]
    before = values(model)
    seeds = [np.array(v) for v in model.variables if "seed" in v.path]
    small = keras_iss.shrink(model, keep={"lstm": 3})
    assert same(before, values(model))
    assert same(states, [np.array(s) for s in model.get_layer("lstm").states])
    for checked in (model, small):
        found = [np.array(v) for v in checked.variables if "seed" in v.path]
        assert same(seeds, found)
    kept = [s.shape for s in small.get_layer("lstm").states]
    assert kept == [(2, 3), (2, 3)]


@not_compiled
@pytest.mark.parametrize("function", [ops.log, ops.sqrt, lambda x: 1.0 / x])
def test_functions_that_want_positive_numbers_get_them(function, wrong_rule):
    wrong_rule(Mean)
    x = sequence()
    h = Mean(name="between")(lstm(6, name="lstm")(function(x)))
    model = keras.Model(x, head(h))
    randomize(model)
    with pytest.raises(VerificationError, match="`between`"):
        keras_iss.shrink(model, keep={"lstm": 3})


@not_compiled
def test_outputs_that_are_infinite_in_both_are_equal():
    x = sequence()
    h = head(lstm(6, name="lstm")(x))
    model = keras.Model(x, ops.where(np.array([True, False]), h, -np.inf))
    keras_iss.shrink(model, keep={"lstm": 3})


@not_compiled
def test_data_is_run_on_where_it_is_given(wrong_rule):
    class OnlyAbove(layers.Layer):
        """Does nothing to what is small."""

        def call(self, x):
            mean = ops.mean(x, axis=-1, keepdims=True)
            return ops.where(ops.max(ops.abs(x)) > 0.2, x - mean, x)

    wrong_rule(OnlyAbove)
    model = with_layer(OnlyAbove)
    bias = model.get_layer("lstm").cell.bias
    bias.assign(np.zeros(bias.shape))
    data = np.ones((4, 5, 3), "float32")
    keras_iss.shrink(model, keep={"lstm": 3}, data=1e-3 * data)
    with pytest.raises(VerificationError, match="on the `data`"):
        keras_iss.shrink(model, keep={"lstm": 3}, data=10.0 * data)


@not_compiled
@pytest.mark.parametrize(
    "data",
    [
        np.zeros((4, 5, 2), "float32"),
        np.zeros((0, 5, 3), "float32"),
        [np.zeros((4, 5, 3), "float32")] * 2,
        {"other": np.zeros((4, 5, 3), "float32")},
    ],
)
def test_data_that_does_not_fit_is_an_error(data):
    model = with_layer(layers.Identity)
    with pytest.raises(ValueError, match="`data`"):
        keras_iss.shrink(model, keep={"lstm": 3}, data=data)


@not_compiled
def test_data_is_taken_by_the_names_of_inputs():
    x, y = sequence(), keras.Input((None, 3), name="other")
    h = layers.Concatenate()(
        [lstm(6, name="lstm")(x), layers.GRU(4)(y)[:, None]]
    )
    model = keras.Model([x, y], head(h))
    data = np.ones((4, 1, 3), "float32")
    keras_iss.shrink(
        model, keep={"lstm": 3}, data={"other": data, x.name: data}
    )


@not_compiled
def test_integers_lie_within_the_vocabulary_of_what_reads_them():
    x = keras.Input((None,), name="words")
    y = keras.Input((None,), dtype="int32", name="tags")
    inner_input = keras.Input((None,), dtype="int32")
    inner = keras.Model(inner_input, layers.Embedding(4, 3)(inner_input))
    h = layers.Concatenate()(
        [
            layers.Embedding(7, 3)(ops.cast(x, "int32")),
            layers.Embedding(50, 3)(x),
            inner(y),
            ops.one_hot(y, 20),
        ]
    )
    model = keras.Model([x, y], head(lstm(6)(h)))
    graph = graph_of(model)
    assert [vocabulary(graph, tensor) for tensor in graph.inputs] == [7, 4]
    words, tags = Sampler(model, graph).draw(0, 40)
    assert words.max() == 6 and tags.max() == 3
    assert words.dtype == "float32" and tags.dtype == "int32"


@not_compiled
def test_what_cannot_be_run_on_random_inputs_is_said_with_a_warning():
    class Sorted(layers.Layer):
        """Refuses what is not sorted."""

        def call(self, x):
            if not isinstance(x, keras.KerasTensor):
                try:
                    array = keras.ops.convert_to_numpy(x)
                except Exception:
                    return x
                if (np.diff(array, axis=1) < 0).any():
                    raise ValueError("not sorted")
            return x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    x = sequence()
    model = keras.Model(x, head(lstm(6, name="lstm")(Sorted()(x))))
    with pytest.warns(UserWarning, match="was not compared .*not sorted"):
        keras_iss.shrink(model, keep={"lstm": 3})
    data = np.sort(np.random.default_rng(0).normal(size=(4, 5, 3)), axis=1)
    keras_iss.shrink(model, keep={"lstm": 3}, data=data.astype("float32"))


@not_compiled
def test_random_layers_of_ones_own_are_no_difference():
    class Drawing(layers.Layer):
        """Draws with a generator that Keras does not know."""

        def call(self, x, training=False):
            if training:
                return x * float(np.random.default_rng().random())
            return x

    x = sequence()
    model = keras.Model(x, Drawing()(head(lstm(6, name="lstm")(x))))
    keras_iss.shrink(model, keep={"lstm": 3})


def test_half_precision_is_compared_within_its_rounding():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        x = sequence()
        model = keras.Model(x, head(lstm(64, name="lstm")(x)))
    finally:
        keras.config.set_dtype_policy("float32")
    randomize(model)
    keras_iss.prune(model, keep={"lstm": 40})
    small = keras_iss.shrink(model)
    x = inputs_for(model)
    wanted, other = (
        ops.convert_to_numpy(m(x)).astype("float32") for m in (model, small)
    )
    np.testing.assert_allclose(other, wanted, atol=0.1)


@not_compiled
@pytest.mark.parametrize(
    ("masked", "steps"), [(False, 2), (True, 3)], ids=["plain", "masked"]
)
def test_a_large_model_is_compared_on_two_steps(masked, steps, monkeypatch):
    x = sequence()
    h = layers.Masking()(x) if masked else x
    model = keras.Model(x, head(lstm(6, name="lstm")(h)))
    randomize(model)
    found = find(model, ("recurrent",))
    alive = np.ones(len(found.structures["lstm"].norms()), bool)
    rebuilt = rebuild(found, alive, ~alive)
    lengths, draw = [], Sampler.draw

    def noted(self, seed, length, **kwargs):
        lengths.append(length)
        return draw(self, seed, length, **kwargs)

    monkeypatch.setattr(verification, "LARGE", 0)
    monkeypatch.setattr(Sampler, "draw", noted)
    verification.verify(found, rebuilt, [])
    assert lengths == [steps]
    # What only a second step reads is seen to differ.
    kernel = rebuilt.model.get_layer("lstm").cell.recurrent_kernel
    kernel.assign(2.0 * kernel.value)
    with pytest.raises(VerificationError, match="`lstm`"):
        verification.verify(found, rebuilt, [])
