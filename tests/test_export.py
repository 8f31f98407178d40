"""Files that compute what the model computes, where nothing else is."""

import contextlib
import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests import export_cases
from tests.export_cases import FEATURES, Cell, data_for, randomize

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from keras_iss.export import flatbuffer, judge

TOLERANCE = 1e-4


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


def attributes(model):
    """The names of what each layer has, without what Keras adds lazily."""
    return [
        {name for name in vars(layer) if not name.endswith("dropout_mask")}
        for layer in model._flatten_layers()
    ]


def export(model, path, **options):
    """An export that is checked for what must hold of every one."""
    before, state = attributes(model), values(model)
    done = keras_iss.export_tflite(model, path, **options)
    content = path.read_bytes()
    assert done.path == path and done.size == len(content)
    assert done.operators == flatbuffer.operators(content)
    assert_builtin(content)
    assert attributes(model) == before
    assert_equal(values(model), state)
    assert [x.name for x in path.parent.iterdir()] == [path.name]
    return done


def assert_builtin(content):
    """Neither we nor the schema itself find an operation not built in."""
    assert not flatbuffer.foreign(content)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for code in model.operatorCodes:
        assert code.customCode is None
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        assert kind != schema.BuiltinOperator.CUSTOM


def values(model):
    """Every variable, the states of stateful layers among them."""
    found = [np.array(v) for v in model.variables]
    for layer in model._flatten_layers():
        if isinstance(layer, layers.RNN) and layer.stateful:
            found += [np.array(x) for x in keras.tree.flatten(layer.states)]
    return found


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def outputs(model, x):
    """What the model gives, as a list of arrays."""
    y = model(x, training=False)
    return [ops.convert_to_numpy(part) for part in keras.tree.flatten(y)]


def assert_close(got, wanted, tolerance=TOLERANCE):
    got = list(got.values()) if isinstance(got, dict) else got
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def relative_error(got, wanted):
    return np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2))


def sequence(time=None, batch=None, name="sequence"):
    return keras.Input((time, FEATURES), batch_size=batch, name=name)


def small(time=None, batch=None, units=4, **kwargs):
    """An LSTM and a head, with random weights."""
    x = sequence(time, batch)
    y = layers.LSTM(units, return_sequences=True, name="lstm", **kwargs)(x)
    y = layers.Dense(2, name="head")(y)
    return randomize(keras.Model(x, y, name="small"))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# Layer types and options.

# Family, batch size and number of time steps of the file, None where dynamic.
FILES = [
    (export_cases.recurrent, None, None),
    (export_cases.directions, 1, 5),
    (export_cases.connected, 3, None),
    (export_cases.masking, 1, None),
    (export_cases.embedding, None, None),
    (export_cases.images, 1, None),
]


@pytest.mark.parametrize(("family", "batch", "time"), FILES)
def test_a_file_computes_what_the_model_computes(
    lite, path, family, batch, time
):
    model = export_cases.build(family, None, time)
    export(model, path, batch_size=batch, verify=False)
    data = [
        data_for(family, batch or count, time or steps, seed=steps)
        for count, steps in ((2, 19), (3, 1))
    ]
    results = lite(path, [("serve", {"sequence": x}) for x in data])
    for x, got in zip(data, results):
        wanted = model(x)
        assert set(got) == set(wanted)
        errors = {
            name: np.abs(got[name] - wanted[name].numpy()).max()
            if got[name].shape == wanted[name].shape
            else f"shapes {got[name].shape} and {wanted[name].shape}"
            for name in wanted
        }
        assert not {
            name: error
            for name, error in errors.items()
            if isinstance(error, str) or not error <= TOLERANCE
        }


