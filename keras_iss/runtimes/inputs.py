"""What models are run on: samples that are given, or random numbers."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_iss._messages import quoted
from keras_iss.runtimes.runners import Arrays, InputSpec, Runner

LENGTH = 32
"""Sizes that a model leaves open, where nothing else says them."""


def random_arrays(
    runners: Sequence[Runner], samples: int, length: int = LENGTH
) -> Arrays:
    """Random inputs for models that take the same.

    Args:
        runners: The `Runner`s. A Keras model among them says which integers
            its tables hold; otherwise they are 0 and 1.
        samples: Integer.
        length: Integer, for sizes that are open in all of them.

    Returns:
        List of arrays, in the order of the inputs of the first.
    """
    rng = np.random.default_rng(0)
    arrays = []
    for i, spec in enumerate(runners[0].inputs):
        specs = [_counterpart(spec, i, runner) for runner in runners]
        shape = [samples]
        for axis in range(1, len(spec.shape)):
            sizes = [x.shape[axis] for x in specs if len(x.shape) > axis]
            shape.append(next((s for s in sizes if s is not None), length))
        value: np.ndarray
        limits = [x.limit for x in specs if x.limit is not None]
        if np.dtype(_plain(spec.dtype)).kind in "iu":
            value = rng.integers(0, max(min(limits, default=2), 1), shape)
        elif np.dtype(_plain(spec.dtype)).kind == "b":
            value = rng.random(shape) < 0.5
        elif limits:
            value = rng.integers(0, min(limits), shape)
        else:
            value = rng.standard_normal(shape)
        arrays.append(value.astype(_plain(spec.dtype)))
    return arrays


def default_length(runners: Sequence[Runner]) -> int:
    """How long a sequence of random numbers is for some models.

    Args:
        runners: The `Runner`s. Files of steps take multiples of a step.
    """
    frames = math.lcm(*(getattr(x, "frames", 1) for x in runners))
    return -(-LENGTH // frames) * frames


def arrays_of(data: Any, runner: Runner) -> Arrays:
    """Samples as a model takes them.

    Args:
        data: An array of shape `(samples, ...)`; for several inputs a list,
            or a dict by the names of the inputs.
        runner: The `Runner`.

    Returns:
        List of arrays, in the order of its inputs and of their dtypes.

    Raises:
        ValueError: if they do not fit.
    """
    names = [spec.name for spec in runner.inputs]
    if isinstance(data, Mapping):
        arrays = list(_by_name(data, runner))
    elif isinstance(data, (list, tuple)) and (
        len(runner.inputs) > 1 or len(data) == 1
    ):
        arrays = [np.asarray(x) for x in data]
    else:
        arrays = [np.asarray(data)]
    if len(arrays) != len(names):
        raise ValueError(
            f"The data hold {len(arrays)} arrays, and `{runner.name}` takes "
            f"{len(names)}: {quoted(names)}."
        )
    for spec, array in zip(runner.inputs, arrays):
        _check_shape(spec, array, runner)
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise ValueError(
            f"The arrays of the data hold different numbers of samples: "
            f"{sorted(counts)}."
        )
    return [
        array.astype(_plain(spec.dtype))
        for spec, array in zip(runner.inputs, arrays)
    ]


def in_order_of(runner: Runner, other: Runner, arrays: Arrays) -> Arrays:
    """The inputs of one model as another takes them, by their names.

    Args:
        runner: The `Runner` that is to take them.
        other: The one whose inputs `arrays` are.
        arrays: List of arrays.

    Raises:
        ValueError: if the two do not take the same.
    """
    if len(runner.inputs) != len(other.inputs):
        raise ValueError(
            f"`{other.name}` takes {len(other.inputs)} inputs and "
            f"`{runner.name}` {len(runner.inputs)}: they are not the same "
            "model."
        )
    data: Any = arrays
    if len(arrays) > 1:
        named = {
            plain_name(spec.name): array
            for spec, array in zip(other.inputs, arrays)
        }
        if {plain_name(spec.name) for spec in runner.inputs} == set(named):
            data = named
    return arrays_of(data, runner)


def batches_of(arrays: Arrays, runner: Runner, size: int) -> Iterator[Arrays]:
    """Samples in batches that a model takes.

    Where the model fixes the number of samples, the last batch is filled up
    with its last sample: whoever takes the outputs leaves those out.

    Args:
        arrays: List of arrays.
        runner: The `Runner`.
        size: Integer, for models that leave the number open.

    Yields:
        Lists of arrays.
    """
    fixed = fixed_batch_size(runner)
    size = fixed or size
    for start in range(0, len(arrays[0]), size):
        batch = [array[start : start + size] for array in arrays]
        missing = size - len(batch[0])
        if fixed and missing:
            batch = [
                np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
                for x in batch
            ]
        yield batch


def fixed_batch_size(runner: Runner) -> int | None:
    """The number of samples that a model fixes, or `None`."""
    sizes = [spec.shape[0] for spec in runner.inputs if spec.shape]
    return next((size for size in sizes if size is not None), None)


def plain_name(name: str) -> str:
    """The name of a tensor without what TensorFlow puts around it."""
    return re.sub(r"^serving_default_|:\d+$", "", name)


def _counterpart(spec, place, runner):
    for other in runner.inputs:
        if plain_name(other.name) == plain_name(spec.name):
            return other
    return runner.inputs[min(place, len(runner.inputs) - 1)]


def _plain(dtype):
    return "float32" if dtype == "bfloat16" else dtype


def _by_name(data, runner):
    named = {plain_name(name): value for name, value in data.items()}
    for spec in runner.inputs:
        name = plain_name(spec.name)
        if name not in named:
            raise ValueError(
                f"The data have no `{name}`, which `{runner.name}` takes. "
                f"They have {quoted(data)}."
            )
        yield np.asarray(named[name])


def _check_shape(spec: InputSpec, array: np.ndarray, runner: Runner) -> None:
    sizes = spec.shape[1:]
    fits = array.ndim == len(spec.shape) and all(
        want in (None, got) for want, got in zip(sizes, array.shape[1:])
    )
    if not fits:
        shown = ", ".join("any" if s is None else str(s) for s in sizes)
        raise ValueError(
            f"The data for the input `{spec.name}` of `{runner.name}` have "
            f"the shape {array.shape}; expected (samples, {shown})."
        )
    if not len(array):
        raise ValueError(f"The data for `{spec.name}` hold no samples.")
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"The data for `{spec.name}` are of dtype {array.dtype}; expected "
            f"{spec.dtype}."
        )
