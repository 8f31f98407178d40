"""What an installed package does, with nothing of the repository.

    python -I tests/smoke.py

Run it in an environment that has the wheel, a backend and the extra `cli`;
with the extra `export`, files are exported, too. `tox run -e smoke-jax` makes
such an environment.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

import keras_iss


def main():
    """Trains, shrinks, saves, compares, reports; then the command."""
    installed = pathlib.Path(keras_iss.__file__)
    assert "site-packages" in installed.parts, installed
    assert (installed.parent / "py.typed").is_file()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        small = shrunk()
        command(small)
        # Windows removes no folder that a process is in.
        os.chdir(installed.anchor)
    print(f"keras-iss {keras_iss.__version__} on {keras.backend.backend()}: ok")


def shrunk():
    """A model that was made smaller while it trained, saved and loaded."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 6, 3)).astype("float32")
    y = rng.integers(0, 2, 64)
    np.savez("data.npz", x=x, y=y)
    model = keras.Sequential(
        [
            keras.Input((6, 3), name="signal"),
            keras.layers.LSTM(12, return_sequences=True, name="first"),
            keras.layers.GRU(12, name="second"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.save("dense.keras")
    small = keras_iss.fit(
        model,
        *(x, y),
        epochs=4,
        verbose=0,
        callbacks=[
            keras_iss.ISSBudget(weights=0.5),
            keras_iss.ISSLogger(report="training.html"),
        ],
    )
    assert small.count_params() < 0.7 * model.count_params()
    small.save("small.keras")
    found = keras_iss.compare(small, "small.keras", (x, y), runs=2)
    assert found.largest < 1e-5, found
    assert "What was cut when" in pathlib.Path("training.html").read_text(
        encoding="utf-8"
    )
    return small


def command(small):
    """The verbs of the command, on what was saved."""
    found = json.loads(run("inspect", "small.keras", "--no-measure", "--json"))
    assert found["cuts"][0]["weights"] == small.count_params()
    run(
        *("shrink", "dense.keras", "--weights", "0.5", "-o", "cut.keras"),
        *("--data", "data.npz", "--refit"),
    )
    files = []
    if importlib.util.find_spec("ai_edge_litert"):
        run("export", "cut.keras", "-o", "cut.tflite", "--quantize", "int8")
        files = ["--file", "cut.tflite"]
    run(
        *("report", "cut.keras", "--before", "dense.keras", *files),
        *("--data", "data.npz", "-o", "report.html"),
    )
    assert pathlib.Path("report.html").stat().st_size > 5000


def run(*arguments):
    """What a verb prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "keras_iss", *arguments],
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return done.stdout


if __name__ == "__main__":
    main()
