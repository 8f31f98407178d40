"""Whatever cuts off an export, what is at the path is whole."""

import contextlib
import gc
import os
import pathlib
import signal
import stat
import sys
import threading

import pytest

from keras_iss.export import exchange, files, locks, paths, temporary

if os.name == "nt":
    pytest.skip("what forks here", allow_module_level=True)


@pytest.fixture(params=["one step", "two steps"])
def steps(request, monkeypatch):
    """How a folder is replaced: as on Linux, and as elsewhere."""
    if request.param == "two steps":
        monkeypatch.setattr(exchange, "exchange", lambda *_: False)
    elif sys.platform != "linux":
        pytest.skip("only Linux swaps two folders in one step")
    return request.param


@pytest.fixture
def quick(monkeypatch):
    """Hundreds of files, and none of them matters after a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Saved:
    """A folder of two files, which belong together."""

    def __init__(self, parent):
        self.parent = parent
        self.path = parent / "saved"

    def put(self, text):
        with files.folder(self.path) as new:
            self.fill(new, text)

    def fail(self):
        with files.folder(self.path) as new:
            self.fill(new, "new")
            raise ZeroDivisionError

    @staticmethod
    def fill(new, text):
        (new / "variables").mkdir(parents=True)
        (new / "saved_model.pb").write_text(text)
        (new / "variables" / "data").write_text(text)

    def found(self):
        return self.found_at(self.path)

    @staticmethod
    def found_at(path):
        """The text of a whole one, or what is wrong with it."""
        if not path.exists():
            return "nothing"
        parts = [x.read_text() for x in path.rglob("*") if x.is_file()]
        return parts[0] if len(parts) == 2 and len(set(parts)) == 1 else parts


class Single:
    """A file."""

    def __init__(self, parent):
        self.parent = parent
        self.path = parent / "model.tflite"

    def put(self, text):
        with files.written(self.path, text.encode()) as file:
            assert file.read_bytes() == text.encode()

    def fail(self):
        with files.written(self.path, b"new"):
            raise ZeroDivisionError

    def found(self):
        return self.path.read_text() if self.path.exists() else "nothing"


KINDS = [Saved, Single]


def names(parent):
    return sorted(x.name for x in parent.iterdir())


class Interrupts:
    """Raises a `KeyboardInterrupt` at the n-th step of what runs inside.

    A step is a line, or a call of a function, of the module or of what it
    stands on.
    """

    FILES = tuple(
        module.__file__
        for module in (files, temporary, locks, paths, exchange, contextlib)
    )

    def __init__(self, number):
        self.left = number
        self.happened = False

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, kind, error, traceback):
        sys.settrace(self.before)
        return kind is KeyboardInterrupt

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename not in self.FILES:
            return None
        if event in ("call", "line") and not self.happened:
            self.left -= 1
            if self.left < 0:
                self.happened = True
                raise KeyboardInterrupt
        return self.trace


@pytest.mark.filterwarnings(
    # An interrupt where Python frees an object: it says so, and goes on.
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_at_any_step_leaves_one_whole(
    kind, tmp_path, steps, quick
):
    if kind is Single and steps == "two steps":
        pytest.skip("a file is always replaced in one step")
    place = kind(tmp_path)
    found = []
    for number in range(10_000):
        place.put("old")
        with Interrupts(number) as interrupts:
            place.put("new")
        if not interrupts.happened:
            break
        found.append(place.found())
        if len(names(tmp_path)) > 1:
            # What still holds on to the error.
            gc.collect()
        assert found[-1] in ("old", "new"), number
        assert names(tmp_path) == [place.path.name], number
    assert {*found} == {"old", "new"}
    assert len(found) > 50


CHANGES = (
    "ctypes.dlopen",
    "open",
    "os.chmod",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
)


def killed_at(number, action):
    """Whether a process is killed before its n-th change of the disk."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    seen = []

    def count(event, arguments):
        if event in CHANGES:
            seen.append(event)
            if len(seen) > number:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(count)
        action()
        code = 0
    finally:
        os._exit(code)


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_step_leaves_one_whole(kind, tmp_path, steps, quick):
    if kind is Single and steps == "two steps":
        pytest.skip("a file is always replaced in one step")
    place = kind(tmp_path)
    found, left = [], 0
    for number in range(1_000):
        place.put("old")
        if not killed_at(number, lambda: place.put("new")):
            break
        at = place.found()
        if at == "nothing" and steps == "two steps":
            # Where the docs say that the old one is then.
            at = place.found_at(tmp_path / "saved.keras-iss-old")
            assert at == "old", number
        assert at in ("old", "new"), number
        found.append(at)
        left += len(names(tmp_path)) > 1
        # The next one finds what there was, and clears up.
        with pytest.raises(ZeroDivisionError):
            place.fail()
        assert place.found() == at
        assert names(tmp_path) == [place.path.name], number
    assert {*found} == {"old", "new"}
    assert left > 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_leaves_the_old_one_alone(kind, tmp_path, steps):
    place = kind(tmp_path)
    place.put("old")
    with pytest.raises(ZeroDivisionError):
        place.fail()
    assert place.found() == "old"
    assert names(tmp_path) == [place.path.name]


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_on_one_path_leave_one_whole(kind, tmp_path, quick):
    place = kind(tmp_path)
    place.put("first")
    children = []
    for text in ("second", "third"):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for _ in range(100):
                    place.put(text)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(x, 0)[1]) for x in children]
    assert codes == [0, 0]
    assert place.found() in ("second", "third")
    assert names(tmp_path) == [place.path.name]


