"""Scopes in which variables are made and configs are read."""

import contextlib
import inspect

import keras

from keras_iss._keras.layers import inner_layers
from keras_iss._optimizer_state import with_inner


def distribution_scope(model):
    """The scope of the strategy that a TensorFlow model is trained with."""
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def check_scope(model):
    """Raises where Keras would fail in the middle of a step, with no message.

    Args:
        model: A built model, which need not be one of TensorFlow.

    Raises:
        ValueError: if weights were made outside the scope of the strategy
            that the model is trained with.
    """
    strategies = [
        getattr(model, "distribute_strategy", None),
        *(
            getattr(one, "_distribution_strategy", None)
            for one in with_inner(getattr(model, "optimizer", None))
        ),
    ]
    for strategy in strategies:
        if strategy is None or strategy.num_replicas_in_sync == 1:
            continue
        for variable in model.variables:
            made = getattr(variable._value, "distribute_strategy", None)
            if made is not strategy:
                raise ValueError(
                    f"`{variable.path}` of `{model.name}` was made outside "
                    f"the scope of the {type(strategy).__name__} that the "
                    "model is trained with. Build it, and compile it, in "
                    "`with strategy.scope():`."
                )


def known_objects(model):
    """A scope in which configs find the classes and functions of a model.

    They need not be registered with Keras.
    """
    return keras.saving.custom_object_scope(own_objects(model))


def own_objects(model):
    """Dict from name to class or function of one's own in a model."""
    known = {}
    for holder in _holders(model):
        for value in (holder, *vars(holder).values()):
            for one in value if isinstance(value, (list, tuple)) else [value]:
                named = one if inspect.isfunction(one) else type(one)
                own = not named.__module__.startswith(("keras.", "builtins"))
                if own and not _is_a_name_of_keras(named.__name__):
                    known[named.__name__] = named
    return known


def _is_a_name_of_keras(name):
    """Whether a string of this name stands for something of Keras."""
    return any(
        hasattr(module, name)
        for module in (
            keras.activations,
            keras.constraints,
            keras.initializers,
            keras.losses,
            keras.metrics,
            keras.regularizers,
        )
    )


def _holders(model):
    """Layers, optimizers and metrics, as far as they are seen."""
    yield from inner_layers(model)
    yield from with_inner(getattr(model, "optimizer", None))
    if getattr(model, "compiled", False):
        for value in keras.tree.flatten(model._compile_config.config):
            if isinstance(value, keras.metrics.Metric):
                yield value
