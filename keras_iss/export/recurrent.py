"""Recurrent layers, cell by cell and loop by loop.

`inner_loop` stands in for the method of that name of `keras.layers.RNN`:
around it, Keras goes on seeing to initial states, masks and what is returned.
"""

import keras
import tensorflow as tf

from keras_iss.export.shapes import batch_major, time_major

_KNOWN_LOOPS = {
    layer.inner_loop
    for layer in (
        keras.layers.RNN,
        keras.layers.LSTM,
        keras.layers.GRU,
        keras.layers.SimpleRNN,
    )
}


def has_known_loop(layer):
    """Whether a recurrent layer runs its cell as Keras' own layers do."""
    return type(layer).inner_loop in _KNOWN_LOOPS


def inner_loop(lowering, sequences, initial_state, mask, training=False):
    """`keras.layers.RNN.inner_loop`, without the products of the inputs."""
    layer = lowering.layer
    if training:
        return lowering.original(sequences, initial_state, mask, training)
    x, mask = time_major(sequences), _time_major_mask(mask)
    if layer.go_backwards:
        x = tf.reverse(x, [0])
        mask = None if mask is None else tf.reverse(mask, [0])
    cells, states = [layer.cell], [initial_state]
    if type(layer.cell) is keras.layers.StackedRNNCells:
        # A cell reads only the cell below at the same time step, and its own
        # past: cell after cell is the same as step after step.
        cells, states = layer.cell.cells, list(initial_state)
    new_states = []
    for number, (cell, state) in enumerate(zip(cells, states)):
        last = number == len(cells) - 1
        projected, step = lowering.hoist(cell, x, state)
        output, x, new_state = lowering.loop(
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


def _time_major_mask(mask):
    if keras.tree.is_nested(mask):
        mask = keras.tree.flatten(mask)[0]
    if mask is None:
        return None
    mask = tf.cast(mask, tf.bool)
    return tf.transpose(mask[..., 0] if mask.shape.rank > 2 else mask)


def _keep_shapes(sequences, layer, output, outputs, states):
    """Gives what a loop gives the sizes that Keras knows before it runs."""
    batch, steps = sequences.shape[:2]
    output.set_shape([batch, *output.shape[1:]])
    outputs.set_shape(
        [batch, steps if layer.return_sequences else 1, *output.shape[1:]]
    )
    for state in keras.tree.flatten(states):
        state.set_shape([batch, *state.shape[1:]])
