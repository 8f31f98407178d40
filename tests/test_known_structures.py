"""A model is traced once for each of its sizes, and anew before a cut."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from keras_iss.tracing import find as finding

X = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
Y = np.zeros((8, 1), "float32")


def compiled(optimizer="sgd"):
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.LSTM(6, name="lstm"),
            layers.Dense(1, name="dense"),
        ]
    )
    model.compile(optimizer, "mse")
    return model


@pytest.fixture
def traced(monkeypatch):
    """The units of each model that is traced, in order."""
    units = []
    walked = finding._walked

    def noted(model, include):
        units.append(model.get_layer("lstm").units)
        return walked(model, include)

    monkeypatch.setattr(finding, "_walked", noted)
    return units


def fit(model, *callbacks):
    return keras_iss.fit(
        model, X, Y, epochs=4, verbose=0, callbacks=list(callbacks)
    )


def test_a_training_traces_each_size_once_and_once_more_before_the_cut(traced):
    # The copy that is made smaller for a trial, and the callbacks, use what
    # was found before.
    small = fit(
        compiled(),
        keras_iss.ISSBudget({"lstm": 3}, by_epoch=2, from_epoch=1),
        keras_iss.ISSLogger(),
    )
    assert small.get_layer("lstm").units == 3
    assert traced == [6, 6, 3]


def test_epochs_that_remove_nothing_trace_nothing(traced):
    fit(compiled(), keras_iss.ISSPruneCallback(0.0))
    assert traced == [6]
    # The optimizer finds its own at the first step.
    fit(compiled(keras_iss.ProximalISS("sgd", strength=1e-6)))
    assert traced == [6, 6, 6]


def test_a_callback_with_other_kinds_of_layers_finds_its_own(traced):
    logger = keras_iss.ISSLogger(include=("recurrent", "dense"))
    model = keras_iss.fit(
        compiled(),
        X,
        Y,
        include=("recurrent",),
        epochs=2,
        verbose=0,
        callbacks=[logger, keras_iss.ISSPruneCallback(0.0)],
    )
    assert {"lstm_alive", "dense_alive"} <= set(model.history.history)
    assert traced == [6, 6]


def test_a_model_that_was_changed_meanwhile_is_not_cut_by_what_was_known():
    class Replace(keras.callbacks.Callback):
        """Has the reader compute something else from an epoch on."""

        def on_epoch_end(self, epoch, logs=None):
            dense = self.model.get_layer("dense")
            call = type(dense).call
            dense.call = lambda *args, **kwargs: call(dense, *args, **kwargs)

    model = compiled()
    after = fit(model, keras_iss.ISSPruneCallback(100.0), Replace())
    lstm = keras_iss.find_structures(model)["lstm"]
    assert "its `call` was replaced" in lstm.pinned
    # All but one component were removed, and stay in the model.
    assert lstm.alive == 1
    assert after is model and model.get_layer("lstm").units == 6
