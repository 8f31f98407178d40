"""Recurrent layers as the operators LSTM, GRU and RNN of ONNX.

One operator runs one layer over time, or two in both directions. Layers with
a mask are written with it, too, wherever the mask is: the time steps that it
leaves are moved together, the operator is told how many they are, and its
outputs are moved back. Cells that no operator computes run in a loop, see
`scan`.
"""

import dataclasses
import typing

import keras
import numpy as np

from keras_iss.export.onnx import scan
from keras_iss.export.onnx.gates import gates_of
from keras_iss.export.onnx.graph import Value
from keras_iss.export.onnx.masked import packed
from keras_iss.export.onnx.operations.shaping import flipped


@dataclasses.dataclass
class Pass:
    """One run of a cell over time.

    Attributes:
        cell: The cell.
        backwards: Whether it begins with the last time step.
        states: Nested list of the `Value`s of the states to begin with, or
            `None` for zeros.
        zero_masked: Whether outputs at masked time steps are zeros, instead
            of those of the step before.
    """

    cell: typing.Any
    backwards: bool
    states: typing.Any
    zero_masked: bool


@dataclasses.dataclass
class Ran:
    """What a pass gives.

    Attributes:
        outputs: `Value` of shape (batch, time, units), in the order of the
            inputs; `None` where only the last was asked for.
        last: `Value` of the output of the step that came last, of shape
            (batch, units); `None` where all were asked for.
        states: Flat list of the `Value`s of the last states.
    """

    outputs: Value | None
    last: Value | None
    states: list


def rnn(lowering, sequences, initial_state=None, mask=None, **_):
    """`RNN.call`, and that of its subclasses."""
    layer = lowering.layer
    one = _pass_of(lowering, layer, initial_state)
    (ran,) = run(lowering, sequences, _one(mask), [one], layer.return_sequences)
    found = _in_its_order(lowering, layer, ran)
    return (found, *ran.states) if layer.return_state else found


def bidirectional(lowering, sequences, initial_state=None, mask=None, **_):
    """`Bidirectional.call`: one operator where one does."""
    layer = lowering.layer
    pair = layer.forward_layer, layer.backward_layer
    if not all(isinstance(x, keras.layers.RNN) for x in pair):
        lowering.refuse("its layers are no `keras.layers.RNN`")
    halves = None, None
    if initial_state is not None:
        half = len(initial_state) // 2
        halves = initial_state[:half], initial_state[half:]
    passes = [_pass_of(lowering, x, y) for x, y in zip(pair, halves)]
    every_step = layer.return_sequences
    given = lowering, sequences, _one(mask)
    if any(x.return_sequences != every_step for x in pair):
        lowering.refuse("it and its layers differ in `return_sequences`")
    first, second = run(*given, passes, every_step)
    y = _in_its_order(lowering, pair[0], first)
    y_rev = second.outputs if every_step else second.last
    if every_step and not pair[1].go_backwards:
        y_rev = flip_time(lowering, y_rev)
    found = _merged(lowering, layer.merge_mode, y, y_rev)
    if not layer.return_state:
        return found
    parts = found if isinstance(found, tuple) else (found,)
    return (*parts, *first.states, *second.states)


def _one(mask):
    masks = [x for x in keras.tree.flatten(mask) if x is not None]
    return masks[0] if masks else None


def _pass_of(lowering, layer, states):
    if layer.stateful:
        lowering.refuse(
            f"`{layer.name}` is stateful, and an ONNX file keeps nothing from "
            "call to call",
            "Build the model with stateful=False; for states that go in and "
            "out, with initial_state= and return_state=True.",
        )
    if states is not None and not keras.tree.is_nested(states):
        states = [states]
    if states is not None:
        dtype = layer.cell.compute_dtype
        states = keras.tree.map_structure(
            lambda x: lowering.value(x, dtype), list(states)
        )
    return Pass(
        layer.cell, layer.go_backwards, states, layer.zero_output_for_mask
    )


def _in_its_order(lowering, layer, ran):
    """The output of a layer: in the order in which it ran."""
    if not layer.return_sequences:
        return ran.last
    if layer.go_backwards:
        return flip_time(lowering, ran.outputs)
    return ran.outputs


def flip_time(lowering, x):
    """A tensor of shape (batch, time, ...) with its time reversed."""
    new = flipped(lowering, x, [1])
    new.shape = x.shape
    return new


def _merged(lowering, mode, y, y_rev):
    if mode is None:
        return y, y_rev
    if mode == "concat":
        found = lowering.node("Concat", [y, y_rev], axis=-1)
        width = y.sizes[-1] + y_rev.sizes[-1]
        found.shape = (*y.sizes[:-1], width)
        return found
    op_type = {"sum": "Add", "ave": "Add", "mul": "Mul"}[mode]
    found = lowering.node(op_type, [y, y_rev])
    if mode == "ave":
        found = lowering.node("Mul", [found, lowering.value(0.5, y.dtype)])
    found.shape = y.shape
    return found


