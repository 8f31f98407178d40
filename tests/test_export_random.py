"""Whatever model, whatever options: a file computes what the model does."""

import contextlib

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from keras import layers

import keras_iss
from tests.export_cases import FEATURES, Cell, randomize
from tests.serving import Server

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from keras_iss.export import _flatbuffer

# Relative errors.
TOLERANCE = {None: 1e-4, "float16": 2e-2, "int8": 0.25}

SIZES = st.integers(3, 6)


@pytest.fixture(scope="module")
def lite():
    with contextlib.closing(Server("lite")) as server:
        yield server


@st.composite
def cells(draw):
    kind = draw(st.sampled_from(["lstm", "gru", "simple", "own"]))
    units = draw(SIZES)
    if kind == "lstm":
        return layers.LSTMCell(units, use_bias=draw(st.booleans()))
    if kind == "gru":
        return layers.GRUCell(units, reset_after=draw(st.booleans()))
    return layers.SimpleRNNCell(units) if kind == "simple" else Cell(units)


@st.composite
def recurrent(draw, every_step, forward_only, masked):
    """A recurrent layer, of a random kind and with random options."""
    options = {
        "return_sequences": every_step,
        "zero_output_for_mask": draw(st.booleans()),
    }
    # Keras' own loop fails on several cells with a mask.
    kinds = ["lstm", "gru", "simple", "cell", *([] if masked else ["cells"])]
    kind = draw(st.sampled_from(kinds))
    event(kind)
    both = not forward_only and draw(st.booleans())
    if not forward_only and not both:
        options["go_backwards"] = draw(st.booleans())
    if kind == "cells":
        many = draw(st.lists(cells(), min_size=1, max_size=2))
        layer = layers.RNN(many, **options)
    elif kind == "cell":
        layer = layers.RNN(draw(cells()), **options)
    else:
        of = {
            "lstm": layers.LSTM,
            "gru": layers.GRU,
            "simple": layers.SimpleRNN,
        }
        layer = of[kind](
            draw(SIZES),
            activation=draw(st.sampled_from(["tanh", "sigmoid"])),
            **options,
        )
    if not both:
        return layer
    mode = draw(st.sampled_from(["concat", "sum", "mul", "ave"]))
    return layers.Bidirectional(layer, merge_mode=mode)


@st.composite
def models(draw, streaming):
    time = draw(st.sampled_from([None, None, 1, 7]))
    x = keras.Input((time, FEATURES), name="sequence")
    masked = draw(st.booleans())
    y = layers.Masking()(x) if masked else x
    count = draw(st.integers(1, 3))
    for number in range(count):
        last = number == count - 1
        every_step = not last or draw(st.booleans())
        y = draw(recurrent(every_step, streaming, masked))(y)
        between = draw(st.sampled_from([None, "dense", "norm", "dropout"]))
        if between == "dense":
            y = layers.Dense(draw(SIZES), activation="relu")(y)
        elif between == "norm":
            y = layers.LayerNormalization()(y)
        elif between == "dropout":
            y = layers.Dropout(0.5)(y)
    model = keras.Model(x, layers.Dense(3, name="out")(y))
    randomize(model, seed=draw(st.integers(0, 99)))
    return model, time


def relative_error(got, wanted):
    assert got.shape == wanted.shape
    size = np.sqrt(np.mean(wanted**2))
    return np.sqrt(np.mean((got - wanted) ** 2)) / max(size, 1e-2)


@settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(data=st.data())
def test_any_model_exported_in_any_way(lite, tmp_path, data):
    streaming = data.draw(st.booleans(), "streaming")
    model, time = data.draw(models(streaming), "model")
    batch = data.draw(st.sampled_from([1, 2, None]), "batch size")
    quantize = data.draw(st.sampled_from(list(TOLERANCE)), "quantize")
    path = tmp_path / "model.tflite"
    keras_iss.export_tflite(
        model,
        path,
        batch_size=batch,
        quantize=quantize,
        streaming=streaming,
        verify=False,
    )
    assert not _flatbuffer.foreign(path.read_bytes())
    lengths = data.draw(
        st.lists(st.integers(1, 40), min_size=2, max_size=2), "lengths"
    )
    for length in [time] if time else lengths:
        rng = np.random.default_rng(length)
        shape = (batch or data.draw(st.integers(1, 4)), length)
        x = rng.normal(size=(*shape, FEATURES)).astype("float32")
        x[rng.random(shape) < 0.3] = 0
        wanted = keras.ops.convert_to_numpy(model(x))
        calls = [("serve", {"sequence": x})]
        if streaming:
            steps = [{"sequence": x[:, t : t + 1]} for t in range(length)]
            calls.append(("step", steps))
        results = lite(path, calls)
        error = relative_error(results[0]["out"], wanted)
        assert error < TOLERANCE[quantize]
        if streaming:
            parts = [step["out"] for step in results[1]]
            whole = parts[-1]
            if whole.ndim == 3:
                whole = np.concatenate(parts, axis=1)
            assert relative_error(whole, wanted) < TOLERANCE[quantize]
