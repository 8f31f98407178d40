"""Shapes of tensors of which some sizes are known only at run time."""

import tensorflow as tf


def sizes(x, count):
    """The first sizes of a tensor, as numbers where they are known."""
    shape = tf.shape(x)
    return [
        shape[i] if size is None else size
        for i, size in enumerate(x.shape[:count])
    ]


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
