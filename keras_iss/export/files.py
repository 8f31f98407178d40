"""Files and folders that appear whole or not at all.

What is written is written beside its place first, under a name that begins
with `.keras-iss-`, and then takes its place in one step. Its maker holds a
lock on it: what has no lock was left by a process that was killed, and goes
when the next one writes to the same place.
"""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
import stat
import tempfile
import time
import weakref
import zlib

from keras_iss.export import exchange

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = ".keras-iss-"
# Where a folder cannot be swapped in one step, the old one has this name
# until the new one is in its place.
ASIDE = ".keras-iss-old"
_NAME_MAX = 255
_TRIES = 100
_OVERTAKEN = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)
# A folder is locked for a moment, while a swap in two steps is done.
_PATIENCE, _PAUSE = 3000, 0.01


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
    real = _real(path)
    there = _stat(real)
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


def _real(path):
    """The path behind all links, of a link to nothing that where it leads."""
    return pathlib.Path(os.path.realpath(path))


def _stat(path):
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


@contextlib.contextmanager
def written(path, content):
    """A temporary file that takes the place of `path` when all went well.

    A file that is there is replaced in one step, and gives the new one its
    mode and owner. Of a link, what it leads to is replaced.

    Args:
        path: Absolute `pathlib.Path`.
        content: Bytes, or a view of them.

    Yields:
        `pathlib.Path` of the temporary file, which holds the content.

    Raises:
        OSError: that names the path, if it cannot be written.
    """
    real = _real(path)
    old = _stat(real)
    # Nobody reads the new one meanwhile who could not read the old one.
    mode = 0o666 if old is None else 0o600 | stat.S_IMODE(old.st_mode) & 0o777
    temporary = _Temporary(real, file_mode=mode)
    try:
        with _naming(path):
            temporary.write(content)
            _take_over(old, temporary.path)
        yield temporary.path
        with _naming(path):
            os.replace(temporary.path, real)
            _sync(real.parent)
    finally:
        temporary.discard()


@contextlib.contextmanager
def folder(path):
    """A new folder that takes the place of `path` when all went well.

    Yields the path of the folder, which the caller makes and fills. What is
    at `path` is the whole old folder or the whole new one at any time; where
    the system cannot swap two folders in one step, the old one has the name
    `aside(path)` in between.

    Args:
        path: Absolute `pathlib.Path`. Of a link, what it leads to is
            replaced.

    Raises:
        OSError: that names the path, if it cannot be written.
    """
    real = _real(path)
    with _naming(path):
        _settle_alone(real)
    temporary = _Temporary(real)
    try:
        new = temporary.path / "new"
        yield new
        with _naming(path):
            old = _stat(real)
            if old is not None:
                _take_over_all(real, new)
            _sync_all(new)
            _swap(new, real)
            _sync(real.parent)
    finally:
        try:
            _settle_alone(real)
        finally:
            temporary.discard()


@contextlib.contextmanager
def scratch():
    """A folder for what is needed only meanwhile."""
    parent = pathlib.Path(tempfile.gettempdir())
    temporary = _Temporary(parent / "scratch", folder_mode=0o700)
    try:
        yield temporary.path
    finally:
        temporary.discard()


def aside(path):
    """Where an old folder is while it cannot be swapped in one step.

    Args:
        path: `pathlib.Path` of the folder.

    Returns:
        `pathlib.Path` beside it: its name and `.keras-iss-old`; of a name too
        long for that, its beginning and a checksum.
    """
    name = path.name
    if len(os.fsencode(name + ASIDE)) > _NAME_MAX:
        room = _NAME_MAX - len(ASIDE) - 9
        kept = os.fsencode(name)[:room].decode("utf-8", "ignore")
        name = f"{kept}-{_key(path)}"
    return path.with_name(name + ASIDE)


def sweep(path):
    """Removes what killed processes left of writing to `path`."""
    real = _real(path)
    for left in real.parent.glob(f"{PREFIX}{_key(real)}-*"):
        handle = _lock_if_left(left)
        if handle is not None:
            _remove(left)
            handle.close()


def _key(path):
    # Not the name itself: with it, the temporary name may be too long.
    return f"{zlib.crc32(os.fsencode(path.name)):08x}"


class _Handle:
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
        _unlock(self)
        number, self.number = self.number, None
        os.close(number)

    __del__ = close


