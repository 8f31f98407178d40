"""Exports of models on JAX and PyTorch, through a TensorFlow process."""

import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import keras

from keras_iss.export import _files


def export(kind, model, path, options):
    """Saves the model, and has a process with TensorFlow export it.

    Args:
        kind: `"tflite"` or `"saved_model"`.
        model: A built `keras.Model`.
        path: As in the public function.
        options: Dict of the public function's other arguments.

    Returns:
        The `Export` of that process; what it raised is raised here.
    """
    _check(model)
    path = _files.target(path, folder=kind == "saved_model")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save(folder / "model.keras")
        job = {
            "kind": kind,
            "path": str(path),
            "options": options,
            "modules": _modules(model),
            "search": sys.path,
        }
        (folder / "job").write_bytes(pickle.dumps(job))
        environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
        process = subprocess.run(
            [sys.executable, "-m", "keras_iss.export._process", str(folder)],
            env=environment,
            capture_output=True,
            text=True,
        )
        result = folder / "result"
        if not result.is_file():
            raise RuntimeError(
                f"The TensorFlow process that was to export `{model.name}` "
                f"ended with {process.returncode}: {process.stderr[-2000:]}"
            )
        done, value = pickle.loads(result.read_bytes())
    if done:
        return value
    raise value


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
    for layer in model._flatten_layers():
        if type(layer).__module__ == "__main__":
            raise ValueError(
                f"`{layer.name}` is a {type(layer).__name__}, which is "
                "defined in the script itself: the TensorFlow process that "
                "exports cannot import it. Move the class to a module."
            )


def _modules(model):
    modules = {type(layer).__module__ for layer in model._flatten_layers()}
    return sorted(x for x in modules if x.split(".")[0] != "keras")
