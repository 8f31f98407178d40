"""The penalty: its value, its gradient, and how it goes on and off."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import head, lstm, randomize, sequence
from tests.test_structures import language_model, squares_of_component

BACKEND = keras.backend.backend()


def penalty_of(model):
    terms = [keras.ops.cast(x, "float32") for x in model.losses]
    return float(sum(keras.ops.convert_to_numpy(x) for x in terms))


def lstm_squares(cell, readers, offset=0):
    """Squared norms of an LSTM's units, by the formula of the paper.

    `readers` are the matrices that read its output, from row `offset` on.
    """
    kernel = np.array(cell.kernel, "float64")
    recurrent = np.array(cell.recurrent_kernel, "float64")
    units = cell.units
    squares = (recurrent**2).sum(axis=1)
    for gate in range(4):
        columns = slice(gate * units, (gate + 1) * units)
        squares += (kernel[:, columns] ** 2).sum(axis=0)
        squares += (recurrent[:, columns] ** 2).sum(axis=0)
    for matrix in readers:
        rows = np.array(matrix, "float64")[offset : offset + units]
        squares += (rows**2).sum(axis=1)
    return squares


def test_the_penalty_of_stacked_lstms_is_the_formula():
    model = language_model((9, 8), vocabulary=20)
    keras_iss.ISSRegularizer(0.003).attach(model)
    first, second = (model.get_layer(f"lstm_{i}").cell for i in (1, 2))
    squares = np.concatenate(
        [
            lstm_squares(first, [second.kernel]),
            lstm_squares(second, [model.get_layer("softmax").kernel]),
        ]
    )
    wanted = 0.003 * np.sqrt(squares + 1e-8).sum()
    np.testing.assert_allclose(penalty_of(model), wanted, rtol=1e-6)
    assert len(model.losses) == 2


def test_the_penalty_of_a_bidirectional_stack_is_the_formula():
    x = sequence()
    h = layers.Bidirectional(lstm(6), name="one")(x)
    h = layers.Bidirectional(lstm(5, return_sequences=False), name="two")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    keras_iss.ISSRegularizer(0.01).attach(model)
    first, two = model.get_layer("one"), model.get_layer("two")
    readers = [two.forward_layer.cell.kernel, two.backward_layer.cell.kernel]
    out = [model.get_layer("head").kernel]
    squares = np.concatenate(
        [
            lstm_squares(first.forward_layer.cell, readers),
            lstm_squares(first.backward_layer.cell, readers, 6),
            lstm_squares(two.forward_layer.cell, out),
            lstm_squares(two.backward_layer.cell, out, 5),
        ]
    )
    wanted = 0.01 * np.sqrt(squares + 1e-8).sum()
    np.testing.assert_allclose(penalty_of(model), wanted, rtol=1e-6)


@pytest.mark.parametrize("overlap", ["count_twice", "once"])
def test_the_gradient_is_that_of_the_formula(overlap):
    """One step of plain gradient descent on the penalty alone."""
    model = language_model((4, 3), vocabulary=5)
    keras_iss.ISSRegularizer(0.5, overlap=overlap).attach(model)
    rate, step = 0.01, 1e-3
    names = [
        "lstm_1/lstm_cell/kernel",
        "lstm_1/lstm_cell/recurrent_kernel",
        "lstm_2/lstm_cell/kernel",
    ]
    variables = [v for v in model.trainable_variables if v.path in names]
    model.compile(keras.optimizers.SGD(rate), loss=NoLoss())
    rng = np.random.default_rng(0)
    wanted = []
    for variable in variables:
        value = np.array(variable)
        at = tuple(rng.integers(0, n) for n in value.shape)
        slopes = []
        for sign in (1, -1):
            moved = value.copy()
            moved[at] += sign * step
            variable.assign(moved)
            slopes.append(
                sign
                * 0.5
                * sum(
                    np.sqrt(squares_of_component(model, k, overlap) + 1e-8)
                    for k in range(4)
                )
            )
        variable.assign(value)
        # `lstm_2`'s own units own columns of its kernel too.
        own = 0.0
        if variable.path.startswith("lstm_2"):
            unit = at[1] % 3
            norms = keras_iss.find_structures(model)["lstm_2"].norms(overlap)
            own = 0.5 * value[at] / norms[unit]
        wanted.append((at, value[at], sum(slopes) / (2 * step) + own))
    x = np.zeros((2, 3), "int32")
    model.train_on_batch(x, np.zeros((2, 3, 5)))
    for variable, (at, old, slope) in zip(variables, wanted):
        found = (old - np.array(variable)[at]) / rate
        np.testing.assert_allclose(found, slope, rtol=2e-3, atol=1e-4)


class NoLoss(keras.losses.Loss):
    """No loss of the outputs, but connected to them."""

    def call(self, y_true, y_pred):
        return 0.0 * keras.ops.sum(y_pred, axis=(1, 2))


@pytest.mark.parametrize("eager", [False, True])
def test_training_with_the_penalty_shortens_components(eager):
    model = language_model()
    structures = keras_iss.find_structures(model)
    before = structures["lstm_1"].norms().sum()
    keras_iss.ISSRegularizer(0.1).attach(model)
    model.compile(keras.optimizers.SGD(0.1), NoLoss(), run_eagerly=eager)
    x = np.zeros((4, 3), "int32")
    model.fit(x, np.zeros((4, 3, 11)), epochs=3, verbose=0)
    assert structures["lstm_1"].norms().sum() < before - 0.05


@pytest.mark.parametrize("eager", [False, True])
def test_the_strength_changes_during_training_without_compiling(eager):
    model = language_model()
    regularizer = keras_iss.ISSRegularizer(1.0)
    regularizer.attach(model)
    model.compile(keras.optimizers.SGD(0.0), NoLoss(), run_eagerly=eager)

    class Change(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            regularizer.strength = [1.0, 2.0, 0.0][epoch]

    x, y = np.zeros((4, 3), "int32"), np.zeros((4, 3, 11))
    losses = model.fit(x, y, epochs=3, verbose=0, callbacks=[Change()]).history[
        "loss"
    ]
    np.testing.assert_allclose(losses[1], 2 * losses[0], rtol=1e-5)
    assert losses[2] == 0 and regularizer.strength == 0.0


def test_the_strength_changes_in_the_middle_of_an_epoch():
    model = language_model()
    regularizer = keras_iss.ISSRegularizer(1.0)
    regularizer.attach(model)
    model.compile(keras.optimizers.SGD(0.0), NoLoss())
    seen = []

    class Change(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["loss"]))
            if batch == 1:
                regularizer.strength = 0.0

    x, y = np.zeros((8, 3), "int32"), np.zeros((8, 3, 11))
    model.fit(x, y, batch_size=2, verbose=0, callbacks=[Change()])
    # The logs hold running means: 1, 1, 2/3, 1/2 of the penalty.
    np.testing.assert_allclose(
        np.array(seen) / seen[0], [1, 1, 2 / 3, 1 / 2], rtol=1e-4
    )


def test_attaching_after_fit_takes_effect_and_detaching_too():
    model = language_model()
    model.compile(keras.optimizers.SGD(0.0), NoLoss())
    x, y = np.zeros((4, 3), "int32"), np.zeros((4, 3, 11))

    def loss():
        fitted = model.fit(x, y, verbose=0).history["loss"][0]
        assert model.evaluate(x, y, verbose=0) == pytest.approx(fitted)
        return fitted

    assert loss() == 0
    regularizer = keras_iss.ISSRegularizer(1.0)
    regularizer.attach(model)
    assert loss() == pytest.approx(penalty_of(model), rel=1e-5) and loss() > 1
    regularizer.detach(model)
    assert loss() == 0 and not model.losses


def test_detaching_leaves_the_model_as_it_was():
    x = sequence()
    layer = layers.GRU(6, kernel_regularizer="l2", recurrent_regularizer="l1")
    model = keras.Model(x, head(layer(x)))
    regularizers = [v.regularizer for v in model.variables]
    variables = list(map(id, model.variables))
    regularizer = keras_iss.ISSRegularizer(1e-3)
    own = penalty_of(model)
    regularizer.attach(model)
    norms = next(iter(keras_iss.find_structures(model))).norms()
    np.testing.assert_allclose(
        penalty_of(model), own + 1e-3 * norms.sum(), rtol=1e-5
    )
    regularizer.detach(model)
    assert [v.regularizer for v in model.variables] == regularizers
    assert list(map(id, model.variables)) == variables
    with pytest.raises(ValueError, match="is not attached"):
        regularizer.detach(model)


def test_the_penalty_is_computed_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = language_model((9, 8))
        keras_iss.ISSRegularizer(0.01).attach(model)
        norms = [s.norms().sum() for s in keras_iss.find_structures(model)]
        assert {
            x.dtype for x in map(keras.ops.convert_to_tensor, model.losses)
        } and all("float32" in str(x.dtype) for x in model.losses)
        np.testing.assert_allclose(
            penalty_of(model), 0.01 * sum(norms), rtol=1e-6
        )
        model.compile("sgd", NoLoss())
        loss = model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 3, 11)))
        np.testing.assert_allclose(loss, 0.01 * sum(norms), rtol=1e-3)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_saved_model_loads_where_keras_iss_cannot_be_imported(tmp_path):
    model = language_model()
    keras_iss.ISSRegularizer(0.01).attach(model)
    model.compile("adam", NoLoss())
    x = np.zeros((2, 3), "int32")
    model.fit(x, np.zeros((2, 3, 11)), verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    np.save(tmp_path / "y.npy", keras.ops.convert_to_numpy(model(x)))
    script = textwrap.dedent("""
        import pathlib, sys
        sys.modules["keras_iss"] = None
        import keras, numpy as np
        folder = pathlib.Path(sys.argv[1])
        model = keras.models.load_model(folder / "model.keras", compile=False)
        model.load_weights(folder / "model.weights.h5")
        assert not model.losses
        y = keras.ops.convert_to_numpy(model(np.zeros((2, 3), "int32")))
        np.testing.assert_allclose(y, np.load(folder / "y.npy"), rtol=1e-6)
    """)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )


def test_a_file_loads_into_a_model_with_the_penalty(tmp_path):
    model = language_model()
    model.save_weights(tmp_path / "model.weights.h5")
    keras_iss.ISSRegularizer(0.01).attach(model)
    model.load_weights(tmp_path / "model.weights.h5")


def test_the_config_makes_an_equal_regularizer():
    regularizer = keras_iss.ISSRegularizer(
        0.5, include=("recurrent", "dense"), overlap="once"
    )
    config = keras.regularizers.serialize(regularizer)
    again = keras.regularizers.deserialize(config)
    assert isinstance(again, keras_iss.ISSRegularizer)
    assert again.get_config() == regularizer.get_config()
    assert again.get_config()["strength"] == 0.5


def test_one_regularizer_serves_several_models():
    regularizer = keras_iss.ISSRegularizer(1.0)
    models = [language_model(), language_model((3, 2))]
    for model in models:
        regularizer.attach(model)
    before = list(map(penalty_of, models))
    regularizer.strength = 3.0
    np.testing.assert_allclose(
        list(map(penalty_of, models)), 3 * np.array(before), rtol=1e-6
    )
    regularizer.detach(models[0])
    assert penalty_of(models[0]) == 0 < penalty_of(models[1])


def test_the_penalty_goes_over_to_the_smaller_model():
    model = language_model()
    regularizer = keras_iss.ISSRegularizer(1.0)
    regularizer.attach(model)
    keras_iss.prune(model, keep={"lstm_1": 2})
    small = keras_iss.shrink(model)
    # A removed component still adds the root of 1e-8.
    np.testing.assert_allclose(
        penalty_of(small), penalty_of(model) - 3e-4, rtol=1e-6
    )
    regularizer.strength = 0.0
    assert penalty_of(small) == penalty_of(model) == 0


def test_a_frozen_layer_takes_its_penalty_out():
    model = language_model()
    keras_iss.ISSRegularizer(1.0).attach(model)
    model.get_layer("lstm_1").trainable = False
    assert len(model.losses) == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
def test_the_penalty_trains_inside_a_distribution_strategy():
    script = textwrap.dedent("""
        import numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        import keras, keras_iss
        from tests.test_regularizers import NoLoss
        from tests.test_structures import language_model
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = language_model()
            regularizer = keras_iss.ISSRegularizer(1.0)
            regularizer.attach(model)
            model.compile(keras.optimizers.SGD(0.0), NoLoss())
        total = sum(s.norms().sum() for s in keras_iss.find_structures(model))
        x, y = np.zeros((4, 3), "int32"), np.zeros((4, 3, 11))
        loss = model.fit(x, y, verbose=0).history["loss"][0]
        np.testing.assert_allclose(loss, total, rtol=1e-4)
        regularizer.strength = 0.5
        loss = model.fit(x, y, verbose=0).history["loss"][0]
        np.testing.assert_allclose(loss, total / 2, rtol=1e-4)
        keras_iss.prune(model, keep={"lstm_1": 2})
        small = keras_iss.shrink(model)
        np.testing.assert_allclose(model(x), small(x), atol=1e-5)
        np.testing.assert_allclose(
            sum(small.losses), 0.5 * float(sum(s.norms().sum()
            for s in keras_iss.find_structures(small))), rtol=1e-4)
    """)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        check=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )


class Halve(keras.callbacks.Callback):
    """Sets a strength to zero in the second epoch."""

    def __init__(self, regularizer):
        super().__init__()
        self.regularizer = regularizer

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            self.regularizer.strength = 0.0


@pytest.mark.parametrize("nested", [True, False])
def test_the_strength_acts_on_every_model_with_the_layers(nested):
    x = sequence()
    h = lstm(6)(x)
    base = keras.Model(x, head(lstm(5)(h)))
    if nested:
        outer = keras.Model(x, layers.Dense(1)(base(x)))
    else:
        outer = keras.Model(x, [layers.Dense(1)(h), base.output])
    regularizer = keras_iss.ISSRegularizer(1.0)
    regularizer.attach(base)
    outer.compile(keras.optimizers.SGD(0.0))
    history = outer.fit(
        np.ones((4, 3, 3)),
        epochs=2,
        verbose=0,
        callbacks=[Halve(regularizer)],
    ).history["loss"]
    assert history[0] > 1 and history[1] == 0


def test_detaching_through_another_model_takes_all_of_it_off():
    x = sequence()
    h = lstm(6)(x)
    base = keras.Model(x, head(lstm(5)(h)))
    encoder = keras.Model(x, layers.Dense(1)(h))
    regularizer = keras_iss.ISSRegularizer(1.0)
    regularizer.attach(base)
    regularizer.detach(encoder)
    assert not base.losses and not encoder.losses
    regularizer.attach(base)
    del base
    regularizer.detach(encoder)
    assert not encoder.losses


def test_a_penalty_on_an_inner_model_stays_one():
    x = sequence()
    inner = keras.Model(x, head(lstm(6)(x)))
    z = sequence()
    outer = keras.Model(z, layers.Dense(1)(lstm(5)(inner(z))))
    keras_iss.ISSRegularizer(0.1).attach(inner)
    small = keras_iss.shrink(outer)
    np.testing.assert_allclose(penalty_of(small), penalty_of(outer), rtol=1e-5)
    assert len(small.losses) == 1


def test_two_penalties_go_over_to_the_smaller_model():
    first, second = (
        keras.Sequential([keras.Input((None, 3)), lstm(6), layers.Dense(3)])
        for _ in "ab"
    )
    x = sequence()
    outer = keras.Model(x, second(first(x)))
    keras_iss.ISSRegularizer(0.1).attach(first)
    keras_iss.ISSRegularizer(0.2).attach(second)
    small = keras_iss.shrink(outer)
    np.testing.assert_allclose(penalty_of(small), penalty_of(outer), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_host_may_have_a_regularizer_in_another_dtype(dtype):
    regularized = {
        "kernel_regularizer": "l2",
        "recurrent_regularizer": "l2",
        "recurrent_initializer": "glorot_uniform",
        "dtype": dtype,
    }
    x = sequence()
    h = lstm(4, **regularized)(x)
    dense = layers.Dense(2, kernel_regularizer="l2", dtype=dtype)
    model = keras.Model(x, dense(h))
    keras_iss.ISSRegularizer(0.1).attach(model)
    assert np.isfinite(penalty_of(model))


def test_a_copy_is_attached_to_nothing():
    model = language_model()
    regularizer = keras_iss.ISSRegularizer(0.1, overlap="once")
    regularizer.attach(model)
    other = pickle.loads(pickle.dumps(copy.deepcopy(regularizer)))
    assert other.get_config() == regularizer.get_config()
    before = penalty_of(model)
    other.strength = 0.0
    assert penalty_of(model) == before
