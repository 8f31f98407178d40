"""Runs a SavedModel, by its signature for serving."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_iss.runtimes._installed import needed
from keras_iss.runtimes.formats import size_of
from keras_iss.runtimes.runners import Arrays, InputSpec, Outputs

SIGNATURE = "serving_default"


class SavedModelRunner:
    """A SavedModel, whoever wrote it.

    Args:
        path: `pathlib.Path` of its folder.

    Raises:
        ImportError: if TensorFlow is not installed.
        ValueError: if it has no signature `serving_default`.
    """

    format = "saved_model"
    model: Any = None

    def __init__(self, path: pathlib.Path):
        tf = needed("tensorflow", "export", f"To run `{path}`")
        self.name = path.name
        self.size: int | None = size_of(path)
        self._tf = tf
        self._loaded = tf.saved_model.load(str(path))
        signatures = getattr(self._loaded, "signatures", {})
        if SIGNATURE not in signatures:
            raise ValueError(
                f"The SavedModel `{path}` has no signature `{SIGNATURE}`; it "
                f"has {sorted(signatures)}. Save it with one, as "
                "`keras_iss.export_saved_model` does."
            )
        self._call = signatures[SIGNATURE]
        self._reset = signatures.get("reset")
        _, specs = self._call.structured_input_signature
        self.inputs = tuple(
            InputSpec(name, tuple(spec.shape.as_list()), spec.dtype.name)
            for name, spec in specs.items()
        )
        variables = self._call.variables
        self.weights: int | None = sum(
            int(np.prod(variable.shape)) for variable in variables
        )

    def run(self, arrays: Arrays) -> Outputs:
        """As `Runner.run`."""
        if self._reset is not None:
            self._reset()
        outputs = self._call(**self._named(arrays))
        return {name: np.asarray(value) for name, value in outputs.items()}

    def prepared(self, arrays: Arrays) -> Callable[[], Any]:
        """As `Runner.prepared`."""
        named = self._named(arrays)

        def run():
            outputs = self._call(**named)
            return [value.numpy() for value in outputs.values()]

        return run

    def _named(self, arrays):
        return {
            spec.name: self._tf.constant(array, spec.dtype)
            for spec, array in zip(self.inputs, arrays)
        }
