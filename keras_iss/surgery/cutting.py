"""What stays: of the labels of an axis, of a value, of a layer."""

import collections

import keras
import numpy as np


class Cut:
    """Which units stay, and what that leaves of each variable.

    Args:
        found: `Found` of the model.
        alive: Boolean array: which components stay, numbered as in `found`.
        zero: Boolean array: which of them are to be zero.
    """

    def __init__(self, found, alive, zero):
        self._found = found
        self._trace = found.trace
        self._alive = alive
        self._kept = collections.defaultdict(dict)
        self._zeroed = collections.defaultdict(dict)
        self._settings = collections.defaultdict(list)
        for setting in self._trace.statements.settings:
            self._settings[id(setting.operation)].append(setting)
        for use in self._trace.statements.uses.values():
            stays = self.stays(use.labels)
            if not stays.all():
                kept = np.flatnonzero(stays)
                self._kept[id(use.variable)][use.axis] = kept
            components = self._found.components_of(use.labels)[stays]
            zeroed = (components >= 0) & zero[components]
            if zeroed.any() and use.role != "statistic":
                self._zeroed[id(use.variable)][use.axis] = zeroed

    def settings(self, operation):
        """List of the `Setting`s of an operation."""
        return self._settings.get(id(operation), [])

    def stays(self, labels):
        """Boolean array: which of some labels stay."""
        components = self._found.components_of(labels)
        return (components < 0) | self._alive[components]

    def of_value(self, value, variable, axes=None):
        """What stays of a value that is laid out like a variable.

        Args:
            value: Tensor.
            variable: The `keras.Variable` it belongs to.
            axes: For each axis of the value, the axis of the variable that
                it is. Defaults to all of them, in order.
        """
        kept = self._kept.get(id(variable), {})
        zeroed = self._zeroed.get(id(variable), {})
        axes = range(len(variable.shape)) if axes is None else axes
        # JAX gives the buffers of a model away when it trains.
        if not any(axis in kept or axis in zeroed for axis in axes):
            return keras.ops.copy(value)
        for i, axis in enumerate(axes):
            if axis in kept:
                value = keras.ops.take(value, kept[axis], axis=i)
            if axis in zeroed:
                shape = [1] * len(axes)
                shape[i] = -1
                gone = np.reshape(zeroed[axis], shape)
                value = keras.ops.where(
                    gone, keras.ops.zeros_like(value), value
                )
        return value

    def changes_size(self, variable):
        """Whether a variable gets smaller."""
        return id(variable) in self._kept

    def is_resized(self, layer):
        """Whether something of a layer, or of what it reads, gets smaller."""
        labels = [setting.labels for setting in self.settings(layer)]
        labels += self._trace.touched.get(id(layer), [])
        return any(
            not self.stays(some).all() for some in labels if some is not None
        ) or any(map(self.changes_size, layer.variables))

    def sizes(self, variables):
        """What sizes there were and are, in variables and in configs.

        Returns:
            Set of pairs `(old, new)`.
        """
        sizes = {
            (variable.shape[axis], len(kept))
            for variable in variables
            for axis, kept in self._kept.get(id(variable), {}).items()
        }
        return sizes | {
            (len(setting.labels), int(self.stays(setting.labels).sum()))
            for settings in self._settings.values()
            for setting in settings
            if setting.labels is not None
            and not self.stays(setting.labels).all()
        }
