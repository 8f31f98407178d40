"""Scopes in which variables are made and configs are read."""

import contextlib
import inspect

import keras


def distribution_scope(model):
    """The scope of the strategy that a TensorFlow model is trained with."""
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def known_objects(model):
    """A scope in which configs find the classes and functions of a model.

    They need not be registered with Keras.
    """
    known = {}
    for layer in model._flatten_layers():
        for value in (layer, *vars(layer).values()):
            for one in value if isinstance(value, (list, tuple)) else [value]:
                named = one if inspect.isfunction(one) else type(one)
                if not named.__module__.startswith(("keras.", "builtins")):
                    known[named.__name__] = named
    return keras.saving.custom_object_scope(known)
