"""The smallest model that is as good as asked."""

import json

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.quality import QualitySearch, is_larger_better


def _searched(values, **arguments):
    """A search that has learned, up to a reference of 1."""
    search = QualitySearch(within=0.1, **arguments)
    assert search.after_learning_epoch(1.0, is_last=True)
    return search, [search.after_step_epoch(value) for value in values]


def test_the_reference_is_the_best_value_before_it_stops_improving():
    search = QualitySearch(within=0.1, patience=2)
    answers = [
        search.after_learning_epoch(value, is_last=False)
        for value in (3.0, 2.0, float("nan"), 2.5)
    ]
    assert answers == [False, False, False, True]
    assert search.reference == 2.0
    assert search.limit == pytest.approx(2.2)


def test_a_step_is_kept_as_soon_as_the_value_is_within_tolerance():
    search, answers = _searched([1.5, 1.3, 1.09])
    assert answers == ["wait", "wait", "keep"]
    assert (search.kept, search.part) == (1, 0.3)


def test_a_step_that_stops_improving_is_taken_back_and_halved():
    search, answers = _searched([1.5, 1.6, 1.6])
    assert answers == ["wait", "wait", "take back"]
    assert (search.taken_back, search.part) == (1, 0.15)
    for _ in range(4):
        search.take_back()
    assert search.is_finished


def test_more_can_be_better():
    search, answers = _searched([0.7, 0.91], larger_is_better=True)
    assert answers == ["wait", "keep"]
    assert is_larger_better("val_accuracy", "auto")
    assert not is_larger_better("val_loss", "auto")
    assert is_larger_better("val_gain", "max")
    assert not search.is_within(float("nan"))


def _data(count=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6, 3)).astype("float32")
    return x, x.sum(axis=(1, 2))[:, None] * 0.1


