"""Samples that a user names, as arrays."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_iss.cli.loading import module_of

TARGETS = ("y", "target", "targets", "label", "labels")
_FORMS = (
    "an .npz file with x and y, an .npy file, a .csv file, or MODULE:FUNCTION"
)


@dataclasses.dataclass(frozen=True)
class Data:
    """Samples.

    Attributes:
        inputs: An array, or a dict of arrays by the names of inputs.
        targets: An array, a dict of arrays by the names of outputs, or
            `None`.
    """

    inputs: Any
    targets: Any = None

    @property
    def both(self) -> Any:
        """Inputs, or a tuple of inputs and targets, where there are some."""
        if self.targets is None:
            return self.inputs
        return self.inputs, self.targets

    @property
    def samples(self) -> int:
        """Integer, how many samples there are."""
        first = self.inputs
        if isinstance(first, dict):
            first = next(iter(first.values()))
        return len(first)

    def first(self, count: int | None) -> "Data":
        """The first samples."""
        if count is None:
            return self
        return Data(_cut(self.inputs, count), _cut(self.targets, count))

    def fitting(self, specs: Sequence[Any]) -> "Data":
        """The same as a model takes it.

        Rows of numbers take the shape of its samples, and whole numbers its
        dtype.

        Args:
            specs: Sequence of `InputSpec`, the inputs of the model.
        """
        if isinstance(self.inputs, dict):
            known = {spec.name: spec for spec in specs}
            inputs = {
                name: _fitted(x, known[name]) if name in known else x
                for name, x in self.inputs.items()
            }
            return Data(inputs, self.targets)
        if len(specs) != 1:
            return self
        return Data(_fitted(self.inputs, specs[0]), self.targets)


def read_data(source: str | None, samples: int | None = None) -> Data | None:
    """Reads samples.

    Args:
        source: String, a file or `module:function`; `None` for no data.
        samples: Integer, how many to take at most.

    Returns:
        `Data`, or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds nothing that could be taken for samples.
    """
    if source is None:
        return None
    path = pathlib.Path(source)
    readers = {".npz": _npz, ".npy": _npy, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        module, colon, function = source.rpartition(":")
        if not (colon and module and function.isidentifier()):
            raise ValueError(f"`{source}` is none of {_FORMS}.")
        return _of_function(module, function, samples).first(samples)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no `{source}`. Give {_FORMS} as --data."
        )
    return reader(path).first(samples)


def _npz(path):
    # Never code: a pickle could hold some.
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if not arrays:
        raise ValueError(f"`{path}` holds no arrays.")
    targets = {name: x for name, x in arrays.items() if _is_target(name)}
    inputs = {name: x for name, x in arrays.items() if name not in targets}
    if not inputs:
        raise ValueError(
            f"`{path}` holds {list(arrays)}: name the inputs x, or as the "
            "model's inputs are called."
        )
    return Data(_alone(inputs), _alone(_without_prefix(targets)))


def _npy(path):
    return Data(np.load(path, allow_pickle=False))


def _csv(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError(f"`{path}` holds no rows.")
    names = None
    if not all(_is_number(cell) for cell in rows[0]):
        names, rows = [cell.strip() for cell in rows[0]], rows[1:]
    try:
        table = np.array([[float(cell) for cell in row] for row in rows])
    except ValueError as error:
        raise ValueError(
            f"`{path}` must hold numbers, with as many in each row: {error}"
        ) from error
    if not len(table):
        raise ValueError(f"`{path}` holds no rows below its header.")
    chosen = [names is not None and _is_target(x) for x in names or ()]
    if not any(chosen):
        return Data(_narrow(table))
    mask = np.array(chosen)
    targets = _narrow(table[:, mask])
    return Data(
        _narrow(table[:, ~mask]),
        targets[:, 0] if targets.shape[1] == 1 else targets,
    )


def _of_function(module, name, samples):
    function = getattr(module_of(module), name, None)
    if not callable(function):
        raise ValueError(
            f"`{module}` has no function `{name}`, which --data names."
        )
    found = function()
    if isinstance(found, dict) or hasattr(found, "shape"):
        return Data(found)
    if isinstance(found, (tuple, list)):
        if not 1 <= len(found) <= 3:
            raise ValueError(
                f"`{module}:{name}` must return inputs, or a tuple of inputs "
                f"and targets. It returned {len(found)} parts."
            )
        return Data(found[0], found[1] if len(found) > 1 else None)
    if hasattr(found, "__iter__"):
        return _joined(found, samples, f"{module}:{name}")
    raise ValueError(
        f"`{module}:{name}` must return inputs, a tuple of inputs and "
        f"targets, or batches of them. It returned a {type(found).__name__}."
    )


def _joined(batches, samples, source):
    """Batches of `(inputs, targets)` as one."""
    inputs, targets, count = [], [], 0
    for batch in batches:
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        inputs.append(np.asarray(parts[0]))
        if len(parts) > 1:
            targets.append(np.asarray(parts[1]))
        count += len(inputs[-1])
        if samples is not None and count >= samples:
            break
    if not inputs:
        raise ValueError(f"`{source}` gives no batches.")
    return Data(
        np.concatenate(inputs), np.concatenate(targets) if targets else None
    )


def _is_target(name):
    return name in TARGETS or name.startswith("y_")


def _without_prefix(targets):
    return {name.removeprefix("y_"): x for name, x in targets.items()}


def _alone(arrays):
    """The array itself, where there is one."""
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    return arrays or None


def _cut(arrays, count):
    if isinstance(arrays, dict):
        return {name: x[:count] for name, x in arrays.items()}
    return None if arrays is None else arrays[:count]


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _narrow(table):
    """Whole numbers as integers, others in the precision of weights."""
    whole = np.isfinite(table).all() and (table == np.round(table)).all()
    return table.astype("int64" if whole else "float32")


def _fitted(array, spec):
    array = _in_shape(np.asarray(array), spec.shape)
    dtype = "float32" if spec.dtype == "bfloat16" else spec.dtype
    is_whole = array.dtype.kind in "biu" or (array == np.round(array)).all()
    if np.dtype(dtype).kind == "f" or is_whole:
        return array.astype(dtype)
    return array


def _in_shape(array, shape):
    """Rows of numbers as samples of a shape, where they can be."""
    if array.ndim != 2 or len(shape) <= 2:
        return array
    known = math.prod(size for size in shape[1:] if size is not None)
    open_sizes = sum(size is None for size in shape[1:])
    if open_sizes > 1 or array.shape[1] % known:
        return array
    if not open_sizes and array.shape[1] != known:
        return array
    sizes = [-1 if size is None else size for size in shape[1:]]
    return array.reshape(len(array), *sizes)
