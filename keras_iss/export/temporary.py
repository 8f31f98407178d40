"""Temporary files and folders that go, however the process ends.

They lie beside what they are to replace, under a name that begins with
`.keras-iss-`. Their maker holds a lock on them: what has no lock was left by a
process that was killed, and goes when the next one writes to the same place.
"""

import contextlib
import os
import secrets
import shutil
import weakref
import zlib

from keras_iss.export.locks import (
    HAS_LOCKS,
    Handle,
    handle_if_left,
    is_still,
    lock,
)
from keras_iss.export.paths import real_path

PREFIX = ".keras-iss-"
_TRIES = 100


class Temporary:
    """A file or folder with a lock, beside what it is to replace.

    Attributes:
        path: Its `pathlib.Path`.
    """

    def __init__(self, real, file_mode=None, folder_mode=0o777):
        sweep(real)
        for _ in range(_TRIES):
            name = f"{PREFIX}{key_of(real)}-{secrets.token_hex(6)}"
            self.path = real.with_name(name)
            self._held = []
            # Known before it is there: whatever interrupts what follows, it
            # goes with this object, or with the process at the latest.
            self._discard = weakref.finalize(
                self, _discard, self.path, self._held, os.getpid()
            )
            if file_mode is None:
                os.mkdir(self.path, folder_mode)
            else:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                Handle(self.path, flags, file_mode).close()
            if not HAS_LOCKS:
                # Nothing to hold: what is open cannot be moved on Windows.
                return
            # Another process may take it for left, before it has its lock.
            with contextlib.suppress(FileNotFoundError):
                handle = Handle(self.path, os.O_RDONLY)
                self._held.append(handle)
                if lock(handle) and is_still(handle, self.path):
                    return
            self.discard()
        raise OSError(f"No lock is to be had beside {real}.")

    def write(self, content):
        """Writes all of a file, to the disk itself."""
        view = memoryview(content).cast("B")
        with open(self.path, "wb", buffering=0) as file:
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())

    def discard(self):
        """Removes it, if it is still there."""
        try:
            self._discard()
        except BaseException:
            _discard(self.path, self._held, os.getpid())
            raise


def _discard(path, held, owner):
    if os.getpid() != owner:
        return  # A fork: it is the other process that still needs it.
    try:
        remove(path)
    except BaseException:
        remove(path)
        raise
    finally:
        while held:
            held.pop().close()


def sweep(path):
    """Removes what killed processes left of writing to `path`."""
    real = real_path(path)
    for left in real.parent.glob(f"{PREFIX}{key_of(real)}-*"):
        handle = handle_if_left(left)
        if handle is not None:
            remove(left)
            handle.close()


def key_of(path):
    """What the temporary names of a path have in common."""
    # Not the name itself: with it, the temporary name may be too long.
    return f"{zlib.crc32(os.fsencode(path.name)):08x}"


def remove(path):
    """Removes a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        for inner, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(inner, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
