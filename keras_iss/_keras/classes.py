"""Where Keras defines its classes."""


def is_operation_class(cls):
    """Whether a class stands for a function of `keras.ops` in a graph."""
    return cls.__module__.startswith("keras.src.ops.")


def is_keras_class(cls):
    """Whether a class is one of Keras itself."""
    return cls.__module__.startswith("keras.src.")
