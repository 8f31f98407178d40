"""Models for TF Model Optimization, which takes those of Keras 2, and back."""

import typing

import keras

from keras_iss.tfmot.comparison import verify
from keras_iss.tfmot.conversion import Conversion


def to_tf_keras(model: keras.Model, *, data: typing.Any = None) -> typing.Any:
    """Makes a model of Keras 2 (`tf_keras`) of one of Keras 3.

    The outputs of both are compared before the new model is handed over. It
    is not compiled. States of stateful layers begin at zero.

    Args:
        model: A built `keras.Sequential` or functional model of stock layers,
            that may contain other such models.
        data: Optional inputs to compare on, nested as the model takes them.
            Defaults to random ones.

    Returns:
        A `tf_keras.Model` with the same layers, names, weights and
        `trainable` flags, for TF Model Optimization.

    Raises:
        ImportError: if `tf_keras` is not installed: the extra `tfmot`.
        TypeError: if it is no such model.
        ValueError: if Keras 2 lacks a layer or an argument of it, or random
            inputs do not fit.
        VerificationError: if the outputs differ.

    Example:
        >>> import keras
        >>> from keras_iss import tfmot
        >>> model = keras.Sequential(
        ...     [keras.Input((None, 3)), keras.layers.LSTM(4, name="lstm")]
        ... )
        >>> tfmot.to_tf_keras(model).layers[0].name  # doctest: +SKIP
        'lstm'
    """
    tf_keras = _tf_keras()
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`to_tf_keras` takes a model of Keras 3. Received: "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    new = Conversion(keras, tf_keras).model(model)
    verify(model, new, model, data)
    return new


def from_tf_keras(model: typing.Any, *, data: typing.Any = None) -> keras.Model:
    """Makes a model of Keras 3 of one of Keras 2 (`tf_keras`).

    The outputs of both are compared before the new model is handed over. It
    is not compiled. States of stateful layers begin at zero.

    Args:
        model: A built `tf_keras.Sequential` or functional model of stock
            layers, that may contain other such models. Wrappers of TF Model
            Optimization are to be stripped before.
        data: Optional inputs to compare on, nested as the model takes them.
            Defaults to random ones.

    Returns:
        A `keras.Model` with the same layers, names, weights and `trainable`
        flags, for `keras_iss`.

    Raises:
        ImportError: if `tf_keras` is not installed: the extra `tfmot`.
        TypeError: if it is no such model.
        ValueError: if Keras 3 lacks a layer or an argument of it, or random
            inputs do not fit.
        VerificationError: if the outputs differ.

    Example:
        >>> from keras_iss import tfmot
        >>> small = tfmot.from_tf_keras(model)  # doctest: +SKIP
    """
    tf_keras = _tf_keras()
    if not isinstance(model, tf_keras.Model):
        raise TypeError(
            "`from_tf_keras` takes a model of `tf_keras`. Received: "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    new = Conversion(tf_keras, keras).model(model)
    verify(new, model, new, data)
    return new


def _tf_keras():
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError(
            "`tf_keras` (Keras 2) is not installed. Install it with "
            'pip install "keras-iss[tfmot]".'
        ) from error
    return tf_keras
