"""How Keras reads the data that `fit` is given."""

from keras.src.trainers.data_adapters import (
    array_data_adapter,
    array_slicing,
    get_data_adapter,
)


def are_arrays(x, y, sample_weight):
    """Whether `fit` would take data for arrays."""
    return array_data_adapter.can_convert_arrays((x, y, sample_weight))


def split_off_validation(arrays, share):
    """Splits arrays as `validation_split` does.

    Args:
        arrays: Tuple of inputs, targets and sample weights.
        share: Float, the share of the samples to validate on.

    Returns:
        Pair of two such tuples, to train on and to validate on.
    """
    return array_slicing.train_validation_split(arrays, share)


def endless_batches(x, y, **arguments):
    """The batches that `fit` would train on, one epoch after the other.

    Args:
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        **arguments: `sample_weight`, `batch_size`, `shuffle` and
            `class_weight`, as in `keras.Model.fit`.

    Returns:
        Iterator over tuples of NumPy arrays.
    """
    return _passes(get_data_adapter(x, y, **arguments))


def _passes(adapter):
    while True:
        adapter.on_epoch_begin()
        yield from adapter.get_numpy_iterator()
        adapter.on_epoch_end()
