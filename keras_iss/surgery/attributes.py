"""What was set on a layer after its constructor, taken over to the new one.

A config holds what a constructor takes. A temperature that a callback lowers,
a function put in place of another, a flag: what stands on the layer itself
and not in its config is compared here, and goes over where it differs.
"""

import functools
import types

import keras
import numpy as np

from keras_iss._keras.layers import attributes, internal_names

_PLAIN = (bool, int, float, complex, str, bytes, type(None))

# Kept by Keras for itself, and yet often set from outside.
_SETTABLE = ("supports_masking", "activity_regularizer", "input_spec")


def carry_attributes(old, new, resized, fresh, built=True):
    """Gives a new layer what was set on the old one.

    Args:
        old: The layer.
        new: The one made from its config.
        resized: Function from an old layer to whether something of it, or of
            what it reads, has another size in the new one.
        fresh: Function from a layer to one like it, made and built from its
            config as it is, or to `None` where that fails. It tells what the
            constructor and `build` set from what was set later.
        built: Boolean, whether the new layer is built. If not, only what
            `build` or the first call may need goes over, which is the case
            for classes of one's own.
    """
    _Carrier(resized, fresh, built).carry(old, new)


def differing_attributes(old, new):
    """What a layer holds that one like it was not given.

    Args:
        old: The layer.
        new: One like it, made from its config, or from that of a model.

    Returns:
        List of pairs of an inner layer of `old`, itself included, and the
        name of an attribute.
    """
    carrier = _Comparer()
    carrier.carry(old, new)
    return carrier.found


class _Carrier:
    def __init__(self, resized, fresh, built):
        self._resized = resized
        self._fresh = functools.cache(fresh)
        self._built = built
        self._seen = set()
        self._counterparts = {}

    def carry(self, old, new):
        if id(old) in self._seen or old is new:
            return
        self._seen.add(id(old))
        self._counterparts[id(old)] = new
        held, got = _settable(old), _settable(new)
        for layer, counterpart in _layers_of_graphs(old, new):
            self.carry(layer, counterpart)
        for name in _names(old):
            value, missing = held[name], name not in got
            other = got.get(name)
            for layer, counterpart in layer_pairs(value, other):
                self.carry(layer, counterpart)
            if missing and _is_stateful(value):
                continue
            if not missing and self._same(value, other):
                continue
            if self._may_go_over(old, name, value, missing):
                self._put(old, new, name, value)

    def _put(self, old, new, name, value):
        value = copied_containers(value)
        try:
            setattr(new, name, value)
        except (AttributeError, ValueError):
            # A property without a setter, or a layer that is built.
            vars(new)[name] = value

    def _may_go_over(self, old, name, value, missing):
        """Whether a value that differs was set, and is not of a size."""
        if holds_state(value) or closes_over_state(value):
            return False
        stock = type(old).__module__.startswith("keras.")
        if not self._built and stock:
            return False
        resized = self._resized(old)
        if self._built and not resized:
            return True
        if resized and (name.endswith("_initializer") or name == "input_spec"):
            # Of a shape that is no more.
            return False
        if stock:
            return missing or not _is_of_numbers(value)
        fresh = self._fresh(old)
        if fresh is None:
            return not resized or not _is_of_numbers(value)
        made = _settable(fresh)
        return name not in made or not self._same(value, made[name])

    def _same(self, value, other, depth=0):
        """Whether two values do the same, each in its layer."""
        if value is other:
            return True
        if self._counterparts.get(id(value), self) is other:
            return True
        if isinstance(value, keras.layers.Layer) or _is_state(value):
            # Layers are gone through by themselves.
            return type(value) is type(other)
        if isinstance(value, _PLAIN) or isinstance(other, _PLAIN):
            return type(value) is type(other) and repr(value) == repr(other)
        if _is_array(value) or _is_array(other):
            return _equal_arrays(value, other)
        if depth > 6 or type(value) is not type(other):
            return False
        return self._same_parts(value, other, depth + 1)

    def _same_parts(self, value, other, depth):
        """Whether two values of one class are made of the same parts."""
        if isinstance(value, type):
            return False
        if isinstance(value, types.MethodType):
            return value.__func__ is other.__func__ and (
                self._same(value.__self__, other.__self__, depth)
            )
        if isinstance(value, types.FunctionType):
            return self._same_functions(value, other, depth)
        if isinstance(value, dict):
            return list(value) == list(other) and all(
                self._same(value[key], other[key], depth) for key in value
            )
        if isinstance(value, (list, tuple)):
            return len(value) == len(other) and all(
                self._same(a, b, depth) for a, b in zip(value, other)
            )
        if not isinstance(value, (set, frozenset)) and (
            hasattr(value, "__dict__")
        ):
            return self._same(vars(value), vars(other), depth)
        return bool(value == other)

    def _same_functions(self, function, other, depth):
        """Whether functions of one source close over the same."""

        def closed_over(value):
            return [
                cell.cell_contents
                for cell in value.__closure__ or ()
                if _is_filled(cell)
            ]

        return self._is_same_code(function.__code__, other.__code__) and all(
            self._same(a, b, depth)
            for a, b in (
                (closed_over(function), closed_over(other)),
                (function.__defaults__, other.__defaults__),
                (function.__kwdefaults__, other.__kwdefaults__),
            )
        )

    def _is_same_code(self, code, other):
        return code is other


