"""Recurrent layers as graphs that run fast.

Keras multiplies the inputs of every time step inside its loop. Here the
product with the kernel is taken once, for all time steps ("hoisted"), and
the loop keeps only what depends on the step before. `lower` does so for
every recurrent layer of a copied model, and changes nothing else of it.

Two loops run the same steps: `graph_loop` with TensorFlow's own tensor
arrays, and `lite_loop`, which needs no tensor lists, since LiteRT has none.
"""

import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from keras_iss._keras.layers import inner_layers
from keras_iss.export._model import set_attribute

_KNOWN_LOOPS = {
    layer.inner_loop
    for layer in (
        keras.layers.RNN,
        keras.layers.LSTM,
        keras.layers.GRU,
        keras.layers.SimpleRNN,
    )
}


_FUSED_ATTEMPTS = ("_can_attempt_fused_lstm", "_can_attempt_fused_gru")


def lower(model, loop, more=lambda layer, inner_loop: []):
    """Has a copied model use fast recurrent layers from now on.

    Args:
        model: A copy of a built `keras.Model`, on the TensorFlow backend:
            its layers are changed in place.
        loop: `graph_loop` or `lite_loop`, or a function that takes and
            gives the same.
        more: Function from a recurrent layer and its new `inner_loop` to a
            list of further (layer, name, value) to set.
    """
    patches = []
    for layer in inner_layers(model):
        if isinstance(layer, keras.layers.RNN):
            inner = layer.inner_loop
            if type(layer).inner_loop in _KNOWN_LOOPS:
                inner = _loop_of(layer, loop)
                patches.append((layer, "inner_loop", inner))
            patches += more(layer, inner)
        elif type(layer) is keras.layers.Embedding:
            if loop is not graph_loop:
                patches.append((layer, "call", _looked_up_by_time(layer)))
        elif type(layer) is keras.layers.Dense:
            if loop is not graph_loop:
                patches.append((layer, "call", _one_product(layer)))
        elif type(layer) is keras.layers.EinsumDense:
            if loop is not graph_loop:
                patches.append((layer, "call", _scaled(layer)))
        elif isinstance(layer, keras.layers.Bidirectional):
            patches += [
                (layer, name, lambda *args, **kwargs: False)
                for name in _FUSED_ATTEMPTS
                if hasattr(layer, name)
            ]
        elif type(layer) is keras.layers.TimeDistributed:
            make = _merged
            if not _acts_on_each_sample(layer.layer):
                make = _looping
            patches.append((layer, "call", make(layer, loop)))
    for layer, name, value in patches:
        set_attribute(layer, name, value)


def _loop_of(layer, loop):
    original = layer.inner_loop

    def inner_loop(sequences, initial_state, mask, training=False):
        if training:
            return original(sequences, initial_state, mask, training)
        if keras.tree.is_nested(mask):
            mask = keras.tree.flatten(mask)[0]
        x = time_major(sequences)
        if mask is not None:
            mask = tf.cast(mask, tf.bool)
            mask = tf.transpose(mask[..., 0] if mask.shape.rank > 2 else mask)
        if layer.go_backwards:
            x = tf.reverse(x, [0])
            mask = None if mask is None else tf.reverse(mask, [0])
        cells, states = [layer.cell], [initial_state]
        if type(layer.cell) is keras.layers.StackedRNNCells:
            # A cell reads only the cell below at the same time step, and its
            # own past: cell after cell is the same as step after step.
            cells, states = layer.cell.cells, list(initial_state)
        new_states = []
        for number, (cell, state) in enumerate(zip(cells, states)):
            last = number == len(cells) - 1
            projected, step = hoist(cell, x, state, loop is not graph_loop)
            output, x, new_state = loop(
                projected,
                step,
                keras.tree.flatten(state),
                mask,
                every_step=layer.return_sequences or not last,
                zero_masked=last and layer.zero_output_for_mask,
            )
            new_states.append(keras.tree.pack_sequence_as(state, new_state))
        new_states = new_states if len(cells) > 1 else new_states[0]
        outputs = tf.expand_dims(output, 1) if x is None else batch_major(x)
        _keep_shapes(sequences, layer, output, outputs, new_states)
        return output, outputs, new_states

    return inner_loop


