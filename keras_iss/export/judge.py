"""How far off the outputs of a file may be, and what is said of it."""

import numpy as np

from keras_iss.export.differences import error_of
from keras_iss.export.trials import VerificationError

TOLERANCE = {
    None: 1e-4,
    "float16": 1e-2,
    "int8": 0.5,
    "int8_full": 0.5,
    "int16x8": 0.1,
}
ADVICE = {
    None: "",
    "float16": "quantize=None keeps more. ",
    "int8": 'quantize="float16" keeps more. ',
    "int8_full": (
        'quantize="int16x8" keeps more, and so do more samples of '
        "representative_data. "
    ),
    "int16x8": (
        "Weights are in 8 bits: see whether some are far larger than the "
        "others. More samples of representative_data may do. "
    ),
}


class Judge:
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
            f"{self._trials.what}: {shapes(self._function, inputs)}. "
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


def shapes(function, inputs):
    """Text that says which inputs a function was called on."""
    parts = []
    for x, value in zip(function.inputs, inputs):
        text = f"`{x.name}` of shape {value.shape}"
        if value.size and value.dtype.kind in "iuf":
            text += f" from {np.nanmin(value):.4g} to {np.nanmax(value):.4g}"
        parts.append(text)
    return ", ".join(parts)


def judge_of(function, trials, options, where):
    """What gathers the errors of a file and refuses what is too far off.

    Args:
        function: The `Callable` of the model.
        trials: The `Trials`.
        options: The `Options`.
        where: Name of what runs the file.
    """
    quantize = options.quantize
    return Judge(
        function,
        trials,
        TOLERANCE[quantize],
        options.integers,
        f"in {where}, with quantize={quantize!r},",
        ADVICE[quantize],
    )
