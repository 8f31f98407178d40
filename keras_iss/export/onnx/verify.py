"""An ONNX file in ONNX Runtime, beside its model."""

import numpy as np

from keras_iss.export.data import numpy_dtype
from keras_iss.export.judge import ADVICE, TOLERANCE, Judge, shapes
from keras_iss.export.trials import VerificationError


def verify(path, trials, function):
    """Runs an ONNX file beside its model.

    Args:
        path: `pathlib.Path` of the file.
        trials: The `Trials`.
        function: The `Callable` of the model.

    Returns:
        Dict from the name of an output to its largest error.

    Raises:
        VerificationError: if an error is above `TOLERANCE`.
    """
    session = _session(path, function)
    judge = Judge(
        function,
        trials,
        TOLERANCE[None],
        False,
        "in ONNX Runtime",
        ADVICE[None],
    )
    names = function.output_names
    for case in trials:
        got = []
        for inputs in case.calls:
            given = {
                x.name: np.ascontiguousarray(value, numpy_dtype(x.dtype))
                for x, value in zip(function.inputs, inputs)
            }
            try:
                found = session.run(names, given)
            except Exception as error:
                # Its errors have no class in common but this one.
                raise VerificationError(
                    f"ONNX Runtime cannot run what `{function.model.name}` was "
                    f"written as, with {shapes(function, inputs)}: {error} "
                    "Where that depends on a length, fix it in the model's "
                    "`keras.Input`. Nothing was written."
                ) from error
            got.append(dict(zip(names, found)))
        judge.compare(case, got)
    return judge.errors


def _session(path, function):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # What it warns of is judged by what comes out.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise VerificationError(
            f"ONNX Runtime cannot load what `{function.model.name}` was "
            f"written as: {error} Nothing was written."
        ) from error
