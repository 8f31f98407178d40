"""Two folders that change places in one step, where the system can."""

import ctypes
import errno
import os
import platform
import sys

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# The number of the system call, for a C library without the function.
_NUMBERS = {"x86_64": 316, "aarch64": 276, "riscv64": 276}
# What says that there is no such step here, and not that it failed.
_MISSING = (
    errno.ENOSYS,
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
)


def exchange(first, second):
    """Swaps what is at two paths, in one step.

    Args:
        first: `pathlib.Path` of something that is there.
        second: The same, on the same disk.

    Returns:
        Whether it was done: `False` where the system or the disk has no such
        step, and nothing was changed.

    Raises:
        OSError: if it failed for another reason; nothing was changed.
    """
    rename = _rename() if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(os.fsencode(first), os.fsencode(second)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _MISSING:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def _rename():
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):

        def rename(first, second):
            return library.renameat2(
                _AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE
            )

        return rename
    number = _NUMBERS.get(platform.machine())
    if number is None:
        return None

    def call(first, second):
        return library.syscall(
            number, _AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE
        )

    return call
