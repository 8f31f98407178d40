"""What ISS and TF Model Optimization make of one model, alone and together.

The model of `examples/speakers.py`: masked recordings of unequal length, an
LSTM of 64 (JapaneseVowels, which ships with the package `aeon`). Every row has
had as many epochs: what the toolkit does to a model happens in the last third
of them. All files are written by `keras_iss.export_tflite`, so that they
differ in nothing but their weights, and are measured in turns.

    pip install -e ".[tfmot,export,data]"
    python benchmarks/tfmot_comparison.py           # three seeds
    python benchmarks/tfmot_comparison.py --quick   # to try it

Writes results/tfmot.json.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow_model_optimization as toolkit
import tf_keras
from common import write
from rich.console import Console
from rich.table import Table

import keras_iss
from keras_iss.runtimes.inputs import arrays_of
from keras_iss.runtimes.latency import measured, one_batch
from keras_iss.runtimes.runners import runner_of
from keras_iss.tfmot import from_tf_keras, to_tf_keras

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
import speakers

EPOCHS, LAST_EPOCHS = 40, 20
SHARE = 0.3  # Of the recurrent weights, those that ISS keeps.
SPARSITY = 0.7  # Of all weights, those that magnitude pruning makes zero.
CLUSTERS = 32


def compiled(model, library, rate):
    """A model of either Keras, compiled alike."""
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = library.optimizers.Adam(rate, global_clipnorm=1.0)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def trained(job, seed, epochs, last_epochs, iss):
    """A model after the first epochs, and after all of them.

    Args:
        job: The `Job` of the example.
        seed: Integer.
        epochs: Integer, the first.
        last_epochs: Integer, those after them.
        iss: Whether `ISSBudget` takes units out, in the first epochs.
    """
    fit = {"batch_size": job.batch, "verbose": 0}
    keras.utils.set_random_seed(seed)
    model = job.model({})
    if iss:
        model = keras_iss.fit(
            model,
            *job.train,
            epochs=epochs,
            callbacks=[keras_iss.ISSBudget(weights=SHARE)],
            **fit,
        )
    else:
        model.fit(*job.train, epochs=epochs, **fit)
    first = keras.models.clone_model(model)
    first.set_weights(model.get_weights())
    compiled(model, keras, job.rate / 10)
    model.fit(*job.train, epochs=last_epochs, **fit)
    return first, model


def pruned(model, job, epochs):
    """Magnitude pruning in the toolkit, while it trains on."""
    sparsity = toolkit.sparsity.keras
    steps = epochs * -(-len(job.train[0]) // job.batch)
    wrapped = sparsity.prune_low_magnitude(
        to_tf_keras(model),
        pruning_schedule=sparsity.PolynomialDecay(
            0.0, SPARSITY, 0, max(1, steps // 2), frequency=5
        ),
    )
    compiled(wrapped, tf_keras, job.rate / 10)
    wrapped.fit(
        *job.train,
        epochs=epochs,
        batch_size=job.batch,
        verbose=0,
        callbacks=[sparsity.UpdatePruningStep()],
    )
    return from_tf_keras(sparsity.strip_pruning(wrapped))


def clustered(model, job, epochs):
    """Clustering in the toolkit, while it trains on."""
    clustering = toolkit.clustering.keras
    wrapped = clustering.cluster_weights(
        to_tf_keras(model),
        number_of_clusters=CLUSTERS,
        cluster_centroids_init=(
            clustering.CentroidInitialization.KMEANS_PLUS_PLUS
        ),
    )
    compiled(wrapped, tf_keras, job.rate / 10)
    wrapped.fit(*job.train, epochs=epochs, batch_size=job.batch, verbose=0)
    return from_tf_keras(clustering.strip_clustering(wrapped))


def models_of(job, seed, epochs, last_epochs):
    """Dict from the name of a row to its model, and how it is quantized."""
    dense_before, dense = trained(job, seed, epochs, last_epochs, iss=False)
    iss_before, iss = trained(job, seed, epochs, last_epochs, iss=True)
    keras.utils.set_random_seed(seed)
    tf_keras.utils.set_random_seed(seed)
    sparse = pruned(dense_before, job, last_epochs)
    few = clustered(dense_before, job, last_epochs)
    iss_few = clustered(iss_before, job, last_epochs)
    return {
        "dense": (dense, None),
        "dense + int8": (dense, "int8"),
        "tfmot pruning": (sparse, None),
        "tfmot pruning + int8": (sparse, "int8"),
        "tfmot clustering": (few, None),
        "tfmot clustering + int8": (few, "int8"),
        "ISS": (iss, None),
        "ISS + clustering": (iss_few, None),
        "ISS + int8": (iss, "int8"),
        "ISS + clustering + int8": (iss_few, "int8"),
    }


def measure(job, models, folder):
    """Exports models, and measures their files in turns.

    Returns:
        Dict from the name of a row to a dict.
    """
    paths, found = [], {}
    for number, (name, (model, quantize)) in enumerate(models.items()):
        path = folder / f"{number}.tflite"
        keras_iss.export_tflite(model, path, quantize=quantize)
        scores = keras_iss.evaluate(path, *job.test, metrics=["accuracy"])
        paths.append(path)
        content = path.read_bytes()
        found[name] = {
            "weights": model.count_params(),
            "zeros": _zeros(model),
            "bytes": len(content),
            "compressed_bytes": len(zlib.compress(content, 9)),
            "accuracy": float(scores.metrics["accuracy"]),
        }
    runners = [runner_of(path, 1, None) for path in paths]
    batches = [
        one_batch(arrays_of(job.test[0], runner), 1) for runner in runners
    ]
    latencies = measured(runners, batches, runs=300, seconds=60)
    for row, latency in zip(found.values(), latencies):
        row["milliseconds"] = latency.median
    return found


def _zeros(model):
    """The share of a model's weights that are zero."""
    weights = model.get_weights()
    return float(
        sum((x == 0).sum() for x in weights) / sum(x.size for x in weights)
    )


