"""Group Lasso over structures: the penalty that makes components removable.

Examples:
    >>> import keras, keras_iss
    >>> model = keras.Sequential([
    ...     keras.Input((None, 16)),
    ...     keras.layers.LSTM(8),
    ...     keras.layers.Dense(4),
    ... ])
    >>> keras_iss.ISSRegularizer(1e-4).attach(model)
    >>> model.compile("adam", "mse")
    >>> len(model.losses)
    1
"""

import weakref
from typing import Any, NoReturn

import keras
import numpy as np

from keras_iss._checks import check_amount, check_model
from keras_iss._keras.distribution import check_scope, distribution_scope
from keras_iss._keras.hidden_states import (
    add_hidden_state,
    remove_hidden_state,
)
from keras_iss._keras.jax_state import is_in_compiled_step, sync_values
from keras_iss._keras.layers import inner_layers, own_variables
from keras_iss._norms import Groups, along_axis
from keras_iss.structures.slices import by_variable
from keras_iss.structures.values import check_finite, check_overlap
from keras_iss.tracing.find import check_include, find_structures

STRENGTH = "iss_strength"
"""The name of the variable that holds a strength."""

EPSILON = 1e-8
"""Added under the root, as in the paper's code: the root of 0 has no slope."""


@keras.saving.register_keras_serializable(package="keras_iss")
class ISSRegularizer(keras.regularizers.Regularizer):
    """The group Lasso of the paper, over all the structures of a model.

    Adds to the model's loss

        strength * sum over structures and components of the group norm

    where the group norm is the root of the sum of squares of all the
    weights that one hidden unit owns, in every layer, plus 1e-8. Biases are
    left out. Components that the task does not need are drawn to zero as a
    whole, and can then be pruned and cut out.

    `strength` is measured against a Keras loss, which is a mean over the
    batch and the time steps. The paper's code sums over the 35 time steps:
    its lambda of 0.00245 is a `strength` of 0.00007.

    One regularizer can be attached to several models. `shrink` attaches those
    of a model to the smaller one.

    Args:
        strength: Float, zero or more. It may be changed at any time, as in
            `regularizer.strength = 1e-5`, and acts from the next training
            step on, without compiling anew.
        include: Tuple of kinds of layers, as in `find_structures`. Defaults
            to `("recurrent",)`.
        overlap: `"count_twice"` (default) counts an element that lies both in
            a row and in a column of its component in both, as the paper's
            code does; `"once"` counts it once.

    Raises:
        TypeError: if `strength` is not a number.
        ValueError: if `strength` is negative, NaN or infinite, or `overlap`
            is neither of the two.

    Examples:
        >>> import keras, keras_iss
        >>> model = keras.Sequential([
        ...     keras.Input((None, 16)),
        ...     keras.layers.LSTM(8),
        ...     keras.layers.Dense(4),
        ... ])
        >>> regularizer = keras_iss.ISSRegularizer(1e-4)
        >>> regularizer.attach(model)
        >>> regularizer.strength = 2e-4

    Source: Wen et al., "Learning Intrinsic Sparse Structures within Long
    Short-Term Memory", ICLR 2018, equations 3 to 5.
    """

    def __init__(
        self,
        strength: float,
        include: tuple[str, ...] = ("recurrent",),
        overlap: str = "count_twice",
    ) -> None:
        check_overlap(overlap)
        check_include(include)
        self._strength = check_strength(strength)
        self.include = include
        self.overlap = overlap
        self._attachments: weakref.WeakSet[Attachment] = weakref.WeakSet()

    @property
    def strength(self) -> float:
        """Float, what the sum of group norms is multiplied by."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = check_strength(value)
        for attachment in self._attachments:
            attachment.assign(self._strength)

    def attach(self, model: keras.Model) -> None:
        """Adds the penalty to `model.losses`.

        Before or after `compile`, and before or after `fit`: a training step
        that is compiled already is made anew. The penalty of a structure is
        held by the first variable of its layer, as that variable's
        `regularizer`; a layer that is frozen takes its own out of the loss.
        It is not saved with the model, so a file loads without keras-iss.

        Attach to the model that is trained: another one that shares the
        layers has the penalty too, but its training step, if compiled
        already, is not made anew.

        Args:
            model: A built `keras.Model`.

        Raises:
            ValueError: if the model is not built, has no structure that is
                not pinned, has a penalty already, has NaN or infinite weights,
                or weights made outside the scope of the strategy it is trained
                with. The model is left as it was.
        """
        structures = find_structures(model, self.include)
        attached = attached_regularizers(model)
        if attached:
            raise ValueError(
                f"`{model.name}` already has an `ISSRegularizer` of strength "
                f"{attached[0].strength}. Change its `strength`, or `detach` "
                "it first."
            )
        if not structures.free:
            reasons = "; ".join(f"`{s.name}`: {s.pinned}" for s in structures)
            raise ValueError(
                f"`{model.name}` has no structure that could lose a "
                f"component. All are pinned: {reasons}."
            )
        check_finite(structures)
        check_scope(model)
        self._put_on(model, structures.free)

    def _put_on(self, model, structures):
        state = strength_variable(model, self._strength)
        attachment = Attachment(self, model, structures, state)
        try:
            attachment.put_on()
            _remake_steps(model)
        except BaseException:
            attachment.take_off()
            raise

    def detach(self, model: keras.Model) -> None:
        """Takes the penalty off `model.losses`.

        All of what one call of `attach` put on, also where another model
        shares only some of the layers.

        Args:
            model: The model it was attached to.

        Raises:
            TypeError: if `model` is no Keras model.
            ValueError: if it is not attached to this model.
        """
        check_model(model, "model")
        if self not in attached_regularizers(model):
            raise ValueError(
                f"This `ISSRegularizer` is not attached to `{model.name}`."
            )
        models = [model]
        for attachment in attachments(model):
            if attachment.owner is self:
                attachment.take_off()
                models.append(attachment.model())
        left = {id(model): model for model in models if model is not None}
        for model in left.values():
            _remake_steps(model)

    def __reduce__(self):
        # A copy is attached to nothing.
        return type(self).from_config, (self.get_config(),)

    def __call__(self, x: Any) -> NoReturn:
        raise TypeError(
            "`ISSRegularizer` is not a regularizer of one variable: its "
            "groups go through several layers. Build the model without it, "
            "then call `ISSRegularizer(strength).attach(model)`."
        )

    def get_config(self) -> dict:
        return {
            "strength": self.strength,
            "include": list(
                [self.include]
                if isinstance(self.include, str)
                else self.include
            ),
            "overlap": self.overlap,
        }


def attached_regularizers(model):
    """List of the `ISSRegularizer`s that are attached to a model."""
    owners = [attachment.owner for attachment in attachments(model)]
    return list({id(owner): owner for owner in owners}.values())


def attachments(model):
    """List of the `Attachment`s that have a term on a model."""
    return [attachment for attachment, _ in _terms(model)]


def carry_penalties(old, new, variables):
    """Attaches the regularizers of a model to a smaller one.

    Each to the structures that it had there: it may have been attached to a
    model inside this one.

    Args:
        old: The model.
        new: The smaller one.
        variables: Dict from the `id` of an old variable to the new one.
    """

    def places(structure, new_of=lambda variable: variable):
        return {
            (id(new_of(part.variable)), part.axis) for part in structure.slices
        }

    for attachment, terms in _terms(old):
        owner = attachment.owner
        wanted = [
            places(term.structure, lambda v: variables.get(id(v)))
            for term in terms
        ]
        chosen = [
            structure
            for structure in find_structures(new, owner.include).free
            if any(places(structure) >= had for had in wanted)
        ]
        if chosen:
            owner._put_on(new, chosen)  # noqa: SLF001 - of this module


def _terms(model):
    """Pairs of an `Attachment` and those of its terms that a model has."""
    found = {}
    for variable in model.variables:
        term = variable.regularizer
        if isinstance(term, _GroupLasso):
            key = id(term.attachment)
            found.setdefault(key, (term.attachment, []))[1].append(term)
    return list(found.values())


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
        terms: List of `_GroupLasso`.
    """

    def __init__(self, owner, model, structures, strength):
        self.owner = owner
        self.model = weakref.ref(model)
        self._strength = strength
        self._other_strength = None
        owners = _owners(model)
        self.terms = [
            _GroupLasso(self, structure, owner.overlap, host, owners[id(host)])
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
        attached = self.owner._attachments  # noqa: SLF001 - of this module
        attached.add(self)

    def take_off(self):
        """Takes everything off again. Twice does no harm."""
        for term in self.terms:
            term.take_off()
        for layer in self._layers:
            remove_hidden_state(layer, self)
        attached = self.owner._attachments  # noqa: SLF001 - of this module
        attached.discard(self)


class _GroupLasso(keras.regularizers.Regularizer):
    """The penalty of one structure, as the regularizer of its host.

    Args:
        attachment: `Attachment`, which holds the strength.
        structure: `Structure`.
        overlap: `"count_twice"` or `"once"`.
        host: The variable that is to hold it.
        layer: The layer that owns the host.
    """

    def __init__(self, attachment, structure, overlap, host, layer):
        self.attachment = attachment
        self.structure = structure
        self.host = host
        self.layer = layer
        self.other = None
        self._variables, parts = zip(*by_variable(structure.slices))
        self._sum_of_norms = _sum_of_norms(parts, overlap)

    def put_on(self):
        """Makes it the regularizer of its host, beside the one there was."""
        if self.host.regularizer is not self:
            self.other = self.host.regularizer
            self.host.regularizer = self

    def take_off(self):
        """Gives the host back what it had. Twice does no harm."""
        if self.host.regularizer is self:
            self.host.regularizer = self.other

    def __call__(self, x):
        # Read out here: TensorFlow wants no variable where gradients are
        # written out.
        values = [keras.ops.reshape(v, v.shape) for v in self._variables]
        penalty = self.attachment.state * self._sum_of_norms(*values)
        if self.other is None:
            return penalty
        return penalty + keras.ops.cast(self.other(x), penalty.dtype)


def _sum_of_norms(parts, overlap):
    """The sum of the group norms of a structure, of its weights' values.

    The gradient is written out: each weight times one number for its row and
    one for its column. Left to the backend, it takes several passes over all
    the weights more.

    Args:
        parts: For each variable, a list of its slices.
        overlap: `"count_twice"` or `"once"`.

    Returns:
        Function from the values of the variables to a float32 scalar.
    """
    ops = keras.ops
    groups = Groups(parts, overlap)

    def slope(value, inverse, group, owners, masks):
        factor = 0.0
        for part, owner, mask in zip(group, owners, masks):
            along = along_axis(inverse, part, owner)
            if mask is not None:
                along = along * ops.cast(np.logical_not(mask), "float32")
            factor = factor + along
        return ops.cast(ops.cast(value, "float32") * factor, value.dtype)

    @ops.custom_gradient
    def sum_of_norms(*values):
        norms = ops.sqrt(groups.squared_norms(values) + EPSILON)

        def gradient(*args, upstream=None):
            upstream = args[-1] if upstream is None else upstream
            inverse = ops.pad(upstream / norms, [[0, 1]])
            slopes = [
                slope(value, inverse, *rest)
                for value, *rest in zip(
                    values, groups.parts, groups.owners, groups.repeated
                )
            ]
            return tuple(slopes) if len(slopes) > 1 else slopes[0]

        return ops.sum(norms), gradient

    return sum_of_norms


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


def _remake_steps(model):
    """Makes anew the compiled steps, which hold the loss as it was."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)
    if getattr(model, "test_function", None) is not None:
        model.make_test_function(force=True)


def check_strength(strength):
    """A strength as a float, or an error. See `check_amount`."""
    return check_amount(
        strength, "strength", "a negative one would make components grow"
    )
