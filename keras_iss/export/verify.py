"""Whether a file computes what the Keras model computes."""

import numpy as np
import tensorflow as tf

from keras_iss._keras.layers import inner_layers
from keras_iss.export.differences import error_of
from keras_iss.export.integers import Runner
from keras_iss.export.streaming import joined
from keras_iss.export.trials import VerificationError

TOLERANCE = {None: 1e-4, "float16": 1e-2, "int8": 0.5, "int8_full": 0.5}


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
                    f"{_shapes(function, inputs)}: {error} Where that depends "
                    "on a length, fix it in the model's `keras.Input`. "
                    "Nothing was written."
                ) from error
        if form.whole:
            judge.compare(case, got)
        if stepper is not None:
            judge.compare(case, stepped)
    return judge.errors


def judge_of(function, trials, options, where):
    """What gathers the errors of a file and refuses what is too far off.

    Args:
        function: The `Callable` of the model.
        trials: The `Trials`.
        options: The `Options`.
        where: Name of what runs the file.
    """
    quantize = options.quantize
    return _Judge(
        function,
        trials,
        TOLERANCE[quantize],
        "int8" in (quantize or ""),
        f"in {where}, with quantize={quantize!r},",
        _ADVICE[quantize],
    )


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
    judge = _Judge(
        function, trials, tolerance, False, "in the SavedModel", _ADVICE[None]
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


_ADVICE = {
    None: "",
    "float16": "quantize=None keeps more. ",
    "int8": 'quantize="float16" keeps more. ',
    "int8_full": (
        'quantize="int8" keeps more, and so do more samples of '
        "representative_data. "
    ),
}


class _Judge:
    """Gathers the errors of all cases, and refuses what is too far off."""

    def __init__(self, function, trials, tolerance, relative, where, advice):
        self.errors = dict.fromkeys(function.output_names, 0.0)
        self._function = function
        self._trials = trials
        self._tolerance = tolerance
        self._relative = relative
        self._where = where
        self._advice = advice

    def compare(self, case, got):
        """Takes in what a file gave for the calls of a case."""
        for name in self.errors:
            error = error_of(
                [outputs[name] for outputs in got],
                [outputs[name] for outputs in case.expected],
                self._relative,
            )
            self.errors[name] = max(self.errors[name], error)
            if not error <= self._tolerance:
                raise VerificationError(self._message(name, error, case, got))

    def _message(self, name, error, case, got):
        kind = "relative error" if self._relative else "error"
        inputs = case.calls[0]
        known = self._trials.what.startswith("the samples")
        data = (
            "verify=False writes"
            if known
            else "Give data= with samples that the model is made for, to "
            "verify on those; verify=False writes"
        )
        return (
            f"Output `{name}` of `{self._function.model.name}` differs "
            f"{self._where} by {_difference(name, kind, error, case, got)}; "
            f"at most {self._tolerance} was expected. It ran on "
            f"{self._trials.what}: {_shapes(self._function, inputs)}. "
            f"{self._advice}{data} the file as it is. Nothing was written."
        )


def _difference(name, kind, error, case, got):
    shapes = [outputs[name].shape for outputs in got]
    wanted = [outputs[name].shape for outputs in case.expected]
    if shapes != wanted:
        return f"its shape, {shapes[0]} instead of {wanted[0]}"
    if np.isfinite(error):
        article = "a" if kind.startswith("relative") else "an"
        return f"{article} {kind} of {error:.2g}"
    return "where it is NaN or infinity"


def _shapes(function, inputs):
    parts = []
    for x, value in zip(function.inputs, inputs):
        text = f"`{x.name}` of shape {value.shape}"
        if value.size and value.dtype.kind in "iuf":
            text += f" from {np.nanmin(value):.4g} to {np.nanmax(value):.4g}"
        parts.append(text)
    return ", ".join(parts)


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
