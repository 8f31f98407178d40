"""Which components stay: for a threshold, for sizes, for a size of the whole.

The only place that decides it. `target_of` makes a `Target` of what a user
asks for; `Target.select` gives what stays, by importance.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_iss._messages import quoted
from keras_iss._ranking import best, rounded_down, rounded_up
from keras_iss._selection_checks import (
    by_structure,
    check_fits,
    check_keep,
    check_threshold,
)
from keras_iss._target import Importances as Importances
from keras_iss._target import Selection as Selection
from keras_iss._target import Target as Target
from keras_iss._totals import COSTS, Cost, Total, check_costs
from keras_iss.structures.values import norms_of, removed_of

_WORDS = ("threshold", "keep", "weights", "units", "mult_adds", *COSTS)


def target_of(
    *, round_to: int | Mapping = 1, costs: Any = None, **asked: Any
) -> Target:
    """What is asked for, checked as far as that needs no model.

    Args:
        round_to: Integer, or dict from the name of a structure to one. The
            sizes that stay are multiples of it.
        costs: `CostTable`, the path of one, or `None`, for `latency_ms` and
            `size_kb`.
        **asked: Exactly one of `threshold`, `keep`, `weights`, `units`,
            `mult_adds`, `latency_ms` and `size_kb` that is not `None`, as in
            `prune`. Those that the caller does not offer to its user are left
            out.

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
    if name in COSTS:
        return Cost(round_to, name, value, costs=check_costs(costs))
    if costs is not None:
        raise ValueError(
            f"`costs` goes with {quoted(COSTS)}. Received: {name}={value!r}"
        )
    if name == "threshold":
        return Threshold(round_to, value)
    if name == "keep":
        return Sizes(round_to, value)
    return Total(round_to, name, value)


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
