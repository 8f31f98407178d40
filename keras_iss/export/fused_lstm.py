"""LSTM layers as LiteRT's one operation, `UNIDIRECTIONAL_SEQUENCE_LSTM`.

Delegates and microcontrollers know this operation and no loops. It keeps its
state from one call to the next. What keeps a call from seeing the one before
is a time step put before the first: an additional input, large there and
zero elsewhere, closes every gate, so that the state after it is zero.
"""

import contextlib
import uuid

import keras
import tensorflow as tf

from keras_iss.export.model import own_message
from keras_iss.export.shapes import batch_major, time_major

# Closes a sigmoid gate to zero in float32, whatever else it reads.
_CLOSING = 1e4


class FusedError(ValueError):
    """A layer that the fused operation cannot stand for."""


@contextlib.contextmanager
def plain_errors():
    """Takes off what Keras puts around a `FusedError`."""
    try:
        yield
    except FusedError as error:
        raise FusedError(own_message(error)) from None


def fused(reset, refused=None):
    """What a `Target` changes to put the operation into LSTM layers.

    Args:
        reset: Whether every call begins with a state of zeros.
        refused: Set of the names of layers that are to stay as they are; one
            that turns out to be given a mask or a state is added. Without it,
            what the operation cannot stand for is an error.

    Returns:
        Function from a recurrent layer to a dict of attributes; `None` for a
        layer that stays as it is.
    """

    def change(layer):
        reason = _reason(layer)
        if refused is not None and (reason or layer.name in refused):
            return None
        if reason:
            raise FusedError(
                f"`{layer.name}` cannot be the fused LSTM operation: "
                f'{reason}. Export it with recurrent_op="loop".'
            )
        return {
            "inner_loop": _fused_loop(layer, reset),
            "call": _refusing_initial_state(layer, refused),
        }

    return change


def _reason(layer):
    cell = layer.cell
    if type(cell) is not keras.layers.LSTMCell:
        return f"its cell is a {type(cell).__name__}, not an LSTMCell"
    if cell.activation is not keras.activations.tanh:
        return "its activation is not tanh"
    if cell.recurrent_activation is not keras.activations.sigmoid:
        return "its recurrent activation is not sigmoid"
    if layer.return_state:
        return "it returns its states, which the operation keeps to itself"
    if layer.stateful:
        return (
            "it is stateful, and what the operation keeps is not the layer's "
            "own state"
        )
    return None


def can_be_fused(layer):
    """Whether a recurrent layer is an LSTM that the operation computes."""
    return _reason(layer) is None


def _refusing_initial_state(layer, refused):
    original = layer.call

    def call(sequences, initial_state=None, mask=None, training=False):
        for given, what in (
            (initial_state, "an initial state"),
            (mask, "a mask"),
        ):
            if given is not None:
                if refused is not None:
                    refused.add(layer.name)
                raise FusedError(
                    f"`{layer.name}` cannot be the fused LSTM operation: it "
                    f"is given {what}, which the operation has no input "
                    'for. Export it with recurrent_op="loop".'
                )
        return original(sequences, training=training)

    return call


def _fused_loop(layer, reset):
    cell = layer.cell

    def inner_loop(sequences, initial_state, mask, training=False):
        x = sequences
        if layer.go_backwards:
            x = tf.reverse(x, [1])
        kernel = tf.identity(cell.kernel.value)
        recurrent_kernel = tf.identity(cell.recurrent_kernel.value)
        bias = (
            tf.zeros([4 * cell.units])
            if cell.bias is None
            else tf.identity(cell.bias.value)
        )
        if reset:
            x, kernel = _with_reset(x, kernel)
        outputs = _operation(x, initial_state, kernel, recurrent_kernel, bias)
        if reset:
            outputs = outputs[:, 1:]
        outputs.set_shape([*sequences.shape[:2], cell.units])
        last = outputs[:, -1]
        return last, outputs, [last, last]

    return inner_loop


def _with_reset(x, kernel):
    batch = tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
    units = kernel.shape[1] // 4
    largest = tf.reduce_max(tf.abs(kernel))
    closed = tf.fill([1, units], -largest)
    closing = tf.concat([closed, closed, tf.zeros([1, units]), closed], axis=1)
    first = tf.concat(
        [tf.zeros([batch, 1, x.shape[2]]), tf.fill([batch, 1, 1], _CLOSING)],
        axis=2,
    )
    x = tf.concat([first, tf.pad(x, [[0, 0], [0, 0], [0, 1]])], axis=1)
    return x, tf.concat([kernel, closing], axis=0)


def _operation(x, states, kernel, recurrent_kernel, bias):
    # The converter knows the operation by these attributes; the function is
    # what it computes.
    @tf.function(
        autograph=False,
        experimental_attributes={
            "api_implements": f"lstm_{uuid.uuid4()}",
            "api_preferred_device": "CPU",
            "go_backwards": False,
            "time_major": False,
        },
    )
    def lstm(x, h, c, kernel, recurrent_kernel, bias):
        projected = time_major(tf.tensordot(x, kernel, 1) + bias)
        steps = tf.shape(projected)[0]
        outputs = tf.TensorArray(tf.float32, steps, element_shape=h.shape)

        def body(t, h, c, outputs):
            z = tf.gather(projected, t) + tf.matmul(h, recurrent_kernel)
            i, f, g, o = tf.split(z, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            return t + 1, h, c, outputs.write(t, h)

        _, h, c, outputs = tf.while_loop(
            lambda t, *_: t < steps, body, (0, h, c, outputs)
        )
        return h, batch_major(outputs.stack()), h, c, tf.constant(0.0)

    _, outputs, _, _, _ = lstm(x, *states, kernel, recurrent_kernel, bias)
    return outputs
