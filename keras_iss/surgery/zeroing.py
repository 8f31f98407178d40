"""Setting components to zero, all or nothing."""

import contextlib
import tempfile

import keras
import numpy as np

from keras_iss._keras.optimizer_state import initial_values, slots
from keras_iss.structures.slices import by_variable

_IN_MEMORY = 16 * 2**20


def zero_components(removals, optimizer=None):
    """Sets components to zero, with what an optimizer keeps for them.

    A failure on the way puts everything back.

    Args:
        removals: List of pairs `(structure, components)`, the components as
            an integer array.
        optimizer: Optional built optimizer of the model. What it keeps for
            the components is set back to what it was before the first step:
            a component that is zero everywhere gets no gradient, and without
            a momentum nothing else moves it.
    """
    positions = _positions(removals)
    targets = [(*target, 0.0) for target in positions.values()]
    if positions and optimizer is not None and optimizer.built:
        initial = initial_values(optimizer)
        for kind, slot, weight, axes in slots(optimizer):
            if id(weight) in positions:
                along = positions[id(weight)][1]
                kept = {
                    i: along[axis]
                    for i, axis in enumerate(axes)
                    if axis in along
                }
                value = initial.get(kind, 0.0)
                if value is not None:
                    targets.append((slot, kept, value))
    with _restored_on_failure() as backup:
        for variable, axes, new in targets:
            value = _writable(variable)
            backup(variable, value)
            for axis, where in axes.items():
                value[(slice(None),) * axis + (where,)] = new
            variable.assign(value)


def zeroed_values(removals):
    """What variables would hold with components at zero.

    Args:
        removals: As in `zero_components`.

    Returns:
        List of pairs of a variable and a tensor, where it is another value
        than the variable has.
    """
    values = []
    for variable, axes in _positions(removals).values():
        value = _writable(variable)
        places = [
            (slice(None),) * axis + (where,) for axis, where in axes.items()
        ]
        if any(value[place].any() for place in places):
            for place in places:
                value[place] = 0.0
            values.append((variable, keras.ops.convert_to_tensor(value)))
    return values


def zero_elements(structures, threshold):
    """Sets every weight of some structures that is small to zero.

    A failure on the way puts everything back.

    Args:
        structures: List of `Structure`.
        threshold: Float. Weights below it in absolute value become zero.
    """
    slices = [part for structure in structures for part in structure.slices]
    with _restored_on_failure() as backup:
        for variable, parts in by_variable(slices):
            value = _writable(variable)
            backup(variable, value)
            inside = np.zeros(value.shape, bool)
            for part in parts:
                where = (slice(None),) * part.axis + (part.index.ravel(),)
                inside[where] = True
            value[inside & (np.abs(value) < threshold)] = 0
            variable.assign(value)


def _writable(variable):
    """A copy of the value of a variable."""
    value = keras.ops.convert_to_numpy(variable)
    return value if value.flags.owndata else value.copy()


def _positions(removals):
    """For each variable, the positions along each axis that become zero."""
    found = {}
    for structure, components in removals:
        if not len(components):
            continue
        for part in structure.slices:
            if part.zeroed:
                _, axes = found.setdefault(
                    id(part.variable), (part.variable, {})
                )
                axes.setdefault(part.axis, []).append(
                    part.index[components].ravel()
                )
    return {
        key: (
            variable,
            {i: np.unique(np.concatenate(parts)) for i, parts in axes.items()},
        )
        for key, (variable, axes) in found.items()
    }


@contextlib.contextmanager
def _restored_on_failure():
    """Gives a function that remembers a value, in memory or on disk."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as store:
        remembered = []

        def remember(variable, value):
            remembered.append((variable, store.tell(), value.shape))
            if store.tell() + value.nbytes > _IN_MEMORY:
                # Before it writes, or it would hold the value twice.
                store.rollover()
            store.write(np.ascontiguousarray(value).view("uint8"))

        try:
            yield remember
        except BaseException:
            for variable, start, shape in remembered:
                store.seek(start)
                dtype = keras.ops.convert_to_numpy(variable).dtype
                size = int(np.prod(shape)) * dtype.itemsize
                value = np.frombuffer(store.read(size), dtype).reshape(shape)
                variable.assign(value)
            raise


def not_kept(structures, kept):
    """Pairs of a structure and the components that are not kept of it."""
    return [
        (
            structure,
            np.setdiff1d(np.arange(structure.size), kept[structure.name]),
        )
        for structure in structures
        if structure.name in kept
    ]
