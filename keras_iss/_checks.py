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


def is_whole(value):
    """Whether it is an integer, of Python or NumPy, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
