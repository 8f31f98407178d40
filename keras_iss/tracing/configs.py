"""What a config holds, and whether the constructor takes it back."""

import contextlib
import random

from keras_iss._keras.names import unchanged_names
from keras_iss._objects import remade


def takes_another(operation, path):
    """Whether a layer is made with another number from another config.

    Args:
        operation: A `keras.Operation`.
        path: Tuple of keys into its config, to an integer.
    """
    try:
        wanted = _at(operation.get_config(), path) + 1
        with no_trace_left():
            new = remade(
                operation, lambda config, _: _with(config, path, wanted)
            )
            return _at(new.get_config(), path) == wanted
    except Exception:
        return False


@contextlib.contextmanager
def no_trace_left():
    """For layers that are made to be thrown away: they draw seeds."""
    state = random.getstate()
    try:
        with unchanged_names():
            yield
    finally:
        random.setstate(state)


def _at(config, path):
    for key in path:
        config = config[key]
    return config


def _with(config, path, value):
    """A config with another entry."""
    if not path:
        return value
    key, *rest = path
    changed = list(config) if isinstance(config, (list, tuple)) else {**config}
    changed[key] = _with(changed[key], rest, value)
    return type(config)(changed)
