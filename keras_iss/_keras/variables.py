"""How Keras makes variables."""

import contextlib

import keras
from keras.src.backend.common import global_state


@contextlib.contextmanager
def without_values():
    """Variables that are made inside get shapes and no values, ever.

    What is made of them can be counted and called on symbolic tensors.
    """
    key = "uninitialized_variables"
    before = list(global_state.get_global_attribute(key) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(key, before)
