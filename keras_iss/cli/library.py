"""Runs the package where only its place was taken."""

import importlib
import sys
import warnings
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")


def library() -> Any:
    """The package `keras_iss`, run if it has not been yet.

    The program puts it in its place without running it, see
    `_keras_iss_command`. Warnings are single lines from here on.

    Returns:
        The module.

    Raises:
        ImportError: if the backend of Keras is not installed.
    """
    warn_in_one_line()
    module = sys.modules["keras_iss"]
    if not hasattr(module, "__version__"):
        loader = getattr(module.__spec__, "loader", None)
        assert loader is not None  # It is a package in a folder.
        try:
            loader.exec_module(module)
        except ModuleNotFoundError as error:
            if error.name not in BACKENDS:
                raise
            raise ImportError(
                f"Keras needs a backend, and `{error.name}` is not installed: "
                f'pip install "keras-iss[{error.name}]", or set KERAS_BACKEND '
                f"to one of {', '.join(BACKENDS)} that is."
            ) from error
    return importlib.import_module("keras_iss")


def warn_in_one_line() -> None:
    """Has warnings shown as one line each, without a place in a source."""

    def show(message, category, filename, lineno, file=None, line=None):
        if issubclass(category, UserWarning):
            text = " ".join(str(message).split())
            print(f"keras-iss: note: {text}", file=file or sys.stderr)

    warnings.showwarning = show


def version() -> str:
    """The version, read without running the package."""
    from keras_iss.version import __version__

    return __version__
