"""Targets of a model as a whole: over all of its structures at once."""

import dataclasses
import math
import numbers
import os
from typing import Any

from keras_iss._checks import number
from keras_iss._messages import quoted
from keras_iss._ranking import Order
from keras_iss._selection_checks import check_share
from keras_iss._target import Selection, Target
from keras_iss.costs.shapes import sizes_of
from keras_iss.costs.table import CostTable
from keras_iss.structures import Structures

COSTS = ("latency_ms", "size_kb")
"""Words for what a model costs on a device."""


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
    ) -> float:
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
                f"`of` has {self._shown(self._full)}, fewer than the model "
                f"that is trained: {self._shown(size)}. Give the model at "
                "full size."
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

        def measure(kept):
            return self.measure(structures, kept)

        def left(gone):
            return measure(order.kept_without(gone))

        wanted = self._wanted(structures, done)
        low, high = 0, len(order)
        if (least := left(high)) > wanted:
            full = self.measure(structures)
            raise ValueError(
                f"`{self}` cannot be reached: with the least that can be left "
                f"of {quoted(x.name for x in free)}, {self._shown(least)} of "
                f"{self._shown(full)} stay, a share of {least / full:.3g}. Ask "
                f"for more{', or a smaller `round_to`' * order.rounds}."
            )
        while low < high:  # left(high) <= wanted
            middle = (low + high) // 2
            if left(middle) <= wanted:
                high = middle
            else:
                low = middle + 1
        return self._kept(order, high, lambda x: measure(x) <= wanted)

    def _kept(self, order, count, fits):
        """What stays if so many blocks go."""
        return order.kept_without(count)

    def describe(self, structures):
        return (
            f"{self._shown(self.measure(structures, kept={}))} are left, "
            f"{self._shown(self._wanted(structures, 1.0))} asked for"
        )

    def _wanted(self, structures, done):
        """How much is to be left."""
        full = self._full
        if full is None:
            full = self.measure(structures)
        wanted = self.amount * full if self.is_relative else int(self.amount)
        return wanted + (1.0 - done) * (full - wanted)

    def _shown(self, value):
        """How much it is, in a message."""
        words = {"mult_adds": "multiply-adds"}.get(self.kind, self.kind)
        return f"{value:,.0f} {words}"


@dataclasses.dataclass(frozen=True)
class Cost(Total):
    """Milliseconds of a call, or the kilobytes of the exported file.

    Attributes:
        kind: `"latency_ms"` or `"size_kb"`.
        amount: Float, how many there may be at most.
        costs: `CostTable`, which tells them, or `None` before one is known.
    """

    costs: CostTable | None = None

    def __post_init__(self):
        Target.__post_init__(self)
        object.__setattr__(self, "amount", _check_cost(self.amount, self.kind))
        if self.kind == "latency_ms" and self.costs is not None:
            self.costs.check_timed()

    @property
    def is_relative(self):
        return False

    def measure(self, structures, kept=None):
        assert self.costs is not None  # `with_costs` comes first.
        tell = getattr(self.costs, self.kind)
        return tell(sizes_of(structures, kept))

    def with_costs(self, costs: CostTable) -> "Cost":
        """The same, with what tells how much a model costs."""
        return dataclasses.replace(self, costs=costs)

    def check(self, structures):
        known = self.costs.sizes if self.costs else {}
        for structure in structures.free:
            if structure.name not in known:
                raise ValueError(
                    f"The costs are of a model with the structures "
                    f"{quoted(known)}, and `{structure.name}` is none of "
                    "them. Measure those of this model, with the same "
                    "`include`."
                )
            if structure.size > known[structure.name]:
                raise ValueError(
                    f"The costs are of a model with {known[structure.name]} "
                    f"components in `{structure.name}`, and this one has "
                    f"{structure.size}. Measure them at full size."
                )
        super().check(structures)

    def _steps(self, structures):
        steps = super()._steps(structures)
        if self.kind == "latency_ms" and self.costs is not None:
            # Of others than what was measured, less is known, and they are
            # slower.
            step = self.costs.round_to
            steps = {name: math.lcm(x, step) for name, x in steps.items()}
        return steps

    def _kept(self, order, count, fits):
        # A block may cost much: what is asked for is to be used.
        return order.kept_as_fits(count, fits)

    def _wanted(self, structures, done):
        full = self._full
        if full is None:
            full = self.measure(structures)
        return self.amount + (1.0 - done) * max(full - self.amount, 0.0)

    def _shown(self, value):
        return f"{value:,.3g} {'ms' if self.kind == 'latency_ms' else 'kB'}"


def check_costs(costs: Any) -> CostTable | None:
    """A table of costs, from one or from the path of one; or an error."""
    if costs is None or isinstance(costs, CostTable):
        return costs
    if isinstance(costs, (str, os.PathLike)):
        return CostTable.load(costs)
    raise TypeError(
        "`costs` must be a `CostTable`, as `keras_iss.measure_costs` makes "
        f"one, or the path of one. Received: {costs!r} (of type "
        f"{type(costs).__name__})"
    )


def _check_cost(value, name):
    meaning = {
        "latency_ms": "milliseconds that a call may take",
        "size_kb": "thousands of bytes that the exported file may take",
    }[name]
    value = number(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number, the {meaning}. Received: {value!r} "
            f"(of type {type(value).__name__})"
        )
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"`{name}` must be above zero and finite, the {meaning}. "
            f"Received: {value}"
        )
    return float(value)
