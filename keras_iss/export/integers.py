"""Numbers as a file in integers has them, and back."""

import numpy as np


def to_integers(values, dtype, scale, zero_point):
    """Real numbers as the nearest integers of a scale.

    Args:
        values: Array of numbers.
        dtype: The integer dtype.
        scale: The real number between two integers next to each other; 0 for
            numbers that are meant as they are.
        zero_point: The integer that stands for 0.
    """
    dtype = np.dtype(dtype)
    if not scale or np.asarray(values).dtype.kind != "f":
        return np.asarray(values, dtype)
    ends = np.iinfo(dtype)
    whole = np.rint(np.asarray(values, "float64") / scale) + zero_point
    return np.clip(whole, ends.min, ends.max).astype(dtype)


def to_floats(values, scale, zero_point):
    """What integers stand for; see `to_integers`."""
    if not scale or values.dtype.kind != "i":
        return values
    return ((values.astype("float64") - zero_point) * scale).astype("float32")


class Runner:
    """A signature of an interpreter, with real numbers outside.

    Attributes:
        inputs: Set of the names of its inputs.
    """

    def __init__(self, interpreter, name):
        self._runner = interpreter.get_signature_runner(name)
        self._in = self._runner.get_input_details()
        self._out = self._runner.get_output_details()
        self.inputs = set(self._in)

    def __call__(self, **values):
        """Dict of the outputs by name, as arrays."""
        given = {
            name: to_integers(
                value, self._in[name]["dtype"], *self._in[name]["quantization"]
            )
            if np.dtype(self._in[name]["dtype"]).kind == "i"
            else value
            for name, value in values.items()
        }
        outputs = self._runner(**given)
        return {
            name: to_floats(np.array(value), *self._out[name]["quantization"])
            for name, value in outputs.items()
        }
