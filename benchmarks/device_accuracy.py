"""How accurate exported files are on recordings, beside the model in Keras.

    pip install -e ".[tensorflow,export,devices,data]"
    python benchmarks/device_accuracy.py

Trains an LSTM and a GRU of 32 units for each seed on JapaneseVowels (which of
nine speakers says a vowel: 270 recordings to train on and 370 to test on, 29
frames of 12 coefficients, silence before the shorter ones) and on
ItalyPowerDemand (whether a day's demand for energy is one of winter: 67 days to
train on and 1029 to test on). Both ship with the package `aeon`. Each form runs
on all that is there for testing, in the interpreter that it is for.
"""

import argparse
import pathlib
import statistics
import tempfile
import warnings

import keras
import numpy as np
from common import write
from rich.console import Console
from rich.table import Table

import keras_iss
from keras_iss.runtimes.micro_runner import MicroRunner

UNITS = 32
EPOCHS = 60
FRAMES = 29
SEEDS = (0, 1, 2)
LAYERS = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}

_MICRO = {"target": "micro"}
_FUSED = {"recurrent_op": "fused"}
_WIDE = {"quantize": "int16x8"}
_FULL = {"quantize": "int8_full"}
# Title, options of the export, whether the file runs as on a device. Full
# integers of a GRU are files of one time step.
FORMS = {
    "LSTM": (
        ("float32", {}, False),
        ("int8", {"quantize": "int8"}, False),
        ("int8_full", _FULL | _FUSED, False),
        ("int16x8", _WIDE, False),
        ("micro int8", _MICRO, True),
        ("micro int16x8", _MICRO | _WIDE, True),
    ),
    "GRU": (
        ("float32", {}, False),
        ("int8", {"quantize": "int8"}, False),
        ("int8_full", _MICRO, False),
        ("int16x8", _MICRO | _WIDE, False),
        ("micro int8", _MICRO, True),
        ("micro int16x8", _MICRO | _WIDE, True),
    ),
}


def speakers(split):
    """Recordings that end together, and the numbers of their speakers."""
    from aeon.datasets import load_japanese_vowels

    series, labels = load_japanese_vowels(split=split)
    x = np.zeros((len(series), FRAMES, 12), "float32")
    for row, values in zip(x, series):
        row[FRAMES - values.shape[1] :] = values.T
    return x, np.array(labels).astype("int32") - 1


def demand(split):
    """Days of 24 hours, and whether they are of October to March."""
    from aeon.datasets import load_italy_power_demand

    series, labels = load_italy_power_demand(split=split)
    x = np.asarray(series).transpose(0, 2, 1).astype("float32")
    return x, (np.array(labels).astype("int32") == 1).astype("int32")


TASKS = {"speakers": (speakers, 9), "demand": (demand, 2)}


def trained(layer, classes, x, y, seed):
    """A dense model that reads whole sequences."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(x.shape[1:], name="x")
    state = keras.layers.Dropout(0.3)(LAYERS[layer](UNITS)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(classes, name="y")(state))
    rate = keras.optimizers.schedules.CosineDecay(
        0.01, EPOCHS * -(-len(x) // 32), alpha=0.05
    )
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, y, batch_size=32, epochs=EPOCHS, verbose=0)
    return model


def rows_of(task, layer, seed, folder):
    """A row for each form of one model."""
    recordings, classes = TASKS[task]
    (x, y), test = recordings("train"), recordings("test")
    model = trained(layer, classes, x, y, seed)
    for title, options, on_device in FORMS[layer]:
        path = folder / "model.tflite"
        if {"quantize", "target"} & set(options) and (
            options.get("quantize") != "int8"
        ):
            options = options | {"representative_data": x[:200]}
        with warnings.catch_warnings():
            # Of the size of time steps that are unrolled.
            warnings.simplefilter("ignore")
            done = keras_iss.export_tflite(model, path, **options)
        found = keras_iss.compare(
            model,
            MicroRunner(path) if on_device else path,
            test,
            metrics=["accuracy"],
            latency=False,
        )
        yield {
            "task": task,
            "layer": layer,
            "seed": seed,
            "form": title,
            "keras": found.a.metrics["accuracy"],
            "accuracy": found.b.metrics["accuracy"],
            "error": found.outputs["y"].relative,
            "bytes": done.size,
        }


def table_of(rows):
    """Accuracies in percent, means over the seeds."""
    table = Table("task", "layer", "form", title="Accuracy in percent")
    for title in ("Keras", "file", "change", "worst", "error", "kB"):
        table.add_column(title, justify="right")
    groups = {}
    for row in rows:
        key = row["task"], row["layer"], row["form"]
        groups.setdefault(key, []).append(row)
    for key, some in groups.items():
        changes = [100 * (row["accuracy"] - row["keras"]) for row in some]
        table.add_row(
            *key,
            f"{100 * statistics.mean(row['keras'] for row in some):.1f}",
            f"{100 * statistics.mean(row['accuracy'] for row in some):.1f}",
            f"{statistics.mean(changes):+.2f}",
            f"{min(changes):+.2f}",
            f"{statistics.mean(row['error'] for row in some):.2%}",
            f"{statistics.mean(row['bytes'] for row in some) / 1e3:.1f}",
        )
    return table


def main():
    """Trains, exports, runs, and writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in given.seeds:
            for task in given.tasks:
                for layer in LAYERS:
                    rows += rows_of(task, layer, seed, pathlib.Path(folder))
                    write("device_accuracy", {"rows": rows})
    Console().print(table_of(rows))


if __name__ == "__main__":
    main()
