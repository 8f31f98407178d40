"""Models that Keras saves and cannot load, and what is done about them.

Keras writes a layer that two others hold into a file twice and its weights
once, so that the file cannot be read. A model of the user's own class may
share its layers all the same, if its constructor makes them.
"""

import itertools

import keras
import numpy as np

from keras_iss._keras.errors import message_of
from keras_iss._keras.layers import attributes, inner_layers, state_of
from keras_iss._keras.masks import attached_mask
from keras_iss._keras.running import call_without_effects
from keras_iss._keras.saving import (
    class_names_in_config,
    loaded_from_its_config,
)
from keras_iss._objects import remade
from keras_iss._scopes import known_objects, own_objects
from keras_iss.surgery.attributes import differing_attributes
from keras_iss.surgery.sampling import LENGTHS, Sampler
from keras_iss.tracing.graph import graph_of

_MOST_TRIALS = 256


def loading_problem(model, old):
    """Why Keras could not load a saved model, or `None` if it could.

    Args:
        model: A built `keras.Model`, made of a graph.
        old: The larger `keras.Model` that it is made of.

    Returns:
        String, the reason and what to do, or `None`.
    """
    with known_objects(model):
        try:
            loaded = loaded_from_its_config(model)
        except Exception as error:
            return (
                f"Keras cannot read its config ({message_of(error)}). Keep "
                "its weights by `get_weights`."
            )
        found, there = (
            set(map(id, which.weights)) for which in (loaded, model)
        )
        if len(found) != len(there):
            names = ", ".join(f"`{layer.name}`" for layer in _held_twice(model))
            return (
                "Keras saves the weights of what several layers hold once, "
                f"and looks for them several times ({names}). Keep its weights "
                "by `get_weights`, or let only one layer hold what is shared."
            )
        lost = [
            (layer, name)
            for layer, name in differing_attributes(model, loaded)
            if not _is_seed(layer, name)
        ]
        if not lost or _computes_the_same(model):
            return _unresolved_names(model, old)
    layer, name = lost[0]
    return (
        f"`{name}` of `{layer.name}` ({type(layer).__name__}) was set after "
        "the layer was made, and is not in its config. Let its `get_config` "
        "hold it, or set it again on the loaded model."
    )


def _is_seed(layer, name):
    """Whether a value only decides which random numbers Keras draws.

    The config of a `SimpleRNN` leaves its seed out.
    """
    return name == "seed" and type(layer).__module__.startswith("keras.")


def _unresolved_names(model, old):
    """What to do about what was made inside a function, or `None`.

    Its name is all that a file holds of it, and whoever loads the model needs
    the object. The classes that a file of the old model names are needed
    anyway.
    """
    needed = class_names_in_config(old)
    found = [
        name
        for name, value in own_objects(model).items()
        if "<locals>" in value.__qualname__
        and name != "<lambda>"
        and not keras.saving.get_registered_name(value).endswith(f">{name}")
        and not (isinstance(value, type) and name in needed)
    ]
    if not found:
        return None
    names = ", ".join(f"`{name}`" for name in found)
    return (
        f"its config has functions or classes that were made inside functions "
        f"({names}), by their names alone. Give them to "
        "`keras.models.load_model`, as `custom_objects`."
    )


def _computes_the_same(model):
    """Whether the model comes back from its config as what it is.

    `False` if that cannot be told.
    """
    try:
        loaded = loaded_from_its_config(model, with_values=True)
        for variable, other in zip(
            state_of(model), state_of(loaded), strict=True
        ):
            other.assign(variable)
        sampler = Sampler(model, graph_of(model))
    except Exception:
        return False
    for length in LENGTHS:
        try:
            inputs = sampler.draw(0, length)
            expected, got = (
                _outputs(which, inputs, False) + _outputs(which, inputs, True)
                for which in (model, loaded)
            )
        except Exception:
            continue
        return len(expected) == len(got) and all(
            output.shape == other.shape
            and np.allclose(output, other, equal_nan=True)
            for output, other in zip(expected, got)
        )
    return False


def _outputs(model, inputs, training):
    """The outputs of a model, and the masks that they carry."""

    def call(inputs):
        outputs = keras.tree.flatten(model(inputs, training=training))
        masks = map(attached_mask, outputs)
        return [*outputs, *(mask for mask in masks if mask is not None)]

    outputs, _ = call_without_effects(model, call, inputs)
    return list(map(keras.ops.convert_to_numpy, outputs))


def shares_layers(model):
    """Whether a layer in a model has more than one holder."""
    return bool(_held_twice(model))


def _held_twice(model):
    holders = {}
    for holder in inner_layers(model):
        for layer in _held(holder):
            holders.setdefault(id(layer), (layer, set()))[1].add(id(holder))
    return [layer for layer, those in holders.values() if len(those) > 1]


def _held(holder):
    """The layers that a layer holds itself."""
    if isinstance(holder, (keras.Function, keras.Sequential)):
        return list(holder.layers)
    found = []
    for value in attributes(holder).values():
        values = value if isinstance(value, (list, tuple)) else [value]
        found += [x for x in values if isinstance(x, keras.layers.Layer)]
    return found


def smaller_of_its_class(model, shapes, sizes):
    """A smaller model of the user's own class, made by its constructor.

    Its config is read with the old sizes in it replaced by the new ones, in
    every way there is, until the variables have the shapes they must have. A
    config that holds a whole graph is what Keras has tried already.

    Args:
        model: A built subclassed model.
        shapes: List of the shapes that its state must have, in order.
        sizes: Set of pairs `(old, new)`: what sizes there were and are.

    Returns:
        The model, built, or `None`.
    """
    try:
        config = type(model).get_config(model)
        if {"layers", "output_layers"} <= set(config):
            return None
        places = list(_places(config, sizes))
    except Exception:
        return None
    choices = [
        [(path, new) for new in news] + [(path, None)] for path, news in places
    ]
    trials = itertools.islice(itertools.product(*choices), _MOST_TRIALS)
    for trial in trials:
        new = _tried(model, trial)
        state = [] if new is None else state_of(new)
        if [tuple(v.shape) for v in state] == shapes:
            return new
    return None


def _places(config, sizes, path=()):
    """Where a config holds an old size, and what it may become."""
    if isinstance(config, dict):
        items = config.items()
    elif isinstance(config, (list, tuple)):
        items = enumerate(config)
    else:
        news = sorted(new for old, new in sizes if old == config)
        if news and isinstance(config, int) and not isinstance(config, bool):
            yield path, news
        return
    for key, value in items:
        yield from _places(value, sizes, (*path, key))


def _tried(model, trial):
    def edit(config, stand_ins):
        for path, new in trial:
            if new is not None:
                config = _replaced(config, path, new)
        return config

    try:
        new = remade(model, edit)
        new.build_from_config(model.get_build_config())
    except Exception:
        return None
    return new if all(layer.built for layer in inner_layers(new)) else None


def _replaced(config, path, value):
    if not path:
        return value
    key, *rest = path
    if isinstance(config, dict):
        return {**config, key: _replaced(config[key], rest, value)}
    changed = list(config)
    changed[key] = _replaced(changed[key], rest, value)
    return type(config)(changed)