def table_of(seeds):
    """Means over seeds; the accuracy with the lowest and the highest."""
    table = Table(title=f"Speakers, {len(seeds)} seeds")
    for title in (
        "",
        "weights",
        "file, kB",
        "compressed, kB",
        "accuracy",
        "ms a call",
        "of dense",
    ):
        table.add_column(title, justify="right" if title else "left")
    for name in seeds[0]:
        rows = [seed[name] for seed in seeds]

        def mean(key):
            return statistics.fmean(row[key] for row in rows)

        scores = [row["accuracy"] for row in rows]
        ratios = [
            seed[name]["milliseconds"] / seed["dense"]["milliseconds"]
            for seed in seeds
        ]
        table.add_row(
            name,
            f"{mean('weights'):,.0f}",
            f"{mean('bytes') / 1e3:.1f}",
            f"{mean('compressed_bytes') / 1e3:.1f}",
            f"{100 * statistics.fmean(scores):.1f} "
            f"({100 * min(scores):.1f} to {100 * max(scores):.1f})",
            f"{mean('milliseconds'):.3f}",
            f"{statistics.fmean(ratios):.2f}",
        )
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    epochs, last_epochs = (2, 1) if given.quick else (EPOCHS, LAST_EPOCHS)
    job, seeds = speakers.job(), []
    for seed in range(1 if given.quick else given.seeds):
        models = models_of(job, seed, epochs, last_epochs)
        with tempfile.TemporaryDirectory() as folder:
            seeds.append(measure(job, models, pathlib.Path(folder)))
    Console(width=110).print(table_of(seeds))
    if not given.quick:
        write(
            "tfmot",
            {
                "epochs": epochs + last_epochs,
                "share": SHARE,
                "sparsity": SPARSITY,
                "clusters": CLUSTERS,
                "seeds": seeds,
            },
        )


if __name__ == "__main__":
    main()
