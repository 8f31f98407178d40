"""A training, from what Keras keeps of it."""

import csv
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_iss.report.data import Removal, Training

ALIVE = "_alive"


def training_of(history: Any) -> Training | None:
    """A training, epoch by epoch.

    Args:
        history: `keras.callbacks.History`, its dict, the path of a file of
            `keras.callbacks.CSVLogger`, a `Training`, or `None`.

    Returns:
        `Training`, or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no epochs.
        TypeError: if it is something else.
    """
    if history is None or isinstance(history, Training):
        return history
    epochs: Sequence[int] | None = None
    if isinstance(history, keras.callbacks.History):
        epochs = [epoch + 1 for epoch in history.epoch]
        history = history.history
    elif isinstance(history, (str, os.PathLike)):
        history, epochs = _of_csv(pathlib.Path(history))
    if not isinstance(history, Mapping):
        raise TypeError(
            "`history` must be what `fit` returned, its dict, or the path of "
            f"a file of `CSVLogger`. Received: {history!r} (of type "
            f"{type(history).__name__})"
        )
    columns = {name: list(values) for name, values in history.items()}
    count = max(map(len, columns.values()), default=0)
    if not count:
        raise ValueError(
            "`history` has no epochs: train the model first, or leave it out."
        )
    if epochs is None or len(epochs) != count:
        epochs = range(1, count + 1)
    return training_from(epochs, columns)


def training_from(
    epochs: Iterable[int],
    columns: Mapping[str, Sequence[Any]],
    sizes: Mapping[str, int] | None = None,
) -> Training:
    """A training from the logs of its epochs.

    Args:
        epochs: Integers, from 1 on.
        columns: Dict from a name in the logs to a value for each epoch. Those
            of `ISSLogger` tell what is alive.
        sizes: Dict from the name of a structure to what was alive at first.
            Defaults to what was in the first epoch.
    """
    epochs = tuple(epochs)
    whole = {name: _padded(x, len(epochs)) for name, x in columns.items()}
    # `CSVLogger` has columns for a validation that there is not.
    whole = {
        name: values
        for name, values in whole.items()
        if any(x is not None for x in values)
    }
    alive = {
        name.removesuffix(ALIVE): tuple(
            None if x is None else int(x) for x in values
        )
        for name, values in whole.items()
        if name.endswith(ALIVE)
    }
    logs = {
        name: values
        for name, values in whole.items()
        if not name.endswith(ALIVE) and name != "epoch"
    }
    return Training(epochs, logs, alive, _removals(epochs, alive, sizes or {}))


def _removals(epochs, alive, sizes):
    found = []
    for name, counts in alive.items():
        last = sizes.get(name, counts[0])
        for epoch, count in zip(epochs, counts):
            if count is None:
                continue
            if last is not None and count != last:
                found.append(Removal(epoch, name, last - count, count))
            last = count
    return tuple(sorted(found, key=lambda removal: removal.epoch))


def _padded(values, count):
    numbers = [_number(value) for value in values][:count]
    return (*numbers, *[None] * (count - len(numbers)))


def _number(value):
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _of_csv(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no `{path}`. Give what `keras.callbacks.CSVLogger` "
            "wrote."
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in rows[0]:
        raise ValueError(
            f"`{path}` has no column `epoch`, or no rows: give what "
            "`keras.callbacks.CSVLogger` wrote."
        )
    epochs = [int(float(row["epoch"])) + 1 for row in rows]
    names = [name for name in rows[0] if name and name != "epoch"]
    return {name: [row[name] for row in rows] for name in names}, epochs
