"""Axes along only one of which units may go, and which that is."""

import dataclasses

import numpy as np

from keras_iss.tracing.labels import FIXED


@dataclasses.dataclass(frozen=True, eq=False)
class Conflict:
    """Axes along only one of which units may go.

    Attributes:
        axes: List of integer arrays, the labels of each.
        outcome: Integer array, labels that stand for what comes of them.
        reason: String, why the others stay.
    """

    axes: list
    outcome: np.ndarray
    reason: str


def open_conflicts(statements):
    """Conflicts of axes of which some may still lose units.

    What comes of the others stays.

    Args:
        statements: `Statements` of a whole walk.

    Returns:
        List of pairs of a `Conflict` and the labels that may go, an array
        for each of its axes that has some.
    """
    known = statements.labels
    if not statements.conflicts:
        return []
    wanted = np.zeros(len(known), bool)
    for maker in statements.makers:
        wanted[known.roots(maker.labels)] = True
    waiting = statements.conflicts
    while True:
        found = [
            (conflict, _may_go(known, conflict, wanted)) for conflict in waiting
        ]
        for conflict, free in found:
            if not free:
                known.pin(conflict.outcome, conflict.reason)
        waiting = [conflict for conflict, free in found if free]
        if len(waiting) == len(found):
            return found


def _may_go(known, conflict, wanted):
    """The labels of each axis that may go; those of nobody stay."""
    for labels in conflict.axes:
        own = wanted[known.roots(labels)] | (labels == FIXED)
        known.pin(labels[~own], "no layer that was asked for has it")
    free = [x[~known.pinned(x)] for x in conflict.axes]
    return [labels for labels in free if len(labels)]


def settle(known, conflicts):
    """Pins all but the longest axis of each conflict.

    Args:
        known: `Labels`.
        conflicts: What `open_conflicts` gives.
    """
    for conflict, axes in conflicts:
        axes = [x[~known.pinned(x)] for x in axes]
        longest = max(axes, key=len)
        for labels in axes:
            if labels is not longest:
                known.pin(labels, conflict.reason)
