"""Files for microcontrollers beside their models, and the memory they take."""

import numpy as np

from keras_iss.export import tflm
from keras_iss.export.integers import to_integers
from keras_iss.export.judge import judge_of
from keras_iss.export.streaming import joined
from keras_iss.export.trials import VerificationError


def measured(path, micro, function, options, form, trials):
    """The same with its memory, after a run in TensorFlow Lite Micro.

    Args:
        path: `pathlib.Path` of the file.
        micro: The `Micro` of it.
        function: The `Callable` of the model.
        options: The `Options`.
        form: The `Form` of the file.
        trials: The `Trials`.

    Returns:
        Tuple of the `Micro`, as it was where `tflite-micro` is not installed,
        and of a dict from the name of an output to its largest error there;
        an empty one where nothing was compared.

    Raises:
        VerificationError: if TensorFlow Lite Micro cannot run the file, or
            computes something else.
    """
    if not tflm.can_run():
        return micro, {}
    content = path.read_bytes()
    name = function.model.name
    if not options.verify:
        zeros = {
            x.index: np.zeros(x.shape, x.dtype)
            for x in micro.inputs
            if not x.state
        }
        return _run(content, micro, [[zeros]], name)[0], {}
    judge = judge_of(function, trials, options, "TensorFlow Lite Micro")
    for case in trials:
        sequences = [
            [
                _named(micro, function, values)
                for values in (
                    form.stepper.steps_of(inputs) if form.stepper else [inputs]
                )
            ]
            for inputs in case.calls
        ]
        micro, results = _run(content, micro, sequences, name)
        judge.compare(
            case,
            [
                {
                    key: _whole(
                        value, [step[key] for step in steps], micro.step
                    )
                    for key, value in expected.items()
                }
                for steps, expected in zip(results, case.expected)
            ],
        )
    return micro, judge.errors


def _run(content, micro, sequences, name):
    try:
        return tflm.run(content, micro, sequences)
    except tflm.TflmError as error:
        raise VerificationError(
            f"TensorFlow Lite Micro cannot run what `{name}` was converted "
            f"to: {error} Replace the layer that needs it. Nothing was written."
        ) from error


def _named(micro, function, values):
    known = {x.name: v for x, v in zip(function.inputs, values)}
    return {
        x.index: to_integers(known[x.name], x.dtype, x.scale, x.zero_point)
        for x in micro.inputs
        if not x.state
    }


def _whole(expected, steps, step):
    return joined(expected.shape, steps) if step else steps[0]


def check_can_run(name):
    """Raises an error if what only that interpreter runs cannot be run.

    Args:
        name: Name of the model.
    """
    if not tflm.can_run():
        raise ImportError(
            f"`{name}` has fused LSTM layers with activations in 16 bits, "
            "which TensorFlow Lite Micro computes and LiteRT does not. To "
            'verify the file: pip install "keras-iss[devices]". verify=False '
            "writes it as it is. Nothing was written."
        )
