"""A sum of costs, none below zero, fitted to what was measured."""

import numpy as np

# How much a cost is drawn to what an element costs on average, where what was
# measured leaves it open.
_PULL = 1e-3


def fitted(
    terms: np.ndarray, groups: np.ndarray, measured: np.ndarray
) -> np.ndarray:
    """What each term costs, such that relative errors are small.

    Args:
        terms: Float array of shape `(probes, terms)`, how much of each term
            a model has.
        groups: Integer array of shape `(terms,)`. Terms of one group are
            taken to cost alike where nothing says more.
        measured: Float array of shape `(probes,)`, above zero.

    Returns:
        Float array of shape `(terms,)`, none below zero.
    """
    kinds = np.arange(groups.max() + 1)[:, None] == groups
    goal = np.ones(len(measured))
    shared = non_negative(terms @ kinds.T / measured[:, None], goal)
    # Each in parts of what it is of the largest model's cost.
    scale = terms.max(axis=0) / measured.max()
    scale[scale == 0] = 1.0
    rows = terms / scale / measured[:, None]
    prior = (shared @ kinds) * scale
    pull = _PULL * np.eye(len(scale))
    found = non_negative(
        np.vstack([rows, pull]), np.concatenate([goal, pull @ prior])
    )
    return found / scale


def non_negative(matrix: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The least-squares solution without negative numbers.

    Args:
        matrix: Float array of shape `(rows, columns)`.
        goal: Float array of shape `(rows,)`.

    Returns:
        Float array of shape `(columns,)`.

    Source: Lawson and Hanson, "Solving Least Squares Problems", 1974,
    chapter 23.
    """
    count = matrix.shape[1]
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    matrix = matrix / scale
    found, free = np.zeros(count), np.zeros(count, bool)
    for _ in range(3 * count):
        slope = matrix.T @ (goal - matrix @ found)
        slope[free] = -np.inf
        if slope.max(initial=-np.inf) <= 1e-10:
            break
        free[slope.argmax()] = True
        while free.any():
            step = np.zeros(count)
            step[free] = np.linalg.lstsq(matrix[:, free], goal, rcond=None)[0]
            low = free & (step <= 0)
            if not low.any():
                found = step
                break
            # As far towards it as none gets negative.
            part = (found[low] / (found[low] - step[low])).min()
            found = found + part * (step - found)
            free &= found > 1e-12
            found[~free] = 0
    return found / scale
