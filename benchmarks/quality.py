"""Quality against size on four tasks: fresh and trained models, with peers.

For each task of `tasks.py`, with the same epochs and schedule:

- `dense`, and `dense_penalty`: at full size, without and with the light penalty
  of `ISSBudget`;
- `direct`: small from the start, at the sizes that `budget` came to, with the
  penalty and dropout scaled as there;
- `budget`: `ISSBudget(weights=...)` in `keras_iss.fit`, on a fresh model;
- `budget_dropout`: the same with rates of dropout as they were;
- of the trained dense model: `cut` (no training), `refit` (no training, what
  reads the removed units refitted), `one_shot` (one cut by norm, then half of
  the epochs again) and `trained` (`ISSBudget` in as many).
- `within`: the smallest model that is at most one percent worse.

    python benchmarks/quality.py --data FOLDER
    python benchmarks/quality.py --data FOLDER --tasks energy --seeds 0

Rows that are in results/quality.json already are not computed again.
"""

import argparse
import json
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from common import RESULTS, write
from rich.console import Console
from rich.table import Table
from tasks import TASKS, task

import keras_iss
from keras_iss.dropout import scale_dropout

SHARES = (0.5, 0.3, 0.15)
TRAINED_RATE = 0.3
"""Of a model that is trained already, the part of the learning rate."""


class Runs:
    """All trainings of one task from one seed.

    Args:
        of: `Task`.
        seed: Integer.
    """

    def __init__(self, of, seed):
        self.task = of
        self.seed = seed
        self.costs = []
        self._dense = None

    def fresh(self, units=None):
        """A compiled model that is not trained, always the same."""
        keras.utils.set_random_seed(self.seed)
        model = self.task.build(units or {})
        return self.task.compiled(model, self.task.epochs)

    def fitted(self, model, epochs, callback=None, **arguments):
        """Trains a model, and counts what it costs."""
        count = keras.callbacks.LambdaCallback()
        count.on_epoch_begin = lambda *_: self.costs.append(
            keras_iss.find_structures(count.model).counts().mult_adds
        )
        return keras_iss.fit(
            model,
            *self.task.train,
            batch_size=self.task.batch,
            epochs=epochs,
            verbose=0,
            validation_data=self.task.valid,
            callbacks=[count] + ([callback] if callback else []),
            **arguments,
        )

    def light(self, model):
        """A budget that removes one unit only: the penalty without a cut."""
        structures = keras_iss.find_structures(model)
        return keras_iss.ISSBudget(units=sum(s.size for s in structures) - 1)

    def trained(self):
        """The trained dense model, compiled for half of the epochs again."""
        if self._dense is None:
            self._dense = self.dense(None).get_weights()
            self.costs = []
        model = self.fresh()
        model.set_weights(self._dense)
        epochs = max(2, self.task.epochs // 2)
        return self.task.compiled(model, epochs, TRAINED_RATE), epochs

    # The methods: from a share to a model.

    def dense(self, share):
        return self.fitted(self.fresh(), self.task.epochs)

    def dense_penalty(self, share):
        model = self.fresh()
        return self.fitted(model, self.task.epochs, self.light(model))

    def budget(self, share, **arguments):
        budget = keras_iss.ISSBudget(weights=share)
        return self.fitted(self.fresh(), self.task.epochs, budget, **arguments)

    def budget_dropout(self, share):
        return self.budget(share, scale_dropout=False)

    def direct(self, share):
        sizes = {
            name: size
            for row in read_rows()
            if row["method"] == "budget"
            and (row["task"], row["share"], row["seed"])
            == (self.task.name, share, self.seed)
            for name, size in row["units"].items()
        }
        model = self.fresh(sizes)
        scale_dropout(model, before=self.fresh())
        return self.fitted(model, self.task.epochs, self.light(model))

    def cut(self, share, **arguments):
        model, _ = self.trained()
        keras_iss.prune(model, weights=share, **arguments)
        return keras_iss.shrink(model)

    def refit(self, share):
        return self.cut(share, data=self.task.train[0], refit=True)

    def one_shot(self, share):
        model, epochs = self.trained()
        keras_iss.prune(model, weights=share)
        return self.fitted(model, epochs, scale_dropout=False)

    def trained_budget(self, share):
        model, epochs = self.trained()
        return self.fitted(model, epochs, keras_iss.ISSBudget(weights=share))

    def within(self, share):
        model = self.fresh()
        return self.fitted(
            model, 2 * self.task.epochs, keras_iss.ISSBudget(within=0.01)
        )


AT_FULL_SIZE = ("dense", "dense_penalty")
WITHOUT_SHARE = (*AT_FULL_SIZE, "within")
METHODS = (
    *AT_FULL_SIZE,
    "budget",
    "budget_dropout",
    "direct",
    "cut",
    "refit",
    "one_shot",
    "trained_budget",
    "within",
)


def compute(runs, method, share):
    """One row of the results."""
    runs.costs = []
    model = getattr(runs, method)(share)
    structures = keras_iss.find_structures(model)
    counts = structures.counts()
    return {
        "task": runs.task.name,
        "method": method,
        "share": share,
        "seed": runs.seed,
        "valid": runs.task.quality(model, "valid"),
        "test": runs.task.quality(model),
        "recurrent_weights": counts.recurrent_weights,
        "mult_adds": counts.mult_adds,
        "training_mult_adds": sum(runs.costs),
        "units": {s.name.split("/")[-1]: s.size for s in structures},
    }


def read_rows():
    """The rows that were written already."""
    path = RESULTS / "quality.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def table_of(rows):
    """Means over the seeds, beside the dense model with the penalty."""
    table = Table("task", "method", title="Loss on the test data")
    for title in ("asked", "weights", "loss", "worse by", "cost", "seeds"):
        table.add_column(title, justify="right")
    groups = {}
    for row in rows:
        key = row["task"], row["method"], row["share"]
        groups.setdefault(key, []).append(row)
    full = {
        (row["task"], row["seed"], row["method"]): row
        for row in rows
        if row["method"] in AT_FULL_SIZE
    }
    for (name, method, share), some in groups.items():
        worse, weights, costs = [], [], []
        for row in some:
            dense = full[name, row["seed"], "dense"]
            best = full.get((name, row["seed"], "dense_penalty"), dense)
            worse.append(row["test"] / best["test"] - 1)
            weights.append(
                row["recurrent_weights"] / dense["recurrent_weights"]
            )
            costs.append(
                row["training_mult_adds"] / dense["training_mult_adds"]
            )
        table.add_row(
            name,
            method,
            "" if share is None else f"{share:.0%}",
            f"{statistics.mean(weights):.1%}",
            f"{statistics.mean(row['test'] for row in some):.4g}",
            f"{statistics.mean(worse):+.1%}",
            f"{statistics.mean(costs):.2f}",
            str(len(some)),
        )
    return table


def main():
    """Computes what is missing, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of .txt files")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    arguments = parser.parse_args()
    console = Console()
    for name in arguments.tasks:
        of = task(name, arguments.data)
        for seed in arguments.seeds:
            runs = Runs(of, seed)
            for method in arguments.methods:
                shares = arguments.shares
                for share in (None,) if method in WITHOUT_SHARE else shares:
                    rows = read_rows()
                    key = name, method, share, seed
                    if key in {
                        (r["task"], r["method"], r["share"], r["seed"])
                        for r in rows
                    }:
                        continue
                    rows.append(compute(runs, method, share))
                    write("quality", {"rows": rows})
    console.print(table_of(read_rows()))


if __name__ == "__main__":
    main()
