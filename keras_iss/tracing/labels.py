"""Unit labels: which hidden unit each position along a tensor's axis is.

Labels are integers. Two labels that must stay or go together are tied, by
union-find; a label that must stay is pinned, with a reason.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

FIXED = -1
"""The label of a position that is no unit and must stay."""

_NO_REASON = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """The labels along one axis of a tensor or a variable.

    Attributes:
        labels: Integer array of shape `(n,)`.
        zero: Boolean array of shape `(n,)`: whether the tensor is exactly
            zero at this position once the unit is removed. Only what is zero
            may be summed over the units without weights.

    Examples:
        >>> from keras_iss.tracing import Axis
        >>> len(Axis.fixed(3).repeat(4))
        12
    """

    labels: np.ndarray
    zero: np.ndarray

    @classmethod
    def fixed(cls, size: int) -> "Axis":
        """An axis of positions that must stay.

        Args:
            size: Integer, how many.

        Returns:
            An `Axis` without labels, not zero anywhere.
        """
        return cls(np.full(size, FIXED), np.zeros(size, bool))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether any position is that of a unit."""
        return bool((self.labels != FIXED).any())

    def with_zero(self, zero: np.ndarray | bool) -> "Axis":
        """The same labels with other zero flags.

        Args:
            zero: Boolean, or boolean array of shape `(n,)`.

        Returns:
            An `Axis`.
        """
        return Axis(self.labels, np.broadcast_to(zero, self.labels.shape))

    def where(self, chosen: np.ndarray) -> "Axis":
        """Only the labels that are chosen.

        Args:
            chosen: Boolean array of shape `(n,)`, or integer positions.

        Returns:
            An `Axis`.
        """
        return Axis(self.labels[chosen], self.zero[chosen])

    def repeat(self, times: int) -> "Axis":
        """All labels in their order, `times` times over.

        As for a kernel that holds the columns of one gate after another.

        Args:
            times: Integer, how often.

        Returns:
            An `Axis` of `times * n` labels.
        """
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
        not_negative: Boolean, whether it is known that no element is
            negative.

    Examples:
        >>> from keras_iss.tracing import Axis, Traced
        >>> Traced.of((None, 3), {-1: Axis.fixed(3)}).labelled
        ()
    """

    shape: tuple
    axes: tuple
    not_negative: bool = False

    @classmethod
    def of(
        cls,
        shape: Iterable[int | None],
        axes: Mapping[int, Axis | None] | None = None,
    ) -> "Traced":
        """A tensor of the given shape.

        Args:
            shape: Tuple of integers or `None`.
            axes: Optional dict from dimension (may be negative) to `Axis`.

        Returns:
            A `Traced`.
        """
        shape = tuple(shape)
        found: list[Axis | None] = [None] * len(shape)
        for dimension, axis in (axes or {}).items():
            if axis is not None and axis.labelled:
                found[dimension] = axis
        return cls(shape, tuple(found))

    @property
    def labelled(self) -> tuple[int, ...]:
        """Tuple of the dimensions that carry labels."""
        return tuple(i for i, axis in enumerate(self.axes) if axis is not None)

    def axis(self, dimension: int) -> Any:
        """The axis at a dimension, of positions that must stay if unlabelled.

        Args:
            dimension: Integer, may be negative.

        Returns:
            An `Axis`; `None` where there are no labels and the size is not
            known either.
        """
        found = self.axes[dimension]
        if found is None and self.shape[dimension] is not None:
            found = Axis.fixed(self.shape[dimension])
        return found

    def replace(
        self,
        shape: Iterable[int | None] | None = None,
        axes: Iterable[Axis | None] | None = None,
    ) -> "Traced":
        """The same labels on another shape, or other axes.

        Args:
            shape: Optional tuple of integers or `None`.
            axes: Optional sequence with an `Axis` or `None` for each
                dimension.

        Returns:
            A `Traced`.
        """
        labelled = dict(enumerate(self.axes if axes is None else axes))
        return Traced.of(self.shape if shape is None else shape, labelled)


class Labels:
    """Union-find over unit labels, with reasons for those that must stay.

    All of it works on whole arrays: a loop over the labels in Python would
    take most of the time of a walk over a large model.
    """

    def __init__(self):
        self._count = 0
        self._parent = np.zeros(16, np.int64)
        # For each root, the number of the reason why its class must stay.
        self._reason = np.full(16, _NO_REASON)
        self._reasons = []

    def __len__(self):
        return self._count

    def new(self, size):
        """Integer array of `size` labels that nothing is tied to yet."""
        start, self._count = self._count, self._count + size
        if self._count > len(self._parent):
            # Twice as many, or each layer would copy those before it.
            more = max(self._count, 2 * len(self._parent)) - len(self._parent)
            self._parent = np.pad(self._parent, (0, more))
            self._reason = np.pad(
                self._reason, (0, more), constant_values=_NO_REASON
            )
        fresh = np.arange(start, self._count)
        self._parent[start : self._count] = fresh
        return fresh

    def tie(self, first, second, reason):
        """Ties two arrays of labels, position by position.

        Args:
            first: Integer array.
            second: Integer array of the same length.
            reason: String: why a label stays that meets a fixed position.
        """
        if first is second:
            return
        free = (first != FIXED) & (second != FIXED)
        self._union(first[free], second[free])
        if not free.all():
            self.pin(first[second == FIXED], reason)
            self.pin(second[first == FIXED], reason)

    def pin(self, labels, reason):
        """Marks labels as ones that must stay. The first reason is kept."""
        roots = self.roots(labels)
        roots = roots[roots != FIXED]
        roots = roots[self._reason[roots] == _NO_REASON]
        if len(roots):
            self._reason[roots] = len(self._reasons)
            self._reasons.append(reason)

    def roots(self, labels):
        """One label for each class of tied labels; `FIXED` stays."""
        labels = np.asarray(labels, np.int64)
        roots = labels.copy()
        free = np.flatnonzero(roots != FIXED)
        asked = found = roots[free]
        while True:
            above = self._parent[found]
            if (above == found).all():
                break
            found = above
        self._parent[asked] = found  # The way is shorter the next time.
        roots[free] = found
        return roots

    def pinned(self, labels):
        """Boolean array: which labels must stay, as far as is known yet."""
        roots = self.roots(labels)
        known = np.where(roots == FIXED, _NO_REASON, self._reason[roots])
        return (roots == FIXED) | (known != _NO_REASON)

    def reason(self, labels):
        """Why the first of some labels that must stay has to, or `None`."""
        roots = self.roots(labels)
        found = self._reason[roots[roots != FIXED]]
        found = found[found != _NO_REASON]
        return self._reasons[found[0]] if len(found) else None

    def by_reason(self, labels):
        """Which labels must stay, and why.

        Returns:
            List of pairs: an integer array of positions, and a reason.
        """
        roots = self.roots(labels)
        number = np.where(roots == FIXED, _NO_REASON, self._reason[roots])
        return [
            (np.flatnonzero(number == reason), self._reasons[reason])
            for reason in np.unique(number[number != _NO_REASON]).tolist()
        ]

    def _union(self, first, second):
        while True:
            first, second = self.roots(first), self.roots(second)
            apart = first != second
            if not apart.any():
                return
            first, second = first[apart], second[apart]
            low, high = np.minimum(first, second), np.maximum(first, second)
            # One root may meet several: it takes the lowest, and the others
            # meet that one in the next turn.
            np.minimum.at(self._parent, high, low)
            # A root keeps its own reason; it takes the first of those below
            # it if it has none.
            low, why = self.roots(high), self._reason[high]
            bare = self._reason[low] == _NO_REASON
            np.minimum.at(self._reason, low[bare], why[bare])
