"""What is lost when an export or a training is cut off?

Kills, interrupts, full disks, read-only folders and two processes on one path,
at random moments of real exports and trainings. Fails if anything was lost.

    tox run -e faults
    tox run -e faults -- --moments 10 --seed 3

Writes results/faults.json.
"""

import argparse
import concurrent.futures
import multiprocessing
import sys
import warnings

import faults_export
from common import write
from rich.console import Console
from rich.table import Table

FOUND_WHOLE = {
    "interrupts",
    "lost_by_python",
    "kills",
    "last.keras whole",
    "newest epoch whole",
    "the one before whole",
    "unfinished files beside",
}
"""What may be counted of trainings: anything else is a loss."""


def trainings(seed, moments):
    """The faults of trainings, in a process of their own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_trainings, seed, moments).result()


def _trainings(seed, moments):
    import faults_training

    warnings.simplefilter("ignore")
    return faults_training.run(seed, moments)


def losses(exports, trained):
    """What was lost, as a list of lines."""
    found = [
        f"{name}: {row[what]} {what}"
        for name, row in exports.items()
        for what in ("lost", "broken", "left behind")
        if row[what]
    ]
    return found + [
        f"{name}: {count} {what}"
        for name, counts in trained.items()
        for what, count in counts.items()
        if what not in FOUND_WHOLE
    ]


def show(exports, trained):
    """Prints both as tables."""
    columns = ("tries", "old", "new", "lost", "broken", "left behind", "note")
    table = Table("export", *columns, title="What is at the path", box=None)
    for name, row in exports.items():
        table.add_row(name, *(str(row[column]) for column in columns))
    console = Console()
    console.print(table)
    table = Table("training ended by", "found", "times", box=None)
    for name, counts in trained.items():
        for what, count in counts.items():
            table.add_row(name, what, str(count))
    console.print(table)


def main():
    """Runs all of it.

    Returns:
        Integer: 1 if anything was lost, 0 if not.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    trained = trainings(arguments.seed, arguments.moments)
    exports = faults_export.run(arguments.seed, arguments.moments)
    lost = losses(exports, trained)
    show(exports, trained)
    write(
        "faults",
        {
            "seed": arguments.seed,
            "moments": arguments.moments,
            "exports": exports,
            "trainings": trained,
            "losses": lost,
        },
    )
    for line in lost:
        print(line, file=sys.stderr)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
