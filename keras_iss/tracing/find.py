"""From a walk over a model to its structures."""

import dataclasses
import itertools

import keras
import numpy as np

from keras_iss._keras.jax_state import sync_values
from keras_iss._keras.layers import inner_layers
from keras_iss._messages import quoted
from keras_iss.counts import Weights
from keras_iss.structures import Slice, Structure, Structures
from keras_iss.tracing import rules as rules
from keras_iss.tracing.conflicts import open_conflicts, settle
from keras_iss.tracing.labels import FIXED
from keras_iss.tracing.registry import is_replaced, why_no_rule
from keras_iss.tracing.statements import KINDS
from keras_iss.tracing.trace import Trace
from keras_iss.tracing.unique_names import Names

# Enough for any but contrived models; whatever is left then has to stay.
_WALKS = 8


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
        return _at(
            self._component_of, self.trace.statements.labels.roots(labels)
        )


def _at(numbers, roots):
    """What an array holds for classes of labels, -1 where it holds nothing."""
    known = (roots != FIXED) & (roots < len(numbers))
    return np.where(known, numbers[np.where(known, roots, 0)], -1)


def find_structures(
    model: keras.Model, include: tuple[str, ...] = ("recurrent",)
) -> Structures:
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
            `Bidirectional`, `ConvLSTM1D` to `ConvLSTM3D`), `"dense"` (`Dense`,
            `EinsumDense`) and `"embedding"`. Defaults to `("recurrent",)`.

    Returns:
        A `Structures`: `structures["lstm_1"]` is a `Structure` with `size`,
        `slices`, `pinned` and `norms()`; `print(structures)` is a table.

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
    sync_values(model)
    trace = _walked(model, include)
    if not trace.statements.makers:
        kinds = sorted({type(x).__name__ for x in inner_layers(model)})
        raise ValueError(
            f"`{model.name}` has no layer of the kinds {quoted(include)}: it "
            f"is made of {quoted(kinds)}. `include` takes {quoted(KINDS)}."
        )
    return _assemble(trace)


def _walked(model, include):
    """Walks a model until it is known what must stay.

    Where only one of several axes may lose units, it may if those of the
    others have to stay. That may come out later on the walk, and then the
    next walk knows it from the start. Where units may go along several of
    them in the end, those along the longest do.
    """
    trace, known = None, 0
    for walk in range(_WALKS):
        trace = Trace(model, include, before=trace)
        if is_replaced(model):
            trace.seal(why_no_rule(model))
        else:
            trace.run()
        said = trace.statements
        conflicts = open_conflicts(said)
        if not conflicts:
            break
        before, known = known, said.staying_count()
        if walk == _WALKS - 1:
            for conflict in said.conflicts:
                for labels in (*conflict.axes, conflict.outcome):
                    said.labels.pin(labels, conflict.reason)
        elif known == before or not any(len(x) == 1 for _, x in conflicts):
            settle(said.labels, conflicts)
    return trace


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


def is_built(model):
    """Whether a model knows its variables and the shapes of its inputs."""
    return model.built and not (
        isinstance(model, keras.Sequential) and not model.inputs
    )


def _check_built(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "keras-iss takes a `keras.Model`. Received: "
            f"{model!r} (of type {type(model).__name__})"
        )
    if not is_built(model):
        raise ValueError(
            f"`{model.name}` has not been built: call the model on data, or "
            "give it an `Input`, before `find_structures`."
        )


