"""Training that gets faster as components go."""

import contextlib
import math
from collections.abc import Iterable
from typing import Any

import keras

from keras_iss._data import is_arrays
from keras_iss._fit_arguments import (
    check_callbacks,
    check_can_be_smaller,
    check_counts,
    check_fit_model,
    check_training_data,
    included,
)
from keras_iss._joined_callbacks import JoinedCallbacks
from keras_iss._known_structures import KnownStructures
from keras_iss._stream import streamed
from keras_iss.callbacks import (
    RemovingCallback,
    alive_of,
)
from keras_iss.dropout import scale_dropout as scale_dropout_of
from keras_iss.structures.values import is_finite
from keras_iss.surgery.sampling import first_samples
from keras_iss.surgery.shrinking import shrink_found
from keras_iss.tracing.errors import UntraceableError
from keras_iss.tracing.find import find, is_built
from keras_iss.tracing.graph import graph_of

# Samples; more than a stateful model's batch are cut off.
_COMPARED = 256


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    shrink_every: int = 1,
    include: tuple[str, ...] | None = None,
    scale_dropout: bool = True,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Iterable[keras.callbacks.Callback] | None = None,
    initial_epoch: int = 0,
    **kwargs: Any,
) -> keras.Model:
    """Trains a model, and cuts out what is removed on the way.

    As `model.fit`; but at the end of an epoch, components that are removed by
    then, by an `ISSPruneCallback`, an `ISSBudget` or a `ProximalISS`, are cut
    out as by `shrink`, and the training goes on with the smaller model: the
    same steps of the optimizer, the same callbacks, one history. But for
    rounding and for what is drawn at random, as by dropout, this equals
    training at full size with the removed components kept at zero. A smaller
    layer needs less dropout: with a cut, rates are lowered with the width (see
    `scale_dropout`).

    Callbacks find the model of the moment in their `model`. After the last
    epoch, `EarlyStopping(restore_best_weights=True)` gives back the model of
    its best epoch, in the size that it had then. A `ModelCheckpoint` saves
    the model as it is at the end of an epoch, with what is cut out right after
    it still in it, as zeros; its file is whole at any time, also where the
    process is killed on the way. To go on from a file that holds a whole
    model:

        model = keras.models.load_model("checkpoint.keras")
        model = keras_iss.fit(model, ..., initial_epoch=7)

    Where the training is interrupted, from the keyboard or by an error, the
    smaller model of the moment is `model.history.model`, with `model` as it
    was given here; the exception says so. Both are whole, and can be trained
    and saved:

        try:
            model = keras_iss.fit(model, ...)
        except KeyboardInterrupt:
            model = model.history.model

    Where something removes components, a copy of the model is made smaller
    before the first epoch, and compared as by `shrink`, on the first samples of
    `x` if they are arrays: what cannot be cut is refused before, not in the
    middle. Each cut is compared so, too.

    Each size has its training step compiled anew. With `steps_per_epoch` an
    epoch goes on where the one before ended, from the start after the end.
    An optimizer whose update of a weight depends on all of its matrix, as that
    of Adafactor or Muon, goes on a little differently in a smaller one.

    Args:
        model: A compiled `keras.Model`. It is trained up to the first cut.
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        shrink_every: Integer, the number of epochs after which to cut.
            Defaults to 1.
        include: Optional tuple of kinds of layers, as in `find_structures`.
            Defaults to `"recurrent"` and the kinds that the callbacks of
            keras-iss and a `ProximalISS` name in their `include`.
        scale_dropout: Boolean, whether each cut multiplies the rates of what
            drops units by the part of them that is left: those of `Dropout`
            and its relatives, `dropout` and `recurrent_dropout` of recurrent
            layers. Defaults to `True`. The rates are saved with the model.
        batch_size: As in `keras.Model.fit`.
        epochs: As in `keras.Model.fit`.
        verbose: As in `keras.Model.fit`.
        callbacks: As in `keras.Model.fit`.
        initial_epoch: As in `keras.Model.fit`.
        **kwargs: Any other argument of `keras.Model.fit`.

    Returns:
        The trained model. Its `history` is what `keras.Model.fit` returns. It
        is `model` itself if nothing was removed.

    Raises:
        TypeError: if `model` is no Keras model, `callbacks` holds anything but
            callbacks, `scale_dropout` is no boolean, or a number is none.
        ValueError: if `shrink_every` is not a positive integer, or another
            number is too small; if the model is not compiled, has weights made
            outside the scope of the strategy it is trained with, or its class
            has a training step of its own, which a smaller model would not
            have; if `include` lacks a kind that a callback removes; if `x`
            holds no samples, or is a generator for several epochs without
            `steps_per_epoch`; for a callback that keeps weights of one size
            only: `BackupAndRestore`, or a checkpoint with
            `save_weights_only=True`; or if the model cannot be rebuilt.
        RuntimeError: if a smaller model computes something else, as in
            `shrink`.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> model = keras_iss.fit(
        ...     model, np.ones((4, 5, 3)), np.zeros((4, 1)), epochs=4,
        ...     verbose=0, callbacks=[keras_iss.ISSBudget({"lstm": 2})])
        >>> model.get_layer("lstm").units
        2
        >>> len(model.history.history["loss"])
        4
    """
    check_fit_model(model)
    shrink_every, epochs, initial_epoch, batch_size, kwargs = check_counts(
        shrink_every, epochs, initial_epoch, batch_size, kwargs
    )
    check_training_data(model, x, y, epochs - initial_epoch, kwargs)
    callbacks = check_callbacks(callbacks)
    if not isinstance(scale_dropout, bool):
        raise TypeError(
            "`scale_dropout` must be a boolean: whether rates follow the size. "
            f"Received: {scale_dropout!r}"
        )
    is_given = include is not None
    include = included(include, model, callbacks)
    data = _some_inputs(model, x)
    structures = check_can_be_smaller(model, include, callbacks, data, is_given)
    removing = [
        callback
        for callback in callbacks
        if isinstance(callback, RemovingCallback)
    ]
    for callback in removing:
        callback.offer_data(x if data is not None else None)
    steps = _steps(x, batch_size, kwargs)
    stream = None
    if kwargs.get("steps_per_epoch"):
        stream, kwargs = streamed(x, y, batch_size, kwargs)
        x, y, batch_size = stream, None, None
    joined = JoinedCallbacks(
        callbacks,
        KnownStructures(include, model, structures),
        stream,
        add_history=True,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
    )
    epoch = initial_epoch
    try:
        model = _smaller(model, joined, data, scale_dropout)
        while True:
            end = min((epoch // shrink_every + 1) * shrink_every, epochs)
            with _averages_put_off(model):
                model.fit(
                    x,
                    y,
                    batch_size=batch_size,
                    epochs=end,
                    verbose=verbose,
                    callbacks=joined,
                    initial_epoch=epoch,
                    **kwargs,
                )
            if end >= epochs or model.stop_training:
                break
            joined.remember(model, epoch)
            epoch = end
            if not any(callback.is_tentative for callback in removing):
                model = _smaller(model, joined, data, scale_dropout)
        if epochs > initial_epoch:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        joined.remember(model, epoch)
        model = joined.finish(model)
        return _smaller(model, joined, data, scale_dropout)
    except BaseException as error:
        joined.put_values_back()
        for callback in removing:
            callback.go_back()
        error.add_note(joined.where_the_model_is())
        raise


@contextlib.contextmanager
def _averages_put_off(model):
    """Keeps an optimizer from putting averages in place at the end of a fit.

    Args:
        model: The model.
    """
    known = vars(model.optimizer)
    try:
        # Hides the method of the class.
        known["finalize_variable_values"] = lambda _: None
        yield
    finally:
        try:
            known.pop("finalize_variable_values", None)
        finally:
            # An interrupt may have come in the first.
            known.pop("finalize_variable_values", None)


def _smaller(model, joined, data, scales_dropout):
    """The model without what is removed, made known to the callbacks."""
    if not is_built(model):
        return model
    structures = joined.known.of(model)
    alive_of(structures)
    if not _loses_something(structures) or not is_finite(structures):
        return model
    # Anew: what trained it may have changed more than weights.
    found = find(model, joined.known.include)
    if not _loses_something(found.structures):
        return model
    small = shrink_found(found, data=data)
    if scales_dropout:
        scale_dropout_of(small, before=model)
    joined.set_model(small)
    return small


def _loses_something(structures):
    return not all(stays.all() for stays in structures.staying().values())


def _some_inputs(model, x):
    """A few samples of arrays, to compare models on, or `None`."""
    if not is_arrays(x) or not is_built(model):
        return None
    try:
        some = keras.tree.map_structure(lambda array: array[:_COMPARED], x)
        return first_samples(graph_of(model), some)
    except (TypeError, ValueError, UntraceableError):
        # `fit` takes more forms than a comparison does.
        return None


def _steps(x, batch_size, kwargs):
    """The number of steps of an epoch, for progress bars, if it is known."""
    if kwargs.get("steps_per_epoch"):
        return kwargs["steps_per_epoch"]
    first = next(iter(keras.tree.flatten(x)), None)
    if hasattr(first, "shape"):
        count = first.shape[0]
        count -= int(count * (kwargs.get("validation_split") or 0.0))
        return math.ceil(count / (batch_size or 32))
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    try:
        return len(x)
    except TypeError:
        return None
