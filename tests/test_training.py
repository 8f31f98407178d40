"""`keras_iss.fit`: training that goes on in a smaller model."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import head, lstm, randomize

BACKEND = keras.backend.backend()


def stacked(units=(12, 8), **kwargs):
    x = keras.Input((3, 3), **kwargs)
    h = lstm(units[0], name="one", stateful=bool(kwargs))(x)
    h = layers.GRU(units[1], return_sequences=False, name="two")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    return model


def data_for(model, count=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3, 3)).astype("float32")
    return x, rng.normal(size=(count, *model.output_shape[1:])).astype(
        "float32"
    )


class Remove(keras.callbacks.Callback):
    """Removes some at the end of an epoch, and holds them at zero."""

    def __init__(self, plan):
        super().__init__()
        self.plan = plan
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.model.get_layer("one").units)
        if epoch in self.plan:
            keras_iss.prune(self.model, keep=self.plan[epoch])


PLAN = {0: {"one": 8, "two": 7}, 2: {"one": 5, "two": 3}}

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.02, 20), global_clipnorm=1.0
    ),
    "proximal": lambda: keras_iss.ProximalISS(
        keras.optimizers.Adam(0.01), strength=0.1
    ),
    "averaged": lambda: keras.optimizers.SGD(0.05, use_ema=True),
    "accumulating": lambda: keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=3
    ),
}


def both_ways(optimizer, *callbacks, penalty=None, epochs=4, **kwargs):
    """The same training at full size, and shrinking on the way."""
    found = []
    for shrinking in (False, True):
        model = stacked()
        if penalty:
            keras_iss.ISSRegularizer(penalty).attach(model)
        model.compile(optimizer(), "mse", metrics=["mae"])
        if isinstance(model.optimizer, keras_iss.ProximalISS):
            model.optimizer.attach(model)
        x, y = data_for(model)
        fit = keras_iss.fit if shrinking else keras.Model.fit
        remove = Remove(PLAN)
        trained = fit(
            model,
            x,
            y,
            batch_size=8,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            validation_data=(x[:8], y[:8]),
            callbacks=[remove, *(make() for make in callbacks)],
            **kwargs,
        )
        model = trained if shrinking else model
        found.append((model, model.history, remove))
    return found


not_on_jax = pytest.mark.skipif(
    BACKEND == "jax", reason="compiles for long there, and does the same"
)

# All of them where nothing is compiled.
NAMES = list(OPTIMIZERS) if BACKEND == "torch" else ["adam", "proximal"]


@pytest.mark.compiled
@pytest.mark.parametrize("name", NAMES)
def test_it_equals_training_at_full_size(name):
    (full, expected, _), (small, history, remove) = both_ways(OPTIMIZERS[name])
    assert remove.seen == [12, 8, 8, 5]
    assert [small.get_layer(n).units for n in ("one", "two")] == [5, 3]
    assert history.epoch == expected.epoch == list(range(4))
    assert history.history.keys() == expected.history.keys()
    for key, values in expected.history.items():
        np.testing.assert_allclose(history.history[key], values, rtol=1e-4)
    x, _ = data_for(full)
    np.testing.assert_allclose(
        small.predict(x, verbose=0), full.predict(x, verbose=0), atol=1e-4
    )
    assert int(small.optimizer.iterations) == int(full.optimizer.iterations)


def sgd():
    return keras.optimizers.SGD(0.05, 0.9, nesterov=True)


@not_on_jax
def test_with_a_penalty_too():
    (full, *_), (small, *_) = both_ways(sgd, penalty=0.01)
    x, _ = data_for(full)
    np.testing.assert_allclose(
        small.predict(x, verbose=0), full.predict(x, verbose=0), atol=1e-4
    )
    assert len(small.losses) == 2


def test_schedules_that_are_callbacks_go_on():
    def rate():
        return keras.callbacks.LearningRateScheduler(
            lambda epoch, rate: rate * 0.8
        )

    def plateau():
        return keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=10.0)

    (_, expected, _), (_, history, _) = both_ways(sgd, rate, plateau)
    for key, values in expected.history.items():
        np.testing.assert_allclose(history.history[key], values, rtol=1e-4)
    assert len(set(history.history["learning_rate"])) > 2


class Count(keras.callbacks.Callback):
    """How often a training begins and ends."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_train_end(self, logs=None):
        self.calls.append("end")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(epoch)


@not_on_jax
def test_callbacks_take_it_for_one_training():
    model = stacked()
    model.compile("adam", "mse")
    count, remove = Count(), Remove(PLAN)
    keras_iss.fit(
        model, *data_for(model), epochs=4, verbose=0, callbacks=[count, remove]
    )
    assert count.calls == ["begin", 0, 1, 2, 3, "end"]


