"""Processes that run exported files, one of each kind for all tests."""

import contextlib

import pytest

from tests.serving import Server


@pytest.fixture(scope="session")
def lite():
    """Runs TFLite files in a process that has LiteRT and NumPy only."""
    with contextlib.closing(Server("lite")) as server:
        yield server


@pytest.fixture(scope="session")
def tensorflow():
    """Runs SavedModels in a process that has no Keras."""
    with contextlib.closing(Server("saved_model")) as server:
        yield server
