"""The quickstart with several seeds.

Neither of its trainings costs more multiply-adds. Beside that: what the dense
model would be with as many updates as the other one gets.

    python benchmarks/quickstart.py
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from common import write
from rich.console import Console
from rich.progress import track
from rich.table import Table

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
import comparison
import quickstart as example
from python_text import Corpus


def run(seed):
    """The result of the quickstart with a seed."""
    with tempfile.TemporaryDirectory() as folder:
        script = str(EXAMPLES / "quickstart.py")
        subprocess.run(
            [sys.executable, script, f"--seed={seed}", f"--out={folder}"],
            check=True,
        )
        return json.loads((pathlib.Path(folder) / "result.json").read_text())


def dense_with_as_many_updates(seed):
    """The test perplexity of the dense model, trained for longer."""
    plan = example.PLANS["default"]
    corpus = Corpus.read(plan.vocabulary)
    epochs = plan.epochs[1]
    ticks = track(range(epochs * plan.updates), description="dense, for longer")
    tick = iter(ticks).__next__
    model = example.train_dense(plan, corpus, seed, epochs, tick)
    return comparison.perplexity(model, corpus.test, plan, lambda: None)


def with_ratios(result):
    """A result with all that can be divided, ISS by dense."""
    dense, iss = result["dense"], result["iss"]
    longer = dense_with_as_many_updates(result["seed"])
    ratio = {
        key: value / dense[key]
        for key, value in iss.items()
        if not isinstance(value, list)
    }
    ratio["test_as_many_updates"] = iss["test"] / longer
    dense["test_as_many_updates"] = longer
    return {**result, "ratio": ratio}


def table_of(runs):
    """A row for each seed."""
    table = Table(title="Quickstart: ISS against dense, test perplexity")
    for title in (
        "seed",
        "dense",
        "ISS",
        "change",
        "recurrent weights",
        "dense, longer",
        "seconds",
    ):
        table.add_column(title, justify="right")
    for made in runs:
        dense, ratio = made["dense"], made["ratio"]
        longer = dense["test_as_many_updates"]
        table.add_row(
            str(made["seed"]),
            f"{dense['test']:.2f}",
            f"{made['iss']['test']:.2f}",
            f"{100 * (ratio['test'] - 1):+.1f} %",
            f"{100 * ratio['recurrent_weights']:.1f} %",
            f"{longer:.2f}",
            f"{made['seconds']:.0f}",
        )
    return table


def main():
    """Runs the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    runs = [with_ratios(made) for made in [run(seed) for seed in seeds]]
    Console().print(table_of(runs))
    write("quickstart", {"runs": runs})


if __name__ == "__main__":
    main()
