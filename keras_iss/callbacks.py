"""Callbacks: pruning while a model learns, and what is left of it.

Components are removed at the end of an epoch, before its validation: what the
metrics of the epoch describe is what is there at its end. Without validation
data, `model.fit` has no hook there but the last: put `ISSPruneCallback` before
a `ModelCheckpoint` or an `EarlyStopping` then. `ISSLogger` comes before
whatever reads the logs:

    model.fit(x, y, callbacks=[
        keras_iss.ISSPruneCallback(threshold=0.05),
        keras_iss.ISSLogger(),
        keras.callbacks.CSVLogger("log.csv"),
    ])
"""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_iss._checks import check_flag, is_whole
from keras_iss._histograms import Histograms
from keras_iss._keras.distribution import check_scope
from keras_iss._proximal_step import warn_of_removed_structures
from keras_iss.optimizers import proximal_of, tell_optimizer
from keras_iss.selection import Threshold
from keras_iss.structures.values import check_finite, is_finite, removed_of
from keras_iss.surgery.zeroing import (
    not_kept,
    zero_components,
    zero_elements,
)
from keras_iss.tracing.find import check_include, find_structures, is_built


class StructuresCallback(keras.callbacks.Callback):
    """What looks at the structures of a model while it is trained.

    They are found when training begins, or after the first epoch of a model
    that its first step builds; and anew for another model, which training may
    go on with.

    Args:
        include: Tuple of kinds of layers, as in `find_structures`.
    """

    def __init__(self, include):
        super().__init__()
        check_include(include)
        self.include = include
        self._structures = None
        self._offered_structures = None

    def set_model(self, model):
        if model is not self.model:
            self._structures = None
            self._offered_structures = None
        super().set_model(model)

    def on_train_begin(self, logs=None):
        check_scope(self.model)
        tell_optimizer(self.model)
        self._structures = None
        self._find_if_built()

    def on_epoch_begin(self, epoch, logs=None):
        self._find_if_built()

    def _find_if_built(self):
        """Finds the structures, if the model is built."""
        if self._structures is None and is_built(self.model):
            self._find()

    def _find(self):
        if self._structures is None:
            self._structures = self._offered_structures
            if self._structures is None:
                self._structures = find_structures(self.model, self.include)
        self._offered_structures = None
        return self._structures

    def offer_structures(self, include, structures):
        """Gives the structures of its model, for when it looks for them next.

        Args:
            include: Tuple of the kinds of layers that they are of. Of others
                than it looks for, they are of no use to it.
            structures: `Structures`.
        """
        if self._structures is None and check_include(self.include) == include:
            self._offered_structures = structures


def check_step(model, structures, training):
    """Stops a training whose first proximal step would remove everything.

    Args:
        model: The model that is to be trained.
        structures: Its `Structures`, or `None` if it is not built yet.
        training: The `params` of the callbacks of the training.

    Raises:
        ValueError: if a structure has no component that is longer than the
            step of its `ProximalISS`, and no callback sets that.
    """
    proximal = proximal_of(getattr(model, "optimizer", None))
    if proximal is None or structures is None or proximal.is_set_in(training):
        return
    rate = float(keras.ops.convert_to_numpy(proximal.learning_rate))
    for structure in structures.free:
        largest = structure.norms().max()
        if 0 < largest <= rate * proximal.strength:
            raise ValueError(
                f"The first step of `{proximal.name}` would remove all of "
                f"`{structure.name}`: it takes {rate:g} (the learning rate) "
                f"times {proximal.strength:g} (`strength`) off every "
                f"component, and the largest norm is {largest:.3g}. Use a "
                f"`strength` well below {largest / rate / 100:.2g}, or an "
                "`ISSBudget`, which sets it."
            )


def alive_of(structures):
    """Counts what is left, and warns if nothing is left of a structure.

    Returns:
        Dict from the name of each structure to the components it has left.
    """
    alive = {structure.name: structure.alive for structure in structures}
    warn_of_removed_structures(
        name for name, count in alive.items() if not count
    )
    return alive


