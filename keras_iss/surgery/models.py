"""New models of the class of another one."""

import warnings

import keras

from keras_iss._keras.graphs import graph_behind
from keras_iss._keras.layers import set_trainable_alone
from keras_iss._keras.models import (
    config_without_graph,
    has_functional_constructor,
    reads_configs_by_itself,
)
from keras_iss._objects import StandIns


def keeps_class(model):
    """Whether a smaller model is of the same class, with its methods."""
    if graph_behind(model) is None:
        return False
    if isinstance(model, keras.Sequential):
        return type(model).__init__ is keras.Sequential.__init__
    return isinstance(model, keras.Function) and has_functional_constructor(
        type(model)
    )


def model_like(old, inputs, outputs):
    """A model of a graph, of the same class if that is made of graphs.

    Args:
        old: The model.
        inputs: Symbolic inputs, nested as the model takes them.
        outputs: Symbolic outputs, nested as it gives them.
    """
    new = None
    if isinstance(old, keras.Function) and keeps_class(old):
        new = _of_own_class(old, inputs, outputs)
    if new is None:
        new = keras.Model(inputs, outputs, name=old.name)
    return _as_trainable_as(old, new)


def _of_own_class(old, inputs, outputs):
    """A model of the same class and settings, or `None`."""
    cls = type(old)
    stand_ins = StandIns()
    try:
        settings = stand_ins.replaced(
            config_without_graph(old, stand_ins.proxy)
        )
    except Exception:
        # What was set can still go over as it stands.
        settings = {}
    try:
        with stand_ins.scope():
            if reads_configs_by_itself(cls):
                settings = {
                    key: keras.saving.deserialize_keras_object(value)
                    for key, value in settings.items()
                }
            new = cls(inputs, outputs, name=old.name, **settings)
    except Exception as error:
        warnings.warn(
            f"`{old.name}` cannot be made anew as a `{cls.__name__}`: {error}. "
            "Its constructor has to take `inputs`, `outputs`, `name` and what "
            "its `get_config` adds.",
            stacklevel=7,
        )
        return None
    stand_ins.put_real_ones_into(new)
    return new


def sequential_like(old, layers):
    """A `Sequential` model of other layers, of the same class if it can be."""
    cls, new = type(old), None
    if cls.__init__ is keras.Sequential.__init__:
        new = cls(layers, name=old.name)
    else:
        try:
            made = cls(layers, name=old.name)
        except Exception:
            made = None
        given = [x for x in layers if isinstance(x, keras.layers.Layer)]
        if made is not None and _are_the_same(made.layers, given):
            new = made
    if new is None:
        new = keras.Sequential(layers, name=old.name)
    return _as_trainable_as(old, new)


def _are_the_same(first, second):
    return len(first) == len(second) and all(
        a is b for a, b in zip(first, second)
    )


def _as_trainable_as(old, new):
    set_trainable_alone(new, old.trainable)
    new.dtype_policy = old.dtype_policy
    return new
