"""From a walk over a model to its structures."""

import dataclasses

import keras
import numpy as np

from keras_iss.structures import Slice, Structure, Structures, Weights, quoted
from keras_iss.tracing import rules as rules
from keras_iss.tracing.labels import FIXED
from keras_iss.tracing.trace import KINDS, Trace

_PREPROCESSING = "keras.src.layers.preprocessing."


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The structures of a model, and what surgery needs beside them.

    Attributes:
        structures: `Structures`.
        trace: The `Trace` of the walk.
    """

    structures: Structures
    trace: Trace
    _component_of: np.ndarray

    def components_of(self, labels):
        """The numbers of the components that labels belong to, -1 for none.

        Args:
            labels: Integer array.

        Returns:
            Integer array of the same shape.
        """
        return _at(self._component_of, self.trace.labels.roots(labels))


def _at(numbers, roots):
    """What an array holds for classes of labels, -1 where it holds nothing."""
    known = (roots != FIXED) & (roots < len(numbers))
    return np.where(known, numbers[np.where(known, roots, 0)], -1)


def find_structures(model, include=("recurrent",)):
    """Finds the hidden units of a model that can be removed one by one.

    Every unit of a recurrent layer owns weights in several layers: columns of
    the layer's kernels, a row of its recurrent kernel, biases, and a row in
    whatever reads its output. The model's graph is followed from the layers
    that make units to all that read them. What can't be followed, or mixes
    the units, pins the structure: it keeps its size, with a reason.

    Args:
        model: A built `keras.Model`: Functional, Sequential, or a subclassed
            model that can be called on symbolic inputs.
        include: Tuple of the kinds of layers whose units are wanted:
            `"recurrent"` (`LSTM`, `GRU`, `SimpleRNN`, `RNN` over their cells,
            `Bidirectional`, `ConvLSTM1D`, `ConvLSTM2D`), `"dense"` (`Dense`,
            `EinsumDense`) and `"embedding"`. Defaults to `("recurrent",)`.

    Returns:
        A `Structures`: `structures["lstm_1"]` is a `Structure` with `size`,
        `slices`, `pinned` and `lengths()`; `print(structures)` is a table.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if the model is not built, if it has no layer of the
            kinds in `include`, or if `include` names another kind.

    Examples:
        >>> import keras, keras_iss
        >>> model = keras.Sequential([
        ...     keras.Input((None, 16)),
        ...     keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(4, name="dense"),
        ... ])
        >>> structures = keras_iss.find_structures(model)
        >>> structures["lstm"].size, structures["lstm"].consumers
        (8, ('dense',))
        >>> [(s.variable.name, s.axis) for s in structures["lstm"].slices]
        [('kernel', 1), ('recurrent_kernel', 0), ('recurrent_kernel', 1), \
    ('bias', 0), ('kernel', 0)]

    Source: Wen et al., "Learning Intrinsic Sparse Structures within Long
    Short-Term Memory", ICLR 2018, section 3.1.
    """
    return find(model, include).structures


def find(model, include=("recurrent",)):
    """Like `find_structures`, with what surgery needs."""
    include = check_include(include)
    _check_built(model)
    if not getattr(model, "_jax_state_synced", True):
        # In the middle of an epoch its weights are in the compiled step.
        model.jax_state_sync()
    trace = Trace(model, include)
    trace.run()
    if not trace.makers:
        kinds = sorted({type(x).__name__ for x in model._flatten_layers()})
        raise ValueError(
            f"`{model.name}` has no layer of the kinds {quoted(include)}: it "
            f"is made of {quoted(kinds)}. `include` takes {quoted(KINDS)}."
        )
    return _assemble(trace)


def check_include(include):
    """Kinds of layers as a tuple, or an error."""
    if not isinstance(include, (str, list, tuple, set, frozenset)):
        raise ValueError(
            f"`include` takes a tuple of {quoted(KINDS)}. Received: "
            f"include={include!r}"
        )
    include = (include,) if isinstance(include, str) else tuple(include)
    unknown = [kind for kind in include if kind not in KINDS]
    if unknown or not include:
        raise ValueError(
            f"`include` takes a tuple of {quoted(KINDS)}. Received: "
            f"include={include!r}"
        )
    return include


def _check_built(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "keras-iss takes a `keras.Model`. Received: "
            f"{model!r} (of type {type(model).__name__})"
        )
    for layer in [model, *model._flatten_layers(include_self=False)]:
        # What a layer of preprocessing holds is never built by itself.
        own = not type(layer).__module__.startswith(_PREPROCESSING)
        if own and not layer.built:
            raise ValueError(
                f"`{layer.name}` has not been built: call the model on data, "
                "or give it an `Input`, before `find_structures`."
            )


def _assemble(trace):
    """Sorts the units into structures.

    Units belong together if they own equally many positions of the same axes:
    then each of them can be removed like the others.
    """
    maker_units = [trace.labels.roots(one.labels) for one in trace.makers]
    units = np.unique(np.concatenate(maker_units))
    number = np.full(units.max() + 1, -1)
    number[units] = np.arange(len(units))

    def members(labels):
        """Which positions are units, and which units they are."""
        found = _at(number, trace.labels.roots(labels))
        positions = np.flatnonzero(found >= 0)
        return positions, found[positions]

    uses = [(use, *members(use.labels)) for use in trace.uses.values()]
    uses = [use for use in uses if len(use[1])]
    made = [number[roots] for roots in maker_units]
    owned = [found for _, _, found in uses] + made
    signatures = np.stack(
        [np.bincount(found, minlength=len(units)) for found in owned], axis=1
    )
    _, group_of = np.unique(signatures, axis=0, return_inverse=True)
    group_of = group_of.ravel()

    structures, component_of = [], np.full(len(number), -1)
    contracted = set()
    for labels in trace.contracted:
        contracted.update(group_of[members(labels)[1]])
    in_order = np.concatenate(made)
    _, seen_first = np.unique(in_order, return_index=True)
    in_order = in_order[np.sort(seen_first)]
    groups = list(dict.fromkeys(group_of[in_order]))
    for group in groups:
        chosen = in_order[group_of[in_order] == group]
        makers = tuple(
            maker.name
            for maker, found in zip(trace.makers, made)
            if np.isin(chosen, found).any()
        )
        structure = Structure(
            name=_unused(makers, [one.name for one in structures]),
            size=len(chosen),
            slices=tuple(_slices(chosen, uses)),
            pinned=_reason(trace, units[chosen]),
            makers=makers,
            consumers=_consumers(chosen, uses, makers),
            contracted=group in contracted,
        )
        start = sum(one.size for one in structures)
        component_of[units[chosen]] = np.arange(start, start + len(chosen))
        structures.append(structure)
    weights = [
        Weights(
            variable,
            trace.multiplied.get(id(variable), 0),
            id(variable) in trace.recurrent,
        )
        for variable in trace.root.weights
    ]
    equal_sizes = [
        tuple(_at(component_of, trace.labels.roots(labels)) for labels in axes)
        for axes in trace.equal_sizes
    ]
    structures = Structures(structures, weights, equal_sizes)
    return Found(structures, trace, component_of)


def _slices(chosen, uses):
    """The slices of the chosen units, from all uses of variables."""
    rank = np.full(max(chosen) + 1, -1)
    rank[chosen] = np.arange(len(chosen))
    for use, positions, found in uses:
        inside = np.isin(found, chosen)
        if not inside.any():
            continue
        component = rank[found[inside]]
        order = np.argsort(component, kind="stable")
        index = positions[inside][order].reshape(len(chosen), -1)
        yield Slice(use.variable, use.axis, index, use.role)


def _consumers(chosen, uses, makers):
    layers = {
        layer: None
        for use, _, found in uses
        if np.isin(found, chosen).any()
        for layer in use.layers
    }
    return tuple(layer for layer in layers if layer not in makers)


def _reason(trace, roots):
    reasons = (trace.labels.reason(root) for root in roots)
    return next((reason for reason in reasons if reason), None)


def _unused(names, taken):
    """The first name that is not taken, numbered if all are."""
    for name in names:
        if name not in taken:
            return name
    count = 2
    while f"{names[0]}_{count}" in taken:
        count += 1
    return f"{names[0]}_{count}"
