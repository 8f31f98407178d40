"""Data that goes on from one training to the next."""

import keras

from keras_iss._keras.data import (
    are_arrays,
    endless_batches,
    split_off_validation,
)

_KEPT = 16
"""So many batches Keras may have read ahead when it begins an epoch anew."""


class Stream(keras.utils.PyDataset):
    """Batches of an epoch, the following ones in the next.

    Keras looks at the first batches before it takes them, and may begin an
    epoch twice: until `advance`, the same ones come again.

    Args:
        batches: Iterator over batches.
        steps: Integer, the batches of an epoch.
    """

    def __init__(self, batches, steps):
        super().__init__()
        self._batches = batches
        self._steps = steps
        self._given = {}

    def __len__(self):
        return self._steps

    def __getitem__(self, index):
        if index not in self._given:
            try:
                self._given[index] = next(self._batches)
            except StopIteration:
                # Which would end the generator that this is called in.
                raise ValueError(
                    "The data ran out in the middle of an epoch of "
                    f"`steps_per_epoch={self._steps}`: a generator has to "
                    "yield `steps_per_epoch * epochs` batches."
                ) from None
            self._given.pop(index - _KEPT, None)
        return self._given[index]

    def advance(self):
        """Ends an epoch."""
        self._given.clear()


def streamed(x, y, batch_size, arguments):
    """Arguments of `fit` whose data goes on over several calls.

    Args:
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        batch_size: As in `keras.Model.fit`.
        arguments: Dict, others of `keras.Model.fit`, with `steps_per_epoch`.

    Returns:
        A `Stream`, and a dict of the other arguments.
    """
    arguments = dict(arguments)
    steps = arguments.pop("steps_per_epoch")
    shuffle = arguments.pop("shuffle", True)
    arguments["shuffle"] = False
    if hasattr(x, "__next__"):
        return Stream(x, steps), arguments
    weights = arguments.pop("sample_weight", None)
    is_array = are_arrays(x, y, weights)
    split = arguments.pop("validation_split", None)
    if split and is_array and arguments.get("validation_data") is None:
        (x, y, weights), arguments["validation_data"] = split_off_validation(
            (x, y, weights), split
        )
    batches = endless_batches(
        x,
        y,
        sample_weight=weights,
        batch_size=(batch_size or 32) if is_array else None,
        shuffle=shuffle and (is_array or isinstance(x, keras.utils.PyDataset)),
        class_weight=arguments.pop("class_weight", None),
    )
    return Stream(batches, steps), arguments
