"""A size instead of a lambda: a callback that takes units out by schedule.

model.fit(x, y, epochs=20, callbacks=[
    keras_iss.ISSBudget(weights=0.3, by_epoch=16),
    keras_iss.ISSLogger(),
])
small = keras_iss.shrink(model)
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_iss._budget_warnings import (
    warn_of_a_share_of_what_is_left,
    warn_of_what_came_back,
    warn_that_nothing_was_kept,
    warn_that_size_is_not_met,
)
from keras_iss._checks import check_amount, check_flag, check_model
from keras_iss._strength_control import StrengthControl
from keras_iss.callbacks import RemovingCallback
from keras_iss.costs.measuring import with_known_costs
from keras_iss.importance import Importance, importance_of, importances_of
from keras_iss.optimizers import left_alone, proximal_of
from keras_iss.quality import (
    QualitySearch,
    check_goes_with_within,
    quality_control,
)
from keras_iss.refit import refit_weights
from keras_iss.schedules import EqualSteps, check_epochs, equal_steps
from keras_iss.selection import target_of
from keras_iss.structures.values import check_finite
from keras_iss.surgery.zeroing import not_kept
from keras_iss.tracing.find import find_structures


class ISSBudget(RemovingCallback):
    """Trains a model down to a size that is asked for.

    In three phases, all within one `fit`:

    1. The model learns under a light penalty, whose strength is set after
       the first batch, and anew after each epoch: the penalty is `pressure`
       times the loss.
    2. From the end of epoch `from_epoch + 1` to that of epoch `by_epoch`, the
       components with the lowest importance are removed, in equal steps. Before
       the validation of that epoch, so that its metrics are those of what is
       left.
    3. The rest of the epochs trains what is left, without a penalty. What is
       removed stays so.

    With `within`, the quality is what is asked for, and the size is found:
    the model is trained at full size until `monitor` stops improving for
    `patience` epochs. Its best value is the reference. Then steps remove 30 %
    of the weights that are left, at the beginning of an epoch; what reads them
    is refitted, if there is `data`; and the model is trained. A step is kept as
    soon as the value is within tolerance. Where it stops improving for
    `patience` epochs before, the model goes back to what was kept last, with
    the beginning of the next epoch or with the end of the training, and half
    of the step is tried. The training stops when a step would be smaller than
    a sixty-fourth. It ends with a model that was within tolerance when its
    step was kept, or with the full-size one and a warning. A training that was
    interrupted goes on with its search if it is given the same callback, the
    model of that moment and an `initial_epoch`.

    A structure with weights that are not trainable is left alone. An
    `EarlyStopping` should have `start_from_epoch=by_epoch`, or it may go back
    to weights of before the removals. Without validation data, `model.fit` has
    no hook before the last of an epoch: put `ISSBudget` before a
    `ModelCheckpoint` or an `EarlyStopping` then.

    The penalty is that of the `ISSRegularizer`s that are attached to the model,
    or the step of the `ProximalISS` it is trained with; if there is neither,
    one of its own. It has the strength that this sets in the train steps of
    this training, and at no other time: between them and afterwards, also
    where the training was interrupted, the model and its strength are as you
    gave them, and a validation loss has no penalty of its own. A proximal step
    that would remove more than the schedule asks for is suspended.

    Args:
        keep: Dict from the name of a structure to the integer number of its
            components that stay. Structures it does not name keep theirs.
        weights: Of the weights of the recurrent layers (of all the weights,
            in a model without recurrent layers), those that stay: a float
            below 1 is the share, an integer the number of them.
        units: As `weights`, but of the components that are not pinned.
        mult_adds: As `weights`, but of the multiply-adds of a time step.
        latency_ms: Float, the milliseconds that a call of the exported model
            may take, as in `prune`.
        size_kb: Float, the thousands of bytes that the exported file may
            take, as in `prune`.
        costs: What `latency_ms` and `size_kb` are told by, as in `prune`. Of
            the model at full size. Defaults to `None`: they are measured when
            training begins.
        within: Float, zero or more: how much worse the monitored value of the
            smaller model may be than the best of the full-size model, as a
            part of it. 0.01 is one percent. Exactly one of these targets is
            to be given.
        monitor: String, the name in the logs of what `within` is about.
            Defaults to `"val_loss"`, which is free of the penalty.
        mode: `"min"`, `"max"` or `"auto"` (default): whether less is better,
            more is, or the name of `monitor` says it.
        patience: Integer, one or more, in epochs, as said above. Defaults to
            2.
        backup: Optional path of a `.keras` file, which holds the model that
            was kept last, whole at any time, with the search in a `.json` file
            beside it. To go on in another process, load the model, and train
            it with the same arguments and an `initial_epoch`. With `within`
            only.
        round_to: Integer, or dict from the name of a structure to one, as in
            `prune`.
        of: Optional model at full size, which shares are of and the schedule
            began with. Defaults to the model that is trained; a training that
            is resumed with a smaller one needs it.
        by_epoch: Integer, the number of epochs at whose end the size is met.
            Defaults to half of those of `fit`, rounded up; where a training
            with nothing removed yet begins at an `initial_epoch`, to half of
            what is left.
        from_epoch: Integer, the number of epochs before the first removal.
            Defaults to half of those up to `by_epoch`, rounded down. With
            `within`, the most epochs before the first step; half of those of
            `fit`, by default.
        importance: `"norm"` (default), `"taylor"` or `"redundancy"`, as in
            `estimate_importance`; or a function of the model and its
            `Structures` that returns such a dict.
        data: What `"taylor"` and `"redundancy"` are computed from, as in
            `estimate_importance`, and what a refit reads, as in `prune`. For
            the refit, defaults to the `x` of `keras_iss.fit`, if these are
            arrays.
        refit: Optional boolean, whether what reads removed components is
            refitted, as by `prune(..., refit=True)`. Defaults to whether there
            are data, with `within`, and to `False` otherwise: a training that
            goes on makes up for it.
        pressure: Float, zero or more: what the penalty is of the loss. For a
            `ProximalISS`, zero turns it off, and any other value is ignored:
            its strength is such that a component of mean norm, with no
            gradient, would lose 30 % of it until `by_epoch`.
        include: Tuple of kinds of layers, as in `find_structures`.

    Raises:
        ValueError: if not exactly one target is given, or one is out of range;
            if `by_epoch` or `of` is given with `within`; if `refit` lacks data;
            if `by_epoch` or `from_epoch` is; if a structure is named twice; or
            `importance` is unknown, or one of the two without data. When
            training begins: if the size cannot be met, is met already, or
            `by_epoch` is beyond the run; if `of` is smaller than the model.
            Then and at the end of an epoch: if weights are NaN or infinite.
        TypeError: if one of these is of the wrong type.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> history = model.fit(
        ...     np.ones((4, 5, 3)), np.zeros((4, 1)), epochs=4, verbose=0,
        ...     callbacks=[keras_iss.ISSBudget(weights=0.3)])
        >>> keras_iss.shrink(model).get_layer("lstm").units
        3
    """

    def __init__(
        self,
        keep: Mapping | None = None,
        *,
        weights: float | int | None = None,
        units: float | int | None = None,
        mult_adds: float | int | None = None,
        latency_ms: float | None = None,
        size_kb: float | None = None,
        costs: Any = None,
        round_to: int | Mapping = 1,
        within: float | None = None,
        monitor: str = "val_loss",
        mode: str = "auto",
        patience: int = 2,
        backup: Any = None,
        of: keras.Model | None = None,
        by_epoch: int | None = None,
        from_epoch: int | None = None,
        importance: str | Importance = "norm",
        data: Any = None,
        refit: bool | None = None,
        pressure: float = 0.02,
        include: tuple[str, ...] = ("recurrent",),
    ):
        super().__init__(include, keep_removed=True)
        sizes = {
            "keep": keep,
            "weights": weights,
            "units": units,
            "mult_adds": mult_adds,
            "latency_ms": latency_ms,
            "size_kb": size_kb,
        }
        self._quality = None
        if within is None:
            if backup is not None:
                raise ValueError(
                    "`backup` is of a search for a size: it goes with `within`."
                )
        else:
            check_goes_with_within(
                by_epoch=by_epoch, of=of, costs=costs, **sizes
            )
            self._quality = quality_control(
                within, monitor, mode, patience, from_epoch, backup
            )
            # Stands for the size, which is found.
            sizes["weights"] = 0.5
        self._asked = target_of(round_to=round_to, costs=costs, **sizes)
        if self._asked.names_components:
            raise TypeError(
                "`ISSBudget` takes in `keep` how many components stay: their "
                f"indices change as the model gets smaller. Received: {keep!r}"
            )
        self.from_epoch, self.by_epoch = check_epochs(from_epoch, by_epoch)
        self._importance = importance_of(importance, data)
        if of is not None:
            check_model(of, "of")
        self.of = of
        self.importance = importance
        self.data = data
        if refit is not None:
            check_flag(refit, "refit")
        self.refit = refit
        self._offered = None
        self.pressure = check_amount(
            pressure, "pressure", "the penalty's share of the loss"
        )
        self._begin_anew()

    def _begin_anew(self):
        # Both come with the structures of the model.
        self._target = None
        self._schedule = None
        self._control = StrengthControl(self.pressure)

    @property
    def strength(self) -> float:
        """Float, the strength of the penalty in the train steps to come."""
        return self._control.strength

    @property
    def is_tentative(self) -> bool:
        """Boolean, whether what is removed may come back."""
        return self._quality is not None and self._quality.is_tentative

    @property
    def search(self) -> QualitySearch | None:
        """`QualitySearch`, how far the search of `within` is, or `None`."""
        return None if self._quality is None else self._quality.search

    def offer_data(self, inputs: Any) -> None:
        """Gives what a refit reads where the user gave no `data`.

        Args:
            inputs: Inputs of the model, as arrays, or `None`.
        """
        self._offered = inputs

    def go_back(self) -> None:
        """Takes a step back that is not kept yet, as after an interrupt."""
        if self._quality is not None and self.is_tentative:
            self._quality.go_back()
            self._forget_removed()

    # What Keras calls.

    def set_model(self, model):
        if model is not self.model:
            self._control.end_model()
        super().set_model(model)
        self._tell_proximal()

    def on_train_begin(self, logs=None):
        self._begin_anew()
        self._tell_proximal()
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self._structures is not None:
            self._settle_target(epoch)
            self._search_before(epoch)
            self._control.begin_epoch(
                self.model, self._structures, self._schedule, epoch
            )

    def on_train_batch_begin(self, batch, logs=None):
        self._control.begin_batch()

    def on_train_batch_end(self, batch, logs=None):
        self._control.end_batch(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self._control.end_epoch(
            logs or {}, self._structures, self._target, epoch + 1
        )
        if self._quality is not None:
            epochs = (self.params or {}).get("epochs") or epoch + 1
            self._say(
                epoch,
                self._quality.after_epoch(
                    self.model, epoch, epochs, logs or {}
                ),
            )

    def on_train_end(self, logs=None):
        self._find_if_built()
        if self._quality is not None:
            self.go_back()
            self._quality.end(self.model)
        back = self._came_back()
        if back:
            warn_of_what_came_back(back, self._schedule.by_epoch)
        super().on_train_end(logs)
        self._control.end_model()
        if self._target is not None and self._structures is not None:
            self._warn_if_not_met()

    def _tell_proximal(self):
        """Tells a `ProximalISS` who sets its strength in this training."""
        proximal = proximal_of(getattr(self.model, "optimizer", None))
        if proximal is not None:
            proximal.set_in(self.params)

    # What is removed.

    def _remove_at_end_of(self, epoch):
        self._find()
        if self._is_ended_by_nan():
            return
        self._settle_target(epoch)
        self._zero_again()
        self._remove(self._schedule.done(epoch + 1))
        self._remember_removed()

    def _remove(self, done):
        """Removes what has to go until a part of the way is done."""
        if not done or self._target.is_met(self._structures, done):
            return
        importance = self._control.during(
            lambda: importances_of(
                self._importance, self.model, self._structures
            )
        )
        kept = self._target.select(self._structures, importance, done)
        self._cut(kept, self.refit)

    def _cut(self, kept, refits):
        """Removes what is not kept, with a refit of what reads it or without.

        Raises:
            ValueError: if there are no data for a refit that was asked for.
        """
        removals = not_kept(self._structures, kept)
        data = self._offered if self.data is None else self.data
        if refits and data is None:
            raise ValueError(
                "`ISSBudget(refit=True)` needs inputs: give it `data`, or "
                "train with `keras_iss.fit` on arrays."
            )
        if not refits:
            self._zero(removals)
            return
        refit = refit_weights(self.model, self._structures, kept, data)
        with refit.applied():
            self._zero(removals)

    def _search_before(self, epoch):
        """With `within`, takes a step or takes one back."""
        if self._quality is None:
            return
        was_tentative = self.is_tentative
        done = self._quality.before_epoch(self.model, self._take_step)
        if was_tentative and not self.is_tentative:
            self._forget_removed()
        self._say(epoch, done)

    def _take_step(self, part):
        """Removes a part of the weights that are left, if that can be."""
        # Of before, if a step was taken back.
        self._forget_removed()
        structures = self._structures
        alive = {x.name: np.flatnonzero(~x.removed()) for x in structures.free}
        left = self._asked.measure(structures, alive)
        wanted = int(left * (1.0 - part))
        if not 0 < wanted < left:
            return False
        target = target_of(weights=wanted, round_to=self._asked.round_to)
        try:
            target.check(structures)
        except ValueError:
            # One component of each structure is more than that.
            return False
        importance = self._control.during(
            lambda: importances_of(self._importance, self.model, structures)
        )
        kept = target.select(structures, importance)
        has_data = self.data is not None or self._offered is not None
        self._cut(kept, has_data if self.refit is None else self.refit)
        self._remember_removed()
        return True

    def _say(self, epoch, sentence):
        """Prints what the search does, where the training prints."""
        if sentence and (self.params or {}).get("verbose"):
            sizes = ", ".join(
                f"{x.name} {x.alive}" for x in self._structures.free
            )
            print(f"\nEpoch {epoch + 1}: {sentence.strip()} Left: {sizes}.")

    def _find(self):
        """Finds the structures; those that are not trained are left alone."""
        if self._structures is None:
            structures = super()._find()
            fixed = left_alone("ISSBudget", structures, self.model)
            self._structures = structures.pinning(
                {n: f"`{path}` is not trainable" for n, path in fixed.items()}
            )
        return self._structures

    def _settle_target(self, epoch):
        """Settles what is asked for and when; says early if it cannot be met.

        Args:
            epoch: Integer, the epochs that are over.
        """
        if self._target is not None:
            return
        is_new = self.of is None and not any(
            x.removed().any() for x in self._structures.free
        )
        # One that is resumed goes on with the schedule it had.
        begin = epoch if is_new else 0
        epochs = (self.params or {}).get("epochs") or self.by_epoch or 1
        check_finite(self._structures)
        if self._quality is not None:
            self._quality.begin(self.model, is_new=not epoch)
            # The penalty goes on, and no size is met by itself.
            self._schedule = EqualSteps(epochs, epochs + 1)
            self._target = self._asked.bound(self._structures)
            return
        schedule = equal_steps(self.from_epoch, self.by_epoch, begin, epochs)
        full = self._structures
        if self.of is not None:
            full = find_structures(self.of, self.include).pinning(
                {x.name: x.pinned for x in full if x.pinned}
            )
        elif epoch and self._asked.is_relative:
            warn_of_a_share_of_what_is_left(self.model, epoch)
        asked = with_known_costs(
            self._asked, self.of or self.model, self.include
        )
        target = asked.bound(full)
        target.check(self._structures)
        if not epoch and target.is_met(self._structures):
            raise ValueError(
                f"This is met already: {target.describe(self._structures)}. "
                "Ask for less, or train without `ISSBudget`."
            )
        self._target, self._schedule = target, schedule

    def _came_back(self):
        """Names of the structures of which something removed came back."""
        return [
            name
            for name, gone in self._removed.items()
            if (gone & ~self._structures[name].removed()).any()
        ]

    def _warn_if_not_met(self):
        if self._quality is not None:
            if not self.search.kept:
                warn_that_nothing_was_kept(self.search)
        elif not self._target.is_met(self._structures):
            warn_that_size_is_not_met(
                self._target.describe(self._structures),
                self._schedule.by_epoch,
            )
