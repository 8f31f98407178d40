"""Checks of arguments, with errors that name them."""

import math
import numbers


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


def check_epochs(value, name, least=1, other=""):
    """A number of epochs, as an integer.

    Args:
        value: What was given.
        name: String, the name of the argument.
        least: Integer, the least number that is allowed.
        other: String, what else the argument can be.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"`{name}` must be {other}an integer, a number of epochs. "
            f"Received: {value!r} (of type {type(value).__name__})"
        )
    if value < least:
        raise ValueError(f"`{name}` must be {least} or more. Received: {value}")
    return int(value)
