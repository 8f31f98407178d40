"""Costs measured on this machine, in LiteRT."""

import contextlib
import os
import pathlib
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import keras
import numpy as np

from keras_iss._checks import check_amount, check_count
from keras_iss._target import Target
from keras_iss._totals import Cost
from keras_iss.costs.probes import write_cost_probes
from keras_iss.costs.table import CostTable
from keras_iss.runtimes.inputs import (
    LENGTH,
    fixed_batch_size,
    random_arrays,
)

# Turns between two looks at whether the times are good.
_TURNS = 10
# Relative errors with which to stop, and with which to warn.
_EXACT, _INEXACT = 0.05, 0.15
# How long a probe is called in a turn, and how often at least.
_SECONDS, _CALLS = 0.02, 3


def measure_costs(
    model: keras.Model,
    *,
    latency: bool = True,
    probes: int | None = None,
    round_to: int = 4,
    length: int | None = None,
    threads: int = 1,
    seconds: float = 60.0,
    folder: str | os.PathLike[str] | None = None,
    include: tuple[str, ...] = ("recurrent",),
    **options: Any,
) -> CostTable:
    """Measures what a model costs at smaller sizes, in LiteRT on this machine.

    Writes the model at several sizes, some seconds each, and runs the files
    in turns, so that what else the machine does meets all alike: how they
    differ is taken from their quicker calls, and how long they take from the
    median of all. It goes on until the time at one size is told by those at
    the others.

    Args:
        model: A built `keras.Model`, on any backend.
        latency: Boolean, whether to measure times. Without them the costs
            tell kilobytes only.
        probes: As in `write_cost_probes`.
        round_to: As in `write_cost_probes`. A target of milliseconds leaves
            multiples of it.
        length: Integer, the number of time steps, where the model leaves them
            open. Defaults to 32.
        threads: Integer, the threads of LiteRT. Defaults to 1.
        seconds: Float, after which no further turn begins.
        folder: Where to leave the files, as in `write_cost_probes`, and the
            table, as `costs.json`. Defaults to `None`: nowhere.
        include: Tuple of kinds of layers, as in `find_structures`.
        **options: As in `write_cost_probes`: `quantize`, `batch_size` and
            others of `export_tflite`. What is exported later has the costs
            that are told if it is exported with the same.

    Returns:
        A `CostTable`, which `prune` and `ISSBudget` take as `costs`.

    Raises:
        ValueError: if an argument is out of range, no structure may lose a
            component, or the model cannot be exported.
        TypeError: if one is of a wrong type.
        ImportError: if TensorFlow or LiteRT is not installed.

    Example:
    ```python
    costs = keras_iss.measure_costs(model, quantize="int8")
    print(costs)
    costs.latency_ms({"lstm_1": 48, "lstm_2": 32})
    keras_iss.prune(model, latency_ms=0.8, costs=costs)
    costs.save("costs.json")
    ```
    """
    if length is not None:
        length = check_count(length, "length", 1, "time steps")
    threads = check_count(threads, "threads", 1, "threads")
    seconds = check_amount(seconds, "seconds", "how long to measure")
    with _folder(folder) as place:
        table = write_cost_probes(
            model,
            place,
            probes=probes,
            round_to=round_to,
            include=include,
            **options,
        )
        if not latency:
            return table
        files = [probe.file for probe in table.probes]

        def told(spent):
            return table.timed(dict(zip(files, spent)), _device(threads))

        spent = _times(
            [place / file for file in files],
            length or LENGTH,
            threads,
            seconds,
            lambda spent: told(spent).latency_error < _EXACT,
        )
        table = told(spent)
        if table.latency_error > _INEXACT:
            warnings.warn(
                f"What `{model.name}` takes at some sizes is told only to "
                f"{table.latency_error:.0%} by what it takes at others. If "
                "the machine is busy, measure again when it is not.",
                stacklevel=2,
            )
        if folder is not None:
            table.save(place / "costs.json")
    return table


def with_known_costs(
    target: Target, model: keras.Model, include: tuple[str, ...]
) -> Target:
    """A target that knows what a model costs, if it is one of costs.

    Args:
        target: `Target`.
        model: The `keras.Model` at full size, which is measured if need be.
        include: Tuple of kinds of layers, as in `find_structures`.
    """
    if not isinstance(target, Cost) or target.costs is not None:
        return target
    return target.with_costs(
        measure_costs(
            model, latency=target.kind == "latency_ms", include=include
        )
    )


@contextlib.contextmanager
def _folder(folder: Any) -> Iterator[pathlib.Path]:
    if folder is not None:
        yield pathlib.Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield pathlib.Path(temporary) / "probes"


def _times(paths, length, threads, seconds, is_enough):
    """The milliseconds of a call of each file.

    Args:
        paths: List of paths.
        length: Integer, the number of time steps, where a file leaves it open.
        threads: Integer.
        seconds: Float, after which no further turn begins.
        is_enough: Function of the milliseconds, whether to stop before.
    """
    from keras_iss.runtimes.lite_runner import LiteRunner

    calls = []
    for path in paths:
        runner = LiteRunner(path, threads)
        size = fixed_batch_size(runner) or 1
        calls.append(runner.prepared(random_arrays([runner], size, length)))
    spent: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    turns = 0
    while not turns or time.perf_counter() < end:
        for call, times in zip(calls, spent):
            # Back to back, as in use: not with the weights of another in the
            # processor's cache.
            call()
            times += _burst(call)
        turns += 1
        if turns % _TURNS == 0 and is_enough(_level(spent)):
            break
    return _level(spent)


def _level(spent):
    """The milliseconds of each, of the seconds of several calls of each.

    What else the machine does meets some more than others. Their quicker
    calls say how they differ, and the medians of all, how long they take.
    """
    quick, median = np.array([np.percentile(x, (10, 50)) for x in spent]).T
    return [float(x) for x in quick * np.median(median / quick) * 1e3]


def _burst(call):
    times: list[float] = []
    while len(times) < _CALLS or sum(times) < _SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _device(threads):
    try:
        version = metadata.version("ai-edge-litert")
    except metadata.PackageNotFoundError:
        version = ""
    return (
        f"LiteRT {version}, {threads} thread{'s' * (threads > 1)}, "
        f"{platform.system()} {platform.machine()}"
    )
