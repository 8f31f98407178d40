"""Importance of what a refit cannot make up for."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_iss._batches import check_batches
from keras_iss.refit.data import batches_of
from keras_iss.refit.fitting import Statistics
from keras_iss.refit.places import double
from keras_iss.refit.reading import Cut, reading_of
from keras_iss.refit.running import Runner
from keras_iss.structures import Structures

RIDGE = 1e-4
"""Of the mean variance of what is read, so that no noise is told apart."""


class Redundancy:
    """How much a component tells that the others do not.

    Components go one after the other, each time the one whose loss changes
    least in what reads the structure, when all that stays makes up for it as
    well as it can (and for those that went before). What changes is counted as
    a part of what each reading kernel gives in all. The importance of a
    component is the root of what changes when it goes. It never falls from one
    to the next, so that those that went first are the least important.

    Args:
        data: As in `estimate_importance`; targets are not looked at.
        batches: Integer, how many batches are looked at.
        batch_size: Integer, samples in a batch, where `data` are arrays.

    Source: Hassibi and Stork, "Second order derivatives for network pruning:
    Optimal Brain Surgeon", NeurIPS 1992, equation 5, with rows of a kernel
    instead of single weights.
    """

    def __init__(self, data: Any, batches: int = 64, batch_size: int = 32):
        self._batches = check_batches(
            data,
            batches,
            batch_size,
            'The importance "redundancy" needs `data`: inputs, on which '
            "activations are looked at.",
        )

    def __call__(
        self, model: keras.Model, structures: Structures
    ) -> Mapping[str, np.ndarray]:
        everything = [(x, np.arange(x.size)) for x in structures.free]
        reading = reading_of(model, everything)
        if not reading.places:
            return {}
        runner = Runner(model, reading.readers, reading.places)
        asked = self._batches
        batches = batches_of(asked.data, model, asked.size)
        statistics = Statistics.gathered(
            runner,
            reading.places,
            (x for _, x in zip(range(asked.count), batches)),
            held_back=0,
        )
        cut = Cut.of(structures, {})
        found = {}
        for structure, removed in cut.removals:
            kernels = [
                kernel
                for place in reading.places
                for kernel in _kernels(structure, place, cut, statistics)
            ]
            if kernels:
                found[structure.name] = _importance(
                    structure.size, removed, kernels
                )
        return found


def _kernels(structure, place, cut, statistics):
    """A `_Kernel` for each slice of a structure in the rows of a place."""
    moments = statistics.seen[place.key]
    if not moments.count:
        return
    stay, _ = cut.rows(place)
    second = moments.second(bool(place.biases))[np.ix_(stay, stay)]
    rows = place.rows(double(place.variable))[stay]
    where = np.full(place.size, -1)
    where[stay] = np.arange(len(stay))
    for part in structure.slices:
        if part.variable is place.variable and part.axis == place.axis:
            yield _Kernel(second, rows, where[part.index])


class _Kernel:
    """What reads the components of a structure at one place.

    Args:
        second: Array of shape `(rows, rows)`, the covariance of what is read.
        rows: Array of shape `(rows, outputs)`, what it is multiplied by.
        index: Integer array of shape `(size, m)`, the rows of each component,
            -1 where it was removed before.
    """

    def __init__(self, second, rows, index):
        self._index = index
        self._weights = rows @ rows.T
        scale = np.sum(second * self._weights)
        if scale > 0:
            self._weights /= scale
        unit = max(np.trace(second) / max(len(second), 1), 1e-12)
        self._precision = np.linalg.inv(
            second + RIDGE * unit * np.eye(len(second))
        )

    def losses(self, components):
        """What changes without each of some components, as an array."""
        at = self._index[components]
        blocks = self._precision[at[:, :, None], at[:, None, :]]
        weights = self._weights[at[:, :, None], at[:, None, :]]
        if at.shape[1] == 1:
            return weights[:, 0, 0] / blocks[:, 0, 0]
        return np.trace(np.linalg.solve(blocks, weights), axis1=1, axis2=2)

    def remove(self, component):
        """Takes a component out, what stays making up for it."""
        at = self._index[component]
        block = self._precision[np.ix_(at, at)]
        spread = np.linalg.solve(block, self._precision[at]).T
        read = self._weights[at]
        self._weights -= spread @ read
        self._weights -= self._weights[:, at] @ spread.T
        self._precision -= spread @ self._precision[at]


def _importance(size, removed, kernels):
    importance = np.zeros(size)
    left = np.setdiff1d(np.arange(size), removed)
    most = 0.0
    while len(left):
        losses = sum(kernel.losses(left) for kernel in kernels)
        least = int(np.argmin(losses))
        most = max(most, float(losses[least]))
        importance[left[least]] = np.sqrt(most)
        for kernel in kernels:
            kernel.remove(left[least])
        left = np.delete(left, least)
    return importance
