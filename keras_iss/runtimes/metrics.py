"""How good outputs are, beside what they should be."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_iss._data import as_tuple
from keras_iss.runtimes.runners import Outputs, Runner


def metrics_of(model: keras.Model | None) -> list[Any] | None:
    """The loss and the metrics that a model was compiled with.

    Args:
        model: A `keras.Model`, or `None`.

    Returns:
        List of what `scores_of` takes, or `None` where a model has several
        outputs, was not compiled, or was with what no file can hold.
    """
    if model is None or not getattr(model, "compiled", False):
        return None
    if len(keras.tree.flatten(model.outputs or [None, None])) != 1:
        return None
    # A model that was loaded makes its metrics with its first batch.
    config = model.get_compile_config() or {}
    given = [config.get("loss"), *_flat(config.get("metrics"))]
    try:
        found = [
            keras.saving.deserialize_keras_object(x)
            if isinstance(x, dict)
            else x
            for x in given
            if x is not None
        ]
    except (TypeError, ValueError):
        return None
    return found or None


def scores_of(
    outputs: Outputs,
    targets: Any,
    metrics: Sequence[Any] | Mapping[str, Sequence[Any]] | None,
) -> dict[str, float]:
    """How good outputs are.

    Args:
        outputs: Dict from the name of each output to an array.
        targets: An array; for several outputs a list, or a dict by the names
            of the outputs.
        metrics: Names, `keras.metrics.Metric`s or losses, or a dict of such
            by the names of outputs, or `None`: the accuracy for targets that
            are classes, the mean squared and absolute error for others.

    Returns:
        Dict from the name of a metric to a float; of several outputs, with
        the name of the output before it.

    Raises:
        ValueError: if the targets do not fit the outputs, or there is no
            such metric.
    """
    given = _by_output(outputs, targets)
    scores = {}
    for name, target in given.items():
        output, wanted = outputs[name], metrics
        if isinstance(wanted, Mapping):
            wanted = wanted.get(name, ())
        for metric in wanted if wanted is not None else _usual(target, output):
            label, value = _score(metric, target, output)
            scores[label if len(given) == 1 else f"{name}_{label}"] = value
    return scores


def check_order(runner: Runner, outputs: Outputs, targets: Any) -> None:
    """Refuses targets that could be those of another output.

    Args:
        runner: The `Runner` whose outputs the targets are of.
        outputs: Dict from the name of each output to an array.
        targets: As in `scores_of`.

    Raises:
        ValueError: if several targets come without names, and the outputs of
            the model have no order.
    """
    if (
        len(outputs) > 1
        and runner.model is None
        and not isinstance(targets, Mapping)
    ):
        raise ValueError(
            f"The outputs of `{runner.name}` have names, and no order: give "
            f"the targets in a dict by them, {list(outputs)}."
        )


def _flat(metrics):
    """Metrics as a list: of one output they may be in a list or a dict."""
    if isinstance(metrics, Mapping) and "class_name" not in metrics:
        metrics = list(metrics.values())
    if not isinstance(metrics, (list, tuple)):
        return [metrics]
    return [inner for metric in metrics for inner in _flat(metric)]


def _by_output(outputs, targets):
    if isinstance(targets, Mapping):
        unknown = [name for name in targets if name not in outputs]
        if unknown:
            raise ValueError(
                f"The targets have `{unknown[0]}`, and the outputs are "
                f"{list(outputs)}."
            )
        return {name: np.asarray(x) for name, x in targets.items()}
    arrays = as_tuple(targets)
    if len(arrays) != len(outputs):
        raise ValueError(
            f"There are {len(arrays)} arrays of targets and {len(outputs)} "
            f"outputs: {list(outputs)}. Name them like the outputs."
        )
    return {name: np.asarray(x) for name, x in zip(outputs, arrays)}


def _usual(target, output):
    if _is_class(target, output) or (
        target.dtype.kind in "biu" and target.shape == output.shape
    ):
        return ["accuracy"]
    return ["mean_squared_error", "mean_absolute_error"]


def _is_class(target, output):
    """Whether targets are numbers of classes that the last axis is of."""
    return (
        target.dtype.kind in "iu"
        and output.ndim > 0
        and output.shape[-1] > 1
        and target.shape in (output.shape[:-1], (*output.shape[:-1], 1))
    )


def _resolved(name, target, output):
    """The metric that a general name means for these shapes."""
    if name not in ("accuracy", "acc"):
        return name
    if _is_class(target, output):
        return "sparse_categorical_accuracy"
    if output.shape[-1:] == (1,):
        return "binary_accuracy"
    if (
        target.dtype.kind in "f"
        and output.ndim > 1
        and (_is_class(target.astype("int64"), output))
    ):
        return "sparse_categorical_accuracy"
    return "categorical_accuracy"


def _score(metric, target, output):
    if isinstance(metric, str):
        label = metric
        name = _resolved(metric, target, output)
        try:
            metric = keras.metrics.get(name)
        except ValueError:
            try:
                metric = keras.losses.get(name)
            except ValueError as error:
                raise ValueError(
                    f"There is no metric `{label}`. Give a name of one of "
                    "`keras.metrics`, such as `accuracy` or "
                    "`mean_absolute_error`."
                ) from error
    else:
        label = getattr(metric, "name", type(metric).__name__)
        if isinstance(metric, keras.losses.Loss):
            label = "loss" if label is None else label
    if target.ndim == output.ndim - 1 and output.shape[-1:] == (1,):
        target = target[..., None]
    if isinstance(metric, keras.metrics.Metric):
        fresh = type(metric).from_config(metric.get_config())
        fresh.update_state(target, output)
        value = fresh.result()
    else:
        value = metric(target, output)
    value = keras.ops.convert_to_numpy(value)
    return label, float(np.mean(value))
