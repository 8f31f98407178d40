"""Which recurrent layers go to which kind of file, by trying.

Each file is run beside the Keras model before it counts: in LiteRT, TensorFlow
Lite Micro or ONNX Runtime. A cell is the largest error of the file, as a part
of the size of the outputs, or why there is none.

    pip install -e ".[export,devices,onnx]"
    python benchmarks/targets.py

Writes results/targets.json, and prints the table of `docs/export.md`.
"""

import os
import pathlib
import re
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from common import write

import keras_iss

STEPS, FEATURES, UNITS, CLASSES = 12, 6, 16, 4
L = keras.layers


def rnn(kind, **arguments):
    """A layer that returns what it gives last."""
    return [kind(UNITS, **arguments)]


LAYERS = {
    "LSTM": lambda: rnn(L.LSTM),
    "LSTM, masked": lambda: [L.Masking(), *rnn(L.LSTM)],
    "GRU": lambda: rnn(L.GRU),
    "SimpleRNN": lambda: rnn(L.SimpleRNN),
    "RHN": lambda: rnn(keras_iss.layers.RHN, depth=2),
    "Bidirectional(LSTM)": lambda: [L.Bidirectional(L.LSTM(UNITS))],
    "Bidirectional(GRU)": lambda: [L.Bidirectional(L.GRU(UNITS))],
    "two LSTMs": lambda: [
        *rnn(L.LSTM, return_sequences=True),
        *rnn(L.LSTM),
    ],
    "LSTM and GRU": lambda: [
        *rnn(L.LSTM, return_sequences=True),
        *rnn(L.GRU),
    ],
}


def tflite(**options):
    """A function that exports a model to TFLite with some options."""

    def export(model, path, samples):
        if options.get("quantize") in ("int8_full", "int16x8") or (
            options.get("target") == "micro"
        ):
            options["representative_data"] = samples
        return keras_iss.export_tflite(model, path, **options)

    return export


TARGETS = {
    "float32": tflite(),
    "int8": tflite(quantize="int8"),
    "int8_full": tflite(quantize="int8_full"),
    "int8_full, fused": tflite(quantize="int8_full", recurrent_op="fused"),
    "int16x8": tflite(quantize="int16x8"),
    "micro": tflite(target="micro"),
    "micro, int16x8": tflite(target="micro", quantize="int16x8"),
    "streaming": tflite(streaming=True),
    "ONNX": lambda model, path, samples: keras_iss.export_onnx(model, path),
}


def build(name):
    """A model of fixed length, with outputs between -1 and 1 or so."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            *LAYERS[name](),
            L.Dense(CLASSES),
        ],
        name="model",
    )


def tried(name, target, folder):
    """What came of one export, as a dict."""
    samples = np.random.default_rng(0).normal(size=(100, STEPS, FEATURES))
    model, path = build(name), folder / f"model.{target[:4]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            done = TARGETS[target](model, path, samples.astype("float32"))
        except Exception as error:
            return {"reason": f"{type(error).__name__}: {error}"}
    return {
        "bytes": done.size,
        "error": max(done.errors.values()),
        "takes": _takes(target, done),
        "operators": done.operators,
    }


def _takes(target, done):
    if target == "streaming" or (done.micro is not None and done.micro.step):
        return "a step"
    return "a sequence"


def markdown(rows):
    """The table, its reasons below."""
    reasons = []
    lines = [
        "| | " + " | ".join(TARGETS) + " |",
        "| --- |" + " --- |" * len(TARGETS),
    ]
    for name, cells in rows.items():
        shown = []
        for target, found in cells.items():
            if "reason" in found:
                reason = re.sub(r"\s+", " ", found["reason"])
                if reason not in reasons:
                    reasons.append(reason)
                shown.append(f"no ({reasons.index(reason) + 1})")
                continue
            step = found["takes"] == "a step" and target != "streaming"
            shown.append("a step" if step else "yes")
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    lines += [""] + [f"{i}. {text}" for i, text in enumerate(reasons, 1)]
    return "\n".join(lines)


def main():
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in LAYERS:
            rows[name] = {}
            for target in TARGETS:
                found = tried(name, target, pathlib.Path(folder))
                rows[name][target] = found
                print(name, "|", target, "|", found, flush=True)
    print(markdown(rows))
    write("targets", {"rows": rows})


if __name__ == "__main__":
    main()
