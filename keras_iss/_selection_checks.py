"""Checks of what says how much of a model stays."""

import collections.abc
import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_iss._checks import check_amount, check_count, number
from keras_iss._messages import quoted
from keras_iss.structures import Structure, Structures


def by_structure(
    structures: Structures, values: Mapping, argument: str
) -> Iterator:
    """Pairs of a structure and what a dict has for it by any of its names.

    Args:
        structures: `Structures`.
        values: Dict from the name of a structure.
        argument: String, the name of the argument that the dict is.

    Raises:
        ValueError: if a structure is named twice.
        KeyError: if a name is that of no structure.
    """
    named = set()
    for key, value in values.items():
        structure = structures[key]
        if structure.name in named:
            raise ValueError(
                f"`{argument}` names the structure `{structure.name}` twice: "
                f"the units of {quoted(structure.makers)} are tied. Name one "
                "of them."
            )
        named.add(structure.name)
        yield structure, value


def check_importance(
    structures: Structures, importance: Any
) -> dict[str, np.ndarray]:
    """Importances by the full names of their structures, as float arrays.

    Raises:
        TypeError: if `importance` is no dict, or one is not of numbers.
        ValueError: if one has another length than its structure has
            components, or is NaN; or if a structure is named twice.
    """
    if importance is None:
        return {}
    if not isinstance(importance, Mapping):
        raise TypeError(
            "`importance` must be a dict from the name of a structure to a "
            f"number for each component. Received: {type(importance).__name__}"
        )
    checked = {}
    for structure, values in by_structure(structures, importance, "importance"):
        name, size = structure.name, structure.size
        try:
            values = np.asarray(values, float)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`importance` of `{name}` must be {size} numbers, one for "
                f"each component. Received: {values!r}"
            ) from error
        if values.shape != (size,):
            raise ValueError(
                f"`importance` of `{name}` must be of shape ({size},), one for "
                f"each component. Received: {values.shape}"
            )
        if np.isnan(values).any():
            raise ValueError(f"`importance` of `{name}` has NaN in it.")
        checked[name] = values
    return checked


def check_threshold(threshold: Any) -> float:
    """A threshold as a float, or an error. See `check_amount`."""
    return check_amount(
        threshold,
        "threshold",
        "it is compared with group norms, which are never negative",
        finite=False,
    )


def check_share(share: Any, name: str) -> float | int:
    """A number above 0 and below 1, or an integer; or an error."""
    share = number(share)
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number, what stays of them. Received: "
            f"{share!r} (of type {type(share).__name__})"
        )
    if isinstance(share, numbers.Integral) and int(share) >= 1:
        return int(share)
    part = float(share)
    if math.isnan(part) or not 0 < part < 1:
        raise ValueError(
            f"`{name}` is the share that stays, above 0 and below 1, or an "
            f"integer: how many do. Received: {share}"
        )
    return part


def check_round_to(round_to: Any) -> int | dict:
    """An integer, or a dict from the name of a structure to one."""
    meaning = "components that the sizes that stay are multiples of"
    if not isinstance(round_to, Mapping):
        return check_count(round_to, "round_to", 1, meaning)
    return {
        key: check_count(value, f"round_to[{_name(key)!r}]", 1, meaning)
        for key, value in round_to.items()
    }


def _name(key):
    return key.name if isinstance(key, Structure) else key


def check_keep(keep: Any) -> dict[str, int | tuple]:
    """A dict from name to a count or a tuple of indices; or an error."""
    if not isinstance(keep, Mapping):
        raise TypeError(
            "`keep` must be a dict from the name of a structure to a count "
            f"or indices. Received: {keep!r} (of type {type(keep).__name__})"
        )
    if not keep:
        raise ValueError(
            "`keep` is empty. It takes what stays of a structure, as in "
            '`keep={"lstm": 8}`.'
        )
    checked = {}
    for key, wanted in keep.items():
        if (name := _name(key)) in checked:
            raise ValueError(f"`keep` names `{name}` twice.")
        checked[name] = _check_count_or_indices(name, wanted)
    return checked


def _check_count_or_indices(name, wanted):
    wanted = number(wanted)
    no_indices = (bool, str, bytes, Mapping)
    if isinstance(wanted, no_indices) or not isinstance(
        wanted, (numbers.Integral, collections.abc.Iterable)
    ):
        raise TypeError(
            f"`keep` takes a count or a sequence of indices for `{name}`: its "
            f"components that stay. Received: {wanted!r} (of type "
            f"{type(wanted).__name__})"
        )
    if isinstance(wanted, numbers.Integral):
        return int(wanted)
    indices = list(wanted)
    for index in indices:
        if isinstance(index, (bool, np.bool_)) or not isinstance(
            index, numbers.Integral
        ):
            raise TypeError(
                f"`keep` takes integer indices for `{name}`, or a count. "
                f"Received: {index!r} (of type {type(index).__name__})"
            )
    return tuple(int(index) for index in indices)


def check_fits(structure: Structure, wanted: int | tuple, size: int) -> None:
    """Raises unless a structure could keep this.

    Args:
        structure: `Structure`.
        wanted: Count, or tuple of indices.
        size: Integer, the size of the structure when it is full.
    """
    name = structure.name
    if structure.pinned:
        raise ValueError(
            f"`{name}` is pinned and must keep its size: {structure.pinned}."
        )
    if isinstance(wanted, int):
        if not 1 <= wanted <= size:
            raise ValueError(
                f"`{name}` has {size} components and keeps at least one: "
                f"`keep` takes 1 to {size} for it. Received: {wanted}"
            )
        return
    if not wanted:
        raise ValueError(
            f"`keep` is empty for `{name}`, which keeps at least one of its "
            f"{size} components."
        )
    for index in wanted:
        if not 0 <= index < size:
            raise ValueError(
                f"`keep` gives index {index} for `{name}`, whose components "
                f"are 0 to {size - 1}."
            )
    if len(set(wanted)) < len(wanted):
        repeated = next(x for x in wanted if wanted.count(x) > 1)
        raise ValueError(f"`keep` gives index {repeated} of `{name}` twice.")
