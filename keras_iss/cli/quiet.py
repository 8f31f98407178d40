"""Keeps what libraries in C++ print out of the way of what a verb says."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lets Python alone write to the standard error of the process.

    TensorFlow and LiteRT write lines there while they are imported and at
    their first call, whatever the level of their logs. They are shown where
    `KERAS_ISS_TRACEBACK` is set.
    """
    if os.environ.get("KERAS_ISS_TRACEBACK"):
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        kept = os.dup(2)
    except OSError:  # There is none.
        yield
        return
    python = sys.stderr
    with tempfile.TemporaryFile() as sink:
        sys.stderr = open(  # noqa: SIM115
            kept, "w", buffering=1, errors="backslashreplace"
        )
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            sys.stderr.close()
            sys.stderr = python
