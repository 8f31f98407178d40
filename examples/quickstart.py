"""The whole story on real text: train, find what is not needed, cut it out.

Trains a language model of two LSTMs on text that every Python ships, first
dense, then with Intrinsic Sparse Structures: `ISSBudget` lets it learn under a
light penalty and takes the weakest units out in a few steps, and
`keras_iss.fit` makes the model smaller at each. Neither training costs more: as
the second model shrinks, it sees more text for the same multiply-adds. At the
end both are exported, and their size and latency measured.

    python examples/quickstart.py            # a few minutes on two cores
    python examples/quickstart.py --quick    # under a minute, learns little
    python examples/quickstart.py --full     # an hour, and a better model

Writes both models, what was exported, a table and a picture into the folder
`quickstart`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import comparison
import keras
import rich
from python_text import Corpus, Parts
from training_picture import History

import keras_iss


@dataclasses.dataclass(frozen=True)
class Plan:
    """The size of everything."""

    vocabulary: int = 5000
    units: int = 256
    dropout: float = 0.1
    batch: int = 20
    steps: int = 35
    learning_rate: float = 0.005
    updates: int = 50  # training steps of an epoch, a part of the text
    epochs: tuple = (8, 11)  # of the dense model, and of the other one
    share: float = 0.3  # of the recurrent weights, what the other one keeps
    evaluated: int | None = None  # sequences to compare on, or all
    timed: int = 15  # how often each latency is measured


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


def language_model(plan, corpus, epochs):
    """Embedding, two LSTMs, the logits of the next token; compiled."""
    tokens = keras.Input((plan.steps,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(plan.vocabulary, plan.units)(tokens)
    x = keras.layers.Dropout(plan.dropout)(x)
    for name in ("lstm_1", "lstm_2"):
        x = keras.layers.LSTM(plan.units, return_sequences=True, name=name)(x)
        x = keras.layers.Dropout(plan.dropout)(x)
    logits = keras.layers.Dense(plan.vocabulary, name="logits")
    model = keras.Model(tokens, logits(x))
    # It need not learn how frequent each word is.
    logits.bias.assign(corpus.log_frequencies())
    rate = comparison.cosine(plan.learning_rate, epochs * plan.updates)
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=[comparison.crossentropy()])
    return model


def train_dense(plan, corpus, seed, epochs, tick):
    """The model as one would train it without keras-iss."""
    keras.utils.set_random_seed(seed)
    model = language_model(plan, corpus, epochs)
    text = Parts(corpus, plan, seed)
    shown = [comparison.Tick(tick)]
    model.fit(text, epochs=epochs, shuffle=False, verbose=0, callbacks=shown)
    return model


def train_iss(plan, corpus, seed, epochs, tick):
    """The same model, losing its weakest units while it learns."""
    keras.utils.set_random_seed(seed)
    model = language_model(plan, corpus, epochs)
    text = Parts(corpus, plan, seed)
    history = History()
    budget = keras_iss.ISSBudget(weights=plan.share)
    shown = comparison.Tick(tick)
    model = keras_iss.fit(
        model,
        text,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[history.before, budget, history.after, shown],
    )
    return model, history


def run(plan, seed, folder):
    """Both trainings and their comparison: a dict of what was measured."""
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    with comparison.stages() as stage:
        corpus = Corpus.read(plan.vocabulary)
        tick = stage("training, dense", plan.updates * plan.epochs[0])
        dense = train_dense(plan, corpus, seed, plan.epochs[0], tick)
        tick = stage("training, ISS", plan.updates * plan.epochs[1])
        iss, history = train_iss(plan, corpus, seed, plan.epochs[1], tick)
        result = comparison.compare(
            {"dense": dense, "iss": iss}, history, corpus, plan, folder, stage
        )
    result |= {"seed": seed, "seconds": time.perf_counter() - start}
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def main():
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--full", action="store_true", help="a better model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default="quickstart")
    given = parser.parse_args()
    name = "quick" if given.quick else "full" if given.full else "default"
    result = run(PLANS[name], given.seed, given.out)
    rich.print(comparison.table_of(result))
    rich.print(comparison.summary(result, given.out))


if __name__ == "__main__":
    main()
