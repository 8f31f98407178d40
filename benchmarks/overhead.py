"""How much longer does a training step take with `ISSRegularizer`?

One step of the paper's language model (batch 20, 35 steps, vocabulary 10,000),
plain and with the group Lasso, taking turns in one process.

    python benchmarks/overhead.py
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


def models(units):
    """A plain model, and the same one with the penalty."""
    made = {}
    for name in ("plain", "iss"):
        keras.utils.set_random_seed(0)
        made[name] = language_model(units, VOCABULARY)
        if name == "iss":
            keras_iss.ISSRegularizer(7e-5).attach(made[name])
        compile_as_in_paper(made[name])
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
    ratios = seconds["iss"] / seconds["plain"]
    low, _, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        "units": units,
        "turns": turns,
        "median_milliseconds": {n: 1000 * t for n, t in medians.items()},
        "ratio": medians["iss"] / medians["plain"],
        "ratio_of_pairs_quartiles": [float(low), float(high)],
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
    for title in ("units", "plain, ms", "ISS, ms", "ratio", "pairs, quartiles"):
        table.add_column(title, justify="right")
    for row in rows:
        milliseconds = row["median_milliseconds"]
        low, high = row["ratio_of_pairs_quartiles"]
        table.add_row(
            str(row["units"]),
            f"{milliseconds['plain']:.0f}",
            f"{milliseconds['iss']:.0f}",
            f"{row['ratio']:.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    Console().print(table)
    write("overhead", {"limit": LIMIT, "rows": rows})


if __name__ == "__main__":
    main()
