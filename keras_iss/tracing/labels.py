"""Unit labels: which hidden unit each position along a tensor's axis is.

Labels are integers. Two labels that must stay or go together are tied, by
union-find; a label that must stay is pinned, with a reason.
"""

import dataclasses

import numpy as np

FIXED = -1
"""The label of a position that is no unit and must stay."""


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """The labels along one axis of a tensor or a variable.

    Attributes:
        labels: Integer array of shape `(n,)`.
        zero: Boolean array of shape `(n,)`: whether the tensor is exactly
            zero at this position once the unit is removed. Only what is zero
            may be summed over the units without weights.
    """

    labels: np.ndarray
    zero: np.ndarray

    @classmethod
    def fixed(cls, size):
        return cls(np.full(size, FIXED), np.zeros(size, bool))

    def __len__(self):
        return len(self.labels)

    @property
    def labelled(self):
        return bool((self.labels != FIXED).any())

    def with_zero(self, zero):
        """The same labels with other zero flags (an array or one value)."""
        return Axis(self.labels, np.broadcast_to(zero, self.labels.shape))

    def where(self, chosen):
        """Only the labels that are chosen by a boolean array."""
        return Axis(self.labels[chosen], self.zero[chosen])

    def repeat(self, times):
        """Every label `times` times, as for the gates of a kernel."""
        return Axis(np.tile(self.labels, times), np.tile(self.zero, times))


def concatenate(axes):
    """The axis of tensors joined along it."""
    return Axis(
        np.concatenate([axis.labels for axis in axes]),
        np.concatenate([axis.zero for axis in axes]),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A tensor of the model, as the tracer sees it.

    Attributes:
        shape: Tuple of integers or `None`.
        axes: Tuple with an `Axis` or `None` (no labels) for each dimension.
    """

    shape: tuple
    axes: tuple

    @classmethod
    def of(cls, shape, axes=None):
        """A tensor of the given shape.

        Args:
            shape: Tuple of integers or `None`.
            axes: Optional dict from dimension (may be negative) to `Axis`.
        """
        shape = tuple(shape)
        found = [None] * len(shape)
        for dimension, axis in (axes or {}).items():
            if axis is not None and axis.labelled:
                found[dimension] = axis
        return cls(shape, tuple(found))

    @property
    def labelled(self):
        """Tuple of the dimensions that carry labels."""
        return tuple(i for i, axis in enumerate(self.axes) if axis is not None)

    def axis(self, dimension):
        """The axis at a dimension, fixed labels where it has none.

        `None` where it has none and the size is not known either.
        """
        found = self.axes[dimension]
        if found is None and self.shape[dimension] is not None:
            found = Axis.fixed(self.shape[dimension])
        return found

    def replace(self, shape=None, axes=None):
        """The same labels on another shape, or other axes."""
        axes = dict(enumerate(self.axes if axes is None else axes))
        return Traced.of(self.shape if shape is None else shape, axes)


class Labels:
    """Union-find over unit labels, with reasons for those that must stay."""

    def __init__(self):
        self._parent = np.zeros(0, np.int64)
        self._reasons = {}

    def new(self, size):
        """Integer array of `size` labels that nothing is tied to yet."""
        start = len(self._parent)
        fresh = np.arange(start, start + size)
        self._parent = np.concatenate([self._parent, fresh])
        return fresh

    def tie(self, first, second, reason):
        """Ties two arrays of labels, position by position.

        Args:
            first: Integer array.
            second: Integer array of the same length.
            reason: String: why a label stays that meets a fixed position.
        """
        free = (first != FIXED) & (second != FIXED)
        pairs = np.unique(np.stack([first[free], second[free]]), axis=1)
        for a, b in pairs.T:
            self._union(int(a), int(b))
        self.pin(first[second == FIXED], reason)
        self.pin(second[first == FIXED], reason)

    def pin(self, labels, reason):
        """Marks labels as ones that must stay. The first reason is kept."""
        for label in np.unique(labels[labels != FIXED]):
            self._reasons.setdefault(self._root(int(label)), reason)

    def roots(self, labels):
        """One label for each class of tied labels; `FIXED` stays."""
        roots = np.array(labels, np.int64)
        free = roots != FIXED
        while True:
            above = self._parent[roots[free]]
            if (above == roots[free]).all():
                return roots
            roots[free] = above

    def reason(self, root):
        """Why this class must stay, or `None`."""
        return self._reasons.get(int(root))

    def _root(self, label):
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return int(label)

    def _union(self, a, b):
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        a, b = min(a, b), max(a, b)
        self._parent[b] = a
        reason = self._reasons.pop(b, None)
        if reason is not None:
            self._reasons.setdefault(a, reason)