def _keep_shapes(sequences, layer, output, outputs, states):
    """Gives what a loop gives the sizes that Keras knows before it runs."""
    batch, steps = sequences.shape[:2]
    output.set_shape([batch, *output.shape[1:]])
    outputs.set_shape(
        [batch, steps if layer.return_sequences else 1, *output.shape[1:]]
    )
    for state in keras.tree.flatten(states):
        state.set_shape([batch, *state.shape[1:]])


def time_major(x):
    """Tensor of shape (batch, time, ...) as (time, batch, ...)."""
    return _swapped(x, 0)


def batch_major(x):
    """Tensor of shape (time, batch, ...) as (batch, time, ...)."""
    return _swapped(x, 1)


def _swapped(x, batch_axis):
    rest = x.shape[2:]
    if x.shape[batch_axis] == 1 and rest.is_fully_defined():
        # One sample: the order in memory stays.
        shape = [x.shape[1], x.shape[0]]
        if shape == [None, 1]:
            # Not -1: a larger batch would pass for more time steps.
            shape = [tf.shape(x)[1], 1]
        shape = [-1 if size is None else size for size in shape]
        return tf.reshape(x, shape + rest.as_list())
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def hoist(cell, x, structure, lite=False):
    """Splits a cell into what all time steps share and what is left.

    A cell of one's own takes part with a method `hoist(x)` that does the
    same as this function; any other cell is called as it is, step by step.

    Args:
        cell: A Keras RNN cell.
        x: Tensor of shape (time, batch, ...).
        structure: The cell's state, nested as the cell takes it.
        lite: Whether the graph is for LiteRT.

    Returns:
        Tuple of the projected inputs, of shape (time, batch, ...), and a
        function from those of one time step and a flat list of states to the
        output and the new states.
    """
    kind = type(cell)
    if kind in _HOISTED:
        return _HOISTED[kind](cell, x, lite)
    if hasattr(cell, "hoist"):
        return cell.hoist(x)
    return x, _step_of(cell, structure)


def _step_of(cell, structure):
    kwargs = {}
    if getattr(cell, "_call_has_training_arg", False):
        kwargs["training"] = False

    def step(x, states):
        states = keras.tree.pack_sequence_as(structure, list(states))
        output, states = cell(x, states, **kwargs)
        return output, keras.tree.flatten(states)

    return step


def _projected(x, kernel, bias, lite):
    if lite:
        # One fully connected operation that keeps the dimensions.
        x = tf.matmul(x, kernel)
    else:
        # TensorFlow would multiply time step by time step.
        flat = tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
        x = tf.reshape(flat, [*_sizes(x, 2), kernel.shape[1]])
    return x if bias is None else x + bias


def _sizes(x, count):
    """The first sizes of a tensor, as numbers where they are known."""
    shape = tf.shape(x)
    return [
        shape[i] if size is None else size
        for i, size in enumerate(x.shape[:count])
    ]


def _values(*variables):
    return [
        None if variable is None else keras.ops.convert_to_tensor(variable)
        for variable in variables
    ]


def _gates(kernel, count, lite):
    """Function from a state and what is added to its product to the gates."""
    # TensorFlow runs the products of the gates side by side; in LiteRT one
    # large product is faster.
    if lite:
        return lambda h, x: tf.split(x + tf.matmul(h, kernel), count, axis=1)
    kernels = tf.split(kernel, count, axis=1)

    def gates(h, x):
        parts = tf.split(x, count, axis=1)
        return [part + tf.matmul(h, one) for part, one in zip(parts, kernels)]

    return gates


def _lstm(cell, x, lite):
    kernel, recurrent_kernel, bias = _values(
        cell.kernel, cell.recurrent_kernel, cell.bias
    )

    gates = _gates(recurrent_kernel, 4, lite)

    def step(x, states):
        h, c = states
        i, f, g, o = gates(h, x)
        c = cell.recurrent_activation(f) * c + cell.recurrent_activation(
            i
        ) * cell.activation(g)
        h = cell.recurrent_activation(o) * cell.activation(c)
        return h, [h, c]

    return _projected(x, kernel, bias, lite), step


