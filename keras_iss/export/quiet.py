"""Keeps what TensorFlow prints during an export from the user's terminal."""

import contextlib
import os
import re
import tempfile
import threading
import warnings

# Notes of TensorFlow's libraries in C++, and what its converter and LiteRT
# print whatever the level of the logs. Errors are none of them.
_NOTES = re.compile(
    rb"[IW]\d{4} \d\d:\d\d:\S+ +\d+ \S+:\d+\] "
    rb"|[IW]0000 00:00:\S+ +\d+ \S+:\d+\] "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\S+: [IW] \S+:\d+\] "
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called"
    rb"|fully_quantize: "
    rb"|INFO: (Created TensorFlow Lite|Initialized TensorFlow Lite)"
)
_STDERR = 2

_lock = threading.Lock()
_inside = 0
_kept = -1
_sink = None
_filters = None


@contextlib.contextmanager
def quiet():
    """Holds back what is written to the standard error of the process.

    At the end the notes of TensorFlow's libraries are left out, and the rest
    is written, also what other threads wrote meanwhile. All of it is written
    if there was an error. `TF_CPP_MIN_LOG_LEVEL=0` in the environment shows
    everything at once.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    _enter()
    failed = True
    try:
        yield
        failed = False
    finally:
        _leave(failed)


def _enter():
    global _inside, _kept, _sink, _filters
    with _lock:
        _inside += 1
        if _inside > 1:
            return
        _filters = warnings.catch_warnings()
        _filters.__enter__()
        # The converter's own use of what TensorFlow gives up.
        warnings.filterwarnings(
            "ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated"
        )
        try:
            kept = os.dup(_STDERR)
        except OSError:
            # The process has no standard error.
            return
        try:
            sink = tempfile.TemporaryFile()  # noqa: SIM115
        except OSError:
            # No room for what would be held back.
            os.close(kept)
            return
        _kept, _sink = kept, sink
        os.dup2(sink.fileno(), _STDERR)


def _leave(failed):
    global _inside, _kept, _sink
    with _lock:
        _inside -= 1
        if not _inside:
            _filters.__exit__()
        if _sink is None:
            return
        if failed or not _inside:
            _write_held(failed)
        if not _inside:
            os.dup2(_kept, _STDERR)
            os.close(_kept)
            _sink.close()
            _kept, _sink = -1, None


def _write_held(everything):
    """Writes what was held back, and forgets it."""
    _sink.seek(0)
    for line in _sink.readlines():
        if everything or not _NOTES.match(line):
            with contextlib.suppress(OSError):
                os.write(_kept, line)
    _sink.seek(0)
    _sink.truncate()
