"""The strength of the penalty through one training, in models of any size."""

import warnings

from keras_iss._step_strength import StepStrength
from keras_iss.optimizers import proximal_of
from keras_iss.schedules import PressureRule, ProximalRule
from keras_iss.structures.values import is_finite


class StrengthControl:
    """Sets the strength of the penalty, batch by batch and epoch by epoch.

    Args:
        pressure: Float, what the penalty is of the loss. If zero, there is no
            penalty of its own.

    Attributes:
        strength: Float, the strength in the train steps to come.
    """

    def __init__(self, pressure):
        self.strength = 0.0
        self._pressure = pressure
        self._has_begun = False
        self._step = None
        self._rule = None
        self._has_warned = False

    def begin_epoch(self, model, structures, schedule, epochs):
        """Before an epoch; the first of a model takes hold of it.

        Args:
            model: The `keras.Model` that is trained.
            structures: Its `Structures`.
            schedule: A schedule, as `EqualSteps`.
            epochs: Integer, the epochs that are over.
        """
        if self._step is None:
            self._take(model, structures, schedule, epochs)
        if self._rule is not None:
            self._rule.begin_epoch()

    def _take(self, model, structures, schedule, epochs):
        step = StepStrength(model, structures.free, self.strength)
        if step.is_own and not self._pressure:
            return
        self._step = step
        if (proximal := proximal_of(model.optimizer)) is None:
            self._rule = PressureRule(self._pressure, schedule)
        else:
            self._rule = ProximalRule(proximal, self._pressure, schedule)
        if not self._has_begun:
            self._has_begun = True
            self._set(0.0)
            self._rule.begin_training(structures, epochs)

    def end_model(self):
        """The training ends, or goes on with another model."""
        self._step = self._rule = None

    def begin_batch(self):
        """Has the strength hold in the next train step."""
        if self._step is not None:
            self._step.announce()

    def end_batch(self, logs):
        """Reads what a train step gave.

        Args:
            logs: Dict, the logs of the batch.
        """
        if self._step is None:
            return
        if not self._step.withdraw():
            self._warn_of_own_loop()
        new = self._rule.after_batch(self.strength, logs)
        if new is not None:
            self._set(new)

    def end_epoch(self, logs, structures, target, epochs):
        """Sets the strength for the next epoch.

        Args:
            logs: Dict, the logs of the epoch.
            structures: `Structures` at its end.
            target: `Target`, what is asked for.
            epochs: Integer, the epochs that are over.
        """
        if self._step is not None and is_finite(structures):
            self._set(
                self._rule.after_epoch(
                    self.strength, logs, structures, target, epochs
                )
            )

    def during(self, function):
        """Has the strength hold while a function runs, and gives its result."""
        if self._step is None:
            return function()
        return self._step.during(function)

    def _set(self, strength):
        self.strength = strength
        self._step.strength = strength

    def _warn_of_own_loop(self):
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "`ISSBudget` sets the strength of the penalty in the train "
                "steps of `fit`, and this one was taken by something else: it "
                "had no penalty, or that of the `ISSRegularizer` or "
                "`ProximalISS` that you gave. In a training loop of your own, "
                "use one of these, and set its `strength`.",
                stacklevel=3,
            )
