"""How a layer of one's own joins the table of layers that ONNX can have."""

import collections.abc
import typing

import keras

_Function = collections.abc.Callable[..., typing.Any]

LAYERS: dict[type[keras.Operation], _Function] = {}


def register_onnx_lowering(
    *classes: type[keras.Operation],
) -> collections.abc.Callable[[_Function], _Function]:
    """Tells `export_onnx` how to write a layer of your own.

    A layer whose `call` is written with `keras.ops` and other layers needs no
    entry: its `call` is followed. One whose `call` is not, or that ONNX has an
    operator for, gets one here.

    Decorates a function `written(lowering, ...)`. Its further parameters are
    those of `call`, with a `Value` for each tensor, and it returns what `call`
    returns, of `Value`s. `lowering` is a `Lowering`:

    - `lowering.layer` is the layer;
    - `lowering.node("Gemm", [x, kernel, bias], alpha=1.0)` adds a node to the
      graph and gives the `Value` of its output; variables and arrays become
      constants;
    - `lowering.call(layer, x)` writes another layer, and
      `lowering.trace(function, x)` a function that is written with
      `keras.ops`;
    - `lowering.refuse(reason)` ends the export with an error.

    A `Value` has a `shape`, `None` where a size is open, and a `dtype`. It
    holds for the class alone and not for subclasses, which may compute
    something else.

    Args:
        *classes: `keras.layers.Layer` classes, or classes of operations.

    Returns:
        A decorator that gives the function back.

    Raises:
        TypeError: if no class is given, one is no Keras layer or operation,
            or what is decorated is no function.

    Example:
        >>> import keras, keras_iss
        >>> class Doubled(keras.layers.Layer):
        ...     def call(self, x):
        ...         return 2 * x
        >>> @keras_iss.export.register_onnx_lowering(Doubled)
        ... def doubled(lowering, x):
        ...     return lowering.node("Add", [x, x])
    """
    if not classes:
        raise TypeError(
            "`register_onnx_lowering` takes the layer classes that a lowering "
            "is for, as in `@register_onnx_lowering(MyLayer)`. Received none."
        )
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, keras.Operation)):
            raise TypeError(
                "`register_onnx_lowering` takes Keras layer classes, as in "
                f"`@register_onnx_lowering(MyLayer)`. Received: {cls!r}"
            )

    def register(function):
        if not callable(function):
            raise TypeError(
                "`register_onnx_lowering(...)` decorates a function. "
                f"Received: {function!r} (of type {type(function).__name__})."
            )
        LAYERS.update(dict.fromkeys(classes, function))
        return function

    return register
