"""The quickstart with several seeds.

Once as it is, where both models cost as much to train, and once with as many
updates for the dense model as for the other.

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
from rich.table import Table

SCRIPT = pathlib.Path(__file__).parent.parent / "examples" / "quickstart.py"


def run(seed, arguments):
    """The result of the quickstart with a seed."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable,
                str(SCRIPT),
                f"--seed={seed}",
                f"--out={folder}",
                *arguments,
            ],
            check=True,
        )
        return json.loads((pathlib.Path(folder) / "result.json").read_text())


def with_ratios(result):
    """A result with all that can be divided, ISS by dense."""
    ratio = {
        key: value / result["dense"][key]
        for key, value in result["iss"].items()
        if not isinstance(value, list)
    }
    return {**result, "ratio": ratio}


def table_of(runs):
    """A row for each run."""
    table = Table(title="Quickstart: ISS against dense")
    for title in (
        "seed",
        "updates",
        "dense, test ppl",
        "ISS, test ppl",
        "change",
        "recurrent weights",
        "mult-adds of training",
        "predict, batch 1",
        "seconds",
    ):
        table.add_column(title, justify="right")
    for one in runs:
        ratio = one["ratio"]
        table.add_row(
            str(one["seed"]),
            f"{one['dense_updates']}, {sum(one['segments'])}",
            f"{one['dense']['test']:.2f}",
            f"{one['iss']['test']:.2f}",
            f"{100 * (ratio['test'] - 1):+.1f} %",
            f"{100 * ratio['recurrent_weights']:.1f} %",
            f"{ratio['training_mult_adds']:.2f}x",
            f"{ratio['latency_1']:.2f}x",
            f"{one['seconds']:.0f}",
        )
    return table


def main():
    """Runs the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments, rest = parser.parse_known_args()
    runs = [
        with_ratios(run(seed, [*option, *rest]))
        for option in ([], ["--same-updates"])
        for seed in arguments.seeds
    ]
    Console().print(table_of(runs))
    write("quickstart", {"runs": runs})


if __name__ == "__main__":
    main()
