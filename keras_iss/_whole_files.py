"""Saving a model such that its file is whole at any time."""

import contextlib
import os
import pathlib
import shutil
import uuid

from keras_iss._keras.overrides import override, put_back

SUFFIXES = (".keras", ".h5")


@contextlib.contextmanager
def saved_whole(model):
    """Has `model.save` write beside a file, then take its place, in a block.

    Keras empties a file before it writes into it: a process that is killed on
    the way leaves neither the old one nor the new one.

    Args:
        model: A `keras.Model`.
    """

    def save(filepath, overwrite=True, **kwargs):
        _save(model, filepath, overwrite, **kwargs)

    # Hides the method of the class.
    override(model, "save", save)
    try:
        yield
    finally:
        try:
            put_back(model, "save")
        finally:
            # An interrupt may have come in the first.
            put_back(model, "save")


def _save(model, filepath, overwrite, **kwargs):
    method = type(model).save
    path = _local_file(filepath)
    if path is None or not overwrite:
        method(model, filepath, overwrite=overwrite, **kwargs)
        return
    new = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        method(model, new, overwrite=overwrite, **kwargs)
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _local_file(filepath):
    """The file that a path stands for, where one beside it can be made."""
    if not isinstance(filepath, (str, os.PathLike)) or "://" in str(filepath):
        return None
    path = pathlib.Path(os.path.realpath(filepath))
    is_file = path.suffix in SUFFIXES and not path.is_dir()
    can_be_made = path.parent.is_dir() and os.access(path.parent, os.W_OK)
    return path if is_file and can_be_made else None
