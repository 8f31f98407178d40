"""How layers read what they are called on: a table of layer classes.

A reader of a layer gives the layer's places, and what is read there when it
is called. Where no reader is known, nothing is refitted.
"""

import dataclasses
from collections.abc import Callable

import keras
from keras import ops

from keras_iss._keras.layers import inner_layers
from keras_iss._keras.masks import attached_mask
from keras_iss._keras.overrides import overridden
from keras_iss._keras.weights import attention_projections, kernel_of
from keras_iss.refit.places import Bias, Place


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """What a layer reads.

    Attributes:
        layer: `keras.layers.Layer`.
        places: Tuple of `Place`.
        read: Function from what the layer's `call` gave, or `None`, and the
            arguments of the call to a list of triples: a place, the tensor
            read there, of shape `(..., place.size)`, and a mask of its
            leading dimensions, or `None`.
    """

    layer: keras.layers.Layer
    places: tuple
    read: Callable


_READERS: dict[type, Callable] = {}
_CELLS: dict[type, Callable] = {}

_READ_AS_A_WHOLE = (
    keras.layers.RNN,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)


def readers_of(model: keras.Model) -> list[Reader]:
    """The readers of the layers in a model, cells and wrapped layers apart.

    A subclass with a `call` of its own reads in its own way.
    """
    layers = inner_layers(model)
    inside = {
        id(inner)
        for layer in layers
        if isinstance(layer, _READ_AS_A_WHOLE) or _is_seen_by_steps(layer)
        for inner in inner_layers(layer, include_self=False)
    }
    readers = [_reader(x) for x in layers if id(x) not in inside]
    return [reader for reader in readers if reader is not None]


def _is_seen_by_steps(layer):
    """Whether a layer calls others in a loop that nobody sees into."""
    return (
        isinstance(layer, keras.layers.TimeDistributed)
        and _registered(_READERS, layer.layer) is not _dense
    )


def _reader(layer):
    make = _registered(_READERS, layer)
    if (
        make is None
        or not layer.built
        or "call" in vars(layer)
        or not _has_plain_weights(layer)
    ):
        return None
    return make(layer)


def _registered(table, layer):
    return next(
        (
            make
            for cls, make in table.items()
            if isinstance(layer, cls) and type(layer).call is cls.call
        ),
        None,
    )


def _has_plain_weights(layer):
    """Whether a layer multiplies by the variables as they are."""
    return getattr(layer, "quantization_mode", None) is None and not any(
        getattr(inner, "lora_enabled", False) for inner in inner_layers(layer)
    )


def _for(*classes):
    def register(make):
        _READERS.update(dict.fromkeys(classes, make))
        return make

    return register


def _whole(bias):
    return () if bias is None else (Bias(bias),)


@_for(keras.layers.Dense)
def _dense(layer):
    place = Place(kernel_of(layer), biases=_whole(layer.bias))

    def read(outputs, inputs, **kwargs):
        return [(place, inputs, attached_mask(inputs))]

    return Reader(layer, (place,), read)


@_for(keras.layers.EinsumDense)
def _einsum_dense(layer):
    place = _einsum_place(layer)
    if place is None:
        return None

    def read(outputs, inputs, **kwargs):
        return [(place, inputs, attached_mask(inputs))]

    return Reader(layer, (place,), read)


def _einsum_place(layer):
    """The place of a layer that sums over the last letter of its input."""
    read, written = layer.equation.replace(" ", "").split("->")
    read, kernel = read.split(",")
    summed = [x for x in kernel if x in read and x not in written]
    made = [x for x in kernel if x not in read]
    if summed != [read[-1]] or len(made) + 1 != len(kernel):
        return None
    biases = _whole(layer.bias)
    if biases and tuple(layer.bias.shape) != tuple(
        kernel_of(layer).shape[kernel.index(x)] for x in made
    ):
        biases = ()
    return Place(kernel_of(layer), axis=kernel.index(summed[0]), biases=biases)


