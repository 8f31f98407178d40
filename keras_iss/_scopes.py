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
    for holder in _holders(model):
        for value in (holder, *vars(holder).values()):
            for one in value if isinstance(value, (list, tuple)) else [value]:
                named = one if inspect.isfunction(one) else type(one)
                if not named.__module__.startswith(("keras.", "builtins")):
                    known[named.__name__] = named
    return keras.saving.custom_object_scope(known)


def _holders(model):
    """Layers, optimizers and metrics, as far as they are seen."""
    yield from model._flatten_layers()
    optimizer = getattr(model, "optimizer", None)
    while optimizer is not None:
        yield optimizer
        optimizer = getattr(optimizer, "inner_optimizer", None)
    if getattr(model, "compiled", False):
        for value in keras.tree.flatten(model._compile_config.config):
            if isinstance(value, keras.metrics.Metric):
                yield value