class RemovingCallback(StructuresCallback):
    """What sets components to zero, and may keep them there.

    That happens at the end of an epoch, before its validation: what the
    metrics of the epoch describe is what is there at its end.

    Args:
        include: As in `StructuresCallback`.
        keep_removed: Boolean, whether a component that was removed once, also
            before the training, is set to zero again at the end of every
            epoch and of training, whatever moved it.
    """

    def __init__(self, include, keep_removed):
        super().__init__(include)
        check_flag(keep_removed, "keep_removed")
        self.keep_removed = keep_removed
        # Dict from the name of a structure to what was removed of it once.
        self._removed = {}
        # The epoch that is trained, and the one whose removals are done.
        self._epoch = None
        self._removed_in = None

    def set_model(self, model):
        if model is not self.model:
            self._removed = {}
        # Of an `evaluate` of its own, or of a training that has not begun.
        self._epoch = None
        super().set_model(model)

    def on_train_begin(self, logs=None):
        self._removed = {}
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch
        self._removed_in = None

    def on_test_begin(self, logs=None):
        # The validation of an epoch: its metrics are to be those of what is
        # left at its end.
        if self._epoch is not None:
            self.remove_at_end_of(self._epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.remove_at_end_of(epoch)
        self._epoch = None

    def remove_at_end_of(self, epoch):
        """Removes what has to go at the end of an epoch. Once, if called twice.

        Args:
            epoch: Integer.
        """
        if self._removed_in != epoch:
            self._removed_in = epoch
            self._remove_at_end_of(epoch)

    def on_train_end(self, logs=None):
        self._zero_again()

    @property
    def is_tentative(self) -> bool:
        """Boolean, whether what is removed may come back."""
        return False

    def go_back(self) -> None:
        """Takes back what is tentative."""

    def offer_data(self, inputs: Any) -> None:
        """Gives inputs of the model that the training is on, or `None`."""

    def _forget_removed(self):
        """What is removed by now is to stay so, and nothing else."""
        self._removed = {}
        self._remember_removed()

    def _find_if_built(self):
        known = self._structures is not None
        super()._find_if_built()
        if not known and self._structures is not None:
            self._remember_removed()

    def _is_ended_by_nan(self):
        """Whether something else has seen NaN, and ends the training.

        Raises:
            ValueError: if nothing else has.
        """
        if self.model.stop_training and not is_finite(self._structures):
            return True
        check_finite(self._structures)
        return False

    def _remember_removed(self):
        if self.keep_removed:
            for name, removed in removed_of(self._structures.free).items():
                before = self._removed.get(name, False)
                self._removed[name] = before | removed

    def _zero_again(self):
        self._zero(
            (self._structures[name], np.flatnonzero(removed))
            for name, removed in self._removed.items()
        )

    def _zero(self, removals):
        optimizer = getattr(self.model, "optimizer", None)
        zero_components(list(removals), optimizer)


class ISSPruneCallback(RemovingCallback):
    """Sets short components to zero at the end of an epoch.

    Before the validation of that epoch, so that its metrics are those of what
    is left. A component whose weights and biases are all zero gets no
    gradient, and the optimizer's momenta and moments of it are set back to the
    start; so it stays removed, unless its activation is not zero at zero, or
    something else moves its weights.

    Args:
        threshold: Float, zero or more. Components whose group norm is below
            it are pruned, as by `prune`. A structure keeps that of
            its largest norm.
        every: `"epoch"` (default), or an integer `n` for every `n` epochs.
        keep_removed: Boolean, defaults to `False`. If `True`, a component that
            was removed once, also before the training, is set to zero again
            at the end of every epoch and of training, whatever moved it.
        elementwise: Boolean, defaults to `False`. If `True`, compares single
            weights with the threshold instead of components, as the code of
            the paper does (with a threshold of 0.0001): a component is removed
            once all its weights are.
        include: Tuple of kinds of layers, as in `find_structures`.
        round_to: As in `prune`. Not with `elementwise`.

    Raises:
        TypeError: if `threshold` is not a number, or `keep_removed` or
            `elementwise` is no boolean.
        ValueError: if `threshold` is negative or NaN, or `every` is neither
            `"epoch"` nor a positive integer.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8),
        ...     keras.layers.Dense(1)])
        >>> keras_iss.ISSRegularizer(1e-3).attach(model)
        >>> model.compile("adam", "mse")
        >>> history = model.fit(
        ...     np.zeros((4, 5, 3)), np.zeros((4, 1)), verbose=0,
        ...     callbacks=[keras_iss.ISSPruneCallback(threshold=0.01)])

    Source: Wen et al., ICLR 2018, section 4.1, and the paper's code.
    """

    def __init__(
        self,
        threshold: float,
        every: str | int = "epoch",
        keep_removed: bool = False,
        elementwise: bool = False,
        include: tuple[str, ...] = ("recurrent",),
        round_to: int | Mapping = 1,
    ):
        super().__init__(include, keep_removed)
        self._target = Threshold(round_to, threshold)
        self.threshold = self._target.threshold
        check_flag(elementwise, "elementwise")
        self.every = every
        self.elementwise = elementwise
        self._period = _check_period(every)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        check_step(self.model, self._structures, self.params)

    def _remove_at_end_of(self, epoch):
        self._find()
        if (epoch + 1) % self._period == 0:
            self._prune()
        else:
            self._zero_again()

    def _prune(self):
        if self._is_ended_by_nan():
            return
        self._zero_again()
        if self.elementwise:
            zero_elements(self._structures.free, self.threshold)
        else:
            kept = self._target.select(self._structures)
            self._zero(not_kept(self._structures, kept))
        self._remember_removed()
        self._zero_again()


class ISSLogger(StructuresCallback):
    """Puts what is left of a model into the logs of each epoch.

    Keras' progress bar, `CSVLogger` and `TensorBoard` show them, if they come
    after it:

    - `"{structure}_alive"`: the components that are not removed;
    - `"alive_units"`: their sum;
    - `"recurrent_weights"`: the weights that `shrink` would leave in the
      recurrent layers;
    - `"mult_adds"`: the multiply-adds by weights, for one time step, that it
      would leave in the model.

    Args:
        log_dir: Optional string, a folder. If given, a histogram of the group
            norms of each structure is written there after every epoch, for
            TensorBoard (needs the package `tensorboard`).
        include: Tuple of kinds of layers, as in `find_structures`.
        report: Optional path of an HTML page, such as `"training.html"`,
            which is written anew after every epoch, as by
            `keras_iss.report`: size against quality, what was cut when, group
            norms before and after. Its pictures need the extra `report`.

    Raises:
        TypeError: if `log_dir` or `report` is not a path.
        FileNotFoundError: if the folder of `report` is not there.
        ImportError: if `log_dir` is given and `tensorboard` is not installed.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> history = model.fit(
        ...     np.zeros((4, 5, 3)), np.zeros((4, 1)), verbose=0,
        ...     callbacks=[keras_iss.ISSLogger()])
        >>> history.history["lstm_alive"]
        [8]
    """

    def __init__(
        self,
        log_dir: str | os.PathLike | None = None,
        include: tuple[str, ...] = ("recurrent",),
        report: str | os.PathLike | None = None,
    ):
        super().__init__(include)
        if log_dir is not None and not isinstance(log_dir, (str, os.PathLike)):
            raise TypeError(
                "`log_dir` must be the path of a folder. Received: "
                f"{log_dir!r} (of type {type(log_dir).__name__})"
            )
        self.log_dir = log_dir
        self._histograms = None if log_dir is None else Histograms(log_dir)
        self._recording = None if report is None else _recording(report)

    def on_train_begin(self, logs=None):
        if self._recording is not None:
            self._recording.begin()
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self._recording is not None and self._structures is not None:
            self._recording.see(self._structures)
        check_step(self.model, self._structures, self.params)

    def on_epoch_end(self, epoch, logs=None):
        self._find()
        logs = {} if logs is None else logs
        alive = alive_of(self._structures)
        left = self._structures.counts(shrunk=True)
        logs.update({f"{name}_alive": count for name, count in alive.items()})
        logs.update(
            alive_units=sum(alive.values()),
            recurrent_weights=left.recurrent_weights,
            mult_adds=left.mult_adds,
        )
        if self._histograms is not None:
            for structure in self._structures:
                self._histograms.write(
                    f"{structure.name}/group_norms", structure.norms(), epoch
                )
            self._histograms.flush()
        if self._recording is not None:
            self._recording.add(self.model.name, epoch, logs, self._structures)


def _recording(path):
    # What a page needs is imported only where there is to be one.
    from keras_iss.report.recording import Recording

    return Recording(path)


def _check_period(every):
    if every == "epoch":
        return 1
    if not is_whole(every) or every < 1:
        raise ValueError(
            '`every` must be "epoch" or a positive number of epochs. '
            f"Received: {every!r}. What has to act on every step belongs in "
            "the regularizer: on JAX a step keeps the weights to itself."
        )
    return int(every)
