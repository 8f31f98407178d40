"""int8 means int8: what a file holds in what is told, and why."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from keras_iss.export.result import Export, Weight

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


def solid(*more):
    """A model with an operation that has no form with weights in int8."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 6, 2), name="x"),
            layers.Conv3D(5, 3, name="solid"),
            layers.Flatten(),
            *more,
        ],
        name="model",
    )


def lstm(units=5, **kwargs):
    x = keras.Input((6, 3), name="x")
    y = layers.Dense(2, name="head")(layers.LSTM(units, name="lstm")(x))
    return keras.Model(x, y, **kwargs)


@pytest.mark.parametrize("quantize", [None, "float16", "int8"])
def test_each_matrix_has_its_type_its_bytes_and_who_reads_it(path, quantize):
    done = keras_iss.export_tflite(lstm(), path, quantize=quantize)
    assert {x.dtype for x in done.weights} == {quantize or "float32"}
    # The order of the operations, and kernels as LiteRT lays them.
    assert sorted(x.shape for x in done.weights) == [(2, 5), (20, 3), (20, 5)]
    numbers = {None: 4, "float16": 2, "int8": 1}[quantize]
    for x in done.weights:
        assert x.size == numbers * np.prod(x.shape)
        assert x.operation == "FULLY_CONNECTED" and x.reason == ""
    assert done.weights_in_float == ()


def test_a_full_integer_file_names_the_eight_kernels_of_a_fused_lstm(path):
    data = np.random.default_rng(0).normal(size=(20, 6, 3)).astype("float32")
    done = keras_iss.export_tflite(
        lstm(),
        path,
        quantize="int8_full",
        recurrent_op="fused",
        representative_data=data,
    )
    fused = [x for x in done.weights if x.operation.endswith("_LSTM")]
    assert len(fused) == 8 and {x.dtype for x in done.weights} == {"int8"}


def test_int8_that_nothing_can_have_is_refused(path):
    with pytest.raises(ValueError, match="no weights of `model`.*CONV_3D"):
        keras_iss.export_tflite(solid(), path, quantize="int8")
    assert not path.exists()


def test_what_stays_in_float_has_its_reason(path):
    with pytest.warns(UserWarning, match="CONV_3D"):
        done = keras_iss.export_tflite(
            solid(layers.Dense(3)), path, quantize="int8"
        )
    reasons = {x.operation: x.reason for x in done.weights}
    assert reasons["FULLY_CONNECTED"] == ""
    assert "float32 only" in reasons["CONV_3D"]
    (line,) = [x for x in str(done).splitlines() if "CONV_3D: " in x]
    assert "float32" in line and "solid" in line


def test_full_integers_refuse_what_has_no_integers(path):
    data = np.random.default_rng(0).normal(size=(20, 6, 6, 6, 2))
    with pytest.raises(ValueError, match="solid|Conv3D|CONV_3D"):
        keras_iss.export_tflite(
            solid(layers.Dense(3)),
            path,
            quantize="int8_full",
            representative_data=data.astype("float32"),
        )


def test_int8_of_a_model_without_weights_says_that_there_are_none(path):
    x = keras.Input((6, 3), name="x")
    model = keras.Model(x, layers.GlobalAveragePooling1D()(x), name="mean")
    with pytest.warns(UserWarning, match="no weights in `mean`"):
        done = keras_iss.export_tflite(model, path, quantize="int8")
    assert done.weights == ()


def test_what_an_export_prints_is_a_table(tmp_path):
    weights = (
        Weight("lstm/kernel", "FULLY_CONNECTED", (20, 3), "int8", 60),
        Weight("solid", "CONV_3D", (2, 2), "float32", 16, "float32 only"),
    )
    done = Export(
        tmp_path / "m", 1234, {"CONV_3D": 1}, {"y": 0.01}, weights=weights
    )
    lines = str(done).splitlines()
    assert lines[0] == f"{tmp_path / 'm'}: 1,234 bytes"
    assert lines[1:3] == ["errors: y 0.01", "operations: 1 CONV_3D"]
    assert [x.split()[0] for x in lines[3:]] == [
        "weights",
        *"lstm/kernel solid".split(),
    ]
    assert done.weights_in_float == ("solid",)
    assert done.weights_in_int8 == ("lstm/kernel",)
