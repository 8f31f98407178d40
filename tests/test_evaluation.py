"""A model in any form is as good as its metrics say."""

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.runtimes.micro_runner import MicroRunner
from tests.test_runtimes import classifier, samples, two_inputs

BACKEND = keras.backend.backend()

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="LiteRT is there with TensorFlow"
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6, 3)).astype("float32")


def signals(layer=keras.layers.GRU, sequences=False):
    """Three classes of a signal, and what the model itself says of `X`."""
    model = keras.Sequential(
        [
            keras.Input((6, 3), name="signal"),
            layer(8, return_sequences=sequences, name="recurrent"),
            keras.layers.Dense(3, name="kind"),
        ]
    )
    return model, keras.ops.convert_to_numpy(model(X)).argmax(-1)


def test_the_metrics_are_those_of_keras():
    model, (x, y) = classifier(), samples()
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    found = keras_iss.evaluate(model, x, y)
    assert found.samples == 24 and not found.reference and not found.change
    for name, value in zip(found.metrics, ("loss", "accuracy")):
        assert found.metrics[name] == pytest.approx(expected[value], rel=1e-4)


def test_what_a_cut_costs_is_the_change():
    model, y = signals()
    small = keras_iss.shrink(model, keep={"recurrent": 2})
    found = keras_iss.evaluate(small, X, y, reference=model)
    assert found.reference == {"accuracy": 1.0}
    cost = 1 - found.metrics["accuracy"]
    assert found.change == {"accuracy": pytest.approx(-cost)} and cost > 0
    assert f"({-cost:+.2g})" in str(found)


def test_several_inputs_and_outputs_by_their_names():
    model = two_inputs()
    x = {"signal": np.ones((4, 5, 3)), "person": np.ones((4, 2))}
    y = {"risk": np.zeros((4, 1)), "kind": np.zeros(4, int)}
    found = keras_iss.evaluate(model, x, y, reference=model)
    assert set(found.change) == {
        "risk_mean_squared_error",
        "risk_mean_absolute_error",
        "kind_accuracy",
    }
    assert not any(found.change.values())


@on_tensorflow
def test_targets_meet_the_outputs_they_are_of(tmp_path):
    """Those of a file have names; their order is not that of the model."""
    model = two_outputs_alike()
    x = np.ones((4, 5, 3), "float32")
    y = [keras.ops.convert_to_numpy(output) for output in model(x)]
    path = tmp_path / "two.tflite"
    keras_iss.export_tflite(model, path)
    found = keras_iss.evaluate(path, x, y, reference=model)
    assert len(found.metrics) == 4 and max(found.metrics.values()) < 1e-3
    named = dict(zip(("later", "before"), y))
    assert max(keras_iss.evaluate(path, x, named).metrics.values()) < 1e-3
    for run in (keras_iss.evaluate, with_targets):
        with pytest.raises(ValueError, match="names, and no order"):
            run(path, x, y)


def with_targets(path, x, y):
    return keras_iss.compare(path, path, (x, y), latency=False)


def two_outputs_alike():
    """Of one shape, not in the order of their names."""
    x = keras.Input((5, 3), name="signal")
    h = keras.layers.LSTM(6, name="lstm")(x)
    heads = [
        keras.layers.Dense(2, bias_initializer=value, name=name)(h)
        for name, value in (("later", "ones"), ("before", "zeros"))
    ]
    return keras.Model(x, heads)


def test_as_many_targets_as_samples():
    model, y = signals()
    with pytest.raises(ValueError, match="32 samples in `x`.*for 31"):
        keras_iss.evaluate(model, X, y[1:])


@on_tensorflow
@pytest.mark.parametrize("sequences", [False, True])
def test_a_file_of_one_time_step_runs_over_sequences(sequences, tmp_path):
    """As it does on a microcontroller: integers, its states in and out."""
    model, y = signals(sequences=sequences)
    path = tmp_path / "step.tflite"
    done = keras_iss.export_tflite(
        model, path, target="micro", representative_data=X
    )
    assert done.micro.step
    found = keras_iss.evaluate(path, X, y, reference=model)
    assert found.reference == {"accuracy": 1.0}
    assert found.metrics["accuracy"] > 0.85
    # Not by chance: what is asked for is another class elsewhere.
    wrong = keras_iss.evaluate(path, X, (y + 1) % 3)
    assert wrong.metrics["accuracy"] < 0.15
    output = keras_iss.compare(model, path, X, latency=False).outputs["kind"]
    assert output.relative < 0.1


@on_tensorflow
def test_a_file_of_several_time_steps_runs_over_a_multiple_of_them(tmp_path):
    inner = [
        keras.layers.Conv1D(8, 3, padding="causal", name="convolution"),
        keras.layers.MaxPooling1D(5),
        keras.layers.GRU(4, return_sequences=True, name="recurrent"),
    ]
    model = keras.Sequential([keras.Input((None, 3), name="signal"), *inner])
    path = tmp_path / "steps.tflite"
    keras_iss.export_tflite(
        model, path, streaming=10, step_only=True, verify=False
    )
    # Of 40 time steps: the least multiple from the usual length on.
    found = keras_iss.compare(model, path, runs=2)
    assert found.largest < 1e-5
    with pytest.raises(ValueError, match="takes 10 time steps.* have 12"):
        keras_iss.compare(model, path, np.zeros((2, 12, 3)), latency=False)


@on_tensorflow
def test_full_integers_of_whole_sequences(tmp_path):
    model, y = signals(keras.layers.LSTM)
    path = tmp_path / "whole.tflite"
    keras_iss.export_tflite(model, path, target="micro", representative_data=X)
    found = keras_iss.evaluate(path, X, y, reference=model)
    assert found.metrics["accuracy"] > 0.85
    assert keras_iss.benchmark(path, runs=3).latency.median > 0


@on_tensorflow
def test_what_litert_does_not_run_runs_in_tensorflow_lite_micro(tmp_path):
    """A fused LSTM of 16 bits; and a step, in one as in the other."""
    pytest.importorskip("tflite_micro")
    options = {
        "target": "micro",
        "quantize": "int16x8",
        "representative_data": X,
        "verify": False,
    }
    for layer in (keras.layers.LSTM, keras.layers.GRU):
        model, y = signals(layer)
        path = tmp_path / f"{layer.__name__}.tflite"
        keras_iss.export_tflite(model, path, **options)
        found = keras_iss.evaluate(path, X, y, reference=model)
        assert found.reference == {"accuracy": 1.0} and found.samples == 32
        assert found.metrics["accuracy"] > 0.9
    on_device = MicroRunner(path)
    both = keras_iss.compare(path, on_device, X[:5], latency=False)
    assert both.largest < 1e-3
    with pytest.raises(ValueError, match="says nothing of a device"):
        on_device.prepared([X])
