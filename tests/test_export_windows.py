"""What reads time steps that are yet to come is refused, and says why."""

import keras
import pytest
from keras import layers, ops

import keras_iss

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from keras_iss.export.model import Callable
from keras_iss.export.streaming import StreamingError
from keras_iss.export.windows import Window, windows_of

FEATURES = 6


def sequence():
    return keras.Input((None, FEATURES), name="x")


def shifted(x):
    return ops.concatenate([x[:, 1:], x[:, :1]], axis=1)


CULPRIT = {"name": "culprit"}
# The layer, what the error says, and what it advises.
REFUSED = {
    "same": (
        lambda: layers.Conv1D(4, 3, padding="same", **CULPRIT),
        "`culprit`.*yet to come.*padding=.causal",
    ),
    "valid": (
        lambda: layers.Conv1D(4, 3, **CULPRIT),
        "`culprit`.*yet to come.*padding=.causal",
    ),
    "depthwise": (
        lambda: layers.DepthwiseConv1D(3, padding="same", **CULPRIT),
        "`culprit`.*yet to come.*ZeroPadding1D.*by 2",
    ),
    "separable": (
        lambda: layers.SeparableConv1D(4, 5, **CULPRIT),
        "`culprit`.*yet to come.*ZeroPadding1D.*by 4",
    ),
    "pooling": (
        lambda: layers.MaxPooling1D(3, strides=1, padding="same", **CULPRIT),
        "`culprit`.*yet to come.*ZeroPadding1D.*by 2",
    ),
    "overlapping pooling": (
        lambda: layers.AveragePooling1D(3, strides=2, **CULPRIT),
        "`culprit`.*yet to come",
    ),
    "global": (
        lambda: layers.GlobalAveragePooling1D(**CULPRIT),
        "`culprit`.*pools over all time steps",
    ),
    "cropping": (
        lambda: layers.Cropping1D((0, 2), **CULPRIT),
        "`culprit`.*takes time steps off",
    ),
    "padding behind": (
        lambda: layers.ZeroPadding1D((1, 2), **CULPRIT),
        "`culprit`.*pads the end.*by 3",
    ),
    "transposed": (
        lambda: layers.Conv1DTranspose(4, 3, strides=2, **CULPRIT),
        "`culprit`.*overlaps",
    ),
    "attention": (
        lambda: layers.MultiHeadAttention(2, 3, **CULPRIT),
        "`culprit`.*attends to all",
    ),
    "normalization": (
        lambda: layers.UnitNormalization(axis=1, **CULPRIT),
        "`culprit`.*normalizes over time",
    ),
    "groups": (
        lambda: layers.GroupNormalization(2, **CULPRIT),
        "`culprit`.*mean of all time steps",
    ),
    "backwards": (
        lambda: layers.Bidirectional(layers.GRU(2), **CULPRIT),
        "`culprit`.*needs the whole sequence",
    ),
    "too much padding": (
        lambda: layers.ZeroPadding1D((2, 0)),
        "`model`.*output.*2 time steps more",
    ),
    "flat": (
        lambda: keras.Sequential(
            [layers.Reshape((-1, 3)), layers.Flatten(**CULPRIT)]
        ),
        "`culprit`.*one vector.*TimeDistributed",
    ),
    "shifted": (
        lambda: layers.Lambda(shifted, output_shape=(None, FEATURES)),
        "`model`.*not that of the whole",
    ),
}


def called(layer, x):
    attention = isinstance(layer, layers.MultiHeadAttention)
    return layer(x, x) if attention else layer(x)


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_looks_ahead_is_refused(name, tmp_path):
    make, message = REFUSED[name]
    layer = make()
    x = sequence()
    y = layers.LSTM(FEATURES, return_sequences=True)(x)
    model = keras.Model(x, called(layer, y), name="model")
    with pytest.raises(ValueError, match="cannot stream") as error:
        keras_iss.export_tflite(model, tmp_path / "m.tflite", streaming=True)
    assert error.match(message)
    assert not list(tmp_path.iterdir())


def windows(*inner, frames=1):
    model = keras.Sequential([sequence(), *inner], name="model")
    found = windows_of(Callable(model), [True], 1, frames, set())
    return [x for calls in found.past.values() for x in calls if x]


def test_a_window_reads_the_time_steps_that_the_kernel_spans():
    found = windows(
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
        layers.ZeroPadding1D((2, 0)),
        layers.AveragePooling1D(3, strides=2),
        layers.Conv1D(4, 2, padding="causal"),
        frames=4,
    )
    assert found == [Window(1, 4, 4), Window(1, 4, 2), Window(1, 2, 1)]


def test_a_recurrent_layer_is_not_given_padding():
    with pytest.raises(StreamingError, match="`gru`.*2 time steps more"):
        windows(layers.ZeroPadding1D((2, 0)), layers.GRU(3, name="gru"))


@pytest.mark.parametrize(("frames", "fits"), [(6, True), (4, False)])
def test_a_step_is_a_multiple_of_all_strides(frames, fits):
    inner = [
        layers.Conv1D(4, 2, strides=2, padding="causal"),
        layers.MaxPooling1D(3),
    ]
    if fits:
        assert windows(*inner, frames=frames) == [Window(1, 6, 1)]
        return
    with pytest.raises(StreamingError, match="4 time steps.*streaming=6"):
        windows(*inner, frames=frames)
