"""Pruning and logging at the end of an epoch."""

import builtins
import csv

import keras
import numpy as np
import pytest

import keras_iss
from tests.test_structures import language_model
from tests.test_surgery import DATA, compiled, fit

X, Y = DATA[:, :-1], DATA[:, 1:]


def train(model, *callbacks, epochs=1, **kwargs):
    return model.fit(
        X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks), **kwargs
    ).history


def threshold_between(structure):
    """A threshold that about half of a structure's components are under."""
    return float(np.median(structure.norms()))


def test_short_components_are_removed_at_the_end_of_an_epoch():
    model = compiled(keras.optimizers.SGD(0.0))
    structure = keras_iss.find_structures(model)["lstm_1"]
    norms, threshold = structure.norms(), threshold_between(structure)
    train(model, keras_iss.ISSPruneCallback(threshold))
    np.testing.assert_array_equal(structure.removed(), norms < threshold)


def test_a_structure_keeps_its_longest_component():
    model = compiled("sgd")
    train(model, keras_iss.ISSPruneCallback(1e9))
    assert [s.alive for s in keras_iss.find_structures(model)] == [1, 1]


def test_pruning_every_few_epochs():
    model = compiled(keras.optimizers.SGD(0.0))
    structure = keras_iss.find_structures(model)["lstm_1"]
    prune = keras_iss.ISSPruneCallback(threshold_between(structure), every=2)
    alive = train(model, prune, keras_iss.ISSLogger(), epochs=3)
    assert alive["lstm_1_alive"] == [5, 3, 3]