def test_two_threads_on_one_path_leave_one_whole(tmp_path, steps, quick):
    place, errors = Saved(tmp_path), []

    def put(text):
        try:
            for _ in range(20):
                place.put(text)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put, args=(x,)) for x in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert place.found() in "abc"
    assert names(tmp_path) == ["saved"]


def test_what_another_still_writes_is_not_taken_for_left(tmp_path):
    place = Saved(tmp_path)
    with files.folder(place.path) as slow:
        place.fill(slow, "slow")
        place.put("fast")
        assert place.found() == "fast"
    assert place.found() == "slow"
    assert names(tmp_path) == ["saved"]


# Modes, links and names.


def test_a_file_keeps_its_mode(tmp_path):
    place = Single(tmp_path)
    for mode in (0o600, 0o640, 0o444, 0o666):
        place.path.touch()
        place.path.chmod(mode)
        place.put("new")
        assert stat.S_IMODE(place.path.stat().st_mode) == mode
        place.path.chmod(0o600)


def test_a_new_file_has_the_mode_that_the_process_gives(tmp_path):
    before = os.umask(0o027)
    try:
        Single(tmp_path).put("new")
        Saved(tmp_path).put("new")
    finally:
        os.umask(before)
    modes = {
        name: stat.S_IMODE((tmp_path / name).stat().st_mode)
        for name in names(tmp_path)
    }
    assert modes == {"model.tflite": 0o640, "saved": 0o750}


def test_a_folder_keeps_its_modes(tmp_path, steps):
    place = Saved(tmp_path)
    place.put("old")
    modes = {"saved_model.pb": 0o600, "variables": 0o700, ".": 0o710}
    for name, mode in modes.items():
        (place.path / name).chmod(mode)
    place.put("new")
    assert place.found() == "new"
    for name, mode in modes.items():
        assert stat.S_IMODE((place.path / name).stat().st_mode) == mode


