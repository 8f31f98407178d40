"""What a model reads, as a user says it where Keras does not know."""

import dataclasses
import inspect

import keras


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shape and dtype of an input.

    Attributes:
        shape: Tuple of the sizes, the number of samples first; `None` where a
            size is open.
        dtype: Name of the dtype.
    """

    shape: tuple[int | None, ...]
    dtype: str


def normalized(value):
    """An `input_signature` as nested dicts and lists of `Spec`.

    Args:
        value: A `keras.InputSpec`, `keras.KerasTensor` or `tf.TensorSpec`, or
            a list or dict of such.

    Raises:
        TypeError: if it is something else.
        ValueError: if a shape or a dtype is missing.
    """
    if isinstance(value, Spec):
        return value
    if isinstance(value, dict) and value:
        return {key: normalized(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)) and value:
        return [normalized(x) for x in value]
    known = isinstance(value, (keras.InputSpec, keras.KerasTensor))
    if not known and type(value).__name__ != "TensorSpec":
        raise TypeError(
            "`input_signature` must be a keras.InputSpec, a keras.KerasTensor "
            "or a tf.TensorSpec, or a list or dict of such. Received: "
            f"{value!r} (of type {type(value).__name__})."
        )
    shape = None if value.shape is None else tuple(value.shape)
    if not shape or value.dtype is None:
        raise ValueError(
            f"`input_signature` has {value!r}: give it a shape, the number of "
            'samples first, and a dtype, such as keras.InputSpec("int32", '
            "(None, None))."
        )
    return Spec(shape, keras.backend.standardize_dtype(value.dtype))


def inputs_from(model, signature):
    """What a subclassed model reads.

    Args:
        model: A `keras.Model` without a graph of layers.
        signature: What `normalized` gives.

    Returns:
        Tuple of the inputs by the argument of `call`, nested, with zeros for
        tensors, and a list of tuples of name, shape and dtype.

    Raises:
        ValueError: if arguments of `call` are missing.
    """
    parameters = inspect.signature(model.call).parameters
    needed = [
        name
        for name, x in parameters.items()
        if x.default is x.empty
        and x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)
        and name not in ("training", "mask")
    ]
    if len(needed) > 1:
        names = set(signature) if isinstance(signature, dict) else set()
        if not names >= set(needed) or not names <= set(parameters):
            raise ValueError(
                f"`{model.name}` is called with {', '.join(needed)}: give "
                "`input_signature` as a dict by these names."
            )
        arguments = signature
    else:
        arguments = {next(iter(parameters)): signature}
    found = []
    return {
        name: _leaves(value, name, found) for name, value in arguments.items()
    }, found


def _leaves(value, name, found):
    if isinstance(value, dict):
        return {k: _leaves(x, f"{name}_{k}", found) for k, x in value.items()}
    if isinstance(value, list):
        return [_leaves(x, f"{name}_{i}", found) for i, x in enumerate(value)]
    found.append((name, value.shape, value.dtype))
    return 0
