"""The rules: one function per layer class or `keras.ops` operation."""

import keras

_LAYER_RULES = {}
_OPERATION_RULES = {}


def register_rule(*classes):
    """Teaches the tracer a layer (or a recurrent cell) of your own.

    Decorates a function `rule(call, ...)`. Its further parameters are those
    of the layer's `call` method; every tensor arrives as a `Traced`: a shape,
    and for each dimension an `Axis` of unit labels or `None`. It returns the
    layer's outputs as `Traced`, in the structure that the layer returns them.
    `call` is a `Call`, whose methods say what the layer does with units:

    - `call.units(size, kind)` makes units, and gives their `Axis`;
    - `call.weight(variable, {axis: Axis})` says which units the axes of a
      variable divide; every weight of the layer must be named, by it or by
      `call.bias`, `call.state` or `call.statistic`;
    - `call.tie(axis, axis)` says that two axes must stay equal;
    - `call.pin(tensor, "what it does")` says that units must stay;
    - `call.output({dimension: Axis})` gives the output, labelled;
    - `call.inner(layer, ...)` and `call.child(layer, ...)` trace a layer
      inside this one.

    A rule holds for exactly the class it is registered for: a subclass may
    compute something else, and needs its own.

    Args:
        *classes: `keras.layers.Layer` classes.

    Returns:
        A decorator.

    Raises:
        TypeError: if no class is given, one is not a Keras layer, or what is
            decorated is no function.

    Examples:
        >>> import keras, keras_iss
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.scale = self.add_weight(shape=(shape[-1],))
        ...     def call(self, x):
        ...         return x * self.scale
        >>> @keras_iss.register_rule(Scale)
        ... def scale(call, x):
        ...     call.bias(call.operation.scale, {0: x.axis(-1)})
        ...     return call.output({-1: x.axes[-1]})
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     Scale(), keras.layers.Dense(1)])
        >>> keras_iss.find_structures(model)["lstm"].pinned is None
        True
    """
    if not classes:
        raise TypeError(
            "`register_rule` takes the layer classes that a rule is for, as in "
            "`@register_rule(MyLayer)`. Received none."
        )
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
            raise TypeError(
                f"`register_rule` takes Keras layer classes. Received: {cls!r}"
            )

    def register(rule):
        if not callable(rule):
            raise TypeError(
                "`register_rule(...)` decorates a function `rule(call, ...)`. "
                f"Received: {rule!r} (of type {type(rule).__name__})"
            )
        _LAYER_RULES.update(dict.fromkeys(classes, rule))
        return rule

    return register


def operation_rule(names):
    """Registers a rule for operations of `keras.ops`.

    Args:
        names: String, the names of their classes, with spaces between.
    """

    def register(rule):
        _OPERATION_RULES.update(dict.fromkeys(names.split(), rule))
        return rule

    return register


def rule_for(operation):
    """The rule for an operation or layer, or `None`."""
    cls = type(operation)
    if isinstance(operation, keras.layers.Layer):
        return _LAYER_RULES.get(cls)
    if cls.__module__.startswith("keras.src.ops."):
        return _OPERATION_RULES.get(cls.__name__)
    return None
