"""What the benchmarks share: the paper's language model, and the results."""

import json
import os
import pathlib
import platform
import sys

import keras

RESULTS = pathlib.Path(__file__).parent / "results"


def language_model(units, vocabulary=10_000, embedding=None):
    """Stacked LSTMs with softmax, as in section 4.1 of the paper.

    Args:
        units: Tuple of integers, the sizes of the LSTMs.
        vocabulary: Integer.
        embedding: Optional integer, the size of the embedding. Defaults to
            that of the first LSTM.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(vocabulary, embedding or units[0])(tokens)
    x = keras.layers.Dropout(0.4)(x)
    for i, size in enumerate(units, start=1):
        x = keras.layers.LSTM(size, return_sequences=True, name=f"lstm_{i}")(x)
        x = keras.layers.Dropout(0.4)(x)
    return keras.Model(tokens, keras.layers.Dense(vocabulary, name="logits")(x))


def compile_as_in_paper(model):
    """SGD with rate 1 and gradients clipped at 10."""
    model.compile(
        keras.optimizers.SGD(1.0, global_clipnorm=10.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def write(name, result):
    """Writes a result with what it takes to repeat it, and prints it.

    Args:
        name: String, of the file.
        result: Dict.
    """
    backend = keras.backend.backend()
    prefix = [] if backend == "tensorflow" else [f"KERAS_BACKEND={backend}"]
    result = {
        "command": " ".join([*prefix, "python", *sys.argv]),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            backend: sys.modules[backend].__version__,
        },
        "cores": len(os.sched_getaffinity(0)),
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written to {os.path.relpath(path)}")
