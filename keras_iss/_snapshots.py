"""What a model and its optimizer hold, to go back to."""

import keras

from keras_iss._keras.layers import state_of
from keras_iss._keras.optimizer_state import slots


class Snapshot:
    """The values of a model at a moment, in memory.

    With what its optimizer keeps for each weight, but without the number of
    steps that it took: a schedule of the learning rate goes on where it is.

    Args:
        model: A built `keras.Model`.

    Attributes:
        model: The same.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        variables = state_of(model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and optimizer.built:
            variables += [slot for _, slot, _, _ in slots(optimizer)]
        self._values = [
            (variable, keras.ops.convert_to_numpy(variable).copy())
            for variable in variables
        ]

    def restore(self):
        """Gives the model its values of then."""
        for variable, value in self._values:
            variable.assign(value)
