"""Batches of data that an importance is estimated from."""

import dataclasses
from typing import Any

from keras_iss._checks import check_count


@dataclasses.dataclass(frozen=True)
class Batches:
    """Data, and how much of them is looked at.

    Attributes:
        data: As in `estimate_importance`.
        count: Integer, how many batches are looked at.
        size: Integer, samples in a batch, where the data are arrays.
    """

    data: Any
    count: int
    size: int


def check_batches(
    data: Any, batches: int, batch_size: int, needed: str
) -> Batches:
    """The `Batches` that an importance is to be estimated from.

    Args:
        data: What was given, or `None`.
        batches: As it was given.
        batch_size: As it was given.
        needed: String, the sentence of an error for what lacks data.

    Raises:
        ValueError: if there are no data, or one of the numbers is below 1.
        TypeError: if one of the numbers is no integer.
    """
    if data is None:
        raise ValueError(needed)
    return Batches(
        data,
        check_count(batches, "batches", 1, "batches to look at"),
        check_count(batch_size, "batch_size", 1, "samples in a batch"),
    )
