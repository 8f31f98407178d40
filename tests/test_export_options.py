"""What is asked of an export is checked before anything is done."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.export.options import Options

DATA = np.zeros((9, 5, 3), "float32")

BAD = {
    "quantize": ({"quantize": "int4"}, ValueError, "quantize='int4'.*choose"),
    "quantize int": ({"quantize": 8}, ValueError, "quantize=8.*choose"),
    "recurrent_op": (
        {"recurrent_op": "unrolled"},
        ValueError,
        "recurrent_op='unrolled'.*choose",
    ),
    "recurrent_op None": (
        {"recurrent_op": None},
        ValueError,
        "recurrent_op=None.*choose",
    ),
    "batch_size 0": ({"batch_size": 0}, ValueError, "batch_size=0"),
    "batch_size -1": ({"batch_size": -1}, ValueError, "batch_size=-1"),
    "batch_size 1.5": ({"batch_size": 1.5}, ValueError, "batch_size=1.5"),
    "batch_size True": ({"batch_size": True}, ValueError, "batch_size=True"),
    "batch_size str": ({"batch_size": "1"}, ValueError, "batch_size='1'"),
    "no data": (
        {"quantize": "int8_full"},
        ValueError,
        "needs representative_data",
    ),
    "no data for 16 bits": (
        {"quantize": "int16x8"},
        ValueError,
        'quantize="int16x8".*needs representative_data',
    ),
    "a tolerance alone": (
        {"tolerance": {"accuracy": 0.1}},
        ValueError,
        "`tolerance` needs `evaluation_data`",
    ),
    "evaluation_data alone": (
        {"evaluation_data": (DATA, DATA)},
        ValueError,
        "`evaluation_data` needs `tolerance`",
    ),
    "evaluation_data without targets": (
        {"evaluation_data": DATA, "tolerance": {"accuracy": 0.1}},
        ValueError,
        "must be a tuple",
    ),
    "a tolerance of nothing named": (
        {"evaluation_data": (DATA, DATA), "tolerance": 0.1},
        TypeError,
        "names of metrics to numbers",
    ),
    "a tolerance below zero": (
        {"evaluation_data": (DATA, DATA), "tolerance": {"accuracy": -1}},
        ValueError,
        "tolerance.'accuracy'.",
    ),
    "data of no use": (
        {"quantize": "int8", "representative_data": DATA},
        ValueError,
        "of no use",
    ),
    "streaming str": (
        {"streaming": "no"},
        TypeError,
        "`streaming` must be True",
    ),
    "streaming None": ({"streaming": None}, TypeError, "how many time steps"),
    "streaming 1.5": ({"streaming": 1.5}, TypeError, "how many time steps"),
    "streaming 0": ({"streaming": 0}, ValueError, "streaming=0 is no number"),
    "streaming -2": ({"streaming": -2}, ValueError, "streaming=-2 is no"),
    "step_only": ({"step_only": True}, ValueError, "give streaming=True"),
} | {
    f"{name} {value!r}": (
        {name: value},
        TypeError,
        f"`{name}` must be True or False. Received: {value!r}",
    )
    for name in ("verify", "step_only")
    for value in ("no", 1, None)
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_say_what_may_be(name):
    given, error, message = BAD[name]
    with pytest.raises(error, match=message):
        Options(**given)


def test_both_functions_check_them_before_anything_else(tmp_path):
    x = keras.Input((5, 3))
    model = keras.Model(x, keras.layers.LSTM(2)(x))
    path = tmp_path / "file"
    for given, error, message in BAD.values():
        with pytest.raises(error, match=message):
            keras_iss.export_tflite(model, path, **given)
    with pytest.raises(TypeError, match="`verify` must be"):
        keras_iss.export_saved_model(model, path, verify="yes")
    assert not path.exists()


def test_numbers_and_booleans_of_numpy_are_taken():
    options = Options(
        batch_size=np.int64(2),
        verify=np.bool_(False),
        quantize="int8_full",
        representative_data=DATA,
        recurrent_op="fused",
    )
    assert options.full_integers and options.fused
    assert [Options(streaming=x).frames for x in (False, np.bool_(1), 1)] == [
        0,
        1,
        1,
    ]
    assert Options(streaming=np.int64(4), step_only=np.bool_(True)).frames == 4
    assert type(options.batch_size) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.batch_size = 3