@_for(keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
def _attention(layer):
    """The projections of query, key and value, by which they are read."""
    projections = attention_projections(layer)
    by_query, by_key, by_value, by_gate = (
        None if x is None else _einsum_place(x)
        for x in (
            projections.query,
            projections.key,
            projections.value,
            projections.gate,
        )
    )
    if by_query is None or by_key is None or by_value is None:
        return None

    def read(
        outputs,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        **kwargs,
    ):
        if key is None:
            key, key_mask = value, value_mask
        found = [
            (by_query, query, query_mask),
            (by_key, key, key_mask),
            (by_value, value, value_mask),
        ]
        if by_gate is not None:
            found.append((by_gate, query, query_mask))
        return found

    places = (by_query, by_key, by_value, by_gate)
    return Reader(layer, tuple(x for x in places if x is not None), read)


@_for(keras.layers.Conv1D)
def _convolution(layer):
    """A constant is only right where no step of padding is read."""
    if layer.data_format != "channels_last" or layer.groups != 1:
        return None
    biases = _whole(layer.bias) if layer.padding == "valid" else ()
    place = Place(kernel_of(layer), axis=1, biases=biases)

    def read(outputs, inputs, **kwargs):
        return [(place, inputs, attached_mask(inputs))]

    return Reader(layer, (place,), read)


@_for(keras.layers.TimeDistributed)
def _time_distributed(layer):
    """A Dense layer inside reads all steps as it would read each."""
    inner = None if _is_seen_by_steps(layer) else _reader(layer.layer)
    if inner is None:
        return None

    def read(outputs, inputs, mask=None, **kwargs):
        return [(inner.places[0], inputs, mask)]

    return Reader(layer, inner.places, read)


# Recurrent layers.


@_for(
    keras.layers.RNN,
    keras.layers.LSTM,
    keras.layers.GRU,
    keras.layers.SimpleRNN,
)
def _recurrent(layer):
    """A cell, seen at all time steps at once."""
    cells = getattr(layer.cell, "cells", None)
    first = cells[0] if cells else layer.cell
    make = _registered(_CELLS, first)
    if make is None:
        return None
    reads_input, reads_state = make(first)
    # Of stacked cells, only the input of the first is seen from outside.
    sees_state = not cells and reads_state is not None
    places = (reads_input, *(reads_state.places if sees_state else ()))

    def read(outputs, sequences, initial_state=None, mask=None, **kwargs):
        found = [(reads_input, sequences, mask)]
        if sees_state:
            steps, before, counts = _states_read(
                layer, outputs, sequences, initial_state, mask
            )
            found += [
                (place, tensor, counts)
                for place, tensor in reads_state.read(steps, before)
            ]
        return found

    return Reader(layer, places, read)


@dataclasses.dataclass(frozen=True, eq=False)
class StateReader:
    """How a cell reads its state.

    Attributes:
        places: Tuple of `Place`.
        read: Function from the inputs and the states before each time step to
            pairs of a place and what is read there.
    """

    places: tuple
    read: Callable


def _states_read(layer, outputs, sequences, initial_state, mask):
    """The inputs and the states before every step, as the layer takes them.

    Returns:
        Triple of two tensors of shape `(batch, time, ...)` and of a mask of
        the steps that count.
    """
    if layer.stateful and initial_state is None:
        initial_state = [ops.convert_to_tensor(x) for x in layer.states]
    after = keras.tree.flatten(outputs)[0] if outputs is not None else None
    hides_states = mask is not None and layer.zero_output_for_mask
    if after is None or not layer.return_sequences or hides_states:
        after = _all_states(layer, sequences, initial_state, mask)
    if initial_state is None:
        first = ops.zeros_like(after[:, :1])
    else:
        first = keras.tree.flatten(initial_state)[0]
        first = ops.cast(first, after.dtype)[:, None]
    before = ops.concatenate([first, after[:, :-1]], axis=1)
    if layer.go_backwards:
        sequences = ops.flip(sequences, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    return sequences, before, mask


def _all_states(layer, sequences, initial_state, mask):
    """The states after every step, whatever the layer gives of them."""
    with (
        overridden(layer, "return_sequences", True),
        overridden(layer, "return_state", False),
        overridden(layer, "stateful", False),
        overridden(layer, "zero_output_for_mask", False),
    ):
        return type(layer).call(
            layer,
            sequences,
            initial_state=initial_state,
            mask=mask,
            training=False,
        )


def register_cell_reader(*classes: type) -> Callable:
    """Says how cells of some classes read.

    The function that is decorated takes a built cell, and gives the `Place`
    that reads its input and the `StateReader` of its state.
    """

    def register(make):
        _CELLS.update(dict.fromkeys(classes, make))
        return make

    return register


@register_cell_reader(keras.layers.LSTMCell, keras.layers.SimpleRNNCell)
def _simple(cell):
    biases = _whole(cell.bias)
    state = Place(cell.recurrent_kernel, biases=biases, is_recurrent=True)
    return (
        Place(cell.kernel, biases=biases),
        StateReader((state,), lambda steps, before: [(state, before)]),
    )


@register_cell_reader(keras.layers.GRUCell)
def _gru(cell):
    if cell.reset_after:
        given, recurrent = (
            () if cell.bias is None else (Bias(cell.bias, (i,)),)
            for i in range(2)
        )
        state = Place(
            cell.recurrent_kernel, biases=recurrent, is_recurrent=True
        )
        return (
            Place(cell.kernel, biases=given),
            StateReader((state,), lambda steps, before: [(state, before)]),
        )
    return Place(cell.kernel, biases=_whole(cell.bias)), _reset_before(cell)


def _reset_before(cell):
    """The candidate reads what the reset gate lets through of the state."""
    units = cell.units

    def place(*columns):
        own = slice(*columns)
        biases = () if cell.bias is None else (Bias(cell.bias, own),)
        return Place(
            cell.recurrent_kernel,
            columns=columns,
            biases=biases,
            is_recurrent=True,
        )

    gates = place(0, 2 * units)
    candidate = place(2 * units, 3 * units)

    def read(steps, before):
        reset = slice(units, 2 * units)
        gate = ops.matmul(steps, cell.kernel[:, reset]) + ops.matmul(
            before, cell.recurrent_kernel[:, reset]
        )
        if cell.bias is not None:
            gate = gate + cell.bias[reset]
        passed = cell.recurrent_activation(gate) * before
        return [(gates, before), (candidate, passed)]

    return StateReader((gates, candidate), read)
