"""The command line that the three examples share."""

import argparse
import json
import os
import pathlib

from rich.console import Console
from rich.table import Table


def parser(description, presets):
    """An argument parser with what all examples take.

    Args:
        description: String.
        presets: The names of the presets.
    """
    result = argparse.ArgumentParser(
        description=description.strip().partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    result.add_argument(
        "--preset", default="small", choices=presets, help="the sizes"
    )
    result.add_argument(
        "--row",
        action="append",
        metavar="NAME",
        help="a row of the table; may be given again (default: all)",
    )
    result.add_argument(
        "--sweep", action="store_true", help="all rows, and the table"
    )
    result.add_argument("--list", action="store_true", help="names the rows")
    result.add_argument(
        "--backend", choices=("tensorflow", "jax", "torch"), help="of Keras"
    )
    result.add_argument(
        "--data", metavar="PATH", help="data at hand instead of a download"
    )
    result.add_argument(
        "--out", type=pathlib.Path, help="folder for what is written"
    )
    result.add_argument(
        "--resume", action="store_true", help="go on with what --out holds"
    )
    result.add_argument(
        "--max-minutes",
        type=_minutes,
        help="stop in time, to be resumed",
    )
    result.add_argument("--seed", type=int, default=0)
    return result


def _minutes(text):
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def choose_backend(name):
    """Sets Keras' backend; before Keras is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if name is not None:
        os.environ["KERAS_BACKEND"] = name


def names_of(arguments, rows):
    """The rows to run, each after those that it starts from."""
    wanted = list(rows) if not arguments.row else arguments.row
    for name in wanted:
        if name not in rows:
            raise SystemExit(
                f"There is no row `{name}` in the preset "
                f"`{arguments.preset}`: it has {', '.join(rows)}."
            )
    return wanted


def run_language_model(parser, presets, task, name):
    """Reads the command line of a language model and runs it.

    Args:
        parser: What `parser` gave.
        presets: Function that returns a dict from preset to plan and rows.
        task: String, the class of the task in `paper.language`.
        name: String, of the example.
    """
    parser.add_argument(
        "--manual-dir",
        help="folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt",
    )
    arguments = parser.parse_args()
    choose_backend(arguments.backend)
    from paper import language, text

    plan, rows = presets()[arguments.preset]
    if arguments.list:
        print("\n".join(rows))
        return
    names_of(arguments, rows)
    if arguments.out is None:
        arguments.out = pathlib.Path(f"{name}_{arguments.preset}")
    if arguments.data:
        corpus = text.text_folder(arguments.data, plan.vocabulary)
    else:
        corpus = text.penn_treebank(
            plan.vocabulary, manual_dir=arguments.manual_dir
        )
    task = getattr(language, task)(plan, rows, corpus, arguments.seed)
    run(arguments, task, language.COLUMNS, "perplexity")


def run(arguments, task, columns, score):
    """Runs rows and prints the table.

    Args:
        arguments: What was parsed.
        task: `Task`.
        columns: List of titles and functions from a result to a cell.
        score: String, the score of the trade-off curve.
    """
    from paper import experiment, pictures

    console = Console()
    folder = arguments.out
    clock = experiment.Clock(arguments.max_minutes)
    wanted = names_of(arguments, task.rows)
    results = finished(folder, task.rows)
    try:
        for name in wanted:
            training = experiment.Training(
                task, name, folder, console, clock, results
            )
            results[name] = training.run(arguments.resume)
    except experiment.OutOfTime:
        console.print(
            f"The {arguments.max_minutes:g} minutes are over. What was done "
            f"is in {folder}: go on with `--resume`."
        )
        return None
    results = {name: results[name] for name in task.rows if name in results}
    times = experiment.latencies(folder, list(results), task.example())
    for name, result in results.items():
        result.update(times[name])
    console.print(table(task, list(results.values()), columns))
    if len(results) > 1:
        pictures.trade_off(
            list(results.values()), score, folder / "trade_off.png"
        )
    summary = {
        "task": task.name,
        "preset": arguments.preset,
        "data": task.source,
        "versions": versions(),
        "rows": [
            {k: v for k, v in r.items() if k not in ("history", "left")}
            for r in results.values()
        ],
    }
    experiment.write_json(folder / "table.json", summary)
    console.print(f"Written to {folder}: table.json, and a folder for each row")
    return summary


def finished(folder, rows):
    """The results that lie in a folder, by row."""
    found = {}
    for name in rows:
        path = folder / name / "result.json"
        if path.exists():
            found[name] = json.loads(path.read_text())
    return found


def table(task, results, columns):
    """The rows, ours with the paper's beside."""
    result = Table(title=f"{task.name}: {task.source}")
    result.add_column("row", no_wrap=True)
    cells = [[result["title"] for result in results]]
    for title, show in columns:
        column = [_cell(show, result) for result in results]
        if any(column):
            result.add_column(title, justify="right")
            cells.append(column)
    for row in zip(*cells):
        result.add_row(*row)
    return result


def _cell(show, result):
    """A cell; empty where the row has no such figure."""
    try:
        return show(result)
    except KeyError:
        return ""


def versions():
    """What the result was made with."""
    import platform
    import sys

    import keras

    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        backend: getattr(sys.modules.get(backend), "__version__", "?"),
    }
