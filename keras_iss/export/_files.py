"""Files and folders that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile


def target(path, folder=False):
    """Checks that something can be written at `path`.

    Args:
        path: Where to write.
        folder: Whether a folder is to be written; else a file.

    Returns:
        The `pathlib.Path`, absolute.

    Raises:
        IsADirectoryError, NotADirectoryError, FileNotFoundError,
        PermissionError: that name the path and what is in the way.
    """
    path = pathlib.Path(path).expanduser().absolute()
    if not folder and path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder. Give the path of a file, such as "
            f"{path / 'model.tflite'}."
        )
    if folder and path.is_file():
        raise NotADirectoryError(
            f"{path} is a file; a SavedModel is a folder. Give another path."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent}, where {path.name} is to be written, is no folder. "
            "Make it first."
        )
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"{path.parent} cannot be written to. Give another path."
        )
    return path


@contextlib.contextmanager
def written(path, content):
    """A temporary file that takes the place of `path` when all went well.

    Args:
        path: Absolute `pathlib.Path`.
        content: Bytes, or a view of them.

    Yields:
        `pathlib.Path` of the temporary file, which holds the content.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        yield pathlib.Path(name)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def folder(path):
    """A new folder that takes the place of `path` when all went well."""
    temporary = pathlib.Path(
        tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    )
    try:
        new = temporary / "new"
        yield new
        if path.exists():
            path.rename(temporary / "old")
        try:
            new.rename(path)
        except BaseException:
            if (temporary / "old").exists():
                (temporary / "old").rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
