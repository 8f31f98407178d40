"""The smaller model compiled like the larger one, its optimizer's state cut."""

import warnings

import keras

from keras_iss._keras.compiling import compile_arguments
from keras_iss._keras.optimizer_state import (
    carry_exclusions,
    like,
    slots,
    weights_of,
)
from keras_iss._messages import quoted
from keras_iss._objects import remade
from keras_iss.optimizers import tell_optimizer


def compile_like(old, new, variables, cut):
    """Compiles the new model like the old one, with its optimizer's state."""
    if not old.compiled:
        return
    if type(new).compile is keras.Model.compile:
        arguments = compile_arguments(old)
        # As it is, not as it was given: it may be wrapped to scale losses.
        arguments["optimizer"] = like(old.optimizer) if old.optimizer else None
        for key in ("metrics", "weighted_metrics"):
            arguments[key] = keras.tree.map_structure(
                _metric_like, arguments[key]
            )
        new.compile(**arguments, auto_scale_loss=False)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It speaks of loading.
            new.compile_from_config(old.get_compile_config())
    if not new.compiled:
        warnings.warn(
            f"`{old.name}` has a `compile` of its own, and no "
            "`compile_from_config`: compile the smaller model yourself.",
            stacklevel=5,
        )
    elif old.optimizer is not None:
        carry_exclusions(old.optimizer, new.optimizer, old.weights, variables)
        tell_optimizer(new)
        if old.optimizer.built:
            _carry_optimizer(new, old.optimizer, new.optimizer, variables, cut)


def _metric_like(value):
    """A new metric from its config; anything else as it is."""
    if not isinstance(value, keras.metrics.Metric):
        return value
    try:
        return remade(value)
    except Exception as error:
        raise ValueError(
            f"The metric `{value.name}` ({type(value).__name__}) cannot be "
            f"made anew from its config: {error}. Its class needs a "
            "`get_config` that its constructor takes back; or shrink the "
            "model before it is compiled."
        ) from error


def _carry_optimizer(model, old, new, variables, cut):
    """Gives a new optimizer what the old one keeps for each weight."""
    weights = [
        variables[id(weight)]
        for weight in weights_of(old)
        if id(weight) in variables
    ]
    if {id(v) for v in weights} == {id(v) for v in model.trainable_variables}:
        # In another order, maybe, which is the one that JAX goes by.
        weights = model.trainable_variables
    new.build(weights)
    kept = {
        (kind, id(variables[id(weight)])): cut(slot.value, weight, axes)
        for kind, slot, weight, axes in slots(old)
        if id(weight) in variables
    }
    lost, carried = [], set()
    for kind, slot, weight, _ in slots(new):
        slot.assign(kept[kind, id(weight)])
        carried.add(id(slot))
    in_slots = {id(slot) for _, slot, _, _ in slots(old)}
    counters = [v for v in old.variables if id(v) not in in_slots]
    others = [v for v in new.variables if id(v) not in carried]
    for old_variable, new_variable in zip(counters, others, strict=True):
        if old_variable.shape == new_variable.shape:
            new_variable.assign(cut(old_variable.value, old_variable))
        else:
            lost.append(old_variable.path)
    if lost:
        warnings.warn(
            f"The optimizer `{old.name}` keeps {quoted(lost)} in a way that "
            "keras-iss does not know: they start anew.",
            stacklevel=2,
        )
