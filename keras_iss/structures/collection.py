"""The structures of a model, found by their names."""

import collections.abc
import dataclasses
import difflib
import functools
import io
import math
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_iss._messages import quoted
from keras_iss.counts import Counts, Weights, count
from keras_iss.structures.slices import by_variable
from keras_iss.structures.structure import Structure
from keras_iss.structures.values import norms_of, removed_of

# Columns of the table.
_NUMBERS = ("size", "alive", "weights")


class UnknownStructureError(KeyError, ValueError):
    """A name that fits no structure, or more than one."""

    def __str__(self):
        # A `KeyError` shows its message quoted.
        return self.args[0]


class Structures(collections.abc.Collection):
    """The structures of a model, in the order of its layers.

    `structures["lstm_1"]` finds one by its name, by the name of any layer
    tied into it, or by the end of its path (`"forward_lstm"` for
    `"bidirectional/forward_lstm"`) where only one fits. Iterating gives the
    `Structure` objects; printing gives a table.

    Args:
        structures: The `Structure` objects.
        weights: A `Weights` for every weight variable of the model.
        equal_sizes: Tuples of integer arrays. Each array holds, for the
            positions along an axis, the number of the component (counted
            through all the structures in order) or -1; axes in one tuple have
            to stay of one size.

    Attributes:
        refit: What `prune(..., refit=True)` did to what reads the components
            that it removed, or `None`.
    """

    def __init__(
        self,
        structures: Iterable[Structure],
        weights: Iterable[Weights] = (),
        equal_sizes: Iterable[tuple[np.ndarray, ...]] = (),
    ) -> None:
        self.refit: Any = None
        self._by_name = {structure.name: structure for structure in structures}
        self._weights = tuple(weights)
        self._equal_sizes = tuple(equal_sizes)
        # By the last part of the path of each maker.
        self._by_ending: dict[str, list[tuple[str, Structure]]] = {}
        for structure in self:
            for maker in dict.fromkeys((structure.name, *structure.makers)):
                ending = maker.rpartition("/")[2]
                self._by_ending.setdefault(ending, []).append(
                    (maker, structure)
                )

    def __iter__(self) -> Iterator[Structure]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, key: object) -> bool:
        return len(self._find(key)) == 1

    def __getitem__(self, key: "str | Structure") -> Structure:
        found = self._find(key)
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownStructureError(
                f"`{key}` fits several structures: "
                f"{quoted(structure.name for structure in found)}. Give a "
                "full name."
            )
        key = key.name if isinstance(key, Structure) else key
        near = difflib.get_close_matches(str(key), self.keys(), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise UnknownStructureError(
            f"`{key}` is no structure of this model.{hint} Its structures "
            f"are {quoted(self.keys())}."
        )

    def _find(self, key):
        if isinstance(key, Structure):
            key = key.name
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(
                "A structure is found by its name, a string. Received: "
                f"{key!r} (of type {type(key).__name__})"
            ) from error
        if key in self._by_name:
            return [self._by_name[key]]
        fitting = {
            structure.name: structure
            for maker, structure in self._by_ending.get(
                str(key).rpartition("/")[2], ()
            )
            if maker == key or maker.endswith(f"/{key}")
        }
        return list(fitting.values())

    def keys(self) -> KeysView[str]:
        """The names of the structures."""
        return self._by_name.keys()

    def values(self) -> ValuesView[Structure]:
        """The structures."""
        return self._by_name.values()

    def items(self) -> ItemsView[str, Structure]:
        """Pairs of name and structure."""
        return self._by_name.items()

    @property
    def free(self) -> tuple[Structure, ...]:
        """Tuple of the structures that are not pinned."""
        return tuple(structure for structure in self if not structure.pinned)

    @property
    def weights(self) -> tuple[Weights, ...]:
        """Tuple of a `Weights` for every weight variable of the model."""
        return self._weights

    def pinning(self, reasons: Mapping[str, str]) -> "Structures":
        """The same structures, some of them pinned.

        Args:
            reasons: Dict from the full name of a structure to a string.
        """
        structures = [
            structure
            if structure.pinned or structure.name not in reasons
            else dataclasses.replace(structure, pinned=reasons[structure.name])
            for structure in self
        ]
        return Structures(structures, self._weights, self._equal_sizes)

    def staying(self, keep: Mapping | None = None) -> dict[str, np.ndarray]:
        """What surgery leaves.

        Args:
            keep: Optional dict from the name of a structure to the indices
                of what stays of it. Of the others, what is not removed stays.

        Returns:
            Dict from name to boolean array: all of a pinned structure, at
            least one component of any other, and more where axes have to stay
            of one size.
        """
        keep = {
            name: kept
            for name, kept in (keep or {}).items()
            if kept is not None
        }
        asked = [
            structure
            for structure in self
            if not structure.pinned and structure.name not in keep
        ]
        removed = removed_of(asked)
        bare = norms_of(
            [structure for structure in asked if removed[structure.name].all()]
        )
        for name, norms in bare.items():
            removed[name][np.argmax(norms)] = False
        stays = {}
        for structure in self:
            if structure.name in removed:
                stays[structure.name] = ~removed[structure.name]
                continue
            stays[structure.name] = np.full(
                structure.size, bool(structure.pinned)
            )
            if not structure.pinned:
                stays[structure.name][np.asarray(keep[structure.name], int)] = (
                    True
                )
        if not self._equal_sizes:
            return stays
        joined = np.concatenate(list(stays.values()))
        self._equalize(joined)
        ends = np.cumsum([structure.size for structure in self])[:-1]
        return dict(zip(stays, np.split(joined, ends)))

    def _equalize(self, stays):
        """Lets components stay until axes that have to be are of one size."""
        waiting = collections.deque(range(len(self._equal_sizes)))
        while waiting:
            axes = self._equal_sizes[waiting.popleft()]
            sizes = [((axis < 0) | stays[axis]).sum() for axis in axes]
            for axis, size in zip(axes, sizes):
                added = _first_not_staying(axis, stays, max(sizes) - size)
                stays[added] = True
                waiting += {
                    place
                    for component in added.tolist()
                    for place in self._places_of_equal_size[component]
                }

    @functools.cached_property
    def _places_of_equal_size(self):
        """Dict from a component to where it is in axes of one size."""
        places = collections.defaultdict(set)
        for i, axes in enumerate(self._equal_sizes):
            for component in np.unique(np.concatenate(axes)).tolist():
                places[component].add(i)
        return places

    def counts(
        self, shrunk: bool = False, keep: Mapping | None = None
    ) -> Counts:
        """Counts units, weights and multiply-adds.

        Args:
            shrunk: Boolean, whether to count what `shrink` would leave.
                Defaults to `False`: the model as it is.
            keep: Optional dict from the name of a structure to the indices
                of what stays of it: counts what `shrink` with it would leave.

        Returns:
            A `Counts`.
        """
        stays = self.staying(keep) if shrunk or keep is not None else {}
        return count(self, self._weights, stays)

    def _share(self, structure):
        """The part of the model's weights that one structure owns."""
        owned = 0
        for variable, parts in by_variable(structure.slices, lambda _: True):
            outside = math.prod(
                1 - part.index.size / variable.shape[part.axis]
                for part in parts
            )
            owned += (1 - outside) * math.prod(variable.shape)
        return owned / self._total if self._total else 0.0

    @functools.cached_property
    def _total(self):
        """Integer, all the weights of the model."""
        return sum(math.prod(entry.variable.shape) for entry in self._weights)

    def __str__(self) -> str:
        table = Table(box=None, pad_edge=False)
        for title in "structure size alive weights consumers pinned".split():
            table.add_column(
                title,
                justify="right" if title in _NUMBERS else "left",
                no_wrap=True,
            )
        removed = removed_of(self)
        for structure in self:
            name = " = ".join(structure.makers or (structure.name,))
            table.add_row(
                name,
                str(structure.size),
                str(structure.size - int(removed[structure.name].sum())),
                f"{self._share(structure):.1%}",
                ", ".join(structure.consumers),
                structure.pinned or "",
            )
        # Wide enough that no reason is broken: a line can be searched for.
        text = io.StringIO()
        Console(file=text, width=10_000, markup=False).print(table)
        lines = text.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self):
        return f"<Structures: {', '.join(self.keys()) or 'none'}>"


def _first_not_staying(axis, stays, count):
    """The first components along an axis that do not stay.

    Args:
        axis: Integer array of components, -1 for none.
        stays: Boolean array.
        count: Integer, how many positions they are to have at least.

    Returns:
        Integer array.
    """
    gone, times = np.unique(
        axis[(axis >= 0) & ~stays[axis]], return_counts=True
    )
    before = np.cumsum(times) - times
    return gone[before < count]
