"""The names that Keras counts up."""

import contextlib

from keras.src.backend.common import global_state


@contextlib.contextmanager
def unchanged_names():
    """Layers that are made inside do not change what later ones are called."""
    key = "object_name_uids"
    counted = global_state.get_global_attribute(key)
    before = None if counted is None else dict(counted)
    try:
        yield
    finally:
        counted = global_state.get_global_attribute(key)
        if counted is not None:
            counted.clear()
            counted.update(before or {})
