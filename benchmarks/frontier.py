"""Perplexity against size, mult-adds, latency and training time, with peers.

One language model of two LSTMs on a folder of plain-text files, made smaller in
every way there is, all with as many epochs and the same schedule:

- dense, and direct design: small from the start, at the sizes of `budget`;
  each also with the light penalty of `budget`, which removes one unit only;
- magnitude pruning of single weights by TensorFlow Model Optimization (in its
  own Keras 2), to as many non-zero weights as `budget` has;
- one shot: half of the epochs dense, then cut by group norm or by Taylor
  importance, and the other half fine-tuned;
- the paper's way: a constant group Lasso, components pruned by threshold;
- `ISSBudget`, cutting as it trains or only at the end, with a regularizer or
  with `ProximalISS`.

    python benchmarks/frontier.py --data FOLDER
    python benchmarks/frontier.py --data FOLDER --units 650 --seeds 0

Rows that are in `--out` already are not computed again. Writes
results/frontier.json and results/frontier.png, or frontier_650 for 650 units.

What a training costs is the mean over its epochs of the multiply-adds of a
token: no clock is as exact. Seconds are
written too; to compare them, start what is compared at the same time, each on
a core of its own:

    taskset -c 0 python benchmarks/frontier.py ... --methods dense --part &
    taskset -c 1 python benchmarks/frontier.py ... --methods budget --part
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))
from paper import text

BATCH, STEPS, VOCABULARY = 20, 35, 5000
RATE, DROPOUT, CLIP = 0.005, 0.4, 1.0
THRESHOLD = 0.05  # Of the paper's way, for group norms.

# Of the recurrent weights; or the strength, in the paper's way.
SHARES = (0.3, 0.15)
STRENGTHS = (2e-4,)
METHODS = (
    "dense",
    "budget",
    "direct",
    "magnitude",
    "one_shot_norm",
    "one_shot_taylor",
    "budget_not_shrinking",
    "proximal_budget",
    "paper",
    "penalty",
    "direct_penalty",
)
TITLES = {
    "dense": "dense",
    "budget": "ISSBudget, keras_iss.fit",
    "direct": "direct design",
    "one_shot_norm": "one shot by norm, fine-tuned",
    "one_shot_taylor": "one shot by Taylor, fine-tuned",
    "magnitude": "TF-MOT magnitude, single weights",
    "proximal_budget": "ISSBudget with ProximalISS",
    "budget_not_shrinking": "ISSBudget, shrunk at the end",
    "paper": "constant group Lasso, threshold",
    "penalty": "dense, light penalty",
    "direct_penalty": "direct design, light penalty",
}


class Data:
    """Batches of contiguous sequences, in an order drawn for each epoch."""

    def __init__(self, arguments):
        corpus = text.text_folder(arguments.data, VOCABULARY)
        self.train = self.sequences(corpus.train)
        if arguments.tokens:
            # From everywhere: the files are sorted, often by year.
            count = len(self.train[0])
            wanted = arguments.tokens // STEPS // BATCH * BATCH
            chosen = np.linspace(0, count - 1, min(wanted, count)).astype(int)
            self.train = tuple(x[chosen] for x in self.train)
        self.test = self.sequences(corpus.test)
        self.seed = None

    @staticmethod
    def sequences(tokens):
        count = (len(tokens) - 1) // STEPS // BATCH * BATCH
        size = count * STEPS
        return (
            tokens[:size].reshape(count, STEPS),
            tokens[1 : size + 1].reshape(count, STEPS),
        )


def build(keras, embedding, units, seed):
    """The model, in Keras 3 or in Keras 2.

    Args:
        keras: The module.
        embedding: Integer, the size of the vectors of words.
        units: Pair of integers.
        seed: Integer.
    """
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((STEPS,), dtype="int32", name="tokens")
    layers = keras.layers
    x = layers.Embedding(VOCABULARY, embedding, name="embedding")(tokens)
    x = layers.Dropout(DROPOUT)(x)
    for i, size in enumerate(units, start=1):
        x = layers.LSTM(size, return_sequences=True, name=f"lstm_{i}")(x)
        x = layers.Dropout(DROPOUT)(x)
    return keras.Model(tokens, layers.Dense(VOCABULARY, name="logits")(x))


def optimizer_for(keras, updates):
    """Adam with warm-up and a cosine schedule."""
    warmup = updates // 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        updates - warmup,
        alpha=0.05,
        warmup_target=RATE,
        warmup_steps=warmup,
    )
    return keras.optimizers.Adam(rate, global_clipnorm=CLIP)


def loss_for(keras):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mult_adds_of(model):
    """The multiply-adds of a token."""
    import keras_iss

    return keras_iss.find_structures(model).counts().mult_adds


class Training:
    """What all methods share: model, data, schedule."""

    def __init__(self, data, units, epochs, seed):
        import keras

        self.keras = keras
        self.x, self.y = data.train
        self.test = data.test
        self.units, self.epochs, self.seed = units, epochs, seed
        self.updates = epochs * len(self.x) // BATCH
        self.mult_adds = []

    def compiled(self, units=None, wrap=lambda optimizer: optimizer):
        model = build(self.keras, self.units[0], units or self.units, self.seed)
        optimizer = wrap(optimizer_for(self.keras, self.updates))
        model.compile(optimizer, loss_for(self.keras))
        return model

    def arguments(self, *callbacks, **others):
        count = self.keras.callbacks.LambdaCallback()
        # The model, which may be a smaller one in each epoch.
        count.on_epoch_begin = lambda *_: self.mult_adds.append(
            mult_adds_of(count.model)
        )
        return {
            "batch_size": BATCH,
            "epochs": self.epochs,
            "verbose": 2,
            "callbacks": [count, *callbacks],
            **others,
        }

    def perplexity(self, model):
        bare = self.keras.Model.from_config(model.get_config())
        bare.set_weights(model.get_weights())
        bare.compile(loss=loss_for(self.keras))
        loss = bare.evaluate(*self.test, batch_size=BATCH, verbose=0)
        return float(np.exp(loss))


def dense(task, _, __):
    model = task.compiled()
    model.fit(task.x, task.y, **task.arguments())
    return model


def direct(task, _, found):
    model = task.compiled(units=found["units"])
    model.fit(task.x, task.y, **task.arguments())
    return model


def penalty(task, _, found=None):
    import keras_iss

    model = task.compiled(units=found and found["units"])
    almost_all = (
        sum(structure.size for structure in keras_iss.find_structures(model))
        - 1
    )
    callback = keras_iss.ISSBudget(units=almost_all)
    return keras_iss.fit(model, task.x, task.y, **task.arguments(callback))


def budget(task, share, _):
    import keras_iss

    callback = keras_iss.ISSBudget(weights=share)
    model = task.compiled()
    return keras_iss.fit(model, task.x, task.y, **task.arguments(callback))


def budget_not_shrinking(task, share, _):
    import keras_iss

    callback = keras_iss.ISSBudget(weights=share)
    model = task.compiled()
    model.fit(task.x, task.y, **task.arguments(callback))
    return keras_iss.shrink(model)


def proximal_budget(task, share, _):
    import keras_iss

    callback = keras_iss.ISSBudget(weights=share)
    model = task.compiled(
        wrap=functools.partial(keras_iss.ProximalISS, strength=0.0)
    )
    return keras_iss.fit(model, task.x, task.y, **task.arguments(callback))


def one_shot(by, task, share, _):
    import keras_iss

    model = task.compiled()
    half = task.epochs // 2
    model.fit(task.x, task.y, **task.arguments(epochs=half))
    importance = keras_iss.estimate_importance(
        model, (task.x, task.y), by=by, batches=50, batch_size=BATCH
    )
    keras_iss.prune(model, weights=share, importance=importance)
    model = keras_iss.shrink(model)
    model.fit(task.x, task.y, **task.arguments(initial_epoch=half))
    return model


def paper(task, strength, _):
    import keras_iss

    model = task.compiled()
    keras_iss.ISSRegularizer(strength).attach(model)
    prune = keras_iss.ISSPruneCallback(THRESHOLD, keep_removed=True)
    model.fit(task.x, task.y, **task.arguments(prune))
    return keras_iss.shrink(model)


def magnitude(task, share, _, row, arguments):
    """In a process of its own, since its Keras is another one."""
    path = row.with_suffix(".npz")
    command = [sys.executable, __file__, f"--peer={path}"]
    for name in ("data", "tokens", "units", "epochs"):
        value = getattr(arguments, name)
        command += [] if value is None else [f"--{name}={value}"]
    command += [f"--share={share}", f"--seeds={task.seed}"]
    subprocess.run(
        command, check=True, env={**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    )
    model = build(task.keras, task.units[0], task.units, task.seed)
    with np.load(path) as saved:
        model.set_weights([saved[name] for name in saved])
    task.mult_adds = [mult_adds_of(model)] * task.epochs
    return model


def train_peer(arguments):
    """Magnitude pruning of the recurrent layers by TF-MOT."""
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    pruning = tfmot.sparsity.keras
    data = Data(arguments)
    x, y = data.train
    per_epoch = len(x) // BATCH
    updates = arguments.epochs * per_epoch
    # The weights that are to go are gone when those of `ISSBudget` are.
    last = -(-arguments.epochs // 2)
    begin = last // 2 * per_epoch
    frequency = max(1, (last * per_epoch - begin) // 20)
    schedule = pruning.PolynomialDecay(
        0.0,
        1.0 - arguments.share,
        begin_step=begin,
        end_step=begin + 20 * frequency,
        frequency=frequency,
    )

    def wrap(layer):
        if isinstance(layer, keras.layers.LSTM):
            return pruning.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    plain = build(
        keras, arguments.units, [arguments.units] * 2, arguments.seeds[0]
    )
    model = keras.models.clone_model(plain, clone_function=wrap)
    model.compile(optimizer_for(keras, updates), loss_for(keras))
    model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=arguments.epochs,
        verbose=2,
        callbacks=[pruning.UpdatePruningStep()],
    )
    stripped = pruning.strip_pruning(model)
    np.savez(arguments.peer, **{w.name: w.numpy() for w in stripped.weights})


RUN = {
    "dense": dense,
    "budget": budget,
    "direct": direct,
    "one_shot_norm": functools.partial(one_shot, "norm"),
    "one_shot_taylor": functools.partial(one_shot, "taylor"),
    "proximal_budget": proximal_budget,
    "budget_not_shrinking": budget_not_shrinking,
    "paper": paper,
    "penalty": penalty,
    "direct_penalty": penalty,
}


def compute(name, share, seed, arguments, data):
    """Trains one row, unless it is there."""
    label = name if share is None else f"{name}_{share}"
    row = arguments.out / f"{arguments.units}_{label}_{seed}.json"
    if row.exists():
        return json.loads(row.read_text())
    if arguments.gather:
        return None
    import keras_iss

    print(f"--- {TITLES[name]}, {share}, seed {seed}", flush=True)
    task = Training(data, [arguments.units] * 2, arguments.epochs, seed)
    found = None
    if name.startswith("direct"):
        twin = compute("budget", share, seed, arguments, data)
        found = {"units": twin["units"]}
    start, processor = time.perf_counter(), time.process_time()
    if name == "magnitude":
        model = magnitude(task, share, found, row, arguments)
    else:
        model = RUN[name](task, share, found)
    seconds = time.perf_counter() - start
    processor = time.process_time() - processor
    counts = keras_iss.find_structures(model).counts()
    recurrent = [
        task.keras.ops.convert_to_numpy(weight)
        for i in (1, 2)
        for weight in model.get_layer(f"lstm_{i}").trainable_weights[:2]
    ]
    file = row.with_suffix(".tflite")
    keras_iss.export_tflite(model, file)
    result = {
        "method": name,
        "title": TITLES[name],
        "asked": share,
        "seed": seed,
        "units": [model.get_layer(f"lstm_{i}").units for i in (1, 2)],
        "test_perplexity": task.perplexity(model),
        "recurrent_weights": counts.recurrent_weights,
        "nonzero_recurrent_weights": int(
            sum(np.count_nonzero(weight) for weight in recurrent)
        ),
        "mult_adds": counts.mult_adds,
        "training_mult_adds": statistics.mean(task.mult_adds),
        "training_seconds": seconds,
        # On a core of its own these do not depend on who else is running. Of
        # the peer in a process of its own they are not known.
        "training_processor_seconds": processor,
        "training_cores": len(os.sched_getaffinity(0)),
        "tflite": file.name,
    }
    row.write_text(json.dumps(result, indent=1) + "\n")
    print(result, flush=True)
    return result


def latencies(rows, folder, turns=30):
    """Adds the median milliseconds of each row's file, taking turns.

    A file that is gone is made anew, with other weights: they do not change
    the time.
    """
    import keras
    from ai_edge_litert.interpreter import Interpreter

    import keras_iss

    tokens = np.random.default_rng(0).integers(1, VOCABULARY, (1, STEPS))
    tokens = tokens.astype("int32")
    runs = []
    for row in rows:
        path = folder / row["tflite"]
        if not path.exists():
            full = int(row["tflite"].partition("_")[0])
            keras_iss.export_tflite(build(keras, full, row["units"], 0), path)
        interpreter = Interpreter(str(path), num_threads=2)
        runs.append(interpreter.get_signature_runner("serve"))
    times = [[] for _ in rows]
    for _ in range(turns):
        for run, spent in zip(runs, times):
            run(tokens=tokens)
            start = time.perf_counter()
            for _ in range(5):
                run(tokens=tokens)
            spent.append(200 * (time.perf_counter() - start))
    for row, spent in zip(rows, times):
        row["tflite_ms"] = statistics.median(spent)


def table_of(rows):
    """One row for each training."""
    from rich.table import Table

    table = Table(title="Test perplexity and what it costs")
    for title in (
        "method",
        "asked",
        "seed",
        "units",
        "test perplexity",
        "non-zero recurrent weights",
        "mult-adds",
        "TFLite, ms",
        "training, mult-adds",
        "training, s",
    ):
        table.add_column(
            title, justify="left" if title == "method" else "right"
        )
    for row in rows:
        # Rows of an earlier version have none.
        cost = row["training_mult_adds"]
        table.add_row(
            row["title"],
            "" if row["asked"] is None else f"{row['asked']:g}",
            str(row["seed"]),
            str(row["units"]),
            f"{row['test_perplexity']:.2f}",
            f"{row['nonzero_recurrent_weights']:,}",
            f"{row['mult_adds'] / 1e6:.2f}M",
            f"{row['tflite_ms']:.2f}",
            "" if cost is None else f"{cost / 1e6:.2f}M",
            f"{row['training_seconds']:.0f}",
        )
    return table


def draw(rows, path):
    """Perplexity over each of the four costs."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    costs = {
        "nonzero_recurrent_weights": "non-zero recurrent weights",
        "mult_adds": "multiply-adds of a token",
        "tflite_ms": "TFLite, 1 sequence, ms",
        "training_mult_adds": "multiply-adds of a token, mean of training",
    }
    figure, axes = pyplot.subplots(
        1, len(costs), figsize=(18, 5), sharey=True, layout="constrained"
    )
    for number, method in enumerate(METHODS):
        mine = [row for row in rows if row["method"] == method]
        for axis, key in zip(axes, costs):
            if mine:
                axis.plot(
                    [row[key] for row in mine],
                    [row["test_perplexity"] for row in mine],
                    "o" if method.startswith(("budget", "prox")) else "s",
                    color=f"C{number}" if number < 10 else "black",
                    label=TITLES[method],
                )
    for axis, title in zip(axes, costs.values()):
        axis.set(xlabel=title)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("test perplexity")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main():
    """Computes what is missing, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="folder of .txt files")
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--out", type=pathlib.Path, default="frontier")
    parser.add_argument(
        "--gather", action="store_true", help="only rows that are in --out"
    )
    parser.add_argument(
        "--part", action="store_true", help="write no results yet"
    )
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        train_peer(arguments)
        return
    from common import RESULTS, write
    from rich.console import Console

    arguments.out = arguments.out.absolute()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = Data(arguments)
    rows = [
        compute(name, share, seed, arguments, data)
        for seed in arguments.seeds
        for name in arguments.methods
        for share in {
            "dense": (None,),
            "penalty": (None,),
            "paper": STRENGTHS,
        }.get(name, arguments.shares)
    ]
    if arguments.part:
        return
    rows = [row for row in rows if row is not None]
    latencies(rows, arguments.out)
    Console(width=160).print(table_of(rows))
    name = "frontier"
    if arguments.units != 256:
        name += f"_{arguments.units}"
    write(
        name,
        {
            "tokens": data.train[0].size,
            "epochs": arguments.epochs,
            "rows": rows,
        },
    )
    draw(rows, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
