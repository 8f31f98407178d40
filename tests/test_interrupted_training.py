"""After an interrupt at any moment, the model is as the user gave it."""

import os
import signal
import threading

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import randomize

BACKEND = keras.backend.backend()

HOOKS = [
    "on_train_begin",
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_test_end",
    "on_epoch_end",
]
if BACKEND == "jax":
    # Each compiles.
    HOOKS = ["on_train_batch_begin", "on_test_batch_end"]

not_on_jax = pytest.mark.skipif(
    BACKEND == "jax", reason="compiles for long there, and does the same"
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 2, 3)).astype("float32")
Y = RNG.normal(size=(24, 2)).astype("float32")


def small():
    x = keras.Input((2, 3))
    h = layers.LSTM(5, return_sequences=True, name="one")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GRU(4, name="two")(h)))
    randomize(model)
    return model


def compiled(optimizer=None, **kwargs):
    model = small()
    model.compile(optimizer or keras.optimizers.SGD(0.01), "mse", **kwargs)
    return model


@pytest.fixture(scope="module")
def used():
    """One model, whose own steps are compiled once."""
    return compiled()


@pytest.fixture
def model(used):
    weights = used.get_weights()
    yield used
    used.set_weights(weights)


class Raise(keras.callbacks.Callback):
    """Ends the training at a moment of its second epoch."""

    def __init__(self, hook, error=KeyboardInterrupt):
        super().__init__()
        self.hook = hook
        self.error = error
        self.epochs = 0
        self.is_armed = True
        setattr(self, hook, self._at_hook)

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs = epoch

    def _at_hook(self, number=None, logs=None):
        if self.hook == "on_epoch_begin":
            self.epochs = number
        is_batch = "batch" in self.hook
        late = self.epochs or self.hook == "on_train_begin"
        if self.is_armed and late and (not is_batch or number):
            raise self.error


def interrupted(model, callbacks, error=KeyboardInterrupt, fit=None, x=X, y=Y):
    """Trains until something ends it."""
    fit = fit or keras.Model.fit
    arguments = {} if y is None else {"y": y}
    with pytest.raises(error) as caught:
        fit(
            model,
            x,
            batch_size=None if y is None else 8,
            epochs=6,
            verbose=0,
            validation_data=(X, Y),
            callbacks=callbacks,
            **arguments,
        )
    return caught.value


class Before:
    """What a user sees of a model that a callback might have changed."""

    def __init__(self, model):
        self.regularizers = [v.regularizer for v in model.variables]
        self.variables = list(map(id, model.variables))
        self.parameters = model.count_params()
        self.losses = len(model.losses)

    def check(self, model, path=None):
        """Fails unless nothing of it is different, in any way of use.

        Args:
            model: The model.
            path: Optional folder, to save it there too.
        """
        assert len(model.losses) == self.losses
        assert [v.regularizer for v in model.variables] == self.regularizers
        assert list(map(id, model.variables)) == self.variables
        assert model.count_params() == self.parameters
        plain = loss_of(model)
        assert np.isfinite(plain)
        learning_rate = float(model.optimizer.learning_rate)
        model.optimizer.learning_rate = 0.0
        wanted = [plain + penalty_of(model)] * 3
        # Older Keras versions go on counting where the interrupt came.
        model.reset_metrics()
        found = [
            model.train_on_batch(X, Y),
            *model.fit(X, Y, epochs=1, verbose=0).history["loss"],
            model.evaluate(X, Y, verbose=0),
        ]
        model.optimizer.learning_rate = learning_rate
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        # And it learns.
        model.fit(X, Y, epochs=1, verbose=0)
        assert np.isfinite(loss_of(model))
        if path is not None:
            model.save(path / "model.keras")
            loaded = keras.models.load_model(path / "model.keras")
            assert not loaded.losses
            np.testing.assert_allclose(
                loss_of(loaded), loss_of(model), rtol=1e-4
            )