def _gru(cell, x, lite):
    kernel, recurrent_kernel, bias = _values(
        cell.kernel, cell.recurrent_kernel, cell.bias
    )
    units = cell.units
    input_bias, recurrent_bias = bias, None
    if bias is not None and cell.reset_after:
        input_bias, recurrent_bias = tf.unstack(bias)
    if cell.reset_after:
        gates = _gates(recurrent_kernel, 3, lite)
    else:
        gates = _gates(recurrent_kernel[:, : 2 * units], 2, lite)
        candidate_kernel = recurrent_kernel[:, 2 * units :]
    if recurrent_bias is None:
        recurrent_bias = tf.zeros([3 * units], x.dtype)

    def step(x, states):
        (h,) = states
        if cell.reset_after:
            x_z, x_r, x_h = tf.split(x, 3, axis=1)
            h_z, h_r, h_h = gates(h, recurrent_bias[None])
            z = cell.recurrent_activation(x_z + h_z)
            r = cell.recurrent_activation(x_r + h_r)
            candidate = cell.activation(x_h + r * h_h)
        else:
            x_gates, x_h = tf.split(x, [2 * units, units], axis=1)
            z, r = map(cell.recurrent_activation, gates(h, x_gates))
            candidate = cell.activation(
                x_h + tf.matmul(r * h, candidate_kernel)
            )
        h = z * h + (1 - z) * candidate
        return h, [h]

    return _projected(x, kernel, input_bias, lite), step


def _simple_rnn(cell, x, lite):
    kernel, recurrent_kernel, bias = _values(
        cell.kernel, cell.recurrent_kernel, cell.bias
    )

    def step(x, states):
        h = x + tf.matmul(states[0], recurrent_kernel)
        h = h if cell.activation is None else cell.activation(h)
        return h, [h]

    return _projected(x, kernel, bias, lite), step


_HOISTED = {
    keras.layers.LSTMCell: _lstm,
    keras.layers.GRUCell: _gru,
    keras.layers.SimpleRNNCell: _simple_rnn,
}


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


def _zero_output(x, step, states):
    # Only the shape of it is used: no step is run for it.
    output, _ = step(x[0], states)
    rest = output.shape[1:].as_list()
    return rest, output.dtype


def _batch(x):
    return _sizes(x, 2)[1]


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
    rest, dtype = _zero_output(x, step, states)
    inputs = tf.TensorArray(x.dtype, steps, element_shape=x.shape[1:])
    inputs = inputs.unstack(x)
    outputs = tf.TensorArray(
        dtype,
        steps if every_step else 0,
        element_shape=[x.shape[1], *rest],
    )
    # Only a mask, or a last output that is asked for, needs the one before.
    previous = [tf.zeros([_batch(x), *rest], dtype)]
    if mask is None and every_step:
        previous = []
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
            [tf.TensorShape([x.shape[1], *rest])] * len(previous),
            [_invariant(state, x) for state in states],
            tf.TensorShape(None),
        ),
    )
    outputs = outputs.stack() if every_step else None
    return previous[0] if previous else outputs[-1], outputs, states


def _invariant(state, x):
    return tf.TensorShape([x.shape[1]]).concatenate(state.shape[1:])


# A LiteRT loop copies its outputs so far in every iteration. An inner loop
# over a chunk of the time steps keeps that copy small.
CHUNK = 8
LONG_CHUNK = 16
SHORT = 32


def _chunk(steps, batch):
    if batch == 1:
        return None if steps and steps <= SHORT else LONG_CHUNK
    if steps and steps <= CHUNK:
        return None
    return LONG_CHUNK if steps and steps > 200 else CHUNK


