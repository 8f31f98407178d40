"""Files of steps: states, buffers of convolutions, rates, heads."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests.export_cases import randomize

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from keras_iss.export import flatbuffer, tflm
from keras_iss.runtimes.lite_runner import LiteRunner

FEATURES = 6
STEPS = 24


def input_(steps=None):
    return keras.Input((steps, FEATURES), name="x")


def causal(filters, size, **options):
    return layers.Conv1D(filters, size, padding="causal", **options)


def tcn():
    """Residual blocks of dilated convolutions."""
    x = input_()
    y = layers.Conv1D(8, 1)(x)
    for rate in (1, 2, 4):
        z = causal(8, 3, dilation_rate=rate, activation="relu")(y)
        y = layers.Add()([y, layers.Conv1D(8, 1)(z)])
    return keras.Model(x, layers.Dense(2)(y))


def keyword_spotter():
    x = input_()
    y = causal(8, 3, dilation_rate=2, use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.ReLU()(causal(8, 5, groups=2)(y))
    y = layers.GRU(7)(layers.MaxPooling1D(2)(y))
    return keras.Model(x, layers.Dense(3, activation="softmax")(y))


class InstantNormalization(layers.Layer):
    """DTLN's: over the features of each frame."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], name="gamma")
        self.beta = self.add_weight(shape=shape[-1:], name="beta")

    def call(self, x):
        x = x - ops.mean(x, -1, keepdims=True)
        variance = ops.mean(ops.square(x), -1, keepdims=True)
        return x / ops.sqrt(variance + 1e-7) * self.gamma + self.beta


def second_stage_of_dtln(norm=InstantNormalization):
    x = input_()
    encoded = layers.Conv1D(16, 1, use_bias=False)(x)
    y = norm()(encoded)
    for _ in range(2):
        y = layers.LSTM(12, return_sequences=True)(y)
    mask = layers.Dense(16, activation="sigmoid")(y)
    y = layers.Multiply()([encoded, mask])
    return keras.Model(x, causal(FEATURES, 1, use_bias=False)(y))


def dtln_for_micro():
    return second_stage_of_dtln(layers.LayerNormalization)


def padded_by_hand():
    x = input_()
    y = layers.ZeroPadding1D((4, 0))(x)
    y = layers.DepthwiseConv1D(3, dilation_rate=2)(y)
    y = layers.UnitNormalization()(layers.ZeroPadding1D((4, 0))(y))
    # Of what was padded once, two layers read two time steps each.
    y = layers.Conv1D(4, 3)(layers.AveragePooling1D(3, strides=1)(y))
    return keras.Model(x, layers.LSTM(5, return_sequences=True)(y))


def of_pictures():
    """Convolutions over time and frequency, of a fixed length."""
    x = input_(STEPS)
    y = layers.Reshape((STEPS, FEATURES, 1))(x)
    y = layers.ZeroPadding2D(((2, 0), (1, 1)))(y)
    y = layers.Conv2D(4, 3, strides=(1, 2), activation="relu")(y)
    y = layers.TimeDistributed(layers.Flatten())(y)
    return keras.Model(x, layers.GRU(5)(y))


def two_rates_and_heads():
    x = input_()
    y = causal(8, 4, strides=3)(x)
    y = layers.AveragePooling1D(3, strides=2)(layers.ZeroPadding1D((1, 0))(y))
    y = layers.GRU(5, return_sequences=True)(y)
    return keras.Model(
        x, [layers.Dense(2, name="a")(y), layers.LSTM(3, name="b")(y)]
    )


def down_and_up():
    x = input_()
    y = layers.Conv1D(4, 2, strides=2, padding="same")(x)
    y = layers.GRU(4, return_sequences=True)(layers.Reshape((-1, 8))(y))
    y = layers.Conv1DTranspose(3, 2, strides=2)(layers.UpSampling1D(2)(y))
    return keras.Model(x, layers.Add()([y, layers.Dense(3)(x)]))


def with_an_input_without_time():
    x, speaker = input_(), keras.Input((4,), name="z_speaker")
    y = causal(5, 3)(x)
    y = layers.Add()([y, layers.Reshape((1, 5))(layers.Dense(5)(speaker))])
    y = layers.GRU(4, return_sequences=True)(y)
    outputs = {"a": layers.Dense(2)(y), "b": layers.SimpleRNN(3)(y)}
    return keras.Model([x, speaker], outputs)


