"""Exports of models on JAX and PyTorch, through a TensorFlow process."""

import builtins
import contextlib
import dataclasses
import dis
import os
import pickle
import subprocess
import sys
import types

import keras

from keras_iss._keras.layers import inner_layers
from keras_iss.export import files, paths
from keras_iss.export.data import refuse_iterators
from keras_iss.export.temporary import sweep

# Seconds that the process has to end by itself.
_PATIENCE = 10


def export_tflite(model, path, options):
    """Saves the model, and has a process with TensorFlow export it.

    Args:
        model: A built `keras.Model`.
        path: As in the public function.
        options: The `Options`.

    Returns:
        The `Export` of that process; what it raised is raised here.
    """
    _check(model)
    return _exported("tflite", model, paths.target(path), options)


def export_saved_model(model, path, options):
    """The same for a SavedModel."""
    _check(model)
    path = paths.target(path, folder=True)
    return _exported("saved_model", model, path, options)


def _exported(kind, model, path, options):
    options = dataclasses.replace(
        options,
        representative_data=_arrays(
            options.representative_data, "representative_data"
        ),
        data=_arrays(options.data, "data"),
        evaluation_data=_arrays(options.evaluation_data, "evaluation_data"),
    )
    with files.scratch() as folder:
        _save(model, folder / "model.keras")
        job = {
            "kind": kind,
            "name": model.name,
            "path": str(path),
            "options": options,
            "modules": _modules(model),
            "search": sys.path,
        }
        (folder / "job").write_bytes(pickle.dumps(job))
        code, errors = _run(folder, path)
        result = folder / "result"
        if not result.is_file():
            raise RuntimeError(
                f"The TensorFlow process that was to export `{model.name}` "
                f"ended with {code}: {errors[-2000:]}"
            )
        done, value = pickle.loads(result.read_bytes())
    if done:
        return value
    raise value


def _arrays(value, argument):
    """NumPy arrays of what may be tensors of this backend."""
    if isinstance(value, dict):
        return {k: _arrays(v, argument) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_arrays(v, argument) for v in value]
    refuse_iterators(value, argument)
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return value


def _run(folder, path):
    """The exit code of the process, and what it wrote to its errors."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_iss.export.process", str(folder)],
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = process.communicate()
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        process.kill()
        process.wait()
        sweep(path)
        raise
    return process.returncode, errors


def _save(model, path):
    try:
        model.save(path)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"`{model.name}` cannot be saved for the TensorFlow process that "
            f"exports it: {error}"
        ) from error


def _check(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"An export takes a keras.Model, not {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"`{model.name}` has not been built: call the model on data, or "
            "give it an Input, before exporting it."
        )
    for layer in inner_layers(model):
        if type(layer).__module__ == "__main__":
            raise ValueError(
                f"`{layer.name}` is a {type(layer).__name__}, which is "
                "defined in the script itself: the TensorFlow process that "
                "exports cannot import it. Move the class to a module."
            )
        if isinstance(layer, keras.layers.Lambda):
            _check_function(layer)


def _check_function(layer):
    """A `Lambda` must do in another process what it does here."""
    function = layer.function
    if not isinstance(function, types.FunctionType):
        return
    name = function.__name__
    if name != "<lambda>":
        if (
            function.__module__ == "__main__"
            or keras.saving.get_registered_name(function) == name
        ):
            raise ValueError(
                f"`{layer.name}` calls `{name}`, which the TensorFlow process "
                "that exports does not find. Move the function to a module, "
                "and put @keras.saving.register_keras_serializable() above it."
            )
        return
    names = sorted(_global_names(function.__code__))
    if names:
        raise ValueError(
            f"The lambda of `{layer.name}` reads {', '.join(names)} of its "
            "module, and only its code goes to the TensorFlow process that "
            "exports. Make it a registered function in a module, or a layer of "
            "your own."
        )


def _global_names(code):
    """Names outside of it that code reads, but for Python's own."""
    names = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            names |= _global_names(part)
    return names - set(vars(builtins))


def _modules(model):
    modules = {type(layer).__module__ for layer in inner_layers(model)}
    modules |= {
        layer.function.__module__
        for layer in inner_layers(model)
        if isinstance(layer, keras.layers.Lambda)
        and isinstance(layer.function, types.FunctionType)
        and layer.function.__name__ != "<lambda>"
    }
    return sorted(x for x in modules if x.split(".")[0] != "keras")
