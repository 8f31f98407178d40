"""What activations do with units: mix them, or act on each alone."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_iss.tracing.call import Call

_ELEMENTWISE_NAMES = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu "
    "hard_swish hard_tanh leaky_relu linear log_sigmoid mish relu relu6 "
    "selu sigmoid silu soft_shrink softplus softsign sparse_plus "
    "sparse_sigmoid squareplus swish tanh tanh_shrink threshold"
).split()


_ELEMENTWISE = [
    getattr(module, name)
    for module in (keras.activations, keras.ops)
    for name in _ELEMENTWISE_NAMES
    if hasattr(module, name)
]


# They mix along the last dimension, and nowhere else.
_ALONG_THE_LAST = [
    getattr(module, name)
    for module in (keras.activations, keras.ops)
    for name in ("softmax", "log_softmax", "sparsemax")
    if hasattr(module, name)
]


def is_elementwise(activation):
    """Whether an activation is known to act on each unit alone."""
    return activation is None or any(
        activation is known for known in _ELEMENTWISE
    )


def value_at_zero(function):
    """The value of an elementwise function at zero, or `None` if unknown."""
    if function is None:
        return 0.0
    try:
        value = keras.ops.convert_to_numpy(function(keras.ops.zeros((1,))))
        return float(value[0]) if value.shape == (1,) else None
    except Exception:
        return None


def keeps_zero(function: Callable | None) -> bool:
    """Whether an elementwise function is zero at zero.

    Args:
        function: Function of a tensor, such as an activation; `None` is the
            identity.

    Returns:
        Boolean.

    Examples:
        >>> import keras
        >>> from keras_iss.tracing import keeps_zero
        >>> keeps_zero(keras.ops.tanh), keeps_zero(keras.ops.sigmoid)
        (True, False)
    """
    return value_at_zero(function) == 0.0


def through(call, axis, function, what):
    """An axis of what an elementwise function gives.

    Pins it where a removed unit would give no finite number, which even a
    zero weight could not silence.
    """
    if axis is None:
        return None
    value = value_at_zero(function)
    if value is not None and not np.isfinite(value):
        call.pin(axis, f"{what} is not finite at zero")
    return axis.with_zero(axis.zero & (value == 0.0))


def pin_unless_elementwise(
    call: Call, tensors: Any, **activations: Callable | None
) -> None:
    """Pins units that an activation may mix.

    Args:
        call: The `Call`.
        tensors: Nested structure of `Traced` and `Axis`, what the
            activations are taken of.
        **activations: Functions of a tensor, or `None`. Their keywords are
            how the reason names them.

    Examples:
        >>> from keras_iss.tracing import pin_unless_elementwise
        >>> def rule(call, x):
        ...     activation = call.operation.activation
        ...     pin_unless_elementwise(call, x, activation=activation)
        ...     return call.output(dict(enumerate(x.axes)))
    """
    for name, activation in activations.items():
        if not is_elementwise(activation):
            shown = getattr(activation, "__name__", repr(activation))
            call.pin(
                tensors,
                f"has the {name.replace('_', ' ')} `{shown}`, which is not "
                "known to act on each unit alone",
            )


def pin_what_is_mixed(call, axes, activation):
    """Pins units that the activation of a tensor may mix.

    Args:
        call: The `Call`.
        axes: List with an `Axis` or `None` for each dimension of the tensor.
        activation: Function of the tensor, or `None`.
    """
    if any(activation is known for known in _ALONG_THE_LAST):
        axes = axes[-1:]
    pin_unless_elementwise(call, axes, activation=activation)
