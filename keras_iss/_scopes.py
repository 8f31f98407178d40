"""The scope in which configs are read, with the classes of a user's own."""

import inspect

import keras

from keras_iss._keras.compiling import compile_arguments
from keras_iss._keras.layers import inner_layers
from keras_iss._keras.optimizer_state import with_inner


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
            parts = value if isinstance(value, (list, tuple)) else [value]
            for part in parts:
                named = part if inspect.isfunction(part) else type(part)
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
        for value in keras.tree.flatten(compile_arguments(model)):
            if isinstance(value, keras.metrics.Metric):
                yield value
