"""What an optimizer keeps for each weight: momenta, moments, averages."""

import keras

_STAND_IN = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 1.0)

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
    weights = weights_of(optimizer)
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


def weights_of(optimizer):
    """The weights that a built optimizer was built for, in order."""
    weights = list(optimizer._trainable_variables)
    # Of older Keras versions, one that scales the loss has none itself.
    for inner in _inner_optimizers(optimizer):
        weights = weights or weights_of(inner)
    return weights


def step_counter(optimizer):
    """The variable that counts the steps, with those that only accumulate."""
    return optimizer._iterations


def _inner_optimizers(optimizer):
    wrapped = getattr(optimizer, "inner_optimizer", None)
    return [wrapped] if wrapped else getattr(optimizer, "optimizers", [])


def initial_values(optimizer):
    """What the slots of an optimizer hold before its first step.

    Returns:
        Dict from the kind of a slot to a float, where it is not zero, or to
        `None` where a slot cannot start anew for some components alone:
        Adafactor's sums over rows and columns vanish if both are small, and
        it divides by their product.
    """
    values = {}
    for part in with_inner(optimizer):
        if hasattr(part, "initial_accumulator_value"):
            values["_accumulators"] = part.initial_accumulator_value
        if isinstance(part, keras.optimizers.Adafactor):
            values.update(_r=None, _c=None, _v=None)
    return values


def like(optimizer):
    """A new optimizer of the same config, not built.

    Raises:
        ValueError: if its config cannot be read or taken back.
    """
    every = list(with_inner(optimizer))
    # Schedules and functions go over as they are, and need no config: what
    # stands in for them has one.
    rates = [vars(part).get("_learning_rate") for part in every]
    free = [callable(rate) and not _is_variable(rate) for rate in rates]
    try:
        for part, is_free in zip(every, free):
            if is_free:
                vars(part)["_learning_rate"] = _STAND_IN
        new = type(optimizer).from_config(optimizer.get_config())
    except Exception as error:
        raise ValueError(
            f"The optimizer `{optimizer.name}` ({type(optimizer).__name__}) "
            f"cannot be made anew from its config: {error}. Its class needs a "
            "`get_config` that its constructor takes back; or shrink the "
            "model before it is compiled."
        ) from error
    finally:
        for part, rate, is_free in zip(every, rates, free):
            if is_free:
                vars(part)["_learning_rate"] = rate
    for part, rate, is_free in zip(with_inner(new), rates, free):
        if is_free:
            vars(part)["_learning_rate"] = rate
    return new


def carry_exclusions(old, new, weights, variables):
    """Gives an optimizer what another one excludes from weight decay.

    Args:
        old: Optimizer.
        new: The one like it.
        weights: List of the weights of the old model.
        variables: Dict from the `id` of an old variable to the new one.
    """
    for part, other in zip(with_inner(old), with_inner(new)):
        known = vars(part)
        if "_exclude_from_weight_decay" in known:
            # Keras' keys for variables differ from backend to backend.
            other._exclude_from_weight_decay = {
                other._var_key(variables[id(weight)])
                for weight in weights
                if id(weight) in variables
                and part._var_key(weight) in known["_exclude_from_weight_decay"]
            }
            other._exclude_from_weight_decay_pattern = known[
                "_exclude_from_weight_decay_pattern"
            ]


def _is_variable(value):
    return isinstance(value, keras.Variable)


def with_inner(optimizer):
    """An optimizer, then those that it wraps; of `None`, nothing."""
    if optimizer is None:
        return
    yield optimizer
    for inner in _inner_optimizers(optimizer):
        yield from with_inner(inner)
