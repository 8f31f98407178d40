"""How do time and memory of finding structures grow with the layers?

`find_structures`, `prune` and the printed table on models of 50 to 2,000
recurrent layers, side by side (wide) and in a row (deep), beside Keras' own
time to build the same model and to clone it. Each model has a process of its
own.

    python benchmarks/find.py

Writes results/find.json and results/find.png.
"""

import argparse
import itertools
import math
import multiprocessing
import time

import keras
from common import RESULTS, write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from surgery import PeakMemory

import keras_iss

UNITS = 32
LAYERS = (50, 100, 200, 500, 1000, 2000)
KINDS = ("wide", "deep")
# Of noise: what grows as fast as n log n may double a little faster.
LIMIT = 1.5


def recurrent(name):
    return keras.layers.SimpleRNN(UNITS, return_sequences=True, name=name)


def model_of(kind, count):
    """A model of so many recurrent layers."""
    x = keras.Input((3, 4))
    names = [f"rnn_{i}" for i in range(count)]
    if kind == "wide":
        h = keras.layers.Concatenate()([recurrent(name)(x) for name in names])
    else:
        h = x
        for name in names:
            h = recurrent(name)(h)
    return keras.Model(x, keras.layers.Dense(2)(h))


def timed(function, *args, **kwargs):
    """What a function gives, and the seconds it takes."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def measure(job):
    """One model, in a process of its own.

    Args:
        job: Pair of the kind and how many layers.

    Returns:
        Dict.
    """
    kind, count = job
    # What Keras and keras-iss load when they are first used.
    keras_iss.find_structures(model_of(kind, 3))
    model, building = timed(model_of, kind, count)
    with PeakMemory() as finding_memory:
        structures, finding = timed(keras_iss.find_structures, model)
    assert len(structures.free) == count
    _, printing = timed(str, structures)
    keep = {structure.name: UNITS // 2 for structure in structures}
    _, pruning = timed(keras_iss.prune, model, keep=keep)
    counts, counting = timed(structures.counts, shrunk=True)
    assert counts.units == count * UNITS // 2
    with PeakMemory() as cloning_memory:
        _, cloning = timed(keras.models.clone_model, model)
    return {
        "kind": kind,
        "layers": count,
        "weights": model.count_params(),
        "seconds": {
            "find_structures": finding,
            "prune": pruning,
            "print": printing,
            "count": counting,
            "keras_build": building,
            "keras_clone": cloning,
        },
        "memory_more": {
            "find_structures": finding_memory.more,
            "keras_clone": cloning_memory.more,
        },
    }


def growth(rows, part):
    """How much longer each size takes than the one before it.

    Returns:
        List of floats: the ratio of the times, over that of n log n.
    """
    found = []
    for before, after in itertools.pairwise(rows):
        n, m = before["layers"], after["layers"]
        expected = m * math.log(m) / (n * math.log(n))
        seconds = after["seconds"][part] / before["seconds"][part]
        found.append(seconds / expected)
    return found


def draw(rows, path):
    """Seconds and memory over the number of layers."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(KINDS), figsize=(11, 8), sharex=True, layout="constrained"
    )
    titles = {
        "find_structures": "find_structures",
        "prune": "prune",
        "keras_clone": "keras.models.clone_model",
        "keras_build": "building the model",
    }
    for (seconds, memory), kind in zip(axes.T, KINDS):
        mine = [row for row in rows if row["kind"] == kind]
        n = [row["layers"] for row in mine]
        for part, title in titles.items():
            style = "s--" if part.startswith("keras") else "o-"
            times = [row["seconds"][part] for row in mine]
            seconds.plot(n, times, style, label=title)
        first = mine[0]["seconds"]["find_structures"] / (n[0] * math.log(n[0]))
        line = [first * m * math.log(m) for m in n]
        seconds.plot(n, line, ":", color="black", label="n log n")
        for part in ("find_structures", "keras_clone"):
            more = [max(row["memory_more"][part], 1e5) / 1e6 for row in mine]
            style = "s--" if part.startswith("keras") else "o-"
            memory.plot(n, more, style, label=titles[part])
        seconds.set(title=f"{kind}, {UNITS} units a layer", ylabel="seconds")
        memory.set(xlabel="recurrent layers", ylabel="more memory, MB")
        for axis in (seconds, memory):
            axis.set(xscale="log", yscale="log")
            axis.grid(alpha=0.3)
            axis.legend()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def show(rows):
    table = Table(title=f"Finding structures, {UNITS} units a layer")
    parts = list(rows[0]["seconds"])
    for title in ("", "layers", *parts, "find, MB", "clone, MB"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row["kind"],
            str(row["layers"]),
            *(f"{row['seconds'][part]:.2f}" for part in parts),
            *(f"{more / 1e6:.0f}" for more in row["memory_more"].values()),
        )
    Console().print(table)


def main():
    """Measures all sizes, and says how they grow."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS)
    layers = parser.parse_args().layers
    jobs = [(kind, count) for kind in KINDS for count in layers]
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        found = pool.imap(measure, jobs)
        rows = list(track(found, "models", total=len(jobs)))
    show(rows)
    ratios = {
        kind: {
            part: growth([row for row in rows if row["kind"] == kind], part)
            for part in rows[0]["seconds"]
        }
        for kind in KINDS
    }
    for kind, of_part in ratios.items():
        worst = max(of_part["find_structures"], default=0.0)
        print(
            f"{kind}: find_structures grows {worst:.2f} times as fast as "
            f"n log n at most (limit {LIMIT}), keras.models.clone_model "
            f"{max(of_part['keras_clone'], default=0.0):.2f} times."
        )
    RESULTS.mkdir(exist_ok=True)
    draw(rows, RESULTS / "find.png")
    write(
        "find",
        {
            "units": UNITS,
            "limit": LIMIT,
            "over_n_log_n": ratios,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
