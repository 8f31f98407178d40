"""Whether a smaller model computes what the pruned one does."""

import dataclasses
import math
import warnings

import keras
import numpy as np

from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import graph_behind
from keras_iss._keras.layers import inner_layers, takes_training
from keras_iss._keras.masks import attach_mask, attached_mask
from keras_iss._keras.running import call_without_effects
from keras_iss.surgery.sampling import LENGTHS, Sampler, first_samples
from keras_iss.tracing.graph import graph_of

# Of the largest value of an output, and beside it, in float32. What is above
# is looked at layer by layer, so that no rounding is taken for a fault.
TOLERANCE = 1e-4
NOISE = 2e-6

# Of the largest value that a single layer reads or gives.
LAYER_TOLERANCE = 1e-3

LARGE = 2**24
"""Weights above which a model is compared on as few time steps as will do."""

_HALF = ("float16", "bfloat16")
_HALF_FACTOR = 300


class VerificationError(RuntimeError):
    """A smaller model that computes something else than the pruned one."""


def verify(found, rebuilt, values, data=None):
    """Runs two models side by side.

    In inference and, where nothing random is drawn, in training. Neither
    model changes, nor do their states.

    Args:
        found: `Found` of the model.
        rebuilt: `Rebuilt`, the smaller model.
        values: List of pairs of a variable of the model and the value that it
            has with the removed components at zero, where that is another.
        data: Optional inputs to run on, of which some samples are taken.
            Defaults to random ones.

    Raises:
        VerificationError: if the outputs differ, on two draws. The message
            names the layer at which they part.
        ValueError: if `data` does not fit the model.
    """
    _Comparison(found, rebuilt, values).run(data)


