"""Two models beside each other: outputs, quality, size, time."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_iss._data import as_tuple
from keras_iss.runtimes.inputs import (
    arrays_of,
    default_length,
    in_order_of,
    random_arrays,
)
from keras_iss.runtimes.latency import (
    Latency,
    checked_batch_size,
    measured,
    one_batch,
)
from keras_iss.runtimes.metrics import check_order, metrics_of, scores_of
from keras_iss.runtimes.outputs import outputs_of, paired
from keras_iss.runtimes.runners import Runner, runner_of

RANDOM_SAMPLES = 16


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two models.

    Attributes:
        name: String, the name of the file or the model.
        format: `"keras"`, `"saved_model"`, `"tflite"` or `"onnx"`.
        size: Integer, bytes on disk, or `None` for a model in memory.
        weights: Integer, how many it holds, or `None` where that is not told.
        metrics: Dict from the name of a metric to a float. Empty without
            targets.
        latency: `Latency`, or `None` if it was not measured.
    """

    name: str
    format: str
    size: int | None
    weights: int | None
    metrics: dict[str, float]
    latency: Latency | None


@dataclasses.dataclass(frozen=True)
class OutputDifference:
    """How far an output of the second model is from that of the first.

    Attributes:
        largest: Float, the largest difference of two numbers.
        relative: Float, the root mean square of the differences, as a part
            of that of the first model's output.
        same_class: Float, the part of the places at which the largest number
            along the last axis is at the same index; `None` for an output
            whose last axis has a size of 1.
    """

    largest: float
    relative: float
    same_class: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models beside each other.

    Attributes:
        a: `Side`, the first.
        b: `Side`, the second.
        outputs: Dict from the name of each output of the first model to an
            `OutputDifference`.
        samples: Integer, how many samples the outputs are of.
        random: Boolean, whether these were random numbers.
    """

    a: Side
    b: Side
    outputs: dict[str, OutputDifference]
    samples: int
    random: bool

    @property
    def largest(self) -> float:
        """Float, the largest difference of all the outputs."""
        return max((x.largest for x in self.outputs.values()), default=0.0)


def compare(
    a: "keras.Model | Runner | str | os.PathLike[str]",
    b: "keras.Model | Runner | str | os.PathLike[str]",
    data: Any = None,
    *,
    metrics: Sequence[Any] | None = None,
    latency: bool = True,
    batch_size: int | None = None,
    length: int | None = None,
    runs: int = 30,
    seconds: float = 5.0,
    threads: int | None = None,
    load: Callable[[pathlib.Path], keras.Model] | None = None,
) -> Comparison:
    """Compares two models that take the same inputs, whatever their forms.

    Args:
        a: A built `keras.Model`, the path of a `.keras`, `.tflite` or
            `.onnx` file or of a SavedModel, or a `Runner`.
        b: The other one.
        data: Inputs, or a tuple `(inputs, targets)`. Inputs are an array of
            shape `(samples, ...)`; for several inputs a list, or a dict by
            their names. Defaults to random numbers, on which a difference of
            outputs means little.
        metrics: What is computed where there are targets: names of
            `keras.metrics` or such objects. Defaults to the loss and the
            metrics that the first Keras model of the two was compiled with;
            without one, to the accuracy for targets that are classes, and to
            the mean squared and absolute error for others.
        latency: Boolean, whether to measure how long a call takes, of both
            in turns. Defaults to `True`.
        batch_size: Integer, samples in a call whose time is taken. Defaults
            to what a file fixes, and else to 1.
        length: As in `benchmark`.
        runs: As in `benchmark`.
        seconds: As in `benchmark`.
        threads: As in `benchmark`.
        load: As in `benchmark`.

    Returns:
        A `Comparison`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the two do not take the same inputs or give other
            outputs, or `data` does not fit.
        ImportError: if what runs one of them is not installed.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((6, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(2, name="out")])
        >>> small = keras_iss.shrink(model, keep={"lstm": 5})
        >>> x, y = np.ones((4, 6, 3)), np.array([0, 1, 0, 1])
        >>> found = keras_iss.compare(model, small, (x, y), latency=False)
        >>> found.samples, list(found.outputs), list(found.b.metrics)
        (4, ['out'], ['accuracy'])
    """
    runners = [runner_of(model, threads, load) for model in (a, b)]
    first, second = runners
    inputs, targets = _parted(data)
    if inputs is None:
        size = length or default_length(runners)
        arrays = random_arrays(runners, RANDOM_SAMPLES, size)
    else:
        arrays = arrays_of(inputs, first)
    others = in_order_of(second, first, arrays)
    outputs = [outputs_of(first, arrays), outputs_of(second, others)]
    outputs[1] = paired(outputs[0], outputs[1], first, second)
    scores: list[dict[str, float]] = [{}, {}]
    if targets is not None:
        check_order(first, outputs[0], targets)
        if metrics is None:
            metrics = metrics_of(first.model) or metrics_of(second.model)
        scores = [scores_of(found, targets, metrics) for found in outputs]
    times: list[Latency | None] = [None, None]
    if latency:
        size = checked_batch_size(batch_size, runners)
        batches = [one_batch(x, size) for x in (arrays, others)]
        times = list(measured(runners, batches, runs=runs, seconds=seconds))
    sides = [
        Side(x.name, x.format, x.size, x.weights, score, spent)
        for x, score, spent in zip(runners, scores, times)
    ]
    return Comparison(
        sides[0],
        sides[1],
        {
            name: _difference(outputs[0][name], outputs[1][name])
            for name in outputs[0]
        },
        len(arrays[0]),
        inputs is None,
    )


def _parted(data):
    """Inputs and targets, `None` where there are none."""
    if data is None:
        return None, None
    if not isinstance(data, tuple):
        return data, None
    parts = as_tuple(data)
    if len(parts) not in (1, 2, 3):
        raise ValueError(
            "`data` must be inputs, or a tuple `(inputs, targets)`; several "
            f"inputs go in a list or a dict. Received: a tuple of {len(parts)}."
        )
    return parts[0], parts[1] if len(parts) > 1 else None


def _difference(a, b):
    a, b = (np.asarray(x).astype("float64") for x in (a, b))
    both = np.isfinite(a) & np.isfinite(b)
    same = both | (a == b) | (np.isnan(a) & np.isnan(b))
    apart = np.where(both, np.abs(a - b), np.where(same, 0.0, np.inf))
    size = np.sqrt(np.mean(np.square(np.where(both, a, 0.0))))
    off = np.sqrt(np.mean(np.square(apart)))
    return OutputDifference(
        float(apart.max(initial=0.0)),
        float(off / size) if size else float(off),
        float(np.mean(a.argmax(-1) == b.argmax(-1)))
        if a.ndim > 1 and a.shape[-1] > 1
        else None,
    )