def lite_loop(x, step, states, mask, every_step, zero_masked):
    """Runs `step` over time, for LiteRT; see `graph_loop`."""
    rest, dtype = _zero_output(x, step, states)
    if x.shape[0] == 1:
        previous = tf.zeros([_batch(x), *rest], dtype)
        return _one_step(
            x, step, states, mask, every_step, zero_masked, previous
        )
    steps, size = tf.shape(x)[0], _sizes(x, 1)[0]
    batch = _batch(x)
    chunk = _chunk(x.shape[0], x.shape[1]) if every_step else None
    masked_step = _masked(step, zero_masked)
    previous = [tf.zeros([batch, *rest], dtype)]
    if mask is None and every_step:
        previous = []
    states = list(states)
    zeros = [0] * (1 + len(rest))
    shapes = [
        [tf.TensorShape([x.shape[1], *rest])] * len(previous),
        [_invariant(state, x) for state in states],
    ]

    def run(x, mask, start, stop, previous, states, outputs):
        def body(t, previous, states, outputs):
            x_t = tf.gather(x, t)
            if mask is None:
                output, states = step(x_t, states)
            else:
                mask_t = tf.gather(mask, t)
                output, states = masked_step(x_t, mask_t, previous[0], states)
            outputs = [
                _updated(all, tf.expand_dims(output, 0), [t, *zeros])
                for all in outputs
            ]
            return t + 1, [output] * len(previous), list(states), outputs

        return tf.while_loop(
            lambda t, *_: t < stop,
            body,
            (start, previous, states, outputs),
            shape_invariants=(
                tf.TensorShape([]),
                *shapes,
                [all.shape for all in outputs],
            ),
        )

    if chunk is None:
        outputs = [tf.zeros([size, batch, *rest], dtype)] if every_step else []
        _, previous, states, outputs = run(
            x, mask, 0, steps, previous, states, outputs
        )
        outputs = outputs[0] if every_step else None
    else:
        padding = [[0, chunk - 1]]
        x = tf.pad(x, padding + [[0, 0]] * (x.shape.rank - 1))
        if mask is not None:
            mask = tf.cast(mask, tf.int32)
            mask = tf.pad(mask, padding + [[0, 0]])
        # Of a shape that LiteRT knows before it runs: else it would take all
        # that follows as of unknown shape, and run it by slower means.
        outputs = tf.zeros([_sizes(x, 1)[0], batch, *rest], dtype)
        empty = tf.zeros([chunk, batch, *rest], dtype)

        def body(start, previous, states, outputs):
            part = _rows(x, start, chunk)
            mask_part = mask
            if mask is not None:
                mask_part = tf.cast(_rows(mask, start, chunk), tf.bool)
            _, previous, states, (done,) = run(
                part,
                mask_part,
                0,
                tf.minimum(chunk, steps - start),
                previous,
                states,
                [empty],
            )
            outputs = _updated(outputs, done, [start, *zeros])
            return start + chunk, previous, states, outputs

        _, previous, states, outputs = tf.while_loop(
            lambda start, *_: start < steps,
            body,
            (0, previous, states, outputs),
            shape_invariants=(
                tf.TensorShape([]),
                *shapes,
                outputs.shape,
            ),
        )
        # Unlike `_rows`, this keeps the known sizes in the converter's eyes.
        outputs = outputs[:size]
    last = previous[0] if previous else tf.gather(outputs, steps - 1)
    return last, outputs, states


def unrolled_loop(x, step, states, mask, every_step, zero_masked):
    """Every step on its own, without a loop; see `graph_loop`."""
    rest, dtype = _zero_output(x, step, states)
    output, outputs = tf.zeros([_batch(x), *rest], dtype), []
    masked_step = _masked(step, zero_masked)
    for t in range(x.shape[0]):
        if mask is None:
            output, states = step(x[t], states)
        else:
            output, states = masked_step(x[t], mask[t], output, states)
        outputs.append(output)
    return output, tf.stack(outputs) if every_step else None, states


def step_loop(x, step, states, mask, every_step, zero_masked):
    """One step of a longer sequence; see `graph_loop`."""
    if x.shape[0] != 1:
        return lite_loop(x, step, states, mask, every_step, zero_masked)
    rest, _ = _zero_output(x, step, states)
    previous = states[0] if states else None
    known = previous is not None and previous.shape[1:].as_list() == rest
    if mask is not None and not zero_masked and not known:
        raise NotImplementedError(
            "a masked layer's first state is not its output: the output "
            "before is not known"
        )
    return _one_step(x, step, states, mask, every_step, zero_masked, previous)


def _one_step(x, step, states, mask, every_step, zero_masked, previous):
    x = tf.reshape(x, [-1, *x.shape[2:]])
    if mask is None:
        output, states = step(x, states)
    else:
        mask = tf.reshape(mask, [-1])
        output, states = _masked(step, zero_masked)(x, mask, previous, states)
    return output, output[None] if every_step else None, states


