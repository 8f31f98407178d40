"""Samples that a user gives, as arrays for the inputs of a model."""

import numpy as np


def calls_of(arrays, batch, count=None):
    """Data as the inputs of calls.

    Args:
        arrays: List of arrays, one for each input, of as many samples.
        batch: Number of samples in a call; `None` for calls of 1 to 4.
        count: The most calls, taken from all over the data; `None` for all
            there are.

    Returns:
        List of lists of arrays.
    """
    samples, starts, at = len(arrays[0]), [], 0
    while at < samples:
        size = batch or min(len(starts) % 4 + 1, samples - at)
        if at + size > samples:
            break
        starts.append((at, size))
        at += size
    if count is not None and len(starts) > count:
        chosen = np.linspace(0, len(starts) - 1, count).astype(int)
        starts = [starts[i] for i in chosen]
    return [[x[at : at + size] for x in arrays] for at, size in starts]


def checked(inputs, model_name, data, batch, argument, finite):
    """What a user gives for the inputs of a model, as a list of arrays.

    Args:
        inputs: List of `Input`.
        model_name: Name of the model.
        data: An array of shape `(samples, ...)`; for several inputs a list of
            arrays or a dict by name.
        batch: Number of samples in a call, or `None`.
        argument: Name of the argument, for messages.
        finite: Whether NaN and infinity are refused.

    Returns:
        List of arrays in the order of the inputs, of their dtypes.

    Raises:
        TypeError, ValueError: that name the argument and what is wrong.
    """
    names = [x.name for x in inputs]
    if isinstance(data, dict):
        arrays = _by_name(inputs, data, argument)
    elif len(inputs) == 1:
        in_a_list = _is_list_of_arrays(data) and len(data) == 1
        arrays = list(data) if in_a_list else [data]
    elif not isinstance(data, (list, tuple)):
        raise ValueError(
            f"`{argument}` must be a list or a dict of arrays, one for each "
            f"of the inputs {names} of `{model_name}`. Received: "
            f"{_shown(data)}."
        )
    elif len(data) != len(inputs):
        raise ValueError(
            f"`{argument}` has {len(data)} arrays, and `{model_name}` "
            f"{len(inputs)} inputs: {names}."
        )
    else:
        arrays = data
    arrays = [_array(x, value, argument) for x, value in zip(inputs, arrays)]
    for x, array in zip(inputs, arrays):
        _check_array(x, array, batch or 1, argument, finite)
    counts = {x.name: len(array) for x, array in zip(inputs, arrays)}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"The arrays of `{argument}` have different numbers of samples: "
            f"{counts}."
        )
    return [
        array.astype(numpy_dtype(x.dtype)) for x, array in zip(inputs, arrays)
    ]


def _by_name(inputs, data, argument):
    given = [x.given for x in inputs]
    # All by the names of one place: those of two may be mixed up.
    for names in (given, [x.name for x in inputs], [x.key for x in inputs]):
        if set(names) <= set(data):
            break
    else:
        missing = [name for name in given if name not in data]
        raise ValueError(
            f"`{argument}` has no `{missing[0]}`. It has {list(data)}; the "
            f"inputs are {given}."
        )
    unknown = [name for name in data if name not in names]
    if unknown:
        raise ValueError(
            f"`{argument}` has {unknown}, which no input is named; the "
            f"inputs are {given}."
        )
    return [data[name] for name in names]


def _array(x, value, argument):
    refuse_iterators(value, argument)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` for `{x.name}` is no array: {error}"
        ) from error
    if array.dtype.kind not in "biufSU" and array.dtype.name != "bfloat16":
        raise TypeError(
            f"`{argument}` for `{x.name}` must be an array of numbers. "
            f"Received: {_shown(value)}."
        )
    return array


def refuse_iterators(value, argument):
    """Raises a `TypeError` if a value gives samples instead of holding them.

    Args:
        value: What a user gives as an array.
        argument: Name of the argument.
    """
    if hasattr(value, "__next__"):
        kind = "a generator or another iterator"
    elif hasattr(value, "element_spec"):
        kind = "a data set"
    elif callable(value) and not hasattr(value, "shape"):
        kind = "a function"
    else:
        return
    raise TypeError(
        f"`{argument}` is {kind}; give an array of samples, such as "
        f"numpy.stack(list(...)). Received: {_shown(value)}."
    )


def _check_array(x, array, size, argument, finite):
    expected = (f"at least {size}", *x.shape[1:])
    fits = array.ndim == len(x.shape) and all(
        want in (None, got) for want, got in zip(x.shape[1:], array.shape[1:])
    )
    if not fits or len(array) < size or 0 in array.shape:
        raise ValueError(
            f"`{argument}` for `{x.name}` has the shape {array.shape}; "
            f"expected {expected}."
        )
    kind = "f" if array.dtype.name == "bfloat16" else array.dtype.kind
    if kind not in ("f" if is_float(x) else "iub"):
        raise ValueError(
            f"`{argument}` for `{x.name}` is of dtype {array.dtype}; "
            f"expected {x.dtype}."
        )
    if finite and kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"`{argument}` for `{x.name}` holds NaN or infinity.")


def _is_list_of_arrays(data):
    return isinstance(data, (list, tuple)) and all(
        hasattr(x, "shape") and len(x.shape) > 0 for x in data
    )


def _shown(value):
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)}"
    text = repr(value)
    text = text if len(text) < 60 else f"{text[:60]}..."
    return f"{text} (of type {type(value).__name__})"


def numpy_dtype(name):
    """The dtype of the arrays that stand for tensors of a dtype."""
    return "float32" if name == "bfloat16" else name


def is_float(x):
    """Whether an `Input` is of floats."""
    return x.dtype.startswith(("float", "bfloat"))
