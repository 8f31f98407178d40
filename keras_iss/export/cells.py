"""Recurrent cells in two parts: what all time steps share, and one step.

Keras multiplies the inputs of every time step inside its loop. Here the
product with the kernel is taken once, for all time steps ("hoisted"), and the
step keeps only what depends on the step before. Each function takes a
`Lowering` and the inputs of all time steps, and gives both parts; see
`register_cell_lowering`.
"""

import keras
import tensorflow as tf

from keras_iss._keras.layers import takes_training
from keras_iss.export.shapes import sizes


def lstm(lowering, x):
    """`keras.layers.LSTMCell`."""
    cell = lowering.layer
    kernel, recurrent_kernel, bias = _weights(cell)
    gates = _gates(recurrent_kernel, 4, lowering.for_litert)

    def step(x, states):
        h, c = states
        i, f, g, o = gates(h, x)
        c = cell.recurrent_activation(f) * c + cell.recurrent_activation(
            i
        ) * cell.activation(g)
        h = cell.recurrent_activation(o) * cell.activation(c)
        return h, [h, c]

    return lowering.project(x, kernel, bias), step


def gru(lowering, x):
    """`keras.layers.GRUCell`."""
    cell = lowering.layer
    kernel, recurrent_kernel, bias = _weights(cell)
    make = _gru_reset_after if cell.reset_after else _gru_reset_before
    input_bias, step = make(cell, recurrent_kernel, bias, lowering.for_litert)
    return lowering.project(x, kernel, input_bias), step


def _gru_reset_after(cell, recurrent_kernel, bias, for_litert):
    gates = _gates(recurrent_kernel, 3, for_litert)
    if bias is None:
        recurrent_bias = tf.zeros([3 * cell.units], recurrent_kernel.dtype)
    else:
        bias, recurrent_bias = tf.unstack(bias)

    def step(x, states):
        (h,) = states
        x_z, x_r, x_h = tf.split(x, 3, axis=1)
        h_z, h_r, h_h = gates(h, recurrent_bias[None])
        z = cell.recurrent_activation(x_z + h_z)
        r = cell.recurrent_activation(x_r + h_r)
        h = z * h + (1 - z) * cell.activation(x_h + r * h_h)
        return h, [h]

    return bias, step


def _gru_reset_before(cell, recurrent_kernel, bias, for_litert):
    units = cell.units
    gates = _gates(recurrent_kernel[:, : 2 * units], 2, for_litert)
    candidate_kernel = recurrent_kernel[:, 2 * units :]

    def step(x, states):
        (h,) = states
        x_gates, x_h = tf.split(x, [2 * units, units], axis=1)
        z, r = map(cell.recurrent_activation, gates(h, x_gates))
        x_h = x_h + tf.matmul(r * h, candidate_kernel)
        h = z * h + (1 - z) * cell.activation(x_h)
        return h, [h]

    return bias, step


def simple_rnn(lowering, x):
    """`keras.layers.SimpleRNNCell`."""
    cell = lowering.layer
    kernel, recurrent_kernel, bias = _weights(cell)

    def step(x, states):
        h = x + tf.matmul(states[0], recurrent_kernel)
        h = h if cell.activation is None else cell.activation(h)
        return h, [h]

    return lowering.project(x, kernel, bias), step


def as_it_is(cell, structure):
    """The step of a cell of which nothing is known.

    Args:
        cell: A Keras RNN cell.
        structure: The cell's state, nested as the cell takes it.

    Returns:
        Function from the inputs of one time step and a flat list of states to
        the output and the new states.
    """
    kwargs = {"training": False} if takes_training(cell) else {}

    def step(x, states):
        states = keras.tree.pack_sequence_as(structure, list(states))
        output, states = cell(x, states, **kwargs)
        return output, keras.tree.flatten(states)

    return step


def product_over_time(x, kernel, bias, for_litert):
    """The product of all time steps with a kernel, and a bias.

    Args:
        x: Tensor of shape (time, batch, features).
        kernel: Tensor of shape (features, units).
        bias: Tensor that is added, or `None`.
        for_litert: Whether the graph is for LiteRT.
    """
    if for_litert:
        # One fully connected operation that keeps the dimensions.
        x = tf.matmul(x, kernel)
    else:
        # TensorFlow would multiply time step by time step.
        flat = tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel)
        x = tf.reshape(flat, [*sizes(x, 2), kernel.shape[1]])
    return x if bias is None else x + bias


def _weights(cell):
    return [
        None if variable is None else keras.ops.convert_to_tensor(variable)
        for variable in (cell.kernel, cell.recurrent_kernel, cell.bias)
    ]


def _gates(kernel, count, for_litert):
    """Function from a state and what is added to its product to the gates."""
    # TensorFlow runs the products of the gates side by side; in LiteRT one
    # large product is faster.
    if for_litert:
        return lambda h, x: tf.split(x + tf.matmul(h, kernel), count, axis=1)
    kernels = tf.split(kernel, count, axis=1)

    def gates(h, x):
        parts = tf.split(x, count, axis=1)
        return [part + tf.matmul(h, own) for part, own in zip(parts, kernels)]

    return gates
