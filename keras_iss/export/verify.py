"""Whether a file computes what the Keras model computes."""

import numpy as np
import tensorflow as tf

from keras_iss._keras.layers import inner_layers
from keras_iss.export.integers import Runner
from keras_iss.export.judge import ADVICE, TOLERANCE, Judge, judge_of, shapes
from keras_iss.export.streaming import joined
from keras_iss.export.trials import VerificationError


def verify_lite(path, trials, function, options, form):
    """Runs a TFLite file beside its model.

    Args:
        path: `pathlib.Path` of the file.
        trials: The `Trials`.
        function: The `Callable` of the model.
        options: The `Options`.
        form: The `Form` of the file.

    Returns:
        Dict from the name of an output to its largest error.

    Raises:
        VerificationError: if an error is above `TOLERANCE`.
    """
    judge = judge_of(function, trials, options, "LiteRT")
    stepper = form.stepper
    for case in trials:
        interpreter = _interpreter(path)
        got, stepped = [], []
        for inputs, expected in zip(case.calls, case.expected):
            try:
                _begin_anew(interpreter, function, form)
                if form.whole:
                    got.append(_run(interpreter, function.inputs, inputs))
                if stepper is not None:
                    stepped.append(
                        _stepped(
                            interpreter, function, stepper, inputs, expected
                        )
                    )
            except RuntimeError as error:
                raise VerificationError(
                    "LiteRT cannot run what "
                    f"`{function.model.name}` was converted to, with "
                    f"{shapes(function, inputs)}: {error} Where that depends "
                    "on a length, fix it in the model's `keras.Input`. "
                    "Nothing was written."
                ) from error
        if form.whole:
            judge.compare(case, got)
        if stepper is not None:
            judge.compare(case, stepped)
    return judge.errors


def verify_saved_model(folder, trials, function, changes):
    """Runs a SavedModel beside its model.

    Args:
        folder: `pathlib.Path` of the SavedModel.
        trials: The `Trials`.
        function: The `Callable` of the model.
        changes: Whether a call changes what the SavedModel holds.

    Returns:
        Dict from the name of an output to its largest error.

    Raises:
        VerificationError: if an error is above `TOLERANCE`.
    """
    half = any(
        layer.compute_dtype in ("float16", "bfloat16")
        for layer in inner_layers(function.model)
    )
    tolerance = TOLERANCE["float16" if half else None]
    judge = Judge(
        function, trials, tolerance, False, "in the SavedModel", ADVICE[None]
    )
    loaded = None
    for case in trials:
        got = []
        for inputs in case.calls:
            # Loaded anew, it begins with the states that it was saved with.
            if loaded is None or changes:
                loaded = tf.saved_model.load(str(folder))
            outputs = loaded.serve(
                *[
                    tf.cast(value, x.dtype)
                    for x, value in zip(function.inputs, inputs)
                ]
            )
            got.append({name: np.asarray(x) for name, x in outputs.items()})
        judge.compare(case, got)
    return judge.errors


def _interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path), num_threads=2)


def _begin_anew(interpreter, function, form):
    """Sets to zero what the file itself carries from call to call."""
    if function.states and form.whole:
        interpreter.get_signature_runner("reset")()
    if form.keeps_state:
        interpreter.allocate_tensors()
        interpreter.reset_all_variables()


def _run(interpreter, inputs, values):
    runner = Runner(interpreter, "serve")
    return runner(
        **{x.name: v for x, v in zip(inputs, values) if x.name in runner.inputs}
    )


def _stepped(interpreter, function, stepper, inputs, expected):
    """The outputs of the steps as those of the whole sequence, by name."""
    runner = Runner(interpreter, "step")
    states = stepper.zeros(len(inputs[0]))
    results = []
    for values in stepper.steps_of(inputs):
        named = {
            x.name: v
            for x, v in zip(function.inputs, values)
            if x.name in runner.inputs
        }
        result = runner(**named, **states)
        states = {name: result[name] for name in states}
        results.append({name: result[name] for name in expected})
    return {
        name: joined(value.shape, [result[name] for result in results])
        for name, value in expected.items()
    }
