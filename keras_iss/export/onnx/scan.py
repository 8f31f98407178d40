"""Loops over time, for what no operator of ONNX runs over time."""

import keras
import numpy as np

from keras_iss._keras.layers import takes_training
from keras_iss.export.onnx.graph import Value


def over_steps(lowering, x, mask, one, every_step):
    """Runs a cell over time in a `Scan`.

    Args:
        lowering: The `Lowering`.
        x: `Value` of shape (batch, time, ...).
        mask: `Value` of shape (batch, time), or `None`.
        one: The `recurrent.Pass`.
        every_step: Whether all outputs are asked for, or the last.

    Returns:
        Tuple of the outputs, of shape (batch, time, ...), in the order of the
        inputs, or `None`; of the last output, of shape (batch, ...), or
        `None`; and of the flat list of the last states.
    """
    begin = one.states
    if begin is None:
        begin = _initial_states(lowering, one.cell, x)
    flat = keras.tree.flatten(begin)
    graph = lowering.graph
    # What a masked step gives is carried, and what is asked for at the end.
    carried = not every_step or (mask is not None and not one.zero_masked)

    def write():
        step = graph.input(
            graph.unique("step"), x.dtype, (x.sizes[0], *x.sizes[2:])
        )
        states = [
            graph.input(graph.unique("state"), s.dtype, s.sizes) for s in flat
        ]
        packed = keras.tree.pack_sequence_as(begin, states)
        output, new = _called(lowering, one.cell, step, packed)
        new = keras.tree.flatten(new)
        before = graph.input(graph.unique("output"), output.dtype, output.sizes)
        inputs = [*states, *([before] if carried else ()), step]
        if mask is not None:
            left = graph.input(graph.unique("mask"), "bool", (x.sizes[0],))
            inputs.append(left)
            new = [_where(lowering, left, a, b) for a, b in zip(new, states)]
            other = lowering.value(np.zeros((), output.dtype))
            if not one.zero_masked:
                other = before
            kept = _where(lowering, left, output, other)
            kept.shape = output.shape
            output = kept
        outputs = [*new, *([output] if carried else ())]
        outputs += [output] if every_step else []
        return inputs, outputs, output

    body, output = graph.body(write)
    start = list(flat)
    if carried:
        start.append(_zeros(lowering, x, output))
    scanned = [x] if mask is None else [x, lowering.value(mask, "bool")]
    found = lowering.node(
        "Scan",
        [*start, *scanned],
        len(start) + int(every_step),
        body=body,
        num_scan_inputs=len(scanned),
        scan_input_axes=[1] * len(scanned),
        scan_input_directions=[int(one.backwards)] * len(scanned),
        scan_output_axes=[1] if every_step else None,
        scan_output_directions=[int(one.backwards)] if every_step else None,
    )
    found = found if isinstance(found, list) else [found]
    for value, like in zip(found, [*flat, output]):
        value.dtype, value.shape = like.dtype, like.shape
    outputs = found[-1] if every_step else None
    last = None if every_step else found[len(flat)]
    if every_step:
        outputs.dtype = output.dtype
        outputs.shape = (output.sizes[0], x.sizes[1], *output.sizes[1:])
    return outputs, last, found[: len(flat)]


def _called(lowering, cell, step, states):
    """The output and the new states of one step of a cell."""
    states = tuple(states)
    if isinstance(cell, keras.layers.Layer):
        kwargs = {"training": False} if takes_training(cell) else {}
        return lowering.call(cell, step, states, **kwargs)
    return lowering.trace(cell.call, step, states)


def _where(lowering, left, new, old):
    """The new numbers of the samples that are not masked."""
    axes = list(range(1, new.rank))
    if axes:
        left = lowering.node("Unsqueeze", [left, lowering.integers(*axes)])
    found = lowering.node("Where", [left, new, old], dtype=new.dtype)
    found.shape = new.shape
    return found


def _zeros(lowering, x, like):
    """Zeros for each sample of a batch, otherwise of the shape of a `Value`."""
    rest = like.sizes[1:]
    if None in rest:
        lowering.refuse("the size of the output of its cell is open")
    shape = lowering.node(
        "Concat", [_batch_of(lowering, x), lowering.integers(*rest)], axis=0
    )
    zero = np.zeros((), like.dtype)
    return lowering.node("Expand", [zero, shape], dtype=like.dtype)


def _batch_of(lowering, x):
    return lowering.node("Shape", [x], dtype="int64", start=0, end=1)


def _initial_states(lowering, cell, x):
    """The states that a cell begins with, for any number of samples."""
    make = getattr(cell, "get_initial_state", None)
    if make is None:
        sizes = cell.state_size
        sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        given = [np.zeros((2, n), cell.compute_dtype) for n in sizes]
    else:
        with keras.StatelessScope():
            given = make(batch_size=2)
        given = list(given) if keras.tree.is_nested(given) else [given]

    def spread(state):
        rows = lowering.value(state)
        array = keras.ops.convert_to_numpy(state)
        if not np.array_equal(array[0], array[1]):
            lowering.refuse("its cell begins with other states in each sample")
        rest = rows.sizes[1:]
        shape = lowering.node(
            "Concat", [_batch_of(lowering, x), lowering.integers(*rest)], axis=0
        )
        found = lowering.node("Expand", [array[:1], shape], dtype=rows.dtype)
        found.shape = (x.sizes[0], *rest)
        return found

    return keras.tree.map_structure(spread, given)


def over_time(lowering, layer, inputs, mask):
    """Calls a layer on each time step by itself.

    Args:
        lowering: The `Lowering`.
        layer: `keras.layers.Layer`.
        inputs: `Value` of shape (batch, time, ...).
        mask: `Value` of shape (batch, time, ...), or `None`.

    Returns:
        `Value` of shape (batch, time, ...).
    """
    graph = lowering.graph
    scanned = [inputs] if mask is None else [inputs, mask]

    def write():
        steps = [
            graph.input(
                graph.unique("step"), x.dtype, (x.sizes[0], *x.sizes[2:])
            )
            for x in scanned
        ]
        kwargs = {} if mask is None else {"mask": steps[1]}
        found = lowering.call(layer, steps[0], **kwargs)
        if not isinstance(found, Value):
            lowering.refuse("the layer that it calls has several outputs")
        return steps, [found], found

    body, found = graph.body(write)
    count = len(scanned)
    new = lowering.node(
        "Scan",
        scanned,
        dtype=found.dtype,
        body=body,
        num_scan_inputs=count,
        scan_input_axes=[1] * count,
        scan_output_axes=[1],
    )
    new.shape = (*inputs.sizes[:2], *found.sizes[1:])
    return new
