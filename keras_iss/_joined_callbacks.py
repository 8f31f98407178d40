"""Callbacks of a training that goes on in a smaller model."""

import contextlib

import keras

from keras_iss._keras.step_functions import StateGuard
from keras_iss._whole_files import saved_whole
from keras_iss.callbacks import (
    RemovingCallback,
    StructuresCallback,
    check_step,
)
from keras_iss.optimizers import tell_optimizer
from keras_iss.tracing.find import is_built


class JoinedCallbacks(keras.callbacks.CallbackList):
    """Callbacks that take several trainings for one.

    Args:
        callbacks: As in `fit`.
        known: `KnownStructures` of the model.
        stream: Optional `Stream` that is trained on.
        **kwargs: Of `CallbackList`.
    """

    def __init__(self, callbacks, known, stream, **kwargs):
        self._begun = False
        self._logs = None
        self._best = {}
        self.known = known
        self._stream = stream
        self._guard = None
        self._epoch = None
        super().__init__(callbacks, **kwargs)
        checkpoints = [
            callback
            for callback in self.callbacks
            if isinstance(callback, keras.callbacks.ModelCheckpoint)
        ]
        self._saves = bool(checkpoints)
        self._saves_batches = any(
            callback.save_freq != "epoch" for callback in checkpoints
        )

    def set_model(self, model):
        self._guard = StateGuard(model)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        tell_optimizer(self.model)
        if not self._begun:
            self._begun = True
            self._offer_structures()
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        self._logs = logs

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._offer_structures()
        super().on_epoch_begin(epoch, logs)
        # Only now, since an `ISSBudget` may set the strength.
        if is_built(self.model):
            structures = self.known.of(self.model)
            check_step(self.model, structures, self.params)

    def _offer_structures(self):
        """Gives callbacks that will look for structures those that are known.

        They use them at once.
        """
        if not is_built(self.model):
            return
        for callback in self.callbacks:
            if isinstance(callback, StructuresCallback):
                callback.offer_structures(
                    self.known.include, self.known.of(self.model)
                )

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)
        self._guard.announce("train")

    def on_train_batch_end(self, batch, logs=None):
        with self._whole_files(self._saves_batches):
            super().on_train_batch_end(batch, logs)

    def on_test_begin(self, logs=None):
        # Before any other callback looks at the model.
        self._remove()
        super().on_test_begin(logs)

    def on_test_batch_begin(self, batch, logs=None):
        super().on_test_batch_begin(batch, logs)
        self._guard.announce("test")

    def on_epoch_end(self, epoch, logs=None):
        if self._stream is not None:
            self._stream.advance()
        self._remove()
        with self._whole_files(self._saves):
            super().on_epoch_end(epoch, logs)

    def _remove(self):
        for callback in self.callbacks:
            if isinstance(callback, RemovingCallback):
                callback.remove_at_end_of(self._epoch)

    def _whole_files(self, saves):
        return saved_whole(self.model) if saves else contextlib.nullcontext()

    def put_values_back(self):
        """Gives the model the values that an interrupt kept from it."""
        self._guard.put_back()

    def where_the_model_is(self):
        """A sentence for an exception that ends the training."""
        when = "before its first epoch"
        if self._epoch is not None:
            when = f"in epoch {self._epoch + 1} of {self.params['epochs']}"
        return (
            f"`keras_iss.fit` was ended {when}. The model of the moment, which "
            "may be smaller by now, is `model.history.model`, with `model` as "
            "it was given to `keras_iss.fit`. It is whole: train it further "
            "or save it."
        )

    def remember(self, model, epoch):
        """Remembers which model the best weights of a callback are of.

        Args:
            model: The model that was trained.
            epoch: Integer, the first epoch it was trained for.
        """
        for callback in self.callbacks:
            if (
                isinstance(callback, keras.callbacks.EarlyStopping)
                and callback.best_weights is not None
                and (
                    callback.best_epoch >= epoch
                    or id(callback) not in self._best
                )
            ):
                self._best[id(callback)] = model

    def finish(self, model):
        """Ends the training, and gives the model that comes out of it."""
        for callback in self.callbacks:
            if id(callback) in self._best and callback.restore_best_weights:
                model = self._best[id(callback)]
                callback.set_model(model)
        super().on_train_end(self._logs)
        if model is not self.model:
            model.history = self._history
        return model
