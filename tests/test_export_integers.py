"""Files in int8: what the converter and LiteRT's kernels leave open."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests.export_cases import FEATURES, randomize

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from keras_iss.export import flatbuffer, kernels

LSTM = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


def random(*shape, seed=0, scale=1.0):
    x = np.random.default_rng(seed).normal(size=shape) * scale
    return x.astype("float32")


def fused(model, path, data, quantize="int8_full", **options):
    if quantize == "int8_full":
        options["representative_data"] = data
    # What is compared below is compared once.
    options = {"verify": False} | options
    return keras_iss.export_tflite(
        model, path, recurrent_op="fused", quantize=quantize, **options
    )


def relative_errors(lite, path, model, data):
    """The error of each output, of single samples from the beginning."""
    reset = ("reset_all_variables", {})
    calls = []
    for x in data:
        calls += [reset, ("serve", {"x": x[None]})]
    results = lite(path, calls)[1::2]
    wanted = model(data)
    wanted = wanted if isinstance(wanted, dict) else {"": wanted}
    errors = {}
    for name, y in wanted.items():
        got = [r[name] if name else next(iter(r.values())) for r in results]
        got = np.concatenate(got)
        size = np.sqrt(np.mean(np.square(y)))
        errors[name] = np.sqrt(np.mean((got - np.array(y)) ** 2)) / size
    return errors


def cell_exponents(path):
    model = flatbuffer.loaded(path.read_bytes())
    return [
        int(np.log2(graph.tensors[operation.inputs[19]].quantization.scale[0]))
        for graph, operation, code in flatbuffer.operations(model)
        if code == LSTM
    ]


# What the fused operation asks of a file in full integers.


def single(time=20, units=8, **gates):
    """An LSTM whose gates have the biases that are given, i, f, c and o."""
    keras.utils.set_random_seed(0)
    x = keras.Input((time, FEATURES), name="x")
    layer = layers.LSTM(units, return_sequences=True, name="lstm")
    model = keras.Model(x, layer(x))
    bias = [np.full(units, gates.get(name, 0.0)) for name in "ifco"]
    layer.cell.bias.assign(np.concatenate(bias))
    return model, layer.cell


def without_a_kernel(model, cell, gates):
    kernel = np.array(cell.kernel)
    for gate in gates:
        kernel[:, gate * cell.units : (gate + 1) * cell.units] = 0
    cell.kernel.assign(kernel)
    return model


def counting():
    """Adds one in each step for a while, and takes it away again."""
    model, cell = single(60, 4, i=9, f=9, o=9)
    kernel = np.zeros((FEATURES, 16))
    kernel[0, 8:12] = 3
    cell.kernel.assign(kernel)
    cell.recurrent_kernel.assign(np.zeros((4, 16)))
    data = np.ones((20, 60, FEATURES), "float32")
    data[:, 28:] = -1
    return model, data


SCALES = {
    "small states": lambda: (single(i=-4)[0], random(50, 20, FEATURES)),
    "large states": counting,
    "outputs above zero": lambda: (
        single(i=1, f=1, c=1)[0],
        random(50, 20, FEATURES, scale=0.3),
    ),
    "outputs below zero": lambda: (
        single(i=1, f=1, c=-1)[0],
        random(50, 20, FEATURES, scale=0.3),
    ),
    "gates of a bias alone": lambda: (
        without_a_kernel(*single(i=1, f=2, c=0.5, o=1), [0, 1, 3]),
        random(50, 20, FEATURES),
    ),
    "nothing but biases": lambda: (
        without_a_kernel(*single(i=1, f=1, c=0.5, o=1), range(4)),
        random(50, 20, FEATURES),
    ),
    "a large bias": lambda: (
        single(c=50)[0],
        random(50, 20, FEATURES, scale=0.1),
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_fused_full_integers_of_any_scale(lite, path, name):
    model, data = SCALES[name]()
    done = fused(model, path, data)
    assert done.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert all(-15 <= x <= -9 for x in cell_exponents(path))
    (error,) = relative_errors(lite, path, model, data[:10]).values()
    assert error < 0.12


def test_a_cell_scale_that_the_converter_makes_too_small(lite, path):
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((20, 32), name="x"),
            layers.LSTM(128, return_sequences=True),
            layers.LSTM(128),
            layers.Dense(10),
        ]
    )
    data = random(60, 20, 32)
    fused(model, path, data)
    assert min(cell_exponents(path)) == -15
    (error,) = relative_errors(lite, path, model, data[:10]).values()
    assert error < 0.1


@pytest.mark.parametrize("quantize", [None, "float16", "int8"])
def test_a_fused_layer_clips_no_cell_state(lite, path, quantize):
    model, data = counting()
    fused(model, path, data, quantize)
    (error,) = relative_errors(lite, path, model, data[:1]).values()
    assert error < (0.1 if quantize == "int8" else 1e-2)


@pytest.mark.parametrize("quantize", [None, "int8", "int8_full"])
def test_zeros_beside_a_fused_layer_stay_zeros(lite, path, quantize):
    x = keras.Input((6, FEATURES), name="x")
    y = layers.LSTM(4, return_sequences=True)(x)
    y = layers.LSTM(4, return_sequences=True)(y)
    # As many as the layers have states.
    zeros = ops.zeros_like(y[:, 0])
    model = randomize(
        keras.Model(
            x,
            {
                "beside": layers.Concatenate()([y[:, 0], zeros]),
                "behind": layers.Dense(2)(
                    layers.Concatenate()([zeros, y[:, 3]])
                ),
                "y": y,
            },
        )
    )
    data = random(40, 6, FEATURES)
    fused(model, path, data, quantize, verify=True)
    errors = relative_errors(lite, path, model, data[:8])
    assert max(errors.values()) < (0.15 if quantize else 1e-5)


def test_a_fused_layer_that_reads_nothing_but_zeros(path):
    model, _ = single()
    with pytest.raises(ValueError, match="nothing but zeros at `x`.*int8"):
        fused(model, path, np.zeros((20, 20, FEATURES), "float32"))
    assert not path.exists()


def test_scales_of_a_cell_are_mended_to_what_the_kernel_can_do():
    for exponent, wanted in ((-30, -15), (-16, -15), (-12, -12), (-5, -9)):
        model = schema.ModelT()
        code, graph = schema.OperatorCodeT(), schema.SubGraphT()
        code.builtinCode, code.deprecatedBuiltinCode = LSTM, LSTM
        operation = schema.OperatorT()
        operation.opcodeIndex, operation.inputs = 0, list(range(20))
        operation.inputs[16] = -1
        operation.outputs, operation.intermediates = [0], range(5)
        graph.operators, graph.tensors = [operation], []
        for _ in range(20):
            tensor = schema.TensorT()
            tensor.type = schema.TensorType.INT16
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [2.0**exponent]
            graph.tensors.append(tensor)
        model.operatorCodes, model.subgraphs = [code], [graph]
        kernels.mend_scales(model)
        (scale,) = graph.tensors[19].quantization.scale
        assert scale == 2.0**wanted


# Weights of few numbers.


def weight_types(path):
    """Types of the constants of two axes and more, by operation."""
    model = flatbuffer.loaded(path.read_bytes())
    names = {v: k for k, v in vars(schema.TensorType).items()}
    types = {}
    for graph, operation, code in flatbuffer.operations(model):
        for number in operation.inputs:
            tensor = graph.tensors[number] if number >= 0 else None
            if (
                tensor is not None
                and flatbuffer.constant(model, tensor) is not None
                and np.sum(np.array(tensor.shape) > 1) > 1
                and names[tensor.type] != "INT32"
                and flatbuffer.operation_name(code) != "WHILE"
            ):
                name = flatbuffer.operation_name(code)
                types.setdefault(name, set()).add(names[tensor.type])
    return types


def small(*build, time=6):
    x = keras.Input((time, FEATURES), name="x")
    y = x
    for layer in build:
        y = layer(y)
    return randomize(keras.Model(x, y))


def of_words():
    t = keras.Input((5,), dtype="int32", name="t")
    y = layers.LSTM(6)(layers.Embedding(9, 4)(t))
    return randomize(keras.Model(t, layers.Dense(2)(y)))


def of_images():
    x = keras.Input((6, 6, 2), name="x")
    y = layers.Conv2D(3, 3)(x)
    y = layers.DepthwiseConv2D(2)(y)
    y = layers.Conv2DTranspose(2, 2)(y)
    return randomize(keras.Model(x, layers.Dense(2)(layers.Flatten()(y))))


SMALL = {
    "one LSTM": lambda: small(layers.LSTM(5), layers.Dense(2)),
    "an LSTM with a small and a large kernel": lambda: small(layers.LSTM(48)),
    "a GRU": lambda: small(layers.GRU(5), layers.Dense(2)),
    "two ways": lambda: small(
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.LSTM(3),
    ),
    "an embedding": of_words,
    "convolutions": of_images,
    "a convolution over time": lambda: small(
        layers.Conv1D(4, 3, padding="causal"), layers.LSTM(3)
    ),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("recurrent_op", ["loop", "fused"])
def test_int8_is_int8_however_small_the_weights(path, name, recurrent_op):
    if recurrent_op == "fused" and name in ("a GRU", "convolutions"):
        pytest.skip("nothing to fuse")
    model = SMALL[name]()
    done = keras_iss.export_tflite(
        model, path, quantize="int8", recurrent_op=recurrent_op
    )
    assert weight_types(path) and set.union(*weight_types(path).values()) == {
        "INT8"
    }
    assert done.weights_in_float == () and done.notes == ()
    assert done.weights_in_int8
    (error,) = done.errors.values()
    assert 1e-5 < error < 0.1


def test_weights_that_have_no_form_in_int8_are_named(path):
    x = keras.Input((6, 6, 6, 2), name="x")
    y = layers.Flatten()(layers.Conv3D(5, 3, name="solid")(x))
    model = keras.Model(x, layers.Dense(2)(y), name="model")
    with pytest.warns(UserWarning, match="of `model` in float32.*CONV_3D") as w:
        done = keras_iss.export_tflite(model, path, quantize="int8")
    (ours,) = [x for x in w if x.filename == __file__]
    assert len(done.weights_in_float) == len(done.weights_in_int8) == 1
    assert "solid" in done.weights_in_float[0]
    assert done.notes == (str(ours.message),)


@pytest.mark.parametrize("quantize", [None, "float16"])
def test_other_files_say_nothing(path, quantize):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        done = keras_iss.export_tflite(
            small(layers.LSTM(5)), path, quantize=quantize
        )
    assert done.weights_in_float == () and done.notes == ()
    assert done.weights_in_int8 == ()


# Time steps that are unrolled.


def test_a_file_that_unrolling_makes_several_times_larger_says_so(path):
    model = small(layers.GRU(8), layers.Dense(2), time=20)
    plain = keras_iss.export_tflite(model, path, verify=False).size
    with pytest.warns(UserWarning, match="every time step has") as warned:
        done = keras_iss.export_tflite(
            model,
            path,
            quantize="int8_full",
            representative_data=random(4, 20, FEATURES),
            verify=False,
        )
    (note,) = done.notes
    sizes = [int(x.replace(",", "")) for x in re.findall("[0-9,]{4,}", note)]
    assert note in [str(w.message) for w in warned]
    assert sizes[0] == done.size > 2 * plain
    assert sizes[1] == pytest.approx(plain, rel=0.1)


# What Keras has quantized.


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_what_keras_has_quantized_is_refused(path, mode):
    x = keras.Input((6, FEATURES), name="x")
    y = layers.LSTM(4, name="lstm")(x)
    y = layers.Dense(16, name="head")(y)
    model = keras.Model(x, layers.Dense(2)(y), name="model")
    model.quantize(mode)
    for quantize in (None, "int8"):
        with pytest.raises(
            ValueError,
            match=f"`head` of `model` is quantized by Keras .{mode}.*before",
        ):
            keras_iss.export_tflite(model, path, quantize=quantize)
    assert not path.exists()
    # A SavedModel computes what Keras computes.
    done = keras_iss.export_saved_model(model, path.with_name("saved"))
    (error,) = done.errors.values()
    assert error < 1e-4


@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_so_is_a_layer_with_the_policy_of_such_a_quantization(path, mode):
    x = keras.Input((16,), name="x")
    layer = layers.Dense(16, name="head")
    model = keras.Model(x, layer(x), name="model")
    policy = {
        "gptq": "gptq/4/128_from_float32",
        "awq": "awq/4/128_from_float32",
    }
    layer._dtype_policy = keras.dtype_policies.get(policy[mode])
    with pytest.raises(ValueError, match=f"`head`.*quantized by Keras .{mode}"):
        keras_iss.export_tflite(model, path)
