"""New layers before they are built: their configs, initializers and shapes."""

import keras
import numpy as np

from keras_iss._keras.layers import attributes, inner_layers


def with_entry(config, path, value):
    """A config with another entry."""
    if not path:
        return value
    key, *rest = path
    if isinstance(config, (list, tuple)):
        changed = list(config)
        changed[key] = with_entry(changed[key], rest, value)
        return type(config)(changed)
    if isinstance(config, dict):
        return {**config, key: with_entry(config.get(key), rest, value)}
    # An integer stands for a shape of one dimension.
    return value


def held_layers(layer):
    """Dict from the name of an attribute to the layer that it is."""
    return {
        name: value
        for name, value in attributes(layer).items()
        if isinstance(value, keras.layers.Layer)
    }


def build_like(old, new):
    """Builds what is not built of a layer, for the shapes of another."""
    count = 0
    while count < len(layers := inner_layers(new)):
        for there, made in zip(inner_layers(old)[count:], layers[count:]):
            count += 1
            if there.built and not made.built:
                made.build_from_config(there.get_build_config() or {})
                # Which may have made layers inside.
                break
        else:
            return


def drop_initializers_of_one_shape(layer):
    """Puts zeros in place of initializers that only make the old shape."""
    for inner in inner_layers(layer):
        for name, value in list(vars(inner).items()):
            if not name.endswith("_initializer") or value is None:
                continue
            constant = isinstance(value, keras.initializers.Constant)
            own = not type(value).__module__.startswith("keras.")
            if own or (constant and np.ndim(value.value)):
                setattr(inner, name, keras.initializers.Zeros())
