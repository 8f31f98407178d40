"""Each verb of the command, its errors and its exit codes."""

import json
import sys

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss import cli

pytest.importorskip("typer")
from typer.testing import CliRunner

from keras_iss.cli.app import app
from tests.test_costs import table_of

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

CUSTOM = """
import keras

@keras.saving.register_keras_serializable("command_tests")
class Scaled(keras.layers.Dense):
    pass

def half(x):
    return 0.5 * x
"""


def network(**layer):
    return keras.Sequential(
        [
            keras.Input((6, 3), name="signal"),
            keras.layers.LSTM(8, return_sequences=True, name="first"),
            keras.layers.LSTM(8, name="second", **layer),
            keras.layers.Dense(2, name="out"),
        ]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, samples of it in all forms, and a module."""
    folder = tmp_path_factory.mktemp("command")
    keras.utils.set_random_seed(0)
    model = network()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.save(folder / "dense.keras")
    table_of(model).save(folder / "costs.json")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6, 3)).astype("float32")
    y = rng.integers(0, 2, 40)
    np.savez(folder / "data.npz", x=x, y=y)
    np.save(folder / "inputs.npy", x)
    header = ",".join([f"c{i}" for i in range(18)] + ["label"])
    table = np.column_stack([x.reshape(40, -1), y])
    np.savetxt(
        folder / "data.csv", table, delimiter=",", header=header, comments=""
    )
    (folder / "my_layers.py").write_text(
        CUSTOM + "\nimport numpy as np\ndef samples():\n"
        "    return np.ones((4, 6, 3)), np.zeros(4, int)\n"
    )
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*arguments, code=0):
        done = CliRunner().invoke(app, [str(x) for x in arguments])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        if code:
            lines = done.stderr.strip().splitlines()
            assert lines[-1].startswith("keras-iss: error: ")
            return lines[-1]
        return done.stdout

    return run


def test_inspect_shows_the_structures_and_what_a_cut_saves(run):
    said = run("inspect", "dense.keras", "--weights", "0.5", "--no-measure")
    assert "first" in said and "weights=0.5" in said
    found = json.loads(run("inspect", "dense.keras", "--json", "--length", 6))
    assert [x["target"] for x in found["cuts"]] == [
        "as it is",
        "weights=0.5",
        "weights=0.25",
    ]
    assert all(x["milliseconds"] > 0 for x in found["cuts"])
    assert found["structures"][0]["consumers"] == ["second"]
    assert found["versions"]["keras"] == keras.__version__


def test_inspect_says_why_a_structure_is_pinned(run, folder):
    pinned = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.LSTM(4, name="lstm")]
    )
    pinned.save(folder / "pinned.keras")
    said = run("inspect", "pinned.keras", "--no-measure")
    assert "lstm is pinned: " in said and "weights=0.5 cannot be: " in said


def test_shrink_writes_what_prune_and_shrink_give(run, folder):
    keep = ("--keep", "first=5", "--keep", "second=3", "-o", "small.keras")
    found = json.loads(run("shrink", "dense.keras", *keep, "--json"))
    model = keras.models.load_model(folder / "dense.keras")
    expected = keras_iss.shrink(model, keep={"first": 5, "second": 3})
    small = keras.models.load_model(folder / "small.keras")
    x = np.load(folder / "inputs.npy")
    np.testing.assert_allclose(
        small.predict(x, verbose=0), expected.predict(x, verbose=0), atol=1e-5
    )
    assert found["after"]["weights"] == small.count_params()
    assert found["structures"]["first"] == {"before": 8, "after": 5}
    assert not list(folder.glob(".small*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--weights", "0.4", "--data", "data.npz", "--refit"),
        ("--units", "8", "--round-to", "4"),
        ("--mult-adds", "0.5", "--round-to", "first=2"),
        ("--latency-ms", "0.24", "--costs", "costs.json"),
        ("--threshold", "0.1"),
        ("--weights", "0.5", "--importance", "taylor", "--data", "data.npz"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_shrink_takes_the_words_of_prune(run, folder, arguments):
    said = run("shrink", "dense.keras", *arguments, "-o", "words.keras")
    assert "Wrote words.keras" in said
    assert ("refitted" in said) == ("--refit" in arguments)
    small = keras.models.load_model(folder / "words.keras")
    if arguments[0] == "--units":
        assert [small.get_layer(x).units % 4 for x in ("first", "second")] == [
            0,
            0,
        ]


def test_shrink_says_what_the_export_is_to_cost(run):
    costs = ("--size-kb", "10.5", "--costs", "costs.json", "-o", "kb.keras")
    found = json.loads(run("shrink", "dense.keras", *costs, "--json"))
    told = found["costs"]
    assert told["size_kb"]["after"] <= 10.5 < told["size_kb"]["before"]
    assert told["latency_ms"]["after"] < told["latency_ms"]["before"]
    said = run("shrink", "dense.keras", *costs)
    assert "a call" in said and "exported" in said


def test_measure_reads_what_another_device_took(run, folder):
    probes = folder / "probes"
    probes.mkdir()
    model = keras.models.load_model(folder / "dense.keras")
    table = table_of(model, timed=False)
    table.save(probes / "probes.json")
    spent = {x.file: 100.0 * sum(x.sizes.values()) for x in table.probes}
    (folder / "took.json").write_text(json.dumps(spent))
    read = ("--files", "probes", "--results", "took.json", "-o", "phone.json")
    said = run("measure", "dense.keras", *read, "--device", "a phone")
    assert "on a phone" in said and "Wrote phone.json" in said
    costs = keras_iss.CostTable.load(folder / "phone.json")
    assert costs.latency_ms(costs.sizes) == pytest.approx(1.6, 0.01)


def test_shrink_cuts_what_is_zero_already_without_a_target(run, folder):
    model = keras.models.load_model(folder / "dense.keras")
    keras_iss.prune(model, keep={"second": 5})
    model.save(folder / "pruned.keras")
    run("shrink", "pruned.keras", "-o", "cut.keras")
    small = keras.models.load_model(folder / "cut.keras")
    assert small.get_layer("second").units == 5
    x = np.load(folder / "inputs.npy")
    np.testing.assert_allclose(
        small.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )
    error = run("shrink", "dense.keras", "-o", "cut.keras", code=1)
    assert "Nothing of `dense.keras` is zero yet" in error


@pytest.mark.parametrize(
    "source", ["data.npz", "data.csv", "my_layers:samples"]
)
def test_compare_reads_samples_in_every_form(run, source):
    found = json.loads(
        run(
            *("compare", "dense.keras", "dense.keras", "--data", source),
            *("--no-latency", "--json", "--metric", "accuracy"),
        )
    )
    assert found["samples"] == (4 if source.startswith("my") else 40)
    assert found["outputs"]["out"]["largest"] == 0
    assert 0 <= found["a"]["metrics"]["accuracy"] <= 1


def test_samples_of_all_files_are_the_same(run):
    def accuracy(source):
        said = run(
            *("compare", "dense.keras", "dense.keras", "--data", source),
            *("--no-latency", "--json"),
        )
        return json.loads(said)["a"]["metrics"]

    assert accuracy("data.csv") == pytest.approx(accuracy("data.npz"))
    assert accuracy("inputs.npy") == {}


def test_compare_ends_with_a_code_where_the_tolerance_is_not_met(run, folder):
    keras.utils.set_random_seed(1)
    network().save(folder / "other.keras")
    same = ("compare", "dense.keras", "dense.keras", "--no-latency")
    run(*same, "--tolerance", "1e-6")
    error = run(
        *("compare", "dense.keras", "other.keras", "--no-latency"),
        *("--tolerance", "1e-6", "--samples", "3", "--data", "inputs.npy"),
        code=1,
    )
    assert "off `dense.keras`" in error


def test_benchmark_shows_a_latency(run):
    said = run("benchmark", "dense.keras", "--runs", 2)
    assert "median" in said and "1 x 6 x 3" in said
    found = json.loads(
        run(
            *("benchmark", "dense.keras", "--runs", 2, "--batch-size", 2),
            *("--data", "inputs.npy", "--json"),
        )
    )
    assert found["latency"]["runs"] == 2
    assert found["shapes"] == {"signal": [2, 6, 3]}


def test_report_writes_a_page(run, folder):
    (folder / "log.csv").write_text("epoch,loss,first_alive\n0,1,8\n1,2,7\n")
    run("shrink", "dense.keras", "--keep", "first=4", "-o", "page.keras")
    found = json.loads(
        run(
            *("report", "page.keras", "--before", "dense.keras", "--json"),
            *("--history", "log.csv", "--data", "data.csv", "-o", "a.html"),
            *("--title", "A small model"),
        )
    )
    assert found["training"]["removals"] == [
        {"epoch": 2, "structure": "first", "removed": 1, "left": 7}
    ]
    assert [x["name"] for x in found["files"]] == ["dense.keras", "page.keras"]
    assert set(found["files"][1]["metrics"]) == {
        "accuracy",
        "sparse_categorical_crossentropy",
    }
    assert found["command"].startswith("keras-iss")
    text = (folder / "a.html").read_text(encoding="utf-8")
    assert "<h1>A small model</h1>" in text


@pytest.mark.on_torch
def test_export_writes_onnx(run):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    said = run("export", "dense.keras", "-o", "dense.onnx")
    assert "Wrote dense.onnx" in said and "off the Keras model" in said
    found = json.loads(
        run(
            *("compare", "dense.keras", "dense.onnx", "--data", "data.npz"),
            *("--json", "--no-latency"),
        )
    )
    assert found["outputs"]["out"]["relative"] < 1e-5
    message = run(
        *("export", "dense.keras", "-o", "a.onnx", "--streaming"), code=2
    )
    assert "is an .onnx file" in message


@pytest.mark.skipif(not ON_TENSORFLOW, reason="exports of TensorFlow")
def test_export_writes_files_that_are_checked(run, folder):
    pytest.importorskip("ai_edge_litert")
    said = run(
        *("export", "dense.keras", "-o", "dense.tflite"),
        *("--quantize", "int8_full", "--data", "data.npz", "--samples", 20),
        *("--tolerance", "accuracy=1"),
    )
    assert "Wrote dense.tflite" in said and "off the Keras model" in said
    assert "On the data: accuracy: " in said
    said = run(
        *("export", "dense.keras", "-o", "micro.tflite", "--target", "micro"),
        *("--data", "data.npz"),
    )
    assert "takes whole sequences" in said
    run(
        *("export", "dense.keras", "-o", "step.tflite", "--streaming"),
        *("--frames", 3, "--step-only", "--no-verify"),
    )
    given = ("compare", "dense.keras", "step.tflite", "--json", "--no-latency")
    found = json.loads(run(*given))
    assert found["outputs"]["out"]["relative"] < 1e-4
    run("export", "dense.keras", "-o", "saved")
    found = json.loads(
        run(
            *("compare", "saved", "dense.tflite", "--data", "data.npz"),
            *("--json", "--no-latency"),
        )
    )
    assert found["a"]["size"] > found["b"]["size"] > 0
    assert found["outputs"]["out"]["relative"] < 0.5


def test_layers_of_ones_own_are_imported_by_the_name_of_their_module(
    run, folder
):
    sys.path.insert(0, str(folder))
    try:
        import my_layers
    finally:
        sys.path.remove(str(folder))
    model = network(activation=my_layers.half)
    model = keras.Sequential([*model.layers, my_layers.Scaled(1)])
    model.build((None, 6, 3))
    model.save(folder / "custom.keras")
    keras.saving.get_custom_objects().pop("command_tests>Scaled")
    arguments = ("benchmark", "custom.keras", "--runs", 1)
    error = run(*arguments, code=1)
    assert "--import MODULE" in error
    del sys.modules["my_layers"]
    assert "median" in run(*arguments, "--import", "my_layers")
    assert "median" in run(*arguments, "--import", "my_layers.py")
    error = run(*arguments, "--import", "no_such_module", code=1)
    assert "There is no module `no_such_module`" in error


def test_code_in_a_file_runs_only_where_it_is_allowed(run, folder):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x)]
    )
    model.save(folder / "code.keras")
    error = run("benchmark", "code.keras", "--runs", 1, code=1)
    assert "add --unsafe" in error
    assert "median" in run("benchmark", "code.keras", "--runs", 1, "--unsafe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("shrink dense.keras", "Missing option"),
        ("shrink dense.keras -o a.keras --weights much", "no number"),
        ("shrink dense.keras -o a.keras --keep first", "NAME=N"),
        (
            "shrink dense.keras -o a.keras --weights 0.5 --units 3",
            "only one of",
        ),
        ("shrink dense.keras -o a.keras --weights 0.5 --refit", "add --data"),
        (
            "shrink dense.keras -o a.keras --weights 0.5 --costs costs.json",
            "goes with --latency-ms or --size-kb",
        ),
        ("measure dense.keras", "add -o costs.json"),
        ("measure dense.keras --files a -o a.json", "add --results"),
        ("measure dense.keras --results a.txt -o a.json", "with --files"),
        ("measure dense.keras -o a.json --quantize int4", "none of float16"),
        ("measure dense.keras -o a.json --quantize int8_full", "with --quan"),
        ("measure dense.keras -o a.json --recurrent-op x", "loop nor fused"),
        ("shrink dense.keras -o a.keras --refit", "add --weights"),
        (
            "shrink dense.keras -o a.keras --units 3 --importance taylor",
            "add --data",
        ),
        ("shrink dense.keras -o dense.keras --units 3", "file that is read"),
        ("shrink dense.keras -o a.h5 --units 3", "end in .keras"),
        ("export dense.keras -o a.zip", "neither a .tflite file nor"),
        ("export dense.keras -o a --quantize int8", "is a folder"),
        ("export dense.keras -o a.tflite --quantize int4", "none of float16"),
        ("export dense.keras -o a.tflite --quantize int8_full", "add --data"),
        ("export dense.keras -o a.tflite --quantize int16x8", "add --data"),
        ("export dense.keras -o a.tflite --target micro", "add --data"),
        ("export dense.keras -o a.tflite --tolerance acc", "NAME=X"),
        ("export dense.keras -o a.tflite --tolerance acc=-1", "NAME=X"),
        ("export dense.keras -o a --tolerance acc=1", "of a .tflite file"),
        ("export dense.keras -o a.tflite --tolerance acc=1", "with targets"),
        (
            "export dense.keras -o a.tflite --target micro --quantize float16",
            "leave --quantize out",
        ),
        ("export dense.keras -o a --target micro", "full integers: give"),
        ("export dense.keras -o a.tflite --target phone", "nor micro"),
        ("export dense.keras -o a.tflite --frames 2", "add --streaming"),
        ("export dense.keras -o a.tflite --step-only", "add --streaming"),
        ("polish dense.keras", "No such command"),
        ("inspect", "Missing argument"),
    ],
)
def test_a_mistake_in_the_arguments_ends_with_2_and_says_what_to_do(
    run, arguments, message
):
    error = run(*arguments.split(), code=2)
    assert message in error and "--help`" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("inspect nothing.keras", "There is no `nothing.keras`"),
        ("inspect data.npz", "is no .keras file"),
        ("benchmark data.npz", "no kind that can be run"),
        ("inspect broken.keras", "cannot be loaded"),
        ("shrink dense.keras -o a.keras --keep third=2", "Its structures are"),
        ("shrink dense.keras -o a.keras --weights 1.5", "weights"),
        (
            "shrink dense.keras -o a.keras --size-kb 9 --costs data.npz",
            "holds no table of costs",
        ),
        ("measure dense.keras -o b.json --files none --results c", "none/"),
        ("shrink dense.keras -o nowhere/a.keras --units 6", "no folder"),
        ("benchmark dense.keras --data none.npz", "There is no `none.npz`"),
        ("benchmark dense.keras --data none", "is none of"),
        ("benchmark dense.keras --data my_layers:none", "no function `none`"),
        ("benchmark dense.keras --data wrong.npy", "expected (samples, 6, 3)"),
        ("benchmark dense.keras --data words.csv", "must hold numbers"),
    ],
)
def test_what_fails_ends_with_1_and_one_line(run, folder, arguments, message):
    (folder / "broken.keras").write_bytes(b"no archive")
    np.save(folder / "wrong.npy", np.zeros((2, 5)))
    (folder / "words.csv").write_text("a,b\nc,d\n")
    assert message in run(*arguments.split(), code=1)


def test_a_pickle_in_a_file_of_arrays_is_not_run(run, folder):
    np.save(folder / "pickle.npy", np.array([{}]), allow_pickle=True)
    error = run("benchmark", "dense.keras", "--data", "pickle.npy", code=1)
    assert "allow_pickle" in error


def test_a_warning_is_a_single_line_on_the_side(folder, monkeypatch):
    monkeypatch.chdir(folder)
    model = network()
    model.save(folder / "plain.keras")
    monkeypatch.setattr(
        keras_iss,
        "benchmark",
        lambda *args, **kwargs: __import__("warnings").warn(
            "two\nlines", stacklevel=1
        ),
    )
    done = CliRunner().invoke(app, ["benchmark", "plain.keras", "--json"])
    assert "keras-iss: note: two lines\n" in done.stderr


def test_a_mistake_of_ours_is_a_line_too_and_says_how_to_see_more(
    folder, monkeypatch
):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(keras_iss, "benchmark", lambda *args, **kwargs: 1 / 0)
    done = CliRunner().invoke(app, ["benchmark", "dense.keras"])
    assert done.exit_code == 1
    assert "ZeroDivisionError" in done.stderr
    assert "KERAS_ISS_TRACEBACK=1" in done.stderr


def test_without_typer_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in list(sys.modules):
        if name.startswith("keras_iss.cli."):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "keras-iss: error: the command needs Typer, which is not installed: "
        'pip install "keras-iss[cli]".\n'
    )


def test_every_verb_and_option_is_described(run):
    verbs = app.registered_commands
    assert len(verbs) == 7
    for verb in verbs:
        said = run(verb.callback.__name__, "--help")
        assert "--json" in said and "Usage" in said
