"""Runs an ONNX file in ONNX Runtime."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_iss.runtimes._installed import needed
from keras_iss.runtimes.formats import size_of
from keras_iss.runtimes.runners import Arrays, InputSpec, Outputs

_DTYPES = {
    "float": "float32",
    "float16": "float16",
    "double": "float64",
    "bool": "bool",
}


class OnnxRunner:
    """An ONNX file, whoever wrote it, on the processor.

    Args:
        path: `pathlib.Path` of the file.
        threads: Integer, how many threads are used, or `None`.

    Raises:
        ImportError: if ONNX Runtime is not installed.
        ValueError: if it cannot run the file.
    """

    format = "onnx"
    model: Any = None
    weights: int | None = None

    def __init__(self, path: pathlib.Path, threads: int | None = None):
        onnxruntime = needed("onnxruntime", "onnx", f"To run `{path}`")
        self.name = path.name
        self.size: int | None = size_of(path)
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # Its errors have no class in common but this one.
            raise ValueError(
                f"ONNX Runtime cannot run `{path}`: {error}"
            ) from error
        self.inputs = tuple(
            InputSpec(x.name, _shape(x.shape), _dtype(x.type))
            for x in self._session.get_inputs()
        )
        self._outputs = [x.name for x in self._session.get_outputs()]

    def run(self, arrays: Arrays) -> Outputs:
        """As `Runner.run`."""
        found = self._session.run(self._outputs, self._named(arrays))
        return dict(zip(self._outputs, found))

    def prepared(self, arrays: Arrays) -> Callable[[], Any]:
        """As `Runner.prepared`."""
        named = self._named(arrays)
        return lambda: self._session.run(self._outputs, named)

    def _named(self, arrays):
        return {
            spec.name: np.ascontiguousarray(array, spec.dtype)
            for spec, array in zip(self.inputs, arrays)
        }


def _shape(sizes):
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _dtype(name):
    inner = name.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(inner, inner)
