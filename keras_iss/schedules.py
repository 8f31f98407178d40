"""When how much is removed, and how strong the penalty is meanwhile.

A schedule says which part of what has to go is gone after how many epochs. A
strength rule says which strength the penalty has in the train steps to come:
`PressureRule` for a penalty that is a part of the loss, `ProximalRule` for the
steps of a `ProximalISS`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_iss._checks import check_count
from keras_iss.optimizers import ProximalISS
from keras_iss.selection import Target
from keras_iss.structures import Structures
from keras_iss.structures.values import norms_of, removed_of

PROXIMAL_SHARE = 0.3
"""What a `ProximalISS` takes off a mean component until the target is met."""


@dataclasses.dataclass(frozen=True)
class EqualSteps:
    """Removals in equal steps, one at the end of each epoch.

    Attributes:
        from_epoch: Integer, the number of epochs before the first step.
        by_epoch: Integer, the number of epochs at whose end all is done.
    """

    from_epoch: int
    by_epoch: int

    def done(self, epochs: float) -> float:
        """The part that is removed after so many epochs, from 0 to 1.

        Args:
            epochs: Float, epochs that are over, those of a training before
                this one included.
        """
        steps = max(epochs - self.from_epoch, 0.0)
        return min(steps / (self.by_epoch - self.from_epoch), 1.0)

    def is_finished(self, epochs: float) -> bool:
        """Whether all is removed after so many epochs."""
        return epochs >= self.by_epoch


def check_epochs(
    from_epoch: Any, by_epoch: Any
) -> tuple[int | None, int | None]:
    """When a user wants removals to begin and to end, as integers or `None`.

    Raises:
        TypeError: if one is no integer.
        ValueError: if one is too small, or they are in the wrong order.
    """

    def checked(value, name, least):
        if value is None:
            return None
        return check_count(value, name, least, "epochs")

    first = checked(from_epoch, "from_epoch", 0)
    last = checked(by_epoch, "by_epoch", 1)
    if first is not None and last is not None and first >= last:
        raise ValueError(
            "`from_epoch` must be less than `by_epoch`. Received: "
            f"from_epoch={from_epoch}, by_epoch={by_epoch}"
        )
    return first, last


def equal_steps(
    from_epoch: int | None, by_epoch: int | None, begin: int, epochs: int
) -> EqualSteps:
    """The schedule of a training.

    Args:
        from_epoch: As a user gave it, or `None`: half of what is left up to
            `by_epoch`, rounded down.
        by_epoch: As a user gave it, or `None`: half of the training, rounded
            up.
        begin: Integer, the number of epochs before the first that counts.
        epochs: Integer, the number of epochs at whose end the training is.

    Raises:
        ValueError: if the training ends before, or there is no time between
            the two.
    """
    last = by_epoch or begin + math.ceil((epochs - begin) / 2)
    first = from_epoch
    if first is None:
        begin = min(begin, last - 1)
        first = begin + (last - begin) // 2
    if last > epochs:
        raise ValueError(
            f"`by_epoch` is {last}, but the training ends after epoch "
            f"{epochs}: the size would not be met. Train longer, or ask for "
            "it earlier."
        )
    if first >= last:
        raise ValueError(
            f"`from_epoch` is {first}, but the size is to be met by epoch "
            f"{last}. Start earlier, or give `by_epoch`."
        )
    return EqualSteps(first, last)


class PressureRule:
    """The penalty is a part of the loss: a light one, until all is removed.

    Args:
        pressure: Float, what the penalty is of the loss.
        schedule: `EqualSteps`.
    """

    def __init__(self, pressure: float, schedule: EqualSteps):
        self._pressure = pressure
        self._schedule = schedule
        self._strengths: list[float] = []
        self._norms_at_first: float | None = None

    def begin_training(self, structures: Structures, epochs: int) -> None:
        """No loss is known yet: the first batch will tell it.

        Args:
            structures: `Structures`.
            epochs: Integer, the epochs that are over.
        """
        if self._pressure and not self._schedule.is_finished(epochs):
            self._norms_at_first = float(alive_norms(structures).sum())

    def begin_epoch(self):
        """An epoch begins."""
        self._strengths = []

    def after_batch(
        self, strength: float, logs: Mapping[str, Any]
    ) -> float | None:
        """The strength for the batches to come, or `None`: that it was.

        Args:
            strength: Float, that of the batch.
            logs: Dict, the logs of the batch.
        """
        self._strengths.append(strength)
        if not self._norms_at_first:
            return None
        norms, self._norms_at_first = self._norms_at_first, None
        new = self._pressure * abs(float(logs.get("loss") or 0.0)) / norms
        return new if math.isfinite(new) else None

    def after_epoch(
        self,
        strength: float,
        logs: Mapping[str, Any],
        structures: Structures,
        target: Target,
        epochs: int,
    ) -> float:
        """The strength for the next epoch.

        Args:
            strength: Float, that of the last batch.
            logs: Dict, the logs of the epoch.
            structures: `Structures` at its end.
            target: `Target`, what is asked for.
            epochs: Integer, the epochs that are over.
        """
        norms = float(alive_norms(structures).sum())
        if self._schedule.is_finished(epochs) or not _is_positive(norms):
            return 0.0
        loss = logs.get("loss")
        if loss is None or not math.isfinite(loss):
            return strength
        # The first batch of all has no penalty.
        without = abs(loss - np.mean(self._strengths or [0.0]) * norms)
        return float(self._pressure * without / norms)


class ProximalRule:
    """What a component of mean norm would lose until all is removed.

    As little, too, that the step does not remove what is to stay.

    Args:
        optimizer: `ProximalISS`.
        pressure: Float. If zero, no strength at all.
        schedule: `EqualSteps`.
    """

    def __init__(
        self, optimizer: ProximalISS, pressure: float, schedule: EqualSteps
    ):
        self._optimizer = optimizer
        self._pressure = pressure
        self._schedule = schedule
        self._updates = self._iterations()

    def begin_training(self, structures, epochs):
        """See `PressureRule`. No rate is known yet."""

    def begin_epoch(self):
        """See `PressureRule`."""
        self._updates = self._iterations()

    def after_batch(self, strength, logs):
        """See `PressureRule`."""
        return None

    def after_epoch(self, strength, logs, structures, target, epochs):
        """See `PressureRule`."""
        norms = alive_norms(structures)
        if (
            not self._pressure
            or self._schedule.is_finished(epochs)
            or not _is_positive(norms.sum())
            # The steps alone have removed what is soon to go.
            or target.is_met(
                structures, 0.2 + 0.8 * self._schedule.done(epochs)
            )
        ):
            return 0.0
        rate = float(ops.convert_to_numpy(self._optimizer.learning_rate))
        # What the steps of an epoch take off a component of strength 1.
        length = rate * (self._iterations() - self._updates)
        if not length:
            return 0.0
        kept = target.select(structures, done=self._schedule.done(epochs + 1))
        least = min(
            structures[x].norms()[stays].min() for x, stays in kept.items()
        )
        wanted = PROXIMAL_SHARE * norms.mean() / self._schedule.by_epoch
        return float(min(wanted, 0.5 * least) / length)

    def _iterations(self):
        return int(ops.convert_to_numpy(self._optimizer.iterations))


def alive_norms(structures: Structures) -> np.ndarray:
    """The group norms of all the components that are not removed."""
    free = structures.free
    norms, removed = norms_of(free), removed_of(free)
    return np.concatenate([norms[x.name][~removed[x.name]] for x in free])


def _is_positive(norms):
    return 0.0 < norms < math.inf
