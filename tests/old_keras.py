"""Tests of what the installed Keras does not have yet are skipped."""

import pathlib
import types

import keras

NEWEST = (3, 15)
"""The Keras version that the tests are written for."""

TESTS = pathlib.Path(__file__).parent


def numbers(version):
    """The first two numbers of a version, as a tuple."""
    return tuple(int(part) for part in version.split(".")[:2])


def lacking(error):
    """What an older Keras lacks that a test asked for, or `None`.

    Args:
        error: An `AttributeError`. What the package itself asks for does not
            count: it has to work without it.
    """
    if numbers(keras.__version__) >= NEWEST:
        return None
    module = error.obj
    is_public = isinstance(
        module, types.ModuleType
    ) and module.__name__.startswith("keras")
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    asked_in = pathlib.Path(trace.tb_frame.f_code.co_filename)
    if is_public and TESTS in asked_in.parents:
        name = module.__name__.replace("keras.api", "keras")
        return f"{name.replace('._tf_keras', '')}.{error.name}"
    return None