def test_a_folder_that_nobody_may_write_to_is_replaced(tmp_path, steps):
    place = Saved(tmp_path)
    place.put("old")
    place.path.chmod(0o555)
    place.put("new")
    assert place.found() == "new"
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o555
    assert names(tmp_path) == ["saved"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_leads_to_is_replaced(kind, tmp_path, there, steps):
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    place = kind(tmp_path / "real")
    if there:
        place.put("old")
    link = kind(tmp_path / "links")
    link.path.symlink_to(pathlib.Path("..") / "real" / place.path.name)
    link.put("new")
    assert link.path.is_symlink()
    assert place.found() == link.found() == "new"
    assert names(tmp_path / "links") == names(tmp_path / "real")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("letter", ["x", "é", "名"])
def test_the_longest_name_that_is_legal(kind, tmp_path, letter, steps):
    place = kind(tmp_path)
    name = letter * (255 // len(letter.encode()))
    place.path = tmp_path / name
    paths.target(place.path, folder=kind is Saved)
    for text in ("old", "new"):
        place.put(text)
        assert place.found() == text
    assert names(tmp_path) == [name]
    with pytest.raises(OSError, match="too long"):
        paths.target(tmp_path / (name + "xx"), folder=kind is Saved)


def test_two_long_names_have_two_places_aside(tmp_path):
    first, second = ("x" * 250 + end for end in "ab")
    assert files.aside(tmp_path / first) != files.aside(tmp_path / second)
    assert files.aside(tmp_path / "a").name == "a.keras-iss-old"


NO_PATHS = {
    "bytes": (b"model", TypeError, "os.fsdecode|str or an os.PathLike"),
    "int": (5, TypeError, "`path` must be.*Received: 5 .of type int."),
    "None": (None, TypeError, "`path` must be.*NoneType"),
    "list": (["a"], TypeError, "`path` must be.*list"),
    "empty": ("", ValueError, "`path` is empty"),
    "null": ("a\0b", ValueError, "null character"),
}


class OfBytes:
    def __fspath__(self):
        return b"model"


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_no_path(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    for path, error, message in NO_PATHS.values():
        with pytest.raises(error, match=message):
            paths.target(path, folder)
    with pytest.raises(TypeError, match="not of bytes.*os.fsdecode"):
        paths.target(OfBytes(), folder)
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="folder.*model.tflite"):
        paths.target(folder)
    with pytest.raises(NotADirectoryError, match="is a file"):
        paths.target(file, folder=True)
    with pytest.raises(NotADirectoryError, match="a part of it is a file"):
        paths.target(file / "inside")
    with pytest.raises(FileNotFoundError, match="missing.*Make it first"):
        paths.target(tmp_path / "missing" / "a")
    with pytest.raises(OSError, match="/dev/null is a device"):
        paths.target("/dev/null")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a pipe"):
        paths.target(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="loop"):
        paths.target(loop)
    lost = tmp_path / "lost"
    lost.symlink_to(tmp_path / "missing" / "a")
    with pytest.raises(FileNotFoundError, match="`?.*lost is a link to"):
        paths.target(lost)
    assert file.read_text() == "mine"


def test_the_current_folder_and_a_disk_are_not_replaced(tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    for path in (".", "..", inside):
        with pytest.raises(OSError, match="current folder.*saved_model"):
            paths.target(path, folder=True)
    with pytest.raises(OSError, match="root of a disk"):
        paths.target("/", folder=True)


def test_a_path_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.target("~/model.tflite") == tmp_path / "model.tflite"


@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_disk_without_room_is_an_os_error_that_names_the_path(tmp_path):
    resource = pytest.importorskip("resource")
    place = Single(tmp_path)
    place.put("old")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            place.put("new" * 1000)
        except OSError as error:
            code = 0 if str(place.path) in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert place.found() == "old"
    assert names(tmp_path) == ["model.tflite"]


def test_an_error_without_a_name_gets_the_path(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for place in (Single(tmp_path), Saved(tmp_path)):
        with pytest.raises(OSError, match="No space left.*") as error:
            place.put("new")
        assert error.value.filename == str(place.path)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_a_system_without_the_step_changes_nothing(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / "a").touch()
    monkeypatch.setattr(sys, "platform", "another")
    assert exchange.exchange(first, second) is False
    monkeypatch.undo()
    assert names(first) == ["a"]
    if sys.platform == "linux" and exchange.exchange(first, second):
        assert names(second) == ["a"]
        with pytest.raises(FileNotFoundError, match="third"):
            exchange.exchange(first, tmp_path / "third")
