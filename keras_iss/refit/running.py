"""What layers read while a model runs on data."""

import contextlib
import typing

import keras
import numpy as np

from keras_iss._keras.distribution import distribution_scope
from keras_iss._keras.layers import carried_states, inner_layers
from keras_iss._keras.masks import attached_mask
from keras_iss._keras.overrides import fused_kernel_off, overridden
from keras_iss.refit.places import Place
from keras_iss.refit.readers import Reader


class Run(typing.NamedTuple):
    """What came of a batch.

    Attributes:
        outputs: List of pairs: an output, and a mask of it or `None`.
        read: Dict from the key of a `Place` to an array of shape
            `(rows, place.size)`, without what is masked.
    """

    outputs: list
    read: dict


class Runner:
    """Runs a model in inference, and sees what its layers read.

    Keras compiles what it runs, once for each shape. The model's variables,
    states and compiled functions stay as they are.

    Args:
        model: A built `keras.Model`.
        readers: The `Reader`s of its layers.
        places: The `Place`s to look at.
    """

    def __init__(
        self, model: keras.Model, readers: list[Reader], places: list[Place]
    ):
        self._model = model
        self._keys = [place.key for place in places]
        with distribution_scope(model):
            self._program = _Program(model, readers, self._keys)
        self._program.run_eagerly = bool(getattr(model, "run_eagerly", False))

    def run(self, inputs) -> Run:
        """Runs a batch.

        Args:
            inputs: Nested structure of arrays, as the model takes them.
        """
        with _states_kept(self._model):
            found = self._program.predict_on_batch(inputs)
        return Run(_outputs(found), self._read(found))

    def _read(self, found):
        rows = {}
        for name, tensor in found.items():
            kind, number, *_ = name.split("-")
            if kind == "read":
                mask = found.get(f"mask{name[4:]}")
                key = self._keys[int(number)]
                rows.setdefault(key, []).append(_rows(tensor, mask))
        return {key: np.concatenate(parts) for key, parts in rows.items()}


def _outputs(found):
    count = sum(name.startswith("output-") for name in found)
    return [
        (found[f"output-{i}"], found.get(f"output_mask-{i}"))
        for i in range(count)
    ]


def _rows(tensor, mask):
    """The rows of a tensor that count, as an array of two dimensions."""
    tensor = np.asarray(tensor)
    if mask is not None:
        mask = np.asarray(mask).astype(bool)
        if mask.shape == tensor.shape[: mask.ndim]:
            tensor = tensor[mask]
    return tensor.reshape(-1, tensor.shape[-1])


class _Program(keras.Model):
    """A model that also gives what the layers of another one read.

    Its outputs are a dict: `output-i`, `output_mask-i`, and for the call `j` of
    a layer that reads at place `i`, `read-i-j` and `mask-i-j`.
    """

    def __init__(self, model, readers, keys):
        # With a name that counts for no other model.
        super().__init__(name="what_layers_read")
        self.inner = model
        self._readers = readers
        self._numbers = {key: i for i, key in enumerate(keys)}

    def call(self, inputs):
        found = {}

        def record(place, tensor, mask):
            if place.key not in self._numbers:
                return
            i = self._numbers[place.key]
            j = sum(x.startswith(f"read-{i}-") for x in found)
            found[f"read-{i}-{j}"] = tensor
            if mask is not None:
                found[f"mask-{i}-{j}"] = mask

        with _recording(self.inner, self._readers, record):
            outputs = self.inner(inputs, training=False)
        for i, x in enumerate(keras.tree.flatten(outputs)):
            found[f"output-{i}"] = x
            if (mask := attached_mask(x)) is not None:
                found[f"output_mask-{i}"] = mask
        return found


@contextlib.contextmanager
def _recording(model, readers, record):
    """Has layers tell what they read when they are called."""
    depth = [0]  # Of calls of wrappers that call what is inside in a loop.

    def hooked(reader):
        layer, call = reader.layer, type(reader.layer).call
        is_wrapper = isinstance(layer, keras.layers.TimeDistributed)
        # Its state is another one after the call.
        looks_before = getattr(layer, "stateful", False)

        def recorded(*args, **kwargs):
            if depth[0]:
                return call(layer, *args, **kwargs)
            found = []
            if looks_before:
                found = reader.read(None, *args, **kwargs)
            depth[0] += is_wrapper
            try:
                outputs = call(layer, *args, **kwargs)
            finally:
                depth[0] -= is_wrapper
            if not looks_before:
                found = reader.read(outputs, *args, **kwargs)
            for place, tensor, mask in found:
                record(place, tensor, mask)
            return outputs

        return recorded

    with contextlib.ExitStack() as stack:
        for layer in inner_layers(model):
            if isinstance(layer, keras.layers.Bidirectional):
                stack.enter_context(fused_kernel_off(layer))
        for reader in readers:
            stack.enter_context(
                overridden(reader.layer, "call", hooked(reader))
            )
        yield


@contextlib.contextmanager
def _states_kept(model):
    """Puts what stateful layers carry on back afterwards."""
    states = [
        state
        for layer in inner_layers(model)
        if getattr(layer, "stateful", False)
        for state in carried_states(layer)
    ]
    before = [np.array(keras.ops.convert_to_numpy(state)) for state in states]
    try:
        yield
    finally:
        for state, value in zip(states, before):
            state.assign(value)
