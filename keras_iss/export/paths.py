"""Whether something can be written at a path, before it is made."""

import os
import pathlib
import stat


def target(path, folder=False):
    """Checks that something can be written at `path`.

    Args:
        path: Where to write: a `str` or an `os.PathLike` of one.
        folder: Whether a folder is to be written; else a file.

    Returns:
        The `pathlib.Path`, absolute. Links in it are left as they are.

    Raises:
        TypeError, ValueError: if it is no path.
        OSError: that names the path and what is in the way.
    """
    path = _absolute(path)
    real = real_path(path)
    there = status_of(real)
    if folder:
        _check_folder(path, real, there)
    else:
        _check_file(path, there)
    parent = real.parent
    if not parent.is_dir():
        link = f"{path} is a link to {real}. " if path.is_symlink() else ""
        raise FileNotFoundError(
            f"{link}{parent}, where {real.name} is to be written, is no "
            "folder. Make it first."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{parent} cannot be written to. Give another path."
        )
    return path


def _absolute(path):
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            "`path` must be a str or an os.PathLike, such as "
            f'"model.tflite". Received: {path!r} (of type '
            f"{type(path).__name__})."
        )
    text = os.fspath(path)
    if isinstance(text, bytes):
        raise TypeError(
            "`path` must be a path of str, not of bytes: give "
            f"os.fsdecode(path). Received: {path!r}."
        )
    if not text:
        raise ValueError(
            '`path` is empty: give the path to write, such as "model.tflite".'
        )
    if "\0" in text:
        raise ValueError(f"`path` holds a null character: {text!r}.")
    return pathlib.Path(os.path.expanduser(text)).absolute()


def real_path(path):
    """The path behind all links, of a link to nothing that where it leads."""
    return pathlib.Path(os.path.realpath(path))


def status_of(path):
    """The `os.stat_result` of a path, or `None` where nothing is."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise NotADirectoryError(
            f"{path} cannot be: a part of it is a file. Give another path."
        ) from error


def _check_file(path, there):
    if there is None or stat.S_ISREG(there.st_mode):
        return
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(
            f"{path} is a folder. Give the path of a file, such as "
            f"{path / 'model.tflite'}."
        )
    raise OSError(
        f"{path} is a device, a pipe or a socket, which a file cannot take "
        "the place of. Give the path of a file."
    )


def _check_folder(path, real, there):
    if there is None:
        return
    if not stat.S_ISDIR(there.st_mode):
        raise NotADirectoryError(
            f"{path} is a file; a SavedModel is a folder. Give another path."
        )
    if os.path.ismount(real):
        raise OSError(
            f"{path} is the root of a disk, which cannot be replaced. Give a "
            f"folder inside it, such as {path / 'saved_model'}."
        )
    here = pathlib.Path.cwd()
    if real == here or real in here.parents:
        raise OSError(
            f"{path} is the current folder or holds it, and would be "
            "replaced. Give a folder inside it, such as "
            f"{path / 'saved_model'}."
        )
