"""Weights that Keras layers keep under private names."""

import typing

import keras


def kernel_of(layer):
    """The kernel variable of a Dense, EinsumDense or convolution layer.

    The property `kernel` gives a sum where LoRA is on.
    """
    # A depthwise convolution has only the property.
    return layer._kernel if hasattr(layer, "_kernel") else layer.kernel


def embeddings_of(layer):
    """The variable of an Embedding; the property may give a sum."""
    return layer._embeddings


class Projections(typing.NamedTuple):
    """The layers in front of an attention, and the one behind it.

    Attributes:
        query: `keras.layers.EinsumDense`, as all of them.
        key: The same for the key.
        value: The same for the value.
        output: What is behind the attention.
        gate: What is read from the query for a gate, or `None`.
    """

    query: keras.layers.Layer
    key: keras.layers.Layer
    value: keras.layers.Layer
    output: keras.layers.Layer
    gate: keras.layers.Layer | None


def attention_projections(layer):
    """The `Projections` of a built multi-head or grouped attention."""
    gated = getattr(layer, "_use_gate", getattr(layer, "use_gate", False))
    return Projections(
        layer._query_dense,
        layer._key_dense,
        layer._value_dense,
        layer._output_dense,
        layer._gate_dense if gated else None,
    )


def given_output_shape(attention):
    """The `output_shape` that a MultiHeadAttention was made with, or `None`.

    Without it, the output is as wide as the query.
    """
    return attention._output_shape


def moving_statistics(normalization):
    """The variables of a BatchNormalization that no gradient changes."""
    names = ["moving_mean", "moving_variance"]
    # Older Keras versions have no renormalization.
    if getattr(normalization, "renorm", False):
        names += ["moving_stddev", "renorm_mean", "renorm_stddev"]
    return [getattr(normalization, name) for name in names]
