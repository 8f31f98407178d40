"""What is left of a training that ends at a random moment?

Interrupts `keras_iss.fit` and `model.fit` with an `ISSBudget`, by an exception
in a callback and by a signal from the keyboard; and kills processes in
`keras_iss.fit` while a `ModelCheckpoint` writes. Counts what was lost.

    python benchmarks/faults_training.py
    KERAS_BACKEND=jax python benchmarks/faults_training.py --moments 20

Writes results/faults_training.json, or faults_training_jax.json and
faults_training_torch.json.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import pathlib
import signal
import tempfile
import threading
import time
import warnings

import keras
import numpy as np
from common import write
from keras import layers
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_iss

BATCH, EPOCHS = 8, 400
PENALTIES = ("own", "regularizer", "proximal")
STRENGTH = 0.015625
HOOKS = (
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_batch_end",
    "on_epoch_end",
)
PATIENCE = 5.0
"""Seconds to wait for an interrupt, which Python may lose, to arrive."""


def data():
    """Inputs and targets: the sum of a sequence."""
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 4, 3)).astype("float32")
    return x, x.sum((1, 2))[:, None]


def compiled(penalty="own", seed=0):
    """A small model, and the regularizer that is attached to it."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((4, 3))
    h = layers.LSTM(12, return_sequences=True, name="one")(x)
    model = keras.Model(x, layers.Dense(1)(layers.GRU(8, name="two")(h)))
    optimizer = keras.optimizers.SGD(0.01)
    if penalty == "proximal":
        optimizer = keras_iss.ProximalISS(optimizer, strength=STRENGTH)
    regularizer = keras_iss.ISSRegularizer(STRENGTH)
    if penalty == "regularizer":
        regularizer.attach(model)
    model.compile(optimizer, "mse")
    return model, regularizer


def budget():
    """One that removes units all through the training."""
    return keras_iss.ISSBudget(
        units=0.4, pressure=1.0, from_epoch=1, by_epoch=EPOCHS
    )


def train(fit, model, *callbacks):
    """Trains a model in very short epochs."""
    x, y = data()
    return fit(
        model,
        x[:32],
        y[:32],
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        validation_data=(x[32:], y[32:]),
        callbacks=[*callbacks, budget()],
    )


# Interrupts.


class RaiseAt(keras.callbacks.Callback):
    """Interrupts a training at one hook of one batch."""

    def __init__(self, hook, epoch, batch):
        super().__init__()
        self.at = epoch, batch
        self.epoch = 0
        self.is_batch = "batch" in hook
        setattr(self, hook, self.look)
        self.counts_epochs = hook == "on_epoch_begin"

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def look(self, number=None, logs=None):
        """Interrupts, if it is the moment."""
        if self.counts_epochs:
            self.epoch = number
        epoch, batch = self.at
        if self.epoch == epoch and (not self.is_batch or number == batch):
            raise KeyboardInterrupt


class SignalAfter(keras.callbacks.Callback):
    """Interrupts a training as the keyboard does, after a while.

    Python loses an interrupt that arrives where an object ends; then another
    one follows.
    """

    def __init__(self, epoch, seconds):
        super().__init__()
        self.epoch, self.seconds = epoch, seconds
        self.sent = 0
        self.ended = threading.Event()

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            threading.Thread(target=self.send, daemon=True).start()

    def send(self):
        """Sends interrupts, until one has ended the training."""
        wait = self.seconds
        while not self.ended.wait(wait):
            self.sent += 1
            os.kill(os.getpid(), signal.SIGINT)
            wait = PATIENCE


def interrupt(model, fit, callback):
    """Trains until the interrupt, and gives the model of the moment."""
    ended = getattr(callback, "ended", threading.Event())
    try:
        with contextlib.suppress(KeyboardInterrupt):
            train(fit, model, callback)
    finally:
        ended.set()
    return model.history.model


def alive(model):
    """The number of components that are not removed."""
    return sum(
        structure.alive for structure in keras_iss.find_structures(model)
    )


def left_behind(model, penalty, regularizer):
    """What is not as the user gave it, as a list of words."""
    found = []
    x, y = data()
    if regularizer.strength != STRENGTH:
        found.append("strength left")
    if penalty == "proximal" and model.optimizer.strength != STRENGTH:
        found.append("strength left")
    if penalty != "regularizer" and model.losses:
        found.append("penalty left")
    try:
        outputs = model.predict(x, verbose=0)
        plain = float(np.mean((outputs - y) ** 2))
        own = sum(float(keras.ops.convert_to_numpy(v)) for v in model.losses)
        evaluated = model.evaluate(x, y, verbose=0)
        rate = float(model.optimizer.learning_rate)
        model.optimizer.learning_rate = 0.0
        trained = model.train_on_batch(x, y)
        model.optimizer.learning_rate = rate
        model.train_on_batch(x, y)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.keras"
            model.save(path)
            loaded = keras.models.load_model(path)
        now = float(np.mean((model.predict(x, verbose=0) - y) ** 2))
        saved = float(np.mean((loaded.predict(x, verbose=0) - y) ** 2))
    except Exception as error:
        return [*found, f"unusable: {type(error).__name__}"]
    for name, value, wanted in (
        ("evaluate", evaluated, plain + own),
        ("train step", trained, plain + own),
        ("file", saved, now),
    ):
        if not np.isclose(value, wanted, rtol=1e-3):
            found.append(f"{name} differs")
    return found


