"""Group norms and what scales components, in `keras.ops`."""

import numpy as np
from keras import ops

from keras_iss.structures.slices import already_owned


class Groups:
    """The slices of one structure, ready to compute with in a train step.

    Args:
        parts: For each variable, a list of its slices.
        overlap: `"count_twice"` or `"once"`: how often an element counts that
            lies in two slices of its component.
    """

    def __init__(self, parts, overlap):
        self.parts = parts
        self.owners = [
            [owners_or_last(part) for part in group] for group in parts
        ]
        self.repeated = [
            [
                already_owned(part, group[:i])
                if overlap == "once" and i
                else None
                for i, part in enumerate(group)
            ]
            for group in parts
        ]

    def squared_norms(self, values):
        """The sum of squares of each component, as float32 `(size,)`."""
        return self.sums([ops.square(ops.cast(v, "float32")) for v in values])

    def sums(self, elements):
        """The sum over each component, as float32 `(size,)`.

        Args:
            elements: For each variable, a float32 tensor of its shape.
        """
        total = 0.0
        for value, group, masks in zip(elements, self.parts, self.repeated):
            for part, mask in zip(group, masks):
                counted = value
                if mask is not None:
                    counted = ops.where(mask, ops.zeros_like(value), value)
                along = ops.sum(counted, axis=part.other_axes)
                total += ops.sum(ops.take(along, part.index, axis=0), axis=1)
        return total


def owners_or_last(part):
    """The owning component along the axis of a slice, or the number of them.

    Positions that no component owns then take what is put at the end.
    """
    owners = part.owners()
    return np.where(owners < 0, len(part.index), owners)


def shared_owners(part, earlier):
    """The owners along the axes of a slice and of each of some others.

    Args:
        part: A `Slice`.
        earlier: Slices of the same structure in the same variable, on other
            axes.

    Returns:
        List of pairs of integer arrays. Where the two of a pair, broadcast,
        are equal, an element lies in both slices of its component.
    """

    def along(lying, nobody):
        shape = [1] * len(part.variable.shape)
        shape[lying.axis] = -1
        owners = lying.owners()
        return np.where(owners < 0, nobody, owners).reshape(shape)

    return [(along(part, -1), along(other, -2)) for other in earlier]


def along_axis(factors, part, owners):
    """Gives each position of an axis what its component has.

    Args:
        factors: Tensor of shape `(size + 1,)`; the last is for positions that
            no component owns.
        part: A `Slice`.
        owners: What `owners_or_last` gives for it.

    Returns:
        A tensor that broadcasts against the variable of the slice.
    """
    shape = [1] * len(part.variable.shape)
    shape[part.axis] = -1
    return ops.reshape(ops.take(factors, owners), shape)
