"""A keyword spotter on a microcontroller: flash, memory, cycles.

10 features, 49 time steps, 64 units, 12 words: an LSTM as the fused operation
and a GRU as one time step, dense and cut to a quarter of the recurrent
weights, with random weights, which change none of these figures.

- flash: the file, without the code of the operators;
- arena: what TensorFlow Lite Micro's interpreter takes, on 64 bits;
- cycles and milliseconds: what Vela estimates for an Arm Ethos-U55 of 128 MACs,
  of a whole sequence: of a GRU, 49 times that of a step.

    pip install -e ".[export,devices]"
    python benchmarks/microcontroller.py

Writes results/microcontroller.json.
"""

import csv
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from common import write
from rich.console import Console
from rich.table import Table

import keras_iss

FEATURES, STEPS, UNITS, WORDS = 10, 49, 64, 12
ACCELERATOR = "ethos-u55-128"
LAYERS = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}


def models(kind):
    """The dense model and the smaller one, by name."""
    keras.utils.set_random_seed(0)
    dense = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES), name="features"),
            LAYERS[kind](UNITS, name="rnn"),
            keras.layers.Dense(WORDS, activation="softmax", name="words"),
        ],
        name="spotter",
    )
    pruned = keras.models.clone_model(dense)
    pruned.set_weights(dense.get_weights())
    keras_iss.prune(pruned, weights=0.25)
    return {"dense": dense, "a quarter": keras_iss.shrink(pruned)}


def by_vela(path, folder):
    """The estimated cycles of a call, and the clock."""
    subprocess.run(
        [
            *(sys.executable, "-m", "ethosu.vela", str(path)),
            *("--accelerator-config", ACCELERATOR),
            *("--output-dir", str(folder), "--verbose-performance"),
        ],
        check=True,
        capture_output=True,
    )
    (summary,) = folder.glob("*summary*.csv")
    with open(summary, newline="") as file:
        (row,) = csv.DictReader(file)
    return float(row["cycles_total"]), float(row["core_clock"])


def measured(kind, name, model, quantize):
    """One row."""
    samples = np.random.default_rng(0).normal(size=(100, STEPS, FEATURES))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        done = keras_iss.export_tflite(
            model,
            folder / "spotter.tflite",
            target="micro",
            quantize=quantize,
            representative_data=samples.astype("float32"),
        )
        row = {
            "layer": kind,
            "size": name,
            "units": model.get_layer("rnn").units,
            "quantize": quantize or "int8_full",
            "takes": "a step" if done.micro.step else "a sequence",
            "flash": done.size,
            "arena": done.micro.arena,
        }
        if quantize is None:
            # Vela leaves operations in 16 bits to the processor.
            cycles, clock = by_vela(done.path, folder / "vela")
            calls = STEPS if done.micro.step else 1
            row["cycles"] = calls * cycles
            row["milliseconds"] = 1e3 * calls * cycles / clock
    return row


def main():
    rows = [
        measured(kind, name, model, quantize)
        for kind in LAYERS
        for name, model in models(kind).items()
        for quantize in (None, "int16x8")
    ]
    table = Table(title=f"{STEPS} steps of {FEATURES} features")
    for key in rows[0]:
        table.add_column(key, justify="left" if key == "layer" else "right")
    for row in rows:
        table.add_row(
            *(
                f"{value:,.1f}"
                if isinstance(value, float)
                else f"{value:,}"
                if isinstance(value, int)
                else str(value)
                for value in row.values()
            )
        )
    Console(width=120).print(table)
    write("microcontroller", {"accelerator": ACCELERATOR, "rows": rows})


if __name__ == "__main__":
    main()
