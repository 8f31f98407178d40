"""Which components stay: for a threshold, for sizes, for a size of the whole.

The only place that decides it. `target_of` makes a `Target` of what a user
asks for; `Target.select` gives what stays, by importance.
"""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_iss._messages import quoted
from keras_iss._ranking import Order, best, rounded_down, rounded_up
from keras_iss._selection_checks import (
    by_structure,
    check_fits,
    check_keep,
    check_round_to,
    check_share,
    check_threshold,
)
from keras_iss.structures import Structures
from keras_iss.structures.values import norms_of, removed_of

Importances = Mapping[str, np.ndarray]
Selection = dict[str, np.ndarray]

_WORDS = ("threshold", "keep", "weights", "units", "mult_adds")


def target_of(*, round_to: int | Mapping = 1, **asked: Any) -> "Target":
    """What is asked for, checked as far as that needs no model.

    Args:
        round_to: Integer, or dict from the name of a structure to one. The
            sizes that stay are multiples of it.
        **asked: Exactly one of `threshold`, `keep`, `weights`, `units` and
            `mult_adds` that is not `None`, as in `prune`. Those that the
            caller does not offer to its user are left out.

    Returns:
        A `Target`.

    Raises:
        ValueError: if not exactly one is given, or one is out of range.
        TypeError: if one is of the wrong type.
    """
    given = {name: x for name, x in asked.items() if x is not None}
    if len(given) != 1:
        values = ", ".join(f"{name}={x!r}" for name, x in given.items())
        raise ValueError(
            f"Exactly one of {quoted(x for x in _WORDS if x in asked)} says "
            f"what stays. Received: {values or 'none'}"
        )
    ((name, value),) = given.items()
    if name == "threshold":
        return Threshold(round_to, value)
    if name == "keep":
        return Sizes(round_to, value)
    return Total(round_to, name, value)


@dataclasses.dataclass(frozen=True)
class Target:
    """What is asked of a model's size.

    Attributes:
        round_to: Integer, or dict from the name of a structure to one.
    """

    round_to: int | Mapping

    def __post_init__(self):
        object.__setattr__(self, "round_to", check_round_to(self.round_to))

    @property
    def is_relative(self) -> bool:
        """Whether what is asked for depends on the size at the start."""
        return False

    @property
    def names_components(self) -> bool:
        """Whether it names components, as only one model has them."""
        return False

    def bound(self, full: Structures) -> "Target":
        """The same, with a model at full size that it is measured against.

        Without one, that is the model that a selection is made in.
        """
        return self

    def check(self, structures: Structures) -> None:
        """Raises if the target does not fit a model, or cannot be met."""
        self._steps(structures)

    def select(
        self,
        structures: Structures,
        importance: Importances | None = None,
        done: float = 1.0,
    ) -> Selection:
        """What stays.

        Args:
            structures: `Structures`.
            importance: Dict from name to the importances of the structures
                that have some, as `check_importance` gives it. The others
                take their group norms.
            done: Float from 0 to 1, the part of the way from the full size
                to the target.

        Returns:
            Dict from the name of each structure that may get smaller to a
            sorted integer array, the components that stay of it.

        Raises:
            As `check`.
        """
        raise NotImplementedError

    def is_met(self, structures: Structures, done: float = 1.0) -> bool:
        """Whether `select` leaves all that is there."""
        kept = self.select(structures, done=done)
        removed = removed_of([structures[name] for name in kept])
        return all(
            np.isin(np.flatnonzero(~removed[name]), stays).all()
            for name, stays in kept.items()
        )

    def describe(self, structures: Structures) -> str:
        """What is left and what is asked for, for a message."""
        raise NotImplementedError

    def _steps(self, structures):
        """Dict from the name of each structure to what its size rounds to."""
        if not isinstance(self.round_to, Mapping):
            return {x.name: self.round_to for x in structures}
        steps = {x.name: 1 for x in structures}
        for structure, step in by_structure(
            structures, self.round_to, "round_to"
        ):
            steps[structure.name] = step
        return steps


@dataclasses.dataclass(frozen=True)
class Threshold(Target):
    """The components whose group norm is not below a threshold.

    Attributes:
        threshold: Float.
    """

    threshold: float

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "threshold", check_threshold(self.threshold))

    def select(self, structures, importance=None, done=1.0):
        """As `Target.select`. Group norms are compared, not importances."""
        norms = norms_of(structures.free)
        removed = removed_of(structures.free)
        steps = self._steps(structures)
        kept = {}
        for name, values in norms.items():
            most = int((~removed[name]).sum())
            count = int((values >= self.threshold).sum())
            # More stays, where more is there; what is long need not go.
            count = rounded_up(max(count, 1), steps[name], most)
            kept[name] = best(values, removed[name], count)
        return kept

    def describe(self, structures):
        least = min(
            norms[~structures[name].removed()].min(initial=np.inf)
            for name, norms in norms_of(structures.free).items()
        )
        return (
            f"the least group norm is {least:.3g}, {self.threshold:g} is asked "
            "for"
        )


