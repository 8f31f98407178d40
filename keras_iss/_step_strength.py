"""The strength of a penalty in the train steps of one training, only there."""

import numpy as np

from keras_iss._attachments import Attachment, attachments, strength_variable
from keras_iss._keras.step_functions import AnnouncedStep
from keras_iss.optimizers import proximal_of
from keras_iss.regularizers import ISSRegularizer


class StepStrength:
    """A strength that the train steps of a training have, and nothing else.

    It is that of the `ProximalISS` that the model is trained with, else that
    of the `ISSRegularizer`s attached to it, else that of a penalty of its own.
    Between the steps, the model is as the user gave it: nothing is left of
    this where a training is interrupted, which calls no callback.

    Args:
        model: A compiled `keras.Model`.
        structures: Iterable of `Structure`, what a penalty of its own is on.
        strength: Float, that of the next step.

    Attributes:
        is_own: Boolean, whether the penalty is one of its own.
        is_proximal: Boolean, whether it is that of a `ProximalISS`.
    """

    def __init__(self, model, structures, strength):
        self._model = model
        self._variable = strength_variable(model, strength)
        self._strength = strength
        proximal = proximal_of(getattr(model, "optimizer", None))
        self.is_proximal = proximal is not None
        self._users = [proximal] if self.is_proximal else attachments(model)
        self.is_own = not self._users
        self._own = None
        if self.is_own:
            self._own = Attachment(
                ISSRegularizer(0.0), model, structures, self._variable
            )
        self._step = AnnouncedStep(model, scope=self)

    @property
    def strength(self):
        """Float, the strength that the next step has."""
        return self._strength

    @strength.setter
    def strength(self, strength):
        self._strength = strength
        self._variable.assign(strength)

    def announce(self):
        """Has the strength hold for the next train step of `fit`.

        Without a penalty of its own where that is zero, unless a step with it
        is compiled already.
        """
        if self._strength or not self.is_own or self._step.is_made:
            self._step.announce()

    def withdraw(self):
        """Ends it, also where the step that was announced never came.

        Returns:
            Boolean, whether it came.
        """
        self._step.withdraw()
        return self._step.taken

    def during(self, function):
        """Has the strength hold while a function runs, and gives its result."""
        try:
            self.enter()
            return function()
        finally:
            try:
                self.leave()
            finally:
                # An interrupt may have come in the first.
                self.leave()

    def enter(self):
        """Has the strength hold."""
        for user in self._users:
            user.use(self._variable)
        if self._own is not None:
            self._own.put_on()

    def leave(self):
        """Gives the model back what it had. Twice does no harm."""
        for user in self._users:
            user.use(None)
        if self._own is not None:
            self._own.take_off()

    def values(self):
        """The values of the variables that only a step has."""
        return {id(self._variable): np.float32(self._strength)}
