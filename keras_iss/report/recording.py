"""What `ISSLogger` keeps of a training, for a page of it."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from keras_iss.inspection import versions
from keras_iss.report.data import ReportData, Size
from keras_iss.report.gathering import (
    command_of,
    norms_by_name,
    norms_of,
    size_of,
    structure_rows,
    weight_maps,
)
from keras_iss.report.history import training_from
from keras_iss.report.page import write
from keras_iss.structures import Structures


class Recording:
    """A training as it goes on, and the page of it.

    Args:
        path: Where the page is written, after each epoch.

    Raises:
        TypeError: if it is no path.
        FileNotFoundError: if its folder is not there.
    """

    def __init__(self, path: str | os.PathLike[str]):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                "`report` must be the path of the page. Received: "
                f"{path!r} (of type {type(path).__name__})"
            )
        self.path = pathlib.Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"There is no folder `{self.path.parent}` to write the page "
                f"`{self.path.name}` in. Make it first."
            )
        self.begin()

    def begin(self) -> None:
        """Forgets an earlier training."""
        self._epochs: list[int] = []
        self._logs: list[dict[str, Any]] = []
        self._norms: dict[str, tuple[float, ...]] | None = None
        self._before: Size | None = None
        self._sizes: dict[str, int] = {}
        self._alive: dict[str, int] = {}

    def see(self, structures: Structures) -> None:
        """Keeps what a model is before its first epoch."""
        if self._norms is None:
            self._norms = norms_by_name(structures)
            self._before = size_of(structures)
            self._sizes = {x.name: x.size for x in structures}
            self._alive = {x.name: x.alive for x in structures}

    def add(
        self,
        name: str,
        epoch: int,
        logs: Mapping[str, Any],
        structures: Structures,
    ) -> None:
        """Adds an epoch, and writes the page.

        A page that cannot be written is warned of: the training goes on.

        Args:
            name: String, the name of the model.
            epoch: Integer, from 0 on.
            logs: Dict, its logs.
            structures: `Structures` of the model at its end.
        """
        self.see(structures)
        self._epochs.append(epoch + 1)
        self._logs.append(dict(logs))
        try:
            write(self._data(name, structures), self.path)
        except OSError as error:
            warnings.warn(
                f"The report of the training could not be written: {error}",
                stacklevel=2,
            )

    def _data(self, name, structures):
        names = dict.fromkeys(key for logs in self._logs for key in logs)
        columns = {key: [x.get(key) for x in self._logs] for key in names}
        rows = structure_rows(structures)
        return ReportData(
            f"Training of {name}",
            name,
            self._before,
            size_of(structures),
            tuple(
                _with_size_before(row, self._sizes.get(row.name))
                for row in rows
            ),
            training_from(self._epochs, columns, self._alive),
            norms_of(structures, self._norms),
            weight_maps(structures),
            (),
            None,
            False,
            versions(),
            command_of(),
        )


def _with_size_before(row, size):
    return dataclasses.replace(row, size_before=size)