class Regrow(keras.callbacks.Callback):
    """Puts a component back, as nothing else would."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            kernel = self.model.get_layer("lstm_1").cell.kernel
            kernel.assign(np.full(kernel.shape, 3.0))


@pytest.mark.parametrize("keep_removed", [False, True])
def test_removed_components_stay_removed_if_kept_so(keep_removed):
    model = compiled(keras.optimizers.Adam(0.01))
    structure = keras_iss.find_structures(model)["lstm_1"]
    prune = keras_iss.ISSPruneCallback(
        threshold_between(structure), every=2, keep_removed=keep_removed
    )
    history = train(model, Regrow(), prune, keras_iss.ISSLogger(), epochs=5)
    alive = history["lstm_1_alive"]
    # The first epoch prunes nothing, and the kernel is long ever after.
    assert alive == [5] * 5
    model = compiled(keras.optimizers.Adam(0.01))
    structure = keras_iss.find_structures(model)["lstm_1"]
    prune = keras_iss.ISSPruneCallback(
        threshold_between(structure), keep_removed=keep_removed
    )
    alive = train(model, prune, Regrow(), keras_iss.ISSLogger(), epochs=3)
    assert alive["lstm_1_alive"][0] == 3
    assert alive["lstm_1_alive"][-1] == (3 if keep_removed else 5)


def test_frozen_components_are_zero_after_averaging_weights():
    model = compiled(keras.optimizers.SGD(0.1, use_ema=True))
    structure = keras_iss.find_structures(model)["lstm_1"]
    prune = keras_iss.ISSPruneCallback(
        threshold_between(structure), every=2, keep_removed=True
    )
    train(model, prune, epochs=3)
    assert structure.alive == 3


def test_zero_components_get_no_gradient():
    """What freezes them in between: under Adam, weights that are zero stay."""
    model = compiled(keras.optimizers.Adam(0.1))
    fit(model, steps=2)
    structures = keras_iss.prune(model, keep={"lstm_1": 2, "lstm_2": 2})
    fit(model, steps=5)
    assert [s.alive for s in structures] == [2, 2]


def test_single_weights_below_the_threshold_become_zero():
    model = compiled(keras.optimizers.SGD(0.0))
    before = {v.path: np.array(v) for v in model.weights}
    train(model, keras_iss.ISSPruneCallback(0.2, elementwise=True))
    for variable in model.weights:
        old, new = before[variable.path], np.array(variable)
        if "bias" in variable.path or "embeddings" in variable.path:
            np.testing.assert_array_equal(new, old)
        else:
            np.testing.assert_array_equal(
                new, np.where(np.abs(old) < 0.2, 0, old)
            )
            assert (new == 0).any() and (new != 0).any()


@pytest.mark.parametrize("every", [0, -1, 1.5, "batch", True])
def test_every_is_an_epoch_or_several(every):
    with pytest.raises(ValueError, match="number of epochs"):
        keras_iss.ISSPruneCallback(0.1, every=every)


def test_the_logs_say_what_is_left(tmp_path, capsys):
    model = compiled(keras.optimizers.SGD(0.0))
    keras_iss.prune(model, keep={"lstm_1": 3})
    path = tmp_path / "log.csv"
    history = model.fit(
        X,
        Y,
        verbose=2,
        callbacks=[keras_iss.ISSLogger(), keras.callbacks.CSVLogger(path)],
    ).history
    left = keras_iss.find_structures(model).counts(shrunk=True)
    wanted = {
        "lstm_1_alive": 3,
        "lstm_2_alive": 4,
        "alive_units": 7,
        "recurrent_weights": left.recurrent_weights,
        "mult_adds": left.mult_adds,
    }
    assert {key: history[key] for key in wanted} == {
        key: [value] for key, value in wanted.items()
    }
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert {key: float(row[key]) for key in wanted} == wanted
    assert "lstm_1_alive: 3" in capsys.readouterr().out


def test_group_norms_are_written_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    model = compiled(keras.optimizers.SGD(0.0))
    train(model, keras_iss.ISSLogger(log_dir=tmp_path), epochs=2)
    events = event_accumulator.EventAccumulator(
        str(tmp_path), size_guidance={"tensors": 0}
    ).Reload()
    assert events.Tags()["tensors"] == [
        "lstm_1/group_norms",
        "lstm_2/group_norms",
    ]
    first, second = events.Tensors("lstm_1/group_norms")
    assert (first.step, second.step) == (0, 1)
    counts = np.frombuffer(second.tensor_proto.tensor_content, "float64")
    assert counts.reshape(-1, 3)[:, 2].sum() == 5


def test_without_tensorboard_the_error_says_how_to_get_it(
    monkeypatch, tmp_path
):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        keras_iss.ISSLogger(log_dir=tmp_path)


@pytest.mark.compiled
def test_learning_ends_in_a_smaller_model_that_computes_the_same():
    """The whole story: learn, prune while learning, shrink."""
    model = language_model((12, 10))
    keras_iss.ISSRegularizer(0.03).attach(model)
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    train(
        model,
        keras_iss.ISSPruneCallback(threshold=0.6, keep_removed=True),
        epochs=40,
    )
    small = keras_iss.shrink(model)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(
        small.predict(X, verbose=0),
        model.predict(X, verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_model_that_its_first_step_builds():
    model = keras.Sequential([keras.layers.LSTM(4), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    prune = keras_iss.ISSPruneCallback(0.0, keep_removed=True)
    logs = model.fit(
        np.ones((4, 3, 2)),
        np.ones((4, 1)),
        verbose=0,
        callbacks=[prune, keras_iss.ISSLogger()],
    ).history
    assert logs["alive_units"] == [4]


def test_a_frozen_callback_starts_anew_with_every_fit():
    model = compiled(keras.optimizers.SGD(0.0))
    structure = keras_iss.find_structures(model)["lstm_1"]
    prune = keras_iss.ISSPruneCallback(
        threshold_between(structure), keep_removed=True
    )
    train(model, prune)
    small = keras_iss.shrink(model)
    train(small, prune)
    other = compiled(keras.optimizers.SGD(0.0))
    prune.every, prune._period = 2, 2
    alive = train(other, prune, keras_iss.ISSLogger())
    assert alive["lstm_1_alive"] == [5]


def test_what_was_removed_before_the_training_is_frozen_too():
    model = compiled(keras.optimizers.SGD(0.0))
    keras_iss.prune(model, keep={"lstm_1": 2})
    prune = keras_iss.ISSPruneCallback(0.0, keep_removed=True)
    regrow = Regrow()
    regrow.on_epoch_begin = lambda epoch, logs=None: Regrow.on_epoch_begin(
        regrow, 1
    )
    alive = train(model, regrow, prune, keras_iss.ISSLogger())
    assert alive["lstm_1_alive"] == [2]


def test_weights_that_are_not_numbers_end_the_training_in_keras_manner():
    model = compiled(keras.optimizers.SGD(float("inf")))
    stop = keras.callbacks.TerminateOnNaN()
    prune = keras_iss.ISSPruneCallback(0.1)
    train(model, stop, prune, epochs=2, batch_size=1)
    assert model.stop_training


@pytest.mark.parametrize(
    "callback", [keras_iss.ISSLogger(), keras_iss.ISSPruneCallback(0.0)]
)
def test_a_step_that_would_remove_everything_is_not_taken(callback):
    model = compiled(
        keras_iss.ProximalISS(keras.optimizers.SGD(0.1), strength=1e4)
    )
    before = model.get_weights()
    with pytest.raises(ValueError, match="remove all of `lstm_1`"):
        train(model, callback)
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)


def test_a_structure_that_is_all_gone_is_warned_of():
    model = compiled(
        keras_iss.ProximalISS(keras.optimizers.SGD(0.1), strength=30.0)
    )
    with pytest.warns(UserWarning, match="no longer depends on the input"):
        train(model, keras_iss.ISSLogger(), batch_size=1)