def penalty_of(model):
    return sum(float(keras.ops.convert_to_numpy(x)) for x in model.losses)


def loss_of(model):
    """The mean squared error alone."""
    return float(np.mean((model.predict(X, verbose=0) - Y) ** 2))


def budget(**kwargs):
    return keras_iss.ISSBudget(units=0.5, pressure=1.0, **kwargs)


@pytest.mark.compiled
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("first", ["budget", "interrupt"])
def test_an_interrupted_fit_leaves_no_penalty_on_the_model(
    model, hook, first, tmp_path
):
    if BACKEND == "jax" and first == "interrupt":
        pytest.skip("compiles for long there, and does the same")
    before = Before(model)
    callbacks = [budget(), Raise(hook)]
    if first == "interrupt":
        callbacks.reverse()
    interrupted(model, callbacks)
    before.check(model, tmp_path if hook == HOOKS[-1] else None)


@pytest.mark.parametrize(
    "error", [SystemExit, RuntimeError, GeneratorExit, MemoryError]
)
@not_on_jax
def test_whatever_ends_the_training(model, error):
    before = Before(model)
    interrupted(model, [budget(), Raise("on_train_batch_begin", error)], error)
    before.check(model)


class Failing(keras.utils.PyDataset):
    """Data that cannot be read at some batch, counted over all epochs."""

    def __init__(self, at):
        super().__init__()
        self.at = at
        self.count = 0

    def __len__(self):
        return 3

    def __getitem__(self, i):
        if self.at is not None and self.count >= self.at:
            raise OSError("the disk is gone")
        self.count += 1
        return X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]


# The first batch of an epoch: on JAX, the variables have no values then.
@pytest.mark.parametrize("at", [4] if BACKEND == "jax" else [4, 5, 7])
@pytest.mark.parametrize("fit", [keras.Model.fit, keras_iss.fit])
def test_an_error_in_the_data(model, at, fit):
    before = Before(model)
    interrupted(model, [budget()], Exception, fit, x=Failing(at), y=None)
    now = model.history.model
    if now is not model:
        Before(now).check(now)
    before.check(model)


@pytest.mark.parametrize("eager", [True] if BACKEND == "jax" else [True, False])
def test_an_error_in_the_loss(eager):
    """Where the step is compiled, or in a step that is not."""
    calls = []

    def loss(y, y_pred):
        calls.append(1)
        if len(calls) > (4 if eager else 1):
            raise ArithmeticError("no loss")
        return keras.ops.mean(keras.ops.square(y - y_pred))

    model = small()
    model.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=eager)
    before = Before(model)
    if not eager:
        calls.append(1)
    interrupted(model, [budget()], ArithmeticError)
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=eager)
    before.check(model)


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_epoch_end"])
def test_a_strength_is_the_one_that_the_user_gave(hook, tmp_path):
    model = compiled()
    regularizer = keras_iss.ISSRegularizer(0.25)
    regularizer.attach(model)
    before = Before(model)
    interrupted(model, [budget(), Raise(hook)])
    assert regularizer.strength == 0.25
    norms = sum(s.norms().sum() for s in keras_iss.find_structures(model))
    np.testing.assert_allclose(penalty_of(model), 0.25 * norms, rtol=1e-3)
    before.check(model, tmp_path)


@pytest.mark.parametrize("fit", [keras.Model.fit, keras_iss.fit])
@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end"])
def test_a_proximal_strength_is_the_one_that_the_user_gave(hook, fit):
    model = compiled(keras_iss.ProximalISS("sgd", strength=0.125))
    interrupted(model, [budget(), Raise(hook)], fit=fit)
    for trained in (model, model.history.model):
        assert trained.optimizer.strength == 0.125
        assert [float(v) for v in trained.optimizer.variables].count(0.125) == 1
    model = model.history.model
    alive = [s.alive for s in keras_iss.find_structures(model)]
    norms = [s.norms().sum() for s in keras_iss.find_structures(model)]
    model.compile(model.optimizer, NoLoss())
    model.train_on_batch(X, Y)
    rate = float(model.optimizer.learning_rate)
    for count, before, structure in zip(
        alive, norms, keras_iss.find_structures(model)
    ):
        lost = before - structure.norms("once").sum()
        assert lost > 0.5 * count * rate * 0.125


