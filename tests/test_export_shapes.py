"""What Keras knows of a shape, an export knows, too."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests import export_cases
from tests.export_cases import FEATURES, randomize

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

import tensorflow as tf

from keras_iss.export.lowering import LITERT, TENSORFLOW, UNROLLED, lower
from keras_iss.export.model import Callable, isolated

TARGETS = {"graph": TENSORFLOW, "lite": LITERT, "unrolled": UNROLLED}


def traced_shapes(function, target, batch):
    """Shapes of the outputs of a lowered model, as TensorFlow traces it."""
    fast = function.of_copy(lambda copied: lower(copied, target))
    shapes = {}

    def run(*tensors):
        outputs = fast(tensors)
        shapes.update({k: x.shape.as_list() for k, x in outputs.items()})
        return outputs

    specs = [x.spec((batch, *x.shape[1:])) for x in function.inputs]
    tf.function(run, autograph=False).get_concrete_function(*specs)
    return shapes


# Family, loop, number of time steps and batch size: one step, one chunk and
# several, and an open number.
TRACED = [
    *[
        (export_cases.several, loop, time, batch)
        for loop in TARGETS
        for time, batch in ((1, None), (4, 2))
    ],
    (export_cases.several, "lite", 40, 1),
    (export_cases.several, "graph", None, None),
    (export_cases.several, "lite", None, None),
    (export_cases.recurrent, "lite", 40, 2),
    (export_cases.connected, "lite", 6, 1),
    (export_cases.connected, "graph", 6, None),
    (export_cases.images, "graph", 5, 3),
    (export_cases.embedding, "lite", 5, 3),
]


@pytest.mark.parametrize(("family", "loop", "time", "batch"), TRACED)
def test_every_layer_has_the_shape_that_keras_shows(family, loop, time, batch):
    function = Callable(isolated(export_cases.build(family, None, time)))
    wanted = function.output_shapes(batch)
    got = traced_shapes(function, TARGETS[loop], batch)
    assert set(got) == set(wanted)
    for name, shape in got.items():
        known = wanted[name]["shape"]
        assert len(shape) == len(known), name
        for size, expected in zip(shape, known):
            assert expected in (None, size), name


@keras.saving.register_keras_serializable("keras_iss_tests")
class Decoder(layers.Layer):
    """Loops over the time steps that it sees, and looks at all in each."""

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], shape[-1]))
        self.recurrent = self.add_weight((shape[-1], shape[-1]))

    def call(self, x):
        state, outputs = ops.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            weights = ops.softmax(ops.sum(x * state[:, None], -1), -1)
            seen = ops.sum(x * weights[..., None], 1)
            seen = (seen + x[:, t]) @ self.kernel
            state = ops.tanh(seen + state @ self.recurrent)
            outputs.append(state)
        return ops.stack(outputs, axis=1)


@keras.saving.register_keras_serializable("keras_iss_tests")
class Positions(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight((50, shape[-1]))

    def call(self, x):
        return x + self.table[: x.shape[1]]


@keras.saving.register_keras_serializable("keras_iss_tests")
class Weighted(layers.Layer):
    """A weight for each time step, made when it is built."""

    def build(self, shape):
        self.weight = self.add_weight((shape[1], 1))

    def call(self, x):
        return x * self.weight[None, : x.shape[1]]


def stacked(x):
    cells = [layers.LSTMCell(3), layers.GRUCell(4)]
    return layers.RNN(cells, return_sequences=True, unroll=True)(x)


READERS = {
    "a decoder": lambda x: Decoder()(x),
    "positions": lambda x: Positions()(x),
    "a weight for each step": lambda x: Weighted()(x),
    "unrolled": lambda x: layers.GRU(3, unroll=True)(x),
    "unrolled, both ways": lambda x: layers.Bidirectional(
        layers.LSTM(3, unroll=True)
    )(x),
    "unrolled cells": stacked,
    "a reshape": lambda x: ops.reshape(x, (-1, x.shape[1] * x.shape[2])),
    "flattened": lambda x: layers.Dense(2)(layers.Flatten()(x)),
    "permuted": lambda x: layers.Dense(2)(layers.Permute((2, 1))(x)),
    "several steps in a cell": lambda x: layers.LSTM(3)(
        ops.reshape(x, (-1, x.shape[1] // 2, 2 * x.shape[2]))
    ),
}

# What gives the readers their input.
GIVERS = {
    "lstm": lambda x: layers.LSTM(4, return_sequences=True)(x),
    "masked backwards": lambda x: layers.GRU(
        4, return_sequences=True, go_backwards=True
    )(layers.Masking()(x)),
    "both ways": lambda x: layers.Bidirectional(
        layers.SimpleRNN(2, return_sequences=True)
    )(x),
    "time distributed": lambda x: layers.TimeDistributed(layers.Dense(4))(
        layers.LSTM(3, return_sequences=True)(x)
    ),
}


@pytest.mark.parametrize("giver", GIVERS)
def test_layers_that_read_the_number_of_time_steps(tmp_path, giver):
    x = keras.Input((4, FEATURES), name="x")
    y = GIVERS[giver](x)
    outputs = {name: reader(y) for name, reader in READERS.items()}
    model = randomize(keras.Model(x, outputs))
    for write in (keras_iss.export_tflite, keras_iss.export_saved_model):
        errors = write(model, tmp_path / write.__name__).errors
        assert set(errors) == set(READERS)
        assert max(errors.values()) < 1e-4


@pytest.mark.parametrize("reader", ["a decoder", "positions", "unrolled"])
@pytest.mark.parametrize(
    "options",
    [
        {"recurrent_op": "fused"},
        {"quantize": "int8_full"},
        {"quantize": "int8", "batch_size": None},
    ],
    ids=["fused", "full integers", "int8"],
)
def test_they_do_so_in_every_kind_of_file(tmp_path, reader, options):
    if reader == "unrolled" and "recurrent_op" in options:
        pytest.skip("a GRU is no fused LSTM")
    x = keras.Input((4, FEATURES), name="x")
    y = layers.LSTM(4, return_sequences=True)(x)
    model = randomize(keras.Model(x, READERS[reader](y)))
    if options.get("quantize") == "int8_full":
        data = np.random.default_rng(0).normal(size=(20, 4, FEATURES))
        options = options | {"representative_data": data}
    (error,) = keras_iss.export_tflite(
        model, tmp_path / "a.tflite", **options
    ).errors.values()
    assert error < (0.2 if "quantize" in options else 1e-4)


def test_a_decoder_cannot_stream(tmp_path):
    x = keras.Input((6, FEATURES), name="x")
    y = Decoder()(layers.LSTM(4, return_sequences=True)(x))
    model = randomize(keras.Model(x, y, name="model"))
    with pytest.raises(ValueError, match="`model` cannot stream"):
        keras_iss.export_tflite(model, tmp_path / "a.tflite", streaming=True)
    assert not list(tmp_path.iterdir())