def run(lowering, x, mask, passes, every_step):
    """Runs cells over the same inputs.

    Args:
        lowering: The `Lowering`.
        x: `Value` of shape (batch, time, features).
        mask: `Value` of shape (batch, time), or `None`.
        passes: List of `Pass`.
        every_step: Whether all outputs are asked for, or the last.

    Returns:
        List of `Ran`, one for each pass.
    """
    gates = [gates_of(one.cell) for one in passes]
    if len(passes) == 2 and x.rank == 3 and _go_together(passes, gates):
        return _operated(lowering, x, mask, passes, gates, every_step)
    return [_alone(lowering, x, mask, one, every_step) for one in passes]


def _go_together(passes, gates):
    first, second = gates
    return (
        None not in gates
        and [one.backwards for one in passes] == [False, True]
        and first.like(second)
        and (passes[0].states is None) == (passes[1].states is None)
    )


def _alone(lowering, x, mask, one, every_step):
    gates = gates_of(one.cell)
    if gates is not None and x.rank == 3:
        return _operated(lowering, x, mask, [one], [gates], every_step)[0]
    if _is_stack(one.cell) and x.rank == 3:
        return _stacked(lowering, x, mask, one, every_step)
    outputs, last, states = scan.over_steps(lowering, x, mask, one, every_step)
    return Ran(outputs, last, states)


def _is_stack(cell):
    return type(cell) is keras.layers.StackedRNNCells and any(
        gates_of(inner) is not None or _is_stack(inner) for inner in cell.cells
    )


def _stacked(lowering, x, mask, one, every_step):
    """A stack of cells as layers, one after the other."""
    cells = one.cell.cells
    states = [None] * len(cells) if one.states is None else one.states
    ended = []
    for i, (cell, own) in enumerate(zip(cells, states)):
        if own is not None and not keras.tree.is_nested(own):
            own = [own]
        # What lies between two cells is masked again.
        inner = Pass(cell, one.backwards, own, one.zero_masked)
        ran = _alone(lowering, x, mask, inner, every_step or i < len(cells) - 1)
        ended += ran.states
        x = ran.outputs
    return Ran(ran.outputs, ran.last, ended)


def _operated(lowering, x, mask, passes, gates, every_step):
    """One operator for one pass, or for two in both directions."""
    steps = None if mask is None else packed(lowering, mask)
    inner = x if steps is None else steps.gather(x)
    first = gates[0]
    direction = "reverse" if passes[0].backwards else "forward"
    states = None
    if passes[0].states is not None:
        states = [
            lowering.node("Concat", parts, axis=0)
            if len(parts) > 1
            else parts[0]
            for parts in zip(
                *(_with_direction(lowering, one.states) for one in passes)
            )
        ]
    inputs = [
        lowering.transpose(inner, [1, 0, 2]),
        *(
            lowering.graph.constant(array, lowering.graph.path(name))
            for name, array in first.weights(gates[1:]).items()
        ),
        None if steps is None else steps.counts,
        *(states or ()),
    ]
    found = lowering.node(
        first.op_type,
        inputs,
        1 + len(first.state_names),
        hidden_size=first.units,
        direction="bidirectional" if len(passes) > 1 else direction,
        **first.attributes(gates[1:]),
    )
    places = (0, 1) if len(passes) > 1 else (None,)
    return [
        _ran(lowering, x, found, steps, place, one, known, every_step)
        for place, one, known in zip(places, passes, gates)
    ]


def _with_direction(lowering, states):
    flat = keras.tree.flatten(states)
    axis = lowering.integers(0)
    return [lowering.node("Unsqueeze", [state, axis]) for state in flat]


def _ran(lowering, x, found, steps, place, one, gates, every_step):
    batch, time = x.sizes[:2]
    y, *ended = found
    states = []
    for state in ended:
        state = _of_direction(lowering, state, place, axis=0)
        state.shape = (batch, gates.units)
        states.append(state)
    outputs = last = None
    if every_step:
        outputs = _of_direction(lowering, y, place, axis=1)
        outputs = lowering.transpose(outputs, [1, 0, 2])
        if steps is not None:
            outputs = steps.scatter(outputs, one.backwards, one.zero_masked)
        outputs.shape = (batch, time, gates.units)
    else:
        last = states[0]
        if steps is not None:
            last = steps.last(last, one.backwards, one.zero_masked)
            last.shape = (batch, gates.units)
    if steps is not None:
        before = [None] * len(states) if one.states is None else one.states
        states = [
            steps.kept(state, start)
            for state, start in zip(states, keras.tree.flatten(before))
        ]
    return Ran(outputs, last, states)


def _of_direction(lowering, x, place, axis):
    """What one of two directions has given, or the only one (`None`)."""
    if place is None:
        return lowering.node("Squeeze", [x, lowering.integers(axis)])
    return lowering.node("Gather", [x, np.array(place, "int64")], axis=axis)
