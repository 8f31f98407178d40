"""Where Keras defines its classes."""


def is_preprocessing(layer):
    """Whether a layer is one of those that Keras has for preprocessing."""
    return type(layer).__module__.startswith("keras.src.layers.preprocessing.")


def is_operation_class(cls):
    """Whether a class stands for a function of `keras.ops` in a graph."""
    return cls.__module__.startswith("keras.src.ops.")
