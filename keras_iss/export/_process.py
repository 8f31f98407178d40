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
        for name in job["modules"]:
            importlib.import_module(name)
        model = keras.models.load_model(
            folder / "model.keras", compile=False, safe_mode=False
        )
        module = importlib.import_module(f"keras_iss.export._{job['kind']}")
        result = True, module.export(model, job["path"], **job["options"])
    except Exception as error:
        result = False, _plain(error)
    (folder / "result").write_bytes(pickle.dumps(result))


def _plain(error):
    """An error that can be taken from one process to another."""
    kinds = (ValueError, TypeError, OSError, RuntimeError)
    for kind in kinds:
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
