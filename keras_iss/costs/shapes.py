"""How many elements the weights of a model have, as its structures shrink."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_iss.structures import Structures


@dataclasses.dataclass(frozen=True)
class AxisShape:
    """An axis of a weight variable.

    Attributes:
        fixed: Integer, the positions that belong to no structure.
        per_unit: Dict from the name of a structure to the positions that each
            of its components has.
    """

    fixed: int
    per_unit: Mapping[str, int]

    def length(self, sizes: Mapping[str, int]) -> int:
        """How long it is at some sizes of the structures."""
        return self.fixed + sum(
            count * sizes[name] for name, count in self.per_unit.items()
        )


@dataclasses.dataclass(frozen=True)
class WeightShape:
    """A weight variable, of which structures own parts.

    Attributes:
        path: String, the path of the variable.
        axes: Tuple of `AxisShape`.
        uses: Integer, how often each element is multiplied in a time step.
    """

    path: str
    axes: tuple[AxisShape, ...]
    uses: int

    def elements(self, sizes: Mapping[str, int]) -> int:
        """How many elements it has at some sizes of the structures."""
        product = 1
        for axis in self.axes:
            product *= axis.length(sizes)
        return product

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "WeightShape":
        """The same from what `dataclasses.asdict` made of one."""
        axes = tuple(
            AxisShape(axis["fixed"], dict(axis["per_unit"]))
            for axis in given["axes"]
        )
        return cls(given["path"], axes, given["uses"])


def shapes_of(structures: Structures) -> tuple[WeightShape, ...]:
    """The weights of which some structure may lose a part."""
    owned: dict[tuple[int, int], dict[str, int]] = {}
    for structure in structures.free:
        for part in structure.slices:
            counts = owned.setdefault((id(part.variable), part.axis), {})
            counts[structure.name] = (
                counts.get(structure.name, 0) + part.index.shape[1]
            )
    found = []
    for entry in structures.weights:
        axes = []
        for axis, length in enumerate(entry.variable.shape):
            counts = owned.get((id(entry.variable), axis), {})
            taken = sum(
                count * structures[name].size for name, count in counts.items()
            )
            axes.append(AxisShape(length - taken, counts))
        if any(axis.per_unit for axis in axes):
            found.append(
                WeightShape(entry.variable.path, tuple(axes), entry.uses)
            )
    return tuple(found)


def sizes_of(
    structures: Structures, kept: Mapping | None = None
) -> dict[str, int]:
    """How large structures are.

    Args:
        structures: `Structures`.
        kept: Optional dict from name to indices. If given, the sizes that
            `shrink` with it would leave.
    """
    if kept is None:
        return {x.name: x.size for x in structures}
    stays = structures.staying(kept)
    return {name: int(x.sum()) for name, x in stays.items()}
