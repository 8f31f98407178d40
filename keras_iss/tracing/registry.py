"""The rules: one function per layer class or `keras.ops` operation."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import overload

import keras

from keras_iss._keras.classes import is_operation_class
from keras_iss._keras.layers import inner_layers
from keras_iss._keras.methods import is_put_there_by_keras

_LAYER_RULES: dict[type, Callable] = {}
_OPERATION_RULES: dict[str, Callable] = {}

# The `call` that a rule was written for.
_CALLS: dict[type, Callable] = {}

# What a subclass may define and still compute what its parent does.
_NO_PART_IN_COMPUTING = {
    "__annotations__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__init__",
    "__module__",
    "__qualname__",
    "__repr__",
    "__static_attributes__",
    "__str__",
    "__weakref__",
    "from_config",
    "get_config",
}

# What decides about the output of a model, but not of a training step.
_CALLS_OF_A_MODEL = {"__call__", "call", "compute_mask"}

# What may be replaced on one layer alone.
_NO_PART_OF_A_CALL = {
    "get_build_config",
    "get_config",
    "load_assets",
    "load_own_variables",
    "save_assets",
    "save_own_variables",
}


@overload
def register_rule(*classes: type) -> Callable[[Callable], Callable]: ...
@overload
def register_rule(*classes: type, like: type) -> None: ...
def register_rule(
    *classes: type, like: type | None = None
) -> Callable[[Callable], Callable] | None:
    """Teaches the tracer a layer (or a recurrent cell) of your own.

    Decorates a function `rule(call, ...)`; or says with `like` which known
    layer a new one computes the same as.

    The further parameters of the function are those of the layer's `call`
    method; every tensor arrives as a `Traced`: a shape, and for each
    dimension an `Axis` of unit labels or `None`. It returns the layer's
    outputs as `Traced`, in the structure that the layer returns them. `call`
    is a `Call`, whose methods say what the layer does with units:

    - `call.units(size, kind)` makes units, and gives their `Axis`;
    - `call.weight(variable, {axis: Axis})` says which units the axes of a
      variable divide; every weight of the layer must be named, by it or by
      `call.bias`, `call.state` or `call.statistic`;
    - `call.tie(axis, axis)` says that two axes must stay equal;
    - `call.pin(tensor, "what it does")` says that units must stay;
    - `call.output({dimension: Axis})` gives the output, labelled;
    - `call.inner(layer, ...)` and `call.child(layer, ...)` trace a layer
      inside this one.

    Units that no output hands on, and that no `call.weight` or
    `call.contract` sums over, stay: the tracer would lose sight of them.

    A rule holds for the class it is registered for, and for subclasses that
    define nothing but a constructor, `get_config` and `from_config`. Any
    other subclass may compute something else: it needs a rule of its own, or
    `like` where it does not.

    Args:
        *classes: `keras.layers.Layer` classes.
        like: Optional `keras.layers.Layer` class with a rule, which all of
            `classes` are subclasses of: they get its rule.

    Returns:
        A decorator; `None` if `like` is given.

    Raises:
        TypeError: if no class is given, one is not a Keras layer or no
            subclass of `like`, or what is decorated is no function.
        ValueError: if `like` has no rule.

    Examples:
        >>> import keras, keras_iss
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.scale = self.add_weight(shape=(shape[-1],))
        ...     def call(self, x):
        ...         return x * self.scale
        >>> @keras_iss.register_rule(Scale)
        ... def scale(call, x):
        ...     call.bias(call.operation.scale, {0: x.axis(-1)})
        ...     return call.output(dict(enumerate(x.axes)))
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     Scale(), keras.layers.Dense(1)])
        >>> keras_iss.find_structures(model)["lstm"].pinned is None
        True

        A layer whose `call` only does what its parent's does, and logs it:

        >>> class Logged(keras.layers.LSTM):
        ...     def call(self, *args, **kwargs):
        ...         print("called")
        ...         return super().call(*args, **kwargs)
        >>> keras_iss.register_rule(Logged, like=keras.layers.LSTM)
    """
    if not classes:
        raise TypeError(
            "`register_rule` takes the layer classes that a rule is for, as in "
            "`@register_rule(MyLayer)`. Received none."
        )
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
            raise TypeError(
                f"`register_rule` takes Keras layer classes. Received: {cls!r}"
            )

    if like is not None:
        _check_like(classes, like)
        _add_rule(classes, _LAYER_RULES[like])
        return None

    def register(rule):
        if not callable(rule):
            raise TypeError(
                "`register_rule(...)` decorates a function `rule(call, ...)`. "
                f"Received: {rule!r} (of type {type(rule).__name__})"
            )
        _add_rule(classes, rule)
        return rule

    return register


def _add_rule(classes, rule):
    for cls in classes:
        _LAYER_RULES[cls] = rule
        _CALLS[cls] = cls.call


def _check_like(classes, like):
    for cls in classes:
        if not (isinstance(like, type) and issubclass(cls, like)):
            raise TypeError(
                f"`like` takes a class that `{cls.__name__}` is a subclass "
                f"of. Received: like={like!r}"
            )
    if like not in _LAYER_RULES:
        raise ValueError(
            f"`like` takes a class with a rule, and `{like.__name__}` has "
            "none. Write one, and decorate it with `register_rule`."
        )


def operation_rule(names):
    """Registers a rule for operations of `keras.ops`.

    Args:
        names: String, the names of their classes, with spaces between.
    """

    def register(rule):
        _OPERATION_RULES.update(dict.fromkeys(names.split(), rule))
        return rule

    return register


def rule_for(operation):
    """The rule for an operation or layer, or `None`."""
    cls = type(operation)
    if isinstance(operation, keras.layers.Layer):
        known = _known_class(cls)
        if known is None or _replaced_methods(operation):
            return None
        if _redefined(cls, known) or _CALLS[known] is not known.call:
            return None
        return _LAYER_RULES[known]
    if is_operation_class(cls):
        return _OPERATION_RULES.get(cls.__name__)
    return None


def has_own_rule(cls):
    """Whether a layer class has a rule, and not its parent's."""
    return cls in _LAYER_RULES


