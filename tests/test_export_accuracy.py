"""A file takes its place only if it is as good as asked on real data."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

X = np.random.default_rng(0).normal(size=(40, 6, 3)).astype("float32")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old file")
    return path


def classifier():
    """A model, and what it says of `X` itself."""
    x = keras.Input((6, 3), name="x")
    y = layers.Dense(3, name="kind")(layers.LSTM(8, name="lstm")(x))
    model = keras.Model(x, y, name="model")
    return model, np.array(model(X)).argmax(-1)


# Ranges of numbers that are a hundredth of those that are given later.
CUT_OFF = {
    "quantize": "int8_full",
    "recurrent_op": "fused",
    "representative_data": X / 100,
    "verify": False,
}


def test_a_file_within_the_tolerance_is_written(path):
    model, y = classifier()
    done = keras_iss.export_tflite(
        model,
        path,
        quantize="int8",
        evaluation_data=(X, y),
        tolerance={"accuracy": 0.1},
    )
    assert done.evaluation.reference == {"accuracy": 1.0}
    assert done.evaluation.metrics["accuracy"] >= 0.9
    assert done.evaluation.samples == 40
    assert done.evaluation.name == "model.tflite"
    assert "on real data: accuracy: " in str(done)
    assert path.stat().st_size == done.size


def test_one_that_loses_more_is_not(path):
    model, y = classifier()
    found = keras_iss.export_tflite(model, path.with_name("b"), **CUT_OFF)
    assert found.evaluation is None
    for targets, tolerance, message in (
        (
            y,
            {"sparse_top_k_categorical_accuracy": 1.0, "accuracy": 0.05},
            "`accuracy` of `model.tflite` is 0.* on the 40 samples.* `model` 1:"
            ".*allows 0.05.*int16x8.*Nothing was written",
        ),
        # Of which less is better.
        (
            np.array(model(X)),
            {"mean_squared_error": 1e-5},
            "`mean_squared_error` of .*worse by",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            keras_iss.export_tflite(
                model,
                path,
                evaluation_data=(X, targets),
                tolerance=tolerance,
                **CUT_OFF,
            )
    assert path.read_bytes() == b"the old file"


def test_several_outputs_by_their_names(path):
    x = keras.Input((6, 3), name="x")
    h = layers.GRU(4)(x)
    kinds = layers.Dense(3, name="kind")(h)
    model = keras.Model(x, [kinds, layers.Dense(1, name="risk")(h)])
    one, other = (np.array(y) for y in model(X))
    y = {"kind": one.argmax(-1), "risk": other}
    data = {"evaluation_data": (X, y)}
    done = keras_iss.export_tflite(
        model,
        path,
        tolerance={"kind_accuracy": 0.0, "risk_mean_squared_error": 1e-5},
        **data,
    )
    assert done.evaluation.metrics["kind_accuracy"] == 1.0
    with pytest.raises(
        ValueError, match="`tolerance` has `accuracy`.*kind.*risk"
    ):
        keras_iss.export_tflite(
            model, path, tolerance={"accuracy": 0.1}, **data
        )
