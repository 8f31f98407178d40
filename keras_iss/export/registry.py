"""How a layer of one's own joins the table of lowered layers.

Nothing here needs TensorFlow, so that a module with layers can register what
an export is to do with them wherever it is imported.
"""

import collections.abc
import typing

import keras

_Function = collections.abc.Callable[..., typing.Any]
_Table = dict[type[keras.layers.Layer], _Function]

LAYERS: _Table = {}
CELLS: _Table = {}


def register_lowering(
    *classes: type[keras.layers.Layer],
) -> collections.abc.Callable[[_Function], _Function]:
    """Tells an export how to write a layer of your own.

    Decorates a function `lowered(lowering, ...)`, which exported models call
    in place of the layer's `call`. Its further parameters are those of `call`,
    and it must return what `call` returns. `lowering` is a `Lowering`:

    - `lowering.layer` is the layer;
    - `lowering.original(...)` is its own `call`;
    - `lowering.project(x, kernel, bias)` is a matrix product for all time
      steps at once;
    - `lowering.over_time(step, inputs, states)` runs a step over time, in the
      loop that the file is made with;
    - `lowering.for_litert` says whether LiteRT runs it, or TensorFlow.

    It holds for the class alone and not for subclasses, which may compute
    something else.

    Args:
        *classes: `keras.layers.Layer` classes.

    Returns:
        A decorator that gives the function back.

    Raises:
        TypeError: if no class is given, one is no Keras layer, or what is
            decorated is no function.

    Example:
        >>> import keras, keras_iss
        >>> class Doubled(keras.layers.Layer):
        ...     def call(self, x):
        ...         return 2 * x
        >>> @keras_iss.export.register_lowering(Doubled)
        ... def doubled(lowering, x):
        ...     return x + x
    """
    return _registering("register_lowering", classes, LAYERS)


def register_cell_lowering(
    *classes: type[keras.layers.Layer],
) -> collections.abc.Callable[[_Function], _Function]:
    """Tells an export which part of a recurrent cell needs no loop.

    Decorates a function `hoisted(lowering, x)` for cells that a
    `keras.layers.RNN` runs. `x` are the inputs of all time steps, of shape
    `(time, batch, ...)`. It returns what every step is to read, of shape
    `(time, batch, ...)`, and a function `step(x, states)` from that of one
    time step and a flat list of states to the output and the list of new
    states. `lowering` is as for `register_lowering`; its `layer` is the cell.

    Without it, a cell is called step by step as it is.

    Args:
        *classes: Classes of cells.

    Returns:
        A decorator that gives the function back.

    Raises:
        TypeError: as `register_lowering`.

    Example:
        >>> import keras, keras_iss
        >>> class Leaky(keras.layers.Layer):
        ...     state_size = output_size = 4
        ...     def build(self, shape):
        ...         self.kernel = self.add_weight(shape=(shape[-1], 4))
        ...     def call(self, x, states):
        ...         state = 0.9 * states[0] + keras.ops.matmul(x, self.kernel)
        ...         return state, [state]
        >>> @keras_iss.export.register_cell_lowering(Leaky)
        ... def leaky(lowering, x):
        ...     def step(x, states):
        ...         state = 0.9 * states[0] + x
        ...         return state, [state]
        ...     return lowering.project(x, lowering.layer.kernel), step
    """
    return _registering("register_cell_lowering", classes, CELLS)


def _registering(name, classes, table):
    if not classes:
        raise TypeError(
            f"`{name}` takes the layer classes that a lowering is for, as in "
            f"`@{name}(MyLayer)`. Received none."
        )
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
            raise TypeError(
                f"`{name}` takes Keras layer classes, as in "
                f"`@{name}(MyLayer)`. Received: {cls!r}"
            )

    def register(function):
        if not callable(function):
            raise TypeError(
                f"`{name}(...)` decorates a function. Received: {function!r} "
                f"(of type {type(function).__name__})."
            )
        table.update(dict.fromkeys(classes, function))
        return function

    return register