class _Comparison:
    def __init__(self, found, rebuilt, values):
        self._trace = found.trace
        self._found = found
        self._rebuilt = rebuilt
        self._values = values
        self._old = found.trace.root
        self._new = rebuilt.model
        self._graph = found.trace.graph(self._old)
        half = any(
            layer.compute_dtype in _HALF for layer in inner_layers(self._old)
        )
        self._factor = _HALF_FACTOR if half else 1
        # What is called instead of a model.
        self._calls = {}
        # The masks of the last outputs of each.
        self._masks = {}

    def run(self, data):
        if data is None and self._is_same_in_short():
            return
        differing = None
        for seed in (0, 1):
            inputs, expected = self._inputs(data, seed)
            if inputs is None:
                return
            differing = self._first_difference(inputs, expected)
            if differing is None:
                return
        raise VerificationError(self._message(*differing, data))

    # What they are run on.

    def _is_same_in_short(self):
        """Whether a few samples and steps show no difference.

        For models of many samples or time steps that are fixed. Their layers
        are called by themselves then, as the models would call them.
        """
        sampler = Sampler(self._old, self._graph)
        if sampler.takes_strings or graph_behind(self._new) is None:
            return False
        inputs = sampler.draw_short(0)
        if inputs is None:
            return False
        try:
            self._calls = {
                id(self._old): _caller(self._graph),
                id(self._new): _caller(graph_of(self._new)),
            }
            expected, _ = self._outputs(self._old, inputs)
            return _are_finite(expected) and (
                self._first_difference(inputs, expected) is None
            )
        except Exception:
            return False
        finally:
            self._calls = {}

    def _inputs(self, data, seed):
        """Inputs that the model takes, and its outputs in inference.

        `None` twice if there are none.
        """
        if data is not None:
            inputs = first_samples(self._graph, data)
            return inputs, self._outputs(self._old, inputs)[0]
        sampler = Sampler(self._old, self._graph)
        failure = "an input takes strings"
        lengths = LENGTHS
        if _is_large(self._old) and not sampler.leaves_steps_out:
            # The second step reads the state that the first one left.
            lengths = (2, *LENGTHS)
        for length in () if sampler.takes_strings else lengths:
            inputs = sampler.draw(seed, length)
            try:
                expected, _ = self._outputs(self._old, inputs)
            except Exception as error:
                failure = message_of(error)
                continue
            if not _are_finite(expected):
                # A logarithm or a root, maybe.
                positive = sampler.draw(seed, length, positive=True)
                masks = self._masks[id(self._old)]
                others, _ = self._outputs(self._old, positive)
                if _are_finite(others):
                    return positive, others
                self._masks[id(self._old)] = masks
            return inputs, expected
        warnings.warn(
            f"The smaller model of `{self._old.name}` was not compared with "
            f"it: it takes no random inputs ({failure}). Give some: "
            "`shrink(..., data=x)`.",
            stacklevel=6,
        )
        return None, None

    # Running them.

    def _first_difference(self, inputs, expected):
        """The phase, layer and size of a difference, or `None`."""
        difference = self._difference(inputs, expected, False)
        if difference is None and not draws_in_training(self._old):
            expected, drew = self._outputs(self._old, inputs, True)
            if not drew:
                difference = self._difference(inputs, expected, True)
        return difference

    def _difference(self, inputs, expected, training):
        try:
            got, _ = self._outputs(self._new, inputs, training)
        except Exception as error:
            return training, None, error
        largest = self._largest_error(expected, got)
        if largest is None:
            return self._difference_of_masks(training)
        again, _ = self._outputs(self._old, inputs, training)
        if self._largest_error(expected, again) is not None:
            # Something random that Keras knows nothing of.
            return None
        layer = self._first_differing_layer(inputs, training)
        if layer is None and largest <= self._factor * LAYER_TOLERANCE:
            # The rounding of many layers.
            return None
        return training, layer, largest

    def _difference_of_masks(self, training):
        """Losses and metrics leave out what the mask of an output does."""
        if self._calls:
            # Layers called by themselves may hand on others.
            return None
        before, after = (
            self._masks[id(model)] for model in (self._old, self._new)
        )
        for i, (mask, other) in enumerate(zip(before, after, strict=True)):
            if (mask is None) != (other is None) or (
                mask is not None and not np.array_equal(mask, other)
            ):
                return training, None, _Mask(i)
        return None

    def _outputs(self, model, inputs, training=False):
        values = self._values if model is self._old else ()
        caller = self._calls.get(id(model), model)
        has_mask = []

        def call(x):
            outputs = keras.tree.flatten(caller(x, training=training))
            masks = list(map(attached_mask, outputs))
            has_mask[:] = [mask is not None for mask in masks]
            return outputs + [mask for mask in masks if mask is not None]

        found, drew = call_without_effects(model, call, inputs, values)
        outputs, masks = found[: len(has_mask)], iter(found[len(has_mask) :])
        self._masks[id(model)] = [
            keras.ops.convert_to_numpy(next(masks)) if has else None
            for has in has_mask
        ]
        return list(map(_to_numpy, outputs)), drew

    def _largest_error(self, expected, got):
        """The largest error that is too large, or `None`."""
        worst = None
        for output, other in zip(expected, got, strict=True):
            scale, error = _difference(output, other)
            if error > self._factor * (TOLERANCE * scale + NOISE):
                worst = max(worst or 0.0, error / max(scale, NOISE))
        return worst

    # Where they part.

    def _first_differing_layer(self, inputs, training):
        """The first operation that does something else in the new model.

        Each operation of the new model reads what the old one gave.
        """
        parting = []

        def call(node, args, kwargs):
            kwargs = _in_phase(node, kwargs, training)
            outputs = node.operation(*args, **kwargs)
            looked_at = not parting and not node.only_for_masks
            if looked_at and self._differs(node, args, kwargs, outputs):
                parting.append(node.operation)
            return outputs

        try:
            with keras.StatelessScope(state_mapping=self._values):
                self._graph.run(_tensors(self._graph, inputs), call)
        except Exception:
            # A diagnosis is not to hide what it is of.
            return None
        return parting[0] if parting else None

    def _differs(self, node, args, kwargs, outputs):
        symbolic = keras.tree.flatten((node.args, dict(node.kwargs)))
        given = (
            args,
            {key: kwargs[key] for key in node.kwargs if key in kwargs},
        )
        if len(symbolic) != len(keras.tree.flatten(given)):
            return False
        smaller = [
            self._cut(x, value)
            for x, value in zip(symbolic, keras.tree.flatten(given))
        ]
        small_args, small_kwargs = keras.tree.pack_sequence_as(given, smaller)
        more = {key: kwargs[key] for key in kwargs if key not in small_kwargs}
        new = self._rebuilt.call(node, small_args, {**small_kwargs, **more})
        largest = max(map(_largest, smaller), default=0.0)
        for x, output, other in zip(
            node.outputs, keras.tree.flatten(outputs), keras.tree.flatten(new)
        ):
            output, other = map(_to_numpy, (self._cut(x, output), other))
            scale, error = _difference(output, other)
            scale = max(scale, largest)
            if error > self._factor * (LAYER_TOLERANCE * scale + NOISE):
                return True
        return False

    def _cut(self, symbolic, value):
        """What stays of the value of a symbolic tensor of the old graph."""
        traced = self._trace.traced.get(id(symbolic))
        if traced is None:
            return value
        cut = value
        for i, axis in enumerate(traced.axes):
            stays = None if axis is None else self._rebuilt.stays(axis.labels)
            if stays is not None and not stays.all():
                cut = keras.ops.take(cut, np.flatnonzero(stays), axis=i)
        if cut is not value:
            attach_mask(cut, attached_mask(value))
        return cut

    def _message(self, training, layer, error, data):
        phase = "in training" if training else "in inference"
        what = "the `data`" if data is not None else "random inputs"
        name = self._old.name
        begin = (
            f"The smaller model of `{name}` does not compute what `{name}` "
            f"with the removed components at zero does: on {what}, {phase}, "
        )
        if isinstance(error, Exception):
            begin += f"it fails ({message_of(error)}). "
        elif isinstance(error, _Mask):
            begin += (
                f"the masks of output {error.output} differ, which its loss "
                "reads. "
            )
        elif layer is None:
            begin += f"the outputs differ by {error:.2g} of their size. "
        else:
            begin += (
                f"they part at `{layer.name}` ({type(layer).__name__}), and "
                f"the outputs differ by {error:.2g} of their size. "
            )
        return begin + (
            "Nothing was changed. If that layer is your own, look at what its "
            "`get_config` leaves out or its rule says; else please report it. "
            "`verify=False` gives the smaller model all the same."
        )