@not_on_jax
def test_shrinking_every_few_epochs():
    model = stacked()
    model.compile("adam", "mse")
    remove = Remove({0: {"one": 6}})
    small = keras_iss.fit(
        model,
        *data_for(model),
        epochs=5,
        shrink_every=3,
        verbose=0,
        callbacks=[remove],
    )
    assert remove.seen == [12, 12, 12, 6, 6]
    assert small.get_layer("one").units == 6


def test_a_model_that_loses_nothing_comes_back_itself():
    model = stacked()
    model.compile("adam", "mse")
    assert keras_iss.fit(model, *data_for(model), verbose=0) is model
    assert len(model.history.history["loss"]) == 1


def test_a_model_that_its_first_step_builds():
    model = keras.Sequential([layers.LSTM(8, name="one"), layers.Dense(2)])
    model.compile("adam", "mse")
    x, y = np.ones((8, 3, 3), "float32"), np.ones((8, 2), "float32")
    remove = Remove({0: {"one": 3}})
    small = keras_iss.fit(model, x, y, epochs=2, verbose=0, callbacks=[remove])
    assert small.get_layer("one").units == 3


@pytest.mark.parametrize("best", [3] if BACKEND == "jax" else [0, 3])
def test_early_stopping_restores_the_model_of_the_best_epoch(best):
    model = stacked()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x, y = data_for(model)
    outputs = {}

    def score(epoch, logs):
        now = stop.model
        outputs[epoch] = now.predict(x, verbose=0)
        logs["score"] = abs(epoch - best)

    stop = keras.callbacks.EarlyStopping(
        "score", patience=2, mode="min", restore_best_weights=True
    )
    small = keras_iss.fit(
        model,
        x,
        y,
        epochs=9,
        verbose=0,
        callbacks=[
            Remove(PLAN),
            keras.callbacks.LambdaCallback(on_epoch_end=score),
            stop,
        ],
    )
    assert len(small.history.history["loss"]) == best + 3
    assert small.get_layer("one").units == {0: 8, 3: 5}[best]
    np.testing.assert_allclose(
        small.predict(x, verbose=0), outputs[best], atol=1e-5
    )


@not_on_jax
def test_killed_and_resumed_from_a_checkpoint(tmp_path):
    """At the reduced size, with the optimizer's state."""
    kept = {}
    for killed in (False, True):
        model = stacked()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        x, y = data_for(model)
        path = tmp_path / f"{killed}.keras"
        arguments = {
            "epochs": 6,
            "verbose": 0,
            "shuffle": False,
            "callbacks": [
                Remove(PLAN),
                keras.callbacks.ModelCheckpoint(path),
            ],
        }
        if killed:

            def kill(epoch, logs):
                if epoch == 2:
                    raise KeyboardInterrupt

            arguments["callbacks"].append(
                keras.callbacks.LambdaCallback(on_epoch_end=kill)
            )
            with pytest.raises(KeyboardInterrupt):
                keras_iss.fit(model, x, y, **arguments)
            arguments["callbacks"].pop()
            model = keras.models.load_model(path)
            arguments["initial_epoch"] = 3
        small = keras_iss.fit(model, x, y, **arguments)
        assert small.get_layer("two").units == 3
        kept[killed] = small.predict(x, verbose=0)
    np.testing.assert_allclose(kept[True], kept[False], atol=1e-5)


@not_on_jax
def test_a_budget_goes_on_in_a_model_that_is_smaller_already(tmp_path):
    """Killed in the middle of the removals: the same sizes as without."""

    def train(model, *callbacks, **kwargs):
        logger = keras_iss.ISSLogger()
        small = keras_iss.fit(
            model,
            *data_for(model),
            epochs=6,
            verbose=0,
            callbacks=[*callbacks, logger],
            **kwargs,
        )
        return small.history.history["recurrent_weights"]

    def budget(**kwargs):
        return keras_iss.ISSBudget(
            weights=0.3, from_epoch=1, by_epoch=5, **kwargs
        )

    full = stacked()
    full.compile("adam", "mse")
    full.optimizer.build(full.trainable_variables)
    path = tmp_path / "model.keras"
    full.save(path)
    whole = train(keras.models.load_model(path), budget())
    part = stacked()
    part.compile("adam", "mse")

    def kill(epoch, logs):
        if epoch == 3:
            raise KeyboardInterrupt

    killer = keras.callbacks.LambdaCallback(on_epoch_begin=kill)
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    with pytest.raises(KeyboardInterrupt):
        train(part, budget(), checkpoint, killer)
    rest = train(
        keras.models.load_model(path), budget(of=full), initial_epoch=3
    )
    # Units are whole: a few weights more or less.
    np.testing.assert_allclose(rest, whole[3:], rtol=0.1)
    with pytest.warns(UserWarning, match="of=model_at_full_size"):
        again = train(keras.models.load_model(path), budget(), initial_epoch=3)
    assert again[-1] < 0.7 * rest[-1]


