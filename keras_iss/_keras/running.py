"""Calls of a model that leave no trace on it."""

import keras

from keras_iss._keras.layers import seed_states


def call_without_effects(model, call, inputs, values=()):
    """Calls a model; its variables, states and seeds stay as they are.

    Args:
        model: A built `keras.Model`.
        call: Function of the inputs that calls the model, or what is in it.
        inputs: Nested structure of arrays.
        values: Pairs of a variable and the value to use instead of its own.

    Returns:
        Pair of the flat list of the outputs and of whether a generator of
        random numbers was asked.
    """
    if keras.backend.backend() == "jax":
        try:
            return _compiled_call(model, call, inputs, values)
        except Exception:
            # Something that only runs as it stands; or it fails again.
            pass
    return _call(model, call, inputs, list(values))


def _call(model, call, inputs, mapping):
    with keras.StatelessScope(state_mapping=mapping) as scope:
        outputs = keras.tree.flatten(call(inputs))
    changed = set(scope.state_mapping) - {id(v) for v, _ in mapping}
    known = {id(v) for v in model.variables}
    seeds = {id(v) for v in seed_states(model)}
    # What is unknown may be a generator that no layer holds.
    return outputs, bool(changed & seeds or changed - known)


def _compiled_call(model, call, inputs, values):
    """As `_call`, compiled as a whole.

    Each loop would be compiled by itself otherwise, at every call.
    """
    import jax

    values = {id(variable): value for variable, value in values}
    variables = model.variables
    given = [values.get(id(v), v.value) for v in variables]
    seeds = {id(v) for v in seed_states(model)}
    drew = []

    def compute(given, inputs):
        mapping = list(zip(variables, given))
        before = {id(v): value for v, value in mapping}
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = keras.tree.flatten(call(inputs))
        after = scope.state_mapping
        drew.append(
            any(after[key] is not before[key] for key in seeds & before.keys())
            or bool(after.keys() - before.keys())
        )
        return outputs

    lowered = jax.jit(compute).lower(given, inputs)
    # It runs once: what compiles fast is better than what runs fast.
    options = {"xla_backend_optimization_level": 0}
    outputs = lowered.compile(compiler_options=options)(given, inputs)
    return outputs, drew[-1]
