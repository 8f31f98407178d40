"""What a copied layer is to do instead of what its class says.

See `copies.copy_sharing_variables` for the copies.
"""

import contextlib

import keras

from keras_iss._keras.graphs import functional_of

# Parts of the `call` of attention layers.
CAUSAL_MASK = "_compute_causal_mask"
SCORE_MASK = "_calculate_score_mask"
SCORES = "_calculate_scores"

_FUSED = ("_can_attempt_fused_lstm", "_can_attempt_fused_gru")


def override(layer, name, value):
    """Puts something into a layer, past what Keras tracks.

    Args:
        layer: `keras.layers.Layer`, which is changed.
        name: String, the name of an attribute or a method.
        value: What a read of the attribute gives from now on.
    """
    vars(layer)[name] = value


def put_back(layer, name):
    """Takes an override off again. Twice does no harm."""
    vars(layer).pop(name, None)


def without_fused_kernel(layer):
    """Has a Bidirectional call its layers, with no kernel for both."""
    for name in _FUSED:
        if hasattr(layer, name):
            override(layer, name, lambda *args, **kwargs: False)


def compute_in(layer, dtype):
    """Has a layer compute in another dtype.

    Args:
        layer: `keras.layers.Layer`, which is changed.
        dtype: String, or a `keras.DTypePolicy`.
    """
    policy = keras.dtype_policies.get(dtype)
    override(layer, "_dtype_policy", policy)


def take_any_shape(layer):
    """Has a model with a graph take other shapes than its inputs declare.

    Any other layer stays as it is.
    """
    function = functional_of(layer)
    if function is not None:
        override(function, "_manual_input_spec", None)


@contextlib.contextmanager
def overridden(layer, name, value):
    """Has a read of an attribute or a method give something else inside.

    Args:
        layer: `keras.layers.Layer`, which is as it was afterwards.
        name: String.
        value: What a read of it gives.
    """
    held = vars(layer)
    was_there, before = name in held, held.get(name)
    held[name] = value
    try:
        yield
    finally:
        if was_there:
            held[name] = before
        else:
            del held[name]


@contextlib.contextmanager
def fused_kernel_off(layer):
    """As `without_fused_kernel`, inside."""
    with contextlib.ExitStack() as stack:
        for name in _FUSED:
            if hasattr(layer, name):
                never = overridden(layer, name, lambda *args, **kwargs: False)
                stack.enter_context(never)
        yield