class _Comparer(_Carrier):
    """Changes nothing, and lists what would go over."""

    def __init__(self):
        super().__init__(lambda layer: False, lambda layer: None, True)
        self.found = []

    def _is_same_code(self, code, other):
        # A lambda comes out of a file as other code that is equal.
        return code == other

    def _put(self, old, new, name, value):
        # What only makes the first values of weights is used no more.
        if not name.endswith("_initializer"):
            self.found.append((old, name))


def _names(layer):
    """The attributes that are the layer's own affair."""
    hidden = internal_names(layer)
    names = [name for name in attributes(layer) if name not in hidden]
    if type(layer).__module__.startswith("keras."):
        # Of Keras' own, what is private changes as Keras runs; the layers
        # among them are gone through all the same.
        names = [
            name
            for name in names
            if not name.startswith("_") or _has_layers(attributes(layer)[name])
        ]
    return names if isinstance(layer, keras.Model) else [*names, *_SETTABLE]


def _settable(layer):
    """What a layer holds, with what is set through properties."""
    held = attributes(layer)
    if isinstance(layer, keras.Model):
        return held
    return {**held, **{name: getattr(layer, name) for name in _SETTABLE}}


def _has_layers(value):
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(item, keras.layers.Layer) for item in values)


def _layers_of_graphs(old, new):
    """Pairs of the layers of two models, by name."""
    if isinstance(old, keras.Model) and isinstance(new, keras.Model):
        named = {layer.name: layer for layer in new.layers}
        for layer in old.layers:
            if type(named.get(layer.name)) is type(layer):
                yield layer, named[layer.name]


def layer_pairs(value, other):
    """Pairs of layers at the same place of two values."""
    if isinstance(value, keras.layers.Layer):
        if type(value) is type(other):
            yield value, other
    elif isinstance(value, dict) and isinstance(other, dict):
        for key in value:
            yield from layer_pairs(value[key], other.get(key))
    elif isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        for inner, counterpart in zip(value, other):
            yield from layer_pairs(inner, counterpart)


def _is_state(value):
    """Whether it is state of a layer, which goes over by itself."""
    return isinstance(
        value,
        (
            keras.Variable,
            keras.random.SeedGenerator,
            keras.metrics.Metric,
            keras.optimizers.Optimizer,
            keras.KerasTensor,
        ),
    )


def _is_stateful(value):
    foreign = hasattr(type(value), "state_dict") or (
        # A variable or a module of the backend's own.
        hasattr(type(value), "trainable_variables")
        or (hasattr(type(value), "assign") and hasattr(type(value), "shape"))
    )
    return isinstance(value, keras.layers.Layer) or _is_state(value) or foreign


def holds_state(value, depth=0):
    """Whether layers or their state are in it, which are of the old model."""
    if _is_stateful(value):
        return True
    if depth > 6 or isinstance(value, _PLAIN) or _is_array(value):
        return False
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = value
    elif isinstance(value, types.MethodType):
        parts = [value.__self__]
    elif isinstance(value, (type, types.FunctionType, types.ModuleType)):
        return False
    else:
        parts = vars(value).values() if hasattr(value, "__dict__") else ()
    return any(holds_state(part, depth + 1) for part in parts)


def closes_over_state(value, depth=0):
    """Whether it is a function that reads a layer, or the state of one."""
    if depth > 6 or not isinstance(value, types.FunctionType):
        return False
    return any(
        holds_state(cell.cell_contents)
        or closes_over_state(cell.cell_contents, depth + 1)
        for cell in value.__closure__ or ()
        if _is_filled(cell)
    )


def _is_filled(cell):
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_of_numbers(value):
    """Whether it is made of integers or arrays, as sizes and shapes are."""
    if isinstance(value, dict):
        return any(map(_is_of_numbers, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_is_of_numbers, value))
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or _is_array(value)


def _is_array(value):
    return isinstance(value, np.ndarray) or keras.ops.is_tensor(value)


def _equal_arrays(value, other):
    if not (_is_array(value) and _is_array(other)):
        return False
    value, other = map(keras.ops.convert_to_numpy, (value, other))
    if value.dtype != other.dtype or value.shape != other.shape:
        return False
    nan = (value != value) & (other != other)
    return bool(np.all((value == other) | nan))


def copied_containers(value):
    """The value, in containers and arrays that nobody else holds."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if _is_array(value):
        return keras.ops.copy(value)
    if isinstance(value, dict):
        return {key: copied_containers(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset) or (
        isinstance(value, list) and not hasattr(value, "_fields")
    ):
        kind = list if isinstance(value, list) else type(value)
        return kind(map(copied_containers, value))
    return value
