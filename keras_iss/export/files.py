"""Files and folders that appear whole or not at all.

What is written is written beside its place first, and then takes its place in
one step.
"""

import contextlib
import errno
import os
import pathlib
import stat
import tempfile

from keras_iss.export import exchange
from keras_iss.export.locks import Handle, locked
from keras_iss.export.paths import real_path, status_of
from keras_iss.export.temporary import Temporary, key_of, remove

# Where a folder cannot be swapped in one step, the old one has this name
# until the new one is in its place.
ASIDE = ".keras-iss-old"
_NAME_MAX = 255
_TRIES = 100
_OVERTAKEN = (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)


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
    real = real_path(path)
    old = status_of(real)
    # Nobody reads the new one meanwhile who could not read the old one.
    mode = 0o666 if old is None else 0o600 | stat.S_IMODE(old.st_mode) & 0o777
    temporary = Temporary(real, file_mode=mode)
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
    real = real_path(path)
    with _naming(path):
        _settle_alone(real)
    temporary = Temporary(real)
    try:
        new = temporary.path / "new"
        yield new
        with _naming(path):
            old = status_of(real)
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
    temporary = Temporary(parent / "scratch", folder_mode=0o700)
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
        name = f"{kept}-{key_of(path)}"
    return path.with_name(name + ASIDE)


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
    handle = Handle(path, os.O_RDONLY)
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
    mode = status_of(new).st_mode
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
    with locked(path.parent):
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
        with locked(path.parent):
            _settle(path)


def _settle(path):
    """Ends a swap that was cut off between its two steps."""
    old = aside(path)
    if not os.path.lexists(old):
        return
    if os.path.lexists(path):
        remove(old)
    else:
        os.rename(old, path)
