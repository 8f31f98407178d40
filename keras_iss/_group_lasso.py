"""The group Lasso of one structure, as a regularizer of one variable."""

import keras
import numpy as np

from keras_iss._norms import Groups, along_axis
from keras_iss.structures.slices import by_variable

EPSILON = 1e-8
"""Added under the root, as in the paper's code: the root of 0 has no slope."""


class GroupLasso(keras.regularizers.Regularizer):
    """The penalty of one structure, as the regularizer of its host.

    Args:
        attachment: `Attachment`, which holds the strength.
        structure: `Structure`.
        overlap: `"count_twice"` or `"once"`.
        host: The variable that is to hold it.
        layer: The layer that owns the host.
    """

    def __init__(self, attachment, structure, overlap, host, layer):
        self.attachment = attachment
        self.structure = structure
        self.host = host
        self.layer = layer
        self.other = None
        self._variables, parts = zip(*by_variable(structure.slices))
        self._sum_of_norms = _sum_of_norms(parts, overlap)

    def put_on(self):
        """Makes it the regularizer of its host, beside the one there was."""
        if self.host.regularizer is not self:
            self.other = self.host.regularizer
            self.host.regularizer = self

    def take_off(self):
        """Gives the host back what it had. Twice does no harm."""
        if self.host.regularizer is self:
            self.host.regularizer = self.other

    def __call__(self, x):
        # Read out here: TensorFlow wants no variable where gradients are
        # written out.
        values = [keras.ops.reshape(v, v.shape) for v in self._variables]
        penalty = self.attachment.state * self._sum_of_norms(*values)
        if self.other is None:
            return penalty
        return penalty + keras.ops.cast(self.other(x), penalty.dtype)


def _sum_of_norms(parts, overlap):
    """The sum of the group norms of a structure, of its weights' values.

    The gradient is written out: each weight times one number for its row and
    one for its column. Left to the backend, it takes several passes over all
    the weights more.

    Args:
        parts: For each variable, a list of its slices.
        overlap: `"count_twice"` or `"once"`.

    Returns:
        Function from the values of the variables to a float32 scalar.
    """
    ops = keras.ops
    groups = Groups(parts, overlap)

    def slope(value, inverse, group, owners, masks):
        factor = 0.0
        for part, owner, mask in zip(group, owners, masks):
            along = along_axis(inverse, part, owner)
            if mask is not None:
                along = along * ops.cast(np.logical_not(mask), "float32")
            factor = factor + along
        return ops.cast(ops.cast(value, "float32") * factor, value.dtype)

    @ops.custom_gradient
    def sum_of_norms(*values):
        norms = ops.sqrt(groups.squared_norms(values) + EPSILON)

        def gradient(*args, upstream=None):
            upstream = args[-1] if upstream is None else upstream
            inverse = ops.pad(upstream / norms, [[0, 1]])
            slopes = [
                slope(value, inverse, *rest)
                for value, *rest in zip(
                    values, groups.parts, groups.owners, groups.repeated
                )
            ]
            return tuple(slopes) if len(slopes) > 1 else slopes[0]

        return ops.sum(norms), gradient

    return sum_of_norms
