"""Two language models side by side: how good, how large, how fast.

Each is measured as Keras runs it, as a SavedModel, and as TFLite in float32 and
int8.
"""

import contextlib
import dataclasses
import functools
import statistics
import time

import keras
import numpy as np
from python_text import sequences
from rich import progress
from rich.table import Table
from training_picture import draw

import keras_iss

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


@contextlib.contextmanager
def stages():
    """Shows a progress bar for each stage of a program.

    Yields:
        Function that begins a stage, from its name and how many ticks it has;
        what it returns is to be called for each tick.
    """
    with progress.Progress(
        progress.TextColumn("{task.description:<22}"),
        progress.BarColumn(),
        progress.TextColumn("{task.completed}/{task.total}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    ) as bars:

        def stage(name, total):
            return functools.partial(
                bars.advance, bars.add_task(name, total=total)
            )

        yield stage


def crossentropy():
    """The metric that `perplexity` reads, free of any penalty."""
    return keras.metrics.SparseCategoricalCrossentropy(
        from_logits=True, name="crossentropy"
    )


def cosine(highest, updates):
    """A learning rate: up in a tenth of the updates, then down to 5 %."""
    warmup = updates // 10
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        updates - warmup,
        alpha=0.05,
        warmup_target=highest,
        warmup_steps=warmup,
    )


class Tick(keras.callbacks.Callback):
    """Calls a function with every batch."""

    def __init__(self, tick):
        super().__init__()
        self.tick = tick

    def on_train_batch_end(self, batch, logs=None):
        self.tick()

    def on_test_batch_end(self, batch, logs=None):
        self.tick()


def compare(models, history, corpus, plan, folder, stage):
    """Saves, evaluates, exports and times models, and draws a picture.

    Args:
        models: Dict with the models `"dense"` and `"iss"`.
        history: `training_picture.History` of the second.
        corpus: `python_text.Corpus`.
        plan: `Plan` of the quickstart.
        folder: `pathlib.Path` for the files.
        stage: Function, as `stages` gives it.

    Returns:
        Dict from name to a dict of what was measured; and the `sizes` of each
        epoch, the `plan`, the `tokens` of the text and the `versions`.
    """
    result = {
        name: describe(model, folder / f"{name}.keras")
        for name, model in models.items()
    }
    tick = stage("comparing", len(models) * evaluations(corpus, plan))
    for name, model in models.items():
        for part in ("valid", "test"):
            tokens = getattr(corpus, part)
            result[name][part] = perplexity(model, tokens, plan, tick)
    tick = stage("exporting", 3 * len(models))
    runs = {
        name: export(model, folder, name, plan, tick)
        for name, model in models.items()
    }
    tick = stage("measuring latency", 4 * len(models) * plan.timed)
    for name, times in latencies(runs, plan, tick).items():
        for kind, milliseconds in times.items():
            result[name][f"{kind}_ms"] = milliseconds
        for kind in ("float32", "int8"):
            size = (folder / f"{name}_{kind}.tflite").stat().st_size
            result[name][f"{kind}_megabytes"] = size / 1e6
    steps = 3 * plan.updates * plan.batch * plan.steps
    of_dense = [result["dense"]["mult_adds"]] * plan.epochs[0]
    for name, epochs in (("dense", of_dense), ("iss", history.mult_adds)):
        result[name]["training_mult_adds"] = steps * sum(epochs)
    tick = stage("drawing", 1)
    draw(history, result, headline(result), folder / "quickstart.png")
    tick()
    result["sizes"] = history.units
    result["plan"] = dataclasses.asdict(plan)
    result["tokens"] = {
        part: len(getattr(corpus, part)) for part in ("train", "valid", "test")
    }
    result["versions"] = {
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }
    return result


def describe(model, path):
    """Saves a model, and says what it is made of."""
    # Without the optimizer's state.
    bare = keras.Model.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    bare.save(path)
    structures = keras_iss.find_structures(model)
    counts = structures.counts()
    return {
        "units": [structure.size for structure in structures],
        "weights": counts.weights,
        "recurrent_weights": counts.recurrent_weights,
        "mult_adds": counts.mult_adds,
        "file_megabytes": path.stat().st_size / 1e6,
    }


def evaluations(corpus, plan):
    """How many batches it takes to evaluate a model on the held-out text."""
    counts = [
        (len(tokens) - 1) // plan.steps
        for tokens in (corpus.valid, corpus.test)
    ]
    if plan.evaluated is not None:
        counts = [plan.evaluated] * 2
    return sum(count // plan.batch for count in counts)


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
        plan: `Plan` of the quickstart.
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


def table_of(result):
    """Dense and ISS side by side."""
    table = Table(title=headline(result))
    for title in ("", "dense", "ISS", "ISS / dense"):
        table.add_column(title, justify="right" if title else "left")
    for title, key, shown in ROWS:
        dense, iss = result["dense"][key], result["iss"][key]
        ratio = "" if key == "units" else f"{iss / dense:.2f}"
        table.add_row(title, shown.format(dense), shown.format(iss), ratio)
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


def summary(result, folder):
    """How much faster it became, how long all of it took, and what is left."""
    faster = result["dense"]["keras_ms"] / result["iss"]["int8_ms"]
    return (
        f"From the dense model in Keras to the ISS model in int8: {faster:.1f} "
        "times as fast, one sequence at a time.\n"
        f"{result['seconds']:.0f} seconds. In {folder}, of dense and iss: "
        ".keras, _saved_model, _float32.tflite, _int8.tflite; and "
        "quickstart.png, result.json"
    )
