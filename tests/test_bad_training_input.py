"""What a training is given and cannot use is said before it trains."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import randomize

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4, 3)).astype("float32")
Y = RNG.normal(size=(16, 2)).astype("float32")

BOTH = ("recurrent", "dense")


if keras.backend.backend() == "jax":
    pytest.skip("the same on every backend", allow_module_level=True)

# Nothing is compiled, where that takes longer than a training.
EAGER = keras.backend.backend() == "tensorflow"


def compiled():
    x = keras.Input((None, 3))
    h = layers.LSTM(4, return_sequences=True, name="a")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.LSTM(4)(h)))
    randomize(model)
    model.compile("sgd", "mse", run_eagerly=EAGER)
    return model


@pytest.fixture(scope="module")
def shared():
    return compiled()


@pytest.fixture
def model(shared):
    before = shared.get_weights()
    yield shared
    for old, new in zip(before, shared.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not shared.losses


class Own(keras.callbacks.Callback):
    pass


FIT = {
    "epochs": [(1.5, TypeError), ("3", TypeError), (True, TypeError)]
    + [(-1, ValueError), (None, TypeError)],
    "initial_epoch": [(-1, ValueError), (1.0, TypeError)],
    "batch_size": [(0, ValueError), ("8", TypeError), (8.0, TypeError)],
    "steps_per_epoch": [(0, ValueError), (-1, ValueError), (1.5, TypeError)],
    "validation_steps": [(0, ValueError), (True, TypeError)],
    "validation_freq": [(0, ValueError), (0.5, TypeError)],
    "validation_split": [(2.0, ValueError), (-0.1, ValueError)]
    + [("half", ValueError)],
    "validation_data": [(5, TypeError), ((X[:0], Y[:0]), ValueError)]
    + [((X,), ValueError), ("xy", TypeError)],
    "shrink_every": [(0, ValueError), (None, ValueError), (1.0, ValueError)],
    "callbacks": [(5, TypeError), ([5], TypeError), ("budget", TypeError)]
    + [([Own], TypeError), ({"a": None}, TypeError)],
    "include": [("x", ValueError), ((), ValueError), (5, ValueError)]
    + [([["recurrent"]], ValueError), ([None], ValueError)],
    "x": [(None, ValueError), (5, TypeError), ("x", TypeError)]
    + [(X[:0], ValueError), (X.tolist(), TypeError), ({}, ValueError)]
    + [(np.float32(1.0), TypeError)],
    "y": [(None, ValueError), (Y.tolist(), TypeError)],
    "sample_weight": [(1.0, TypeError)],
}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [(name, *case) for name, cases in FIT.items() for case in cases],
)
def test_an_argument_of_fit_is_named(model, name, value, error):
    arguments = {"x": X, "y": Y, "verbose": 0, **{name: value}}
    with pytest.raises(error, match=f"`{name}"):
        keras_iss.fit(model, **arguments)
    assert "train_function" not in vars(model) or not model.train_function


def test_lengths_that_differ_are_named(model):
    for arguments in (
        {"y": Y[:3]},
        {"sample_weight": np.ones(5)},
        {"validation_data": (X, Y[:3])},
    ):
        with pytest.raises(ValueError, match=r"equally many samples.*16, `"):
            keras_iss.fit(model, **{"x": X, "y": Y, **arguments})


@pytest.mark.parametrize("no_model", [None, 5, "model", layers.LSTM(3)])
def test_what_is_no_model(no_model):
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        keras_iss.fit(no_model, X, Y)
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        keras_iss.ISSRegularizer(0.1).detach(no_model)
    with pytest.raises(TypeError, match=r"`keras.Model`"):
        keras_iss.ISSRegularizer(0.1).attach(no_model)
    with pytest.raises(TypeError, match="`of` must be a `keras.Model`"):
        keras_iss.ISSBudget(
            units=0.5, of=no_model if no_model is not None else 0
        )


def endless():
    while True:
        yield X, Y


def test_a_generator_lasts_for_one_epoch(model):
    with pytest.raises(ValueError, match=r"`x` is a generator.*steps_per_ep"):
        keras_iss.fit(model, endless(), epochs=2, verbose=0)
    with pytest.raises(ValueError, match=r"`validation_data` is a gen.*steps"):
        keras_iss.fit(
            model, X, Y, epochs=2, verbose=0, validation_data=endless()
        )


def test_numbers_of_numpy_are_numbers():
    model = compiled()
    budget = keras_iss.ISSBudget(
        units=np.array(0.5), by_epoch=np.array(1), pressure=np.float32(0.1)
    )
    small = keras_iss.fit(
        model,
        X,
        Y,
        epochs=np.int64(2),
        batch_size=np.array(8),
        shrink_every=np.int32(1),
        verbose=0,
        callbacks=budget,
    )
    assert sum(s.size for s in keras_iss.find_structures(small)) == 4
    assert keras_iss.ISSPruneCallback(np.array(0.5)).threshold == 0.5
    assert keras_iss.ProximalISS("sgd", np.array(0.5)).strength == 0.5
    assert keras_iss.ISSRegularizer(np.array(0.5)).strength == 0.5
    keras_iss.prune(model, keep={"a": np.array(2)})
    keras_iss.prune(model, threshold=np.array(0.0))
    assert keras_iss.prune(model, weights=np.array(0.4))["a"].alive <= 2
    budget = keras_iss.ISSBudget({"a": np.array(1)})
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[budget])


class TestWeightsOfOneSize:
    def checkpoints():
        yield keras.callbacks.ModelCheckpoint(
            "a.weights.h5", save_weights_only=True
        )
        yield keras.callbacks.ModelCheckpoint(
            "a.weights.h5", save_weights_only=True, save_best_only=True
        )
        yield keras.callbacks.BackupAndRestore("backup")

    @pytest.mark.parametrize("callback", checkpoints())
    @pytest.mark.parametrize("nest", [list, keras.callbacks.CallbackList])
    def test_are_refused(self, model, callback, nest):
        wanted = rf"`{type(callback).__name__}`.*load_model.*`initial_epoch`"
        with pytest.raises(ValueError, match=wanted):
            keras_iss.fit(model, X, Y, verbose=0, callbacks=nest([callback]))

    def test_of_a_callback_of_ones_own(self, model):
        class Mine(keras.callbacks.ModelCheckpoint):
            pass

        mine = Mine("a.weights.h5", save_weights_only=True)
        with pytest.raises(ValueError, match="`Mine` has `save_weights_only"):
            keras_iss.fit(model, X, Y, verbose=0, callbacks=[mine])

    def test_are_fine_where_the_size_stays(self, tmp_path):
        model = compiled()
        checkpoint = keras.callbacks.ModelCheckpoint(
            tmp_path / "a.weights.h5", save_weights_only=True
        )
        budget = keras_iss.ISSBudget(units=0.5)
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[budget, checkpoint])
        compiled().load_weights(tmp_path / "a.weights.h5")


BUDGET = [
    ({"weights": np.array([0.5])}, TypeError, "`weights` must be a number"),
    ({"units": "half"}, TypeError, "`units` must be a number"),
    ({"weights": 0.5, "by_epoch": "2"}, TypeError, "`by_epoch`"),
    ({"weights": 0.5, "pressure": [1]}, TypeError, "`pressure`"),
    ({"weights": 0.5, "include": 5}, ValueError, "`include`"),
    ({"weights": 0.5, "include": ["lstm"]}, ValueError, "`include`"),
    (
        {"weights": 0.5, "importance": np.ones(3)},
        TypeError,
        "`importance` must be",
    ),
    (
        {"weights": 0.5, "importance": {"a": [1]}},
        TypeError,
        "`importance` must be",
    ),
    ({"keep": {"a": np.ones(2)}}, TypeError, "indices for `a`"),
    ({"keep": [("a", 2)]}, TypeError, "a dict from the name"),
    *(
        ({"units": 0.5, "importance": "taylor", "data": data}, error, "`data")
        for data, error in (
            (5, TypeError),
            ("xy", TypeError),
            ((), ValueError),
            ((X, Y, Y, Y), ValueError),
            ((X[:0], Y[:0]), ValueError),
            ((X.tolist(), Y), TypeError),
        )
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BUDGET)
def test_what_a_budget_cannot_use(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_iss.ISSBudget(**arguments)


@pytest.mark.parametrize(
    ("importance", "error", "message"),
    [
        (None, TypeError, "returned None"),
        (5, TypeError, "`importance` must be a dict"),
        ({"a": [1, 2]}, ValueError, r"`a` must be of shape \(4,\)"),
        ({"a": "abcd"}, TypeError, "`a` must be 4 numbers"),
        ({"a": [None, 1, 2, 3]}, ValueError, "`a` has NaN"),
        ({"b": [1] * 4}, KeyError, "`b` is no structure"),
    ],
)
def test_scores_that_make_no_sense(importance, error, message):
    model = compiled()
    budget = keras_iss.ISSBudget(units=0.5, importance=lambda _: importance)
    with pytest.raises(error, match=message):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[budget])
    assert not model.losses
    if isinstance(importance, dict):
        with pytest.raises(error, match=message):
            keras_iss.prune(model, weights=0.5, importance=importance)


def test_a_structure_that_is_named_twice(model):
    structure = keras_iss.find_structures(model)["a"]
    with pytest.raises(ValueError, match="`a` twice"):
        keras_iss.ISSBudget({"a": 2, structure: 3})
    with pytest.raises(ValueError, match="`a` twice"):
        keras_iss.prune(
            model, weights=0.5, importance={"a": [1] * 4, structure: [1] * 4}
        )


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (5, TypeError, "`data` must be"),
        ((), ValueError, "`data` must be"),
        (X, ValueError, r"`data\[1\]` is missing"),
        ((X,), ValueError, r"`data\[1\]` is missing"),
        ((X, None), ValueError, r"`data\[1\]` is missing"),
        ({"x": X}, ValueError, r"`data\[1\]` is missing"),
        ((X[:0], Y[:0]), ValueError, "no samples"),
        ((X, Y[:3]), ValueError, r"`data\[0\]` 16, `data\[1\]` 3"),
        (("a", "b"), TypeError, r"`data\[0\]`.*'a'"),
    ],
)
def test_data_that_no_score_can_be_computed_from(model, data, error, message):
    with pytest.raises(error, match=message):
        keras_iss.estimate_importance(model, data, by="taylor")


@pytest.mark.parametrize("name", ["batches", "batch_size"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (1.5, TypeError), (None, TypeError)]
)
def test_numbers_of_a_ranking(model, name, value, error):
    with pytest.raises(error, match=f"`{name}` must be"):
        keras_iss.estimate_importance(
            model, (X, Y), by="taylor", **{name: value}
        )


def test_a_model_without_a_loss_of_targets_needs_none():
    x = keras.Input((4, 3))
    h = layers.LSTM(4, name="a", activity_regularizer="l2")(x)
    model = keras.Model(x, layers.Dense(2)(h))
    model.compile("sgd")
    for data in ((X,), X):
        importance = keras_iss.estimate_importance(model, data, by="taylor")
        assert (importance["a"] > 0).any()


@pytest.mark.parametrize(
    ("optimizer", "error"),
    [
        (None, TypeError),
        (5, TypeError),
        (b"adam", TypeError),
        (keras.optimizers.Adam, TypeError),
        ("nope", ValueError),
        ({"class_name": "Nope"}, ValueError),
    ],
)
def test_what_is_no_optimizer(optimizer, error):
    with pytest.raises(error, match="`optimizer` must be a Keras optimizer"):
        keras_iss.ProximalISS(optimizer, strength=0.1)


def test_a_strength_that_removes_everything_is_warned_of():
    """Also in `model.fit`, with no callback."""
    model = compiled()
    model.compile(keras_iss.ProximalISS("sgd", strength=1e9), "mse")
    model.optimizer.attach(model)
    with pytest.warns(UserWarning, match="All components of `a`"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda include: keras_iss.ISSPruneCallback(0.1, include=include),
        lambda include: keras_iss.ISSLogger(include=include),
        lambda include: keras_iss.ISSRegularizer(0.1, include=include),
        lambda include: keras_iss.ProximalISS("sgd", 0.1, include=include),
    ],
)
@pytest.mark.parametrize("include", [None, "x", (), [["dense"]], {"dense": 1}])
def test_kinds_that_do_not_exist_are_no_kinds_anywhere(make, include):
    with pytest.raises(ValueError, match="`include` takes.*`recurrent`"):
        make(include)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras_iss.ISSLogger(log_dir=5), "`log_dir`.*int"),
        (lambda: keras_iss.ISSLogger(log_dir=b"logs"), "`log_dir`.*bytes"),
        (lambda: keras_iss.ISSPruneCallback(None), "`threshold`"),
        (lambda: keras_iss.ISSPruneCallback([0.1]), "`threshold`"),
        (
            lambda: keras_iss.ISSPruneCallback(0.1, keep_removed="no"),
            "`keep_removed`",
        ),
        (
            lambda: keras_iss.ISSPruneCallback(0.1, elementwise=1),
            "`elementwise`",
        ),
        (lambda: keras_iss.register_rule(), "Received none"),
        (lambda: keras_iss.register_rule(layers.Dense(3)), "layer classes"),
        (lambda: keras_iss.register_rule([layers.Dense]), "layer classes"),
        (lambda: keras_iss.register_rule(Unruled)(None), "decorates a func"),
    ],
)
def test_other_things_of_the_wrong_type(make, message):
    with pytest.raises(TypeError, match=message):
        make()
    assert not pathlib.Path("5").exists()


class Unruled(layers.Layer):
    pass


@pytest.mark.parametrize("key", [["a"], {"a": 1}, slice(0, 1), ("a", ["b"])])
def test_a_key_that_cannot_be_a_name(model, key):
    structures = keras_iss.find_structures(model)
    with pytest.raises(TypeError, match="found by its name, a string"):
        structures[key]
    with pytest.raises(TypeError, match="found by its name, a string"):
        _ = key in structures
    for other in (5, None, ("a",), b"a", 1.5):
        assert other not in structures
        with pytest.raises(KeyError, match="is no structure"):
            structures[other]


@pytest.mark.parametrize("keep", [{0: 1}, {}])
@pytest.mark.parametrize("use", [keras_iss.prune, keras_iss.shrink])
def test_a_dict_is_no_sequence_of_indices(model, use, keep):
    with pytest.raises(TypeError, match="a count or a sequence of indices"):
        use(model, keep={"a": keep})


# Kinds of layers, named in two places.


def skipping():
    """Units of an LSTM that are tied to those of a dense layer."""
    x = keras.Input((4, 3))
    skip = layers.Dense(8, name="skip")(x)
    h = layers.LSTM(8, return_sequences=True, name="l")(x)
    h = layers.LSTM(6, name="top")(layers.Add()([skip, h]))
    model = keras.Model(x, layers.Dense(2, name="out")(h))
    randomize(model)
    model.compile("sgd", "mse", run_eagerly=EAGER)
    return model


def middle(model):
    """The median norm of the units that are tied."""
    structure = keras_iss.find_structures(model, BOTH)["skip"]
    return float(np.median(structure.norms()))


def units(model):
    return {n: model.get_layer(n).units for n in ("skip", "l", "top")}


def train(model, *callbacks, **kwargs):
    return keras_iss.fit(
        model, X, Y, epochs=2, verbose=0, callbacks=list(callbacks), **kwargs
    )


@pytest.mark.parametrize(
    "callback",
    [
        lambda _: keras_iss.ISSBudget(units=0.5, include=BOTH),
        lambda norm: keras_iss.ISSPruneCallback(norm, include=BOTH),
    ],
)
def test_kinds_that_a_callback_names_are_cut(callback):
    model = skipping()
    small = train(model, callback(middle(model)))
    assert units(small)["skip"] == units(small)["l"] < 8
    structures = keras_iss.find_structures(small, BOTH)
    assert all(structure.alive == structure.size for structure in structures)


def test_kinds_that_an_optimizer_names_are_cut():
    model = skipping()
    model.compile(keras_iss.ProximalISS("sgd", 1e-3, include=BOTH), "mse")
    keras_iss.prune(model, keep={"skip": 5}, include=BOTH)
    small = train(model)
    assert units(small)["skip"] == units(small)["l"] == 5


def test_kinds_that_only_a_logger_names_are_cut_too():
    def remove(epoch, logs):
        keras_iss.prune(prune.model, keep={"skip": 4}, include=BOTH)

    prune = keras.callbacks.LambdaCallback(on_epoch_end=remove)
    logger = keras_iss.ISSLogger(include=BOTH)
    assert units(train(skipping(), prune, logger))["skip"] == 4


def test_a_kind_that_fit_lacks_is_an_error():
    model = skipping()
    wanted = r"`keras_iss.fit` has.*'recurrent'.*`ISSBudget`.*'dense'"
    with pytest.raises(ValueError, match=wanted):
        train(
            model,
            keras_iss.ISSBudget(units=0.5, include=BOTH),
            include="recurrent",
        )
    with pytest.raises(ValueError, match=r"`ISSPruneCallback`.*`recurrent`"):
        train(model, keras_iss.ISSPruneCallback(0.1), include=["dense"])
    model.compile(keras_iss.ProximalISS("sgd", 0.1, include=BOTH), "mse")
    with pytest.raises(ValueError, match="optimizer `proximal_iss`.*`dense`"):
        train(model, include=("recurrent",))


def test_a_kind_that_the_callback_lacks_is_warned_of_if_it_matters(recwarn):
    budget = keras_iss.ISSBudget({"top": 3})
    with pytest.warns(UserWarning, match="removes no units of `skip`"):
        train(skipping(), budget, include=BOTH)
    recwarn.clear()
    # All the units of the dense layer are outputs.
    train(compiled(), keras_iss.ISSBudget(units=0.5), include=BOTH)
    train(skipping(), include=BOTH)
    assert not [w for w in recwarn if "include" in str(w.message)]
