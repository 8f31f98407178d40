"""Which form a file with a model has, and how large it is."""

import os
import pathlib

_SUFFIXES = {
    ".keras": "keras",
    ".h5": "keras",
    ".tflite": "tflite",
    ".onnx": "onnx",
}
_KINDS = "`.keras`, `.tflite` or `.onnx` file, or the folder of a SavedModel"


def format_of(path: str | os.PathLike[str]) -> str:
    """The form of the model that lies at a path.

    Args:
        path: A file, or the folder of a SavedModel.

    Returns:
        `"keras"`, `"saved_model"`, `"tflite"` or `"onnx"`.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it is none of these.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no `{path}`. Give the path of a {_KINDS}."
        )
    if path.is_dir():
        names = ("saved_model.pb", "saved_model.pbtxt")
        if any((path / name).is_file() for name in names):
            return "saved_model"
        raise ValueError(
            f"The folder `{path}` holds no `saved_model.pb`: it is no "
            f"SavedModel. Give a {_KINDS}."
        )
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise ValueError(
            f"`{path}` is of no kind that can be run: `{path.suffix}`. Give a "
            f"{_KINDS}."
        )
    return found


def size_of(path: str | os.PathLike[str]) -> int:
    """The bytes of a file, or of all the files in a folder."""
    path = pathlib.Path(path)
    if path.is_dir():
        return sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    return path.stat().st_size
