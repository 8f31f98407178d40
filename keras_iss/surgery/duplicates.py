"""Copies of layers that no constructor can make anew.

A layer whose class has no usable `get_config`, or whose constructor does not
take it back, can still stand in the smaller model where nothing of it changes
its size: as a copy, attribute by attribute.
"""

import types

import keras

from keras_iss._keras.layers import (
    attributes,
    bare_layer,
    copied_seed_generator,
    copied_variable,
    finish_building,
    internal_names,
    name_scope_of,
    own_variables,
    track_variable,
)
from keras_iss.surgery.attributes import (
    closes_over_state,
    copied_containers,
    holds_state,
)


class UncopyableError(Exception):
    """A layer holds something that only its constructor could make."""


def duplicate(layer, copy_of_layer):
    """A layer that does the same with variables of its own.

    Args:
        layer: A built `keras.layers.Layer`, not a model.
        copy_of_layer: Function from a layer that this one holds to the one
            that the copy is to hold.

    Returns:
        Pair of the copy, built, and a dict from the `id` of each variable of
        the layer's own to the new one.

    Raises:
        UncopyableError: if it holds what cannot be copied; the message says
            what.
    """
    duplicator = _Duplicator(layer, copy_of_layer)
    return duplicator.copy, duplicator.variables


class _Duplicator:
    def __init__(self, layer, copy_of_layer):
        self._layer = layer
        self._copy_of_layer = copy_of_layer
        self._done = {}
        self.variables = {}
        self.copy = bare_layer(layer)
        self._done[id(layer)] = self.copy
        with name_scope_of(self.copy):
            self._fill()
        finish_building(layer, self.copy)

    def _fill(self):
        hidden = internal_names(self._layer)
        held = attributes(self._layer)
        for name in ("supports_masking", "activity_regularizer", "input_spec"):
            setattr(self.copy, name, getattr(self._layer, name))
        for name, value in held.items():
            if name not in hidden:
                setattr(self.copy, name, self._copied(value, name))
        for variable in own_variables(self._layer):
            if id(variable) not in self.variables:
                track_variable(self.copy, self._variable(variable))

    def _variable(self, variable):
        self.variables[id(variable)] = copied_variable(variable)
        return self.variables[id(variable)]

    def _seed_generator(self, generator):
        new = copied_seed_generator(generator)
        self.variables[id(generator.state)] = new.state
        return new

    def _copied(self, value, name):
        if id(value) not in self._done:
            self._done[id(value)] = self._made(value, name)
        return self._done[id(value)]

    def _made(self, value, name):
        if isinstance(value, keras.layers.Layer):
            return self._copy_of_layer(value)
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, keras.random.SeedGenerator):
            return self._seed_generator(value)
        if isinstance(value, dict):
            return {k: self._copied(v, name) for k, v in value.items()}
        if isinstance(value, (list, tuple, set)) and not hasattr(
            value, "_fields"
        ):
            plain = next(
                kind for kind in (list, tuple, set) if isinstance(value, kind)
            )
            return plain(self._copied(item, name) for item in value)
        if isinstance(value, types.MethodType):
            holder = self._copied(value.__self__, name)
            return types.MethodType(value.__func__, holder)
        if holds_state(value) or closes_over_state(value):
            raise UncopyableError(
                f"its attribute `{name}` reads a layer or a variable in a way "
                "that only the constructor could make anew"
            )
        return copied_containers(value)