def with_masks():
    x = keras.Input((None,), dtype="int32", name="x")
    y = layers.Embedding(9, 5, mask_zero=True)(x)
    y = layers.GRU(4, return_sequences=True)(y)
    z = causal(4, 3)(y)
    y = layers.LSTM(3, return_sequences=True, name="a")(y)
    return keras.Model(x, [y, layers.GRU(4, reset_after=False, name="b")(z)])


def shared_and_nested():
    x = input_()
    shared = causal(FEATURES, 3, activation="tanh")
    inner = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            causal(FEATURES, 2),
            layers.GRU(FEATURES, return_sequences=True),
        ]
    )
    return keras.Model(x, inner(inner(shared(shared(x)))))


def along_the_features():
    """A recurrent layer along the features begins anew in each time step."""
    x = input_(STEPS)
    y = layers.TimeDistributed(layers.Reshape((FEATURES, 1)))(x)
    y = layers.TimeDistributed(
        layers.Bidirectional(layers.GRU(2, return_sequences=True))
    )(y)
    y = layers.ZeroPadding2D(((1, 0), (0, 0)))(y)
    y = layers.Conv2D(2, (2, 1), activation="relu")(y)
    y = layers.Permute((2, 1, 3))(y)
    y = layers.Reshape((FEATURES, -1, 2))(layers.ZeroPadding2D((0, 0))(y))
    y = layers.Reshape((-1, FEATURES * 2))(layers.Permute((2, 1, 3))(y))
    return keras.Model(x, layers.GRU(3)(y))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = causal(4, 3)
        self.recurrent = layers.GRU(4, return_sequences=True)

    def call(self, x):
        return self.recurrent(self.convolution(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, STEPS, FEATURES), "float32"))
    return model


MICRO = {"target": "micro"}
CASES = {
    "tcn": (tcn, {}, 1e-5),
    "tcn int8": (tcn, {"quantize": "int8", "streaming": 3}, 0.1),
    "tcn micro": (tcn, MICRO, 0.1),
    "tcn batch": (tcn, {"batch_size": None, "streaming": 2}, 1e-5),
    "keywords": (keyword_spotter, {"streaming": 2}, 1e-5),
    "keywords 4": (keyword_spotter, {"streaming": 4}, 1e-5),
    "keywords int8": (
        keyword_spotter,
        {"streaming": 2, "quantize": "int8"},
        0.1,
    ),
    "keywords micro": (keyword_spotter, MICRO | {"streaming": 4}, 0.1),
    "dtln": (second_stage_of_dtln, {}, 1e-5),
    "dtln int8": (second_stage_of_dtln, {"quantize": "int8"}, 0.1),
    "dtln fused": (second_stage_of_dtln, {"recurrent_op": "fused"}, 1e-5),
    "dtln micro": (dtln_for_micro, MICRO, 0.2),
    "padded": (padded_by_hand, {}, 1e-5),
    "padded 3": (padded_by_hand, {"streaming": 3}, 1e-5),
    "pictures": (of_pictures, {"streaming": 3}, 1e-5),
    "pictures micro": (of_pictures, MICRO | {"streaming": True}, 0.1),
    "pictures integers": (of_pictures, {"quantize": "int8_full"}, 0.1),
    "rates": (two_rates_and_heads, {"streaming": 6}, 1e-5),
    "rates micro": (two_rates_and_heads, MICRO | {"streaming": 6}, 0.15),
    "down and up": (down_and_up, {"streaming": 4}, 1e-5),
    "inputs": (with_an_input_without_time, {"streaming": 2}, 1e-5),
    "masks": (with_masks, {}, 1e-5),
    "masks 3": (with_masks, {"streaming": 3}, 1e-5),
    "shared": (shared_and_nested, {"streaming": 2}, 1e-5),
    "features": (along_the_features, {"streaming": 2}, 1e-5),
    "subclassed": (subclassed, {"streaming": 8}, 1e-5),
}


def data_of(model, batch):
    random = np.random.default_rng(1)
    arrays = []
    for x in model.inputs if isinstance(model, keras.Model) else ():
        shape = (batch, *[STEPS if n is None else n for n in x.shape[1:]])
        if x.dtype == "int32":
            arrays.append(random.integers(0, 9, shape).astype("int32"))
        else:
            arrays.append(random.normal(size=shape).astype("float32"))
    return arrays


