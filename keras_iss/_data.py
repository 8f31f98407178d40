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
        _check_arrays(data, name, model)
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


def _check_arrays(data, name, model):
    parts = as_tuple(data)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{name}` must be {FORMS}. Received a {type(data).__name__} of "
            f"{len(parts)}"
        )
    needs_targets = getattr(model, "loss", None) is not None
    if needs_targets and (len(parts) < 2 or parts[1] is None):
        raise ValueError(
            f"`{name}` has no targets, which the loss of `{model.name}` is "
            f"computed from. It must be {FORMS}."
        )
    counts = {}
    for part, words in zip(parts, ("inputs", "targets", "sample weights")):
        for array in keras.tree.flatten(part):
            if array is None:
                continue
            shape = getattr(array, "shape", None)
            if not shape:
                raise TypeError(
                    f"The {words} in `{name}` must be arrays with an axis of "
                    f"samples. Received: {array!r} (of type "
                    f"{type(array).__name__})"
                )
            counts.setdefault(words, set()).add(shape[0])
    if len(set().union(*counts.values())) > 1:
        raise ValueError(
            f"The arrays in `{name}` must hold equally many samples. Received: "
            + ", ".join(
                f"{' and '.join(map(str, sorted(some)))} {words}"
                for words, some in counts.items()
            )
        )
    if 0 in counts.get("inputs", {0}):
        raise ValueError(f"`{name}` holds no samples.")
