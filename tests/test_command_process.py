"""The verbs as a user runs them: each in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("ai_edge_litert")

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="once is enough"
    ),
    pytest.mark.long,
]

ROOT = pathlib.Path(__file__).parent.parent
# What the script does that comes with the package.
PROGRAM = "from _keras_iss_command import main; main()"


class Process:
    """A verb that runs beside others."""

    def __init__(self, folder, *arguments):
        path = os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, code=0):
        out, err = self._process.communicate(timeout=300)
        assert self._process.returncode == code, err
        return out, err


def test_a_dense_model_goes_all_the_way_to_a_checked_file(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 3), name="signal"),
            keras.layers.LSTM(8, return_sequences=True, name="first"),
            keras.layers.LSTM(8, name="second"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "dense.keras")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6, 3)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=rng.integers(0, 2, 40))

    inspected = Process(tmp_path, "inspect", "dense.keras", "--no-measure")
    shrunk = Process(
        tmp_path,
        *("shrink", "dense.keras", "--weights", "0.5", "-o", "small.keras"),
        *("--data", "data.npz", "--refit"),
    )
    out, err = inspected.end()
    # Nothing of what TensorFlow prints when it is imported.
    assert "weights=0.5" in out and not err
    assert "Wrote small.keras" in shrunk.end()[0]

    exported = Process(
        tmp_path,
        *("export", "small.keras", "-o", "small.tflite"),
        *("--quantize", "int8", "--data", "data.npz"),
    )
    assert "Wrote small.tflite" in exported.end()[0]

    compared = Process(
        tmp_path,
        *("compare", "dense.keras", "small.tflite"),
        *("--data", "data.npz", "--json"),
    )
    reported = Process(
        tmp_path,
        *("report", "small.keras", "--before", "dense.keras"),
        *("--file", "small.tflite", "--data", "data.npz"),
    )
    measured = Process(tmp_path, "benchmark", "small.tflite", "--json")
    found = json.loads(compared.end()[0])
    assert found["b"]["size"] == (tmp_path / "small.tflite").stat().st_size
    assert found["samples"] == 40 and found["b"]["metrics"]
    assert "Wrote report.html" in reported.end()[0]
    assert "small.tflite" in (tmp_path / "report.html").read_text("utf-8")
    assert json.loads(measured.end()[0])["latency"]["median"] > 0


def test_help_and_mistakes_do_not_wait_for_a_backend(tmp_path):
    code = (
        "import sys\nfrom _keras_iss_command import main\ntry:\n    main()\n"
        "finally:\n    print('keras' in sys.modules, file=sys.stdout)"
    )
    for arguments, ending in (
        (["--help"], 0),
        (["shrink", "--help"], 0),
        (["--version"], 0),
        (["shrink"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == ending
        assert done.stdout.endswith("False\n"), done
        assert len(done.stderr.splitlines()) == (1 if ending else 0)
