"""Recurrent layers and cells: they make units, and read others'."""

from typing import Any

import keras
import numpy as np

from keras_iss.tracing.call import Call
from keras_iss.tracing.labels import Traced
from keras_iss.tracing.registry import register_rule
from keras_iss.tracing.rules.activations import (
    keeps_zero,
    pin_unless_elementwise,
)
from keras_iss.tracing.rules.common import broadcast, concatenation

TIME = 1


@register_rule(keras.layers.LSTMCell)
def lstm_cell(call, inputs, states, training=None):
    return _gated(call, inputs, states, gates=4)


@register_rule(keras.layers.GRUCell)
def gru_cell(call, inputs, states, training=None):
    return _gated(call, inputs, states, gates=3)


@register_rule(keras.layers.SimpleRNNCell)
def simple_rnn_cell(call, sequence, states, training=None):
    return _gated(call, sequence, states, gates=1)


def _gated(call, inputs, states, gates):
    """A cell with one block of columns for each gate.

    A removed unit stays at zero if it starts there and its activation is zero
    at zero: its gates read nothing, so its candidate is the activation of 0.
    """
    cell = call.operation
    nested = keras.tree.is_nested(states)
    before = keras.tree.flatten(states)
    units = call.units(cell.units, "recurrent")
    state = call.tie(units, *(x.axis(-1) for x in before))
    zero = np.all([x.axis(-1).zero for x in before], axis=0)
    zero = zero & keeps_zero(cell.activation)
    state = units if state is None else state
    columns = units.repeat(gates)
    features = inputs.axes[-1]
    call.weight(cell.kernel, {0: features, 1: columns})
    call.weight(cell.recurrent_kernel, {0: units, 1: columns})
    call.bias(cell.bias, {-1: columns})
    pin_unless_elementwise(
        call,
        units,
        activation=cell.activation,
        recurrent_activation=getattr(cell, "recurrent_activation", None),
    )
    output = Traced.of(
        (inputs.shape[0], cell.units), {-1: state.with_zero(zero)}
    )
    after = [output for _ in before]
    return output, after if nested else after[0]


@register_rule(keras.layers.StackedRNNCells)
def stacked_cells(call, inputs, states, training=None):
    after = []
    for i, (cell, state) in enumerate(zip(call.operation.cells, states)):
        inputs, new = call.inner(
            cell,
            inputs,
            state,
            config=("cells", i, "config"),
            name=f"{call.name}/{cell.name}",
        )
        after.append(new)
    return inputs, after


@register_rule(keras.layers.RNN)
def rnn(call, sequences, initial_state=None, mask=None, training=None):
    return run_over_time(
        call, sequences, initial_state, config=("cell", "config")
    )


