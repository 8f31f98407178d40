"""Masks of recurrent layers, for operators that only know lengths.

Keras leaves out a masked time step, wherever it is: the states stay, and the
output is that of the step before, at first zeros.
"""

import dataclasses
import typing

import numpy as np

from keras_iss.export.onnx.graph import Value


@dataclasses.dataclass
class Packed:
    """The time steps that a mask leaves, moved together at the beginning.

    Attributes:
        lowering: The `Lowering`.
        mask: `Value` of booleans, of shape (batch, time).
        order: `Value` of shape (batch, time, 1): which step is moved where.
        number: `Value` of int64, of shape (batch, time): how many steps are
            left up to each, with itself.
        total: `Value` of int64, of shape (batch, 1): how many there are.
        counts: `Value` of int32, of shape (batch,): the same, but at least 1.
    """

    lowering: typing.Any
    mask: Value
    order: Value
    number: Value
    total: Value
    counts: Value

    def gather(self, x):
        """The steps that are left, at the beginning."""
        return self.lowering.node("GatherND", [x, self.order], batch_dims=1)

    def scatter(self, outputs, backwards, zero_masked):
        """Outputs of moved steps as those of all steps.

        Args:
            outputs: `Value` of shape (batch, time, units).
            backwards: Whether the last step came first.
            zero_masked: Whether masked steps get zeros.
        """
        node, one = self.lowering.node, np.array(1, "int64")
        if backwards:
            # A masked step repeats the next one that is left.
            left = self.lowering.cast(self.mask, "int64")
            place = node("Sub", [self.number, left])
            known = node("Less", [place, self.total], dtype="bool")
            place = node(
                "Min",
                [
                    place,
                    node(
                        "Max",
                        [node("Sub", [self.total, one]), np.array(0, "int64")],
                    ),
                ],
            )
        else:
            place = node("Sub", [self.number, one])
            known = node(
                "GreaterOrEqual", [place, np.array(0, "int64")], dtype="bool"
            )
            place = node("Max", [place, np.array(0, "int64")])
        if zero_masked:
            known = self.mask
        axis = self.lowering.integers(-1)
        place = node("Unsqueeze", [place, axis])
        found = node("GatherND", [outputs, place], batch_dims=1)
        known = node("Unsqueeze", [known, axis])
        return self._or_zeros(known, found)

    def last(self, output, backwards, zero_masked):
        """The output of the step that came last, of shape (batch, units)."""
        node = self.lowering.node
        if zero_masked:
            place = 0 if backwards else -1
            known = node(
                "Gather", [self.mask, self.lowering.integers(place)], axis=1
            )
        else:
            known = self._any()
        return self._or_zeros(known, output)

    def kept(self, state, before):
        """The last state, or that of before where all steps are masked."""
        if before is None:
            found = self._or_zeros(self._any(), state)
        else:
            found = self.lowering.node(
                "Where", [self._any(), state, before], dtype=state.dtype
            )
        found.shape = state.shape
        return found

    def _any(self):
        zero = np.array(0, "int64")
        return self.lowering.node("Greater", [self.total, zero], dtype="bool")

    def _or_zeros(self, known, x):
        zero = np.array(0, x.dtype)
        return self.lowering.node("Where", [known, x, zero], dtype=x.dtype)


def packed(lowering, mask):
    """Moves together the time steps that a mask leaves.

    Args:
        lowering: The `Lowering`.
        mask: `Value` of shape (batch, time).

    Returns:
        The `Packed`.
    """
    node = lowering.node
    mask = lowering.value(mask, "bool")
    left = lowering.cast(mask, "int64")
    number = node("CumSum", [left, np.array(1, "int64")])
    total = node("ReduceSum", [left, lowering.integers(1)], keepdims=1)
    counts = node("Max", [total, np.array(1, "int64")])
    counts = node("Squeeze", [counts, lowering.integers(1)])
    # Steps that are left come first, and earlier ones before later ones.
    time = node("Shape", [mask], dtype="int64", start=1, end=2)
    ones = node("Expand", [np.array(1, "int64"), time])
    step = node("CumSum", [ones, np.array(0, "int64")])
    key = node("Sub", [node("Mul", [left, time]), step])
    _, order = node("TopK", [key, time], 2, axis=1, largest=1, sorted=1)
    order = node("Unsqueeze", [order, lowering.integers(-1)])
    return Packed(
        lowering,
        mask,
        order,
        number,
        total,
        lowering.cast(counts, "int32"),
    )