class _Temporary:
    """A file or folder with a lock, beside what it is to replace.

    Attributes:
        path: Its `pathlib.Path`.
    """

    def __init__(self, real, file_mode=None, folder_mode=0o777):
        sweep(real)
        for _ in range(_TRIES):
            name = f"{PREFIX}{_key(real)}-{secrets.token_hex(6)}"
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
                _Handle(self.path, flags, file_mode).close()
            if fcntl is None:
                # Nothing to hold: what is open cannot be moved on Windows.
                return
            # Another process may take it for left, before it has its lock.
            with contextlib.suppress(FileNotFoundError):
                handle = _Handle(self.path, os.O_RDONLY)
                self._held.append(handle)
                if _lock(handle) and _is_still(handle, self.path):
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
        _remove(path)
    except BaseException:
        _remove(path)
        raise
    finally:
        while held:
            held.pop().close()


def _lock(handle):
    """Whether the file behind a handle is locked for this process now."""
    try:
        fcntl.flock(handle.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # A disk without locks.
    return True


def _unlock(handle):
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(handle.number, fcntl.LOCK_UN)


def _lock_if_left(path):
    """A handle with the lock of what nobody else holds, or `None`."""
    if fcntl is None:
        return None
    try:
        handle = _Handle(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        fcntl.flock(handle.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = os.fstat(handle.number).st_uid
    except OSError:
        return None
    ours = _is_still(handle, path) and owner == os.getuid()
    return handle if ours else None


def _is_still(handle, path):
    try:
        return os.path.samestat(os.fstat(handle.number), os.lstat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(parent):
    """Only one process at a time is inside, of those that ask.

    Who waits too long goes in all the same.
    """
    handle = None if fcntl is None else _Handle(parent, os.O_RDONLY)
    try:
        for _ in range(_PATIENCE if handle else 0):
            if _lock(handle):
                break
            time.sleep(_PAUSE)
        yield
    finally:
        if handle is not None:
            handle.close()


def _remove(path):
    """Removes a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        for inner, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(inner, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def _naming(path):
    """Errors inside name `path`, where they name nothing."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _take_over(old, path):
    """Gives a new file the owner and mode of an old one."""
    if old is None:
        return
    new = os.stat(path)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        # Only root may give files away.
        with contextlib.suppress(OSError):
            os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))


def _take_over_all(old, new):
    """Gives a new folder the owners and modes of an old one."""
    for path in [new, *new.rglob("*")]:
        same = old / path.relative_to(new)
        # Another process may take it away at any time.
        with contextlib.suppress(FileNotFoundError):
            if same.is_dir() == path.is_dir():
                _take_over(os.stat(same), path)


def _sync(path):
    """Has what a folder holds on the disk itself, where that is possible."""
    if os.name == "nt":
        return
    handle = _Handle(path, os.O_RDONLY)
    try:
        os.fsync(handle.number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        handle.close()


def _sync_all(path):
    for inner in [*path.rglob("*"), path]:
        if not inner.is_symlink():
            _sync(inner)


def _swap(new, path):
    """Puts a folder where another is, which is at `new` afterwards."""
    mode = _stat(new).st_mode
    for _ in range(_TRIES):
        try:
            if os.path.lexists(path):
                # A folder that nobody may write to cannot be moved.
                _make_movable(path)
                _make_movable(new)
                if not exchange.exchange(new, path):
                    _swap_in_two_steps(new, path)
            else:
                os.rename(new, path)
        except OSError as error:
            # Another process may have been faster.
            if error.errno not in _OVERTAKEN or not os.path.lexists(new):
                raise
            continue
        if not mode & 0o200:
            os.chmod(path, stat.S_IMODE(mode))
        return
    raise OSError(f"{path} comes and goes: another process writes it, too.")


def _make_movable(path):
    # A folder goes to another parent only if it can be written to.
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if not mode & 0o200:
        os.chmod(path, mode | 0o200)


def _swap_in_two_steps(new, path):
    with _locked(path.parent):
        _settle(path)
        try:
            os.rename(path, aside(path))
            os.rename(new, path)
        finally:
            try:
                _settle(path)
            except BaseException:
                _settle(path)
                raise


def _settle_alone(path):
    if os.path.lexists(aside(path)):
        with _locked(path.parent):
            _settle(path)


def _settle(path):
    """Ends a swap that was cut off between its two steps."""
    old = aside(path)
    if not os.path.lexists(old):
        return
    if os.path.lexists(path):
        _remove(old)
    else:
        os.rename(old, path)
