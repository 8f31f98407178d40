"""Whether Keras can load what it would save of a model."""

import json

from keras.src.saving.serialization_lib import (
    ObjectSharingScope,
    deserialize_keras_object,
    serialize_keras_object,
)

from keras_iss._keras.variables import without_values


def loaded_from_its_config(model, with_values=False):
    """The model that loading a saved file would make, without its weights.

    Args:
        model: A built `keras.Model`.
        with_values: Boolean, whether its variables hold values. By default
            they have shapes only, for counting, where that can be.
    """
    with ObjectSharingScope():
        text = json.dumps(serialize_keras_object(model))
    if with_values:
        return _read(text)
    try:
        with without_values():
            return _read(text)
    except Exception:
        # A constructor that makes variables of values it has.
        return _read(text)


def class_names_in_config(model):
    """Set of the names of classes that a saved file of a model would hold.

    Empty if there is no such file.
    """
    try:
        with ObjectSharingScope():
            config = serialize_keras_object(model)
    except Exception:
        return set()
    names, waiting = set(), [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                names.add(value["class_name"])
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
    return names


def _read(text):
    # Keras takes configs apart as it reads them.
    config = json.loads(text)
    config.pop("compile_config", None)
    with ObjectSharingScope():
        return deserialize_keras_object(config, safe_mode=False)