def is_built_in(rule):
    """Whether a rule comes with keras-iss."""
    return (getattr(rule, "__module__", None) or "").startswith("keras_iss.")


def why_no_rule(operation):
    """What messages say of an operation that `rule_for` knows no rule for."""
    if not isinstance(operation, keras.layers.Layer):
        return "has no rule"
    if isinstance(operation, keras.layers.Lambda):
        return (
            "has no rule: its function may do anything with the units. Write "
            "it in `keras.ops`, without the `Lambda`, and it can be followed"
        )
    replaced = _replaced_methods(operation)
    if replaced:
        names = ", ".join(f"`{name}`" for name in replaced)
        return (
            f"has no rule: its {names} was replaced, so that it computes "
            "something else than its class"
        )
    cls = type(operation)
    known = _known_class(cls)
    if known is None:
        return "has no rule (`keras_iss.register_rule` takes one)"
    redefined = ", ".join(f"`{name}`" for name in _redefined(cls, known))
    if not redefined:
        return f"has no rule: the `call` of {known.__name__} was replaced"
    return (
        f"has no rule: it defines {redefined} and may compute something else "
        f"than {known.__name__}. If it does not, "
        f"`keras_iss.register_rule({cls.__name__}, "
        f"like={known.__name__})` says so"
    )


def _known_class(cls):
    """The class that a layer class has its rule from, or might have."""
    return next((known for known in cls.__mro__ if known in _LAYER_RULES), None)


def _redefined(cls, known):
    """What makes a subclass compute something else, for all that is known.

    Rules read what a layer holds: its sizes, weights, activations and cells,
    whatever the constructor puts there. What they take for granted is the
    code of the methods. So nothing may stand between a class and the one that
    the rule is for but constructors and configs, in any class of a multiple
    inheritance.

    Returns:
        Sorted list of names.
    """
    between = set(cls.__mro__) - set(known.__mro__)
    names = {name for parent in between for name in vars(parent)}
    return sorted(names - _NO_PART_IN_COMPUTING)


def _replaced_methods(layer):
    """Names of the methods that were replaced on a layer or inside it."""
    return [
        name for inner in inner_layers(layer) for name in _replaced_on(inner)
    ]


def is_replaced(model):
    """Whether the `call` of a model was replaced, on it alone."""
    return bool(_replaced_on(model))


def _replaced_on(layer):
    methods = _methods(type(layer))
    if isinstance(layer, keras.Model):
        methods = methods & _CALLS_OF_A_MODEL
    return [
        name
        for name in vars(layer)
        if name in methods
        and name not in _NO_PART_OF_A_CALL
        and not is_put_there_by_keras(layer, name)
        # Surgery tells a model of two directions that it gives no mask.
        and not is_built_in(vars(layer)[name])
    ]


@functools.lru_cache(maxsize=1024)
def _methods(cls):
    """The names of the methods of a class."""
    return frozenset(
        name
        for name in dir(cls)
        if isinstance(
            inspect.getattr_static(cls, name, None),
            (types.FunctionType, staticmethod, classmethod),
        )
    )
