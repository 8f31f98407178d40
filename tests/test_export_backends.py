"""Models on JAX and PyTorch, exported through a process with TensorFlow."""

import contextlib
import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.export_cases import (
    FEATURES,
    Cell,
    data_for,
    masking,
    randomize,
)
from tests.serving import Server

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


def test_a_model_of_this_backend_as_a_file(tmp_path):
    path, model = tmp_path / "model.tflite", small()
    done = keras_iss.export_tflite(model, path, batch_size=2, streaming=False)
    assert done.path == path and done.size == path.stat().st_size
    assert done.errors["out"] < 1e-4
    assert not any("CUSTOM" in name for name in done.operators)
    x = data_for(masking, 2, 11)
    with contextlib.closing(Server("lite")) as lite:
        (got,) = lite(path, [("serve", {"sequence": x})])
    np.testing.assert_allclose(got["out"], predict(model, x), atol=1e-4)
    assert [one.name for one in tmp_path.iterdir()] == ["model.tflite"]


def test_a_model_of_this_backend_as_a_saved_model(tmp_path):
    path, model = tmp_path / "saved", small()
    keras_iss.export_saved_model(model, path, verify=False)
    x = data_for(masking, 3, 5)
    with contextlib.closing(Server("saved_model")) as tensorflow:
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
    assert [one.name for one in tmp_path.iterdir()] == ["model.tflite"]
