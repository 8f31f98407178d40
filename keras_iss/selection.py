"""Which components stay: for a threshold, for sizes, for a size in all."""

import collections.abc
import dataclasses
import math
import numbers

import numpy as np

from keras_iss._checks import check_amount, number
from keras_iss.structures import norms_of, quoted, removed_of


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is asked of a model's size: one of three, as share or number.

    Attributes:
        weights: Optional float or integer, of the weights of the recurrent
            layers (of all the weights in a model without recurrent layers).
        units: Optional, of the components that are not pinned.
        mult_adds: Optional, of the multiply-adds.
    """

    weights: float | int | None = None
    units: float | int | None = None
    mult_adds: float | int | None = None

    def __post_init__(self):
        given = self._given()
        if len(given) != 1:
            raise ValueError(
                "A size is one of `weights`, `units` and `mult_adds`. "
                f"Received: {given or 'none'}"
            )
        for name, share in given.items():
            object.__setattr__(self, name, check_share(share, name))

    def __str__(self):
        return f"{self.kind}={self._asked}"

    def _given(self):
        return {
            name: share
            for name, share in dataclasses.asdict(self).items()
            if share is not None
        }

    @property
    def kind(self):
        """String, what is counted."""
        return next(iter(self._given()))

    @property
    def words(self):
        """String, what is counted, in a message."""
        return {"mult_adds": "multiply-adds"}.get(self.kind, self.kind)

    @property
    def is_share(self):
        """Boolean, whether it is a share instead of a number."""
        return not isinstance(self._asked, numbers.Integral)

    @property
    def _asked(self):
        return next(iter(self._given().values()))

    def wanted(self, structures):
        """How much of it is to be left."""
        if self.is_share:
            return self._asked * self.measure(structures)
        return int(self._asked)

    def measure(self, structures, keep=None):
        """How much of it a model has.

        Args:
            structures: `Structures`.
            keep: Optional dict from name to indices. If given, what `shrink`
                with it would leave; else, the model as it is.
        """
        counts = structures.counts(keep=keep)
        if self.kind == "weights":
            return counts.recurrent_weights or counts.weights
        if self.kind == "mult_adds":
            return counts.mult_adds
        pinned = sum(one.size for one in structures if one.pinned)
        return counts.units - pinned


def check_share(share, name):
    """A number above 0 and below 1, or an integer; or an error."""
    share = number(share)
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number, what stays of them. Received: "
            f"{share!r} (of type {type(share).__name__})"
        )
    if isinstance(share, numbers.Integral) and share >= 1:
        return share
    if math.isnan(share) or not 0 < share < 1:
        raise ValueError(
            f"`{name}` is the share that stays, above 0 and below 1, or an "
            f"integer: how many do. Received: {share}"
        )
    return share


def by_structure(structures, values, argument):
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


def check_importance(structures, importance):
    """Importances by the full names of their structures, as float arrays.

    Raises:
        TypeError: if `importance` is no dict, or one is not of numbers.
        ValueError: if one has another length than its structure has
            components, or is NaN; or if a structure is named twice.
    """
    if importance is None:
        return {}
    if not isinstance(importance, collections.abc.Mapping):
        raise TypeError(
            "`importance` must be a dict from the name of a structure to a "
            f"number for each component. Received: {type(importance).__name__}"
        )
    checked = {}
    for one, values in by_structure(structures, importance, "importance"):
        try:
            values = np.asarray(values, float)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`importance` of `{one.name}` must be {one.size} numbers, one "
                f"for each component. Received: {values!r}"
            ) from error
        if values.shape != (one.size,):
            raise ValueError(
                f"`importance` of `{one.name}` must be of shape ({one.size},), "
                f"one for each component. Received: {values.shape}"
            )
        if np.isnan(values).any():
            raise ValueError(f"`importance` of `{one.name}` has NaN in it.")
        checked[one.name] = values
    return checked


def allot(structures, budget, importance=None, wanted=None):
    """Chooses what stays, over all the structures at once.

    Importances are compared with the mean of their own structure. What is
    removed already goes first; each structure keeps its best component.

    Args:
        structures: `Structures`.
        budget: `Budget`.
        importance: Dict from name to the importances of the structures that
            have some. The others take their group norms.
        wanted: Optional number, what `budget` is to measure. Defaults to
            what it asks for.

    Returns:
        Dict from name to a sorted integer array.

    Raises:
        ValueError: if no structure is free, or one component of each would be
            more than the budget.
    """
    free = structures.free
    if not free:
        raise ValueError(
            "No structure of the model could lose a component: "
            + "; ".join(f"`{s.name}` is pinned: {s.pinned}" for s in structures)
        )
    if wanted is None:
        wanted = budget.wanted(structures)
    importance = dict(importance or {})
    importance |= norms_of([one for one in free if one.name not in importance])
    removed = removed_of(free)
    relative = [
        _relative(importance[one.name], ~removed[one.name]) for one in free
    ]
    order = np.argsort(np.concatenate(relative), kind="stable")
    owner = np.repeat(np.arange(len(free)), [one.size for one in free])
    starts = np.cumsum([0] + [one.size for one in free])
    order = order[np.isfinite(np.concatenate(relative)[order])]

    def keep(gone):
        stays = np.ones(len(owner), bool)
        stays[order[:gone]] = False
        return {
            one.name: np.flatnonzero(stays[start : start + one.size])
            for one, start in zip(free, starts)
        }

    def left(gone):
        return budget.measure(structures, keep(gone))

    if left(len(order)) > wanted:
        full, least = budget.measure(structures), left(len(order))
        raise ValueError(
            f"`{budget}` cannot be reached: with one component left in each of "
            f"{quoted(one.name for one in free)}, {least:,} of {full:,} "
            f"{budget.words} stay, a share of {least / full:.3g}. Ask for more."
        )
    low, high = 0, len(order)  # left(high) <= wanted
    while low < high:
        middle = (low + high) // 2
        if left(middle) <= wanted:
            high = middle
        else:
            low = middle + 1
    return keep(high)


def _relative(importance, alive):
    """Importances over their mean; of the best component, infinity."""
    compared = importance[alive & np.isfinite(importance)]
    mean = np.abs(compared).mean() if len(compared) else 1.0
    relative = np.where(alive, importance / (mean or 1.0), -1e30)
    # An infinite importance goes last, or first; and the best one never.
    relative = np.clip(relative, -1e30, 1e30)
    relative[np.argmax(relative)] = np.inf
    return relative


def check_threshold(threshold):
    """A threshold as a float, or an error. See `check_amount`."""
    return check_amount(
        threshold,
        "threshold",
        "it is compared with group norms, which are never negative",
        finite=False,
    )


def below(norms, threshold):
    """The components with a norm below a threshold, but never all of them.

    Returns:
        Integer array.
    """
    short = norms < threshold
    if short.all():
        short[np.argmax(norms)] = False
    return np.flatnonzero(short)


def resolve_keep(structures, keep, importance=None):
    """What stays of each structure.

    Args:
        structures: `Structures`.
        keep: As in `prune`.
        importance: Optional dict from name to the importance of its components.
            Where there are none, group norms are taken.

    Returns:
        Dict from the name of a structure to a sorted integer array.
    """
    if not isinstance(keep, collections.abc.Mapping):
        raise TypeError(
            "`keep` must be a dict from the name of a structure to a count "
            f"or indices. Received: {keep!r} (of type {type(keep).__name__})"
        )
    if not keep:
        raise ValueError(
            "`keep` is empty. It takes what stays of a structure, as in "
            f"`keep={{{next(iter(structures.keys()))!r}: 8}}`."
        )
    importance = importance or {}
    return {
        one.name: _resolve(one, wanted, importance.get(one.name))
        for one, wanted in by_structure(structures, keep, "keep")
    }


def _resolve(structure, wanted, importance=None):
    name, size = structure.name, structure.size
    wanted = number(wanted)
    if structure.pinned:
        raise ValueError(
            f"`{name}` is pinned and must keep its size: {structure.pinned}."
        )
    no_indices = (bool, str, bytes, collections.abc.Mapping)
    if isinstance(wanted, no_indices) or not isinstance(
        wanted, (numbers.Integral, collections.abc.Iterable)
    ):
        raise TypeError(
            f"`keep` takes a count or a sequence of indices for `{name}`. "
            f"Received: {wanted!r} (of type {type(wanted).__name__})"
        )
    if isinstance(wanted, numbers.Integral):
        if not 1 <= wanted <= size:
            raise ValueError(
                f"`{name}` has {size} components and keeps at least one: "
                f"`keep` takes 1 to {size} for it. Received: {wanted}"
            )
        importance = structure.norms() if importance is None else importance
        order = np.argsort(-importance, kind="stable")
        return np.sort(order[:wanted])
    indices = list(wanted)
    if not indices:
        raise ValueError(
            f"`keep` is empty for `{name}`, which keeps at least one of its "
            f"{size} components."
        )
    for index in indices:
        if isinstance(index, (bool, np.bool_)) or not isinstance(
            index, numbers.Integral
        ):
            raise TypeError(
                f"`keep` takes integer indices for `{name}`. Received: "
                f"{index!r} (of type {type(index).__name__})"
            )
        if not 0 <= index < size:
            raise ValueError(
                f"`keep` gives index {index} for `{name}`, whose components "
                f"are 0 to {size - 1}."
            )
    if len(set(indices)) < len(indices):
        repeated = next(x for x in indices if indices.count(x) > 1)
        raise ValueError(f"`keep` gives index {repeated} of `{name}` twice.")
    return np.sort(np.array(indices, int))
