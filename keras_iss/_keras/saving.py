"""Whether Keras can load what it would save of a model."""

import contextlib
import json

import keras
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import (
    ObjectSharingScope,
    deserialize_keras_object,
    serialize_keras_object,
)


def loaded_from_its_config(model):
    """The model that loading a saved file would make, without its weights.

    Its variables have shapes and no values: they are for counting only.
    """
    with ObjectSharingScope():
        config = json.loads(json.dumps(serialize_keras_object(model)))
    config.pop("compile_config", None)
    try:
        with _no_values():
            return _read(config)
    except Exception:
        # A constructor that makes variables of values it has.
        return _read(config)


def _read(config):
    with ObjectSharingScope():
        return deserialize_keras_object(config, safe_mode=False)


@contextlib.contextmanager
def _no_values():
    """Variables that are made inside get no values, then or later."""
    key = "uninitialized_variables"
    before = list(global_state.get_global_attribute(key) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(key, before)
