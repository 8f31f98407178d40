"""Places where a layer reads activations by a kernel, linearly."""

import dataclasses
import typing

import keras
import numpy as np

from keras_iss.structures.values import to_numpy


class Bias(typing.NamedTuple):
    """Where a constant goes that is added to what a kernel gives.

    Attributes:
        variable: `keras.Variable`.
        index: What of it, for NumPy.
    """

    variable: keras.Variable
    index: typing.Any = ...


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A kernel whose rows read a tensor along its last dimension.

    Attributes:
        variable: `keras.Variable`, the kernel.
        axis: Integer, the axis of the kernel with a row for each position of
            the tensor.
        columns: Pair, the start and the end of what reads this tensor along
            the last axis of the kernel; `None` for all.
        biases: Tuple of `Bias`. Their elements, one after the other, are the
            constants of the columns; empty where no constant can be added.
        is_recurrent: Boolean, whether the layer reads its own state.
    """

    variable: keras.Variable
    axis: int = 0
    columns: tuple = (None, None)
    biases: tuple = ()
    is_recurrent: bool = False

    @property
    def key(self) -> tuple:
        """What is equal for places that are one: a shared kernel."""
        start, stop, _ = slice(*self.columns).indices(self.variable.shape[-1])
        return id(self.variable), self.axis, start, stop

    @property
    def name(self) -> str:
        """The path of the kernel, and which columns where not all are meant."""
        if self.columns == (None, None):
            return self.variable.path
        _, _, start, stop = self.key
        return f"{self.variable.path}[{start}:{stop}]"

    @property
    def size(self) -> int:
        """The number of rows."""
        return self.variable.shape[self.axis]

    def rows(self, kernel: np.ndarray) -> np.ndarray:
        """The rows of a kernel, as an array of shape `(size, outputs)`."""
        own = np.moveaxis(kernel[..., slice(*self.columns)], self.axis, 0)
        return own.reshape(self.size, -1)

    def set_rows(self, kernel: np.ndarray, rows: np.ndarray):
        """Writes rows, as `rows` gives them, into a kernel."""
        own = np.moveaxis(kernel[..., slice(*self.columns)], self.axis, 0)
        own[...] = rows.reshape(own.shape)

    def add_constant(self, values: dict, constant: np.ndarray):
        """Adds a constant, one for each column, to the biases.

        Args:
            values: Dict from the `id` of a variable to an array, which is
                changed.
            constant: Array of shape `(outputs,)`. A convolution adds up what
                its columns give at several steps.
        """
        parts = [values[id(v)][index] for v, index in self.biases]
        if not parts:
            return
        size = sum(part.size for part in parts)
        constant = constant.reshape(-1, size).sum(axis=0)
        for (variable, index), part in zip(self.biases, parts):
            added, constant = np.split(constant, [part.size])
            values[id(variable)][index] = part + added.reshape(part.shape)

    @property
    def variables(self) -> list:
        """The kernel and its biases."""
        return [self.variable, *(bias.variable for bias in self.biases)]


def double(variable: keras.Variable) -> np.ndarray:
    """A copy of the value of a variable in float64."""
    return to_numpy(variable).astype("float64")
