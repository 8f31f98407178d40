"""The structures of a model that is trained, found once for each size."""

from keras_iss.tracing.find import find_structures


class KnownStructures:
    """The structures of the model of the moment.

    A train step changes weights, and not what the layers are: structures hold
    until another model is trained. What cuts a model looks anew all the same.

    Args:
        include: Tuple of kinds of layers, as in `find_structures`.
        model: A `keras.Model`.
        structures: Its `Structures`, or `None` if they are not known yet.

    Attributes:
        include: As given.
    """

    def __init__(self, include, model, structures):
        self.include = include
        self._model = model
        self._structures = structures

    def of(self, model):
        """The `Structures` of a built model."""
        if self._structures is None or model is not self._model:
            self._model = model
            self._structures = find_structures(model, self.include)
        return self._structures
