"""What the metrics of an epoch describe is what is there at its end."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import randomize

BACKEND = keras.backend.backend()

not_on_jax = pytest.mark.skipif(
    BACKEND == "jax", reason="compiles for long there, and does the same"
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 2, 3)).astype("float32")
Y = X.sum((1, 2))[:, None]

FITS = [keras.Model.fit, keras_iss.fit]

EPOCHS = 4


def compiled(optimizer="adam", run_eagerly=BACKEND == "tensorflow"):
    """Not compiled where that takes longer than the training."""
    x = keras.Input((2, 3))
    h = layers.LSTM(8, return_sequences=True, name="one")(x)
    model = keras.Model(x, layers.Dense(1)(layers.GRU(6, name="two")(h)))
    randomize(model)
    if optimizer == "adam":
        optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=run_eagerly)
    return model


def middle(model):
    """A threshold that some components of each structure are under."""
    norms = [s.norms() for s in keras_iss.find_structures(model)]
    return float(np.median(np.concatenate(norms)))


REMOVING = {
    "budget": lambda _: keras_iss.ISSBudget(
        units=0.4, from_epoch=0, by_epoch=3
    ),
    "taylor": lambda _: keras_iss.ISSBudget(
        units=0.4, from_epoch=0, by_epoch=3, importance="taylor", data=(X, Y)
    ),
    "prune": lambda model: keras_iss.ISSPruneCallback(middle(model)),
    "every second": lambda model: keras_iss.ISSPruneCallback(
        middle(model), every=2, keep_removed=True
    ),
    "elementwise": lambda _: keras_iss.ISSPruneCallback(0.3, elementwise=True),
}


def train(model, fit, *callbacks, **kwargs):
    arguments = {"validation_data": (X[24:], Y[24:]), **kwargs}
    trained = fit(
        model,
        X[:24],
        Y[:24],
        batch_size=8,
        epochs=EPOCHS,
        verbose=0,
        callbacks=list(callbacks),
        **arguments,
    )
    return model if fit is keras.Model.fit else trained


def alive(model):
    return [s.alive for s in keras_iss.find_structures(model)]


def check_files(folder, history, data=(X[24:], Y[24:])):
    """Fails unless each file evaluates to what was reported for its epoch.

    Returns:
        List of the weights in each file that are not zero.
    """
    counts = []
    for epoch in range(1, EPOCHS + 1):
        model = keras.models.load_model(folder / f"{epoch}.keras")
        counts.append(sum(map(np.count_nonzero, model.get_weights())))
        at = history.epoch.index(epoch - 1)
        found = model.evaluate(*data, verbose=0, return_dict=True)
        for name, value in found.items():
            wanted = history.history[f"val_{name}"][at]
            np.testing.assert_allclose(value, wanted, rtol=1e-4)
    return counts


@pytest.mark.compiled
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "name", ["budget", "prune"] if BACKEND == "jax" else list(REMOVING)
)
@pytest.mark.parametrize("first", ["checkpoint", "removing"])
def test_the_file_of_an_epoch_evaluates_to_what_is_reported(
    fit, name, first, tmp_path
):
    if first == "removing" and (BACKEND == "jax" or name != "budget"):
        pytest.skip("does the same")
    model = compiled(run_eagerly=name != "budget" and BACKEND == "tensorflow")
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        REMOVING[name](model),
    ]
    if first == "removing":
        callbacks.reverse()
    trained = train(model, fit, *callbacks)
    counts = check_files(tmp_path, trained.history)
    full = model.count_params()
    assert counts[-1] < 0.9 * full and counts == sorted(counts, reverse=True)


@not_on_jax
@pytest.mark.parametrize("fit", FITS)
def test_with_a_validation_split(fit, tmp_path):
    model = compiled()
    trained = train(
        model,
        fit,
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        REMOVING["budget"](model),
        validation_data=None,
        validation_split=0.25,
    )
    counts = check_files(tmp_path, trained.history, (X[18:24], Y[18:24]))
    assert counts[-1] < 0.9 * model.count_params()


class Look(keras.callbacks.Callback):
    """What is alive at the hooks of each epoch, and the model's loss."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append({"begin": alive(self.model)})

    def on_test_batch_begin(self, batch, logs=None):
        self.seen[-1]["test"] = alive(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.seen[-1]["end"] = alive(self.model)
        self.seen[-1]["loss"] = self.model.evaluate(X[24:], Y[24:], verbose=0)[
            0
        ]


@not_on_jax
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fit", FITS)
def test_epochs_with_and_without_validation(fit, first):
    model = compiled()
    look, removing = Look(), REMOVING["budget"](model)
    train(
        model,
        fit,
        *([look, removing] if first else [removing, look]),
        validation_freq=2,
    )
    for epoch, now in enumerate(look.seen):
        assert ("test" in now) == (epoch % 2 == 1)
        if "test" in now:
            assert now["test"] == now["end"]
        # Where there is no validation, Keras has no hook but the last.
        elif not first or fit is keras_iss.fit:
            assert epoch == 3 or now["end"] < now["begin"]
    assert sum(look.seen[-1]["end"]) == 5


@not_on_jax
@pytest.mark.parametrize("fit", FITS)
def test_a_callback_that_evaluates_finds_what_is_reported(fit):
    model = compiled()
    look = Look()
    trained = train(model, fit, look, REMOVING["budget"](model))
    np.testing.assert_allclose(
        [now["loss"] for now in look.seen],
        trained.history.history["val_loss"],
        rtol=1e-4,
    )


@pytest.mark.parametrize("fit", [keras_iss.fit] if BACKEND == "jax" else FITS)
@pytest.mark.parametrize("first", [True, False])
def test_the_best_epoch_is_what_early_stopping_gives_back(fit, first):
    """A large rate, so that the best epoch is not the last."""
    if BACKEND == "jax" and first:
        pytest.skip("compiles for long there, and does the same")
    model = compiled(keras.optimizers.SGD(0.2))
    stop = keras.callbacks.EarlyStopping(
        patience=3, restore_best_weights=True, start_from_epoch=1
    )
    prune = keras_iss.ISSPruneCallback(middle(model))
    callbacks = [stop, prune] if first else [prune, stop]
    model = train(model, fit, *callbacks)
    losses = model.history.history["val_loss"]
    found = model.evaluate(X[24:], Y[24:], verbose=0)[0]
    np.testing.assert_allclose(found, min(losses[1:]), rtol=1e-4)
    assert sum(alive(model)) < 14


@not_on_jax
def test_taylor_scores_leave_the_metrics_of_the_epoch_as_they_are():
    histories = []
    for data in (None, (X[:24], Y[:24])):
        model = compiled(keras.optimizers.SGD(0.0))
        budget = keras_iss.ISSBudget(
            units=0.4,
            from_epoch=2,
            by_epoch=3,
            pressure=0,
            importance="taylor" if data else "norm",
            data=data,
        )
        train(model, keras.Model.fit, budget)
        histories.append(model.history.history["loss"])
    np.testing.assert_allclose(histories[0][:3], histories[1][:3], rtol=1e-5)


@not_on_jax
@pytest.mark.parametrize("name", ["budget", "prune"])
def test_an_evaluation_of_ones_own_removes_nothing(name):
    """With a callback that was trained with before."""
    model = compiled()
    callback = REMOVING[name](model)
    train(model, keras.Model.fit, callback)
    other = compiled()
    other.evaluate(X, Y, verbose=0, callbacks=[callback])
    assert alive(other) == [8, 6]
    model.get_layer("one").cell.kernel.assign(np.ones((3, 32)))
    before = alive(model)
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    assert alive(model) == before
    assert before[0] == 8


@not_on_jax
@pytest.mark.parametrize("on_epoch", [False, True])
def test_averages_that_are_swapped_in_for_the_validation(on_epoch, tmp_path):
    """`SwapEMAWeights` goes on in the smaller model as at full size."""
    found = []
    for fit in FITS:
        model = compiled(keras.optimizers.SGD(0.02, 0.9, use_ema=True))
        trained = train(
            model,
            fit,
            keras_iss.ISSBudget({"one": 4, "two": 3}, pressure=0, by_epoch=2),
            keras.callbacks.SwapEMAWeights(swap_on_epoch=on_epoch),
            shuffle=False,
        )
        found.append((trained.predict(X, verbose=0), trained.history.history))
        assert sum(alive(trained)) == 7
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-4)
    for name, values in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], values, rtol=1e-3)
