"""A Keras model as a SavedModel whose recurrent layers run fast."""

import tensorflow as tf

from keras_iss.export import _files, _verify
from keras_iss.export._model import Callable, check, reset_function, zero_states
from keras_iss.export._recurrent import graph_loop, lowered
from keras_iss.export._report import Export


def export(model, path, verify):
    """See `keras_iss.export_saved_model`."""
    path = _files.target(path, folder=True)
    _check_replaceable(path)
    check(model)
    with zero_states(model):
        function = Callable(model)
        specs = [x.spec() for x in function.inputs]

        def serve(*tensors):
            with lowered(model, graph_loop):
                return function(tensors)

        module = tf.Module(name=model.name)
        module.kept = function.variables
        module.serve = tf.function(
            serve, input_signature=specs, autograph=False
        )
        signatures = {"serving_default": module.serve.get_concrete_function()}
        if function.states:
            signatures["reset"] = reset_function(function)
        with _files.folder(path) as folder:
            tf.saved_model.save(module, str(folder), signatures=signatures)
            errors = {}
            if verify:
                errors = _verify.verify_saved_model(str(folder), function)
    size = sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    return Export(path, size, {}, errors)


def _check_replaceable(path):
    if (
        path.is_dir()
        and any(path.iterdir())
        and not (path / "saved_model.pb").is_file()
    ):
        raise FileExistsError(
            f"{path} is a folder that holds something else than a "
            "SavedModel. Give another path."
        )