def _rows(x, start, count):
    begin = tf.stack([start] + [0] * (x.shape.rank - 1))
    size = tf.stack([count] + [-1] * (x.shape.rank - 1))
    rows = tf.slice(x, begin, size)
    rows.set_shape([count if isinstance(count, int) else None, *x.shape[1:]])
    return rows


def _updated(x, part, start):
    # LiteRT has this operation, TensorFlow only behind its compiler.
    return gen_xla_ops.xla_dynamic_update_slice(
        input=x, update=part, indices=tf.stack(start)
    )


def _acts_on_each_sample(layer):
    """Whether the layer does to a batch what it does to each sample."""
    return (
        type(layer).__module__.startswith("keras.")
        and not isinstance(layer, (keras.Model, keras.layers.Lambda))
        and not getattr(layer, "stateful", False)
    )


def _merged(layer, loop):
    original = layer.call

    def call(inputs, training=None, mask=None):
        inner = layer.layer
        if training or (mask is not None and inner._call_has_mask_arg):
            return original(inputs, training=training, mask=mask)
        rest = inputs.shape[2:]
        if not rest.is_fully_defined():
            return original(inputs, training=training, mask=mask)
        x = tf.reshape(inputs, [-1, *rest])
        kwargs = {"training": False} if inner._call_has_training_arg else {}
        x = inner.call(x, **kwargs)
        return tf.reshape(x, [*_sizes(inputs, 2), *x.shape[1:]])

    return call


def _looping(layer, loop):
    """`TimeDistributed.call` as a loop that calls its layer in each step."""
    original = layer.call

    def call(inputs, training=None, mask=None):
        inner = layer.layer
        unknown = (
            inputs.shape[1] is None and inputs.shape[2:].is_fully_defined()
        )
        if (
            training
            or not unknown
            or (mask is not None and inner._call_has_mask_arg)
        ):
            return original(inputs, training=training, mask=mask)
        kwargs = {"training": False} if inner._call_has_training_arg else {}
        _, outputs, _ = loop(
            time_major(inputs),
            lambda x, states: (inner.call(x, **kwargs), states),
            [],
            None,
            every_step=True,
            zero_masked=False,
        )
        outputs = batch_major(outputs)
        outputs.set_shape([inputs.shape[0], *outputs.shape[1:]])
        return outputs

    return call


def _one_product(layer):
    """`Dense.call` without the reshapes around its product."""
    original = layer.call

    def call(inputs, training=None):
        if inputs.shape.rank < 3 or layer.quantization_mode is not None:
            return original(inputs, training=training)
        x = tf.matmul(inputs, layer.kernel)
        if layer.bias is not None:
            x = x + layer.bias
        return x if layer.activation is None else layer.activation(x)

    return call


def _scaled(layer):
    """`EinsumDense.call` as a plain product, where it sums over nothing.

    For such an equation, with time of any length, TensorFlow makes a batch
    of matrix products whose shape the converter gets wrong.
    """
    original = layer.call
    inputs_and_kernel, _, wanted = layer.equation.partition("->")
    letters = inputs_and_kernel.split(",")
    if not all(
        "." not in part
        and len(set(part)) == len(part)
        and set(part) <= set(wanted)
        for part in letters
    ):
        return original

    def call(inputs, training=None):
        if layer.quantization_mode is not None:
            return original(inputs, training=training)
        x = _spread(inputs, letters[0], wanted) * _spread(
            layer.kernel, letters[1], wanted
        )
        if layer.bias is not None:
            x = x + layer.bias
        return x if layer.activation is None else layer.activation(x)

    return call


def _spread(x, letters, wanted):
    """A tensor with axes in the wanted order, those it lacks of size 1."""
    there = [letter for letter in wanted if letter in letters]
    x = tf.transpose(x, [letters.index(letter) for letter in there])
    for axis, letter in enumerate(wanted):
        if letter not in letters:
            x = tf.expand_dims(x, axis)
    return x


def _looked_up_by_time(layer):
    """`Embedding.call` in the order in which a recurrent layer reads it.

    It is the numbers that are transposed then and not the vectors: the
    converter takes out the transposition that follows with its reverse.
    """
    original = layer.call

    def call(inputs, *args, **kwargs):
        if inputs.shape.rank != 2 or inputs.shape[0] == 1:
            return original(inputs, *args, **kwargs)
        return batch_major(original(tf.transpose(inputs), *args, **kwargs))

    return call