class NoLoss(keras.losses.Loss):
    """No loss of the outputs, but connected to them."""

    def call(self, y_true, y_pred):
        return 0.0 * keras.ops.sum(y_pred, axis=1)


@pytest.mark.compiled
@not_on_jax
@pytest.mark.parametrize("how", ["regularizer", "proximal", "own"])
def test_a_finished_training_leaves_the_model_as_given(how):
    proximal = keras_iss.ProximalISS("sgd", strength=0.125)
    model = compiled(proximal if how == "proximal" else None)
    regularizer = keras_iss.ISSRegularizer(0.25)
    if how == "regularizer":
        regularizer.attach(model)
    before = Before(model)
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[budget()])
    assert regularizer.strength == 0.25 and proximal.strength == 0.125
    if how != "proximal":
        before.check(model)


@not_on_jax
def test_nothing_of_a_penalty_shows_between_the_steps(model):
    """So no other callback, nor what it saves, has any of it."""
    before = Before(model)
    seen = []

    def look(*_, **__):
        seen.append(before.variables == list(map(id, model.variables)))
        seen.append(not model.losses)

    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=look, on_train_batch_end=look, on_epoch_end=look
    )
    history = model.fit(
        X, Y, epochs=4, verbose=0, callbacks=[budget(), look]
    ).history
    assert len(seen) == 24 and all(seen)
    # But the steps had it: as much again.
    np.testing.assert_allclose(
        history["loss"][1], 2 * history["loss"][0], rtol=0.1
    )


@not_on_jax
def test_a_validation_loss_is_free_of_the_penalty(model):
    losses = []
    history = model.fit(
        X,
        Y,
        epochs=4,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[
            budget(),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: losses.append(loss_of(model))
            ),
        ],
    ).history
    np.testing.assert_allclose(history["val_loss"], losses, rtol=1e-4)


@not_on_jax
def test_a_training_inside_a_training_has_no_penalty():
    """As a callback may begin one, before the step that was announced."""
    model = compiled(keras.optimizers.SGD(0.0))
    found = []

    class Nested(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            found.append(model.train_on_batch(X, Y))

    with pytest.warns(UserWarning, match="taken by something else"):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[budget(), Nested()])
    np.testing.assert_allclose(found[:1], loss_of(small()), rtol=1e-4)
    assert not model.losses


@not_on_jax
def test_a_loop_of_ones_own_is_told_that_it_has_no_penalty(model):
    callbacks = keras.callbacks.CallbackList(
        [budget()], model=model, epochs=4, steps=1
    )
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    logs = model.train_on_batch(X, Y, return_dict=True)
    callbacks.on_train_batch_end(0, logs)
    callbacks.on_train_batch_begin(1)
    logs = model.train_on_batch(X, Y, return_dict=True)
    with pytest.warns(UserWarning, match="training loop of your own"):
        callbacks.on_train_batch_end(1, logs)


# `keras_iss.fit`.


@pytest.mark.parametrize("hook", HOOKS)
def test_both_models_are_whole_after_an_interrupted_fit(model, hook, tmp_path):
    before = Before(model)
    raising = Raise(hook)
    if hook not in ("on_train_begin",):
        # Once the model is smaller.
        raising.is_armed = False
        arm = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, _: setattr(
                raising, "is_armed", epoch >= 3
            )
        )
    else:
        arm = keras.callbacks.Callback()
    error = interrupted(model, [arm, budget(), raising], fit=keras_iss.fit)
    now = model.history.model
    assert "`model.history.model`" in "".join(error.__notes__)
    if hook != "on_train_begin":
        assert now.count_params() < model.count_params()
        assert now.get_layer("one").units < 5
        steps = int(now.optimizer.iterations)
        assert steps > int(model.optimizer.iterations)
        Before(now).check(now, tmp_path if hook == HOOKS[-1] else None)
        assert not now.losses
    before.check(model)


