"""How good a model is after a cut and no training: plain cut and refit.

Trains a language model of two LSTMs, with a light penalty as `ISSBudget` would,
and cuts it to 60 % and to 30 % of its recurrent weights:

- by group norm, with what reads the removed units left as it is;
- by group norm, with a refit;
- by what a refit cannot make up for (`by="redundancy"`), with a refit.

    python benchmarks/refit.py --data FOLDER

`FOLDER` holds plain-text files. Trained models are kept in `--models`, and not
trained again. Writes results/refit.json: the perplexity on test text, and how
much worse it is than that of the model before the cut.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import keras_iss

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))
from common import write
from paper import text

BATCH, STEPS, VOCABULARY = 20, 35, 2000
UNITS, EMBEDDING = 128, 128
TOKENS, EPOCHS, STRENGTH = 200_000, 4, 2e-5
SHARES = (0.6, 0.3)
SAMPLES = 1000  # Of the training text, for a refit.
WAYS = {
    "cut": {},
    "refit": {"refit": True},
    "refit, redundancy": {"refit": True, "importance": "redundancy"},
}


def sequences(tokens, count=None):
    """Inputs and targets of shape `(count, STEPS)`, from everywhere."""
    there = (len(tokens) - 1) // STEPS
    chosen = np.arange(there // BATCH * BATCH)
    if count is not None and count < len(chosen):
        chosen = np.linspace(0, there - 1, count // BATCH * BATCH).astype(int)
    size = there * STEPS
    return (
        tokens[:size].reshape(there, STEPS)[chosen],
        tokens[1 : size + 1].reshape(there, STEPS)[chosen],
    )


def build(seed):
    """The language model."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((STEPS,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(VOCABULARY, EMBEDDING)(tokens)
    x = keras.layers.Dropout(0.2)(x)
    for i in (1, 2):
        x = keras.layers.LSTM(UNITS, return_sequences=True, name=f"lstm_{i}")(x)
        x = keras.layers.Dropout(0.2)(x)
    return keras.Model(tokens, keras.layers.Dense(VOCABULARY, name="logits")(x))


def trained(seed, data, folder, progress):
    """The path of a trained model, which is trained where it is not there."""
    path = folder / f"language_{seed}.keras"
    if path.exists():
        return path
    model = build(seed)
    keras_iss.ISSRegularizer(STRENGTH).attach(model)
    updates = len(data[0]) // BATCH * EPOCHS
    rate = keras.optimizers.schedules.CosineDecay(0.005, updates, alpha=0.05)
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    task = progress.add_task(f"training, seed {seed}", total=updates)
    advance = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: progress.advance(task)
    )
    model.fit(
        *data,
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[advance],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return path


def perplexity(model, data):
    """The exponential of the mean cross-entropy, without any penalty."""
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    loss = model.evaluate(*data, batch_size=100, verbose=0)
    return float(np.exp(loss))


def rows_of(seed, path, train, test, progress):
    """A row for each way and size, and for the model as it is."""
    dense = perplexity(keras.models.load_model(path), test)
    rows = [{"seed": seed, "way": "dense", "weights": 1.0, "test": dense}]
    task = progress.add_task(f"cuts, seed {seed}", total=6)
    step = max(len(train[0]) // SAMPLES, 1)
    some = train[0][::step]
    for share in SHARES:
        for way, arguments in WAYS.items():
            model = keras.models.load_model(path)
            start = time.perf_counter()
            data = some if arguments else None
            keras_iss.prune(model, weights=share, data=data, **arguments)
            seconds = time.perf_counter() - start
            test_after = perplexity(model, test)
            rows.append(
                {
                    "seed": seed,
                    "way": way,
                    "weights": share,
                    "test": test_after,
                    "worse": test_after / dense - 1,
                    "seconds": seconds,
                    "sizes": [
                        x.alive for x in keras_iss.find_structures(model)
                    ],
                }
            )
            progress.advance(task)
    return rows


def table_of(rows):
    """The mean over the seeds of how much worse each way is."""
    table = Table(title="Perplexity after a cut without training")
    for title in ("weights", "way", "worse", "worst seed"):
        table.add_column(title, justify="right")
    for share in SHARES:
        for way in WAYS:
            worse = [
                x["worse"]
                for x in rows
                if x["way"] == way and x["weights"] == share
            ]
            table.add_row(
                f"{share:.0%}",
                way,
                f"{statistics.mean(worse):.2%}",
                f"{max(worse):.2%}",
            )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, default="refit_models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    corpus = text.text_folder(arguments.data, VOCABULARY)
    train = sequences(corpus.train, TOKENS // STEPS)
    test = sequences(corpus.test, TOKENS // STEPS // 4)
    rows = []
    with Progress() as progress:
        for seed in arguments.seeds:
            path = trained(seed, train, arguments.models, progress)
            rows += rows_of(seed, path, train, test, progress)
    Console().print(table_of(rows))
    write("refit", {"rows": rows})


if __name__ == "__main__":
    main()
