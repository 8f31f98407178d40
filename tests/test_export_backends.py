"""Models on JAX and PyTorch, exported through a process with TensorFlow."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests.export_cases import (
    FEATURES,
    Cell,
    data_for,
    doubled,
    masking,
    randomize,
)

if keras.backend.backend() == "tensorflow":
    pytest.skip(
        "on TensorFlow an export is direct: see test_export",
        allow_module_level=True,
    )
for _name in ("tensorflow", "ai_edge_litert"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(
            f"an export needs {_name}, which is not installed",
            allow_module_level=True,
        )

from keras_iss.export import other_backend, temporary


def small():
    x = keras.Input((None, FEATURES), name="sequence")
    y = layers.Masking()(x)
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True))(y)
    y = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)])(y)
    # Keras on JAX takes a masked cell's first state for its output.
    y = layers.Concatenate()([y, layers.RNN(Cell(3))(x)])
    return randomize(keras.Model(x, layers.Dense(2, name="out")(y)))


def predict(model, x):
    return keras.ops.convert_to_numpy(model(x))


def test_a_model_of_this_backend_as_a_file(lite, tmp_path):
    path, model = tmp_path / "model.tflite", small()
    x = data_for(masking, 2, 11)
    done = keras_iss.export_tflite(
        model,
        path,
        batch_size=2,
        streaming=False,
        evaluation_data=(ops.convert_to_tensor(x), predict(model, x)),
        tolerance={"mean_squared_error": 1e-6},
    )
    assert done.path == path and done.size == path.stat().st_size
    assert done.evaluation.reference["mean_squared_error"] < 1e-6
    assert done.errors["out"] < 1e-4
    assert not any("CUSTOM" in name for name in done.operators)
    (got,) = lite(path, [("serve", {"sequence": x})])
    np.testing.assert_allclose(got["out"], predict(model, x), atol=1e-4)
    assert [x.name for x in tmp_path.iterdir()] == ["model.tflite"]


def test_a_model_of_this_backend_as_a_saved_model(tensorflow, tmp_path):
    path, model = tmp_path / "saved", small()
    keras_iss.export_saved_model(model, path, verify=False)
    x = data_for(masking, 3, 5)
    (got,) = tensorflow(path, [("serving_default", {"sequence": x})])
    np.testing.assert_allclose(got["out"], predict(model, x), atol=1e-4)


def test_what_fails_there_is_raised_here(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old file")
    with pytest.raises(ValueError, match="quantize='int4'"):
        keras_iss.export_tflite(small(), path, quantize="int4")
    with pytest.raises(TypeError, match="takes a keras.Model"):
        keras_iss.export_tflite([1], path)
    raw = keras.Sequential([layers.LSTM(3)], name="raw")
    with pytest.raises(ValueError, match="`raw` has not been built"):
        keras_iss.export_saved_model(raw, tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match="missing"):
        keras_iss.export_tflite(small(), tmp_path / "missing" / "a.tflite")
    assert path.read_bytes() == b"the old file"
    assert [x.name for x in tmp_path.iterdir()] == ["model.tflite"]


def with_function(*functions):
    x = y = keras.Input((6, FEATURES), name="x")
    names = ["culprit", "second", "third"]
    for name, function in zip(names, functions):
        y = layers.Lambda(function, output_shape=(6, FEATURES), name=name)(y)
    return randomize(keras.Model(x, layers.LSTM(3, name="y")(y), name="model"))


def of_closure(factor):
    return lambda x: x * factor


def test_lambdas_that_can_be_loaded_elsewhere(tensorflow, tmp_path):
    # Of a module, a lambda and a closure.
    model = with_function(doubled, lambda x: x * 2.0, of_closure(0.3))
    data = ops.convert_to_tensor(data_for(masking, 3, 6))
    done = keras_iss.export_saved_model(model, tmp_path / "saved", data=data)
    assert done.errors["y"] < 1e-4
    calls = [("serving_default", {"x": ops.convert_to_numpy(data)})]
    (got,) = tensorflow(done.path, calls)
    np.testing.assert_allclose(got["y"], predict(model, data), atol=1e-4)


GLOBAL = 2.0


def test_a_lambda_that_cannot_be_loaded_elsewhere(tmp_path):
    cases = {
        "GLOBAL": lambda x: x * GLOBAL,
        "ops": lambda x: ops.tanh(x),
        "GLOBAL, ops": lambda x: (lambda y: ops.tanh(y) * GLOBAL)(x),
    }
    for names, function in cases.items():
        with pytest.raises(
            ValueError, match=f"lambda of `culprit` reads {names} of its module"
        ):
            keras_iss.export_tflite(with_function(function), tmp_path / "a")

    def inner(x):
        return x + 1

    with pytest.raises(ValueError, match="`culprit` calls `inner`.*register"):
        keras_iss.export_tflite(with_function(inner), tmp_path / "a")
    script = type(inner)(inner.__code__, {}, "script")
    script.__module__ = "__main__"
    with pytest.raises(ValueError, match="`culprit` calls `script`.*module"):
        keras_iss.export_tflite(with_function(script), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_data_that_is_none(tmp_path):
    model = with_function(doubled)
    full = {"quantize": "int8_full", "representative_data": [1.0]}
    for name in ("data", "representative_data"):
        given = full | {name: (x for x in [])}
        with pytest.raises(TypeError, match=f"`{name}` is a generator"):
            keras_iss.export_tflite(model, tmp_path / "a", **given)
    with pytest.raises(ValueError, match="`data` has no `x`"):
        keras_iss.export_tflite(
            model, tmp_path / "a", data={"z": data_for(masking, 3, 6)}
        )
    assert not list(tmp_path.iterdir())


def test_what_an_export_warns_of_there_is_said_here(tmp_path):
    x = keras.Input((30, FEATURES), name="x")
    model = randomize(keras.Model(x, layers.GRU(4)(x)))
    with pytest.warns(UserWarning, match="every time step") as warned:
        done = keras_iss.export_tflite(
            model,
            tmp_path / "a.tflite",
            quantize="int8_full",
            representative_data=ops.convert_to_tensor(data_for(masking, 9, 30)),
            verify=False,
        )
    assert done.notes and __file__ in [w.filename for w in warned]


def test_an_interrupt_ends_the_process_and_leaves_nothing(
    monkeypatch, tmp_path
):
    path, processes = tmp_path / "model.tflite", []
    path.write_bytes(b"the old file")
    begin = other_backend.subprocess.Popen

    class Interrupted(begin):
        def communicate(self, *args, **kwargs):
            processes.append(self)
            # As of a process that was killed while it wrote.
            (tmp_path / f".keras-iss-{temporary.key_of(path)}-0").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(other_backend.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        keras_iss.export_tflite(small(), path)
    assert processes[0].poll() is not None
    assert path.read_bytes() == b"the old file"
    assert [x.name for x in tmp_path.iterdir()] == ["model.tflite"]
