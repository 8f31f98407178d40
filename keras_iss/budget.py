"""A size instead of a lambda: a callback that takes units out by schedule.

model.fit(x, y, epochs=20, callbacks=[
    keras_iss.ISSBudget(weights=0.3, by_epoch=16),
    keras_iss.ISSLogger(),
])
small = keras_iss.shrink(model)
"""

import collections.abc
import math
import warnings

import numpy as np
from keras import ops

from keras_iss._checks import (
    check_amount,
    check_count,
    check_model,
    is_whole,
    number,
)
from keras_iss._data import check_data
from keras_iss._strength_control import StrengthControl
from keras_iss.callbacks import RemovingCallback
from keras_iss.importance import estimate_importance
from keras_iss.optimizers import left_alone, proximal_of
from keras_iss.selection import Budget, allot, check_importance
from keras_iss.structures import Structure, check_finite, is_finite, quoted
from keras_iss.tracing.find import find_structures

IMPORTANCES = ("norm", "taylor")

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
            `estimate_importance`; or a function that takes the model, and
            returns such a dict.
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
        of=None,
        by_epoch=None,
        from_epoch=None,
        importance="norm",
        data=None,
        pressure=0.02,
        include=("recurrent",),
    ):
        super().__init__(include, freeze=True)
        shares = {"weights": weights, "units": units, "mult_adds": mult_adds}
        if keep is None:
            self._goal = _Share(Budget(**shares))
        elif any(share is not None for share in shares.values()):
            raise ValueError(
                "`ISSBudget` takes a dict of sizes, or one of `weights`, "
                "`units` and `mult_adds`, not both."
            )
        else:
            self._goal = _Sizes(keep)
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
        is_known = isinstance(importance, str) and importance in IMPORTANCES
        if not is_known and not callable(importance):
            raise ValueError(
                '`importance` must be "norm", "taylor" or a function of the '
                f"model. Received: {importance!r}"
            )
        if is_known and importance == "taylor":
            if data is None:
                raise ValueError('`importance="taylor"` needs `data`.')
            check_data(data)
        if of is not None:
            check_model(of, "of")
        self.of = of
        self.importance = importance
        self.data = data
        self.pressure = check_amount(
            pressure, "pressure", "the penalty's share of the loss"
        )
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
            self._remove(1.0 - done)
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
        if not self._goal.is_met(self._structures, 0.0):
            warnings.warn(
                "The training ended before `ISSBudget` had met the size: "
                f"{self._goal.left(self._structures)}. It would have by epoch "
                f"{self._plan[1]}. Train on with `initial_epoch`, or use "
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
        elif epoch and self._goal.is_relative:
            warnings.warn(
                f"Training goes on with epoch {epoch + 1}, and `ISSBudget` "
                f"takes its share of `{self.model.name}` as it is now. If that "
                "was made smaller before, say what the share is of: "
                "`ISSBudget(..., of=model_at_full_size)`.",
                stacklevel=2,
            )
        self._goal.begin(self._structures, full, resumed=epoch > 0)
        self._plan = first, last

    def _remove(self, part):
        """Removes what has to go until only a part of it is still there."""
        if self._goal.is_met(self._structures, part):
            return
        kept = self._goal.keep(self._structures, part, self._importance())
        self._zero(
            (
                self._structures[name],
                np.setdiff1d(np.arange(self._structures[name].size), stays),
            )
            for name, stays in kept.items()
        )

    def _importance(self):
        if callable(self.importance):
            importance = self.importance(self.model)
            if importance is None:
                raise TypeError(
                    "The function given as `importance` returned None. It must "
                    "return a dict from the name of a structure to a number "
                    "for each component."
                )
        elif self.importance == "taylor":
            importance = self._with_its_strength(
                lambda: estimate_importance(
                    self.model, self.data, by="taylor", include=self.include
                )
            )
        else:
            importance = None
        return check_importance(self._structures, importance)

    def _with_its_strength(self, function):
        if self._control is None:
            return function()
        return self._control.during(function)

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
            if self._goal.is_met(self._structures, 0.8 * (1.0 - done)):
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
        kept = self._goal.keep(self._structures, 1.0 - self._done(epoch), {})
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


class _Share:
    """A goal: a number of weights, units or multiply-adds over all."""

    def __init__(self, budget):
        self._budget = budget
        self._full = None
        self._wanted = None

    @property
    def is_relative(self):
        """Boolean, whether it depends on the size at the start."""
        return self._budget.is_share

    def begin(self, structures, full, resumed):
        """Says what is wanted of the model, which may get smaller later.

        Args:
            structures: `Structures` of the model that is trained.
            full: Those of the model at full size, which may be the same.
            resumed: Boolean, whether the training began before.

        Raises:
            ValueError: if it cannot be met, or is met already.
        """
        budget = self._budget
        self._full = budget.measure(full)
        self._wanted = budget.wanted(full)
        size = budget.measure(structures)
        if self._full < size:
            raise ValueError(
                f"`of` has {self._full:,.0f} {budget.words}, fewer than "
                f"the model that is trained: {size:,.0f}. Give the model at "
                "full size."
            )
        allot(structures, budget, wanted=self._wanted)
        left = self._left(structures)
        if left <= self._wanted and not resumed:
            raise ValueError(
                f"The model has {left:,.0f} {budget.words} left, "
                f"and {self._wanted:,.0f} are asked for: this is met already. "
                "Ask for less, or train without `ISSBudget`."
            )

    def is_met(self, structures, part):
        """Whether no more than a part of what has to go is still there."""
        return self._left(structures) <= self._at(part)

    def keep(self, structures, part, importance):
        """What stays: dict from name to indices."""
        return allot(structures, self._budget, importance, self._at(part))

    def left(self, structures):
        """What is left and what is asked for, for a message."""
        return (
            f"{self._left(structures):,.0f} {self._budget.words} are "
            f"left, {self._wanted:,.0f} asked for"
        )

    def _left(self, structures):
        return self._budget.measure(structures, keep={})

    def _at(self, part):
        return self._wanted + part * (self._full - self._wanted)


class _Sizes:
    """A goal: the sizes of structures that are named."""

    is_relative = False

    def __init__(self, keep):
        if not isinstance(keep, collections.abc.Mapping):
            raise TypeError(
                "`ISSBudget` takes a dict from the name of a structure to its "
                "size, or one of `weights`, `units` and `mult_adds`. Received: "
                f"{keep!r} (of type {type(keep).__name__})"
            )
        if not keep:
            raise ValueError(
                "The dict of sizes is empty. It takes the size that a "
                'structure is to have, as in `ISSBudget({"lstm": 8})`.'
            )
        self._keep = {}
        for key, size in keep.items():
            name = key.name if isinstance(key, Structure) else key
            if not is_whole(number(size)):
                raise TypeError(
                    f"`ISSBudget` takes the number of components that stay of "
                    f"`{name}`. Received: {size!r} (of type "
                    f"{type(size).__name__})"
                )
            if name in self._keep:
                raise ValueError(f"The dict of sizes names `{name}` twice.")
            self._keep[name] = int(number(size))
        self._full = None

    def begin(self, structures, full, resumed):
        """Remembers the sizes at the start. See `_Share`."""
        named = {}
        for name, size in self._keep.items():
            one = full[name]
            if named.setdefault(one.name, name) != name:
                raise ValueError(
                    f"The dict of sizes names the structure `{one.name}` twice "
                    f"({quoted([named[one.name], name])}): the units of "
                    f"{quoted(one.makers)} are tied. Name one of them."
                )
            if one.pinned:
                raise ValueError(
                    f"`{name}` is pinned and must keep its size: {one.pinned}."
                )
            if not 1 <= size <= one.size:
                raise ValueError(
                    f"`{name}` has {one.size} components and keeps at least "
                    f"one: `ISSBudget` takes 1 to {one.size} for it. Received: "
                    f"{size}"
                )
        self._full = {name: full[name].size for name in self._keep}
        if self.is_met(structures, 0.0) and not resumed:
            raise ValueError(
                f"The sizes of {quoted(self._keep)} are met already: "
                f"{self._keep}. Ask for less, or train without `ISSBudget`."
            )

    def is_met(self, structures, part):
        """See `_Share`."""
        return all(
            structures[name].alive <= size
            for name, size in self._at(part).items()
        )

    def left(self, structures):
        """See `_Share`."""
        return ", ".join(
            f"`{name}` has {structures[name].alive} components, {size} asked "
            "for"
            for name, size in self._keep.items()
        )

    def keep(self, structures, part, importance):
        """See `_Share`."""
        kept = {}
        for name, size in self._at(part).items():
            one = structures[name]
            values = importance.get(one.name, one.norms())
            values = np.where(one.removed(), -np.inf, values)
            order = np.argsort(-values, kind="stable")
            kept[one.name] = np.sort(order[:size])
        return kept

    def _at(self, part):
        return {
            name: size + round(part * (self._full[name] - size))
            for name, size in self._keep.items()
        }


def _check_epochs(value, name, least):
    return None if value is None else check_count(value, name, least, "epochs")
