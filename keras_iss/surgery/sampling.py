"""Inputs that a model accepts, drawn at random or taken from its user."""

import keras
import numpy as np

from keras_iss._keras.layers import inner_layers
from keras_iss.tracing.call_inputs import looks_up
from keras_iss.tracing.errors import UntraceableError
from keras_iss.tracing.graph import graph_of

LENGTHS = (3, 4, 5, 8, 16, 28, 32, 64, 100, 128, 200, 256)
"""Sizes that are tried for dimensions that are open, the batch excepted."""

BATCH = 2

SHORT = 3
"""Time steps that are taken of a fixed number, where a few will do."""

_CARRIES = (
    "Cast ConvertToTensor Copy ExpandDims Flatten GetItem Identity InputLayer "
    "Permute Ravel Reshape Squeeze Swapaxes Transpose"
).split()


class Sampler:
    """Draws inputs for a model.

    Integers lie within the vocabulary of what looks them up, and padding of
    zeros ends one of the samples. Other numbers are standard normal, some time
    steps having the value that a `Masking` layer leaves out.

    Args:
        model: A built `keras.Model`.
        graph: Its `Graph`.
    """

    def __init__(self, model, graph):
        self._graph = graph
        layers = inner_layers(model)
        self._mask_values = [
            layer.mask_value
            for layer in layers
            if isinstance(layer, keras.layers.Masking)
        ]
        sizes = [
            layer.input_dim
            for layer in layers
            if isinstance(layer, keras.layers.Embedding)
        ]
        self._may_mask = bool(self._mask_values) or any(
            getattr(layer, "mask_zero", False)
            or not type(layer).__module__.startswith("keras.")
            for layer in layers
            if not isinstance(layer, keras.Model)
        )
        self._smallest_vocabulary = min(sizes, default=2)
        self._stateful = any(
            getattr(layer, "stateful", False) for layer in layers
        )

    @property
    def leaves_steps_out(self):
        """Boolean, whether the model may leave time steps out, by a mask."""
        return self._may_mask

    @property
    def takes_strings(self):
        """Boolean, whether an input takes strings, which are not drawn."""
        inputs = keras.tree.flatten(self._graph.inputs)
        return any(x.dtype == "string" for x in inputs)

    def draw(self, seed, length, positive=False):
        """Inputs, nested as the model takes them.

        Args:
            seed: Integer.
            length: Integer, the size of dimensions that are open.
            positive: Boolean, whether numbers that are normal otherwise are
                uniform between 0 and 1.

        Returns:
            Nested structure of arrays.
        """

        def shape(x):
            return [
                (length if i else BATCH) if size is None else size
                for i, size in enumerate(x.shape)
            ]

        return self._drawn(seed, shape, positive)

    def draw_short(self, seed, positive=False):
        """Inputs of a few samples and time steps, whatever the model says.

        Returns:
            Nested structure of arrays, or `None` if no size is fixed that
            would be shorter. The model may refuse them; its layers need not.
        """
        shortened = []

        def shape(x):
            sizes = [SHORT if size is None else size for size in x.shape]
            if not self._stateful:
                shortened.append(sizes[0] > BATCH and x.shape[0] is not None)
                sizes[0] = BATCH
            time = 2 if x.dtype.startswith(("int", "uint")) else 3
            if len(sizes) >= time and sizes[1] > 4 * SHORT:
                shortened.append(True)
                sizes[1] = SHORT
            return sizes

        inputs = self._drawn(seed, shape, positive)
        return inputs if any(shortened) else None

    def _drawn(self, seed, shape, positive):
        rng = np.random.default_rng(seed)
        return keras.tree.map_structure(
            lambda x: self._array(x, shape(x), rng, positive),
            self._graph.inputs,
        )

    def _array(self, x, shape, rng, positive):
        limit = vocabulary(self._graph, x)
        whole = x.dtype.startswith(("int", "uint"))
        if x.dtype == "bool":
            return rng.random(shape) < 0.5
        if whole or limit is not None:
            size = max(limit or self._smallest_vocabulary, 2)
            value = rng.integers(1, size, shape)
            if len(shape) > 1 and shape[1] > 2:
                # A padded end, for masks.
                value[0, -(shape[1] // 3) :] = 0
            return value.astype(x.dtype)
        value = rng.random(shape) if positive else rng.standard_normal(shape)
        if self._mask_values and len(shape) > 2:
            left_out = rng.random(shape[:2]) < 0.3
            left_out[:, 0] = False
            value[left_out] = np.asarray(self._mask_values[0])
        dtype = "float32" if x.dtype == "bfloat16" else x.dtype
        return value.astype(dtype)


def vocabulary(graph, tensor):
    """How many different numbers a tensor may hold, or `None` if any.

    Args:
        graph: `Graph` that the tensor is of.
        tensor: `keras.KerasTensor` with integers that are looked up.
    """
    found = []
    for node in graph.nodes:
        if not any(x is tensor for x in node.inputs):
            continue
        operation = node.operation
        for name in ("input_dim", "num_classes", "num_tokens"):
            size = getattr(operation, name, None)
            if isinstance(size, int) and looks_up(operation):
                found.append(size)
        if type(operation).__name__ in _CARRIES:
            found += [vocabulary(graph, x) for x in node.outputs]
        elif isinstance(operation, (keras.Model, keras.Function)):
            found.append(_vocabulary_inside(operation, node, tensor))
    return min((size for size in found if size is not None), default=None)


def _vocabulary_inside(model, node, tensor):
    try:
        graph = graph_of(model)
    except UntraceableError:
        return None
    inside = keras.tree.flatten(graph.inputs)
    places = [i for i, x in enumerate(node.inputs) if x is tensor]
    sizes = [vocabulary(graph, inside[i]) for i in places if i < len(inside)]
    return min((size for size in sizes if size is not None), default=None)


def first_samples(graph, data):
    """Some samples of data that a user gave, nested as the model takes them.

    Args:
        graph: `Graph` of the model.
        data: Arrays, as the model's inputs: nested like them, or a dict or a
            flat list of them.

    Raises:
        ValueError: if there are fewer or other arrays than the model has
            inputs, or they hold no sample.
    """
    inputs = keras.tree.flatten(graph.inputs)
    if isinstance(data, dict) and not isinstance(graph.inputs, dict):
        arrays = [data.get(x.name) for x in inputs]
    else:
        arrays = keras.tree.flatten(data)
    if len(arrays) != len(inputs) or any(array is None for array in arrays):
        raise ValueError(
            f"`data` must hold one array for each of the inputs "
            f"{[x.name for x in inputs]}. Received {len(arrays)}: "
            f"{type(data).__name__}"
        )
    samples = []
    for x, array in zip(inputs, arrays):
        array = np.asarray(array)
        fits = array.ndim == len(x.shape) and all(
            size in (None, got)
            for size, got in zip(x.shape[1:], array.shape[1:])
        )
        count = x.shape[0] or BATCH
        if not fits or len(array) < (x.shape[0] or 1):
            raise ValueError(
                f"`data` for the input `{x.name}` must be of shape "
                f"{('samples', *x.shape[1:])}, with {x.shape[0] or 1} or more "
                f"samples. Received: {array.shape}"
            )
        samples.append(array[:count])
    return keras.tree.pack_sequence_as(graph.inputs, samples)
