"""Every kind of bad input is met with an error that helps, and no harm."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import FEATURES, head, lstm, randomize, sequence
from tests.test_structures import language_model

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def model():
    model = language_model()
    before = model.get_weights()
    yield model
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not model.losses


@pytest.mark.parametrize(
    "use",
    [
        keras_iss.find_structures,
        lambda model: keras_iss.prune(model, threshold=0.1),
        keras_iss.shrink,
        lambda model: keras_iss.ISSRegularizer(0.1).attach(model),
    ],
    ids=["find_structures", "prune", "shrink", "attach"],
)
class TestEveryEntry:
    def test_an_unbuilt_model(self, use):
        model = keras.Sequential([layers.LSTM(4), layers.Dense(2)], name="raw")
        with pytest.raises(ValueError, match="`raw` has not been built: call"):
            use(model)

    def test_a_model_without_recurrent_layers(self, use):
        x = keras.Input((3,))
        model = keras.Model(x, head(x), name="flat")
        with pytest.raises(ValueError, match="`flat` has no layer.*`Dense`"):
            use(model)

    def test_no_model(self, use):
        with pytest.raises(TypeError, match="takes a `keras.Model`"):
            use([1, 2, 3])

    def test_a_quantized_layer(self, use):
        if keras.backend.backend() == "torch":
            pytest.skip("Keras quantizes nothing on this backend")
        x = sequence()
        h = lstm(6, name="free")(x)
        h = lstm(6, name="read")(h)
        model = keras.Model(x, layers.Dense(2, name="out")(h))
        model.get_layer("out").quantize("int8")
        wanted = r"`out` \(Dense\) is quantized \(int8\).*shrink first"
        with pytest.warns(UserWarning, match=wanted):
            use(model)
        with pytest.warns(UserWarning, match=wanted):
            structures = keras_iss.find_structures(model)
        assert structures["free"].pinned is None
        assert "quantized" in structures["read"].pinned

    @pytest.mark.parametrize("value", [NAN, INFINITY])
    def test_weights_that_are_not_finite(self, use, value):
        if use is keras_iss.find_structures:
            pytest.skip("it reads no weights")
        model = language_model()
        kernel = model.get_layer("lstm_2").cell.kernel
        broken = np.array(kernel)
        broken[1, 2] = value
        kernel.assign(broken)
        before = model.get_weights()
        with pytest.raises(ValueError, match="lstm_2/lstm_cell/kernel.*NaN"):
            use(model)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not model.losses


def test_kinds_that_do_not_exist(model):
    with pytest.raises(ValueError, match="`include` takes.*`recurrent`"):
        keras_iss.find_structures(model, include=("convolutional",))


BAD_KEEP = {
    "a name that is no structure": (
        {"lstm1": 3},
        KeyError,
        "Did you mean `lstm_1`",
    ),
    "no dict": ([1, 2], TypeError, "must be a dict"),
    "nothing": ({}, ValueError, "`keep` is empty"),
    "no index": ({"lstm_1": []}, ValueError, "empty for `lstm_1`"),
    "none": ({"lstm_1": 0}, ValueError, "at least one: .* 1 to 5"),
    "a negative count": ({"lstm_1": -1}, ValueError, "1 to 5"),
    "too many": ({"lstm_1": 6}, ValueError, "`lstm_1` has 5 components"),
    "an index too far": ({"lstm_1": [0, 5]}, ValueError, "are 0 to 4"),
    "a negative index": ({"lstm_1": [-1]}, ValueError, "are 0 to 4"),
    "an index twice": ({"lstm_1": [1, 1]}, ValueError, "index 1 .* twice"),
    "a float": ({"lstm_1": 2.0}, TypeError, "`lstm_1`.*float"),
    "a string": ({"lstm_1": "all"}, TypeError, "`lstm_1`.*str"),
    "a boolean": ({"lstm_1": True}, TypeError, "`lstm_1`.*bool"),
    "None": ({"lstm_1": None}, TypeError, "`lstm_1`.*NoneType"),
    "float indices": ({"lstm_1": [0.0]}, TypeError, "`lstm_1`.*float"),
    "a mask": (
        {"lstm_1": np.array([True] * 5)},
        TypeError,
        "`lstm_1`.*bool",
    ),
}


@pytest.mark.parametrize("name", BAD_KEEP)
@pytest.mark.parametrize("use", [keras_iss.prune, keras_iss.shrink])
def test_bad_values_of_keep(model, use, name):
    keep, error, message = BAD_KEEP[name]
    with pytest.raises(error, match=message):
        use(model, keep=keep)


@pytest.mark.parametrize(
    ("threshold", "error"),
    [
        (-0.1, ValueError),
        (NAN, ValueError),
        ("small", TypeError),
        (True, TypeError),
    ],
)
def test_bad_thresholds(model, threshold, error):
    with pytest.raises(error, match=f"threshold.*Received: .?{threshold}"):
        keras_iss.prune(model, threshold=threshold)
    with pytest.raises(error, match="threshold"):
        keras_iss.ISSPruneCallback(threshold)


def test_prune_takes_a_threshold_or_what_to_keep(model):
    for arguments in ({}, {"threshold": 0.1, "keep": {"lstm_1": 2}}):
        with pytest.raises(
            ValueError, match="Exactly one of `threshold`, `keep`"
        ):
            keras_iss.prune(model, **arguments)


@pytest.mark.parametrize(
    ("strength", "error"),
    [
        (-0.1, ValueError),
        (NAN, ValueError),
        (INFINITY, ValueError),
        ("strong", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_bad_strengths(strength, error):
    with pytest.raises(error, match="`strength` must be"):
        keras_iss.ISSRegularizer(strength)
    regularizer = keras_iss.ISSRegularizer(0.1)
    with pytest.raises(error, match="`strength` must be"):
        regularizer.strength = strength
    assert regularizer.strength == 0.1


def test_bad_overlap():
    with pytest.raises(ValueError, match="`count_twice`, `once`"):
        keras_iss.ISSRegularizer(0.1, overlap="twice")


def test_attaching_twice():
    model = language_model()
    first = keras_iss.ISSRegularizer(0.25)
    first.attach(model)
    for again in (first, keras_iss.ISSRegularizer(0.5)):
        with pytest.raises(ValueError, match="already has.*strength 0.25"):
            again.attach(model)
    assert len(model.losses) == 2
    first.detach(model)
    assert not model.losses


def test_the_regularizer_of_a_single_variable(model):
    layer = layers.LSTM(4, kernel_regularizer=keras_iss.ISSRegularizer(0.1))
    x = sequence()
    with pytest.raises(TypeError, match=r"ISSRegularizer\(strength\).attach"):
        len(keras.Model(x, layer(x)).losses)


def test_a_model_in_which_all_is_pinned():
    x = sequence()
    model = keras.Model(x, lstm(4, name="only")(x), name="model")
    with pytest.raises(ValueError, match="All are pinned: `only`: .* output"):
        keras_iss.ISSRegularizer(0.1).attach(model)
    assert not model.losses


@pytest.mark.parametrize("use", [keras_iss.prune, keras_iss.shrink])
def test_a_pinned_structure(use):
    x = sequence()
    h = lstm(6, name="pinned")(x)
    h = layers.LayerNormalization(name="norm")(h)
    model = keras.Model(x, head(h))
    before = model.get_weights()
    with pytest.raises(ValueError, match="`pinned` is pinned .*`norm`"):
        use(model, keep={"pinned": 3})
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_units_that_are_tied_are_named_once():
    x, z = sequence(), sequence()
    h = layers.Add()([lstm(6, name="one")(x), lstm(6, name="other")(z)])
    model = keras.Model([x, z], head(h))
    with pytest.raises(ValueError, match="twice: the units of `one`, `other`"):
        keras_iss.prune(model, keep={"one": 3, "other": 3})


def test_a_shared_variable_that_would_be_cut_in_two_ways():
    """Read by position: the first 4 of 6 rows are one LSTM's, and two's."""
    x = sequence()
    shared = layers.Dense(2, name="shared")
    fixed = keras.Input((None, 2))
    joined = layers.Concatenate()([lstm(4, name="one")(x), fixed])
    two = lstm(6, name="two")(x)
    y = layers.Add()([shared(joined), shared(two)])
    model = keras.Model([x, fixed], y)
    randomize(model)
    structures = keras_iss.find_structures(model)
    # Units 0 to 3 go together; what meets the fixed rows must stay.
    assert structures["one"].size == 4 and structures["one"].pinned is None
    pinned = [structure for structure in structures if structure.pinned]
    assert [structure.size for structure in pinned] == [2]
    assert "`shared`" in pinned[0].pinned and "kernel" in pinned[0].pinned
    with pytest.raises(ValueError, match="`shared`"):
        keras_iss.shrink(model, keep={pinned[0].name: 1})
    small = keras_iss.shrink(model, keep={"one": 2})
    assert small.get_layer("two").units == 4


def test_a_failure_in_the_middle_of_shrink(monkeypatch):
    model = language_model()
    model.compile("adam", "mse")
    regularizer = keras_iss.ISSRegularizer(0.1)
    regularizer.attach(model)
    before, losses = model.get_weights(), len(model.losses)
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    build = layers.Dense.build

    def failing(self, *args, **kwargs):
        if self.name == "softmax":
            raise MemoryError("no memory left")
        return build(self, *args, **kwargs)

    monkeypatch.setattr(layers.Dense, "build", failing)
    with pytest.raises(MemoryError):
        keras_iss.shrink(model, keep={"lstm_1": 2})
    monkeypatch.undo()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert losses == len(model.losses)
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
    assert keras_iss.shrink(model, keep={"lstm_1": 2}).count_params() < (
        model.count_params()
    )


def test_a_failure_in_the_middle_of_attach(monkeypatch):
    model = language_model()
    model.compile("sgd", "mse")
    model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 3, 11)))
    variables = list(map(id, model.variables))

    def failing(*args, **kwargs):
        raise MemoryError("no memory left")

    monkeypatch.setattr(model, "make_train_function", failing)
    with pytest.raises(MemoryError):
        keras_iss.ISSRegularizer(0.1).attach(model)
    monkeypatch.undo()
    assert not model.losses and variables == list(map(id, model.variables))
    keras_iss.ISSRegularizer(0.1).attach(model)


def test_data_of_another_length_is_no_bad_input():
    x = sequence()
    model = keras.Model(x, head(lstm(6, name="lstm")(x)))
    small = keras_iss.shrink(model, keep={"lstm": 3})
    for steps in (1, 9):
        assert small(np.zeros((2, steps, FEATURES))).shape == (2, steps, 2)
