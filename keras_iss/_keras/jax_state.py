"""Where the values of variables are while a compiled step of JAX has them."""

import keras


def sync_values(model):
    """Gives the variables of a model their values, in the middle of an epoch.

    Meanwhile they are in the compiled step of JAX. Elsewhere, and between
    epochs, nothing happens.
    """
    if not getattr(model, "_jax_state_synced", True):
        model.jax_state_sync()


def is_in_compiled_step(variable):
    """Whether a step of JAX holds the value, which no `sync_values` gives."""
    return keras.backend.backend() == "jax" and variable._value is None
