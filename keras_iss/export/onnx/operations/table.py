"""The table of the operations of `keras.ops`: how each is written."""

import collections.abc
import typing

# By the name of the class.
OPERATIONS: dict[str, collections.abc.Callable[..., typing.Any]] = {}


def operation(*names):
    """Has a function write the operations of some classes of Keras.

    Args:
        *names: Names of the classes, such as `"Add"`.
    """

    def register(function):
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return register
