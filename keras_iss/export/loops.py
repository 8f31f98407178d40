"""Loops that run a step over time.

All of them run the same steps: `graph_loop` with TensorFlow's own tensor
arrays; `lite_loop` without, since LiteRT has none; `unrolled_loop` without a
loop; and `step_loop`, or `unrolled_step_loop`, for some time steps of a longer
sequence.
"""

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from keras_iss.export.shapes import sizes

# A LiteRT loop copies its outputs so far in every iteration. An inner loop
# over a chunk of the time steps keeps that copy small.
CHUNK = 8
LONG_CHUNK = 16
SHORT = 32


def graph_loop(x, step, states, mask, every_step, zero_masked):
    """Runs `step` over time, for TensorFlow.

    Args:
        x: Tensor of shape (time, batch, ...), the projected inputs.
        step: Function from the inputs of one time step and the states to the
            output and the new states.
        states: Flat list of tensors of shape (batch, ...).
        mask: Boolean tensor of shape (time, batch), or `None`.
        every_step: Whether to give the outputs of every time step.
        zero_masked: Whether masked outputs are zero; else they are the
            output before.

    Returns:
        Tuple of the last output, of shape (batch, ...), the outputs, of
        shape (time, batch, ...) or `None`, and the list of new states.
    """
    steps = tf.shape(x)[0]
    rest, dtype = _output_kind(x, step, states)
    inputs = tf.TensorArray(x.dtype, steps, element_shape=x.shape[1:])
    inputs = inputs.unstack(x)
    outputs = tf.TensorArray(
        dtype,
        steps if every_step else 0,
        element_shape=[x.shape[1], *rest],
    )
    previous = _previous(x, rest, dtype, mask, every_step)
    masked_step = _masked(step, zero_masked)

    def body(t, previous, states, outputs):
        x_t = inputs.read(t)
        if mask is None:
            output, states = step(x_t, states)
        else:
            output, states = masked_step(x_t, mask[t], previous[0], states)
        if every_step:
            outputs = outputs.write(t, output)
        return t + 1, [output] * len(previous), list(states), outputs

    _, previous, states, outputs = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (0, previous, list(states), outputs),
        shape_invariants=(
            tf.TensorShape([]),
            *_invariants(x, rest, previous, states),
            tf.TensorShape(None),
        ),
    )
    outputs = outputs.stack() if every_step else None
    return previous[0] if previous else outputs[-1], outputs, states


def lite_loop(x, step, states, mask, every_step, zero_masked, before=None):
    """Runs `step` over time, for LiteRT; see `graph_loop`.

    `before` is the output before the first time step, instead of zeros.
    """
    rest, dtype = _output_kind(x, step, states)
    if x.shape[0] == 1:
        if before is None:
            before = tf.zeros([sizes(x, 2)[1], *rest], dtype)
        return _one_step(x, step, states, mask, every_step, zero_masked, before)
    steps, (size, batch) = tf.shape(x)[0], sizes(x, 2)
    chunk = _chunk(x.shape[0], x.shape[1]) if every_step else None
    previous = _previous(x, rest, dtype, mask, every_step)
    if before is not None:
        previous = [before for _ in previous]
    states = list(states)
    invariants = _invariants(x, rest, previous, states)
    run = _lite_while(step, zero_masked, len(rest), invariants)

    def zeros(size):
        return tf.zeros([size, batch, *rest], dtype)

    if chunk is None:
        outputs = [zeros(size)] if every_step else []
        previous, states, outputs = run(
            x, mask, steps, previous, states, outputs
        )
        outputs = outputs[0] if every_step else None
    else:
        previous, states, outputs = _in_chunks(
            x, mask, chunk, run, previous, states, zeros, invariants
        )
        # Unlike `_rows`, this keeps the known sizes in the converter's eyes.
        outputs = outputs[:size]
    last = previous[0] if previous else tf.gather(outputs, steps - 1)
    return last, outputs, states


def _chunk(steps, batch):
    if batch == 1:
        return None if steps and steps <= SHORT else LONG_CHUNK
    if steps and steps <= CHUNK:
        return None
    return LONG_CHUNK if steps and steps > 200 else CHUNK


def _lite_while(step, zero_masked, rank, invariants):
    """Function that runs a loop over the first steps of what it is given."""
    masked_step = _masked(step, zero_masked)

    def run(x, mask, stop, previous, states, outputs):
        def body(t, previous, states, outputs):
            x_t = tf.gather(x, t)
            if mask is None:
                output, states = step(x_t, states)
            else:
                mask_t = tf.gather(mask, t)
                output, states = masked_step(x_t, mask_t, previous[0], states)
            start = [t, *[0] * (1 + rank)]
            outputs = [
                _updated(rows, tf.expand_dims(output, 0), start)
                for rows in outputs
            ]
            return t + 1, [output] * len(previous), list(states), outputs

        _, *results = tf.while_loop(
            lambda t, *_: t < stop,
            body,
            (0, previous, states, outputs),
            shape_invariants=(
                tf.TensorShape([]),
                *invariants,
                [rows.shape for rows in outputs],
            ),
        )
        return results

    return run


