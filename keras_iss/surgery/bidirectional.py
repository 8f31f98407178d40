"""Models in place of `Bidirectional` layers whose directions differ in size."""

import keras

from keras_iss.surgery.outputs import no_mask, with_mask
from keras_iss.tracing.rules.recurrent import is_uneven


def is_expanded(old, cut):
    """Whether two layers have to take the place of a `Bidirectional`.

    Keras takes its directions to be of one size.

    Args:
        old: `keras.Operation`.
        cut: `Cut`.
    """
    return (
        type(old) is keras.layers.Bidirectional
        and old.merge_mode in (None, "concat")
        and not is_uneven(old)
        and _units(old.forward_layer, cut) != _units(old.backward_layer, cut)
    )


def _units(layer, cut):
    """How many units of a recurrent layer stay."""
    sizes = [setting.labels for setting in cut.settings(layer)]
    if sizes:
        # Of stacked cells, the last one gives the output.
        return int(cut.stays(sizes[-1]).sum())
    return keras.tree.flatten(layer.state_size)[0]


def expanded(old, tensors, with_a_mask, masked, training, operation):
    """A model that takes the place of a `Bidirectional`.

    Of two layers and a concatenation. Flipping the backward output loses its
    mask, so the model is given the mask, where there is one, and puts it on
    what it returns.

    Args:
        old: `keras.layers.Bidirectional`.
        tensors: List of what it is called on: the sequences, the initial
            states and the mask, where there are any.
        with_a_mask: Boolean, whether the last of them is the mask of what it
            returns.
        masked: Boolean, whether its directions are given that, too.
        training: What it is told of the phase, or `None`.
        operation: Function from an old layer to the new one.
    """
    inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in tensors]
    sequences, *states = inputs
    given = {} if training is None else {"training": training}
    mask = states.pop() if with_a_mask else None
    if masked:
        given["mask"] = mask
    half = len(states) // 2
    directions = []
    for layer, initial in (
        (old.forward_layer, states[:half]),
        (old.backward_layer, states[half:]),
    ):
        initial = {"initial_state": initial} if initial else {}
        output = operation(layer)(sequences, **initial, **given)
        directions.append(keras.tree.flatten(output))
    (forward, *first), (backward, *second) = directions
    if old.return_sequences:
        backward = keras.ops.flip(backward, axis=1)
    outputs = [forward, backward]
    if old.merge_mode == "concat":
        outputs = [keras.ops.concatenate(outputs, axis=-1)]
    if with_a_mask and old.return_sequences:
        outputs = [
            with_mask(x, mask, f"{old.name}_mask_{i}")
            for i, x in enumerate(outputs)
        ]
    outputs += [*first, *second]
    block = keras.Model(
        inputs if len(inputs) > 1 else sequences,
        outputs if len(outputs) > 1 else outputs[0],
        name=old.name,
        trainable=old.trainable,
    )
    # Or Keras warns that it would lose the mask, which it does not where
    # there is one to keep.
    block.supports_masking = True
    if not old.return_sequences:
        block.compute_mask = no_mask
    return block
