"""What the weights of components are: their norms, and what is zero."""

import keras
import numpy as np

from keras_iss._messages import quoted
from keras_iss.structures.slices import already_owned, by_variable

OVERLAPS = ("count_twice", "once")


def norms_of(structures, overlap="count_twice"):
    """The group norms of some structures.

    Reads each variable once, however many of the structures lie in it.

    Returns:
        Dict from name to the float array that `Structure.norms` gives.
    """
    check_overlap(overlap)
    structures = list(structures)
    squares = {
        structure.name: np.zeros(structure.size) for structure in structures
    }
    for variable, owned in _owned(structures, lambda _, part: part.counted):
        value = np.square(to_numpy(variable), dtype="float32")
        along = {}
        for structure, parts in owned:
            for i, part in enumerate(parts):
                if overlap == "once" and i:
                    repeated = already_owned(part, parts[:i])
                    counted = np.where(repeated, 0, value).sum(
                        axis=part.other_axes, dtype="float64"
                    )
                else:
                    if part.axis not in along:
                        along[part.axis] = value.sum(
                            axis=part.other_axes, dtype="float64"
                        )
                    counted = along[part.axis]
                squares[structure.name] += part.per_component(counted).sum(
                    axis=1
                )
    return {name: np.sqrt(total) for name, total in squares.items()}


def removed_of(structures):
    """Which components of some structures are removed.

    Reads each variable once, however many of the structures lie in it.

    Returns:
        Dict from name to the boolean array that `Structure.removed` gives.
    """
    structures = list(structures)
    nonzero = {
        structure.name: np.zeros(structure.size, bool)
        for structure in structures
    }
    for variable, owned in _owned(
        structures, lambda structure, part: structure.decides(part)
    ):
        value = to_numpy(variable) != 0
        along = {}
        for structure, parts in owned:
            for part in parts:
                if part.axis not in along:
                    along[part.axis] = value.any(axis=part.other_axes)
                found = part.per_component(along[part.axis])
                nonzero[structure.name] |= found.any(axis=1)
    return {
        structure.name: ~nonzero[structure.name]
        if any(part.counted for part in structure.slices)
        else np.zeros(structure.size, bool)
        for structure in structures
    }


def _owned(structures, chosen):
    """Where structures lie, by variable.

    Returns:
        List of pairs of a variable and a list of pairs `(structure, slices)`.
    """
    owned = {}
    for structure in structures:
        for variable, parts in by_variable(
            structure.slices, lambda part: chosen(structure, part)
        ):
            owned.setdefault(id(variable), (variable, []))[1].append(
                (structure, parts)
            )
    return list(owned.values())


def to_numpy(variable):
    """The value of a variable as a float array that NumPy can compute with."""
    value = keras.ops.convert_to_numpy(variable)
    return value if value.dtype.kind == "f" else value.astype("float32")


def check_finite(structures):
    """Raises if a weight of a structure is NaN or infinite."""
    slices = [part for structure in structures for part in structure.slices]
    for variable, _ in by_variable(slices, lambda part: part.zeroed):
        if not np.isfinite(to_numpy(variable)).all():
            owner = next(
                structure.name
                for structure in structures
                for part in structure.slices
                if part.variable is variable
            )
            raise ValueError(
                f"`{owner}`: the variable `{variable.path}` holds NaN or "
                "infinite values, so that group norms mean nothing. Load "
                "weights from before the training diverged."
            )


def is_finite(structures):
    """Whether no weight of a structure is NaN or infinite."""
    try:
        check_finite(structures)
    except ValueError:
        return False
    return True


def check_overlap(overlap):
    """Raises unless `overlap` is one of the two ways to count."""
    if overlap not in OVERLAPS:
        raise ValueError(
            f"`overlap` must be {quoted(OVERLAPS)}. Received: {overlap!r}"
        )


def frozen(structures, model):
    """What a training of the model does not move.

    Args:
        structures: Iterable of `Structure`.
        model: The `keras.Model` they are of.

    Returns:
        Dict from the name of a structure to the path of its first weight or
        bias that is not trainable, of those that have one.
    """
    trained = {id(v) for v in model.trainable_variables}
    found = {}
    for structure in structures:
        for part in structure.slices:
            is_weight = part.role in ("weight", "bias")
            if is_weight and id(part.variable) not in trained:
                found.setdefault(structure.name, part.variable.path)
    return found
