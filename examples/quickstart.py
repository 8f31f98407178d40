"""The whole story on real text: train, find what is not needed, cut it out.

Trains a language model of two LSTMs on text that every Python ships (the
language reference and the docstrings of the standard library, about 490,000
tokens), first dense, then with Intrinsic Sparse Structures: `ISSBudget` lets it
learn under a light penalty and takes the weakest units out in a few steps, and
`keras_iss.fit` makes the model smaller at each. Neither training costs more: as
the second model shrinks, it sees more text for the same multiply-adds. At the
end both models are exported, as SavedModel and for phones, and their size and
latency measured.

    python examples/quickstart.py            # a few minutes on two cores
    python examples/quickstart.py --quick    # under a minute, learns little
    python examples/quickstart.py --full     # an hour, and a better model

Writes both models, what was exported, a table and a picture into the folder
`quickstart`.
"""

import argparse
import ast
import collections
import dataclasses
import functools
import json
import os
import pathlib
import re
import statistics
import sysconfig
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pydoc_data import topics

import keras
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

import keras_iss

# The text.

TOKEN = re.compile(r"[a-z_]+|\d+|[^\w\s]|\n\n+")
END_OF_DOCUMENT = "<end>"
UNKNOWN = 0

# Not in every Python, or not about it.
SKIPPED = {
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


def documents():
    """The texts by name: topics of the language reference, and modules."""
    texts = {f"topic {name}": text for name, text in topics.topics.items()}
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if SKIPPED.intersection(name.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        found = [
            ast.get_docstring(node)
            for node in ast.walk(tree)
            if isinstance(
                node,
                ast.Module
                | ast.ClassDef
                | ast.FunctionDef
                | ast.AsyncFunctionDef,
            )
        ]
        text = "\n\n".join(filter(None, found))
        if text:
            texts[f"module {name.as_posix()}"] = text
    return texts


def tokenized(texts):
    """The tokens of each text, without paragraphs that another one has.

    Topics repeat each other in part: what is held out would be known.
    """
    seen, result = set(), []
    for name in sorted(texts):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", texts[name].lower()):
            key = " ".join(paragraph.split())
            if len(key) > 40 and key in seen:
                continue
            seen.add(key)
            paragraphs.append(paragraph)
        tokens = TOKEN.findall("\n\n".join(paragraphs))
        if len(tokens) >= 20:
            result.append([*tokens, END_OF_DOCUMENT])
    return result


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Integer tokens. Of every ten documents, one validates and one tests."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: int

    @classmethod
    def read(cls, vocabulary):
        """Reads the text, keeping the most frequent words."""
        split = {"train": [], "valid": [], "test": []}
        for i, tokens in enumerate(tokenized(documents())):
            part = {0: "valid", 5: "test"}.get(i % 10, "train")
            split[part].append(tokens)
        words = collections.Counter(
            token for tokens in split["train"] for token in tokens
        )
        number = {
            word: i + 1
            for i, (word, _) in enumerate(words.most_common(vocabulary - 1))
        }
        parts = {
            part: np.array(
                [
                    number.get(token, UNKNOWN)
                    for tokens in texts
                    for token in tokens
                ],
                "int32",
            )
            for part, texts in split.items()
        }
        return cls(vocabulary=vocabulary, **parts)


def sequences(tokens, steps):
    """Inputs and targets, each of shape `(count, steps)`."""
    count = (len(tokens) - 1) // steps
    return (
        tokens[: count * steps].reshape(count, steps),
        tokens[1 : count * steps + 1].reshape(count, steps),
    )


# The models.


@dataclasses.dataclass(frozen=True)
class Plan:
    """The size of everything.

    Attributes:
        updates: Integer, the training steps of an epoch. It is a part of the
            text, the next one each time.
        epochs: Pair of integers: of the dense model, and of the other one,
            which does not cost more as it shrinks.
        share: Float, of the recurrent weights, what is left of the other one.
        evaluated: Integer, on how many sequences models are compared; `None`
            for all.
        timed: Integer, how often each model's latency is measured.
    """

    vocabulary: int = 5000
    units: int = 256
    dropout: float = 0.1
    batch: int = 20
    steps: int = 35
    learning_rate: float = 0.005
    updates: int = 50
    epochs: tuple = (8, 11)
    share: float = 0.3
    evaluated: int | None = None
    timed: int = 15


PLANS = {
    "default": Plan(),
    "quick": Plan(
        vocabulary=1000,
        units=32,
        dropout=0.0,
        learning_rate=0.02,
        updates=25,
        evaluated=200,
        timed=3,
    ),
    "full": Plan(vocabulary=10_000, units=512, updates=750),
}


def language_model(plan, corpus):
    """Embedding, two LSTMs, and the logits of the next token."""
    tokens = keras.Input((plan.steps,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(plan.vocabulary, plan.units)(tokens)
    x = keras.layers.Dropout(plan.dropout)(x)
    for i in (1, 2):
        x = keras.layers.LSTM(
            plan.units,
            return_sequences=True,
            name=f"lstm_{i}",
        )(x)
        x = keras.layers.Dropout(plan.dropout)(x)
    logits = keras.layers.Dense(plan.vocabulary, name="logits")
    model = keras.Model(tokens, logits(x))
    # It need not learn how frequent each word is.
    counts = np.bincount(corpus.train, minlength=plan.vocabulary) + 0.5
    logits.bias.assign(np.log(counts / counts.sum()))
    return model


def compile_for(model, plan, epochs):
    """Compiles a model for a training of so many epochs."""
    updates = epochs * plan.updates
    warmup = updates // 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        updates - warmup,
        alpha=0.05,
        warmup_target=plan.learning_rate,
        warmup_steps=warmup,
    )
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalCrossentropy(
                from_logits=True, name="crossentropy"
            )
        ],
    )


class Tick(keras.callbacks.Callback):
    """Moves a progress bar by one with every batch."""

    def __init__(self, tick):
        super().__init__()
        self.tick = tick

    def on_train_batch_end(self, batch, logs=None):
        self.tick()

    def on_test_batch_end(self, batch, logs=None):
        self.tick()


class Parts(keras.utils.PyDataset):
    """Shuffled training sequences, pass after pass; an epoch takes a part."""

    def __init__(self, corpus, plan, seed):
        super().__init__()
        self.inputs, self.targets = sequences(corpus.train, plan.steps)
        self.random = np.random.default_rng(seed)
        self.updates, self.batch = plan.updates, plan.batch
        self.order = np.zeros(0, int)
        self.on_epoch_end()

    def __len__(self):
        return self.updates

    def __getitem__(self, index):
        chosen = self.chosen[index * self.batch : (index + 1) * self.batch]
        return self.inputs[chosen], self.targets[chosen]

    def on_epoch_end(self):
        """Takes the next part."""
        count = self.updates * self.batch
        while len(self.order) < count:
            fresh = self.random.permutation(len(self.inputs))
            self.order = np.concatenate([self.order, fresh])
        self.chosen, self.order = self.order[:count], self.order[count:]


def train_dense(plan, corpus, seed, epochs, tick):
    """The model as one would train it without keras-iss."""
    keras.utils.set_random_seed(seed)
    model = language_model(plan, corpus)
    compile_for(model, plan, epochs)
    model.fit(
        Parts(corpus, plan, seed),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[Tick(tick)],
    )
    return model


@dataclasses.dataclass
class History:
    """What the picture shows of the second training.

    Attributes:
        norms: Dict from structure to its group norms after the last epoch
            with nothing removed.
        matrices: Dict from structure to its kernels then, input over hidden.
        left: Dict from structure to the indices of the units that stay.
        units: For each epoch, dict from structure to the units it had.
        mult_adds: For each epoch, the multiply-adds of a token.
    """

    norms: dict = dataclasses.field(default_factory=dict)
    matrices: dict = dataclasses.field(default_factory=dict)
    left: dict = dataclasses.field(default_factory=dict)
    units: list = dataclasses.field(default_factory=list)
    mult_adds: list = dataclasses.field(default_factory=list)

    def before_the_cut(self, model):
        """Keeps what an epoch had, and how it was before the first cut."""
        structures = keras_iss.find_structures(model)
        self.units.append({one.name: one.size for one in structures})
        self.mult_adds.append(structures.counts().mult_adds)
        if self.units[-1] != self.units[0] or any(
            one.removed().any() for one in structures
        ):
            return
        for one in structures:
            cell = model.get_layer(one.name).cell
            self.left[one.name] = np.arange(one.size)
            self.norms[one.name] = one.norms()
            self.matrices[one.name] = np.concatenate(
                [
                    keras.ops.convert_to_numpy(w)
                    for w in (cell.kernel, cell.recurrent_kernel)
                ]
            )

    def after_the_cut(self, model):
        """Remembers which of the units there were at first are left."""
        for one in keras_iss.find_structures(model):
            self.left[one.name] = self.left[one.name][~one.removed()]


def train_iss(plan, corpus, seed, tick):
    """The same model, losing its weakest units while it learns."""
    keras.utils.set_random_seed(seed)
    model = language_model(plan, corpus)
    epochs = plan.epochs[1]
    compile_for(model, plan, epochs)
    history = History()
    model = keras_iss.fit(
        model,
        Parts(corpus, plan, seed),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            Watch(history.before_the_cut),
            keras_iss.ISSBudget(weights=plan.share),
            Watch(history.after_the_cut),
            Tick(tick),
        ],
    )
    return model, history


