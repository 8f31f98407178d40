"""Files for microcontrollers, in TensorFlow Lite Micro's own interpreter."""

import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from keras_iss.export.c_sources import adder
from keras_iss.export.options import Options

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from keras_iss.export import integers, tflm

STEPS, FEATURES = 12, 5
DATA = np.random.default_rng(0).normal(size=(40, STEPS, FEATURES))
DATA = DATA.astype("float32")

needs_tflm = pytest.mark.skipif(
    not tflm.can_run(), reason="tflite-micro is not installed"
)


def model_of(*inner, steps=STEPS):
    return keras.Sequential(
        [
            keras.Input((steps, FEATURES), name="x"),
            *inner,
            layers.Dense(3, name="y"),
        ],
        name="model",
    )


MODELS = {
    "lstm": lambda: model_of(layers.LSTM(8, name="rnn")),
    "gru": lambda: model_of(layers.GRU(8, name="rnn")),
    "simple_rnn": lambda: model_of(layers.SimpleRNN(8, name="rnn")),
    "lstm_and_gru": lambda: model_of(
        layers.LSTM(8, return_sequences=True), layers.GRU(6, name="rnn")
    ),
    "time_left_open": lambda: model_of(layers.LSTM(8, name="rnn"), steps=None),
    "bidirectional_lstm": lambda: model_of(
        layers.Bidirectional(layers.LSTM(6, name="rnn"))
    ),
    "rhn": lambda: model_of(keras_iss.layers.RHN(6, depth=2, name="rnn")),
}
STEP = {"gru", "simple_rnn", "lstm_and_gru", "time_left_open", "rhn"}
KEEPS = {"lstm", "lstm_and_gru", "time_left_open", "bidirectional_lstm"}


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    """Name, model and Export of a file."""
    keras.utils.set_random_seed(0)
    model = MODELS[request.param]()
    path = tmp_path_factory.mktemp(request.param) / "model.tflite"
    done = keras_iss.export_tflite(
        model, path, target="micro", representative_data=DATA
    )
    return request.param, model, done


def test_inputs_and_outputs_are_integers_and_all_weights_too(exported):
    name, _, done = exported
    assert {x.dtype for x in done.micro.inputs} == {"int8"}
    assert {x.dtype for x in done.micro.outputs} == {"int8"}
    assert {x.dtype for x in done.weights} == {"int8"}
    assert not {"QUANTIZE", "DEQUANTIZE", "WHILE"} & set(done.operators)
    assert done.micro.step == (name in STEP)
    assert done.micro.keeps_state == (name in KEEPS)
    assert done.size == done.path.stat().st_size


def test_a_state_goes_in_as_it_came_out(exported):
    _, _, done = exported
    before = {x.name: x for x in done.micro.inputs if x.state}
    after = {x.name: x for x in done.micro.outputs if x.state}
    assert before.keys() == after.keys()
    for name, x in before.items():
        same = after[name]
        assert (x.scale, x.zero_point) == (same.scale, same.zero_point)
        assert x.shape == same.shape


def sequences_of(done):
    (x,) = [x for x in done.micro.inputs if not x.state]
    whole = integers.to_integers(DATA[:10], x.dtype, x.scale, x.zero_point)
    if not done.micro.step:
        return x, [[{x.index: one[None]}] for one in whole]
    return x, [
        [{x.index: one[None, t : t + 1]} for t in range(STEPS)] for one in whole
    ]


@needs_tflm
def test_tensorflow_lite_micro_gives_what_keras_and_litert_give(exported, lite):
    _, model, done = exported
    x, sequences = sequences_of(done)
    _, results = tflm.run(done.path.read_bytes(), done.micro, sequences)
    got = np.concatenate([steps[-1]["y"] for steps in results])
    wanted = np.array(model(DATA[:10]))
    size = np.sqrt(np.mean(wanted**2))
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.12 * size
    # LiteRT rounds elsewhere: by some integers of the output.
    (y,) = [y for y in done.micro.outputs if not y.state]
    calls, signature = [], "step" if done.micro.step else "serve"
    zeros = {
        s.name: np.full(s.shape, s.zero_point, s.dtype)
        for s in done.micro.inputs
        if s.state
    }
    in_litert = []
    for steps in sequences[:3]:
        states = zeros
        if done.micro.keeps_state and states:
            pytest.skip("LiteRT's helper process carries no integer states")
        if states:
            states = dict(states)
            for step in steps:
                values = {"x": step[x.index], **states}
                (result,) = lite(done.path, [(signature, values)])
                states = {s: result[s] for s in states}
            in_litert.append(result["y"])
        else:
            calls = [("reset_all_variables", {})]
            calls += [(signature, {"x": step[x.index]}) for step in steps]
            in_litert.append(lite(done.path, calls)[-1]["y"])
    theirs = np.concatenate(in_litert).astype(int)
    ours = np.rint(got[:3] / y.scale) + y.zero_point
    assert np.abs(ours - theirs).max() <= 4


@needs_tflm
def test_the_memory_is_measured(exported):
    _, _, done = exported
    assert 1000 < done.micro.arena < 20000
    assert f"{done.micro.arena:,} bytes of memory" in str(done)


def test_a_state_is_of_no_use_to_the_next_sequence_after_a_reset(exported):
    if not tflm.can_run():
        pytest.skip("tflite-micro is not installed")
    _, _, done = exported
    _, sequences = sequences_of(done)
    content = done.path.read_bytes()
    _, (_, twice) = tflm.run(content, done.micro, sequences[:2])
    _, (alone,) = tflm.run(content, done.micro, sequences[1:2])
    np.testing.assert_array_equal(twice[-1]["y"], alone[-1]["y"])


