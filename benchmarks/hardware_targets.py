"""Does what is asked for in milliseconds and kilobytes come out?

Stacked LSTMs and GRUs, in float32 and int8: costs are measured in LiteRT, the
model is pruned by them to several latencies and sizes and exported, and the
files are measured anew, in rounds, by `keras_iss.benchmark`, one thread. The
model at full size is among them: its ratio says whether the machine is as busy
as when the costs were measured. Then the same for an LSTM on an Ethos-U55, by
the estimates of Arm's compiler Vela, where that is installed (extra
`devices`).

    python benchmarks/hardware_targets.py

Writes results/hardware_targets.json.
"""

import argparse
import importlib.util
import os
import pathlib
import statistics
import tempfile

import keras
import numpy as np
from common import write
from rich.console import Console
from rich.table import Table

import keras_iss
from keras_iss.costs.vela import times_by_vela

STEPS, FEATURES, CLASSES = 49, 10, 12
# Of the way from the least that can be left to all of it.
PARTS = (0.7, 0.4, 0.15)
ROUNDS = 7


def model_of(kind, first, second):
    keras.utils.set_random_seed(0)
    layer = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}[kind]
    return keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layer(first, return_sequences=True, name="first"),
            layer(second, name="second"),
            keras.layers.Dense(CLASSES, name="out"),
        ]
    )


def pruned(model, **target):
    """The sizes that are left, and the smaller model."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    structures = keras_iss.prune(copy, **target)
    sizes = {x.name: x.alive for x in structures}
    return sizes, keras_iss.shrink(copy, verify=False)


def asked(tell, costs):
    """What to ask for, between the least and all of a cost."""
    full, least = tell(costs.sizes), tell(dict.fromkeys(costs.sizes, 4))
    return [least + part * (full - least) for part in PARTS]


def cut(model, costs, word, folder, **options):
    """Files of a model at several targets.

    Returns:
        List of dicts, and of paths.
    """
    rows, paths = [], []
    for amount in asked(getattr(costs, word), costs):
        sizes, small = pruned(model, **{word: amount}, costs=costs)
        path = folder / f"{word}_{amount:.4g}.tflite"
        done = keras_iss.export_tflite(small, path, verify=False, **options)
        rows.append(
            {
                "asked": {word: amount},
                "sizes": list(sizes.values()),
                "told": getattr(costs, word)(sizes),
                "came_out": done.size / 1e3,
            }
        )
        paths.append(path)
    return rows, paths


def times_of(paths):
    """The median milliseconds of calls, of several rounds over all files."""
    found = [[] for _ in paths]
    for _ in range(ROUNDS):
        for path, medians in zip(paths, found):
            spent = keras_iss.benchmark(path, threads=1, runs=60, seconds=0.4)
            medians.append(spent.latency.median)
    return [statistics.median(medians) for medians in found]


def with_ratio(row, came_out):
    (amount,) = row["asked"].values()
    return {**row, "came_out": came_out, "ratio": came_out / amount}


def on_this_machine(kind, units, quantize):
    model = model_of(kind, *units)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        costs = keras_iss.measure_costs(
            model, quantize=quantize, folder=folder / "probes"
        )
        options = {"quantize": quantize}
        rows, paths = cut(model, costs, "latency_ms", folder, **options)
        full = folder / "probes" / costs.probes[0].file
        all_of_it, *spent = times_of([full, *paths])
        files, _ = cut(model, costs, "size_kb", folder, **options)
    rows = [with_ratio(row, ms) for row, ms in zip(rows, spent)]
    return {
        "model": f"{kind} {units}",
        "quantize": quantize or "float32",
        "device": costs.device,
        "costs_error": costs.latency_error,
        "full_size": {
            "told": costs.latency_ms(costs.sizes),
            "came_out": all_of_it,
            "ratio": all_of_it / costs.latency_ms(costs.sizes),
        },
        "rows": rows + [with_ratio(x, x["came_out"]) for x in files],
    }


def on_an_npu(units):
    model = model_of("LSTM", *units)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(20, STEPS, FEATURES)).astype("float32")
    options = {"target": "micro", "representative_data": data}
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        keras_iss.write_cost_probes(model, folder / "probes", **options)
        costs = keras_iss.CostTable.from_vela(folder / "probes")
        rows, paths = cut(model, costs, "latency_ms", folder, **options)
        spent = times_by_vela(paths, "ethos-u55-128", ())
    return {
        "model": f"LSTM {units}",
        "quantize": "micro",
        "device": costs.device,
        "costs_error": costs.latency_error,
        "rows": [
            with_ratio(row, spent[path.name]) for row, path in zip(rows, paths)
        ],
    }


def show(found):
    table = Table("model", "in", "asked", "sizes", "came out", "ratio")
    for entry in found:
        for row in entry["rows"]:
            ((word, amount),) = row["asked"].items()
            table.add_row(
                entry["model"],
                entry["quantize"],
                f"{word}={amount:.3g}",
                ", ".join(map(str, row["sizes"])),
                f"{row['came_out']:.3g}",
                f"{row['ratio']:.3f}",
            )
    Console(width=100).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--no-latency", action="store_true", help="only what Vela estimates"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    found = []
    if not arguments.no_latency:
        for kind, units in (("LSTM", (96, 64)), ("GRU", (64, 64))):
            for quantize in (None, "int8"):
                found.append(on_this_machine(kind, units, quantize))
    if importlib.util.find_spec("ethosu") is not None:
        found.append(on_an_npu((64, 32)))
    show(found)
    write(
        "hardware_targets",
        {"load_average_before": load, "models": found},
    )


if __name__ == "__main__":
    main()