class Watch(keras.callbacks.Callback):
    """Looks at the model of the moment after each epoch."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def on_epoch_end(self, epoch, logs=None):
        self.look(self.model)


# What comes of it.


def perplexity(model, tokens, plan, tick):
    """Two to the bits that the model needs for a token, on average."""
    inputs, targets = sequences(tokens, plan.steps)
    count = len(inputs) if plan.evaluated is None else plan.evaluated
    count -= count % plan.batch
    result = model.evaluate(
        inputs[:count],
        targets[:count],
        batch_size=plan.batch,
        verbose=0,
        return_dict=True,
        callbacks=[Tick(tick)],
    )
    return float(np.exp(result["crossentropy"]))


def export(model, folder, name, plan, tick):
    """Writes a SavedModel and TFLite files, for one sequence at a time.

    Returns:
        Dict from what the tables call a file to a function that runs it.
    """
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    random = np.random.default_rng(0)
    tokens = random.integers(1, plan.vocabulary, (1, plan.steps), "int32")
    path = folder / f"{name}_saved_model"
    keras_iss.export_saved_model(model, path)
    tick()
    loaded = tf.saved_model.load(str(path))
    runs = {"saved_model": lambda: loaded.serve(tf.constant(tokens))}
    for kind, quantize in (("float32", None), ("int8", "int8")):
        path = folder / f"{name}_{kind}.tflite"
        keras_iss.export_tflite(model, path, quantize=quantize)
        tick()
        interpreter = Interpreter(str(path), num_threads=2)
        runner = interpreter.get_signature_runner("serve")
        runs[kind] = functools.partial(runner, tokens=tokens)
    call = tf.function(lambda x: model(x, training=False))
    runs["keras"] = lambda: call(tf.constant(tokens))
    return runs


def latencies(runs, plan, tick):
    """Median milliseconds of what was exported, everything taking turns.

    Args:
        runs: Dict from model to file to a function.
        plan: `Plan`.
        tick: Function to call after each measurement.

    Returns:
        Dict from model to file to milliseconds.
    """
    times = {name: {kind: [] for kind in runs[name]} for name in runs}
    for _ in range(plan.timed):
        for name, by_kind in runs.items():
            for kind, run in by_kind.items():
                run()
                spent = []
                for _ in range(5):
                    start = time.perf_counter()
                    run()
                    spent.append(1000 * (time.perf_counter() - start))
                times[name][kind].append(statistics.median(spent))
                tick()
    return {
        name: {kind: statistics.median(t) for kind, t in by_kind.items()}
        for name, by_kind in times.items()
    }


def describe(model, path):
    """Saves a model, and says what it is made of."""
    # Without the optimizer's state.
    bare = keras.Model.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    bare.save(path)
    counts = keras_iss.find_structures(model).counts()
    return {
        "units": [model.get_layer(f"lstm_{i}").units for i in (1, 2)],
        "weights": counts.weights,
        "recurrent_weights": counts.recurrent_weights,
        "mult_adds": counts.mult_adds,
        "file_megabytes": path.stat().st_size / 1e6,
    }


ROWS = (
    ("perplexity, validation", "valid", "{:.2f}"),
    ("perplexity, test", "test", "{:.2f}"),
    ("units", "units", "{}"),
    ("weights", "weights", "{:,}"),
    ("of them recurrent", "recurrent_weights", "{:,}"),
    ("multiply-adds per token", "mult_adds", "{:,}"),
    ("file, MB", "file_megabytes", "{:.1f}"),
    ("TFLite float32, MB", "float32_megabytes", "{:.1f}"),
    ("TFLite int8, MB", "int8_megabytes", "{:.1f}"),
    ("Keras, 1 sequence, ms", "keras_ms", "{:.2f}"),
    ("SavedModel, 1 sequence, ms", "saved_model_ms", "{:.2f}"),
    ("TFLite float32, 1 sequence, ms", "float32_ms", "{:.2f}"),
    ("TFLite int8, 1 sequence, ms", "int8_ms", "{:.2f}"),
    ("multiply-adds of training", "training_mult_adds", "{:.2e}"),
)


def table_of(result, plan):
    """Dense and ISS side by side."""
    table = Table(title=headline(result))
    for title in ("", "dense", "ISS", "ISS / dense"):
        table.add_column(title, justify="right" if title else "left")
    for title, key, shown in ROWS:
        dense, iss = result["dense"][key], result["iss"][key]
        ratio = "" if key == "units" else f"{iss / dense:.2f}"
        table.add_row(
            title,
            shown.format(dense),
            shown.format(iss),
            ratio,
        )
    return table


def headline(result):
    """The outcome in a line."""
    dense, iss = result["dense"], result["iss"]
    worse = 100 * (iss["test"] / dense["test"] - 1)
    share = 100 * iss["recurrent_weights"] / dense["recurrent_weights"]
    return (
        f"test perplexity {dense['test']:.1f} dense, {iss['test']:.1f} ISS "
        f"({worse:+.1f} %) with {share:.0f} % of the recurrent weights"
    )


def draw(history, result, path):
    """The picture: what was short, where it lay, and when it went."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names = list(history.norms)
    figure, axes = pyplot.subplots(
        2, 3, figsize=(15, 8), width_ratios=(1, 1.4, 1), layout="constrained"
    )
    figure.suptitle(headline(result))
    for name, (norms, matrix, _) in zip(names, axes):
        values, left = history.norms[name], history.left[name]
        gone = ~np.isin(np.arange(len(values)), left)
        bins = np.linspace(0, values.max(), 40)
        norms.hist(
            [values[~gone], values[gone]],
            bins,
            stacked=True,
            color=["tab:blue", "tab:red"],
            label=[f"stay ({len(left)})", f"are cut out ({gone.sum()})"],
        )
        norms.set(
            title=f"{name}: group norms before the first cut",
            xlabel="group norm",
            ylabel="units",
        )
        norms.legend()
        show_matrix(matrix, history.matrices[name], gone, name)
    over_time, costs = axes[0][2], axes[1][2]
    for name in names:
        units = [sizes[name] for sizes in history.units]
        over_time.stairs(units, label=name, baseline=None, linewidth=2)
    over_time.set(
        title="units over the training", xlabel="epochs", ylabel="units"
    )
    over_time.set_ylim(0)
    over_time.legend()
    shown = {
        "test perplexity": "test",
        "recurrent weights": "recurrent_weights",
        "multiply-adds": "mult_adds",
        "file size": "file_megabytes",
        "latency, TFLite": "float32_ms",
    }
    ratios = [
        100 * result["iss"][key] / result["dense"][key]
        for key in shown.values()
    ]
    bars = costs.barh(list(shown), ratios, color="tab:blue")
    costs.bar_label(bars, fmt="%.0f %%", padding=2)
    costs.axvline(100, color="black", linewidth=1)
    costs.set(title="ISS in percent of dense", xlim=(0, 125))
    costs.invert_yaxis()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def show_matrix(axes, matrix, gone, name):
    """The weights of an LSTM; in red, what goes with the removed units."""
    units = len(gone)
    inputs = len(matrix) - units
    shade = np.abs(matrix) / np.quantile(np.abs(matrix), 0.99)
    image = np.repeat(1 - np.clip(shade, 0, 1)[..., None], 3, axis=2)
    cut = np.zeros(matrix.shape, bool)
    cut[:, np.tile(gone, 4)] = True
    cut[inputs:][gone] = True
    image[cut] *= (1.0, 0.55, 0.55)
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.axhline(inputs, color="tab:blue", linewidth=1)
    axes.set(
        title=f"{name}: weights, in red what is cut out",
        xlabel="columns: gates i, f, c, o",
        ylabel="rows: input, then hidden",
    )


