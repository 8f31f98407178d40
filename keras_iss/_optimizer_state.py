"""What an optimizer keeps for each weight: momenta, moments, averages."""

import keras

_NOT_SLOTS = ("_variables", "_trainable_variables")

# Adafactor keeps sums over rows and columns: each lacks one axis.
_LACKS_AXIS = {"_r": -1, "_c": -2}


def slots(optimizer):
    """The variables of a built optimizer that belong to a weight.

    Args:
        optimizer: A built `keras.optimizers.Optimizer`.

    Yields:
        Tuples `(kind, slot, weight, axes)`: what the slot is for, the
        optimizer's variable, the model's, and for each axis of the slot the
        axis of the weight that it is.
    """
    for inner in _inner_optimizers(optimizer):
        if inner.built:
            yield from slots(inner)
    weights = list(optimizer._trainable_variables)
    for name, values in vars(optimizer).items():
        if name in _NOT_SLOTS or not isinstance(values, (list, tuple)):
            continue
        if len(values) != len(weights):
            continue
        for slot, weight in zip(values, weights):
            if not isinstance(slot, keras.Variable):
                continue
            axes = list(range(len(weight.shape)))
            if name in _LACKS_AXIS and len(axes) > 1:
                del axes[_LACKS_AXIS[name]]
            if tuple(slot.shape) == tuple(weight.shape[i] for i in axes):
                yield name, slot, weight, tuple(axes)


def _inner_optimizers(optimizer):
    wrapped = getattr(optimizer, "inner_optimizer", None)
    return [wrapped] if wrapped else getattr(optimizer, "optimizers", [])


def initial_values(optimizer):
    """What the slots of an optimizer hold before its first step.

    Not always zero: some divide by what they hold.

    Returns:
        Dict from the kind of a slot to a float.
    """
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build([keras.Variable([[0.0]], name="kernel")])
    return {
        kind: float(keras.ops.convert_to_numpy(slot).ravel()[0])
        for kind, slot, _, _ in slots(fresh)
    }
