"""How good a model is on real data, in whatever form it is kept."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_iss.runtimes.inputs import arrays_of, in_order_of
from keras_iss.runtimes.metrics import check_order, metrics_of, scores_of
from keras_iss.runtimes.outputs import outputs_of, paired
from keras_iss.runtimes.runners import Runner, runner_of


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How good a model is, and what it lost.

    Attributes:
        name: String, the name of the file or the model.
        metrics: Dict from the name of a metric to a float.
        reference: Dict likewise, of the model that it was made of; empty if
            none was given.
        samples: Integer, how many samples the metrics are of.
    """

    name: str
    metrics: dict[str, float]
    reference: dict[str, float]
    samples: int

    @property
    def change(self) -> dict[str, float]:
        """Dict from the name of a metric to what became of it.

        That is the metric less that of the reference: an accuracy that fell
        from 0.95 to 0.94 gives -0.01.
        """
        return {
            name: self.metrics[name] - value
            for name, value in self.reference.items()
        }

    def __str__(self):
        lines = [f"{self.name}, {self.samples} samples"]
        change = self.change
        for name, value in self.metrics.items():
            line = f"{name}: {value:.4g}"
            if name in change:
                line += f" ({change[name]:+.2g})"
            lines.append(line)
        return "\n".join(lines)


def evaluate(
    model: "keras.Model | Runner | str | os.PathLike[str]",
    x: Any,
    y: Any,
    metrics: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    *,
    reference: "keras.Model | Runner | str | os.PathLike[str] | None" = None,
    threads: int | None = None,
    load: Callable[[pathlib.Path], keras.Model] | None = None,
) -> Evaluation:
    """Runs a model over samples and says how good it is.

    What a conversion or a cut cost is seen with `reference`: a few hundred
    samples of real data tell more than the largest difference of two outputs.

    Args:
        model: The path of a `.tflite`, `.keras` or `.onnx` file or of a
            SavedModel, a built `keras.Model`, or a `Runner`.
        x: Inputs: an array of shape `(samples, ...)`; for several inputs a
            list, or a dict by their names. Full integers are made of them
            where the file takes those.
        y: Targets: an array of shape `(samples, ...)`; for several outputs a
            dict by their names, those of the reference if there is one, or
            a list in the order of a Keras model.
        metrics: Names of `keras.metrics`, or metrics or losses; for several
            outputs, a dict of such by their names does, too. Defaults to
            the loss and the metrics that the model or the reference was
            compiled with; without those, to the accuracy for targets that are
            classes, and to the mean squared and absolute error for others.
        reference: What the file was made of, in any of the forms of `model`.
            Defaults to nothing.
        threads: Integer, how many threads LiteRT and ONNX Runtime may use.
            Defaults to what they take by themselves.
        load: Function that loads a `.keras` file. Defaults to
            `keras.models.load_model`, in its safe mode.

    Returns:
        An `Evaluation`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if samples, targets and outputs do not fit each other, or
            there is no such metric.
        ImportError: if what runs the file is not installed.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((6, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(2, name="out")])
        >>> small = keras_iss.shrink(model, keep={"lstm": 5})
        >>> x, y = np.ones((4, 6, 3)), np.array([0, 1, 0, 1])
        >>> found = keras_iss.evaluate(small, x, y, reference=model)
        >>> found.samples, list(found.metrics), list(found.change)
        (4, ['accuracy'], ['accuracy'])
    """
    runner = runner_of(model, threads, load)
    other = None if reference is None else runner_of(reference, threads, load)
    if metrics is None:
        metrics = metrics_of(runner.model)
        if metrics is None and other is not None:
            metrics = metrics_of(other.model)
    named = other or runner
    arrays = arrays_of(x, named)
    _check_count(arrays, y, named)
    outputs = outputs_of(runner, in_order_of(runner, named, arrays))
    before: dict[str, float] = {}
    if other is not None:
        expected = outputs_of(other, arrays)
        outputs = paired(expected, outputs, other, runner)
        before = scores_of(expected, y, metrics)
    check_order(named, outputs, y)
    scores = scores_of(outputs, y, metrics)
    return Evaluation(runner.name, scores, before, len(arrays[0]))


def _check_count(arrays, y, runner):
    count = len(arrays[0])
    for target in keras.tree.flatten(y):
        if len(target) != count:
            raise ValueError(
                f"`{runner.name}` gets {count} samples in `x`, and `y` has "
                f"targets for {len(target)}: give as many of both."
            )
