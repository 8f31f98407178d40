"""Locks on files and folders, which end with the process at the latest."""

import contextlib
import os
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
# A folder is locked for a moment, while a swap in two steps is done.
_PATIENCE, _PAUSE = 3000, 0.01


class Handle:
    """An open file or folder that is closed with this object at the latest.

    Whatever interrupts the process: a lock would stay as long as the handle.
    """

    number = None

    def __init__(self, path, flags, mode=0o777):
        self.number = os.open(path, flags, mode)

    def close(self):
        """Gives back the lock and the handle."""
        if self.number is None:
            return
        # One after the other: what interrupts this leaves no lock.
        unlock(self)
        number, self.number = self.number, None
        os.close(number)

    __del__ = close


def lock(handle):
    """Whether the file behind a handle is locked for this process now."""
    try:
        fcntl.flock(handle.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # A disk without locks.
    return True


def unlock(handle):
    """Gives back the lock on the file behind a handle."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(handle.number, fcntl.LOCK_UN)


def handle_if_left(path):
    """A handle with the lock of what nobody else holds, or `None`."""
    if fcntl is None:
        return None
    try:
        handle = Handle(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        fcntl.flock(handle.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = os.fstat(handle.number).st_uid
    except OSError:
        return None
    ours = is_still(handle, path) and owner == os.getuid()
    return handle if ours else None


def is_still(handle, path):
    """Whether what a handle was opened on is still at the path."""
    try:
        return os.path.samestat(os.fstat(handle.number), os.lstat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(parent):
    """Only one process at a time is inside, of those that ask.

    Who waits too long goes in all the same.
    """
    handle = None if fcntl is None else Handle(parent, os.O_RDONLY)
    try:
        for _ in range(_PATIENCE if handle else 0):
            if lock(handle):
                break
            time.sleep(_PAUSE)
        yield
    finally:
        if handle is not None:
            handle.close()
