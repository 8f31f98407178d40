"""`ISSBudget`: a size instead of a lambda."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import head, lstm, randomize, sequence

BACKEND = keras.backend.backend()


def mixed(units=20):
    """An LSTM, a GRU and an RHN, one after the other."""
    x = sequence()
    h = lstm(units, name="lstm")(x)
    h = keras_iss.layers.RHN(units, 2, return_sequences=True, name="rhn")(h)
    h = layers.GRU(units, return_sequences=False, name="gru")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    return model


def single(units=12):
    x = sequence()
    model = keras.Model(x, head(lstm(units, name="lstm")(x)))
    randomize(model)
    return model


def data_for(model, count=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 5, 3)).astype("float32")
    shape = [5 if n is None else n for n in model.output_shape[1:]]
    return x, rng.normal(size=(count, *shape)).astype("float32")


def train(model, *callbacks, epochs=4, optimizer="adam", **kwargs):
    x, y = data_for(model)
    if not model.compiled:
        model.compile(optimizer, "mse")
    return model.fit(
        x, y, epochs=epochs, verbose=0, callbacks=list(callbacks), **kwargs
    ).history


def measure(model, kind="recurrent_weights"):
    return getattr(keras_iss.find_structures(model).counts(), kind)


# What compiles for long, on JAX, and does the same.
SHARES = [0.15] if BACKEND == "jax" else [0.5, 0.3, 0.15, 0.08]


@pytest.mark.parametrize("share", SHARES)
def test_the_size_is_met_for_lstm_gru_and_rhn(share):
    model = mixed(40)
    train(model, keras_iss.ISSBudget(weights=share))
    small = keras_iss.shrink(model)
    assert abs(measure(small) / measure(model) - share) < 0.02


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        ({"units": 0.5}, "units"),
        ({"mult_adds": 0.25}, "mult_adds"),
        ({"units": 18}, "units"),
        ({"weights": 2000}, "recurrent_weights"),
    ],
)
def test_other_sizes(size, kind):
    model = mixed()
    train(model, keras_iss.ISSBudget(**size))
    (asked,) = size.values()
    wanted = asked if asked >= 1 else asked * measure(model, kind)
    left = measure(keras_iss.shrink(model), kind)
    assert wanted * 0.9 < left <= wanted


not_on_jax = pytest.mark.skipif(
    BACKEND == "jax", reason="compiles for long there, and does the same"
)


@not_on_jax
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_proximal_step_does_not_take_more_than_is_asked(optimizer):
    """Where most components are short, as after another training."""
    model = single(40)
    structure = keras_iss.find_structures(model)["lstm"]
    for variable, axis, index in structure.slices:
        value = keras.ops.convert_to_numpy(variable).copy()
        value[(slice(None),) * axis + (index[:30].ravel(),)] *= 0.01
        variable.assign(value)
    optimizer = keras_iss.ProximalISS(optimizer, strength=1e-4)
    train(model, keras_iss.ISSBudget(units=0.7), optimizer=optimizer)
    assert structure.alive == 28


@not_on_jax
def test_layers_that_are_not_trained_are_left_alone():
    model = mixed()
    model.get_layer("lstm").trainable = False
    model.get_layer("rhn").trainable = False
    with pytest.warns(UserWarning, match="`ISSBudget` leaves `lstm` alone"):
        train(model, keras_iss.ISSBudget(weights=0.8))
    alive = {s.name: s.alive for s in keras_iss.find_structures(model)}
    # What reads the units of a frozen layer may be trained; not it.
    assert alive["lstm"] == alive["rhn"] == 20 > alive["gru"]


@not_on_jax
def test_a_training_that_ends_too_early_says_what_is_left():
    def stop(epoch, logs):
        model.stop_training = True

    model = single()
    stop = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    with pytest.warns(
        UserWarning, match="12 units are left, 6 units asked for"
    ):
        train(model, keras_iss.ISSBudget(units=0.5), stop)


@not_on_jax
def test_weights_from_before_the_removals_are_not_taken_in_silence():
    model = single()
    score = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(score=float(epoch))
    )
    stop = keras.callbacks.EarlyStopping(
        "score", mode="min", patience=3, restore_best_weights=True
    )
    with pytest.warns(UserWarning, match="came back"):
        train(model, score, stop, keras_iss.ISSBudget(units=0.5))
    assert keras_iss.find_structures(model)["lstm"].alive == 6


@not_on_jax
def test_a_schedule_for_a_model_that_was_trained_before():
    """Is for the epochs that are left."""
    model = single()
    train(model, epochs=4)
    seen = keras_iss.ISSLogger()
    with pytest.warns(UserWarning, match="of=model_at_full_size"):
        history = train(
            model,
            keras_iss.ISSBudget(units=0.5),
            seen,
            epochs=12,
            initial_epoch=4,
        )
    assert history["lstm_alive"] == [12, 12, 9, 6, 6, 6, 6, 6]


@pytest.mark.parametrize("asked", [{"weights": 0.4}, {"keep": {"lstm": 11}}])
def test_sizes_are_multiples(asked):
    model = single(24)
    budget = keras_iss.ISSBudget(**asked, round_to=4)
    seen = keras_iss.ISSLogger()
    alive = train(model, budget, seen, epochs=6)["lstm_alive"]
    assert alive[-1] == (8 if "keep" in asked else 12)


def test_sizes_of_structures_by_name():
    model = mixed()
    train(model, keras_iss.ISSBudget({"lstm": 7, "gru": 9}))
    alive = {s.name: s.alive for s in keras_iss.find_structures(model)}
    assert (alive["lstm"], alive["gru"]) == (7, 9)
    assert alive["rhn"] == 20


class Record(keras.callbacks.Callback):
    """The strength and the penalty of each epoch, and what was removed."""

    def __init__(self, budget):
        super().__init__()
        self.budget = budget
        self.strengths, self.penalties, self.alive = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        structures = keras_iss.find_structures(self.model)
        self.strengths.append(self.budget.strength)
        self.penalties.append(
            self.budget.strength * sum(s.norms().sum() for s in structures)
        )
        self.alive.append([s.removed() for s in structures])


def test_units_go_step_by_step_and_never_come_back():
    model = single()
    regularizer = keras_iss.ISSRegularizer(0.5)
    regularizer.attach(model)
    budget = keras_iss.ISSBudget(units=0.5, from_epoch=2, by_epoch=5)
    record = Record(budget)
    loss = train(model, budget, record, epochs=7)["loss"]
    counts = [int((~gone[0]).sum()) for gone in record.alive]
    assert counts[:2] == [12, 12]
    assert counts == sorted(counts, reverse=True)
    assert counts[2:] == [10, 8, 6, 6, 6]
    for earlier, later in zip(record.alive, record.alive[1:]):
        assert (later[0] >= earlier[0]).all()
    # The regularizer's own strength gives way; the penalty is light.
    for value, before in zip(record.penalties[:2], loss):
        np.testing.assert_allclose(value, 0.02 * before, rtol=0.1)
    assert record.strengths[4:] == [0, 0, 0]
    assert regularizer.strength == 0.5


def test_the_penalty_acts_from_the_second_batch():
    model = single()
    keras_iss.ISSRegularizer(0.5).attach(model)
    structures = keras_iss.find_structures(model)
    total = sum(structure.norms().sum() for structure in structures)
    seen = []

    class Batches(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append((budget.strength, None))

        def on_train_batch_end(self, batch, logs=None):
            seen.append((budget.strength, float(logs["loss"])))

    budget = keras_iss.ISSBudget(units=0.5, by_epoch=2)
    train(model, budget, Batches(), epochs=2, batch_size=8)
    assert seen[0][0] == 0
    strength, loss = seen[1]
    np.testing.assert_allclose(strength, 0.02 * loss / total, rtol=1e-5)
    assert seen[2][0] == strength
    # Training that goes on after the size was met has no penalty.
    seen.clear()
    budget = keras_iss.ISSBudget(units=0.5, by_epoch=2, of=model)
    train(model, budget, Batches(), epochs=3, initial_epoch=2, batch_size=8)
    assert {strength for strength, _ in seen} == {0.0}


def test_a_regularizer_of_its_own_leaves_no_trace():
    model = single()
    train(model, keras_iss.ISSBudget(units=0.5))
    assert not model.losses
    train(model, epochs=1)


def test_without_pressure_nothing_is_attached():
    model = single()
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(len(model.losses))
    )
    train(model, keras_iss.ISSBudget(units=0.5, pressure=0), look)
    assert seen == [0] * 4
    assert keras_iss.find_structures(model)["lstm"].alive == 6


@pytest.mark.parametrize(
    "name", ["adam"] if BACKEND == "jax" else ["sgd", "adam"]
)
def test_a_proximal_optimizer_is_steered(name):
    model = single()
    optimizer = keras_iss.ProximalISS(name, strength=1e6)
    budget = keras_iss.ISSBudget(units=0.5)
    record = Record(budget)
    train(model, budget, record, epochs=6, optimizer=optimizer)
    assert not model.losses
    assert keras_iss.find_structures(model)["lstm"].alive == 6
    assert record.strengths[0] > 0 and record.strengths[-1] == 0
    assert optimizer.strength == 1e6


def test_the_least_important_go_by_taylor():
    """Against the importance of the same moment."""
    model = single()
    data = data_for(model, count=8)
    budget = keras_iss.ISSBudget(
        units=0.5, importance="taylor", data=data, by_epoch=1, pressure=0
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    importance = keras_iss.estimate_importance(model, data, by="taylor")["lstm"]
    train(model, budget, epochs=2)
    gone = keras_iss.find_structures(model)["lstm"].removed()
    assert importance[gone].max() < importance[~gone].min()


def test_an_importance_of_ones_own():
    model = single()
    seen = []

    def importance(model):
        seen.append(model)
        return {"lstm": np.arange(12.0)}

    train(model, keras_iss.ISSBudget({"lstm": 4}, importance=importance))
    gone = keras_iss.find_structures(model)["lstm"].removed()
    np.testing.assert_array_equal(gone, np.arange(12) < 8)
    assert seen[0] is model


def test_a_second_fit_goes_on_with_the_first():
    """Epochs are those of `initial_epoch`, the share that of the full model."""
    model = single()

    def stop(epoch, logs):
        model.stop_training = epoch == 2

    stop = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    budget = keras_iss.ISSBudget(units=0.25, by_epoch=4)
    train(model, budget, stop, epochs=5)
    alive = keras_iss.find_structures(model)["lstm"].alive
    assert 3 < alive < 12
    budget = keras_iss.ISSBudget(units=0.25, by_epoch=4, of=model)
    train(model, budget, epochs=5, initial_epoch=3)
    assert keras_iss.find_structures(model)["lstm"].alive == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "Exactly one of `keep`"),
        ({"weights": 0.5, "units": 0.5}, ValueError, "one of"),
        ({"weights": 1.5}, ValueError, "above 0 and below 1"),
        ({"units": 0}, ValueError, "above 0 and below 1"),
        ({"mult_adds": "half"}, TypeError, "must be a number"),
        ({"keep": {"lstm": 3}, "weights": 0.5}, ValueError, "Exactly one"),
        ({"keep": 0.3}, TypeError, "dict"),
        ({"keep": {}}, ValueError, "empty"),
        ({"keep": {"lstm": 0.5}}, TypeError, "count .*for `lstm`"),
        ({"keep": {"lstm": [0, 1]}}, TypeError, "how many components"),
        ({"units": 0.5, "by_epoch": 0}, ValueError, "1 or more"),
        ({"units": 0.5, "by_epoch": 1.5}, TypeError, "integer"),
        (
            {"units": 0.5, "by_epoch": 2, "from_epoch": 2},
            ValueError,
            "less than",
        ),
        ({"units": 0.5, "importance": "random"}, ValueError, "`importance`"),
        ({"units": 0.5, "importance": "taylor"}, ValueError, "data"),
        ({"units": 0.5, "pressure": -1}, ValueError, "`pressure`"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_iss.ISSBudget(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": 0.001}, "cannot be reached"),
        ({"keep": {"lstm": 13}}, "1 to 12"),
        ({"keep": {"lstm": 12}}, "already"),
        ({"units": 12}, "already"),
        ({"keep": {"gru": 3}}, "no structure"),
        ({"units": 0.5, "by_epoch": 5}, "ends after epoch 4"),
        ({"units": 0.5, "from_epoch": 3}, "`from_epoch` is 3"),
        ({"units": 0.5, "of": single(8)}, "fewer than the model"),
    ],
)
def test_a_target_that_cannot_be_met_says_so_before_the_first_step(
    arguments, message
):
    model = single()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        train(model, keras_iss.ISSBudget(**arguments))
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)
    assert not model.losses


def test_a_loss_that_is_nan_stops_the_training():
    model = single()
    model.compile(keras.optimizers.SGD(1e30), "mse")
    with pytest.raises(ValueError, match="NaN or infinite"):
        train(model, keras_iss.ISSBudget(units=0.5))