@pytest.mark.compiled
@pytest.mark.parametrize(
    "proximal", [True] if BACKEND == "jax" else [False, True]
)
def test_a_budget_is_met_by_the_model_that_comes_back(proximal):
    model = stacked()
    optimizer = keras.optimizers.Adam(0.01)
    if proximal:
        optimizer = keras_iss.ProximalISS(optimizer, strength=1.0)
    model.compile(optimizer, "mse")
    full = keras_iss.find_structures(model).counts().recurrent_weights
    logger = keras_iss.ISSLogger()
    small = keras_iss.fit(
        model,
        *data_for(model),
        epochs=8,
        verbose=0,
        callbacks=[keras_iss.ISSBudget(weights=0.3), logger],
    )
    left = keras_iss.find_structures(small).counts().recurrent_weights
    assert 0.25 < left / full <= 0.3
    weights = small.history.history["recurrent_weights"]
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) > 2 and weights[-1] == left
    assert not model.losses and not small.losses


@not_on_jax
def test_frozen_components_go_on_after_a_cut():
    """What an `ISSPruneCallback` keeps removed is known by its new place."""
    model = stacked()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    structure = keras_iss.find_structures(model)["one"]
    prune = keras_iss.ISSPruneCallback(
        float(np.median(structure.norms())), keep_removed=True
    )
    small = keras_iss.fit(
        model, *data_for(model), epochs=4, verbose=0, callbacks=[prune]
    )
    assert small.get_layer("one").units < 12


def test_tensorboard_goes_on(tmp_path):
    pytest.importorskip("tensorflow")
    if BACKEND == "jax":
        pytest.skip("Keras' callback is slow there, and does the same.")
    from tensorboard.backend.event_processing import event_accumulator

    model = stacked()
    model.compile("adam", "mse")
    keras_iss.fit(
        model,
        *data_for(model),
        epochs=4,
        verbose=0,
        callbacks=[Remove(PLAN), keras.callbacks.TensorBoard(tmp_path)],
    )
    steps = []
    for path in (tmp_path / "train").iterdir():
        events = event_accumulator.EventAccumulator(str(path))
        events.Reload()
        if "epoch_loss" in events.Tags()["tensors"]:
            steps += [event.step for event in events.Tensors("epoch_loss")]
    assert sorted(steps) == [0, 1, 2, 3]


def test_states_go_on():
    if BACKEND != "tensorflow":
        pytest.skip("Keras' stateful layers fail or forget there.")
    outputs = []
    for fit in (keras.Model.fit, keras_iss.fit):
        model = stacked(batch_size=8)
        model.compile("sgd", "mse")
        x, y = data_for(model)
        trained = fit(
            model,
            x,
            y,
            batch_size=8,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[Remove(PLAN)],
        )
        model = model if fit is keras.Model.fit else trained
        outputs.append(model.predict(x[:8], verbose=0))
        for layer in model.layers:
            if getattr(layer, "stateful", False):
                layer.reset_state()
        assert (
            np.abs(model.predict(x[:8], verbose=0) - outputs[-1]).max() > 0.01
        )
    assert model.get_layer("one").units == 5
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_data_sets_and_generators():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8]

    model = stacked()
    model.compile("sgd", "mse")
    x, y = data_for(model)
    small = keras_iss.fit(
        model, Batches(), epochs=3, verbose=0, callbacks=[Remove(PLAN)]
    )
    assert int(small.optimizer.iterations) == 12


def numbered(kind):
    """Six batches of eight samples, whose targets are their numbers."""
    y = np.repeat(np.arange(6.0, dtype="float32"), 8)[:, None]
    x = np.ones((48, 3, 3), "float32")
    if kind == "arrays":
        return {"x": x, "y": y, "batch_size": 8, "shuffle": False}
    if kind == "dataset":
        tf = pytest.importorskip("tensorflow")
        return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(8)}
    return {"x": ((x[:8], np.full((8, 1), i, "float32")) for i in range(100))}


