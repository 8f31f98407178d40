"""How far outputs are from what they should be."""

import numpy as np


def error_of(got, expected, relative):
    """Largest error, of the size of the outputs where that is above 1.

    Where the model gives NaN or infinity, the file must give the same; the
    error is that of the finite rest.

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
    got, expected = got[finite], expected[finite]
    if expected.size == 0:
        return 0.0
    if not np.isfinite(got).all():
        return np.inf
    difference = got - expected
    if relative:
        size = np.sqrt(np.mean(expected**2))
        return float(np.sqrt(np.mean(difference**2)) / max(size, 1e-6))
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(difference).max()) / scale


def _flat(arrays):
    return np.concatenate([np.ravel(x).astype("float64") for x in arrays])