def test_the_sources_have_the_bytes_the_scales_and_these_operators(
    exported, tmp_path
):
    _, _, done = exported
    header, data, example = keras_iss.export.write_c_sources(
        done, tmp_path / "firmware", "keywords"
    )
    text = data.read_text()
    body = text[text.index("= {") : text.index("};")]
    numbers = re.findall(r"0x(\w\w)", body)
    assert bytes(int(x, 16) for x in numbers) == done.path.read_bytes()
    text = header.read_text()
    added = re.findall(r"resolver\.(\w+)\(", text)
    assert sorted(added) == sorted(adder(x) for x in done.operators)
    assert f"kOperators = {len(added)};" in text
    for x in (*done.micro.inputs, *done.micro.outputs):
        (scale,) = {
            float(scale)
            for index, scale, shape in re.findall(
                r"\{(\d+), \d+, ([\d.e+-]+)f, -?\d+\};  // int8, (\[.*\])", text
            )
            if int(index) == x.index
            and shape == str(list(x.shape))
            and np.float32(scale) == np.float32(x.scale)
        } or {None}
        assert scale is not None, x.name
    states = [x for x in done.micro.inputs if x.state]
    assert example.read_text().count("std::memcpy(") == len(states)
    assert ("interpreter.Reset();" in example.read_text()) == (
        done.micro.keeps_state
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_array_compiles_to_the_bytes_of_the_file(exported, tmp_path):
    name, _, done = exported
    if name != "lstm":
        pytest.skip("one is enough")
    keras_iss.export.write_c_sources(done, tmp_path, "keywords")
    # Of TensorFlow Lite Micro, what the header needs to be read.
    stub = tmp_path / "tensorflow/lite/micro/micro_mutable_op_resolver.h"
    stub.parent.mkdir(parents=True)
    functions = "".join(
        f"TfLiteStatus {adder(x)}() {{ return kTfLiteOk; }}"
        for x in done.operators
    )
    stub.write_text(
        "enum TfLiteStatus { kTfLiteOk, kTfLiteError };"
        "namespace tflite { template <int n> class MicroMutableOpResolver"
        f" {{ public: {functions} }}; }}"
    )
    (tmp_path / "main.cc").write_text(
        '#include <cstdio>\n#include "keywords.h"\n'
        "int main() { tflite::MicroMutableOpResolver<keywords::kOperators> r;"
        "if (keywords_AddOperators(r) != kTfLiteOk) return 1;"
        "std::fwrite(keywords_data, 1, keywords_size, stdout); }"
    )
    program = tmp_path / "program"
    subprocess.run(
        ["g++", "-std=c++17", "-Wall", "-Werror", "-I", tmp_path]
        + ["-o", program, tmp_path / "main.cc", tmp_path / "keywords.cc"],
        check=True,
    )
    printed = subprocess.run([program], capture_output=True, check=True).stdout
    assert printed == done.path.read_bytes()


@pytest.mark.skipif(shutil.which("vela") is None, reason="no ethos-u-vela")
def test_vela_puts_the_file_on_an_ethos_u55(exported, tmp_path):
    _, _, done = exported
    said = subprocess.run(
        ["vela", done.path, "--accelerator-config", "ethos-u55-128"]
        + ["--output-dir", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    on_cpu = re.search(r"CPU operators = (\d+)", said)
    on_npu = re.search(r"NPU operators = (\d+)", said)
    assert int(on_npu.group(1)) > 0
    # A slice between layers may stay on the processor.
    assert int(on_cpu.group(1)) <= 2, said


def test_a_gru_grows_by_nothing_with_the_number_of_time_steps(tmp_path):
    sizes = [
        keras_iss.export_tflite(
            model_of(layers.GRU(8), steps=steps),
            tmp_path / "model.tflite",
            target="micro",
            representative_data=DATA[:, :steps],
            verify=False,
        ).size
        for steps in (3, STEPS)
    ]
    # Ranges tell which numbers fit one byte; every step would take kilobytes.
    assert abs(sizes[0] - sizes[1]) < 500


def test_a_gru_in_both_directions_is_unrolled_and_says_so(tmp_path):
    model = model_of(layers.Bidirectional(layers.GRU(4, name="rnn")), steps=3)
    with pytest.warns(UserWarning, match="`backward_rnn` of `model`"):
        done = keras_iss.export_tflite(
            model,
            tmp_path / "model.tflite",
            target="micro",
            representative_data=DATA[:, :3],
        )
    assert not done.micro.step and not done.micro.keeps_state


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantize": "int8"}, "full integers, not in quantize=.int8"),
        ({"batch_size": None}, "fixed batch_size"),
        ({"representative_data": None}, "representative_data"),
    ],
)
def test_what_does_not_go_with_micro_is_refused(given, message):
    options = {"target": "micro", "batch_size": 1, "representative_data": DATA}
    with pytest.raises(ValueError, match=message):
        Options(**options | given)


def test_sources_are_for_files_of_microcontrollers(tmp_path):
    done = keras_iss.export_tflite(
        model_of(layers.LSTM(2), steps=3), tmp_path / "m.tflite", verify=False
    )
    with pytest.raises(ValueError, match='target="micro"'):
        keras_iss.export.write_c_sources(done, tmp_path)
    with pytest.raises(TypeError, match="takes the Export"):
        keras_iss.export.write_c_sources("m.tflite", tmp_path)
