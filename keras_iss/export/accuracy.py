"""What a file may lose of a metric on real data, before it takes its place."""

import keras

from keras_iss._directions import is_larger_better
from keras_iss.export.model import isolated
from keras_iss.export.trials import VerificationError

_ADVICE = {
    None: "",
    "float16": "quantize=None keeps more. ",
    "int8": 'quantize="float16" keeps more. ',
    "int8_full": 'quantize="int16x8" keeps more. ',
    "int16x8": 'quantize="int8", or weights of a smaller range, may do. ',
}


def checked(file, path, model, output_names, options):
    """How good a file is on `evaluation_data`.

    Args:
        file: `pathlib.Path` of the file.
        path: `pathlib.Path` that it is to have.
        model: The `keras.Model` that it was made of.
        output_names: List of the names of the outputs.
        options: The `Options`.

    Returns:
        An `Evaluation`, with the model as its reference.

    Raises:
        ValueError: if the data do not fit the model, or there is no such
            metric.
        VerificationError: if a metric is worse than the `tolerance` allows.
    """
    # Only here: what runs models knows of files that were exported.
    from keras_iss.runtimes.evaluation import evaluate
    from keras_iss.runtimes.runners import runner_of_tflite

    runner = runner_of_tflite(file)
    runner.name = path.name
    x, y = options.evaluation_data
    keys = list(options.tolerance)
    metrics = keys if len(output_names) == 1 else _by_output(keys, output_names)
    found = evaluate(runner, x, y, metrics, reference=isolated(model))
    for key in keys:
        _check(key, found, model.name, options)
    return found


def _by_output(keys, output_names):
    """Names of metrics by the outputs whose names they begin with."""
    metrics = {}
    for key in keys:
        # The longest, of outputs such as `kind` and `kind_of`.
        name = max(
            (name for name in output_names if key.startswith(f"{name}_")),
            key=len,
            default=None,
        )
        if name is None:
            raise ValueError(
                f"`tolerance` has `{key}`, and the model the outputs "
                f"{output_names}: put one of them and `_` before the name of "
                "the metric."
            )
        metrics.setdefault(name, []).append(key.removeprefix(f"{name}_"))
    return metrics


def _check(key, found, name, options):
    value, reference = found.metrics[key], found.reference[key]
    change = found.change[key]
    lost = -change if is_larger_better(key, "auto") else change
    # What is no number is no good either; 0.94 - 0.95 is not quite -0.01.
    if lost <= options.tolerance[key] + keras.config.epsilon():
        return
    raise VerificationError(
        f"`{key}` of `{found.name}` is {value:.4g} on the {found.samples} "
        f"samples of `evaluation_data`, and that of `{name}` {reference:.4g}: "
        f"worse by {lost:.2g}, and `tolerance` allows "
        f"{options.tolerance[key]:g}. {_ADVICE[options.quantize]}Without "
        "`tolerance`, the file is written as it is. Nothing was written."
    )
