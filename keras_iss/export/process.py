"""The TensorFlow process of an export from another backend."""

import importlib
import pathlib
import pickle
import sys


def main(folder):
    """Does the job in `folder` and leaves the result there."""
    folder = pathlib.Path(folder)
    job = pickle.loads((folder / "job").read_bytes())
    sys.path[:] = job["search"]
    import keras

    try:
        try:
            for name in job["modules"]:
                importlib.import_module(name)
            model = keras.models.load_model(
                folder / "model.keras", compile=False, safe_mode=False
            )
        except Exception as error:
            raise ValueError(
                f"`{job['name']}` cannot be loaded by the TensorFlow process "
                f"that exports it: {_text(error)} What it is made of must be "
                "found there by name: classes and functions in modules, "
                "registered with keras.saving.register_keras_serializable."
            ) from error
        result = True, _exported(job["kind"], model, job)
    except Exception as error:
        result = False, _plain(error)
    (folder / "result").write_bytes(pickle.dumps(result))


def _exported(kind, model, job):
    if kind == "saved_model":
        from keras_iss.export import saved_model

        return saved_model.export(model, job["path"], job["options"])
    from keras_iss.export import tflite

    return tflite.export(model, job["path"], job["options"])


def _plain(error):
    """An error that can be taken from one process to another."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, error.filename)
    kinds = (ValueError, TypeError, OSError, RuntimeError)
    for kind in kinds:
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(_text(error))


def _text(error):
    # Keras puts all that is around it before what went wrong.
    text = str(error).rsplit("Exception encountered:", 1)[-1].strip()
    return f"{type(error).__name__}: {text[:1500]}"


if __name__ == "__main__":
    main(sys.argv[1])