def _assemble(trace):
    """Sorts the units into structures.

    Units belong together if they own equally many positions of the same axes:
    then each of them can be removed like the others.

    Nothing here compares every unit with every axis: the time grows with the
    number of positions along all the axes.
    """
    said = trace.statements
    units = _Units(said)
    uses = []
    for use in said.uses.values():
        numbers = units.numbers(use.labels)
        positions = np.flatnonzero(numbers >= 0)
        if len(positions):
            uses.append((use, positions, numbers[positions]))
    made = [units.numbers(maker.labels) for maker in said.makers]
    group_of = _grouped(len(units), [*(found for *_, found in uses), *made])

    # Groups in the order in which the makers bring their units.
    in_order = np.concatenate(made)
    _, seen_first = np.unique(in_order, return_index=True)
    in_order = in_order[np.sort(seen_first)]
    groups = list(dict.fromkeys(group_of[in_order].tolist()))
    rank = np.zeros(group_of.max() + 1, np.int64)
    rank[groups] = np.arange(len(groups))
    group_of = rank[group_of]

    # Components are numbered through all the groups.
    by_group = in_order[np.argsort(group_of[in_order], kind="stable")]
    component = np.empty(len(units), np.int64)
    component[by_group] = np.arange(len(units))
    starts = np.searchsorted(group_of[by_group], np.arange(len(groups) + 1))

    makers = _listed(len(groups))
    for maker, found in zip(said.makers, made):
        for group in np.unique(group_of[found]).tolist():
            makers[group][maker.name] = None
    slices = [[] for _ in groups]
    readers = _listed(len(groups))
    for use, positions, found in uses:
        for group, index in _by_component(positions, component[found], starts):
            slices[group].append(Slice(use.variable, use.axis, index, use.role))
            readers[group].update(use.layers)
    contracted = {
        group
        for labels in said.contracted
        for group in np.unique(group_of[units.found(labels)]).tolist()
    }

    names, structures = Names(), []
    for group, (start, end) in enumerate(itertools.pairwise(starts)):
        own = makers[group]
        structures.append(
            Structure(
                name=names.of(list(own)),
                size=int(end - start),
                slices=tuple(slices[group]),
                pinned=said.labels.reason(units.roots[by_group[start:end]]),
                makers=tuple(own),
                consumers=tuple(x for x in readers[group] if x not in own),
                contracted=group in contracted,
            )
        )
    component_of = np.full(len(units.number), -1)
    component_of[units.roots] = component
    weights = [
        Weights(
            variable,
            said.multiplied.get(id(variable), 0),
            id(variable) in said.recurrent,
        )
        for variable in trace.root.weights
    ]
    equal_sizes = [
        tuple(_at(component_of, said.labels.roots(labels)) for labels in axes)
        for axes in said.equal_sizes
    ]
    structures = Structures(structures, weights, equal_sizes)
    return Found(structures, trace, component_of)


class _Units:
    """The units that were asked for, numbered from 0.

    Attributes:
        roots: Integer array: the root of the class of labels of each unit.
        number: Integer array: for each root, the number of its unit or -1.
    """

    def __init__(self, said):
        self._labels = said.labels
        self.roots = np.unique(
            said.labels.roots(
                np.concatenate([maker.labels for maker in said.makers])
            )
        )
        self.number = np.full(len(said.labels), -1)
        self.number[self.roots] = np.arange(len(self.roots))

    def __len__(self):
        return len(self.roots)

    def numbers(self, labels):
        """The number of the unit of each label, -1 for none."""
        return _at(self.number, self._labels.roots(labels))

    def found(self, labels):
        """The numbers of the units among some labels."""
        numbers = self.numbers(labels)
        return numbers[numbers >= 0]


def _grouped(count, axes):
    """Groups what occurs equally often in the same axes.

    Args:
        count: Integer, how many units there are.
        axes: For each axis, an integer array of the units along it.

    Returns:
        Integer array of shape `(count,)`: the group of each unit.
    """
    group_of, groups = np.zeros(count, np.int64), 1
    for axis in axes:
        # All units begin in one group, and each axis splits the groups of
        # the units along it by how often each occurs.
        units, times = np.unique(axis, return_counts=True)
        kinds = group_of[units] * (times.max() + 1) + times
        _, kinds = np.unique(kinds, return_inverse=True)
        group_of[units] = groups + kinds.ravel()
        groups += kinds.max() + 1
    return group_of


def _by_component(positions, components, starts):
    """Sorts the positions along an axis by structure and component.

    Args:
        positions: Integer array.
        components: Integer array, the component of each position.
        starts: Integer array, the first component of each structure.

    Yields:
        Pairs of the number of a structure and its positions, an integer array
        of shape `(size, m)`.
    """
    order = np.argsort(components, kind="stable")
    positions, components = positions[order], components[order]
    structure = np.searchsorted(starts, components, side="right") - 1
    present, first = np.unique(structure, return_index=True)
    for number, found in zip(present.tolist(), np.split(positions, first[1:])):
        yield number, found.reshape(starts[number + 1] - starts[number], -1)


def _listed(count):
    """Dicts that are used as lists without repetition."""
    return [{} for _ in range(count)]
