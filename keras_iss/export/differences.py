"""How far outputs are from what they should be."""

import numpy as np

# Such numbers stand for infinity, in masks above all: beside them, every
# error of the others would be small.
_LARGE = 1e6


def error_of(got, expected, relative):
    """Largest error, of the size of the outputs where that is above 1.

    Where the model gives NaN or infinity, the file must give the same; the
    error is that of the finite rest. Numbers from a million on are judged
    apart from the others.

    Args:
        got: List of arrays.
        expected: List of arrays of the model's own output.
        relative: Whether to take the root mean square of the error over that
            of the output instead.
    """
    if any(a.shape != b.shape for a, b in zip(got, expected, strict=True)):
        return np.inf
    got, expected = _flat(got), _flat(expected)
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
        return np.inf
    if not np.isfinite(got[finite]).all():
        return np.inf
    large = finite & (np.abs(np.where(finite, expected, 0)) >= _LARGE)
    measure = _relative_error if relative else _absolute_error
    return max(
        measure(got[part], expected[part]) for part in (large, finite & ~large)
    )


def _flat(arrays):
    return np.concatenate([np.ravel(x).astype("float64") for x in arrays])


def _relative_error(got, expected):
    if expected.size == 0:
        return 0.0
    size = np.sqrt(np.mean(expected**2))
    return float(np.sqrt(np.mean((got - expected) ** 2)) / max(size, 1e-6))


def _absolute_error(got, expected):
    if expected.size == 0:
        return 0.0
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(got - expected).max()) / scale