def interrupts(way, seed, moments):
    """Interrupts trainings, and counts what was left behind."""
    random = np.random.default_rng(seed)
    counts = collections.Counter(interrupts=0, lost_by_python=0)
    models = {}
    for moment in track(range(moments), description=way):
        fit = (keras_iss.fit, keras.Model.fit)[moment % 2]
        penalty = PENALTIES[random.integers(3)]
        known = models.get(penalty)
        # Until most of what may be removed is.
        if known is None or alive(known[0]) < 15:
            models[penalty] = compiled(penalty, seed)
        model, regularizer = models[penalty]
        epoch = int(random.integers(1, 4))
        if way == "exception":
            hook = HOOKS[random.integers(len(HOOKS))]
            callback = RaiseAt(hook, epoch, int(random.integers(4)))
        else:
            callback = SignalAfter(epoch, random.uniform(0.0, 0.5))
        now = interrupt(model, fit, callback)
        counts["interrupts"] += 1
        counts["lost_by_python"] += max(getattr(callback, "sent", 1) - 1, 0)
        for checked in {id(m): m for m in (model, now)}.values():
            for what in left_behind(checked, penalty, regularizer):
                counts[what] += 1
                models.pop(penalty, None)
        if way == "exception" or moment % 3 == 2:
            # Another size of the same; the others go on with what they are.
            models.pop(penalty, None)
    return dict(counts)


# Kills.


class Report(keras.callbacks.Callback):
    """Writes what an epoch is said to be, before it is saved."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        with self.path.open("a") as file:
            file.write(json.dumps([epoch + 1, logs["val_loss"]]) + "\n")


def train_and_save(folder, fit, seed):
    """What a process does until it is killed."""
    folder = pathlib.Path(folder)
    model, _ = compiled(seed=seed)
    checkpoint = keras.callbacks.ModelCheckpoint
    warnings.simplefilter("ignore")
    train(
        keras_iss.fit if fit == "keras_iss.fit" else keras.Model.fit,
        model,
        Report(folder / "reports"),
        checkpoint(folder / "last.keras"),
        checkpoint(folder / "epoch-{epoch:03d}.keras"),
    )


def reported(folder):
    """Dict from epoch to the validation loss that was reported for it."""
    lines = (folder / "reports").read_text().splitlines()
    return dict(json.loads(line) for line in lines)


def judge(path, values):
    """What a checkpoint is: whole, wrong or broken.

    Args:
        path: Of the checkpoint.
        values: List of floats; it should evaluate to one of them.
    """
    x, y = data()
    try:
        model = keras.models.load_model(path)
        found = model.evaluate(x[32:], y[32:], verbose=0)
    except Exception:
        return "broken"
    return "whole" if np.isclose(found, values, rtol=1e-3).any() else "wrong"


def kills(fit, seed, moments):
    """Kills processes while they train and save, and counts what is there.

    Args:
        fit: `"keras_iss.fit"`, or `"model.fit"` for Keras alone.
        seed: Integer.
        moments: Integer, how many processes.
    """
    random = np.random.default_rng(seed)
    # Each process is forked from one that has imported all, and run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_iss"])
    counts = collections.Counter()
    for moment in track(range(moments), description=f"kill -9, {fit}"):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            process = context.Process(
                target=train_and_save, args=(name, fit, seed + moment)
            )
            process.start()
            while not (folder / "epoch-002.keras").exists():
                if not process.is_alive():
                    raise RuntimeError("A training ended by itself.")
                time.sleep(0.005)
            time.sleep(random.uniform(0.0, 2.0))
            process.kill()
            process.join()
            counts["kills"] += 1
            values = reported(folder)
            *_, last = values.values()
            before = list(values.values())[-2]
            counts[
                f"last.keras {judge(folder / 'last.keras', [last, before])}"
            ] += 1
            files = sorted(folder.glob("epoch-*.keras"))
            kinds = [
                judge(path, [values[int(path.stem[-3:])]])
                for path in files[-2:]
            ]
            counts[f"newest epoch {kinds[-1]}"] += 1
            counts[f"the one before {kinds[0]}"] += 1
            counts["unfinished files beside"] += len(
                list(folder.glob(".*.keras"))
            )
    return {key: count for key, count in counts.items() if count}


def run(seed=0, moments=50, keras_alone=False):
    """All of it.

    Args:
        seed: Integer.
        moments: Integer, how many of each kind.
        keras_alone: Boolean, whether to kill `model.fit`, too, whose
            `ModelCheckpoint` is Keras' own.

    Returns:
        Dict from what was done to a dict of counts.
    """
    result = {
        "exceptions in a callback": interrupts("exception", seed, moments),
        "interrupts from the keyboard": interrupts("signal", seed, moments),
        "kill -9 in keras_iss.fit": kills("keras_iss.fit", seed, moments),
    }
    if keras_alone:
        result["kill -9 in model.fit"] = kills("model.fit", seed, moments)
    return result


def main():
    """Runs it, and writes and prints what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keras-alone",
        action="store_true",
        help="kill `model.fit` too, with Keras' own ModelCheckpoint",
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    result = run(arguments.seed, arguments.moments, arguments.keras_alone)
    table = Table(title="What was found")
    for title in ("ended by", "found", "times"):
        table.add_column(title)
    for way, counts in result.items():
        for what, count in counts.items():
            table.add_row(way, what, str(count))
    Console().print(table)
    backend = keras.backend.backend()
    suffix = "" if backend == "tensorflow" else f"_{backend}"
    write(f"faults_training{suffix}", {"seed": arguments.seed, **result})


if __name__ == "__main__":
    main()
