"""Proximal group Lasso: an optimizer whose zeros are exact.

    model.compile(
        keras_iss.ProximalISS("adam", strength=1e-3), "mse",
    )
    model.fit(x, y, callbacks=[keras_iss.ISSLogger()])

An `ISSRegularizer` adds a penalty to the loss: a step of the optimizer then
makes components short, but hardly ever zero, and a threshold has to tell which
of them are removed. The proximal step sets them to zero itself.
"""

import warnings
import weakref

import keras
import numpy as np
from keras import ops

from keras_iss._keras.distribution import check_scope
from keras_iss._keras.optimizer_state import step_counter, with_inner
from keras_iss._proximal_step import Components, once_for_all_replicas
from keras_iss.regularizers import (
    attached_regularizers,
    check_strength,
)
from keras_iss.structures.values import frozen
from keras_iss.tracing.find import check_include, find_structures


@keras.saving.register_keras_serializable(package="keras_iss")
class ProximalISS(keras.optimizers.Optimizer):
    r"""Wraps an optimizer; after its update, shortens every component.

    With the learning rate \(\eta\) of the step, a component whose weights are
    \(w\) becomes

        max(0, 1 - eta * strength / |w|) w

    which is the proximal operator of the group Lasso: a component that is no
    longer than `eta * strength` becomes exactly zero, its biases too. All
    others lose `eta * strength` of their norm.

    For plain SGD this is proximal gradient descent on the loss plus `strength`
    times the sum of the group norms. With momentum, Adam and others that
    scale each weight's gradient, the exact step would be one in their metric;
    the one taken here is in the ordinary one, scaled by the learning rate, as
    decoupled weight decay is. What it draws to zero is zero all the same.

    An element that two components own, as the weight from one hidden unit to
    another, is multiplied by the factors of both, which are computed of the
    weights before the step: no closed form exists for groups that overlap. One
    that its component owns twice, by row and column, counts once.

    Keras does not tell an optimizer which model it trains. `keras_iss.fit` and
    the callbacks of keras-iss do, as `ISSLogger`; so a `fit` of Keras needs one
    of these, or `attach(model)` before it, as does a training loop of your own.
    A structure with weights that are not trainable is left alone.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, or its name.
        strength: Float, zero or more, against a Keras loss, which is a mean
            over the batch and the time steps. It may be changed at any time,
            as in `optimizer.strength = 1e-4`.
        include: Tuple of kinds of layers, as in `find_structures`. Defaults
            to `("recurrent",)`.
        name: Optional string.

    Raises:
        TypeError: if `strength` is not a number, or `optimizer` is none.
        ValueError: if `strength` is negative, NaN or infinite, `include`
            names another kind, Keras knows no optimizer of that name, or the
            optimizer is a `ProximalISS` already.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(1)])
        >>> model.compile(keras_iss.ProximalISS("sgd", strength=1000.0), "mse")
        >>> model.optimizer.attach(model)
        >>> history = model.fit(
        ...     np.zeros((4, 5, 3)), np.zeros((4, 1)), verbose=0)
        >>> keras_iss.find_structures(model)["lstm"].alive
        0

    Sources: [Parikh & Boyd, 2014](https://doi.org/10.1561/2400000003),
    section 6.5.1; the group Lasso is that of Yuan & Lin, 2006.
    """

    def __init__(
        self,
        optimizer: str | keras.optimizers.Optimizer,
        strength: float,
        include: tuple[str, ...] = ("recurrent",),
        name: str | None = None,
    ) -> None:
        inner = _optimizer(optimizer)
        if proximal_of(inner) is not None:
            raise ValueError(
                f"The optimizer `{inner.name}` is wrapped in a `ProximalISS` "
                "already: change its `strength` instead."
            )
        if keras.backend.backend() == "jax" and isinstance(
            inner, keras.optimizers.LossScaleOptimizer
        ):
            raise ValueError(
                f"The optimizer `{inner.name}` scales the loss, which Keras "
                "cannot wrap on JAX. Wrap the other way round: "
                "`LossScaleOptimizer(ProximalISS(...))`."
            )
        strength = check_strength(strength)
        check_include(include)
        super().__init__(learning_rate=0.0, name=name)
        self._initial_strength = strength
        self._other_strength = None
        self._set_in = None
        self.inner_optimizer = inner
        self.include = include
        self._groups: Components | None = None
        self._model: weakref.ref[keras.Model] | None = None

    @property
    def strength(self) -> float:
        """Float, what a component loses of its norm, by learning rate."""
        if not self.built:
            return self._initial_strength
        strength = ops.convert_to_numpy(self._strength)
        # As it was given, not as float32 has it.
        given = np.float32(self._initial_strength)
        return self._initial_strength if strength == given else float(strength)

    @strength.setter
    def strength(self, value: float) -> None:
        self._initial_strength = check_strength(value)
        if self.built:
            self._strength.assign(self._initial_strength)

    def use(self, strength):
        """Has another strength hold, or its own again.

        Args:
            strength: `keras.Variable` or `None`.
        """
        # Not through Keras, which would make it a part of what is saved.
        vars(self)["_other_strength"] = strength

    def set_in(self, training):
        """Says in which training a callback sets the strength of the steps.

        Args:
            training: The `params` of the callbacks of that training.
        """
        vars(self)["_set_in"] = training

    def is_set_in(self, training):
        """Whether a callback sets the strength in a training."""
        return training is not None and self._set_in is training

    def attach(self, model: keras.Model) -> None:
        """Says whose structures are meant.

        A training needs it if nothing else of keras-iss takes part: neither
        `keras_iss.fit` nor a callback. It stays with the model.

        Args:
            model: A built `keras.Model`.

        Raises:
            ValueError: if it is not built, has no structure that could lose
                a component, or has an `ISSRegularizer`.
        """
        structures = find_structures(model, self.include)
        if not structures.free:
            reasons = "; ".join(f"`{s.name}`: {s.pinned}" for s in structures)
            raise ValueError(
                f"`{model.name}` has no structure that could lose a "
                f"component. All are pinned: {reasons}."
            )
        check_scope(model)
        if attached_regularizers(model):
            raise ValueError(
                f"`{model.name}` has an `ISSRegularizer` attached, and is "
                "trained with a `ProximalISS`: both would shorten the same "
                "components. `detach` the regularizer, or compile with the "
                "optimizer that is wrapped."
            )
        fixed = left_alone("ProximalISS", structures, model)
        self._groups = Components(
            [
                structure
                for structure in structures.free
                if structure.name not in fixed
            ]
        )

    def will_train(self, model):
        """Says whose structures to find at the first step.

        Nothing changes if they are found already, or by `attach`.

        Args:
            model: A `keras.Model`, which need not be built.
        """
        if self._groups is None:
            self._model = weakref.ref(model)

    def build(self, var_list):
        """Makes the variables of the wrapped optimizer, and the strength."""
        if self.built:
            return
        self._strength = self.add_variable(
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(self._initial_strength),
            name="iss_strength",
        )
        self.inner_optimizer.build(var_list)
        super().build(var_list)

    def apply(self, grads, trainable_variables=None):
        """The update of the wrapped optimizer, then the proximal step."""
        if not self.built:
            self.build(list(trainable_variables))
        if self._groups is None:
            self.attach(self._model_to_train())
        rate = ops.cast(self.inner_optimizer.learning_rate, "float32")
        *_, innermost = with_inner(self.inner_optimizer)
        # A copy: PyTorch changes the tensor in place.
        before = ops.convert_to_tensor(step_counter(innermost)) + 0
        steps = innermost.gradient_accumulation_steps
        if steps:
            updates = ops.equal((before + 1) % steps, 0)
            rate = rate * ops.cast(updates, "float32")
        self.inner_optimizer.apply(grads, trainable_variables)
        # One that scales the loss skips an update whose gradients overflow.
        moved = ops.not_equal(
            ops.convert_to_tensor(step_counter(innermost)), before
        )
        rate = rate * ops.cast(moved, "float32")
        once_for_all_replicas(self._shorten, rate)

    def _model_to_train(self):
        """The model that this was told of, or an error."""
        model = None if self._model is None else self._model()
        if model is None:
            raise RuntimeError(
                f"The optimizer `{self.name}` (`ProximalISS`) does not know "
                "which model it trains. Call `optimizer.attach(model)` before "
                "the first step; or pass one of the callbacks of keras-iss, "
                "such as `keras_iss.ISSLogger()`, to `model.fit`; or train "
                "with `keras_iss.fit`. The step that this ends is half made: "
                "on TensorFlow, compile the model anew with a new optimizer; "
                "on JAX, which loses the weights at an error in a step, make "
                "or load the model anew."
            )
        return model

    def _shorten(self, rate):
        strength = self._other_strength
        if strength is None:
            strength = self._strength
        self._groups.shorten(rate * ops.convert_to_tensor(strength))

    @property
    def variables(self):
        """The strength, and the variables of the wrapped optimizer."""
        own = self._variables
        if self._other_strength is not None:
            own = [
                self._other_strength if v is self._strength else v for v in own
            ]
        return own + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        """That of the wrapped optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        """Those of the wrapped optimizer."""
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        """As the wrapped optimizer scales it."""
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Puts averages of the weights in place; what is removed stays so.

        Warns if nothing is left of a structure.
        """
        alive = None if self._groups is None else self._groups.alive()
        self.inner_optimizer.finalize_variable_values(var_list)
        if alive is not None:
            self._groups.scale(alive)
            self._groups.warn_of_removed_structures(alive)

    def get_config(self) -> dict:
        """What the constructor takes."""
        include = self.include
        return {
            "name": self.name,
            "optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "strength": self.strength,
            "include": [include] if isinstance(include, str) else list(include),
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> "ProximalISS":
        """The optimizer that a config describes."""
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(
            config.pop("optimizer"), custom_objects=custom_objects
        )
        return cls(inner, **config)


def _optimizer(optimizer):
    """The Keras optimizer that an argument stands for, or an error."""
    expected = (
        '`optimizer` must be a Keras optimizer, such as `"adam"` or '
        f"`keras.optimizers.Adam()`. Received: {optimizer!r} (of type "
        f"{type(optimizer).__name__})"
    )
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    if not isinstance(optimizer, (str, dict)):
        raise TypeError(expected)
    try:
        return keras.optimizers.get(optimizer)
    except Exception as error:
        raise ValueError(expected) from error


def left_alone(name, structures, model):
    """Warns of the free structures with weights that are not trained.

    Args:
        name: String, who leaves them alone.
        structures: `Structures`.
        model: The model they are of.

    Returns:
        Dict from structure to the path of such a weight.
    """
    found = frozen(structures.free, model)
    for structure, path in found.items():
        warnings.warn(
            f"`{name}` leaves `{structure}` alone: of its weights, `{path}` "
            "is not trainable.",
            stacklevel=3,
        )
    return found


def proximal_of(optimizer):
    """The `ProximalISS` among an optimizer and those it wraps, or `None`."""
    found = (x for x in with_inner(optimizer) if isinstance(x, ProximalISS))
    return next(found, None)


def tell_optimizer(model):
    """Tells the `ProximalISS` of a model, if it has one, whom it trains.

    Args:
        model: A `keras.Model`, compiled or not, built or not.
    """
    proximal = proximal_of(getattr(model, "optimizer", None))
    if proximal is not None:
        proximal.will_train(model)
