"""A size instead of a lambda: a callback that takes units out by schedule.

model.fit(x, y, epochs=20, callbacks=[
    keras_iss.ISSBudget(weights=0.3, by_epoch=16),
    keras_iss.ISSLogger(),
])
small = keras_iss.shrink(model)
"""

import math
import warnings

import numpy as np
from keras import ops

from keras_iss._checks import (
    check_amount,
    check_count,
    check_model,
)
from keras_iss._strength_control import StrengthControl
from keras_iss.callbacks import RemovingCallback
from keras_iss.importance import importance_of, importances_of
from keras_iss.optimizers import left_alone, proximal_of
from keras_iss.selection import target_of
from keras_iss.structures import check_finite, is_finite, quoted
from keras_iss.surgery.zeroing import not_kept
from keras_iss.tracing.find import find_structures

PROXIMAL_SHARE = 0.3
"""What a `ProximalISS` takes off a mean component until the size is met."""


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
            Exactly one of these four is to be given.
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
            Defaults to half of those up to `by_epoch`, rounded down.
        importance: `"norm"` (default) or `"taylor"`, as in
            `estimate_importance`; or a function of the model and its
            `Structures` that returns such a dict.
        data: What `"taylor"` is computed from, as in `estimate_importance`.
        pressure: Float, zero or more: what the penalty is of the loss. For a
            `ProximalISS`, zero turns it off, and any other value is ignored:
            its strength is such that a component of mean norm, with no
            gradient, would lose 30 % of it until `by_epoch`.
        include: Tuple of kinds of layers, as in `find_structures`.

    Raises:
        ValueError: if not exactly one size is given, or one is out of range;
            if `by_epoch` or `from_epoch` is; if a structure is named twice; or
            `importance` is unknown, or `"taylor"` without data. When training
            begins: if the size cannot be met, is met already, or `by_epoch` is
            beyond the run; if `of` is smaller than the model. Then and at the
            end of an epoch: if weights are NaN or infinite.
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
        keep=None,
        *,
        weights=None,
        units=None,
        mult_adds=None,
        round_to=1,
        of=None,
        by_epoch=None,
        from_epoch=None,
        importance="norm",
        data=None,
        pressure=0.02,
        include=("recurrent",),
    ):
        super().__init__(include, freeze=True)
        self._asked = target_of(
            keep=keep,
            weights=weights,
            units=units,
            mult_adds=mult_adds,
            round_to=round_to,
        )
        if self._asked.names_components:
            raise TypeError(
                "`ISSBudget` takes in `keep` how many components stay: their "
                f"indices change as the model gets smaller. Received: {keep!r}"
            )
        self.by_epoch = _check_epochs(by_epoch, "by_epoch", least=1)
        self.from_epoch = _check_epochs(from_epoch, "from_epoch", least=0)
        if (
            None not in (by_epoch, from_epoch)
            and self.from_epoch >= self.by_epoch
        ):
            raise ValueError(
                "`from_epoch` must be less than `by_epoch`. Received: "
                f"from_epoch={from_epoch}, by_epoch={by_epoch}"
            )
        if of is not None:
            check_model(of, "of")
        self.of = of
        self.importance = importance
        self._importance = importance_of(importance, data)
        self.data = data
        self.pressure = check_amount(
            pressure, "pressure", "the penalty's share of the loss"
        )
        self._target = self._asked
        self._plan = None
        self._control = None
        self._strength = 0.0
        self._epochs_seen = 0
        self._updates = None
        self._strengths = []
        self._total_at_first = None
        self._told_of_own_loop = False

    @property
    def strength(self):
        """Float, the strength of the penalty in the train steps to come."""
        return self._strength

    # The phases.

    def on_train_begin(self, logs=None):
        self._plan = None
        self._epochs_seen = 0
        self._control = None
        self._strength = 0.0
        self._total_at_first = None
        self._told_of_own_loop = False
        self._say_who_sets_the_strength()
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if self._plan is None and self._structures is not None:
            self._make_plan(epoch)
        if self._control is None and self._structures is not None:
            self._control_strength(epoch)
        self._updates = self._iterations()
        self._strengths = []

    def on_train_batch_begin(self, batch, logs=None):
        if self._control is not None:
            self._control.announce()

    def on_train_batch_end(self, batch, logs=None):
        self._strengths.append(self._strength)
        if self._control is not None and not self._control.withdraw():
            self._warn_of_own_loop()
        if self._total_at_first:
            # Now a loss is known.
            total, self._total_at_first = self._total_at_first, None
            loss = (logs or {}).get("loss")
            strength = self.pressure * abs(float(loss or 0.0)) / total
            if math.isfinite(strength):
                self._set_strength(strength)

    def _remove_at_end_of(self, epoch):
        self._find()
        if self._lost():
            return
        if self._plan is None:
            self._make_plan(epoch)
        self._epochs_seen += 1
        self._zero_frozen()
        done = self._done(epoch)
        if done:
            self._remove(done)
        self._freeze()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self._control is not None and is_finite(self._structures):
            finished = epoch + 1 >= self._plan[1]
            self._set_strength(
                0.0
                if finished
                else self._strength_after(logs or {}, self._done(epoch), epoch)
            )

    def on_train_end(self, logs=None):
        self._look()
        self._warn_of_what_came_back()
        super().on_train_end(logs)
        self._control = None
        self._warn_if_not_met()

    def set_model(self, model):
        if model is not self.model:
            self._control = None
        super().set_model(model)
        self._say_who_sets_the_strength()

    def _say_who_sets_the_strength(self):
        proximal = proximal_of(getattr(self.model, "optimizer", None))
        if proximal is not None:
            proximal.set_in(self.params)

    # What a user should know of.

    def _warn_of_own_loop(self):
        if not self._told_of_own_loop:
            self._told_of_own_loop = True
            warnings.warn(
                "`ISSBudget` sets the strength of the penalty in the train "
                "steps of `fit`, and this one was taken by something else: it "
                "had no penalty, or that of the `ISSRegularizer` or "
                "`ProximalISS` that you gave. In a training loop of your own, "
                "use one of these, and set its `strength`.",
                stacklevel=2,
            )

    def _warn_of_what_came_back(self):
        back = [
            name
            for name, gone in self._frozen.items()
            if (gone & ~self._structures[name].removed()).any()
        ]
        if back:
            warnings.warn(
                f"Components of {quoted(back)} that `ISSBudget` had removed "
                "came back at the end of the training, as by an "
                "`EarlyStopping` that restores the weights of an epoch before "
                "the removal. They are removed again, with no training after "
                f"it. Use `EarlyStopping(start_from_epoch={self._plan[1]})`.",
                stacklevel=2,
            )

    def _warn_if_not_met(self):
        if self._plan is None or self._structures is None:
            return
        if not self._target.is_met(self._structures):
            warnings.warn(
                "The training ended before `ISSBudget` had met the size: "
                f"{self._target.describe(self._structures)}. It would have by "
                f"epoch {self._plan[1]}. Train on with `initial_epoch`, or use "
                f"`EarlyStopping(start_from_epoch={self._plan[1]})`.",
                stacklevel=2,
            )

    # What they do.

    def _find(self):
        """Finds the structures; those that are not trained are left alone."""
        if self._structures is None:
            structures = super()._find()
            fixed = left_alone("ISSBudget", structures, self.model)
            self._structures = structures.pinning(
                {n: f"`{path}` is not trainable" for n, path in fixed.items()}
            )
        return self._structures

    def _make_plan(self, epoch):
        """Says early if the plan cannot be met."""
        epochs = (self.params or {}).get("epochs") or self.by_epoch or 1
        is_new = self.of is None and not any(
            one.removed().any() for one in self._structures.free
        )
        # One that is resumed goes on with the plan it had.
        begin = epoch if is_new else 0
        last = self.by_epoch or begin + math.ceil((epochs - begin) / 2)
        first = self.from_epoch
        if first is None:
            begin = min(begin, last - 1)
            first = begin + (last - begin) // 2
        if last > epochs:
            raise ValueError(
                f"`by_epoch` is {last}, but the training ends after epoch "
                f"{epochs}: the size would not be met. Train longer, or ask "
                "for it earlier."
            )
        if first >= last:
            raise ValueError(
                f"`from_epoch` is {first}, but the size is to be met by epoch "
                f"{last}. Start earlier, or give `by_epoch`."
            )
        check_finite(self._structures)
        full = self._structures
        if self.of is not None:
            full = find_structures(self.of, self.include).pinning(
                {one.name: one.pinned for one in full if one.pinned}
            )
        elif epoch and self._asked.is_relative:
            warnings.warn(
                f"Training goes on with epoch {epoch + 1}, and `ISSBudget` "
                f"takes its share of `{self.model.name}` as it is now. If that "
                "was made smaller before, say what the share is of: "
                "`ISSBudget(..., of=model_at_full_size)`.",
                stacklevel=2,
            )
        self._target = self._asked.bound(full)
        self._target.check(self._structures)
        if not epoch and self._target.is_met(self._structures):
            raise ValueError(
                "This is met already: "
                f"{self._target.describe(self._structures)}. Ask for less, or "
                "train without `ISSBudget`."
            )
        self._plan = first, last

    def _remove(self, done):
        """Removes what has to go until a part of the way is done."""
        if self._target.is_met(self._structures, done):
            return
        importance = self._estimated()
        kept = self._target.select(self._structures, importance, done)
        self._zero(not_kept(self._structures, kept))

    def _estimated(self):
        def estimate():
            return importances_of(
                self._importance, self.model, self._structures, None
            )

        return (
            estimate()
            if self._control is None
            else self._control.during(estimate)
        )

    def _control_strength(self, epoch):
        control = StrengthControl(
            self.model, self._structures.free, self._strength
        )
        if control.is_own and not self.pressure:
            return
        self._control = control
        if not self._epochs_seen:
            # No loss is known yet, and no rate.
            self._set_strength(0.0)
            learns = self.pressure and epoch < self._plan[1]
            if learns and not control.is_proximal:
                self._total_at_first, _ = self._alive()

    def _set_strength(self, strength):
        self._strength = strength
        self._control.strength = strength

    def _alive(self):
        """The sum of the group norms of what is left, and their number."""
        alive = [one.norms()[~one.removed()] for one in self._structures.free]
        return sum(norms.sum() for norms in alive), sum(map(len, alive))

    def _strength_after(self, logs, done, epoch):
        """The strength for the next epoch."""
        total, count = self._alive()
        if not self.pressure or not total or not math.isfinite(total):
            return 0.0
        if self._control.is_proximal:
            if self._target.is_met(self._structures, 1.0 - 0.8 * (1.0 - done)):
                return 0.0
            proximal = proximal_of(self.model.optimizer)
            rate = float(ops.convert_to_numpy(proximal.learning_rate))
            way = rate * (self._iterations() - self._updates)
            if not way:
                return 0.0
            wanted = PROXIMAL_SHARE * total / count / self._plan[1]
            return min(wanted, 0.5 * self._shortest_to_stay(epoch + 1)) / way
        loss = logs.get("loss")
        if loss is None or not math.isfinite(loss):
            return self._strength
        # The first batch of all has no penalty.
        without = abs(loss - np.mean(self._strengths or [0.0]) * total)
        return float(self.pressure * without / total)

    def _shortest_to_stay(self, epoch):
        """The least group norm of what is there after an epoch, too."""
        kept = self._target.select(self._structures, done=self._done(epoch))
        return min(
            self._structures[name].norms()[stays].min()
            for name, stays in kept.items()
        )

    def _done(self, epoch):
        """The part of the removals that is done at the end of an epoch."""
        first, last = self._plan
        return min(max(epoch + 1 - first, 0) / (last - first), 1.0)

    def _iterations(self):
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            return 0
        return int(ops.convert_to_numpy(optimizer.iterations))


def _check_epochs(value, name, least):
    return None if value is None else check_count(value, name, least, "epochs")
