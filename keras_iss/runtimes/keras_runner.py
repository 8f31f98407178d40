"""Runs a Keras model."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_iss._keras.graphs import functional_of
from keras_iss._keras.layers import carried_states, inner_layers
from keras_iss.runtimes.runners import Arrays, InputSpec, Outputs
from keras_iss.surgery.sampling import vocabulary
from keras_iss.tracing.graph import graph_of


class KerasRunner:
    """A built Keras model, compiled for inference as `predict` does it.

    The model is left as it was: states that it carries from batch to batch
    are zero for each call, and what they were afterwards.

    Args:
        model: A built `keras.Model`.
        name: String, what it is called. Defaults to the name of the model.
        size: Integer, the bytes of its file, or `None`.

    Raises:
        ValueError: if the model is not built.
    """

    format = "keras"

    def __init__(
        self,
        model: keras.Model,
        name: str | None = None,
        size: int | None = None,
    ):
        if not model.built:
            raise ValueError(
                f"`{model.name}` is not built, so that its inputs are not "
                "known. Call it on data, or give it a `keras.Input`."
            )
        self.model: keras.Model | None = model
        self.name = name or model.name
        self.size = size
        self.weights: int | None = model.count_params()
        graph = graph_of(model)
        self._given = graph.inputs
        self.inputs = tuple(
            InputSpec(x.name, tuple(x.shape), x.dtype, vocabulary(graph, x))
            for x in keras.tree.flatten(graph.inputs)
        )
        self._keras_model = model

    def run(self, arrays: Arrays) -> Outputs:
        """As `Runner.run`."""
        with _from_zero(self._keras_model):
            found = self._keras_model.predict_on_batch(self._nested(arrays))
        if isinstance(found, dict) and not any(
            isinstance(x, (dict, list, tuple)) for x in found.values()
        ):
            return dict(found)
        flat = keras.tree.flatten(found)
        return dict(zip(self._names(len(flat)), flat))

    def prepared(self, arrays: Arrays) -> Callable[[], Any]:
        """As `Runner.prepared`."""
        nested = self._nested(arrays)
        return lambda: self._keras_model.predict_on_batch(nested)

    def _nested(self, arrays):
        return keras.tree.pack_sequence_as(self._given, arrays)

    def _names(self, count):
        function = functional_of(self._keras_model)
        names = getattr(function, "output_names", None)
        if names and len(names) == count and len(set(names)) == count:
            return list(names)
        return [f"output_{i}" for i in range(count)]


@contextlib.contextmanager
def _from_zero(model):
    """Sets what layers carry from batch to batch to zero meanwhile."""
    states = [
        state
        for layer in inner_layers(model)
        if getattr(layer, "stateful", False)
        for state in carried_states(layer)
    ]
    before = [keras.ops.convert_to_numpy(x).copy() for x in states]
    try:
        for state in states:
            state.assign(np.zeros(state.shape, state.dtype))
        yield
    finally:
        for state, value in zip(states, before):
            state.assign(value)
