"""What the examples of real jobs share: three trainings, and what they give.

Each job trains a model dense, then with `ISSBudget`, then a model that has the
smaller sizes from the start. Dense and ISS are exported, and compared as
files: size, latency, and quality after the export. The report of the ISS model
is the page `report.html`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import rich
from rich.table import Table

import keras_iss

KINDS = ("dense", "ISS", "small from the start")


@dataclasses.dataclass(frozen=True)
class Job:
    """Data, a model for them, and how it is trained.

    Attributes:
        name: String.
        train: Tuple of two arrays, inputs and targets.
        test: Tuple of two arrays, too.
        build: Function of a dict from the name of a recurrent layer to its
            units, which builds a model; with an empty one, at full size.
        loss: A `keras.losses.Loss`.
        metric: String, the Keras metric that the table shows.
        epochs: Integer, of each training.
        share: Float, of the recurrent weights, those that ISS keeps.
        batch: Integer.
        rate: Float, the highest learning rate.
        found: Optional function of the outputs for the inputs of `test`, which
            tells whether what is looked for was found.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    build: Callable[[dict[str, int]], keras.Model]
    loss: keras.losses.Loss
    metric: str
    epochs: int
    share: float = 0.3
    batch: int = 16
    rate: float = 0.01
    found: Callable[[np.ndarray], bool] | None = None

    def model(self, units):
        """A compiled model of some sizes."""
        model = self.build(units)
        updates = self.epochs * -(-len(self.train[0]) // self.batch)
        rate = keras.optimizers.schedules.CosineDecay(
            self.rate, updates, alpha=0.05
        )
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
        model.compile(optimizer, self.loss, metrics=[self.metric])
        return model


def train(job, seed):
    """The three models of a seed.

    Returns:
        Dict from their kinds to models, and the history of the second.
    """
    arguments = {"epochs": job.epochs, "batch_size": job.batch, "verbose": 0}
    keras.utils.set_random_seed(seed)
    dense = job.model({})
    dense.fit(*job.train, **arguments)
    keras.utils.set_random_seed(seed)
    # The logger comes first: it adds what is left to the history.
    callbacks = [keras_iss.ISSBudget(weights=job.share), keras_iss.ISSLogger()]
    iss = keras_iss.fit(
        job.model({}), *job.train, callbacks=callbacks, **arguments
    )
    history = iss.history
    sizes = {x.name: x.size for x in keras_iss.find_structures(iss)}
    keras.utils.set_random_seed(seed)
    small = job.model(sizes)
    small.fit(*job.train, **arguments)
    return dict(zip(KINDS, (dense, iss, small))), history


def measured(job, models):
    """What is known of models without exporting them, by their kinds."""
    found = {}
    for kind, model in models.items():
        structures = keras_iss.find_structures(model)
        counts = structures.counts()
        scores = model.evaluate(*job.test, verbose=0, return_dict=True)
        found[kind] = {
            "units": [x.size for x in structures],
            "weights": counts.weights,
            "recurrent_weights": counts.recurrent_weights,
            job.metric: scores[job.metric],
        }
        if job.found:
            outputs = model.predict(job.test[0], verbose=0)
            found[kind]["found"] = job.found(outputs)
    return found


def export(job, models, folder):
    """Exports dense and ISS, and compares the files in pairs, taking turns.

    Returns:
        Dict from `"float32"` and `"int8"` to one from kinds to dicts.
    """
    found = {}
    for name, quantize in (("float32", None), ("int8", "int8")):
        paths = []
        for kind in KINDS[:2]:
            paths.append(folder / f"{kind.lower()}_{name}.tflite")
            keras_iss.export_tflite(models[kind], paths[-1], quantize=quantize)
        pair = keras_iss.compare(*paths, job.test, metrics=[job.metric])
        found[name] = {
            kind: {
                "kilobytes": side.size / 1e3,
                "milliseconds": side.latency.median,
                job.metric: side.metrics[job.metric],
            }
            for kind, side in zip(KINDS, (pair.a, pair.b))
        }
    return found


def run(job, seeds, folder):
    """Trains for all seeds; exports and reports what came of the first."""
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    result = {"job": job.name, "metric": job.metric, "seeds": {}}
    for seed in seeds:
        rich.print(f"Training dense, ISS and small, seed {seed} ...")
        models, history = train(job, seed)
        result["seeds"][seed] = measured(job, models)
        if seed == seeds[0]:
            first, of_iss = models, history
    rich.print("Exporting, comparing the files ...")
    result["files"] = export(job, first, folder)
    for kind in KINDS[:2]:
        first[kind].save(folder / f"{kind.lower()}.keras")
    keras_iss.report(
        first["ISS"],
        folder / "report.html",
        before=first["dense"],
        history=of_iss,
        files=[folder / f"iss_{name}.tflite" for name in result["files"]],
        data=job.test,
        title=f"{job.name}, ISS",
    )
    result["seconds"] = time.perf_counter() - start
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def table_of(result):
    """What ISS bought, beside the same sizes from the start."""
    seeds = list(result["seeds"].values())
    count = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    table = Table(title=f"{result['job']}, {count}")
    for title in ("", *KINDS):
        table.add_column(title, justify="right" if title else "left")

    def row(title, shown):
        table.add_row(title, *(shown(kind) for kind in KINDS))

    row("units", lambda kind: " ".join(map(str, seeds[0][kind]["units"])))
    row("weights", lambda kind: f"{seeds[0][kind]['weights']:,}")
    metric = result["metric"]
    title = metric.replace("_", " ").removeprefix("sparse categorical ")
    row(
        f"test {title}",
        lambda kind: _range([seed[kind][metric] for seed in seeds]),
    )
    if "found" in seeds[0]["dense"]:
        row(
            "found",
            lambda kind: (
                f"{sum(seed[kind]['found'] for seed in seeds)} of {len(seeds)}"
            ),
        )
    for name, pair in result["files"].items():
        for key, shown, unit in (
            ("kilobytes", ".1f", "kB"),
            ("milliseconds", ".2f", "ms"),
            (metric, ".4f", title),
        ):
            row(
                f"{name} file, {unit}",
                lambda kind: (
                    f"{pair[kind][key]:{shown}}" if kind in pair else ""
                ),
            )
    return table


def _range(values: Sequence[float]):
    low, high = min(values), max(values)
    return f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"


def main(job_of, about):
    """Reads the command line and runs.

    Args:
        job_of: Function without arguments that gives the `Job`.
        about: String, of which the first line describes the command.
    """
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="two epochs, which learn little"
    )
    parser.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[0],
        help="one or more: three trainings for each",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="a folder, jobs/NAME by default"
    )
    given = parser.parse_args()
    job = job_of()
    if given.quick:
        job = dataclasses.replace(job, epochs=2)
    folder = given.out or pathlib.Path("jobs", job.name.lower())
    result = run(job, given.seed, folder)
    rich.print(table_of(result))
    rich.print(
        f"{result['seconds']:.0f} seconds. In {folder}: report.html, "
        "result.json, and dense and iss as .keras, _float32.tflite and "
        "_int8.tflite."
    )
