"""Whatever inputs are called, files can be called."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.export_cases import FEATURES, randomize

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from keras_iss.export import flatbuffer
from keras_iss.export.data import checked
from keras_iss.export.model import Callable, isolated

# The name of an input, that in a TFLite file, and that in a SavedModel.
NAMES = [
    ("audio", "audio", "audio"),
    ("a.b", "a.b", "a_b"),
    ("a_b", "a_b", "a_b_1"),
    ("名前", "名前", "input"),
    ("出力", "出力", "input_1"),
    ("größe", "größe", "gr__e"),
    ("self", "input_self", "input_self"),
    ("class", "class", "input_class"),
    ("lambda", "lambda", "input_lambda"),
    ("None", "None", "input_None"),
    ("with space", "with_space", "with_space"),
    ("2nd", "input_2nd", "input_2nd"),
    ("_hidden", "_hidden", "input__hidden"),
    ("a:0", "a_0", "a_0"),
    ("training", "training", "training"),
    ("signature", "signature", "signature"),
]


@pytest.fixture(scope="module")
def model():
    """Adds up what it reads, each input with a layer of its own."""
    inputs = [keras.Input((4, FEATURES), name=name) for name, _, _ in NAMES]
    outputs = [
        layers.Dense(1, name=f"of_{number}")(x)
        for number, x in enumerate(inputs)
    ]
    y = layers.LSTM(3, name="import")(layers.Concatenate()(outputs))
    z = layers.Dense(2, name="結果")(y)
    return randomize(keras.Model(inputs, [y, z], name="my-model 1"))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    shape = (1, 4, FEATURES)
    return [random.normal(size=shape).astype("float32") for _ in NAMES]


def test_a_file_has_the_names_that_keras_gives(lite, tmp_path, model, data):
    path = tmp_path / "a.tflite"
    keras_iss.export_tflite(model, path, verify=False)
    named = {name: x for (_, name, _), x in zip(NAMES, data)}
    assert len(named) == len(NAMES)
    (got,) = lite(path, [("serve", named)])
    y, z = model(data)
    np.testing.assert_allclose(got["import"], y, atol=1e-5)
    np.testing.assert_allclose(got["結果"], z, atol=1e-5)
    inputs = flatbuffer.metadata(path.read_bytes())["inputs"]
    assert list(inputs) == [name for _, name, _ in NAMES]


def test_a_saved_model_has_names_that_tensorflow_takes(
    tensorflow, tmp_path, model, data
):
    keras_iss.export_saved_model(model, tmp_path / "saved", verify=False)
    named = {name: x for (_, _, name), x in zip(NAMES, data)}
    assert len(named) == len(NAMES)
    (got,) = tensorflow(tmp_path / "saved", [("serving_default", named)])
    y, z = model(data)
    np.testing.assert_allclose(got["import"], y, atol=1e-5)
    np.testing.assert_allclose(got["結果"], z, atol=1e-5)


def test_a_stream_whose_states_are_called_as_its_inputs(lite, tmp_path):
    x = keras.Input((None, FEATURES), name="self_state_0")
    y = layers.LSTM(3, return_sequences=True, name="self")(x)
    z = layers.GRU(2, return_sequences=True, name="名前")(y)
    model = randomize(keras.Model(x, z, name="model"))
    path = tmp_path / "a.tflite"
    keras_iss.export_tflite(model, path, streaming=True, verify=False)
    states = flatbuffer.metadata(path.read_bytes())["states"]
    assert list(states) == ["self_state_0_1", "self_state_1", "名前_state_0"]
    data = np.random.default_rng(0).normal(size=(1, 5, FEATURES))
    data = data.astype("float32")
    steps = [{"self_state_0": data[:, t : t + 1]} for t in range(5)]
    (got,) = lite(path, [("step", steps)])
    got = np.concatenate([step["名前"] for step in got], axis=1)
    np.testing.assert_allclose(got, model(data), atol=1e-5)


def test_data_by_any_of_the_names(model, data):
    inputs = Callable(isolated(model)).inputs

    def taken(given):
        return checked(inputs, model.name, given, None, "data", finite=True)

    for place in range(3):
        named = {names[place]: x for names, x in zip(NAMES, data)}
        for got, wanted in zip(taken(named), data, strict=True):
            np.testing.assert_array_equal(got, wanted)
        with pytest.raises(ValueError, match="`data` has ..oops.., which no"):
            taken(named | {"oops": data[0]})
    with pytest.raises(ValueError, match="`data` has no `audio`.*名前"):
        taken({"oops": data[0]})
