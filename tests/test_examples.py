"""The examples run as a user runs them, at their smallest."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="once is enough"
    ),
    pytest.mark.xdist_group("quickstart"),
]


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """What `quickstart.py --quick` printed, and its folder."""
    folder = tmp_path_factory.mktemp("quickstart")
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "quickstart.py",
            "--quick",
            f"--out={folder}",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_the_quickstart_prints_a_table(quickstart):
    printed, folder = quickstart
    result = json.loads((folder / "result.json").read_text())
    for name in ("dense", "iss"):
        assert f"{result[name]['test']:.2f}" in printed
        assert f"{result[name]['mult_adds']:,}" in printed
    for row in ("units", "file, MB", "TFLite int8, MB"):
        assert row in printed


def test_the_models_of_the_quickstart_are_what_its_table_says(quickstart):
    _, folder = quickstart
    result = json.loads((folder / "result.json").read_text())
    for name in ("dense", "iss"):
        model = keras.models.load_model(folder / f"{name}.keras")
        units = [model.get_layer(f"lstm_{i}").units for i in (1, 2)]
        assert units == result[name]["units"]
        assert model.count_params() == result[name]["weights"]
        logits = model.predict(np.ones((2, 35), "int32"), verbose=0)
        assert np.isfinite(logits).all()
        size = (folder / f"{name}.keras").stat().st_size
        assert 4 * model.count_params() < size < 6 * model.count_params()
    assert sum(result["iss"]["units"]) < sum(result["dense"]["units"])


def test_the_small_model_of_the_quickstart_has_learned(quickstart):
    _, folder = quickstart
    result = json.loads((folder / "result.json").read_text())
    # Knowing only how frequent each word is gives 124.
    assert result["iss"]["valid"] < 90
    assert result["iss"]["valid"] < 1.1 * result["dense"]["valid"]


def test_the_quickstart_draws_a_picture(quickstart):
    _, folder = quickstart
    pyplot = pytest.importorskip("matplotlib.pyplot")
    height, width, _ = pyplot.imread(folder / "quickstart.png").shape
    assert width > height > 500


def test_the_quickstart_exports_both_models(quickstart):
    printed, folder = quickstart
    result = json.loads((folder / "result.json").read_text())
    for name in ("dense", "iss"):
        model = keras.models.load_model(folder / f"{name}.keras")
        tokens = np.arange(35, dtype="int32")[None]
        expected = keras.ops.convert_to_numpy(model(tokens))
        for kind, tolerance in (("float32", 1e-4), ("int8", 0.5)):
            interpreter = Interpreter(str(folder / f"{name}_{kind}.tflite"))
            runner = interpreter.get_signature_runner("serve")
            logits = runner(tokens=tokens)["logits"]
            assert np.abs(logits - expected).max() <= tolerance
        assert (folder / f"{name}_saved_model" / "saved_model.pb").is_file()
        assert f"{result[name]['int8_ms']:.2f}" in printed
