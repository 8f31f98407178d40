"""Reads what TensorFlow's `benchmark_model` prints."""

import csv
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_GRAPH = re.compile(r"Graph: \[(.+?)\]|Loaded model (\S+)")
_AVERAGE = re.compile(rf"Inference \(avg\): {_NUMBER}")
_MEDIAN = re.compile(rf"\bcount=.*\bmedian={_NUMBER}")


def times_in(results: Any) -> dict[str, float]:
    """What calls of files took.

    Args:
        results: A path of what `benchmark_model` printed, or of a `.csv` or
            `.json` file of file names and microseconds; several of them in a
            list; or a dict from the name of a file to milliseconds.

    Returns:
        Dict from the name of a `.tflite` file to milliseconds.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if one holds no times, or the same file twice.
        TypeError: if `results` is none of these.
    """
    if isinstance(results, Mapping):
        try:
            return {str(name): float(x) for name, x in results.items()}
        except (TypeError, ValueError) as error:
            raise TypeError(
                "`results` must be a dict from file names to milliseconds. "
                f"Received: {dict(results)}"
            ) from error
    if isinstance(results, (str, os.PathLike)):
        results = [results]
    if not isinstance(results, (list, tuple)):
        raise TypeError(
            "`results` must be the path of what `benchmark_model` printed, a "
            "list of such paths, or a dict from file names to milliseconds. "
            f"Received: {results!r} (of type {type(results).__name__})"
        )
    found: dict[str, float] = {}
    for path in map(pathlib.Path, results):
        for name, spent in _times_of(path).items():
            if name in found:
                raise ValueError(
                    f"`{path}` has times of `{name}`, which an earlier file "
                    "has, too. Give each once."
                )
            found[name] = spent / 1e3
    return found


def _times_of(path):
    """Dict from the name of a `.tflite` file to microseconds."""
    text = path.read_text("utf-8", errors="replace")
    try:
        if path.suffix == ".json":
            return {
                str(name): float(value)
                for name, value in json.loads(text).items()
            }
        if path.suffix == ".csv":
            return _rows(text)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"`{path}` must hold the name of a .tflite file and microseconds, "
            f"for each of them ({error})."
        ) from error
    found = _printed(text, f"{path.stem}.tflite")
    if not found:
        raise ValueError(
            f"`{path}` has no line with `Inference (avg):`, as "
            "`benchmark_model` prints it. Look whether its runs failed."
        )
    return found


def _rows(text):
    """The first columns of a table, with or without titles."""
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and not rows[0][0].strip().endswith(".tflite"):
        del rows[0]
    return {row[0].strip(): float(row[1]) for row in rows}


def _printed(text, unnamed):
    """The times of runs one after the other, each of which names its graph.

    Args:
        text: What was printed.
        unnamed: The file of a single run that does not name it.
    """
    found, graph, median = {}, unnamed, None
    for line in text.splitlines():
        if match := _GRAPH.search(line):
            path = match[1] or match[2]
            graph, median = re.split(r"[/\\]", path)[-1], None
        elif match := _MEDIAN.search(line):
            # Of the last of a run; those of its warm-up come before.
            median = float(match[1])
        elif match := _AVERAGE.search(line):
            # What else the device does is in the average.
            found[graph] = median or float(match[1])
            median = None
    return found