@pytest.mark.parametrize(("batch", "every_step"), [(1, True), (3, False)])
def test_long_sequences_run_through_every_chunk(lite, path, batch, every_step):
    x = sequence()
    layer = layers.LSTM(4, return_sequences=True)
    model = randomize(keras.Model(x, layer(layers.Masking()(x))))
    data = data_for(export_cases.masking, batch, 49)
    (whole,) = outputs(model, data)
    layer.return_sequences = every_step
    model = keras.Model(x, layer(layers.Masking()(x)))
    export(model, path, batch_size=batch, verify=False)
    lengths = (8, 9, 15, 16, 17, 32, 33, 49)
    got = lite(path, [("serve", {"sequence": data[:, :n]}) for n in lengths])
    for n, y in zip(lengths, got):
        assert_close(y, [whole[:, :n] if every_step else whole[:, n - 1]])


@pytest.mark.parametrize("time", [1, 40, 250])
def test_a_fixed_number_of_time_steps(lite, path, time):
    model = small(time)
    export(model, path, batch_size=2, verify=False)
    x = random(2, time, FEATURES)
    (got,) = lite(path, [("serve", {"sequence": x})])
    assert_close(got, outputs(model, x))


class Subclassed(keras.Model):
    """Reads a dict, and gives one."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.lstm = layers.LSTM(4, return_sequences=True)
        self.head = layers.Dense(2)

    def call(self, inputs, training=False):
        y = self.lstm(inputs["first"], training=training) + inputs["second"]
        return {"b": self.head(y), "a": ops.max(y, axis=1)}


class TwoArguments(Subclassed):
    def call(self, first, second, training=False):
        return super().call({"first": first, "second": second})


def test_a_subclassed_model(lite, path):
    model = Subclassed()
    data = {"first": random(2, 5, FEATURES), "second": random(2, 5, 4)}
    wanted = model(data)
    export(model, path, batch_size=2, verify=False)
    named = {f"inputs_{name}": x for name, x in data.items()}
    (got,) = lite(path, [("serve", named)])
    assert set(got) == {"a", "b"}
    for name in got:
        assert_close([got[name]], [wanted[name].numpy()])


def test_a_subclassed_model_of_which_keras_forgets_an_argument(path):
    model = TwoArguments()
    model(random(2, 5, FEATURES), random(2, 5, 4))
    with (
        unharmed(model, path),
        pytest.raises(ValueError, match="first, second.*one dict"),
    ):
        keras_iss.export_tflite(model, path)


def test_inputs_and_outputs_keep_their_names(lite, path):
    audio = keras.Input((None, FEATURES), name="audio")
    words = keras.Input((None,), dtype="int64", name="words")
    gain = keras.Input((), name="gain")
    y = layers.LSTM(4, name="heard")(audio)
    z = layers.GRU(4, name="read")(
        layers.Embedding(9, 3, mask_zero=True)(words)
    )
    scaled = layers.Multiply(name="scaled")([z, gain[:, None]])
    data = {
        "audio": random(2, 6, FEATURES),
        "words": np.array([[0, 3, 0, 8], [1, 2, 0, 0]]),
        "gain": random(2),
    }
    inputs = {"words": words, "gain": gain, "audio": audio}
    model = randomize(keras.Model(inputs, [y, scaled], name="both"))
    export(model, path, batch_size=2, verify=False)
    (got,) = lite(path, [("serve", data)])
    assert set(got) == {"heard", "scaled"}
    wanted = dict(zip(("heard", "scaled"), outputs(model, data)))
    for name in got:
        assert_close([got[name]], [wanted[name]])


def test_a_model_in_half_precision_computes_in_single(lite, path):
    x = sequence()
    policy = {"dtype": "mixed_float16"}
    y = layers.LSTM(4, return_sequences=True, **policy)(x)
    y = layers.Bidirectional(layers.GRU(4, **policy), **policy)(y)
    y = layers.Dense(2, **policy)(y)
    half = randomize(keras.Model(x, y))
    full = keras.models.clone_model(
        half,
        clone_function=lambda layer: type(layer).from_config(
            json.loads(
                json.dumps(layer.get_config()).replace(
                    "mixed_float16", "float32"
                )
            )
        ),
    )
    full.set_weights(half.get_weights())
    export(half, path, verify=False)
    data = random(1, 9, FEATURES)
    (got,) = lite(path, [("serve", {"sequence": data})])
    (got,) = got.values()
    assert got.dtype == np.float32
    assert_close([got], outputs(full, data), 1e-5)
    assert half.layers[1].compute_dtype == "float16"


def test_a_model_in_double_precision(path):
    x = keras.Input((None, FEATURES), dtype="float64", name="sequence")
    y = layers.GRU(4, dtype="float64", name="double")(x)
    model = keras.Model(x, y)
    with (
        unharmed(model, path),
        pytest.raises(ValueError, match="`double` computes in float64"),
    ):
        keras_iss.export_tflite(model, path)


def test_a_model_without_recurrent_layers(lite, path):
    x = keras.Input((8, 8, 1), name="image")
    y = layers.Conv2D(3, 3, activation="relu")(x)
    y = layers.Dense(2)(layers.Flatten()(layers.BatchNormalization()(y)))
    model = randomize(keras.Model(x, y))
    done = export(model, path, batch_size=None)
    assert done.operators["CONV_2D"] == 1
    data = random(3, 8, 8, 1)
    (got,) = lite(path, [("serve", {"image": data})])
    assert_close(got, outputs(model, data))


def test_a_stateful_model_keeps_its_state_until_reset(lite, path):
    x = sequence(batch=2)
    y = layers.LSTM(4, return_sequences=True, stateful=True)(x)
    y = layers.Bidirectional(layers.GRU(3, stateful=True))(y)
    cells = [layers.LSTMCell(2), layers.GRUCell(3)]
    z = layers.RNN(cells, stateful=True, return_sequences=True)(x)
    model = randomize(keras.Model(x, {"y": y, "z": z}))
    first, second = random(2, 5, FEATURES), random(2, 3, FEATURES, seed=1)
    model(first)  # The file begins with zeros all the same.
    export(model, path, batch_size=2)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.RNN):
            for state in keras.tree.flatten(layer.states):
                state.assign(np.zeros(state.shape))
    first_got, second_got, _, again = lite(
        path,
        [
            ("serve", {"sequence": first}),
            ("serve", {"sequence": second}),
            ("reset", {}),
            ("serve", {"sequence": first}),
        ],
    )
    assert_close(first_got, outputs(model, first))
    assert_close(second_got, outputs(model, second))
    assert_close(again, list(first_got.values()))


# Quantized files.


def tensor_types(path):
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    names = {v: k for k, v in vars(schema.TensorType).items()}
    return {
        names[tensor.type]
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None
        and len(model.buffers[tensor.buffer].data) >= 64 * 64
    }


@pytest.fixture(scope="module")
def large():
    x = sequence(6)
    y = layers.LSTM(64, return_sequences=True)(x)
    y = layers.Dense(2)(layers.GRU(64)(y))
    return keras.Model(x, y, name="large")


@pytest.fixture(scope="module")
def float_size(large, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "model.tflite"
    size = export(large, path, verify=False).size
    assert tensor_types(path) == {"FLOAT32"}
    return size


@pytest.mark.parametrize(
    ("quantize", "stored", "share", "error"),
    [
        ("float16", {"FLOAT16"}, 0.6, 1e-2),
        ("int8", {"INT8"}, 0.45, 0.05),
        ("int8_full", {"INT8"}, 0.7, 0.15),
    ],
)
def test_quantized_weights(
    lite, path, large, float_size, quantize, stored, share, error
):
    options = {}
    if quantize == "int8_full":
        options["representative_data"] = random(64, 6, FEATURES, seed=1)
    done = export(large, path, quantize=quantize, **options)
    assert tensor_types(path) == stored
    assert bool(done.weights_in_int8) == (stored == {"INT8"})
    assert done.weights_in_float == ()
    assert done.size < share * float_size
    data = [random(1, 6, FEATURES, seed=seed) for seed in range(20)]
    results = lite(path, [("serve", {"sequence": x}) for x in data])
    got = np.stack([next(iter(result.values())) for result in results])
    wanted = np.stack([outputs(large, x)[0] for x in data])
    if quantize == "float16":
        np.testing.assert_allclose(got, wanted, atol=error)
    assert relative_error(got, wanted) < error


@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_quantized_masks_and_batches(lite, path, quantize):
    x = sequence()
    y = layers.Masking()(x)
    y = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(y)
    model = randomize(keras.Model(x, layers.GRU(8)(y)))
    export(model, path, batch_size=None, quantize=quantize, verify=False)
    data = data_for(export_cases.masking, 3, 11)
    (got,) = lite(path, [("serve", {"sequence": data})])
    (wanted,) = outputs(model, data)
    error = 1e-2 if quantize == "float16" else 0.1
    assert relative_error(*got.values(), wanted) < error


# The fused operation.


def two_lstms(time=None):
    x = sequence(time)
    y = layers.LSTM(4, return_sequences=True)(x)
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(y)
    return randomize(keras.Model(x, layers.LSTM(5, use_bias=False)(y)))


@pytest.mark.parametrize(
    ("batch", "quantize", "error"), [(1, None, 1e-4), (2, "int8", 0.1)]
)
def test_the_fused_operation_begins_each_call_anew(
    lite, path, batch, quantize, error
):
    model = two_lstms()
    done = export(
        model,
        path,
        batch_size=batch,
        recurrent_op="fused",
        quantize=quantize,
        verify=False,
    )
    assert done.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 4
    assert "WHILE" not in done.operators
    x, other = random(batch, 9, FEATURES), 9 * random(batch, 4, FEATURES)
    first_got, _, again = lite(
        path, [("serve", {"sequence": x}) for x in (x, other, x)]
    )
    assert relative_error(*first_got.values(), outputs(model, x)[0]) < error
    tolerance = 1e-6 if quantize is None else 1e-2
    assert_close(again, list(first_got.values()), tolerance)


def test_the_fused_operation_in_full_integers_is_reset_by_the_caller(
    lite, path
):
    model = small(6, units=16)
    data = random(64, 6, FEATURES, seed=1)
    done = export(
        model,
        path,
        recurrent_op="fused",
        quantize="int8_full",
        representative_data=data,
    )
    assert done.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert "WHILE" not in done.operators
    reset = ("reset_all_variables", {})
    first_got, _, _, again = lite(
        path,
        [
            ("serve", {"sequence": data[:1]}),
            ("serve", {"sequence": data[1:2]}),
            reset,
            ("serve", {"sequence": data[:1]}),
        ],
    )
    assert_equal(first_got.values(), again.values())
    assert (
        relative_error(*first_got.values(), outputs(model, data[:1])[0]) < 0.2
    )


NOT_FUSED = {
    "gru": (lambda x: layers.GRU(4, name="culprit")(x), "GRUCell"),
    "relu": (
        lambda x: layers.LSTM(4, activation="relu", name="culprit")(x),
        "activation is not tanh",
    ),
    "hard_sigmoid": (
        lambda x: layers.LSTM(
            4, recurrent_activation="hard_sigmoid", name="culprit"
        )(x),
        "recurrent activation is not sigmoid",
    ),
    "mask": (
        lambda x: layers.LSTM(4, name="culprit")(layers.Masking()(x)),
        "given a mask",
    ),
    "initial_state": (
        lambda x: layers.LSTM(4, name="culprit")(
            x, initial_state=[layers.Dense(4)(x[:, 0])] * 2
        ),
        "given an initial state",
    ),
    "return_state": (
        lambda x: layers.LSTM(4, return_state=True, name="culprit")(x)[1],
        "returns its states",
    ),
    "stateful": (
        lambda x: layers.LSTM(4, stateful=True, name="culprit")(x),
        "is stateful",
    ),
}


@pytest.mark.parametrize("name", NOT_FUSED)
def test_what_the_fused_operation_cannot_be(path, name):
    build, message = NOT_FUSED[name]
    x = sequence(batch=1)
    model = keras.Model(x, build(x))
    with unharmed(model, path), pytest.raises(ValueError, match=message) as e:
        keras_iss.export_tflite(model, path, recurrent_op="fused")
    assert "`culprit`" in str(e.value) and 'recurrent_op="loop"' in str(e.value)


# Streams.


def stacked(x):
    cells = [layers.LSTMCell(4), layers.GRUCell(3), Cell(5)]
    y = layers.RNN(cells, return_sequences=True)(x)
    return layers.GRU(3)(layers.Dense(4, activation="relu")(y))


def masked_stream(x):
    y = layers.Masking()(x)
    y = layers.LSTM(4, return_sequences=True)(y)
    y = layers.SimpleRNN(3, zero_output_for_mask=True, return_sequences=True)(y)
    return layers.GRU(4, return_sequences=True)(y)


def shared_stream(x):
    shared = layers.LSTM(FEATURES, return_sequences=True)
    once = shared(x)
    inner = keras.Input((None, FEATURES))
    nested = keras.Model(inner, layers.GRU(4, return_sequences=True)(inner))
    return layers.Concatenate()([shared(once), nested(once)])


def plain_stream(x):
    return layers.LSTM(16)(layers.LSTM(8, return_sequences=True)(x))


@pytest.mark.parametrize(
    ("build", "batch", "options", "error"),
    [
        (stacked, 1, {}, 1e-5),
        (masked_stream, 2, {}, 1e-5),
        (shared_stream, None, {}, 1e-5),
        (plain_stream, 1, {"quantize": "int8"}, 0.1),
        (plain_stream, 1, {"quantize": "float16"}, 1e-2),
    ],
)
def test_step_by_step_is_the_whole(lite, path, build, batch, options, error):
    x = sequence()
    model = randomize(keras.Model(x, build(x)))
    # In float, what follows says as much as the verification.
    options["verify"] = options.get("quantize") == "int8"
    export(model, path, batch_size=batch, streaming=True, **options)
    data = data_for(export_cases.masking, batch or 2, 8)
    steps = [{"sequence": data[:, t : t + 1]} for t in range(8)]
    whole, parts, again = lite(
        path,
        [("serve", {"sequence": data}), ("step", steps), ("step", steps)],
    )
    name = next(iter(whole))
    got = [part[name] for part in parts]
    got = np.concatenate(got, 1) if got[0].ndim == 3 else got[-1]
    (wanted,) = outputs(model, data)
    assert relative_error(whole[name], wanted) < error
    assert relative_error(got, wanted) < error
    # The states go through the caller: a second stream begins anew.
    assert_equal(parts[-1].values(), again[-1].values())


def test_a_fused_stream_keeps_its_own_state(lite, path):
    x = sequence()
    model = randomize(keras.Model(x, plain_stream(x)))
    export(model, path, recurrent_op="fused", streaming=True, verify=False)
    data = random(1, 7, FEATURES)
    steps = [("step", {"sequence": data[:, t : t + 1]}) for t in range(7)]
    results = lite(path, [*steps, ("reset_all_variables", {}), *steps])
    (wanted,) = outputs(model, data)
    assert_close(results[6], [wanted])
    assert_close(results[-1], [wanted])


NOT_STREAMED = {
    "bidirectional": lambda x: layers.Bidirectional(
        layers.LSTM(4), name="culprit"
    )(x),
    "backwards": lambda x: layers.GRU(4, go_backwards=True, name="culprit")(x),
    "initial_state": lambda x: layers.GRU(4, name="culprit")(
        x, initial_state=layers.Dense(4)(ops.mean(x, 1))
    ),
    "convolution": lambda x: layers.Conv1D(
        3, 3, padding="same", name="culprit"
    )(layers.LSTM(4, return_sequences=True)(x)),
    "mean over time": lambda x: ops.mean(
        layers.LSTM(4, return_sequences=True)(x), axis=1
    ),
}


@pytest.mark.parametrize("name", NOT_STREAMED)
def test_what_cannot_be_streamed(path, name):
    x = sequence()
    model = keras.Model(x, NOT_STREAMED[name](x), name="model")
    with (
        unharmed(model, path),
        pytest.raises(ValueError, match="cannot stream") as error,
    ):
        keras_iss.export_tflite(model, path, streaming=True)
    culprit = any(layer.name == "culprit" for layer in model.layers)
    assert ("`culprit`" if culprit else "`model`") in str(error.value)


# What a file says of itself.


def test_metadata(path):
    model = small()
    options = {"quantize": "int8", "streaming": True, "verify": False}
    export(model, path, batch_size=2, **options)
    found = flatbuffer.metadata(path.read_bytes())
    assert found["name"] == "small" and found["quantize"] == "int8"
    assert found["keras_iss"] == keras_iss.__version__
    assert found["inputs"] == {
        "sequence": {"shape": [2, None, FEATURES], "dtype": "float32"}
    }
    assert found["outputs"] == {
        "head": {"shape": [2, None, 2], "dtype": "float32"}
    }
    assert [x["shape"] for x in found["states"].values()] == [[2, 4], [2, 4]]
    assert flatbuffer.metadata(_without_metadata(path)) is None


def _without_metadata(path):
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.metadata = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_constants_are_aligned_as_the_format_demands(path):
    export(small(), path, verify=False)
    content = path.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    start = np.frombuffer(content, np.uint8).ctypes.data
    for i in range(model.BuffersLength()):
        data = model.Buffers(i).DataAsNumpy()
        if isinstance(data, np.ndarray) and len(data):
            assert (data.ctypes.data - start) % 16 == 0, i


# SavedModel.


def test_a_saved_model_serves_without_keras(tensorflow, tmp_path):
    family = export_cases.several
    model = export_cases.build(family)
    before, state = attributes(model), values(model)
    done = keras_iss.export_saved_model(model, tmp_path / "saved", verify=False)
    assert done.size > 0 and done.path == tmp_path / "saved"
    assert not done.errors
    assert attributes(model) == before
    assert_equal(values(model), state)
    data = [data_for(family, *shape) for shape in ((2, 7), (3, 12), (1, 1))]
    results = tensorflow(
        done.path, [("serving_default", {"sequence": x}) for x in data]
    )
    for x, got in zip(data, results):
        wanted = model(x)
        assert set(got) == set(wanted)
        for name in got:
            assert_close([got[name]], [wanted[name].numpy()])


def test_a_stateful_saved_model_keeps_its_state_until_reset(
    tensorflow, tmp_path
):
    path = tmp_path / "saved"
    model = small(batch=2, stateful=True)
    x = random(2, 5, FEATURES)
    model(x)
    before = values(model)
    done = keras_iss.export_saved_model(model, path)
    assert set(done.errors) == {"head"}
    assert_equal(values(model), before)
    first_got, second_got, _, again = tensorflow(
        path,
        [
            ("serving_default", {"sequence": x}),
            ("serving_default", {"sequence": x}),
            ("reset", {}),
            ("serving_default", {"sequence": x}),
        ],
    )
    model.get_layer("lstm").reset_state()
    assert_close(first_got, outputs(model, x))
    assert_close(second_got, outputs(model, x))
    assert_equal(first_got.values(), again.values())


def test_a_saved_model_is_overwritten(tensorflow, tmp_path):
    path = tmp_path / "saved"
    x = random(2, 5, FEATURES)
    for units in (3, 5):
        model = small(units=units)
        keras_iss.export_saved_model(model, path, verify=False)
    (got,) = tensorflow(path, [("serving_default", {"sequence": x})])
    assert_close(got, outputs(model, x))
    assert [x.name for x in tmp_path.iterdir()] == ["saved"]


def test_a_folder_with_something_else_is_not_overwritten(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    with pytest.raises(FileExistsError, match="something else"):
        keras_iss.export_saved_model(small(), tmp_path)
    assert precious.read_text() == "mine"
    assert [x.name for x in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(NotADirectoryError, match="is a file"):
        keras_iss.export_saved_model(small(), precious)


def test_a_failed_saved_model_leaves_the_old_one(
    monkeypatch, tensorflow, tmp_path
):
    path, model = tmp_path / "saved", small()
    keras_iss.export_saved_model(model, path, verify=False)
    expect_the_impossible(monkeypatch)
    other = small(units=5)
    before = values(other)
    with pytest.raises(RuntimeError, match="`head`.*Nothing was written"):
        keras_iss.export_saved_model(other, path)
    assert_equal(values(other), before)
    assert [x.name for x in tmp_path.iterdir()] == ["saved"]
    x = random(2, 5, FEATURES)
    (got,) = tensorflow(path, [("serving_default", {"sequence": x})])
    assert_close(got, outputs(model, x))


def expect_the_impossible(monkeypatch):
    for name in judge.TOLERANCE:
        monkeypatch.setitem(judge.TOLERANCE, name, -1.0)


# Bad input, and failures halfway.


def replaceable(model):
    """What an export may replace meanwhile, of each layer."""
    return [
        vars(layer).get(name)
        for layer in model._flatten_layers()
        for name in ("call", "inner_loop", "stateful", "_dtype_policy")
    ]


@contextlib.contextmanager
def unharmed(model, path, content=b"the old file"):
    """What fails inside leaves the model, and the file that was there."""
    path.write_bytes(content)
    before = attributes(model), replaceable(model)
    state = values(model)
    yield
    assert path.read_bytes() == content
    assert [x.name for x in path.parent.iterdir()] == [path.name]
    assert before == (attributes(model), replaceable(model))
    assert_equal(values(model), state)


BAD_DATA = {
    f"data of {name}": (
        {"quantize": "int8_full", "representative_data": data} | more,
        error,
        message,
    )
    for name, data, more, error, message in (
        ("a wrong shape", random(9, 5, 4), {}, ValueError, r"\(9, 5, 4\)"),
        ("a wrong rank", random(9, 5), {}, ValueError, r"\(9, 5\)"),
        ("a wrong length", random(9, 6, FEATURES), {}, ValueError, "expected"),
        (
            "a wrong dtype",
            np.zeros((9, 5, FEATURES), "int32"),
            {},
            ValueError,
            "dtype int32; expected float32",
        ),
        ("strings", np.full((9, 5, 3), "a"), {}, ValueError, "of dtype <U1"),
        (
            "too few samples",
            random(3, 5, FEATURES),
            {"batch_size": 4},
            ValueError,
            "at least 4",
        ),
        ("no samples", random(0, 5, FEATURES), {}, ValueError, "at least 1"),
        (
            "NaN",
            np.full((9, 5, FEATURES), np.nan, "float32"),
            {},
            ValueError,
            "NaN",
        ),
        ("a wrong name", {"x": random(9, 5, 3)}, {}, ValueError, "`?sequence"),
        ("a function", lambda: None, {}, TypeError, "is a function"),
    )
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_representative_data(path, name):
    options, error, message = BAD_DATA[name]
    model = small(5)
    with unharmed(model, path), pytest.raises(error, match=message):
        keras_iss.export_tflite(model, path, **options)


@pytest.mark.parametrize(
    "write", [keras_iss.export_tflite, keras_iss.export_saved_model]
)
class TestBadModels:
    def test_no_model(self, write, path):
        with pytest.raises(TypeError, match="takes a keras.Model, not list"):
            write([1, 2], path)
        assert not path.exists()

    def test_an_unbuilt_model(self, write, path):
        model = keras.Sequential([layers.LSTM(4)], name="raw")
        with pytest.raises(ValueError, match="`raw` has not been built: call"):
            write(model, path)
        with pytest.raises(ValueError, match="`subclassed` has not been"):
            write(Subclassed(), path)
        assert not path.exists()

    def test_weights_that_are_not_finite(self, write, path):
        model = small()
        kernel = model.get_layer("lstm").cell.recurrent_kernel
        broken = np.array(kernel)
        broken[1, 2] = np.nan
        kernel.assign(broken)
        with pytest.raises(ValueError, match="recurrent_kernel.*`.*NaN"):
            write(model, path)
        assert not path.exists()

    def test_strings(self, write, path):
        words = keras.Input((None,), dtype="string", name="words")
        numbers = layers.StringLookup(vocabulary=["a", "b"])(words)
        y = layers.LSTM(4)(layers.Embedding(3, 4)(numbers))
        model = keras.Model(words, y)
        with pytest.raises(ValueError, match="`words`.*string.*StringLookup"):
            write(model, path)
        assert not path.exists()

    def test_a_parent_that_is_not_there(self, write, tmp_path):
        path = tmp_path / "missing" / "model"
        with pytest.raises(FileNotFoundError, match="missing"):
            write(small(), path)
        assert not path.parent.exists()

    def test_a_folder_that_is_read_only(self, write, tmp_path):
        import os

        if os.geteuid() == 0:
            pytest.skip("nothing is read-only to root")
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(PermissionError, match="cannot be written"):
                write(small(), tmp_path / "model")
        finally:
            tmp_path.chmod(0o700)


def test_a_path_that_is_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="model.tflite"):
        keras_iss.export_tflite(small(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_batch_size_that_is_not_the_model_s(path):
    model = small(batch=3)
    for batch in (1, None):
        with unharmed(model, path), pytest.raises(ValueError, match="=3"):
            keras_iss.export_tflite(model, path, batch_size=batch)


def test_full_integers_need_a_fixed_number_of_time_steps(path):
    model = small()
    with unharmed(model, path), pytest.raises(ValueError, match="`lstm`.*Inp"):
        keras_iss.export_tflite(
            model,
            path,
            quantize="int8_full",
            representative_data=random(9, 5, FEATURES),
        )


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk(monkeypatch, path, name):
    import errno

    model = small(batch=1, stateful=True)
    model(random(1, 5, FEATURES))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with unharmed(model, path):
        monkeypatch.setattr(f"os.{name}", full)
        with pytest.raises(OSError, match="No space left"):
            keras_iss.export_tflite(model, path, verify=False)
        monkeypatch.undo()


def test_an_operation_that_litert_has_not(path):
    x = sequence()
    y = layers.LSTM(4, return_sequences=True, dtype="mixed_float16")(x)
    y = layers.Lambda(ops.erfinv, name="culprit")(y)
    model = keras.Model(x, y, name="model")
    with (
        unharmed(model, path),
        pytest.raises(ValueError, match="`culprit` of `model`.*Erfinv"),
    ):
        keras_iss.export_tflite(model, path)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_that_computes_something_else(monkeypatch, path, streaming):
    model = small(batch=1, stateful=not streaming)
    model(random(1, 5, FEATURES))
    expect_the_impossible(monkeypatch)
    with (
        unharmed(model, path),
        pytest.raises(RuntimeError, match="`head` of `small` differs"),
    ):
        keras_iss.export_tflite(model, path, streaming=streaming)


def test_what_is_of_another_size_at_run_time(lite, path):
    for batch in (1, 2):
        model = small()
        export(model, path, batch_size=batch, verify=False)
        more = random(batch + 1, 5, FEATURES)
        with pytest.raises(RuntimeError, match="RuntimeError"):
            lite(path, [("serve", {"sequence": more})])
    model = small(5)
    export(model, path, batch_size=2, verify=False)
    good = random(2, 5, FEATURES)
    for shape in ((3, 5, FEATURES), (2, 5, 4), (2, 5), (2, 4, FEATURES)):
        with pytest.raises(RuntimeError, match="ValueError|RuntimeError"):
            lite(path, [("serve", {"sequence": random(*shape)})])
    # LiteRT itself lets this pass, and reads as many steps as it knows of.
    longer = random(2, 6, FEATURES)
    (got,) = lite(path, [("serve", {"sequence": longer})])
    assert_close(got, outputs(model, longer[:, :5]))
    (got,) = lite(path, [("serve", {"sequence": good})])
    assert_close(got, outputs(model, good))
