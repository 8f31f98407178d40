"""Checks of arguments, with errors that name them."""

import math
import numbers

import keras
import numpy as np


def number(value):
    """A number as Python's or NumPy's; an array without axes is one."""
    if getattr(value, "shape", None) == () and not isinstance(
        value, (np.generic, numbers.Number)
    ):
        return np.asarray(keras.ops.convert_to_numpy(value)).item()
    return value


def check_amount(value, name, meaning, finite=True):
    """A number that is not negative, as a float.

    Args:
        value: What was given.
        name: String, the name of the argument.
        meaning: String, ends the sentence of what the number must be.
        finite: Boolean, whether infinity is an error.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is negative or NaN, or infinite.
    """
    value = number(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"`{name}` must be a number. Received: {value!r} (of type "
            f"{type(value).__name__})"
        )
    if math.isnan(value) or value < 0 or (finite and math.isinf(value)):
        raise ValueError(
            f"`{name}` must be zero or more{', and finite' * finite}: "
            f"{meaning}. Received: {value}"
        )
    return float(value)


def is_whole(value):
    """Whether it is an integer, of Python or NumPy, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_count(value, name, least, meaning):
    """A whole number that is not too small, as an integer.

    Args:
        value: What was given.
        name: String, the name of the argument.
        least: Integer, the smallest one.
        meaning: String, what the number is of.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is smaller.
    """
    value = number(value)
    if not is_whole(value):
        raise TypeError(
            f"`{name}` must be an integer, a number of {meaning}. Received: "
            f"{value!r} (of type {type(value).__name__})"
        )
    if value < least:
        raise ValueError(
            f"`{name}` must be {least} or more, a number of {meaning}. "
            f"Received: {value}"
        )
    return int(value)


def check_flag(value, name):
    """Raises unless an argument is a boolean."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"`{name}` must be True or False. Received: {value!r} (of type "
            f"{type(value).__name__})"
        )


def check_model(model, name):
    """Raises unless an argument is a Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{name}` must be a `keras.Model`. Received: {model!r} (of type "
            f"{type(model).__name__})"
        )