@pytest.mark.parametrize("kind", ["arrays", "dataset", "generator"])
def test_an_epoch_of_some_steps_goes_on_where_the_last_one_ended(kind):
    """After a cut, and where nothing is cut, and in the next pass."""
    model = keras.Sequential(
        [
            keras.Input((3, 3)),
            lstm(6, return_sequences=False, name="one"),
            layers.Dense(1),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.0),
        "mse",
        metrics=[lambda target, _: keras.ops.mean(target)],
    )
    small = keras_iss.fit(
        model,
        **numbered(kind),
        epochs=4,
        steps_per_epoch=2,
        verbose=0,
        callbacks=[Remove({0: {"one": 3}})],
    )
    (seen,) = (
        values for key, values in small.history.history.items() if key != "loss"
    )
    last = 6.5 if kind == "generator" else 0.5
    np.testing.assert_allclose(seen, [0.5, 2.5, 4.5, last])
    assert small.get_layer("one").units == 3


def test_a_generator_that_ends_too_early_says_so():
    model = stacked()
    model.compile("sgd", "mse")
    x, y = data_for(model)
    with pytest.raises(Exception, match="ran out in the middle"):
        keras_iss.fit(
            model,
            ((x[:8], y[:8]) for _ in range(3)),
            epochs=2,
            steps_per_epoch=2,
            verbose=0,
        )


class OwnBest(keras.callbacks.Callback):
    """Names of `EarlyStopping`, but another callback."""

    best_weights = None

    def on_epoch_end(self, epoch, logs=None):
        self.best_weights = self.model.get_weights()


@not_on_jax
def test_a_callback_that_keeps_weights_of_its_own():
    model = stacked()
    model.compile("sgd", "mse")
    keras_iss.fit(
        model, *data_for(model), epochs=2, verbose=0, callbacks=[OwnBest()]
    )


@not_on_jax
def test_no_epochs_change_nothing():
    model = stacked()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    before = model.get_weights()
    assert keras_iss.fit(model, *data_for(model), epochs=0) is model
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)


@not_on_jax
def test_a_strength_that_would_remove_everything_is_refused():
    model = stacked()
    model.compile(keras_iss.ProximalISS("sgd", strength=1e4), "mse")
    with pytest.raises(ValueError, match="would remove all of"):
        keras_iss.fit(model, *data_for(model), epochs=2, verbose=0)
    # Within the first epoch, nothing can be said but afterwards.
    model = stacked()
    model.compile(keras_iss.ProximalISS("sgd", strength=150.0), "mse")
    with pytest.warns(UserWarning, match="All components of"):
        keras_iss.fit(model, *data_for(model), batch_size=8, verbose=0)


class OwnStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.lstm = layers.LSTM(4)

    def call(self, x):
        return self.lstm(x)

    def train_step(self, *args):
        return super().train_step(*args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shrink_every": 0}, "`shrink_every`"),
        ({"shrink_every": "epoch"}, "`shrink_every`"),
        (
            {"callbacks": [keras.callbacks.BackupAndRestore("backup")]},
            "BackupAndRestore",
        ),
        ({"model": "uncompiled"}, "not compiled"),
        ({"model": "own"}, "`train_step` of its own"),
    ],
)
def test_bad_arguments(change, message):
    model = stacked()
    x, y = data_for(model)
    if change.get("model") == "own":
        model = OwnStep()
    if change.get("model") != "uncompiled":
        model.compile("sgd", "mse")
    change = {k: v for k, v in change.items() if k != "model"}
    with pytest.raises(ValueError, match=message):
        keras_iss.fit(model, x, y, **{"verbose": 0, **change})


def test_the_progress_bar_knows_its_end(capsys):
    model = stacked()
    model.compile("sgd", "mse")
    x, y = data_for(model)
    keras_iss.fit(model, x, y, batch_size=8, epochs=2, verbose=1)
    shown = capsys.readouterr().out
    assert "Epoch 2/2" in shown and "4/4" in shown


def test_what_cannot_be_made_smaller_is_refused_before_the_training():
    class Guarded(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn = lstm(6, name="one")

        def call(self, x, training=False):
            h = self.rnn(x)
            return h if training else 2.0 * h

    model = Guarded()
    x = np.zeros((8, 3, 3), "float32")
    model(x)
    model.compile("adam", "mse")
    before = model.get_weights()
    y = np.zeros((8, 3, 6), "float32")
    with pytest.raises(ValueError, match="cannot be made smaller|pinned"):
        keras_iss.fit(
            model,
            x,
            y,
            epochs=2,
            verbose=0,
            callbacks=[keras_iss.ISSBudget(units=0.5)],
        )
    for wanted, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(wanted, other)


def test_data_that_a_comparison_does_not_take_is_trained_on():
    model = stacked()
    model.compile("adam", "mse")
    x, y = data_for(model)
    # `fit` takes one array in a list, too.
    small = keras_iss.fit(
        model,
        [x],
        y,
        epochs=2,
        verbose=0,
        callbacks=[keras_iss.ISSBudget({"one": 4, "two": 4})],
    )
    assert small.get_layer("one").units == 4