def run(plan, seed, folder, console):
    """Both trainings and their comparison.

    Args:
        plan: `Plan`.
        seed: Integer.
        folder: `pathlib.Path`, for what is written.
        console: `rich.console.Console`, for the progress bars.

    Returns:
        Dict of everything that was measured.
    """
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:

        def stage(name, total):
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        tick = stage("reading the text", 1)
        corpus = Corpus.read(plan.vocabulary)
        tick()
        tick = stage("training, dense", plan.updates * plan.epochs[0])
        dense = train_dense(plan, corpus, seed, plan.epochs[0], tick)
        tick = stage("training, ISS", plan.updates * plan.epochs[1])
        iss, history = train_iss(plan, corpus, seed, tick)
        models = {"dense": dense, "iss": iss}
        result = {
            name: describe(model, folder / f"{name}.keras")
            for name, model in models.items()
        }
        tick = stage("comparing", 2 * evaluations(corpus, plan))
        for name, model in models.items():
            for part in ("valid", "test"):
                tokens = getattr(corpus, part)
                result[name][part] = perplexity(model, tokens, plan, tick)
        tick = stage("exporting", 3 * len(models))
        runs = {
            name: export(model, folder, name, plan, tick)
            for name, model in models.items()
        }
        tick = stage("measuring latency", 8 * plan.timed)
        for name, times in latencies(runs, plan, tick).items():
            for kind, milliseconds in times.items():
                result[name][f"{kind}_ms"] = milliseconds
            for kind in ("float32", "int8"):
                size = (folder / f"{name}_{kind}.tflite").stat().st_size
                result[name][f"{kind}_megabytes"] = size / 1e6
        of_dense = [result["dense"]["mult_adds"]] * plan.epochs[0]
        for name, epochs in (("dense", of_dense), ("iss", history.mult_adds)):
            result[name]["training_mult_adds"] = (
                3 * plan.updates * plan.batch * plan.steps * sum(epochs)
            )
        tick = stage("drawing", 1)
        draw(history, result, folder / "quickstart.png")
        tick()
    result.update(
        seed=seed,
        tokens={
            part: len(getattr(corpus, part))
            for part in ("train", "valid", "test")
        },
        sizes=history.units,
        plan=dataclasses.asdict(plan),
        versions={
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        },
        seconds=time.perf_counter() - start,
    )
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def evaluations(corpus, plan):
    """How many batches it takes to compare on the held-out text."""
    counts = [
        (len(tokens) - 1) // plan.steps
        for tokens in (corpus.valid, corpus.test)
    ]
    if plan.evaluated is not None:
        counts = [plan.evaluated] * 2
    return sum(count // plan.batch for count in counts)


def main():
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="under a minute")
    size.add_argument("--full", action="store_true", help="a better model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default="quickstart")
    arguments = parser.parse_args()
    name = (
        "quick" if arguments.quick else "full" if arguments.full else "default"
    )
    console = Console()
    plan = PLANS[name]
    result = run(plan, arguments.seed, arguments.out, console)
    console.print(table_of(result, plan))
    console.print(
        f"From the dense model in Keras to the ISS model in int8: "
        f"{result['dense']['keras_ms'] / result['iss']['int8_ms']:.1f} times "
        "as fast, one sequence at a time."
    )
    console.print(
        f"{result['seconds']:.0f} seconds. In {arguments.out}, of dense and "
        "iss: .keras, _saved_model, _float32.tflite, _int8.tflite; and "
        "quickstart.png, result.json"
    )


if __name__ == "__main__":
    main()
