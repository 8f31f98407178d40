"""The command: runs many random graphs, and reports what failed."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tests.fuzz.outcome import FAILED
from tests.fuzz.script import script
from tests.fuzz.tally import RESULTS, Tally, corrected, record
from tests.fuzz.workers import Job, Workers

FAILURES = pathlib.Path("fuzz-failures")

# One process for a core: none of them takes several.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}
PACKAGES = ("keras", "numpy", "tensorflow", "jax", "torch", "ai-edge-litert")


def parsed(arguments):
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Random graphs: surgery and export change no output.",
    )
    parser.add_argument("--graphs", type=int, help="how many. Default: 100")
    parser.add_argument(
        "--exports", type=int, help="export so many graphs, instead"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start",
        type=int,
        default=0,
        help="the number of the first graph, to go on or to repeat one",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="how many processes. Default: one for each core",
    )
    parser.add_argument(
        "--failures",
        type=pathlib.Path,
        default=FAILURES,
        help="the folder for a script of each kind of failure. "
        f"Default: {FAILURES}",
    )
    parser.add_argument(
        "--reduce",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long to make a failing graph smaller. Default: 120",
    )
    parser.add_argument(
        "--record", action="store_true", help=f"write the counts to {RESULTS}"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help=f"run what failed in {RESULTS} again, and correct its counts",
    )
    options = parser.parse_args(arguments)
    if options.graphs is not None and options.exports is not None:
        parser.error("give either --graphs or --exports")
    for name in ("graphs", "exports", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} takes 1 or more, not {value}")
    return options


def main(arguments=None):
    """Runs the command.

    Returns:
        Integer: 1 if something failed, 0 if not.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parsed(arguments)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    backend = os.environ["KERAS_BACKEND"]
    tasks, key = "tests.fuzz.surgery", backend
    count = options.graphs or 100
    if options.exports is not None:
        tasks, key, count = "tests.fuzz.exports", "exports", options.exports
        if backend != "tensorflow":
            raise SystemExit("--exports runs on TensorFlow")
    console = Console()
    if options.again:
        return run_again(key, tasks, backend, options.workers, console)
    start = time.monotonic()
    tally = Tally()
    with (
        Workers(
            min(options.workers, count), tasks, options.seed, backend
        ) as workers,
        progress_bar(console) as bar,
    ):
        go_through(workers, bar, tally, count, options, backend)
    print_tally(console, tally)
    if options.record:
        run = {
            "command": f"python -m tests.fuzz {shlex.join(arguments)}",
            "seed": options.seed,
            "start": options.start,
            "seconds": round(time.monotonic() - start),
            "versions": versions(),
            **tally.as_dict(),
        }
        record(key, run)
    return int(bool(tally.failures))


def run_again(key, tasks, backend, workers, console):
    """Runs the graphs that failed in the recorded run, and corrects it.

    Returns:
        Integer: 1 if something failed, 0 if not.
    """
    results = json.loads(RESULTS.read_text())
    run = results[key]
    jobs = [
        Job(number)
        for found in run["failures"].values()
        for number in found["numbers"]
    ]
    with Workers(workers, tasks, run["seed"], backend) as some:
        outcomes = {job.number: outcome for job, outcome in some.run(jobs)}
    for number, outcome in sorted(outcomes.items()):
        console.print(f"{number}: {outcome.status} {outcome.kind or ''}")
    results[key] = run = corrected(run, outcomes)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return int(bool(run["failures"]))


def go_through(workers, bar, tally, count, options, backend):
    """Runs the graphs; the first failure of each kind is made smaller."""
    jobs = [Job(options.start + i) for i in range(count)]
    task = bar.add_task("graphs", total=count, failed=0)
    for job, outcome in workers.run(jobs):
        failed = outcome.status == FAILED
        if job.kind is None:
            is_new = failed and outcome.kind not in tally.failures
            tally.add(job.number, outcome)
            bar.update(task, advance=1, failed=tally.status[FAILED])
            if not is_new:
                continue
            if outcome.lines and options.reduce:
                jobs.insert(0, Job(job.number, outcome.kind, options.reduce))
        path = written(job.number, outcome, options, backend)
        if job.kind is not None:
            bar.console.print(f"{path}: {outcome.kind}", soft_wrap=True)
            bar.console.print(
                path.read_text(),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def written(number, outcome, options, backend):
    """Writes the script of a failure.

    Returns:
        `pathlib.Path`, where it is.
    """
    of = "exports" if options.exports else "graphs"
    header = "\n".join(
        [
            f"{outcome.kind}",
            *outcome.message.splitlines()[:8],
            "",
            f"python -m tests.fuzz --{of} 1 --seed {options.seed} "
            f"--start {number}, KERAS_BACKEND={backend}",
            ", ".join(f"{k} {v}" for k, v in versions().items()),
        ]
    )
    options.failures.mkdir(parents=True, exist_ok=True)
    name = f"{backend}-{of}-{options.seed}-{number}.py"
    path = options.failures / name
    path.write_text(script(outcome.text, header, backend, outcome.double))
    return path


def versions():
    """Dict from the name of a package to its version."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            # Without the label of a build, such as `+cpu`.
            version = importlib.metadata.version(name)
            found[name] = version.partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def progress_bar(console):
    """A bar with the number of failures."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def print_tally(console, tally):
    """What came of the graphs, as tables."""
    counts = ", ".join(f"{n} {name}" for name, n in tally.status.items())
    console.print(
        f"{counts}; something removed from {tally.removed}; "
        f"{len(tally.connections)} kinds of connection"
    )
    for title, kinds in (
        ("failed", tally.failures),
        ("refused", tally.refusals),
    ):
        if not kinds:
            continue
        table = Table("count", title, "graphs", box=None)
        for kind, numbers in sorted(kinds.items(), key=lambda x: -len(x[1])):
            first = ", ".join(map(str, numbers[:5]))
            table.add_row(str(len(numbers)), kind, first)
        console.print(table)
