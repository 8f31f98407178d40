"""ONNX files compute what their models compute, with any batch and time."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from keras_iss.export.onnx import registry
from tests import export_cases
from tests.export_cases import randomize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.on_torch

FEATURES = 5


def floats(time=None, features=FEATURES, name="x"):
    return keras.Input((time, features), name=name)


def words(time=None, name="t"):
    return keras.Input((time,), dtype="int32", name=name)


def exported(tmp_path, inputs, outputs, **options):
    model = randomize(keras.Model(inputs, outputs))
    return keras_iss.export_onnx(model, tmp_path / "model.onnx", **options)


def masked(x):
    """The inputs, of which a third of the steps is masked, anywhere."""
    return layers.Masking()(x)


# Recurrent layers: of a layer, and what ONNX is to run it with.

RECURRENT = {
    "lstm": (lambda: layers.LSTM(4), "LSTM"),
    "lstm sequences": (lambda: layers.LSTM(4, return_sequences=True), "LSTM"),
    "lstm no bias": (lambda: layers.LSTM(4, use_bias=False), "LSTM"),
    "lstm backwards": (
        lambda: layers.LSTM(4, go_backwards=True, return_sequences=True),
        "LSTM",
    ),
    "lstm backwards last": (lambda: layers.LSTM(4, go_backwards=True), "LSTM"),
    "lstm relu": (
        lambda: layers.LSTM(
            4, activation="relu", recurrent_activation="hard_sigmoid"
        ),
        "LSTM",
    ),
    "lstm linear": (lambda: layers.LSTM(4, activation=None), "LSTM"),
    "lstm selu": (lambda: layers.LSTM(4, activation="selu"), "Scan"),
    "lstm zeros for masked": (
        lambda: layers.LSTM(
            4, return_sequences=True, zero_output_for_mask=True
        ),
        "LSTM",
    ),
    "gru": (lambda: layers.GRU(4, return_sequences=True), "GRU"),
    "gru reset before": (
        lambda: layers.GRU(4, reset_after=False, return_sequences=True),
        "GRU",
    ),
    "gru no bias": (lambda: layers.GRU(4, use_bias=False), "GRU"),
    "gru reset before no bias": (
        lambda: layers.GRU(4, use_bias=False, reset_after=False),
        "GRU",
    ),
    "gru softsign": (
        lambda: layers.GRU(4, activation="softsign", go_backwards=True),
        "GRU",
    ),
    "rnn": (lambda: layers.SimpleRNN(4, return_sequences=True), "RNN"),
    "rnn relu": (lambda: layers.SimpleRNN(4, activation="relu"), "RNN"),
    "rnn sigmoid": (lambda: layers.SimpleRNN(4, activation="sigmoid"), "RNN"),
    "rnn elu": (lambda: layers.SimpleRNN(4, activation="elu"), "RNN"),
    "rnn leaky": (lambda: layers.SimpleRNN(4, activation="leaky_relu"), "RNN"),
    "rnn softplus": (
        lambda: layers.SimpleRNN(4, activation="softplus"),
        "Scan",
    ),
    "rnn gelu": (
        lambda: layers.SimpleRNN(
            4, activation="gelu", return_sequences=True, go_backwards=True
        ),
        "Scan",
    ),
    "rnn of a cell": (
        lambda: layers.RNN(layers.LSTMCell(4), return_sequences=True),
        "LSTM",
    ),
    "rnn of a cell, zeros for masked": (
        lambda: layers.RNN(
            layers.GRUCell(4), go_backwards=True, zero_output_for_mask=True
        ),
        "GRU",
    ),
    "stacked cells": (
        lambda: layers.RNN(
            [layers.LSTMCell(4), layers.GRUCell(3), layers.SimpleRNNCell(2)],
            return_sequences=True,
        ),
        "LSTM GRU RNN",
    ),
    "stacked cells backwards": (
        lambda: layers.RNN(
            [layers.LSTMCell(4), layers.GRUCell(3)],
            go_backwards=True,
            return_sequences=True,
        ),
        "LSTM GRU",
    ),
    "highway": (lambda: keras_iss.layers.RHN(4, depth=2), "Scan"),
    "highway sequences": (
        lambda: keras_iss.layers.RHN(
            4, depth=2, return_sequences=True, go_backwards=True
        ),
        "Scan",
    ),
    "both ways": (
        lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        "LSTM",
    ),
    "both ways last": (lambda: layers.Bidirectional(layers.GRU(4)), "GRU"),
    "both ways summed": (
        lambda: layers.Bidirectional(
            layers.SimpleRNN(4, return_sequences=True), merge_mode="sum"
        ),
        "RNN",
    ),
    "both ways averaged": (
        lambda: layers.Bidirectional(
            layers.GRU(4, reset_after=False), merge_mode="ave"
        ),
        "GRU",
    ),
    "both ways multiplied": (
        lambda: layers.Bidirectional(
            layers.LSTM(4, activation="relu"), merge_mode="mul"
        ),
        "LSTM",
    ),
    "both ways unequal": (
        lambda: layers.Bidirectional(
            layers.LSTM(4, return_sequences=True),
            merge_mode="sum",
            backward_layer=layers.GRU(
                4, return_sequences=True, go_backwards=True
            ),
        ),
        "LSTM GRU",
    ),
    "both ways, backwards first": (
        lambda: layers.Bidirectional(
            layers.LSTM(4, return_sequences=True, go_backwards=True),
            backward_layer=layers.LSTM(4, return_sequences=True),
        ),
        "LSTM LSTM",
    ),
    "both ways, zeros for masked": (
        lambda: layers.Bidirectional(
            layers.LSTM(4, return_sequences=True, zero_output_for_mask=True)
        ),
        "LSTM",
    ),
    "both ways highway": (
        lambda: layers.Bidirectional(
            keras_iss.layers.RHN(4, depth=2, return_sequences=True)
        ),
        "Scan Scan",
    ),
}
REAL = ("LSTM", "GRU", "RNN", "Scan")


@pytest.mark.parametrize("with_mask", [False, True], ids=["", "masked"])
def test_recurrent_layers_are_operators(with_mask, tmp_path):
    x = floats()
    read = masked(x) if with_mask else x
    made = {name: build() for name, (build, _) in RECURRENT.items()}
    ys = {name: layer(read) for name, layer in made.items()}
    done = exported(tmp_path, x, ys)
    assert max(done.errors.values()) < 2e-6
    for name, (_, expected) in RECURRENT.items():
        found = operators_of(done.path, made[name].name)
        assert sorted(found) == sorted(expected.split()), name


def operators_of(path, layer):
    """The recurrent operators that a layer has been written as."""
    nodes = onnx.load(path).graph.node
    return [
        node.op_type
        for node in nodes
        if node.op_type in REAL and layer in node.name.split("/")
    ]


def test_states_go_in_and_out(tmp_path):
    x, other = floats(name="x"), floats(4, name="other")
    h, c = keras.Input((4,), name="h"), keras.Input((4,), name="c")
    encoder = layers.LSTM(4, return_state=True, return_sequences=True)
    y, *states = encoder(masked(x), initial_state=[h, c])
    z = layers.LSTM(4, return_sequences=True)(other, initial_state=states)
    g, state = layers.GRU(4, return_state=True)(other, initial_state=c)
    w, *both = layers.Bidirectional(layers.GRU(4, return_state=True))(
        masked(x), initial_state=[h, state]
    )
    done = exported(
        tmp_path, [x, other, h, c], [y, *states, z, g, state, w, *both]
    )
    assert len(done.errors) == 9
    assert max(done.errors.values()) < 2e-6


def test_states_of_stacked_cells(tmp_path):
    x, h = floats(), keras.Input((3,), name="h")
    rnn = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_state=True)
    y, first, second = rnn(masked(x))
    again = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)])
    z = again(x, initial_state=[first, h])
    done = exported(tmp_path, [x, h], [y, *first, second, z])
    assert max(done.errors.values()) < 2e-6


# Other layers.


class Scaled(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.scale * x - (self.scale + 1) / (1 + x * x)


LAYERS = {
    "dense": lambda x: layers.Dense(3, activation="relu")(x),
    "einsum dense": lambda x: layers.EinsumDense(
        "abc,cd->abd", (None, 3), bias_axes="d"
    )(x),
    "conv": lambda x: layers.Conv1D(3, 3, activation="relu")(x),
    "conv causal": lambda x: layers.Conv1D(
        3, 3, padding="causal", dilation_rate=2
    )(x),
    "conv same": lambda x: layers.Conv1D(3, 4, padding="same")(x),
    "conv same strides": lambda x: layers.Conv1D(
        3, 3, padding="same", strides=2
    )(x),
    "conv dilated": lambda x: layers.Conv1D(
        3, 3, padding="same", dilation_rate=3
    )(x),
    "conv groups": lambda x: layers.Conv1D(4, 2, groups=2)(layers.Dense(6)(x)),
    "conv transpose": lambda x: layers.Conv1DTranspose(
        3, 3, strides=2, padding="same"
    )(x),
    "conv transpose valid": lambda x: layers.Conv1DTranspose(3, 2, strides=3)(
        x
    ),
    "depthwise": lambda x: layers.DepthwiseConv1D(
        3, depth_multiplier=2, padding="same"
    )(x),
    "separable": lambda x: layers.SeparableConv1D(
        4, 3, strides=2, padding="same"
    )(x),
    "conv 2d": lambda x: layers.Conv2D(3, 3, padding="same")(
        layers.Reshape((-1, FEATURES, 1))(x)
    ),
    "max pool": lambda x: layers.MaxPooling1D(2, padding="same")(x),
    "average pool": lambda x: layers.AveragePooling1D(3, 1, padding="same")(x),
    "average pool even": lambda x: layers.AveragePooling1D(
        2, 1, padding="same"
    )(x),
    "global average": lambda x: layers.GlobalAveragePooling1D()(x),
    "global average masked": lambda x: layers.GlobalAveragePooling1D()(
        masked(x)
    ),
    "global max": lambda x: layers.GlobalMaxPooling1D(keepdims=True)(x),
    "batch norm": lambda x: layers.BatchNormalization()(x),
    "batch norm axis": lambda x: layers.BatchNormalization(axis=1, scale=False)(
        layers.Permute((2, 1))(x)
    ),
    "layer norm": lambda x: layers.LayerNormalization()(x),
    "layer norm bare": lambda x: layers.LayerNormalization(
        scale=False, center=False
    )(x),
    "group norm": lambda x: layers.GroupNormalization(1)(x),
    "unit norm": lambda x: layers.UnitNormalization()(x),
    "dropouts": lambda x: layers.SpatialDropout1D(0.5)(
        layers.GaussianNoise(0.5)(layers.Dropout(0.5)(x))
    ),
    "relu bounded": lambda x: layers.ReLU(2.0, 0.3, 0.5)(x),
    "leaky relu": lambda x: layers.LeakyReLU()(x),
    "prelu": lambda x: layers.PReLU(shared_axes=[1])(x),
    "elu": lambda x: layers.ELU()(x),
    "softmax": lambda x: layers.Softmax()(x),
    "padding": lambda x: layers.ZeroPadding1D((1, 2))(x),
    "cropping": lambda x: layers.Cropping1D((1, 0))(layers.ZeroPadding1D(2)(x)),
    "upsampling": lambda x: layers.UpSampling1D(2)(x),
    "rescaling": lambda x: layers.Rescaling(2.0, offset=1.0)(x),
    "normalization": lambda x: layers.Normalization(
        mean=[1.0] * FEATURES, variance=[2.0] * FEATURES
    )(x),
    "merges": lambda x: layers.Concatenate()(
        [
            layers.Add()([x, x]),
            layers.Average()([x, layers.Dense(FEATURES)(x)]),
            layers.Maximum()([x, layers.Dense(FEATURES)(x)]),
            layers.Subtract()([x, layers.Dense(FEATURES)(x)]),
            layers.Multiply()([x, x]),
        ]
    ),
    "dot": lambda x: layers.Dot((2, 2), normalize=True)([x, x]),
    "attention": lambda x: layers.Attention()([masked(x), masked(x)]),
    "additive attention": lambda x: layers.AdditiveAttention()([x, masked(x)]),
    "multi-head attention": lambda x: layers.MultiHeadAttention(2, 3)(x, x),
    "multi-head attention masked": lambda x: layers.LSTM(4)(
        layers.MultiHeadAttention(2, 3)(masked(x), x, use_causal_mask=True)
    ),
    "attention by sums": lambda x: layers.Attention(
        use_scale=True, score_mode="concat"
    )([x, x]),
    "cell with dropout": lambda x: keras_iss.layers.RHN(
        3, depth=2, dropout=0.2, recurrent_dropout=0.2
    )(x),
    "cell with dropout that no operator runs": lambda x: layers.SimpleRNN(
        3, activation="silu", dropout=0.2, recurrent_dropout=0.2
    )(x),
    "variable first": lambda x: Scaled()(x),
    "attention causal": lambda x: layers.Attention()(
        [x, masked(x)], use_causal_mask=True
    ),
    "grouped queries": lambda x: layers.GroupQueryAttention(3, 4, 2)(
        x, x, use_causal_mask=True
    ),
    "reshape": lambda x: layers.Reshape((-1, 2))(layers.Dense(4)(x)),
    "flatten": lambda x: layers.Flatten()(layers.LSTM(4)(x)),
    "repeat": lambda x: layers.RepeatVector(3)(layers.LSTM(4)(x)),
    "permute": lambda x: layers.Permute((2, 1))(x),
    "time distributed": lambda x: layers.TimeDistributed(layers.Dense(3))(x),
    "time distributed model": lambda x: layers.TimeDistributed(
        keras.Sequential([layers.Dense(3), layers.Dense(2)])
    )(x),
    "time distributed masked": lambda x: layers.LSTM(4)(
        layers.TimeDistributed(layers.Dense(3))(masked(x))
    ),
    "mask through layers": lambda x: layers.LSTM(4)(
        layers.Dropout(0.1)(
            layers.Dense(3, activation="tanh")(
                layers.LSTM(4, return_sequences=True)(masked(x))
            )
        )
    ),
    "lambda": lambda x: layers.Lambda(lambda y: y[:, -1] * 2)(x),
    "spectral": lambda x: layers.SpectralNormalization(layers.Dense(3))(x),
}


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
def test_other_layers(tmp_path):
    x = floats()
    ys = {name: build(x) for name, build in LAYERS.items()}
    done = exported(tmp_path, x, ys)
    assert max(done.errors.values()) < 1e-5


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
@pytest.mark.parametrize("family", export_cases.FAMILIES)
def test_layers_of_all_kinds(family, tmp_path):
    model = export_cases.build(family)
    done = keras_iss.export_onnx(model, tmp_path / "model.onnx")
    assert len(done.errors) == len(model.outputs)
    assert max(done.errors.values()) < 1e-5


ACTIVATIONS = """celu elu exponential gelu hard_shrink hard_sigmoid hard_silu
hard_tanh leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid
silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid squareplus
tanh tanh_shrink glu""".split()


def test_activations(tmp_path):
    x = floats()
    ys = []
    for name in ACTIVATIONS:
        if hasattr(keras.activations, name):
            y = layers.Dense(4)(x)
            ys.append(layers.Activation(name, name=name)(y))
    done = exported(tmp_path, x, ys)
    assert max(done.errors.values()) < 1e-5


# Models as they are published.


def test_a_language_model(tmp_path):
    t = words()
    x = layers.Embedding(30, 6)(t)
    for _ in range(2):
        x = layers.Dropout(0.3)(layers.LSTM(6, return_sequences=True)(x))
    logits = layers.Dense(30, name="logits")(x)
    done = exported(tmp_path, t, logits)
    assert done.operators["LSTM"] == 2
    assert list(done.errors) == ["logits"]


def test_a_tagger_of_masked_words(tmp_path):
    t = words()
    x = layers.Embedding(30, 6, mask_zero=True)(t)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    y = layers.TimeDistributed(layers.Dense(7, activation="softmax"))(x)
    done = exported(tmp_path, t, y)
    assert done.operators["LSTM"] == done.operators["GRU"] == 1
    assert "Scan" not in done.operators


def test_a_translation_with_states(tmp_path):
    source, target = words(name="source"), words(name="target")
    x = layers.Embedding(20, 5, mask_zero=True)(source)
    _, *states = layers.LSTM(6, return_state=True)(x)
    y = layers.Embedding(25, 5)(target)
    y = layers.LSTM(6, return_sequences=True)(y, initial_state=states)
    done = exported(tmp_path, [source, target], layers.Dense(25)(y))
    assert done.operators["LSTM"] == 2


def test_a_keyword_spotter(tmp_path):
    x = keras.Input((None, 8, 1), name="spectrogram")
    y = layers.Conv2D(4, (5, 3), strides=(2, 1), padding="same")(x)
    y = layers.BatchNormalization()(y)
    y = layers.ReLU()(y)
    y = layers.TimeDistributed(layers.Flatten())(y)
    y = layers.Bidirectional(layers.GRU(5))(y)
    exported(tmp_path, x, layers.Dense(3, activation="softmax")(y))


def test_an_autoencoder(tmp_path):
    x = keras.Input((6, 2), name="x")
    y = layers.LSTM(5)(x)
    y = layers.RepeatVector(6)(y)
    y = layers.LSTM(5, return_sequences=True)(y)
    exported(tmp_path, x, layers.TimeDistributed(layers.Dense(2))(y))


# What is refused, and what stays.


class Doubled(layers.Layer):
    """A layer that computes with NumPy, which no graph shows."""

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            return np.asarray(x)
        return 2 * x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.fixture
def registered():
    before = dict(registry.LAYERS)
    yield
    registry.LAYERS.clear()
    registry.LAYERS.update(before)


def test_a_layer_of_ones_own_joins(tmp_path, registered):
    x = floats()
    model = keras.Model(x, Doubled(name="twice")(layers.LSTM(3)(x)))
    with pytest.raises(ValueError, match="`twice` of.*register_onnx_lowering"):
        keras_iss.export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())

    @keras_iss.export.register_onnx_lowering(Doubled)
    def doubled(lowering, x):
        return lowering.node("Add", [x, x])

    done = keras_iss.export_onnx(model, tmp_path / "model.onnx")
    assert done.operators["Add"] == 1


def test_a_wrong_lowering_is_found(tmp_path, registered):
    keras_iss.export.register_onnx_lowering(Doubled)(lambda lowering, x: x)
    x = floats()
    model = keras.Model(x, Doubled()(x))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="differs in ONNX Runtime by"):
        keras_iss.export_onnx(model, path)
    assert path.read_bytes() == b"old"
    keras_iss.export_onnx(model, path, verify=False)


class Counted(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return x


class Noisy(layers.Layer):
    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal((1, FEATURES), seed=self.generator)


REFUSED = {
    "stateful": (
        lambda x: layers.LSTM(3, stateful=True)(x),
        "is stateful.*stateful=False",
    ),
    "changes": (lambda x: Counted()(x), "changes variables"),
    "random": (lambda x: Noisy()(x), "changes variables"),
    "size": (
        lambda x: layers.Lambda(lambda y: ops.zeros((ops.shape(y)[1], 2)))(x),
        "cannot be followed",
    ),
    "operation": (
        lambda x: ops.median(x),
        "`median\\w*` of .*Median.*no entry.*layer of your own",
    ),
    "float64": (lambda x: layers.Dense(2, dtype="float64")(x), "float64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_refused(name, tmp_path):
    build, message = REFUSED[name]
    x = keras.Input((None, FEATURES), batch_size=2)
    with pytest.raises(ValueError, match=message):
        exported(tmp_path, x, build(x))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [17, 1000, True, "18"])
def test_an_opset_that_is_not_there_is_refused(opset, tmp_path):
    x = floats()
    with pytest.raises((ValueError, TypeError), match="opset"):
        exported(tmp_path, x, layers.LSTM(3)(x), opset=opset)


def test_the_newest_opset(tmp_path):
    x = floats()
    y = layers.LayerNormalization()(
        layers.MultiHeadAttention(2, 3)(x, layers.GRU(3, return_sequences=1)(x))
    )
    opset = min(onnx.defs.onnx_opset_version(), 22)
    done = exported(tmp_path, x, y, opset=opset)
    (imported,) = onnx.load(done.path).opset_import
    assert imported.version == opset


def test_the_model_stays_as_it_was(tmp_path):
    x = floats()
    layer = layers.LSTM(3)
    model = randomize(keras.Model(x, layer(x)))
    weights = [np.array(w) for w in model.get_weights()]
    before = dict(vars(layer)), len(layer._inbound_nodes)
    name = layers.Dense(1).name
    keras_iss.export_onnx(model, tmp_path / "model.onnx")
    assert (dict(vars(layer)), len(layer._inbound_nodes)) == before
    for old, new in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    # Names are counted on from where they were.
    number = int(name.rpartition("_")[2]) if "_" in name else 0
    assert layers.Dense(1).name == f"dense_{number + 1}"


def test_names_of_inputs_and_outputs(tmp_path):
    a, b = floats(name="1 x"), keras.Input((3,), name="self")
    y = layers.LSTM(3, name="y")(a)
    done = exported(tmp_path, {"b": b, "a": a}, [y, b, y])
    session = onnxruntime.InferenceSession(done.path)
    assert [x.name for x in session.get_inputs()] == ["input_1_x", "input_self"]
    outputs = [x.name for x in session.get_outputs()]
    assert outputs == list(done.errors) and len(outputs) == 3


class Tagger(keras.Model):
    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(9, 4, mask_zero=True)
        self.lstm = layers.LSTM(3, return_sequences=True)
        self.dropout = layers.Dropout(0.5)

    def call(self, words, training=None):
        x = self.dropout(self.lstm(self.table(words)), training=training)
        return {"each": x, "mean": ops.mean(x, axis=1)}


def test_a_subclassed_model(tmp_path):
    model = Tagger()
    model(np.ones((2, 5), "int32"))
    done = keras_iss.export_onnx(randomize(model), tmp_path / "model.onnx")
    assert list(done.errors) == ["each", "mean"]
    assert done.operators["LSTM"] == 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_computes_in_float32(policy, tmp_path):
    x = floats()
    y = layers.LSTM(4, return_sequences=True, dtype=policy)(x)
    y = layers.Bidirectional(layers.GRU(3, dtype=policy), dtype=policy)(y)
    done = exported(tmp_path, x, layers.Dense(2, dtype=policy)(y))
    assert max(done.errors.values()) < 1e-5
    (output,) = onnxruntime.InferenceSession(done.path).get_outputs()
    assert output.type == "tensor(float)"


def test_types_of_numbers(tmp_path):
    a = keras.Input((4,), dtype="uint8", name="a")
    b = keras.Input((4,), dtype="bool", name="b")
    c = keras.Input((4,), dtype="int64", name="c")
    outputs = [
        ops.add(a, a),
        ops.logical_not(b),
        ops.add(c, 1),
        ops.cast(a, "float32") / 255,
        ops.multiply(c, a),
        ops.where(b, c, 0),
        ops.mean(c, axis=-1),
        ops.max(a, axis=1),
        ops.any(b),
        c // 3,
        ops.mod(c, 3),
        a < 3,
    ]
    done = exported(tmp_path, [a, b, c], outputs)
    assert max(done.errors.values()) == 0


def test_data_to_verify_on(tmp_path):
    x = floats()
    y = layers.LSTM(3)(x)
    data = np.random.default_rng(0).normal(size=(5, 9, FEATURES))
    done = exported(tmp_path, x, y, data=data)
    assert done.errors
    with pytest.raises(ValueError, match="`data` for `x` has the shape"):
        exported(tmp_path, x, y, data=data[..., :2])


def test_other_functions_take_the_file(tmp_path):
    t = words()
    y = layers.LSTM(4)(layers.Embedding(9, 3)(t))
    model = randomize(keras.Model(t, layers.Dense(3, name="kind")(y)))
    path = tmp_path / "model.onnx"
    keras_iss.export_onnx(model, path)
    x = np.random.default_rng(0).integers(0, 9, (6, 7)).astype("int32")
    assert keras_iss.compare(model, path, x).outputs["kind"].largest < 1e-5
    assert keras_iss.benchmark(path, x[:1], seconds=0.01)


def test_weights_are_in_the_file_once(tmp_path):
    t, u = words(name="t"), words(name="u")
    table, lstm = layers.Embedding(50, 8), layers.LSTM(8, return_sequences=True)

    def score(z):
        return ops.matmul(z, ops.transpose(table.embeddings))

    ys = [layers.Lambda(score)(lstm(table(x))) for x in (t, u)]
    done = exported(tmp_path, [t, u], ys)
    assert done.operators["LSTM"] == 2
    assert sum(x.shape in ((50, 8), (8, 50)) for x in done.weights) == 1
    assert sum(x.name.endswith("/W") for x in done.weights) == 1


def test_convolutions_hold_constants(tmp_path):
    x = floats()
    y = layers.BatchNormalization()(layers.SeparableConv1D(4, 3)(x))
    done = exported(tmp_path, x, y)
    # Four around the two convolutions; of their kernels, none.
    assert done.operators["Transpose"] == 4
    assert done.operators["Mul"] == 1 and "Sqrt" not in done.operators


OPERATIONS = {
    "abs": lambda x: ops.abs(x),
    "all": lambda x: ops.all(x > 0, axis=-1),
    "amax": lambda x: ops.amax(x, axis=(1, 2)),
    "arccos": lambda x: ops.arccos(ops.tanh(x)),
    "argmax": lambda x: ops.argmax(x, axis=-1, keepdims=True),
    "argsort": lambda x: ops.argsort(x, axis=-1),
    "average": lambda x: ops.average(x, axis=-1, weights=ops.exp(x)),
    "broadcast": lambda x: layers.Lambda(
        lambda y: ops.broadcast_to(y[:, :1, :], (ops.shape(y)[0], 3, FEATURES))
    )(x),
    "cbrt": lambda x: ops.cbrt(x),
    "clip": lambda x: ops.clip(x, -0.5, 0.5),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "diff": lambda x: ops.diff(x, axis=-1),
    "divide": lambda x: ops.divide_no_nan(x, ops.relu(x)),
    "dot": lambda x: ops.dot(x, np.ones((FEATURES, 2), "float32")),
    "einsum": lambda x: ops.einsum("btf,bsf->bts", x, x),
    "expm1": lambda x: ops.expm1(x),
    "flip": lambda x: ops.flip(x, axis=1),
    "floor": lambda x: x // 0.3 + x % 0.3,
    "hypot": lambda x: ops.hypot(x, 2.0 * x),
    "isin": lambda x: ops.isfinite(x),
    "items": lambda x: x[:, ::2, None, 1:-1],
    "item": lambda x: x[:, -1, ..., 2],
    "log": lambda x: ops.log1p(ops.log2(ops.abs(x) + 2)),
    "logaddexp": lambda x: ops.logaddexp(x, 0.5 * x),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1),
    "maximum": lambda x: ops.maximum(ops.minimum(x, 0.3), -0.3),
    "moments": lambda x: ops.concatenate(ops.moments(x, axes=-1), axis=-1),
    "moveaxis": lambda x: ops.moveaxis(x, -1, 1),
    "nan": lambda x: ops.nan_to_num(ops.sqrt(x)),
    "norm": lambda x: ops.norm(x, axis=-1),
    "normalize": lambda x: ops.normalize(x),
    "one hot": lambda x: ops.one_hot(ops.cast(ops.clip(x, 0, 1), "int32"), 3),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=2.0),
    "power": lambda x: ops.power(ops.abs(x), 1.5),
    "prod": lambda x: ops.prod(x, axis=-1),
    "ptp": lambda x: ops.ptp(x, axis=-1) if hasattr(ops, "ptp") else x,
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "roll": lambda x: ops.roll(x, 1, axis=-1),
    "round": lambda x: ops.round(x * 3),
    "sort": lambda x: ops.sort(x, axis=-1),
    "split": lambda x: ops.split(x, [1, 3], axis=-1)[1],
    "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 2), 2),
    "stack": lambda x: ops.stack([x, x], axis=-1),
    "std": lambda x: ops.std(x, axis=1, keepdims=True),
    "swap": lambda x: ops.swapaxes(x, 1, 2),
    "take": lambda x: ops.take(x, [0, 2], axis=-1),
    "take along": lambda x: ops.take_along_axis(
        x, ops.argmax(x, axis=-1, keepdims=True), axis=-1
    ),
    "tensordot": lambda x: ops.tensordot(
        x, np.ones((FEATURES, 2), "float32"), axes=1
    ),
    "tile": lambda x: ops.tile(x, (1, 1, 2)),
    "top k": lambda x: ops.top_k(x, 2)[0],
    "tril": lambda x: ops.tril(ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
    "unstack": lambda x: ops.unstack(x, axis=-1)[1],
    "where": lambda x: ops.where(ops.logical_and(x > 0, x < 1), x, -1.0),
    "zeros": lambda x: ops.zeros_like(x) + ops.ones_like(x, dtype="int32"),
}


def test_operations(tmp_path):
    x = floats()
    ys = {name: build(x) for name, build in OPERATIONS.items()}
    done = exported(tmp_path, x, ys)
    assert max(done.errors.values()) < 1e-5
