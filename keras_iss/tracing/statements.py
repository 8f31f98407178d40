"""What the rules say on a walk over a model: of units, weights and configs."""

import collections
import dataclasses

import keras
import numpy as np

from keras_iss.tracing.configs import takes_another
from keras_iss.tracing.labels import FIXED, Axis, Labels, Traced
from keras_iss.tracing.registry import has_own_rule
from keras_iss.tracing.unique_names import Names

KINDS = ("recurrent", "dense", "embedding")


@dataclasses.dataclass(frozen=True, eq=False)
class Maker:
    """A layer axis whose units were asked for."""

    name: str
    labels: np.ndarray


@dataclasses.dataclass(eq=False)
class Use:
    """What the units of one axis of one variable are, and who reads it.

    The names of the layers that do are the keys of `layers`.
    """

    variable: keras.Variable
    axis: int
    labels: np.ndarray
    role: str
    layers: dict


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """An entry of an operation's config that a cut changes.

    Attributes:
        operation: The `keras.Operation` whose config it is.
        path: Tuple of keys into the config.
        labels: Integer array: the entry is the number of those that stay.
        value: The entry, where `labels` is `None`.
    """

    operation: keras.Operation
    path: tuple
    labels: np.ndarray | None = None
    value: object = None


@dataclasses.dataclass(frozen=True, eq=False)
class Child:
    """A layer that another one holds, in its config under `path`."""

    parent: keras.Operation
    path: tuple
    layer: keras.layers.Layer


class Statements:
    """All that is said of a model on one walk.

    Args:
        include: Tuple of the kinds of layers whose units are wanted.
        before: Optional `Statements` of an earlier walk over the same model.
            What had to stay on it does so from the start.

    Attributes:
        labels: `Labels`, which units are tied, and which must stay.
        makers: List of `Maker`.
        uses: Dict from the `id` of a variable and an axis to a `Use`.
        multiplied: Dict from the `id` of a variable to how often each of its
            elements is multiplied in one time step.
        recurrent: Set of the `id`s of the variables of recurrent layers.
        contracted: List of integer arrays, labels that are summed over
            without weights.
        settings: List of `Setting`.
        children: List of `Child`.
        equal_sizes: List of tuples of integer arrays, the labels of axes that
            must stay of one size.
        sizes: Dict from an entry of a config to the `Axis` whose size it is.
        conflicts: List of `Conflict`.
    """

    def __init__(self, include, before=None):
        self._include = include
        self.labels = Labels()
        self.makers = []
        self.uses = {}
        self.multiplied = {}
        self.recurrent = set()
        self.contracted = []
        self.settings = []
        self.children = []
        self.equal_sizes = []
        self.sizes = {}
        self.conflicts = []
        self._units = {}
        self._unbound = collections.Counter()
        self.resizable = {} if before is None else before.resizable
        self._staying = {} if before is None else before.staying_units()
        self._maker_names = Names()

    def pin(self, tensors, reason):
        """Pins every label of every tensor in a nested structure."""
        for leaf in keras.tree.flatten(tensors):
            if isinstance(leaf, Axis):
                self.labels.pin(leaf.labels, reason)
            elif isinstance(leaf, Traced):
                for axis in leaf.axes:
                    if axis is not None:
                        self.labels.pin(axis.labels, reason)

    def fix(self, variable, reason):
        """Pins whatever units lie in a variable, now or later."""
        for axis, size in enumerate(variable.shape):
            labels = Axis.fixed(size).labels
            self.use(variable, axis, labels, "weight", None, reason)

    def use(self, variable, axis, labels, role, layer, reason):
        """Says which units divide an axis of a variable."""
        known = self.uses.get((id(variable), axis))
        if known is None:
            layers = {} if layer is None else {layer: None}
            self.uses[id(variable), axis] = Use(
                variable, axis, labels, role, layers
            )
            return
        self.labels.tie(known.labels, labels, reason)
        if (known.labels == FIXED).all():
            known.labels = labels
        if role == "weight":
            known.role = role
        if layer is not None:
            known.layers[layer] = None

    def units(self, call, size, kind, key):
        """The labels of the units that a layer makes, the same every time."""
        memo = (id(call.operation), key)
        if memo not in self._units:
            labels = self._new(memo, size)
            if kind in self._include:
                name = self._maker_names.of([call.name])
                self.makers.append(Maker(name, labels))
            else:
                wanted = (*self._include, kind)
                self.labels.pin(
                    labels,
                    f"the units of {call.title} were not asked for "
                    f"(include={wanted!r} would let them go)",
                )
        return self._units[memo]

    def pinned_units(self, name, size, reason):
        """Units that are there, and of which nothing else is known."""
        labels = self.labels.new(size)
        self.makers.append(Maker(self._maker_names.of([name]), labels))
        self.labels.pin(labels, reason)

    def unbound(self, operation, size):
        """Labels that take the units of whatever they are tied to."""
        self._unbound[id(operation)] += 1
        return self._new((id(operation), self._unbound[id(operation)]), size)

    def _new(self, memo, size):
        self._units[memo] = labels = self.labels.new(size)
        for positions, reason in self._staying.get(memo, ()):
            if positions.max() < size:
                self.labels.pin(labels[positions], reason)
        return labels

    def staying_units(self):
        """What had to stay on this walk.

        Returns:
            Dict from what made labels to a list of pairs: the positions along
            its axis that stay, and why.
        """
        return {
            memo: self.labels.by_reason(labels)
            for memo, labels in self._units.items()
            if self.labels.pinned(labels).any()
        }

    def staying_count(self):
        """Integer, how many of the labels stay."""
        return sum(
            int(self.labels.pinned(labels).sum())
            for labels in self._units.values()
        )

    def can_resize(self, call, operation, path):
        """Whether an entry of a config can be another number.

        Known of classes with rules of their own. A subclass that goes by its
        parent's rule may have a constructor that knows better.
        """
        borrows = any(
            isinstance(some, keras.layers.Layer)
            and not has_own_rule(type(some))
            for some in (call.operation, operation)
        )
        if not borrows:
            return True
        memo = (id(operation), path)
        if memo not in self.resizable:
            self.resizable[memo] = takes_another(operation, path)
        return self.resizable[memo]
