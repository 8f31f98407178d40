"""How good a model is after a cut and no training: plain cut and refit.

Two models, trained with a light penalty as `ISSBudget` would, are cut to 60 %
and to 30 % of their recurrent weights:

- by group norm, with what reads the removed units left as it is;
- by group norm, with a refit;
- by what a refit cannot make up for (`by="redundancy"`), with a refit.

One is a language model of two LSTMs on a folder of plain-text files. The other
tells apart nine speakers by recorded vowels of 7 to 29 time steps, with a
Bidirectional GRU and a Bidirectional LSTM; `VOWELS` is the folder with
`JapaneseVowels_TRAIN.ts` and `JapaneseVowels_TEST.ts`, which the package
`aeon` has under `aeon/datasets/data`.

    python benchmarks/refit.py --text FOLDER
    python benchmarks/refit.py --vowels VOWELS --out refit_vowels

Trained models are kept in `--models`, and not trained again. Writes
results/refit.json and results/refit_vowels.json: perplexity and error rate on
test data, and how much worse they are than those of the model before the cut.
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

SHARES = (0.6, 0.3)
WAYS = {
    "cut": {},
    "refit": {"refit": True},
    "refit, redundancy": {"refit": True, "importance": "redundancy"},
}

BATCH, STEPS, VOCABULARY = 20, 35, 2000
TOKENS, SAMPLES = 200_000, 1140  # To train on, and for a refit.


class Task:
    """A model, and data for it.

    Attributes:
        name: String.
        epochs: Integer.
        strength: Float, of the penalty.
        train: Pair of inputs and targets.
        test: The same.
        some: Inputs that a refit is done on.
    """

    def compile(self, model, updates=1):
        """Compiles a model, for so many updates."""
        rate = keras.optimizers.schedules.CosineDecay(
            0.005, updates, alpha=0.05
        )
        model.compile(
            keras.optimizers.Adam(rate, global_clipnorm=1.0),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
        )

    def quality(self, model):
        """The perplexity and the error rate on test data."""
        inputs, targets = self.test
        self.compile(model)
        # The loss has no penalty in it: it is not saved with a model.
        found = model.evaluate(
            inputs, targets, batch_size=100, verbose=0, return_dict=True
        )
        return float(np.exp(found["loss"])), 1 - float(found["accuracy"])


class Language(Task):
    """The next word."""

    name, epochs, strength = "language", 4, 2e-5

    def __init__(self, folder):
        corpus = text.text_folder(folder, VOCABULARY)
        self.train = sequences(corpus.train, TOKENS // STEPS)
        self.test = sequences(corpus.test, TOKENS // STEPS // 4)
        inputs, _ = self.train
        self.some = inputs[:: max(len(inputs) // SAMPLES, 1)]

    def build(self):
        """Two LSTMs of 128."""
        tokens = keras.Input((STEPS,), dtype="int32", name="tokens")
        x = keras.layers.Embedding(VOCABULARY, 128)(tokens)
        x = keras.layers.Dropout(0.2)(x)
        for i in (1, 2):
            x = keras.layers.LSTM(128, return_sequences=True, name=f"lstm_{i}")(
                x
            )
            x = keras.layers.Dropout(0.2)(x)
        logits = keras.layers.Dense(VOCABULARY, name="logits")(x)
        return keras.Model(tokens, logits)


class Speakers(Task):
    """Which of nine speakers says a vowel."""

    name, epochs, strength = "speakers", 30, 1e-4

    def __init__(self, folder):
        self.train = vowels(folder / "JapaneseVowels_TRAIN.ts")
        self.test = vowels(folder / "JapaneseVowels_TEST.ts")
        self.some, _ = self.train

    def build(self):
        """Two Bidirectional layers of 2 x 32, over a mask."""
        x = sound = keras.Input((None, 12))
        x = keras.layers.Masking()(x)
        x = keras.layers.Bidirectional(
            keras.layers.GRU(32, return_sequences=True), name="first"
        )(x)
        x = keras.layers.Dropout(0.3)(x)
        x = keras.layers.Bidirectional(keras.layers.LSTM(32), name="second")(x)
        x = keras.layers.Dropout(0.3)(x)
        return keras.Model(sound, keras.layers.Dense(9, name="logits")(x))


def vowels(path):
    """Sequences padded with zeros, and the number of each speaker."""
    _, _, rows = path.read_text().partition("@data")
    found, labels = [], []
    for row in rows.split():
        *channels, label = row.split(":")
        found.append(np.array([x.split(",") for x in channels], "float32").T)
        labels.append(int(label) - 1)
    padded = np.zeros((len(found), max(map(len, found)), 12), "float32")
    for target, values in zip(padded, found):
        target[: len(values)] = values
    return padded, np.array(labels)


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


def trained(task, seed, folder, progress):
    """The path of a trained model, which is trained where it is not there."""
    path = folder / f"{task.name}_{seed}.keras"
    if path.exists():
        return path
    keras.utils.set_random_seed(seed)
    model = task.build()
    keras_iss.ISSRegularizer(task.strength).attach(model)
    updates = -(-len(task.train[0]) // BATCH) * task.epochs
    task.compile(model, updates)
    bar = progress.add_task(f"{task.name}, seed {seed}", total=updates)
    advance = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: progress.advance(bar)
    )
    model.fit(
        *task.train,
        batch_size=BATCH,
        epochs=task.epochs,
        verbose=0,
        callbacks=[advance],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return path


def rows_of(task, seed, path, progress):
    """A row for each way and size, and for the model as it is."""
    dense, wrong = task.quality(keras.models.load_model(path))
    row = {"task": task.name, "seed": seed}
    rows = [
        {
            **row,
            "way": "dense",
            "weights": 1.0,
            "perplexity": dense,
            "error_rate": wrong,
        }
    ]
    cuts = [(share, way) for share in SHARES for way in WAYS]
    bar = progress.add_task(f"{task.name}, seed {seed}: cuts", total=len(cuts))
    for share, way in cuts:
        arguments = WAYS[way]
        model = keras.models.load_model(path)
        start = time.perf_counter()
        data = task.some if arguments else None
        structures = keras_iss.prune(
            model, weights=share, data=data, **arguments
        )
        seconds = time.perf_counter() - start
        after, wrong_after = task.quality(model)
        rows.append(
            {
                **row,
                "way": way,
                "weights": share,
                "perplexity": after,
                "error_rate": wrong_after,
                "worse": after / dense - 1,
                "more_errors": wrong_after - wrong,
                "seconds": seconds,
                "sizes": [x.alive for x in structures],
            }
        )
        progress.advance(bar)
    return rows


def table_of(rows):
    """The mean over the seeds of how much worse each way is."""
    table = Table(title="After a cut without training")
    for title in (
        "task",
        "weights",
        "way",
        "perplexity, worse",
        "of the worst seed",
        "more errors",
    ):
        table.add_column(title, justify="right")
    for task in dict.fromkeys(x["task"] for x in rows):
        for share in SHARES:
            for way in WAYS:
                own = [
                    x
                    for x in rows
                    if (x["task"], x["way"], x["weights"]) == (task, way, share)
                ]
                worse = [x["worse"] for x in own]
                more = [x["more_errors"] for x in own]
                table.add_row(
                    task,
                    f"{share:.0%}",
                    way,
                    f"{statistics.mean(worse):.2%}",
                    f"{max(worse):.2%}",
                    f"{statistics.mean(more):.2%}",
                )
    return table


def main():
    """Trains, cuts, and writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--vowels", type=pathlib.Path)
    parser.add_argument("--out", default="refit")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--models", type=pathlib.Path, default=pathlib.Path("refit_models")
    )
    arguments = parser.parse_args()
    tasks = []
    if arguments.text:
        tasks.append(Language(arguments.text))
    if arguments.vowels:
        tasks.append(Speakers(arguments.vowels))
    if not tasks:
        parser.error("Give `--text`, `--vowels` or both.")
    rows = []
    with Progress() as progress:
        for task in tasks:
            for seed in arguments.seeds:
                path = trained(task, seed, arguments.models, progress)
                rows += rows_of(task, seed, path, progress)
    Console().print(table_of(rows))
    write(arguments.out, {"rows": rows})


if __name__ == "__main__":
    main()
