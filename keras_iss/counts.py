"""Units, weights and multiply-adds of a model, whole or as it would be."""

import dataclasses
import math

import keras
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A weight variable of the model, for counting.

    Attributes:
        variable: `keras.Variable`.
        uses: Integer, how often each element is multiplied in one time step;
            0 for biases and for an embedding that is only looked up.
        recurrent: Boolean, whether it belongs to a recurrent layer.
    """

    variable: keras.Variable
    uses: int
    recurrent: bool


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a model is made of.

    Attributes:
        units: Integer, the components of all the structures.
        weights: Integer, all the weights of the model.
        recurrent_weights: Integer, the weights of its recurrent layers.
        mult_adds: Integer, multiply-adds by weights in one time step: every
            kernel is counted once, a convolution's once per output position.
            Looking up an embedding multiplies nothing.
    """

    units: int
    weights: int
    recurrent_weights: int
    mult_adds: int


def count(structures, weights, stays):
    """Counts units, weights and multiply-adds.

    Args:
        structures: Iterable of `Structure`, all those of the model.
        weights: Iterable of `Weights`, all those of the model.
        stays: Dict from the name of a structure to a boolean array, which of
            its components are counted. Of the others, all are.

    Returns:
        A `Counts`.
    """
    units = 0
    cut: dict[tuple[int, int], int] = {}
    for structure in structures:
        every = np.ones(structure.size, bool)
        gone = int((~stays.get(structure.name, every)).sum())
        units += structure.size - gone
        for part in structure.slices:
            key = (id(part.variable), part.axis)
            cut[key] = cut.get(key, 0) + gone * part.index.shape[1]
    total = recurrent = mult_adds = 0
    for entry in weights:
        size = math.prod(
            length - cut.get((id(entry.variable), axis), 0)
            for axis, length in enumerate(entry.variable.shape)
        )
        total += size
        recurrent += size * entry.recurrent
        mult_adds += size * entry.uses
    return Counts(units, total, recurrent, mult_adds)
