"""Where components lie in one variable."""

import dataclasses
from collections.abc import Iterator

import keras
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """Where a structure's components lie in one variable.

    A slice unpacks into its first three attributes:
    `variable, axis, index = slice`.

    Attributes:
        variable: `keras.Variable`.
        axis: Integer, the axis of `variable` that the components divide.
        index: Integer array of shape `(size, m)`. Component `k` owns the
            positions `index[k]` along `axis`.
        role: `"weight"` counts in the group norm and is zeroed with its
            component; `"bias"` (also the scale and offset of a normalization)
            and `"state"` are zeroed but not counted; a `"statistic"` is
            neither, only cut.
    """

    variable: keras.Variable
    axis: int
    index: np.ndarray
    role: str = "weight"

    def __iter__(self) -> Iterator:
        return iter((self.variable, self.axis, self.index))

    @property
    def counted(self) -> bool:
        return self.role == "weight"

    @property
    def zeroed(self) -> bool:
        return self.role != "statistic"

    @property
    def other_axes(self) -> tuple[int, ...]:
        """The axes of `variable` other than `axis`."""
        ndim = len(self.variable.shape)
        return tuple(i for i in range(ndim) if i != self.axis)

    def owners(self) -> np.ndarray:
        """Integer array along `axis`: the owning component, or -1."""
        owners = np.full(self.variable.shape[self.axis], -1)
        owners[self.index] = np.arange(len(self.index))[:, None]
        return owners

    def per_component(self, along: np.ndarray) -> np.ndarray:
        """Gathers an array along `axis` into one of shape `(size, m)`."""
        return along[self.index]


def already_owned(part, earlier):
    """Which elements of a slice lie in an earlier slice of their component.

    Args:
        part: A `Slice`.
        earlier: Slices of the same structure in the same variable, on other
            axes.

    Returns:
        Boolean array that broadcasts against the variable.
    """
    ndim = len(part.variable.shape)

    def owners(lying):
        shape = [1] * ndim
        shape[lying.axis] = -1
        return lying.owners().reshape(shape)

    mine = owners(part)
    return np.any(
        np.broadcast_arrays(
            *((mine >= 0) & (mine == owners(other)) for other in earlier)
        ),
        axis=0,
    )


def by_variable(slices, chosen=lambda part: part.counted):
    """Groups the chosen slices by their variable.

    Returns:
        List of pairs `(variable, slices)`, in order of first appearance.
    """
    groups = {}
    for part in slices:
        if chosen(part):
            groups.setdefault(id(part.variable), []).append(part)
    return [(parts[0].variable, parts) for parts in groups.values()]