@dataclasses.dataclass(frozen=True)
class _Mask:
    """The masks of an output differ, and its numbers do not."""

    output: int


def _is_large(model):
    """Whether each time step of a model takes long."""
    return sum(math.prod(v.shape) for v in model.weights) > LARGE


def draws_in_training(model):
    """Whether a layer is known to draw random numbers in training."""
    rates = ("rate", "dropout", "recurrent_dropout", "stddev")
    return any(
        getattr(layer, "seed_generator", None) is not None
        and any(getattr(layer, name, 0) for name in rates)
        for layer in inner_layers(model)
    )


def _caller(graph):
    """A function that calls the layers of a graph one by one."""

    def call(inputs, training):
        def apply(node, args, kwargs):
            return node.operation(*args, **_in_phase(node, kwargs, training))

        return graph.run(_tensors(graph, inputs), apply)

    return call


def _tensors(graph, inputs):
    """Flat list of the inputs as tensors of the dtypes that they must have."""
    return [
        keras.ops.convert_to_tensor(value, dtype=x.dtype)
        for x, value in zip(
            keras.tree.flatten(graph.inputs), keras.tree.flatten(inputs)
        )
    ]


def _in_phase(node, kwargs, training):
    if takes_training(node.operation):
        return {**kwargs, "training": training}
    return kwargs


def _to_numpy(x):
    value = keras.ops.convert_to_numpy(x)
    return value.astype("float64") if value.dtype.kind in "fV" else value


def _are_finite(arrays):
    return all(
        np.isfinite(array).all() for array in arrays if array.dtype.kind == "f"
    )


def _largest(value):
    """The largest absolute value of an argument."""
    if not keras.ops.is_tensor(value):
        return 0.0
    array = _to_numpy(value)
    if array.dtype.kind not in "fiu" or not array.size:
        return 0.0
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def _difference(output, other):
    """The size of an output, and by how much another one differs from it."""
    if output.shape != other.shape:
        return 1.0, np.inf
    if output.dtype.kind != "f" or other.dtype.kind != "f":
        return 1.0, float(np.any(output != other))
    finite = np.isfinite(output)
    if not np.array_equal(output[~finite], other[~finite], equal_nan=True):
        return 1.0, np.inf
    if not finite.any():
        return 1.0, 0.0
    difference = np.abs(output[finite] - other[finite])
    if not np.isfinite(difference).all():
        return 1.0, np.inf
    return float(np.abs(output[finite]).max()), float(difference.max())
