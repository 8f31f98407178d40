"""SavedModels on the disk."""

import contextlib
import errno
import os

import tensorflow as tf

_CODES = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.EIO,
)
# TensorFlow's errors of files, where their text says nothing more.
_KINDS = {
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.NotFoundError: errno.ENOENT,
    tf.errors.OutOfRangeError: errno.EFBIG,
    tf.errors.DataLossError: errno.EIO,
    tf.errors.UnavailableError: errno.EIO,
    tf.errors.UnknownError: errno.EIO,
    tf.errors.InternalError: errno.EIO,
}


def save(module, folder, signatures, path, hint=""):
    """Writes a module as a SavedModel.

    Args:
        module: The `tf.Module`.
        folder: `pathlib.Path` of the folder to make.
        signatures: Dict of concrete functions.
        path: The path that an error is to name.
        hint: What an error is to say besides.

    Raises:
        OSError: that names `path`, if it cannot be written.
    """
    with _as_os_error(path, hint):
        tf.saved_model.save(module, str(folder), signatures=signatures)


@contextlib.contextmanager
def _as_os_error(path, hint):
    try:
        yield
    except tf.errors.OpError as error:
        code = _code(error)
        if code is None:
            raise
        raise OSError(code, os.strerror(code) + hint, str(path)) from error
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(
            error.errno, os.strerror(error.errno) + hint, str(path)
        ) from error


def _code(error):
    for code in _CODES:
        if os.strerror(code) in error.message:
            return code
    return _KINDS.get(type(error))