@dataclasses.dataclass(frozen=True)
class Sizes(Target):
    """The sizes of structures that are named, or the components that stay.

    Attributes:
        keep: Dict from name to a count, or a tuple of indices.
    """

    keep: Mapping
    _full: Mapping | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "keep", check_keep(self.keep))

    @property
    def names_components(self):
        return any(not isinstance(x, int) for x in self.keep.values())

    def bound(self, full):
        sizes = {
            x.name: x.size for x, _ in by_structure(full, self.keep, "keep")
        }
        return dataclasses.replace(self, _full=sizes)

    def check(self, structures):
        super().check(structures)
        for structure, wanted in by_structure(structures, self.keep, "keep"):
            full = self._full_size(structure)
            if full < structure.size:
                raise ValueError(
                    f"`of` has {full} components in `{structure.name}`, fewer "
                    f"than the model that is trained: {structure.size}. Give "
                    "the model at full size."
                )
            check_fits(structure, wanted, full)

    def select(self, structures, importance=None, done=1.0):
        self.check(structures)
        importance = dict(importance or {})
        named = [structures[name] for name in self.keep]
        removed = removed_of(named)
        importance |= norms_of([x for x in named if x.name not in importance])
        counts = self._counts(structures, removed, done)
        kept = {}
        for structure, wanted in by_structure(structures, self.keep, "keep"):
            name = structure.name
            if isinstance(wanted, int):
                kept[name] = best(importance[name], removed[name], counts[name])
            else:
                kept[name] = np.sort(np.array(wanted))
        return kept

    def describe(self, structures):
        removed = removed_of([structures[name] for name in self.keep])
        return ", ".join(
            f"`{name}` has {int((~removed[name]).sum())} components, {count} "
            "asked for"
            for name, count in self._counts(structures, removed, 1.0).items()
        )

    def _full_size(self, structure):
        return (self._full or {}).get(structure.name, structure.size)

    def _counts(self, structures, removed, done):
        """Dict from name to how many components stay on the way there."""
        steps = self._steps(structures)
        counts = {}
        for structure, wanted in by_structure(structures, self.keep, "keep"):
            name = structure.name
            if isinstance(wanted, int):
                alive = int((~removed[name]).sum())
                count = rounded_down(wanted, steps[name], alive)
            else:
                count = len(wanted)
            more = self._full_size(structure) - count
            counts[name] = count + round((1.0 - done) * more)
        return counts


@dataclasses.dataclass(frozen=True)
class Total(Target):
    """A share or a number of a model's weights, units or multiply-adds.

    Attributes:
        kind: `"weights"`, of the recurrent layers (of all the layers in a
            model without recurrent ones), `"units"`, the components that are
            not pinned, or `"mult_adds"`.
        amount: Float above 0 and below 1, the share that stays, or an
            integer, how many.
    """

    kind: str
    amount: float | int
    _full: float | None = None

    def __post_init__(self):
        super().__post_init__()
        amount = check_share(self.amount, self.kind)
        object.__setattr__(self, "amount", amount)

    def __str__(self):
        return f"{self.kind}={self.amount}"

    @property
    def is_relative(self):
        return not isinstance(self.amount, numbers.Integral)

    def bound(self, full):
        return dataclasses.replace(self, _full=self.measure(full))

    def measure(
        self, structures: Structures, kept: Selection | None = None
    ) -> int:
        """How much of it a model has.

        Args:
            structures: `Structures`.
            kept: Optional dict from name to indices. If given, what `shrink`
                with it would leave; else, the model as it is.
        """
        counts = structures.counts(keep=kept)
        if self.kind == "weights":
            return counts.recurrent_weights or counts.weights
        if self.kind == "mult_adds":
            return counts.mult_adds
        return counts.units - sum(x.size for x in structures if x.pinned)

    def check(self, structures):
        super().check(structures)
        size = self.measure(structures)
        if self._full is not None and self._full < size:
            raise ValueError(
                f"`of` has {self._full:,.0f} {self._words}, fewer than the "
                f"model that is trained: {size:,.0f}. Give the model at full "
                "size."
            )
        self.select(structures)

    def select(self, structures, importance=None, done=1.0):
        """As `Target.select`, over all the structures at once.

        Importances are compared with the mean of their own structure. Those
        that go do so `round_to` at a time, the least important first; each
        structure keeps its best.
        """
        free = structures.free
        if not free:
            raise ValueError(
                "No structure of the model could lose a component: "
                + "; ".join(
                    f"`{x.name}` is pinned: {x.pinned}" for x in structures
                )
            )
        order = Order(free, importance, self._steps(structures))

        def left(gone):
            return self.measure(structures, order.kept_without(gone))

        wanted = self._wanted(structures, done)
        low, high = 0, len(order)
        if (least := left(high)) > wanted:
            full = self.measure(structures)
            raise ValueError(
                f"`{self}` cannot be reached: with the least that can be left "
                f"of {quoted(x.name for x in free)}, {least:,} of {full:,} "
                f"{self._words} stay, a share of {least / full:.3g}. Ask for "
                f"more{', or a smaller `round_to`' * order.rounds}."
            )
        while low < high:  # left(high) <= wanted
            middle = (low + high) // 2
            if left(middle) <= wanted:
                high = middle
            else:
                low = middle + 1
        return order.kept_without(high)

    def describe(self, structures):
        return (
            f"{self.measure(structures, kept={}):,.0f} {self._words} are left, "
            f"{self._wanted(structures, 1.0):,.0f} asked for"
        )

    def _wanted(self, structures, done):
        """How much is to be left."""
        full = self._full
        if full is None:
            full = self.measure(structures)
        wanted = self.amount * full if self.is_relative else int(self.amount)
        return wanted + (1.0 - done) * (full - wanted)

    @property
    def _words(self):
        """What is counted, in a message."""
        return {"mult_adds": "multiply-adds"}.get(self.kind, self.kind)
