"""How long a model takes for a call."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_iss._checks import check_amount, check_count
from keras_iss.runtimes.inputs import (
    arrays_of,
    default_length,
    fixed_batch_size,
    random_arrays,
)
from keras_iss.runtimes.runners import Arrays, Runner, runner_of

WARM_UP = 2


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long calls took, in milliseconds.

    Attributes:
        median: Float, what half of the calls took at most.
        p10: Float, what a tenth of them took at most.
        p90: Float, what nine tenths of them took at most.
        runs: Integer, how many calls there were.
        batch_size: Integer, samples in a call.
    """

    median: float
    p10: float
    p90: float
    runs: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A model, and how long it takes for a call.

    Attributes:
        name: String, the name of the file or the model.
        format: `"keras"`, `"saved_model"`, `"tflite"` or `"onnx"`.
        size: Integer, bytes on disk, or `None` for a model in memory.
        weights: Integer, how many it holds, or `None` where that is not told.
        latency: `Latency`.
        shapes: Dict from the name of each input to its shape in a call.
    """

    name: str
    format: str
    size: int | None
    weights: int | None
    latency: Latency
    shapes: dict[str, tuple[int, ...]]


def benchmark(
    model: "keras.Model | Runner | str | os.PathLike[str]",
    data: Any = None,
    *,
    batch_size: int | None = None,
    length: int | None = None,
    runs: int = 50,
    seconds: float = 5.0,
    threads: int | None = None,
    load: Callable[[pathlib.Path], keras.Model] | None = None,
) -> Benchmark:
    """Measures how long a model takes for a call, on this machine.

    Two calls are made first that do not count: they compile. A Keras model is
    run as by `predict_on_batch`, a file in its own runtime on the processor.

    Args:
        model: A built `keras.Model`, the path of a `.keras`, `.tflite` or
            `.onnx` file or of a SavedModel, or a `Runner`.
        data: What it is run on: an array of shape `(samples, ...)`; for
            several inputs a list, or a dict by their names. Defaults to random
            numbers: how long a model takes does not depend on them, but for
            what they mask.
        batch_size: Integer, samples in a call. Defaults to what the file
            fixes, and else to 1.
        length: Integer, the size of what the model leaves open, such as the
            number of time steps. Defaults to 32.
        runs: Integer, how many calls are measured.
        seconds: Float, after which no further call is made.
        threads: Integer, how many threads LiteRT and ONNX Runtime use.
            Defaults to what they take by themselves.
        load: Function that loads a `.keras` file. Defaults to
            `keras.models.load_model`, in its safe mode.

    Returns:
        A `Benchmark`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no model, or an argument is out of range, or
            `data` does not fit.
        ImportError: if what runs it is not installed.

    Examples:
        >>> import keras, keras_iss
        >>> model = keras.Sequential(
        ...     [keras.Input((None, 3)), keras.layers.LSTM(4, name="lstm")])
        >>> found = keras_iss.benchmark(model, length=8, runs=3)
        >>> found.latency.runs, found.weights
        (3, 128)
    """
    runner = runner_of(model, threads, load)
    size = checked_batch_size(batch_size, [runner])
    if length is not None:
        length = check_count(length, "length", 1, "time steps")
    if data is None:
        arrays = random_arrays(
            [runner], size, length or default_length([runner])
        )
    else:
        arrays = one_batch(arrays_of(data, runner), size)
    (latency,) = measured([runner], [arrays], runs=runs, seconds=seconds)
    return Benchmark(
        runner.name,
        runner.format,
        runner.size,
        runner.weights,
        latency,
        {x.name: array.shape for x, array in zip(runner.inputs, arrays)},
    )


def checked_batch_size(
    batch_size: int | None, runners: Sequence[Runner]
) -> int:
    """The number of samples in a call of several models.

    Raises:
        ValueError: if one of them fixes another one.
    """
    fixed = {
        runner.name: size
        for runner in runners
        if (size := fixed_batch_size(runner)) is not None
    }
    if batch_size is not None:
        batch_size = check_count(
            batch_size, "batch_size", 1, "samples in a call"
        )
    for name, size in fixed.items():
        if batch_size not in (None, size):
            raise ValueError(
                f"`{name}` takes {size} samples in a call, and batch_size="
                f"{batch_size} is asked for. Leave it out, or export the "
                "model with that batch_size."
            )
    return batch_size or next(iter(fixed.values()), 1)


def measured(
    runners: Sequence[Runner],
    batches: Sequence[Arrays],
    *,
    runs: int,
    seconds: float,
) -> list[Latency]:
    """Measures models in turns, so that what else runs meets all alike.

    Args:
        runners: The `Runner`s.
        batches: What each is called with, a list of arrays.
        runs: Integer, the calls of each.
        seconds: Float, after which no further turn begins.

    Returns:
        The `Latency` of each.
    """
    runs = check_count(runs, "runs", 1, "calls to measure")
    seconds = check_amount(seconds, "seconds", "how long to measure")
    calls = [x.prepared(batch) for x, batch in zip(runners, batches)]
    for call in calls:
        for _ in range(WARM_UP):
            call()
    spent: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    for turn in range(runs):
        if turn and time.perf_counter() > end:
            break
        for call, times in zip(calls, spent):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return [
        _latency(times, len(batch[0])) for times, batch in zip(spent, batches)
    ]


def one_batch(arrays: Arrays, size: int) -> Arrays:
    """The first samples, repeated where there are not enough of them."""
    repeats = -(-size // len(arrays[0]))
    return [np.concatenate([array] * repeats)[:size] for array in arrays]


def _latency(times, batch_size):
    p10, median, p90 = np.percentile(times, (10, 50, 90)) * 1e3
    return Latency(
        float(median), float(p10), float(p90), len(times), batch_size
    )
