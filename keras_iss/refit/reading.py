"""Which rows of which kernels a cut takes, and what cannot be refitted."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_iss._keras.layers import inner_layers, own_variables
from keras_iss.refit.places import Place
from keras_iss.refit.readers import Reader, readers_of
from keras_iss.structures import Structures
from keras_iss.structures.values import removed_of

MOST_ROWS = 4096
"""Kernels of more rows are left: their covariance would not fit well."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """What goes of a model.

    Attributes:
        removals: List of pairs of a `Structure` and an integer array, the
            components that go, and those that have gone before.
        fresh: The same without those that have gone before.
    """

    removals: list
    fresh: list

    @classmethod
    def of(cls, structures: Structures, kept: Mapping) -> "Cut":
        """The cut to what is kept.

        Args:
            structures: `Structures` of a model.
            kept: Dict from the name of a structure to the components that
                stay, an integer array. Of the others, nothing goes.
        """
        removed = removed_of(structures.free)
        removals, fresh = [], []
        for structure in structures.free:
            goes = np.zeros(structure.size, bool)
            if structure.name in kept:
                goes[:] = True
                goes[np.asarray(kept[structure.name], int)] = False
            before = removed[structure.name]
            removals.append((structure, np.flatnonzero(goes | before)))
            fresh.append((structure, np.flatnonzero(goes & ~before)))
        return cls(removals, fresh)

    def rows(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """The rows that stay at a place, and those that go now."""
        stays = np.ones(place.size, bool)
        for positions in _positions(self.removals, place):
            stays[positions] = False
        goes = np.zeros(place.size, bool)
        for positions in _positions(self.fresh, place):
            goes[positions] = True
        return np.flatnonzero(stays), np.flatnonzero(goes)

    def set_to_zero(self, values: dict, but_rows_of: Place | None = None):
        """Sets what goes to zero.

        Args:
            values: Dict from the `id` of a variable to an array, changed.
                Variables that are not in it are left out.
            but_rows_of: Optional place whose rows stay as they are.
        """
        for structure, components in self.removals:
            for part in structure.slices:
                if but_rows_of is not None and _lies_in_rows(part, but_rows_of):
                    continue
                if part.zeroed and id(part.variable) in values:
                    where = part.index[components].ravel()
                    at = (slice(None),) * part.axis + (where,)
                    values[id(part.variable)][at] = 0

    def variables(self) -> list:
        """The variables that it sets elements of to zero."""
        found = {
            id(part.variable): part.variable
            for structure, components in self.removals
            for part in structure.slices
            if part.zeroed and len(components)
        }
        return list(found.values())


def _positions(removals, place):
    for structure, components in removals:
        for part in structure.slices:
            if _lies_in_rows(part, place):
                yield part.index[components].ravel()


def _lies_in_rows(part, place):
    return part.variable is place.variable and part.axis == place.axis


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """How what a structure gives is read in a model.

    Attributes:
        readers: List of the `Reader`s of the model's layers.
        places: List of the `Place`s that rows can go at, each kernel once.
        left: Dict from the path of a kernel that cannot be refitted to a
            string: why.
    """

    readers: list[Reader]
    places: list[Place]
    left: dict[str, str]


def reading_of(model: keras.Model, removals: list) -> Reading:
    """Where components are read that go.

    Args:
        model: A built `keras.Model`.
        removals: List of pairs of a `Structure` and an integer array, its
            components.
    """
    readers = readers_of(model)
    known = {place.key: place for x in readers for place in x.places}
    owners = _owners(model)
    seen = {
        (id(place.variable), id(layer))
        for reader in readers
        for place in reader.places
        for layer in inner_layers(reader.layer)
    }
    left = _without_reader(removals, known.values(), owners)
    places = []
    for place in known.values():
        if not any(len(x) for x in _positions(removals, place)):
            continue
        reason = _why_not(place, owners, seen)
        if reason is None:
            places.append(place)
        else:
            left[place.name] = reason
    return Reading(readers, places, left)


def _owners(model):
    """Dict from the `id` of a variable to the layers that hold it."""
    owners = {}
    for layer in inner_layers(model):
        for variable in own_variables(layer):
            owners.setdefault(id(variable), []).append(layer)
    return owners


def _without_reader(removals, places, owners):
    known = {id(place.variable) for place in places}
    left = {}
    for structure, components in removals:
        for part in structure.slices if len(components) else ():
            layers = owners.get(id(part.variable), [])
            only_looked_up = any(
                type(x) is keras.layers.Embedding for x in layers
            )
            if (
                part.counted
                and id(part.variable) not in known
                and not only_looked_up
            ):
                kinds = " and ".join(sorted({type(x).__name__ for x in layers}))
                left[part.variable.path] = (
                    f"how {kinds or 'its layer'} reads it is not known to be "
                    "linear, or not seen from outside"
                )
    return left


def _why_not(place, owners, seen):
    variable = place.variable
    others = [
        layer
        for layer in owners.get(id(variable), ())
        if (id(variable), id(layer)) not in seen
    ]
    if others:
        return f"`{others[0].name}` has it too, and reads it in its own way"
    if any(getattr(v, "constraint", None) for v in place.variables):
        return "it has a constraint"
    if place.size > MOST_ROWS:
        return f"it reads {place.size:,} numbers at once"
    return None
