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

import functools
import weakref
from typing import Any, NoReturn

import keras

from keras_iss._attachments import (
    Attachment,
    attachments,
    strength_variable,
    terms_of,
)
from keras_iss._checks import check_amount, check_model
from keras_iss._keras.distribution import check_scope
from keras_iss.structures.values import check_finite, check_overlap
from keras_iss.tracing.find import check_include, find_structures


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

    @functools.cache
    def free_in_new(include):
        return find_structures(new, include).free

    for attachment, terms in terms_of(old):
        owner = attachment.owner
        wanted = [
            places(term.structure, lambda v: variables.get(id(v)))
            for term in terms
        ]
        chosen = [
            structure
            for structure in free_in_new(check_include(owner.include))
            if any(places(structure) >= had for had in wanted)
        ]
        if chosen:
            owner._put_on(new, chosen)  # noqa: SLF001 - of this module


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
