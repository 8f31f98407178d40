"""How much longer does a training step take with keras-iss?

One step of the paper's language model (batch 20, 35 steps, vocabulary 10,000),
plain, with `ISSRegularizer` and with `ProximalISS`, taking turns in one
process.

    python benchmarks/overhead.py
    KERAS_BACKEND=jax python benchmarks/overhead.py
    KERAS_BACKEND=torch python benchmarks/overhead.py

Writes results/overhead.json, or overhead_jax.json and overhead_torch.json.
"""

import argparse
import time

import keras
import numpy as np
from common import compile_as_in_paper, language_model, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_iss

BATCH, STEPS, VOCABULARY = 20, 35, 10_000
LIMIT = 1.05
WAYS = ("regularizer", "proximal")


def models(units):
    """A plain model, and the same one with the penalty or the proximal step."""
    made = {}
    for name in ("plain", *WAYS):
        keras.utils.set_random_seed(0)
        made[name] = language_model(units, VOCABULARY)
        if name == "regularizer":
            keras_iss.ISSRegularizer(7e-5).attach(made[name])
        compile_as_in_paper(made[name])
        if name == "proximal":
            made[name].compile(
                keras_iss.ProximalISS(made[name].optimizer, strength=7e-5),
                made[name].loss,
            )
            made[name].optimizer.attach(made[name])
    return made


def seconds_of_steps(units, turns):
    """The time of each training step, the models taking turns.

    Returns:
        Dict from model to a float array of shape `(turns,)`.
    """
    random = np.random.default_rng(0)
    made = models(units)
    seconds = {name: [] for name in made}
    for turn in track(range(-2, turns), description=f"{units}"):
        tokens = random.integers(0, VOCABULARY, (BATCH, STEPS + 1))
        # In turns also who is first.
        order = list(made)[:: 1 if turn % 2 else -1]
        for name in order:
            start = time.perf_counter()
            made[name].train_on_batch(tokens[:, :-1], tokens[:, 1:])
            if turn >= 0:  # The first ones compile.
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(times) for name, times in seconds.items()}


def measure(units, turns):
    """The overhead for one size."""
    seconds = seconds_of_steps(units, turns)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        "units": units,
        "turns": turns,
        "median_milliseconds": {n: 1000 * t for n, t in medians.items()},
        "ratio": {name: medians[name] / medians["plain"] for name in WAYS},
        "ratio_of_pairs_quartiles": {
            name: np.quantile(
                seconds[name] / seconds["plain"], (0.25, 0.75)
            ).tolist()
            for name in WAYS
        },
    }


def main():
    """Measures both sizes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=25)
    turns = parser.parse_args().turns
    rows = [
        measure((1500, 1500), turns),
        measure((256, 256), 8 * turns),
    ]
    table = Table(title=f"One training step, batch {BATCH} x {STEPS} steps")
    for title in ("units", "with", "plain, ms", "ms", "ratio", "pairs"):
        table.add_column(title, justify="right")
    for row in rows:
        milliseconds = row["median_milliseconds"]
        for name in WAYS:
            low, high = row["ratio_of_pairs_quartiles"][name]
            table.add_row(
                str(row["units"]),
                name,
                f"{milliseconds['plain']:.0f}",
                f"{milliseconds[name]:.0f}",
                f"{row['ratio'][name]:.3f}",
                f"{low:.3f} to {high:.3f}",
            )
    Console().print(table)
    backend = keras.backend.backend()
    name = "overhead" if backend == "tensorflow" else f"overhead_{backend}"
    write(name, {"limit": LIMIT, "rows": rows})


if __name__ == "__main__":
    main()
