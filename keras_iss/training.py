"""Training that gets faster as components go."""

import contextlib
import math

import keras

from keras_iss._checks import is_whole
from keras_iss._models import keeps_class
from keras_iss._scopes import check_scope
from keras_iss._stream import streamed
from keras_iss.callbacks import check_first_step, warn_of_dead
from keras_iss.regularizers import drop_leftovers
from keras_iss.structures import is_finite
from keras_iss.surgery import shrink
from keras_iss.tracing.find import find_structures


def fit(
    model,
    x=None,
    y=None,
    *,
    shrink_every=1,
    include=("recurrent",),
    batch_size=None,
    epochs=1,
    verbose="auto",
    callbacks=None,
    initial_epoch=0,
    **kwargs,
):
    """Trains a model, and cuts out what is removed on the way.

    As `model.fit`; but at the end of an epoch, components that are removed by
    then, by an `ISSPruneCallback`, an `ISSBudget` or a `ProximalISS`, are cut
    out as by `shrink`, and the training goes on with the smaller model: the
    same steps of the optimizer, the same callbacks, one history. But for
    rounding and for what is drawn at random, as by dropout, this equals
    training at full size with the removed components kept at zero.

    Callbacks find the model of the moment in their `model`. After the last
    epoch, `EarlyStopping(restore_best_weights=True)` gives back the model of
    its best epoch, in the size that it had then. A `ModelCheckpoint` saves
    the model as it is at the end of an epoch, with what is cut out right after
    it still in it, as zeros; to go on from a file that holds a whole model:

        model = keras.models.load_model("checkpoint.keras")
        model = keras_iss.fit(model, ..., initial_epoch=7)

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
        include: Tuple of kinds of layers, as in `find_structures`.
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
        ValueError: if `shrink_every` is not a positive integer; if the model
            is not compiled, has weights made outside the scope of the strategy
            it is trained with, or its class has a training step of its own,
            which a smaller model would not have; or for a `BackupAndRestore`,
            which puts back weights of one size only.

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
    _check(model, shrink_every)
    steps = _steps(x, batch_size, kwargs)
    stream = None
    if kwargs.get("steps_per_epoch"):
        stream, kwargs = streamed(x, y, batch_size, kwargs)
        x, y, batch_size = stream, None, None
    relay = _Relay(
        callbacks,
        include,
        stream,
        add_history=True,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
    )
    epoch = initial_epoch
    model = _smaller(model, include, relay)
    try:
        while True:
            end = min((epoch // shrink_every + 1) * shrink_every, epochs)
            with _averages_put_off(model):
                model.fit(
                    x,
                    y,
                    batch_size=batch_size,
                    epochs=end,
                    verbose=verbose,
                    callbacks=relay,
                    initial_epoch=epoch,
                    **kwargs,
                )
            if end >= epochs or model.stop_training:
                break
            relay.remember(model, epoch)
            epoch = end
            model = _smaller(model, include, relay)
    except BaseException:
        # Callbacks are not told of the end then, in Keras too.
        drop_leftovers(model)
        raise
    if epochs > initial_epoch:
        model.optimizer.finalize_variable_values(model.trainable_weights)
    relay.remember(model, epoch)
    model = relay.finish(model)
    return _smaller(model, include, relay)


class _Relay(keras.callbacks.CallbackList):
    """Callbacks that take several trainings for one.

    Args:
        callbacks: As in `fit`.
        include: As in `fit`.
        stream: Optional `Stream` that is trained on.
        **kwargs: Of `CallbackList`.
    """

    def __init__(self, callbacks, include, stream, **kwargs):
        self._begun = False
        self._logs = None
        self._best = {}
        self._include = include
        self._stream = stream
        super().__init__(callbacks, **kwargs)
        for one in self.callbacks:
            if isinstance(one, keras.callbacks.BackupAndRestore):
                raise ValueError(
                    "`BackupAndRestore` puts back weights of one size only. "
                    "Use a `ModelCheckpoint` that saves whole models, and go "
                    "on with `keras.models.load_model` and `initial_epoch`."
                )

    def on_train_begin(self, logs=None):
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        self._logs = logs

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        # Only now, since an `ISSBudget` sets the strength.
        check_first_step(self.model, self._include)

    def on_epoch_end(self, epoch, logs=None):
        if self._stream is not None:
            self._stream.advance()
        super().on_epoch_end(epoch, logs)

    def remember(self, model, epoch):
        """Remembers which model the best weights of a callback are of.

        Args:
            model: The model that was trained.
            epoch: Integer, the first epoch it was trained for.
        """
        for one in self.callbacks:
            if (
                isinstance(one, keras.callbacks.EarlyStopping)
                and one.best_weights is not None
                and (one.best_epoch >= epoch or id(one) not in self._best)
            ):
                self._best[id(one)] = model

    def finish(self, model):
        """Ends the training, and gives the model that comes out of it."""
        for one in self.callbacks:
            if id(one) in self._best and one.restore_best_weights:
                model = self._best[id(one)]
                one.set_model(model)
        super().on_train_end(self._logs)
        if model is not self.model:
            model.history = self._history
        return model


@contextlib.contextmanager
def _averages_put_off(model):
    """Keeps an optimizer from putting averages in place at the end of a fit.

    Args:
        model: The model.
    """
    optimizer = model.optimizer
    # Hides the method of the class.
    vars(optimizer)["finalize_variable_values"] = lambda _: None
    try:
        yield
    finally:
        vars(optimizer).pop("finalize_variable_values", None)


def _smaller(model, include, relay):
    """The model without what is removed, made known to the callbacks."""
    if not all(layer.built for layer in model._flatten_layers()):
        return model
    structures = find_structures(model, include)
    warn_of_dead(structures)
    stays = structures.staying()
    if all(some.all() for some in stays.values()) or not is_finite(structures):
        return model
    small = shrink(model, include=include)
    relay.set_model(small)
    return small


def _check(model, shrink_every):
    if not is_whole(shrink_every) or shrink_every < 1:
        raise ValueError(
            "`shrink_every` must be a positive integer, a number of epochs. "
            f"Received: {shrink_every!r}"
        )
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"`{model.name}` is not compiled: call `compile` before `fit`."
        )
    check_scope(model)
    own = [
        name
        for name in ("train_step", "test_step", "compute_loss")
        if getattr(type(model), name).__module__.partition(".")[0] != "keras"
    ]
    if own and not keeps_class(model):
        raise ValueError(
            f"`{model.name}` has a `{own[0]}` of its own "
            f"({type(model).__name__}), which a smaller model would not have. "
            "Train it with `model.fit`, and `shrink` it at the end."
        )


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
