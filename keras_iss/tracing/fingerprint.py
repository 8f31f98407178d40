"""Whether two graphs compute the same.

A `call` in Python is followed on symbolic inputs several times: for a length
that is open and one that is not, in training and in inference. What it does
can be taken for one graph only where all of them are the same.
"""

import keras
import numpy as np

from keras_iss._keras.layers import inner_layers

_NOISE = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.AlphaDropout,
)
"""Layers that give back their input in inference."""

_RATES = ("rate", "dropout", "recurrent_dropout", "stddev")


class Fingerprint:
    """What a graph computes, to be compared.

    Equal for graphs that make the same calls of the same layers, and of equal
    operations, on the same inputs, with the same constants. The `training`
    that calls are given is left out.

    Args:
        graph: `Graph`.
    """

    def __init__(self, graph):
        self._key = _key(graph, skip_noise=False)
        self._graph = graph

    @property
    def without_noise(self):
        """The same, as if layers of noise gave back their input."""
        return _key(self._graph, skip_noise=True)

    def __eq__(self, other):
        return self._key == other._key

    __hash__ = None  # type: ignore[assignment]


def _key(graph, skip_noise):
    """A list that is equal for equal graphs.

    One entry for each call that the outputs depend on, in the order of a walk
    from the outputs, which refer to earlier entries by number.
    """
    makers = {
        id(x): (node, i)
        for node in graph.nodes
        for i, x in enumerate(node.outputs)
    }
    numbers = {
        id(x): ("input", i)
        for i, x in enumerate(keras.tree.flatten(graph.inputs))
    }
    entries = []
    calls = {}

    def source(x):
        """What stands behind a tensor, noise passed over."""
        while skip_noise and id(x) in makers:
            node, _ = makers[id(x)]
            if type(node.operation) not in _NOISE:
                break
            (x,) = node.data
        return x

    def visit(outputs):
        # By hand, not by recursion: a graph may be deep.
        stack = [source(x) for x in reversed(outputs)]
        while stack:
            x = stack[-1]
            if id(x) in numbers:
                stack.pop()
                continue
            node, index = makers[id(x)]
            if id(node) not in calls:
                waiting = [
                    source(y)
                    for y in node.inputs
                    if id(source(y)) not in numbers
                ]
                if waiting:
                    stack.extend(reversed(waiting))
                    continue
                calls[id(node)] = len(entries)
                entries.append(_entry(node, lambda y: numbers[id(source(y))]))
            numbers[id(x)] = ("call", calls[id(node)], index)
            stack.pop()

    outputs = [
        x
        for x in keras.tree.flatten(graph.outputs)
        if isinstance(x, keras.KerasTensor)
    ]
    visit(outputs)
    return [*entries, [numbers[id(source(x))] for x in outputs]]


def _entry(node, number):
    kwargs = {k: v for k, v in node.kwargs.items() if k != "training"}

    def leaf(value):
        if isinstance(value, keras.KerasTensor):
            return number(value)
        return constant_key(value)

    arguments = [
        (path, leaf(value))
        for path, value in keras.tree.flatten_with_path((node.args, kwargs))
    ]
    return (operation_key(node.operation), arguments)


def operation_key(operation):
    """What an operation is compared by: layers by identity."""
    if isinstance(operation, keras.layers.Layer):
        return id(operation)
    settings = {
        name: constant_key(value)
        for name, value in vars(operation).items()
        if not name.startswith("_") and name != "name"
    }
    return (type(operation), settings)


def constant_key(value):
    """What a constant is compared by: its type and value, else identity."""
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        # `repr`, so that NaN is itself.
        return (type(value).__name__, repr(value))
    if isinstance(value, slice):
        return (
            "slice",
            *map(constant_key, (value.start, value.stop, value.step)),
        )
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(constant_key, value))
    if isinstance(value, dict):
        return ("dict", [(k, constant_key(v)) for k, v in value.items()])
    if isinstance(value, np.ndarray) or (
        not isinstance(value, (keras.Variable, keras.KerasTensor))
        and keras.ops.is_tensor(value)
    ):
        array = keras.ops.convert_to_numpy(value)
        return (str(array.dtype), array.shape, array.tobytes())
    return id(value)


def knows_phases(operation):
    """Whether an operation may do something else in training."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return any(map(_knows_phases, inner_layers(operation)))


def _knows_phases(layer):
    if not type(layer).__module__.startswith("keras."):
        return True
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.trainable
    rates = [getattr(layer, name) for name in _RATES if hasattr(layer, name)]
    draws = getattr(layer, "seed_generator", None) is not None
    if isinstance(layer, keras.layers.RNN):
        # Its cell is one of the layers, too.
        return False
    if draws:
        return not rates or any(rates)
    return isinstance(layer, keras.layers.SpectralNormalization)