@not_on_jax
def test_the_smaller_model_of_the_moment_can_be_trained_on(tmp_path):
    model = compiled(keras.optimizers.Adam(0.01))
    try:
        model = keras_iss.fit(
            model,
            X,
            Y,
            batch_size=8,
            epochs=9,
            verbose=0,
            callbacks=[budget(by_epoch=4), Raise("on_train_batch_end")],
        )
    except KeyboardInterrupt:
        full, model = model, model.history.model
    steps = int(model.optimizer.iterations)
    small = keras_iss.fit(
        model,
        X,
        Y,
        batch_size=8,
        epochs=9,
        initial_epoch=2,
        verbose=0,
        callbacks=[budget(by_epoch=4, of=full)],
    )
    assert sum(s.size for s in keras_iss.find_structures(small)) == 4
    assert int(small.optimizer.iterations) == steps + 21


@not_on_jax
def test_an_interrupt_leaves_the_optimizer_its_averages():
    """Which `keras_iss.fit` puts off until its end."""
    model = compiled(keras.optimizers.SGD(0.1, use_ema=True))
    interrupted(
        model, [budget(), Raise("on_train_batch_end")], fit=keras_iss.fit
    )
    for trained in (model, model.history.model):
        assert "finalize_variable_values" not in vars(trained.optimizer)
        assert "save" not in vars(trained)


@not_on_jax
@pytest.mark.parametrize("where", ["loss", "data"])
def test_an_interrupted_rank_leaves_the_model_as_it_was(model, where):
    model.fit(X, Y, verbose=0)
    before, weights = Before(model), model.get_weights()
    optimizer, function = model.optimizer, model.train_function
    metrics = [np.array(v) for v in model.metrics_variables]
    data = Failing(2) if where == "data" else (X, Y)
    if where == "loss":

        def failing(*args, **kwargs):
            raise KeyboardInterrupt

        model.train_step = failing
    with pytest.raises((KeyboardInterrupt, Exception)):
        keras_iss.estimate_importance(model, data, by="taylor", batch_size=8)
    if where == "loss":
        del model.train_step
    assert model.optimizer is optimizer and model.train_function is function
    for old, new in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(metrics, model.metrics_variables):
        np.testing.assert_array_equal(old, np.array(new))
    before.check(model)


# Interrupts from the keyboard, which come at any time.


@pytest.fixture
def interrupts():
    """A shell has what it runs in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.compiled
@pytest.mark.parametrize("fit", [keras.Model.fit, keras_iss.fit])
def test_a_signal_in_the_middle_of_a_step(model, fit, interrupts):
    own = Before(model)
    ended = threading.Event()
    pressed = []

    def press():
        # Python may lose an interrupt, in the end of an object's life.
        wait = 0.1
        while not ended.wait(wait):
            pressed.append(1)
            os.kill(os.getpid(), signal.SIGINT)
            wait = 5.0

    class Press(keras.callbacks.Callback):
        """From another thread: while a step runs, mostly."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                threading.Thread(target=press, daemon=True).start()

    error = None
    try:
        fit(
            model,
            X,
            Y,
            batch_size=2,
            epochs=10_000,
            verbose=0,
            callbacks=[budget(from_epoch=1, by_epoch=9_999), Press()],
        )
    except BaseException as caught:
        # Compiled code may make another error of an interrupt.
        error = caught
    finally:
        ended.set()
    assert error is not None and pressed
    now = model.history.model
    own.check(model)
    if now is not model:
        Before(now).check(now)
    assert not now.losses
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
