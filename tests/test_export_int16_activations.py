"""Activations in 16 bits beside weights in 8, in both interpreters."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from keras_iss.export.options import Options

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from keras_iss.export import flatbuffer, int16_activations, tflm

STEPS, FEATURES = 10, 5
DATA = np.random.default_rng(0).normal(size=(30, STEPS, FEATURES))
DATA = DATA.astype("float32")
WORDS = np.random.default_rng(0).integers(0, 9, (30, 4)).astype("int32")

needs_tflm = pytest.mark.skipif(
    not tflm.can_run(), reason="tflite-micro is not installed"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


def on_grid(kernel, gates):
    """Weights that 8 bits hold as they are, with a scale for each gate.

    Without `gates`, with one for each column.
    """
    parts = np.split(kernel, gates or kernel.shape[1], axis=1)
    scales = [np.abs(part).max() / 127 for part in parts]
    parts = [np.rint(x / scale) * scale for x, scale in zip(parts, scales)]
    return np.concatenate(parts, axis=1)


def exact(model):
    """A model of random weights that lose nothing in 8 bits."""
    random = np.random.default_rng(1)
    for v in model.trainable_variables:
        values = random.normal(size=v.shape) * 0.5
        if len(v.shape) == 2:
            values = on_grid(values, 4 if "lstm" in v.path else None)
        v.assign(values)
    return model


def model_of(*inner, steps=STEPS):
    x = keras.Input((steps, FEATURES), name="x")
    y = x
    for layer in (*inner, layers.Dense(3, name="y")):
        y = layer(y)
    return exact(keras.Model(x, y, name="model"))


MICRO = {
    "lstm": lambda: model_of(
        layers.LSTM(8, return_sequences=True), layers.LSTM(6)
    ),
    "without a bias": lambda: model_of(layers.LSTM(6, use_bias=False)),
    "backwards": lambda: model_of(layers.LSTM(6, go_backwards=True)),
    "in both directions": lambda: model_of(
        layers.Bidirectional(layers.LSTM(4))
    ),
    "time left open": lambda: model_of(layers.LSTM(6), steps=None),
    "gru": lambda: model_of(layers.GRU(6)),
    "gru of before": lambda: model_of(layers.GRU(6, reset_after=False)),
    "simple rnn": lambda: model_of(layers.SimpleRNN(6)),
    "lstm and gru": lambda: model_of(
        layers.LSTM(6, return_sequences=True), layers.GRU(4)
    ),
    "rhn": lambda: model_of(keras_iss.layers.RHN(4, depth=2)),
}


@needs_tflm
@pytest.mark.parametrize("name", MICRO)
def test_only_the_weights_lose_something_on_a_microcontroller(path, name):
    model, data = MICRO[name](), DATA[:8]
    wanted = np.array(model(data))
    size = np.sqrt(np.mean(np.square(wanted)))
    options = {"target": "micro", "representative_data": DATA}
    keras_iss.export_tflite(model, path, verify=False, **options)
    found = keras_iss.evaluate(path, data, wanted)
    narrow = found.metrics["mean_squared_error"] ** 0.5 / size
    done = keras_iss.export_tflite(model, path, quantize="int16x8", **options)
    (wide,) = done.errors.values()
    assert wide < 4e-3 and wide < narrow / 3
    ends = (*done.micro.inputs, *done.micro.outputs)
    assert {(x.dtype, x.zero_point) for x in ends} == {("int16", 0)}
    assert {x.dtype for x in done.weights} == {"int8"}
    assert done.micro.arena
    states = {x.name: x.scale for x in done.micro.inputs if x.state}
    assert states == {x.name: x.scale for x in done.micro.outputs if x.state}


def words():
    t = keras.Input((4,), dtype="int32", name="x")
    y = layers.LSTM(4)(layers.Embedding(9, 4)(t))
    return keras.Model(t, layers.Dense(2)(y)), WORDS


def images():
    x = keras.Input((6, 6, 2), name="x")
    y = layers.Conv2D(3, 3, bias_initializer="ones")(x)
    y = layers.DepthwiseConv2D(2, bias_initializer="ones")(y)
    y = layers.Conv2DTranspose(2, 2, bias_initializer="ones")(y)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    return model, np.random.default_rng(0).normal(size=(30, 6, 6, 2))


def of(*inner):
    x = keras.Input((STEPS, FEATURES), name="x")
    y = x
    for layer in inner:
        y = layer(y)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(y))), DATA


LITERT = {
    "lstm": lambda: of(layers.LSTM(4)),
    "gru in both directions": lambda: of(layers.Bidirectional(layers.GRU(3))),
    "mask": lambda: of(layers.Masking(), layers.GRU(4)),
    "an embedding": words,
    "convolutions": images,
    "numbers of a comparison": lambda: of(layers.Dense(6, activation="selu")),
    "constants": lambda: of(
        layers.Normalization(mean=[0.3, 0.7, 90.0, -4, 2], variance=[7.0] * 5),
        layers.Dense(4, activation="softmax"),
    ),
    "products": lambda: of(layers.MultiHeadAttention(2, 3)),
}


@pytest.mark.parametrize("name", LITERT)
def test_litert_runs_16_bits_better_than_8(path, name):
    if name == "products":
        x = keras.Input((STEPS, FEATURES), name="x")
        y = layers.MultiHeadAttention(2, 3)(x, x)
        model, data = keras.Model(x, layers.Dense(2)(y)), DATA
    else:
        model, data = LITERT[name]()
    errors = []
    for quantize in ("int8_full", "int16x8"):
        done = keras_iss.export_tflite(
            model, path, quantize=quantize, representative_data=data
        )
        errors += done.errors.values()
    assert errors[1] < min(errors[0], 0.02)
    if name != "products":
        # Numbers that are added are activations.
        added = {"int16"} if name == "constants" else set()
        assert {x.dtype for x in done.weights} - added == {"int8"}


def test_a_constant_is_rounded_once():
    """From what it was in float, not from what it is in 8 bits."""
    values = np.array([0.1, 1.0, -0.4], np.float32)
    known = type("Known", (), {"scale": [1 / 128], "zeroPoint": [0]})
    whole = np.clip(np.rint(values * 128), -128, 127).astype(np.int8)
    real = int16_activations._real
    others = {3: [values + 0.1, values]}
    np.testing.assert_allclose(real(whole, known, {}), whole / 128, rtol=1e-6)
    assert np.array_equal(real(whole, known, others), whole / 128)
    values[1] = 0.99
    whole = np.rint(values * 128).astype(np.int8)
    np.testing.assert_array_equal(real(whole, known, others), values)


def test_numbers_of_two_scales_are_not_compared(path):
    x = keras.Input((STEPS, FEATURES), name="x")
    a, b = layers.Dense(4)(x), layers.Dense(4)(x)
    y = layers.Flatten()(ops.where(a > b, a, 2 * b))
    model = keras.Model(x, layers.Dense(2)(y))
    with pytest.raises(ValueError, match="Greater` compares.*int8_full"):
        keras_iss.export_tflite(
            model, path, quantize="int16x8", representative_data=DATA
        )
    assert not path.exists()


def test_litert_has_no_fused_lstm_of_16_bits():
    with pytest.raises(ValueError, match='8 bits only.*target="micro"'):
        Options(
            quantize="int16x8", representative_data=DATA, recurrent_op="fused"
        )


def test_what_cannot_be_verified_is_not_written_unless_asked(path, monkeypatch):
    monkeypatch.setattr(tflm, "can_run", lambda: False)
    model = model_of(layers.LSTM(4))
    options = {
        "target": "micro",
        "quantize": "int16x8",
        "representative_data": DATA,
    }
    with pytest.raises(ImportError, match=r"`model`.*keras-iss\[devices\]"):
        keras_iss.export_tflite(model, path, **options)
    assert not path.exists()
    done = keras_iss.export_tflite(model, path, verify=False, **options)
    assert done.errors == {} and done.micro.arena is None


def test_the_sources_say_16_bits(path, tmp_path):
    done = keras_iss.export_tflite(
        model_of(layers.LSTM(4)),
        path,
        target="micro",
        quantize="int16x8",
        representative_data=DATA,
        verify=False,
    )
    header, _, example = keras_iss.export.write_c_sources(
        done, tmp_path, "keywords"
    )
    assert len(re.findall("// int16, ", header.read_text())) == 2
    text = example.read_text()
    assert "->data.i16[i] = Quantize<std::int16_t>(" in text
    assert "Show(interpreter.output(0)->data.i16," in text


def test_biases_have_64_bits_and_the_scale_of_their_products(path):
    keras_iss.export_tflite(
        model_of(layers.LSTM(4)),
        path,
        target="micro",
        quantize="int16x8",
        representative_data=DATA,
        verify=False,
    )
    model = flatbuffer.loaded(path.read_bytes())
    for graph, operation, code in flatbuffer.operations(model):
        if flatbuffer.operation_name(code) != "UNIDIRECTIONAL_SEQUENCE_LSTM":
            continue
        (scale,) = graph.tensors[operation.inputs[0]].quantization.scale
        for gate in range(4):
            bias = graph.tensors[operation.inputs[12 + gate]]
            weights = graph.tensors[operation.inputs[1 + gate]]
            assert flatbuffer.constant(model, bias).nbytes == 8 * 4
            np.testing.assert_allclose(
                bias.quantization.scale,
                scale * weights.quantization.scale,
                rtol=1e-6,
            )
