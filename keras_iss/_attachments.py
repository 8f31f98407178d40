"""What a regularizer adds to a model: a term for each structure."""

import weakref

import keras

from keras_iss._group_lasso import GroupLasso
from keras_iss._keras.distribution import distribution_scope
from keras_iss._keras.hidden_states import (
    add_hidden_state,
    remove_hidden_state,
)
from keras_iss._keras.jax_state import is_in_compiled_step, sync_values
from keras_iss._keras.layers import inner_layers, own_variables
from keras_iss.structures.slices import by_variable

STRENGTH = "iss_strength"
"""The name of the variable that holds a strength."""


def strength_variable(model, strength):
    """A variable for a strength, where the model is trained."""
    with distribution_scope(model):
        return keras.Variable(
            strength, dtype="float32", trainable=False, name=STRENGTH
        )


class Attachment:
    """What a regularizer adds to a model: terms, and their strength.

    A compiled step of JAX only sees changes of variables that its model
    knows. The strength stands among the seed generators of the layers that
    hold the terms: their state goes into the steps of every model with such
    a layer, on every backend, and is not saved.

    Args:
        owner: The `ISSRegularizer`.
        model: The model it is for. Nothing is added to it before `put_on`.
        structures: The `Structure`s that get a term.
        strength: `keras.Variable`, the strength.

    Attributes:
        owner: As given.
        model: Weak reference to the model.
        terms: List of `GroupLasso`.
    """

    def __init__(self, owner, model, structures, strength):
        self.owner = owner
        self.model = weakref.ref(model)
        self._strength = strength
        self._other_strength = None
        owners = _owners(model)
        self.terms = [
            GroupLasso(self, structure, owner.overlap, host, owners[id(host)])
            for structure, host in _hosts(structures)
        ]
        layers = {id(term.layer): term.layer for term in self.terms}
        self._layers = list(layers.values())

    @property
    def state(self):
        """`keras.Variable`, the strength that holds at this moment."""
        if self._other_strength is None:
            return self._strength
        return self._other_strength

    def use(self, strength):
        """Has another strength hold, or its own again.

        Args:
            strength: `keras.Variable` or `None`.
        """
        self._other_strength = strength

    def assign(self, strength):
        """Sets its own strength, also in the middle of an epoch."""
        model = self.model()
        sync_values(model)
        if is_in_compiled_step(self._strength):
            raise RuntimeError(
                "The strength cannot be changed in the middle of an epoch of "
                "a model that only shares layers with the one that the "
                "`ISSRegularizer` is attached to: the compiled step of JAX "
                "holds it. Change it between epochs."
            )
        self._strength.assign(strength)

    def put_on(self):
        """Makes the terms the regularizers of their hosts."""
        for layer in self._layers:
            add_hidden_state(layer, self)
        for term in self.terms:
            term.put_on()
        attached = self.owner._attachments  # noqa: SLF001 - kept for it
        attached.add(self)

    def take_off(self):
        """Takes everything off again. Twice does no harm."""
        for term in self.terms:
            term.take_off()
        for layer in self._layers:
            remove_hidden_state(layer, self)
        attached = self.owner._attachments  # noqa: SLF001 - kept for it
        attached.discard(self)


def attachments(model):
    """List of the `Attachment`s that have a term on a model."""
    return [attachment for attachment, _ in terms_of(model)]


def terms_of(model):
    """Pairs of an `Attachment` and those of its terms that a model has."""
    found = {}
    for variable in model.variables:
        term = variable.regularizer
        if isinstance(term, GroupLasso):
            key = id(term.attachment)
            found.setdefault(key, (term.attachment, []))[1].append(term)
    return list(found.values())


def _owners(model):
    """Dict from the `id` of a variable to the layer that owns it."""
    return {
        id(variable): layer
        for layer in inner_layers(model)
        for variable in own_variables(layer)
    }


def _hosts(structures):
    """A variable of each structure to hold its penalty, none of them twice."""
    taken = set()
    hosts = []
    for structure in structures:
        variables = [variable for variable, _ in by_variable(structure.slices)]
        free = [v for v in variables if id(v) not in taken]
        host = next((v for v in free if v.regularizer is None), free[0])
        taken.add(id(host))
        hosts.append((structure, host))
    return hosts