def _model(units=16, **compiled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            keras.layers.LSTM(units, name="lstm"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse", **compiled)
    return model


def _fitted(model, budget, fit=keras_iss.fit, epochs=16, **arguments):
    x, y = _data()
    return fit(
        model,
        x,
        y,
        epochs=epochs,
        verbose=0,
        batch_size=16,
        validation_data=(x, y),
        callbacks=[budget],
        **arguments,
    )


def test_fit_ends_with_the_smallest_model_that_was_within_tolerance():
    budget = keras_iss.ISSBudget(within=0.5, from_epoch=4, patience=1)
    small = _fitted(_model(), budget)
    assert budget.search.kept >= 1
    assert small.get_layer("lstm").units < 16
    loss = small.evaluate(*_data(), verbose=0)
    assert loss <= budget.search.limit * (1 + 1e-5)
    # The sizes in the history go down, and only with a kept step.
    assert not budget.is_tentative


def test_without_fit_of_this_package_what_is_kept_is_zero():
    model = _model()
    budget = keras_iss.ISSBudget(within=0.5, from_epoch=4, patience=1)
    _fitted(model, budget, fit=lambda model, *a, **k: model.fit(*a, **k))
    alive = keras_iss.find_structures(model)["lstm"].alive
    assert budget.search.kept >= 1 and alive < 16
    small = keras_iss.shrink(model)
    assert small.get_layer("lstm").units == alive
    assert model.evaluate(*_data(), verbose=0) <= budget.search.limit * 1.00001


def test_what_does_not_recover_goes_back_to_full_size():
    model = _model()
    before = None

    class Values(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            nonlocal before
            if epoch == 1:
                before = self.model.get_weights()
            logs["val_loss"] = 1.0 if epoch < 2 else 2.0

    budget = keras_iss.ISSBudget(within=0.01, from_epoch=2, patience=1)
    x, y = _data()
    with pytest.warns(UserWarning, match="at full size, since 5 steps"):
        result = keras_iss.fit(
            model,
            x,
            y,
            epochs=40,
            verbose=0,
            validation_data=(x, y),
            callbacks=[Values(), budget],
        )
    assert result.get_layer("lstm").units == 16
    for first, second in zip(before, result.get_weights()):
        np.testing.assert_array_equal(first, second)
    # Two epochs a step, and then it ends.
    assert len(result.history.epoch) == 12


def test_an_interrupt_leaves_what_was_kept_and_can_be_resumed():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if budget.is_tentative and self.armed:
                raise KeyboardInterrupt

    model = _model()
    budget = keras_iss.ISSBudget(within=0.5, from_epoch=3, patience=1)
    interrupt = Interrupt()
    interrupt.armed = True
    x, y = _data()

    def train(model, **arguments):
        return keras_iss.fit(
            model,
            x,
            y,
            epochs=14,
            verbose=0,
            validation_data=(x, y),
            callbacks=[budget, interrupt],
            **arguments,
        )

    with pytest.raises(KeyboardInterrupt):
        train(model)
    assert not budget.is_tentative
    middle = model.history.model
    assert keras_iss.find_structures(middle)["lstm"].alive == 16
    reference = budget.search.reference
    interrupt.armed = False
    small = train(middle, initial_epoch=3)
    assert budget.search.reference == reference, "it is not measured again"
    assert small.get_layer("lstm").units < 16


@pytest.mark.parametrize("same", [True, False])
def test_an_interrupted_fit_of_keras_is_resumed_with_either_model(same):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if budget.is_tentative:
                raise KeyboardInterrupt

    budget = keras_iss.ISSBudget(within=0.5, from_epoch=2, patience=1)
    x, y = _data()
    arguments = {"epochs": 8, "verbose": 0, "validation_data": (x, y)}
    model = _model()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, callbacks=[budget, Interrupt()], **arguments)
    assert budget.is_tentative
    resumed = model if same else _model()
    resumed.fit(x, y, callbacks=[budget], initial_epoch=2, **arguments)
    assert not budget.is_tentative
    assert budget.search.kept >= 1


def test_a_backup_holds_the_search_and_the_model_that_was_kept(tmp_path):
    path = tmp_path / "kept.keras"
    arguments = {"within": 0.5, "from_epoch": 3, "patience": 1, "backup": path}
    budget = keras_iss.ISSBudget(**arguments)
    small = _fitted(_model(), budget, epochs=9)
    units = small.get_layer("lstm").units
    kept = keras.models.load_model(path)
    alive = keras_iss.find_structures(kept)["lstm"].alive
    assert alive == units
    state = json.loads((tmp_path / "kept.keras.json").read_text())
    assert state["reference"] == budget.search.reference
    again = keras_iss.ISSBudget(**arguments)
    smaller = _fitted(kept, again, epochs=12, initial_epoch=9)
    assert again.search.reference == budget.search.reference
    assert smaller.get_layer("lstm").units <= units


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"within": -0.1}, ValueError, "`within`"),
        ({"within": "1%"}, TypeError, "`within`"),
        ({"within": 0.1, "weights": 0.3}, ValueError, "`weights`"),
        ({"within": 0.1, "by_epoch": 3}, ValueError, "`by_epoch`"),
        ({"within": 0.1, "mode": "best"}, ValueError, "`mode`"),
        ({"within": 0.1, "patience": 0}, ValueError, "`patience`"),
        ({"within": 0.1, "monitor": 3}, TypeError, "`monitor`"),
        ({"within": 0.1, "backup": "x.h5"}, ValueError, "`backup`"),
        ({"weights": 0.1, "backup": "x.keras"}, ValueError, "`backup`"),
        ({"weights": 0.1, "refit": 1}, TypeError, "`refit`"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        keras_iss.ISSBudget(**arguments)


def test_a_monitored_value_that_is_not_there_is_named():
    x, y = _data()
    with pytest.raises(ValueError, match=r"`val_loss`.*'loss'"):
        keras_iss.fit(
            _model(), x, y, verbose=0, callbacks=[keras_iss.ISSBudget(within=1)]
        )


def test_a_budget_refits_what_reads_what_it_removes():
    x, y = _data()
    losses = {}
    for refit in (False, True):
        model = _model()
        model.optimizer.learning_rate = 0.0
        # The penalty has no effect at a rate of zero: only the cut is seen.
        budget = keras_iss.ISSBudget(weights=0.6, by_epoch=1, refit=refit)
        small = keras_iss.fit(
            model, x, y, epochs=2, verbose=0, callbacks=[budget]
        )
        full = _model().predict(x, verbose=0)
        difference = small.predict(x, verbose=0) - full
        losses[refit] = float(np.square(difference).mean())
    assert losses[True] < 0.5 * losses[False]


def test_a_refit_without_inputs_says_what_it_needs():
    model = _model()
    x, y = _data()
    budget = keras_iss.ISSBudget(weights=0.6, by_epoch=1, refit=True)
    with pytest.raises(ValueError, match="give it `data`"):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[budget])
