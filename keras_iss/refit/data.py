"""Batches of inputs, out of what `estimate_importance` takes."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_iss._data import check_data, is_arrays

BATCH_SIZE = 32


def batches_of(
    data: Any, model: keras.Model, batch_size: int = BATCH_SIZE
) -> Iterator:
    """Batches of inputs. Targets and sample weights are not looked at.

    Args:
        data: As `estimate_importance` takes it, or the inputs alone.
        model: The model that takes the inputs.
        batch_size: Integer, samples in a batch, where `data` are arrays.

    Yields:
        Nested structures of arrays.

    Raises:
        TypeError: if it is none of those.
        ValueError: if there are no inputs, or not equally many of each.
    """
    if data is None:
        raise ValueError(
            "A refit needs `data`: inputs that the model was trained on, for "
            "instance. A few thousand time steps do."
        )
    if is_arrays(data):
        yield from _of_arrays(_inputs_of(data, model), model, batch_size)
        return
    check_data(data)
    for batch in _given_batches(data):
        if isinstance(batch, (tuple, list)):
            batch = _inputs_of(batch, model)
        yield keras.tree.map_structure(_array, batch)


def _given_batches(data):
    if isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        numbers = iter(int, 1) if count is None else range(count)
        return (data[i] for i in numbers)
    return iter(data)


def _inputs_of(data, model):
    """The inputs, where targets and weights may stand beside them.

    A model of several inputs may be given a flat list of them.
    """
    if not isinstance(data, (tuple, list)) or not data:
        return data
    wanted = len(keras.tree.flatten(getattr(model, "inputs", None) or [0]))
    first = len(keras.tree.flatten(data[0]))
    if first != wanted and len(keras.tree.flatten(data)) == wanted:
        return data
    return data[0]


def _of_arrays(inputs, model, batch_size):
    """Batches of samples in a random order, the same every time.

    Samples that follow each other, in a text say, are alike.
    """
    inputs = keras.tree.map_structure(_array, inputs)
    check_data((inputs,))
    count = len(keras.tree.flatten(inputs)[0])
    size = _fixed_batch_size(model)
    order = np.arange(count)
    if size is None:
        # At least a few, so that some can be held back.
        size = max(min(batch_size, count // 4), 1)
        order = np.random.default_rng(0).permutation(count)
    # A last one that is smaller would have to be compiled.
    for start in range(0, max(count - size + 1, 1), size):
        chosen = order[start : start + size]
        yield keras.tree.map_structure(lambda x: x[chosen], inputs)


def _fixed_batch_size(model):
    inputs = getattr(model, "inputs", None) or [None]
    return getattr(inputs[0], "shape", (None,))[0]


def _array(x):
    if isinstance(x, np.ndarray):
        return x
    if keras.ops.is_tensor(x):
        return keras.ops.convert_to_numpy(x)
    return np.asarray(x)