def _in_chunks(x, mask, chunk, run, previous, states, zeros, invariants):
    """Runs a loop over chunks, each a loop over its time steps.

    Args:
        x: Tensor of shape (time, batch, ...).
        mask: As `graph_loop` takes it.
        chunk: Number of time steps in a chunk.
        run: See `_lite_while`.
        previous: See `_previous`.
        states: List of tensors.
        zeros: Function from a number of time steps to outputs of zeros.
        invariants: See `_invariants`.

    Returns:
        List of the output before, the states, and the outputs, which go on
        behind the last time step.
    """
    steps, padding = tf.shape(x)[0], [[0, chunk - 1]]
    x = tf.pad(x, padding + [[0, 0]] * (x.shape.rank - 1))
    if mask is not None:
        mask = tf.pad(tf.cast(mask, tf.int32), padding + [[0, 0]])
    # Of a shape that LiteRT knows before it runs: else it would take all that
    # follows as of unknown shape, and run it by slower means.
    outputs, empty = zeros(sizes(x, 1)[0]), zeros(chunk)

    def body(start, previous, states, outputs):
        mask_part = mask
        if mask is not None:
            mask_part = tf.cast(_rows(mask, start, chunk), tf.bool)
        previous, states, (done,) = run(
            _rows(x, start, chunk),
            mask_part,
            tf.minimum(chunk, steps - start),
            previous,
            states,
            [empty],
        )
        outputs = _updated(outputs, done, [start, *[0] * (done.shape.rank - 1)])
        return start + chunk, previous, states, outputs

    _, *results = tf.while_loop(
        lambda start, *_: start < steps,
        body,
        (0, previous, states, outputs),
        shape_invariants=(
            tf.TensorShape([]),
            *invariants,
            outputs.shape,
        ),
    )
    return results


def unrolled_loop(x, step, states, mask, every_step, zero_masked, before=None):
    """Every step on its own, without a loop; see `lite_loop`."""
    rest, dtype = _output_kind(x, step, states)
    output, outputs = before, []
    if output is None:
        output = tf.zeros([sizes(x, 2)[1], *rest], dtype)
    masked_step = _masked(step, zero_masked)
    for t in range(x.shape[0]):
        if mask is None:
            output, states = step(x[t], states)
        else:
            output, states = masked_step(x[t], mask[t], output, states)
        outputs.append(output)
    return output, tf.stack(outputs) if every_step else None, states


def step_loop(x, step, states, mask, every_step, zero_masked):
    """Some steps of a longer sequence, in a loop; see `graph_loop`."""
    before = _output_before(x, step, states, mask, zero_masked)
    return lite_loop(x, step, states, mask, every_step, zero_masked, before)


def unrolled_step_loop(x, step, states, mask, every_step, zero_masked):
    """The same without a loop."""
    before = _output_before(x, step, states, mask, zero_masked)
    return unrolled_loop(x, step, states, mask, every_step, zero_masked, before)


def _output_before(x, step, states, mask, zero_masked):
    """What a masked time step gives again, where that is known."""
    if mask is None or zero_masked:
        return None
    rest, _ = _output_kind(x, step, states)
    if not states or states[0].shape[1:].as_list() != rest:
        raise NotImplementedError(
            "a masked layer's first state is not its output: the output "
            "before is not known"
        )
    return states[0]


def _one_step(x, step, states, mask, every_step, zero_masked, previous):
    x = tf.reshape(x, [-1, *x.shape[2:]])
    if mask is None:
        output, states = step(x, states)
    else:
        mask = tf.reshape(mask, [-1])
        output, states = _masked(step, zero_masked)(x, mask, previous, states)
    return output, output[None] if every_step else None, states


def _masked(step, zero_masked):
    """A step that keeps output and states where the mask is false."""

    def masked_step(x, mask, previous, states):
        output, new_states = step(x, states)
        output = _where(
            mask, output, tf.zeros_like(output) if zero_masked else previous
        )
        new_states = [
            _where(mask, new, old) for new, old in zip(new_states, states)
        ]
        return output, new_states

    return masked_step


def _where(mask, new, old):
    mask = tf.reshape(mask, [-1] + [1] * (new.shape.rank - 1))
    return tf.where(mask, new, old)


def _output_kind(x, step, states):
    """The shape of one sample's output of a step, and its dtype."""
    # Only the shape of it is used: no step is run for it.
    output, _ = step(x[0], states)
    return output.shape[1:].as_list(), output.dtype


def _previous(x, rest, dtype, mask, every_step):
    """What a loop begins with as the output before, in a list.

    Only a mask, or a last output that is asked for, needs it: else the list
    is empty.
    """
    if mask is None and every_step:
        return []
    return [tf.zeros([sizes(x, 2)[1], *rest], dtype)]


def _invariants(x, rest, previous, states):
    """The shapes that the output before and the states keep in a loop."""
    batch = tf.TensorShape([x.shape[1]])
    return (
        [batch.concatenate(rest)] * len(previous),
        [batch.concatenate(state.shape[1:]) for state in states],
    )


def _rows(x, start, count):
    begin = tf.stack([start] + [0] * (x.shape.rank - 1))
    size = tf.stack([count] + [-1] * (x.shape.rank - 1))
    rows = tf.slice(x, begin, size)
    rows.set_shape([count, *x.shape[1:]])
    return rows


def _updated(x, part, start):
    # LiteRT has this operation, TensorFlow only behind its compiler.
    return gen_xla_ops.xla_dynamic_update_slice(
        input=x, update=part, indices=tf.stack(start)
    )
