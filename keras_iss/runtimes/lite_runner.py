"""Runs a TFLite file in LiteRT."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_iss.runtimes._installed import needed
from keras_iss.runtimes.formats import size_of
from keras_iss.runtimes.runners import Arrays, InputSpec, Outputs

# In this order; a file without signatures is run by its main graph.
SIGNATURES = ("serve", "serving_default")
# A file that has this one alone takes some time steps, and the states.
STEP = "step"


class LiteRunner:
    """A TFLite file, whoever wrote it.

    Inputs and outputs that are integers with a scale are taken and given as
    the numbers that they stand for. A file of steps is run over whole
    sequences, from states of zeros: what it gives at each step is put
    together along time if it has a time axis, else the last counts.

    Args:
        path: `pathlib.Path` of the file.
        threads: Integer, how many threads LiteRT uses, or `None`.

    Raises:
        ImportError: if LiteRT is not installed.
        ValueError: if it is no TFLite file, or has an operation that LiteRT
            does not have by itself.
    """

    format = "tflite"
    model: Any = None
    weights: int | None = None

    def __init__(self, path: pathlib.Path, threads: int | None = None):
        interpreter = needed(
            "ai_edge_litert.interpreter", "export", f"To run `{path}`"
        ).Interpreter
        self.name = path.name
        self.size: int | None = size_of(path)
        try:
            self._interpreter = interpreter(
                model_content=path.read_bytes(), num_threads=threads
            )
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"LiteRT cannot run `{path}`: {error} If it was written by "
                "something else than `keras-iss export`, write it with that."
            ) from error
        self._path = path
        signatures = self._interpreter.get_signature_list()
        self._signature = next(
            (name for name in (*SIGNATURES, STEP) if name in signatures), None
        )
        self._has_reset = "reset" in signatures
        self._step = self._step_metadata()
        # How many time steps a call takes: sequences are multiples of it.
        self.frames: int = self._step["frames"] if self._step else 1
        self._details = self._input_details()
        self._states = self._pop_states(self._details)
        self.inputs = tuple(
            InputSpec(name, self._shape_of(name, detail), _dtype(detail))
            for name, detail in self._details.items()
        )

    def run(self, arrays: Arrays) -> Outputs:
        """As `Runner.run`."""
        if self._has_reset:
            self._interpreter.get_signature_runner("reset")()
        else:
            # A fused LSTM keeps its state from call to call.
            self._interpreter.allocate_tensors()
            self._interpreter.reset_all_variables()
        if self._signature is None:
            return self._run_main(arrays)
        runner = self._interpreter.get_signature_runner(self._signature)
        details = runner.get_output_details()
        if self._signature == STEP:
            outputs = self._run_steps(runner, arrays)
        else:
            outputs = runner(**self._named(arrays))
        return {
            name: _dequantized(np.array(value), details[name])
            for name, value in sorted(outputs.items())
        }

    def prepared(self, arrays: Arrays) -> Callable[[], Any]:
        """As `Runner.prepared`."""
        if self._signature is None:
            self._set_main(arrays)
            return self._interpreter.invoke
        runner = self._interpreter.get_signature_runner(self._signature)
        if self._signature == STEP:
            zeros = self._zeros(len(arrays[0]))
            named = self._steps(self._named(arrays))[0] | zeros
        else:
            named = self._named(arrays)
        return lambda: runner(**named)

    def _input_details(self):
        if self._signature is None:
            found = self._interpreter.get_input_details()
            return {detail["name"]: detail for detail in found}
        runner = self._interpreter.get_signature_runner(self._signature)
        return dict(sorted(runner.get_input_details().items()))

    def _pop_states(self, details):
        """The states of a file of a step: they come back by their names."""
        if self._signature != STEP:
            return {}
        runner = self._interpreter.get_signature_runner(STEP)
        names = [
            name for name in runner.get_output_details() if name in details
        ]
        return {name: details.pop(name) for name in names}

    def _step_metadata(self):
        """What the export wrote of a step, `None` where it did not."""
        if self._signature != STEP:
            return None
        from keras_iss.export import flatbuffer

        known = flatbuffer.metadata(self._path.read_bytes())
        return (known or {}).get("step")

    def _shape_of(self, name, detail):
        shape = _shape(detail)
        if self._step:
            timed = name in self._step["inputs"]
        else:
            timed = self._signature == STEP and shape[1:2] == (1,)
        return (shape[0], None, *shape[2:]) if timed else shape

    def _zeros(self, samples):
        return {
            name: _quantized(
                np.zeros((samples, *detail["shape"][1:]), "float32"), detail
            )
            for name, detail in self._states.items()
        }

    def _steps(self, named):
        """The inputs of each step; what has no time is in all of them."""
        timed = {
            spec.name: named[spec.name]
            for spec in self.inputs
            if len(spec.shape) > 1 and spec.shape[1] is None
        }
        length = max(x.shape[1] for x in timed.values())
        if length % self.frames or not length:
            raise ValueError(
                f"`{self.name}` takes {self.frames} time steps in a call, and "
                f"the sequences have {length}: give as many, or a multiple."
            )
        # One that is of a single step may have no time either.
        timed = {k: x for k, x in timed.items() if x.shape[1] == length}
        return [
            named | {k: x[:, i : i + self.frames] for k, x in timed.items()}
            for i in range(0, length, self.frames)
        ]

    def _run_steps(self, runner, arrays):
        states, found = self._zeros(len(arrays[0])), []
        for inputs in self._steps(self._named(arrays)):
            outputs = runner(**inputs, **states)
            states = {name: np.array(outputs.pop(name)) for name in states}
            found.append({k: np.array(value) for k, value in outputs.items()})
        return {
            name: np.concatenate([x[name] for x in found], axis=1)
            if self._is_over_time(name, last)
            else last
            for name, last in found[-1].items()
        }

    def _is_over_time(self, name, last):
        if self._step:
            return name in self._step["outputs"]
        return last.ndim > 2 and last.shape[1] == 1

    def _named(self, arrays):
        return {
            name: _quantized(array, detail)
            for (name, detail), array in zip(self._details.items(), arrays)
        }

    def _set_main(self, arrays):
        named = self._named(arrays)
        for name, detail in self._details.items():
            self._interpreter.resize_tensor_input(
                detail["index"], named[name].shape
            )
        self._interpreter.allocate_tensors()
        for name, detail in self._details.items():
            self._interpreter.set_tensor(detail["index"], named[name])

    def _run_main(self, arrays):
        self._set_main(arrays)
        self._interpreter.invoke()
        return {
            detail["name"]: _dequantized(
                np.array(self._interpreter.get_tensor(detail["index"])), detail
            )
            for detail in self._interpreter.get_output_details()
        }


def _shape(detail):
    sizes = detail.get("shape_signature", detail["shape"])
    sizes = sizes if len(sizes) else detail["shape"]
    return tuple(None if size < 0 else int(size) for size in sizes)


def _scale(detail):
    scale, zero = detail.get("quantization") or (0.0, 0)
    known = np.dtype(detail["dtype"]).kind in "iu" and scale
    return (scale, zero) if known and math.isfinite(scale) else None


def _dtype(detail):
    return "float32" if _scale(detail) else np.dtype(detail["dtype"]).name


def _quantized(array, detail):
    dtype, scale = np.dtype(detail["dtype"]), _scale(detail)
    if scale is None:
        return np.ascontiguousarray(array, dtype)
    limits = np.iinfo(dtype)
    whole = np.round(array / scale[0]) + scale[1]
    return np.clip(whole, limits.min, limits.max).astype(dtype)


def _dequantized(array, detail):
    scale = _scale(detail)
    if scale is None:
        return array
    return ((array.astype("float32") - scale[1]) * scale[0]).astype("float32")
