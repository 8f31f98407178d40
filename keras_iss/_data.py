"""Checks of data to train on, before a training is begun with it."""

import keras

FORMS = (
    "a tuple `(inputs, targets)` or `(inputs, targets, sample_weights)` of "
    "arrays, or a `Dataset`, `PyDataset`, `DataLoader` or generator of such"
)


def check_data(data, name="data", model=None):
    """Raises unless `fit` could train on it.

    Args:
        data: As `fit` takes it to train on, arrays in one tuple.
        name: String, the name of the argument.
        model: Optional compiled model, which says whether there must be
            targets.

    Raises:
        TypeError: if it is none of the forms that `fit` takes.
        ValueError: if it has no targets where the model needs some, no
            samples, or not equally many everywhere.
    """
    if is_arrays(data):
        parts = as_tuple(data)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"`{name}` must be {FORMS}. Received: a {type(data).__name__} "
                f"of {len(parts)}"
            )
        names = [f"{name}[{i}]" for i in range(3)]
        check_arrays(parts, names, model)
        return
    is_dataset = isinstance(data, keras.utils.PyDataset) or (
        hasattr(data, "__iter__") and not isinstance(data, (str, bytes, set))
    )
    if not is_dataset:
        raise TypeError(
            f"`{name}` must be {FORMS}. Received: {data!r} (of type "
            f"{type(data).__name__})"
        )


def is_arrays(data):
    """Whether data are arrays, instead of what yields batches of them."""
    return isinstance(data, (tuple, list, dict)) or hasattr(data, "shape")


def as_tuple(data):
    """Arrays as a tuple of inputs, targets and weights, as far as given."""
    return tuple(data) if isinstance(data, (tuple, list)) else (data,)


def check_arrays(parts, names, model=None):
    """Raises unless arrays hold equally many samples, and some.

    Args:
        parts: Inputs, targets and sample weights, as far as given. Each an
            array, a nest of them, or `None`.
        names: What they are called in a message.
        model: As in `check_data`.

    Raises:
        As `check_data`.
    """
    inputs, targets = parts[0], parts[1] if len(parts) > 1 else None
    if getattr(model, "loss", None) is not None and targets is None:
        raise ValueError(
            f"`{names[1]}` is missing: the targets that the loss of "
            f"`{model.name}` is computed from."
        )
    if inputs is None or not keras.tree.flatten(inputs):
        raise ValueError(f"`{names[0]}` is missing: the inputs of the model.")
    counts = {}
    for name, part in zip(names, parts):
        for array in keras.tree.flatten(part):
            if array is None:
                continue
            shape = getattr(array, "shape", None)
            if not shape:
                raise TypeError(
                    f"`{name}` must be of arrays with an axis of samples. "
                    f"Received: {array!r} (of type {type(array).__name__})"
                )
            counts.setdefault(shape[0], name)
    if len(counts) > 1:
        found = ", ".join(f"`{name}` {n}" for n, name in counts.items())
        raise ValueError(
            f"All arrays must hold equally many samples. Received: {found}"
        )
    if 0 in counts:
        raise ValueError(f"`{names[0]}` holds no samples.")