@pytest.mark.parametrize("name", CASES)
def test_step_after_step_is_the_whole(name, tmp_path):
    build, options, bound = CASES[name]
    options = {"streaming": True, "step_only": True} | options
    if options.get("target") == "micro":
        del options["step_only"]
    model = randomize(build())
    batch = 3 if "batch_size" in options else 1
    arrays = (
        [data_of(tcn(), batch)[0]]
        if build is subclassed
        else data_of(model, batch)
    )
    if "int8_full" in options.values() or "target" in options:
        options["representative_data"] = data_of(model, 20)
    path = tmp_path / "steps.tflite"
    # What runs the file here is not what verifies it, but for integers in
    # TensorFlow Lite Micro.
    done = keras_iss.export_tflite(
        model, path, verify="target" in options, **options
    )
    runner = LiteRunner(path)
    frames = int(options["streaming"])
    assert runner.frames == frames
    assert runner.inputs[0].shape[1] is None
    wanted = dict(zip(done_names(path), flat_outputs(model, arrays)))
    for got in (runner.run(arrays), runner.run(arrays)):
        assert got.keys() == wanted.keys()
        for output, value in wanted.items():
            assert got[output].shape == value.shape
            error = np.sqrt(np.mean((got[output] - value) ** 2))
            assert error <= bound * np.sqrt(np.mean(value**2)), output
    if done.micro and tflm.can_run():
        assert done.micro.step and done.micro.arena
        states = [x for x in done.micro.inputs if x.state]
        same = {x.name: x for x in done.micro.outputs if x.state}
        for x in states:
            assert same[x.name].scale == x.scale
            assert same[x.name].zero_point == x.zero_point


def done_names(path):
    return list(flatbuffer.metadata(path.read_bytes())["outputs"])


def flat_outputs(model, arrays):
    given = arrays if len(arrays) > 1 else arrays[0]
    return map(np.array, keras.tree.flatten(model(given)))


def test_a_file_of_the_step_alone_is_smaller(tmp_path):
    x = input_()
    model = keras.Model(x, layers.GRU(4)(causal(4, 3)(x)))
    sizes = [
        keras_iss.export_tflite(
            model,
            tmp_path / "model.tflite",
            streaming=True,
            step_only=alone,
            verify=False,
        ).size
        for alone in (False, True)
    ]
    assert sizes[1] < 0.7 * sizes[0]


def test_states_of_a_convolution_are_named_and_have_its_last_inputs(tmp_path):
    model = keras.Sequential(
        [input_(), causal(4, 3, dilation_rate=2, name="convolution")]
    )
    path = tmp_path / "model.tflite"
    keras_iss.export_tflite(
        model, path, streaming=True, step_only=True, verify=False
    )
    found = flatbuffer.metadata(path.read_bytes())
    assert found["states"] == {
        "convolution_state_0": {"shape": [1, 4, FEATURES], "dtype": "float32"}
    }
    assert found["step"] == {
        "frames": 1,
        "inputs": ["x"],
        "outputs": ["convolution"],
    }


def test_sequences_that_fill_no_step_are_refused(tmp_path):
    model = randomize(keras.Sequential([input_(), causal(4, 3)]))
    path = tmp_path / "model.tflite"
    options = {"streaming": 5, "step_only": True}
    short = np.zeros((1, 4, FEATURES), "float32")
    with pytest.raises(ValueError, match="`data` has 4 time steps at .*`x`"):
        keras_iss.export_tflite(model, path, data=short, **options)
    assert not path.exists()
    # The rest of it fills no step.
    data = np.random.default_rng(0).normal(size=(2, 13, FEATURES))
    done = keras_iss.export_tflite(model, path, data=data, **options)
    assert max(done.errors.values()) < 1e-5
    with pytest.raises(ValueError, match="takes 5 time steps.* have 13"):
        LiteRunner(path).run([data.astype("float32")])


def test_a_state_that_is_an_output_too_has_both_names(tmp_path):
    data = np.random.default_rng(0).normal(size=(20, 8, FEATURES))
    x = input_(8)
    model = randomize(keras.Model(x, layers.GRU(4, name="last")(x)))
    path = tmp_path / "model.tflite"
    done = keras_iss.export_tflite(
        model, path, target="micro", representative_data=data, verify=False
    )
    names = {x.name for x in done.micro.outputs}
    assert names == {"last", "last_state_0"}
    got = LiteRunner(path).run([data[:1].astype("float32")])["last"]
    np.testing.assert_allclose(got, model(data[:1]), atol=0.1)