@register_rule(keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
def recurrent_layer(
    call, sequences, initial_state=None, mask=None, training=None
):
    return run_over_time(call, sequences, initial_state)


def run_over_time(
    call: Call,
    sequences: Traced,
    initial_state: Any = None,
    *,
    config: tuple | dict = (),
) -> Any:
    """What a recurrent layer does: it runs its `cell` over time.

    For the rule of a layer that is a subclass of `keras.layers.RNN`. The rule
    of its cell is the one that makes units and names weights.

    Args:
        call: The `Call` of the layer.
        sequences: `Traced` of shape `(batch, time, ...)`.
        initial_state: Optional `Traced`, or list of them, the state before
            the first step.
        config: Where the entries of the cell's config stand in the layer's:
            a tuple put before its keys, or a dict from its keys. Defaults to
            the layer's own entries, as in `keras.layers.LSTM`; where the
            layer holds a serialized cell, as `keras.layers.RNN` does, it is
            `("cell", "config")`.

    Returns:
        The layer's outputs, `Traced`, in the structure that the layer returns
        them, with or without states.

    Examples:
        >>> import keras, keras_iss
        >>> from keras_iss.tracing import run_over_time
        >>> class Reader(keras.layers.RNN):
        ...     def call(
        ...         self, x, initial_state=None, mask=None, training=False
        ...     ):
        ...         return super().call(x, initial_state, mask, training)
        >>> @keras_iss.register_rule(Reader)
        ... def reader(
        ...     call, x, initial_state=None, mask=None, training=None
        ... ):
        ...     config = ("cell", "config")
        ...     return run_over_time(call, x, initial_state, config=config)
    """
    layer, cell = call.operation, call.operation.cell
    sequences = call.pin_all_but(sequences, [-1], "runs over the units")
    step = Traced.of(
        (sequences.shape[0], *sequences.shape[2:]), {-1: sequences.axes[-1]}
    )
    batch = sequences.shape[0]
    before = _initial_state(call, cell.state_size, batch, initial_state)
    result = call.inner(cell, step, before, config=config, name=call.name)
    if result is None:
        size = keras.tree.flatten(cell.state_size)[0]
        call.pin(
            call.units(size, "recurrent"),
            f"runs a cell without a rule, `{type(cell).__name__}` "
            "(`keras_iss.register_rule` takes one)",
        )
        return call.outputs()
    output, after = result
    for old, new in zip(keras.tree.flatten(before), keras.tree.flatten(after)):
        call.tie(old.axis(-1), new.axis(-1))
    for variable, state in zip(
        keras.tree.flatten(layer.states or []), keras.tree.flatten(after)
    ):
        call.state(variable, {-1: state.axes[-1]})
    return _with_time(call, output, after, sequences.shape[TIME])


def _initial_state(call, state_size, batch, given):
    """The states before the first step, nested as the cell takes them."""
    sizes = state_size
    if isinstance(sizes, int):
        sizes = [sizes]
    if given is None:
        return keras.tree.map_structure(
            lambda size: Traced.of((batch, size), {-1: call.unbound(size)}),
            list(sizes),
        )
    given = list(given) if keras.tree.is_nested(given) else [given]
    flat = [
        call.pin_all_but(x, [-1], "starts from it")
        for x in keras.tree.flatten(given)
    ]
    return keras.tree.pack_sequence_as(list(sizes), flat)


def _with_time(call, output, states, steps):
    """What a recurrent layer returns, given its last output and states."""
    layer = call.operation
    if layer.return_sequences:
        batch, *rest = output.shape
        output = output.replace(
            (batch, steps, *rest),
            (output.axes[0], None, *output.axes[1:]),
        )
    if layer.return_state:
        return (output, *states)
    return output


@register_rule(
    keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D
)
def conv_lstm(call, sequences, initial_state=None, mask=None, training=None):
    layer, cell = call.operation, call.operation.cell
    first = cell.data_format == "channels_first"
    channel = 1 if first else -1
    sequences = call.pin_all_but(
        sequences, [2 if first else -1], "convolves over the units"
    )
    units = call.units(cell.filters, "recurrent", key="filters")
    columns = units.repeat(4)
    features = sequences.axes[2 if first else -1]
    shapes = call.output_shapes()
    state_shape = shapes[0]
    if layer.return_sequences:
        state_shape = (state_shape[0], *state_shape[2:])
    spatial = state_shape[2:] if first else state_shape[1:-1]
    positions = int(np.prod([n or 1 for n in spatial]))
    call.weight(cell.kernel, {-2: features, -1: columns}, uses=positions)
    call.weight(cell.recurrent_kernel, {-2: units, -1: columns}, uses=positions)
    call.bias(cell.bias, {0: columns})
    pin_unless_elementwise(
        call,
        units,
        activation=cell.activation,
        recurrent_activation=cell.recurrent_activation,
    )
    zero = np.full(cell.filters, keeps_zero(cell.activation))
    if initial_state is not None:
        for x in keras.tree.flatten(initial_state):
            x = call.pin_all_but(x, [channel], "starts from it")
            call.tie(units, x.axis(channel))
            zero = zero & x.axis(channel).zero
    state = Traced.of(state_shape, {channel: units.with_zero(zero)})
    for variable in keras.tree.flatten(layer.states or []):
        call.state(variable, {channel: units})
    return _with_time(call, state, [state, state], sequences.shape[TIME])


@register_rule(keras.layers.Bidirectional)
def bidirectional(
    call, sequences, initial_state=None, mask=None, training=None
):
    layer = call.operation
    forward_state, backward_state = {}, {}
    if initial_state is not None:
        half = len(initial_state) // 2
        forward_state["initial_state"] = list(initial_state[:half])
        backward_state["initial_state"] = list(initial_state[half:])
    first = call.child(
        layer.forward_layer, ("layer",), sequences, **forward_state
    )
    second = call.child(
        layer.backward_layer, ("backward_layer",), sequences, **backward_state
    )
    if first is None or second is None:
        call.pin([first, second], "wraps a layer without a rule")
        return call.outputs()
    if is_uneven(layer):
        call.pin(
            [first, second],
            "has directions of different sizes, and Keras takes them to be of "
            "one",
        )
        return call.outputs()
    return [*_merged(call, first[0], second[0]), *first[1:], *second[1:]]


def is_uneven(layer):
    """Whether the directions of a `Bidirectional` are joined and differ."""
    forward, backward = (
        getattr(direction.cell, "output_size", None)
        or keras.tree.flatten(direction.state_size)[0]
        for direction in (layer.forward_layer, layer.backward_layer)
    )
    return layer.merge_mode in (None, "concat") and forward != backward


def _merged(call, forward, backward):
    mode = call.operation.merge_mode
    if mode in ("sum", "mul", "ave"):
        zero = np.logical_or if mode == "mul" else np.logical_and
        axes = broadcast(call, [forward, backward], zero.reduce)
        return [forward.replace(axes=axes)]
    channel = _channel(call.operation.forward_layer, len(forward.shape))
    if not _can_be_expanded(call):
        call.same_size(forward.axis(channel), backward.axis(channel))
    if mode is None:
        return [forward, backward]
    # Keras joins the last dimension, whichever the channels are.
    axes = concatenation(call, [forward, backward], -1)
    return [Traced.of(call.output_shapes()[0], axes)]


def _channel(layer, rank):
    """The dimension of the units in the output of a recurrent layer."""
    if getattr(layer.cell, "data_format", None) == "channels_first":
        return 2 if layer.return_sequences else 1
    return rank - 1


def _can_be_expanded(call):
    """Whether surgery may put two layers where the wrapper was.

    Keras takes both directions to be of one size. Two layers and a
    concatenation may differ, but the mask of the output has to be handed on
    by hand, and for that it has to be in sight.
    """
    return (
        call.is_first
        and type(call.operation) is keras.layers.Bidirectional
        and (not call.operation.return_sequences or call.mask_is_known())
    )
