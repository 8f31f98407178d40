"""The search for the smallest model that is as good as the large one.

It knows numbers only: the monitored value of each epoch comes in, what to do
next comes out. `ISSBudget(within=...)` does it.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_iss._checks import check_amount, check_count
from keras_iss._directions import is_larger_better
from keras_iss._snapshots import Snapshot
from keras_iss._whole_files import saved_whole

SMALLEST_PART = 1 / 64
"""A step that would remove less of what is left ends the search."""


@dataclasses.dataclass
class QualitySearch:
    """Steps down in size as long as a monitored value recovers.

    First the full-size model is trained until its value stops improving. Its
    best value is the reference. Then each step removes a part of what is left
    and trains. The step is kept as soon as the value is within tolerance of
    the reference; where it stops improving before, the step is taken back, and
    tried again with half of the part.

    Attributes:
        within: Float, how much worse than the reference a value may be, as a
            part of it: 0.01 is one percent.
        larger_is_better: Boolean.
        part: Float, the part of what is left that the next step removes.
        patience: Integer, the number of epochs without an improvement after
            which a step is taken back, or the full-size model is trained
            enough.
        reference: Optional float, the best value of the full-size model.
        kept: Integer, the number of steps that were kept.
        taken_back: Integer, the number of steps that were taken back.
        is_learning: Boolean, whether no step was taken yet.
        is_finished: Boolean, whether there is no step to take any more.
        best: Optional float, the best value since the last step.
        epochs_without: Integer, the epochs since then without a better one.
    """

    within: float
    larger_is_better: bool = False
    part: float = 0.3
    patience: int = 2
    reference: float | None = None
    kept: int = 0
    taken_back: int = 0
    is_learning: bool = True
    is_finished: bool = False
    best: float | None = None
    epochs_without: int = 0

    @property
    def limit(self) -> float | None:
        """The worst value that is within tolerance."""
        if self.reference is None:
            return None
        margin = self.within * abs(self.reference)
        if self.larger_is_better:
            return self.reference - margin
        return self.reference + margin

    def is_within(self, value: float) -> bool:
        """Whether a value is as good as asked."""
        limit = self.limit
        if limit is None or not math.isfinite(value):
            return False
        return value >= limit if self.larger_is_better else value <= limit

    def after_learning_epoch(self, value: float, is_last: bool) -> bool:
        """Takes note of an epoch at full size.

        Args:
            value: The monitored value.
            is_last: Boolean, whether the steps are to begin in any case.

        Returns:
            Whether the steps begin with the next epoch.
        """
        if self._is_improved(value):
            self.reference = self.best
        if self.reference is None:
            # Not one value was finite.
            return False
        if is_last or self.epochs_without >= self.patience:
            self.is_learning = False
            self._start_counting()
        return not self.is_learning

    def after_step_epoch(self, value: float) -> str:
        """Takes note of an epoch after a step.

        Args:
            value: The monitored value.

        Returns:
            `"keep"`, `"wait"` or `"take back"`.
        """
        improved = self._is_improved(value)
        if self.is_within(value):
            self.kept += 1
            self._start_counting()
            return "keep"
        if improved or self.epochs_without < self.patience:
            return "wait"
        self.take_back()
        return "take back"

    def take_back(self) -> None:
        """A step was taken back: the next is half of it."""
        self.taken_back += 1
        self._start_counting()
        self.halve()

    def halve(self) -> None:
        """The next step is half of what it would be, or there is none."""
        self.part /= 2
        self.is_finished = self.part < SMALLEST_PART

    def _start_counting(self):
        self.best, self.epochs_without = None, 0

    def _is_improved(self, value):
        if not math.isfinite(value):
            better = False
        elif self.best is None:
            better = True
        elif self.larger_is_better:
            better = value > self.best
        else:
            better = value < self.best
        self.epochs_without = 0 if better else self.epochs_without + 1
        if better:
            self.best = value
        return better


class QualityControl:
    """Takes the steps of a search in a training, and takes them back.

    A step that is not kept yet is there as zeros, so that it can be taken
    back: what cuts them out has to wait until `is_tentative` is false.

    Args:
        search: `QualitySearch`.
        monitor: String, what the logs call the monitored value.
        learning_epochs: Optional integer, the most epochs before the first
            step. Defaults to half of those of the training, rounded up.
        backup: Optional path of a `.keras` file.

    Attributes:
        search: `QualitySearch`.
        is_tentative: Boolean, whether a step was taken that is neither kept
            nor taken back.
    """

    def __init__(
        self,
        search: QualitySearch,
        monitor: str,
        learning_epochs: int | None = None,
        backup: Any = None,
    ):
        self.search = search
        self.monitor = monitor
        self.is_tentative = False
        self._learning_epochs = learning_epochs
        self._backup = None if backup is None else pathlib.Path(backup)
        self._snapshot: Snapshot | None = None
        self._is_to_go_back = False

    def begin(self, model: keras.Model, is_new: bool) -> None:
        """A training begins.

        Args:
            model: The `keras.Model`.
            is_new: Boolean, whether it is a new search, instead of one that
                was interrupted.
        """
        if self._snapshot is not None and self._snapshot.model is not model:
            self._snapshot, self.is_tentative = None, False
        search = self.search
        if is_new:
            self.go_back()
            self.search = QualitySearch(
                search.within, search.larger_is_better, patience=search.patience
            )
        elif search.is_learning:
            self._read_search()

    def _read_search(self):
        """Goes on with the search that is written beside the backup."""
        if self._backup is None or not self._state_file.exists():
            return
        known = json.loads(self._state_file.read_text())
        asked = self.search.within, self.search.larger_is_better
        if (known["within"], known["larger_is_better"]) == asked:
            self.search = QualitySearch(**known)

    def before_epoch(
        self, model: keras.Model, take_step: Callable[[float], bool]
    ) -> str:
        """Takes the next step, or the last one back first.

        Args:
            model: The `keras.Model`.
            take_step: Function of the part of what is left that is to go,
                which removes it, and returns whether it could.

        Returns:
            What was done, a sentence, or an empty string.
        """
        done = ""
        if self._is_to_go_back:
            done = self.go_back()
        if self.search.is_learning or self.is_tentative:
            return done
        # Of what happens from here on, nothing may stay that is not kept.
        self._snapshot, self.is_tentative = Snapshot(model), True
        self._write_backup(model)
        while not self.search.is_finished:
            if take_step(self.search.part):
                part = f"{self.search.part:.1%} of the weights that are left"
                return f"{done} Removed {part}."
            # So few components are left that a smaller part is none.
            self.search.halve()
        model.stop_training = True
        return done

    def after_epoch(
        self, model: keras.Model, epoch: int, epochs: int, logs: Mapping
    ) -> str:
        """Takes note of the metrics of an epoch.

        Args:
            model: The `keras.Model`.
            epoch: Integer, the epoch.
            epochs: Integer, the epochs of the training.
            logs: Dict, the metrics of the epoch.

        Returns:
            What comes of it, a sentence, or an empty string.

        Raises:
            ValueError: if the monitored value is not among them.
        """
        if logs.get(self.monitor) is None:
            raise ValueError(
                f"`ISSBudget(within=...)` monitors `{self.monitor}`, which is "
                f"not among the metrics of an epoch: {sorted(logs)}. Give "
                "`validation_data` to `fit`, or another `monitor`."
            )
        value, search = float(logs[self.monitor]), self.search
        if search.is_learning:
            most = self._learning_epochs or math.ceil(epochs / 2)
            if not search.after_learning_epoch(value, epoch + 1 >= most):
                return ""
            return (
                f"The reference is {self.monitor} {search.reference:.4g}; "
                f"{search.limit:.4g} is the limit."
            )
        if not self.is_tentative or self._snapshot is None:
            return ""
        answer = search.after_step_epoch(value)
        what = f"{self.monitor} {value:.4g}, {search.limit:.4g} is the limit"
        if answer == "keep":
            self._snapshot, self.is_tentative = None, False
            return f"Kept: {what}."
        if answer == "wait":
            return f"Goes on training: {what}."
        self._is_to_go_back = True
        model.stop_training = model.stop_training or search.is_finished
        return f"To be taken back: {what}."

    def go_back(self) -> str:
        """Gives the model its values of before a step that is not kept.

        Returns:
            What was done, a sentence, or an empty string.
        """
        self._is_to_go_back = False
        if not self.is_tentative or self._snapshot is None:
            return ""
        self._snapshot.restore()
        self._snapshot, self.is_tentative = None, False
        return "Took the last step back."

    def end(self, model: keras.Model) -> None:
        """The training ends: what is not kept goes back, and is written."""
        self.go_back()
        self._write_backup(model)

    @property
    def _state_file(self):
        return self._backup.with_name(f"{self._backup.name}.json")

    def _write_backup(self, model):
        if self._backup is None or self.search.is_learning:
            return
        with saved_whole(model):
            model.save(self._backup)
        new = self._state_file.with_name(f".{self._state_file.name}.new")
        new.write_text(json.dumps(dataclasses.asdict(self.search)))
        new.replace(self._state_file)


def check_goes_with_within(**others: Any) -> None:
    """Raises if an argument is given that `within` has no use for."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(
            "`within` finds the size by itself. Leave out "
            f"{', '.join(f'`{name}`' for name in given)}, or `within`."
        )


def quality_control(
    within: Any,
    monitor: Any,
    mode: str,
    patience: Any,
    learning_epochs: int | None,
    backup: Any,
) -> QualityControl:
    """A `QualityControl` of what a user gave, checked.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if one is out of range.
    """
    within = check_amount(within, "within", "0.01 is one percent worse")
    patience = check_count(patience, "patience", 1, "epochs")
    if not isinstance(monitor, str):
        raise TypeError(
            "`monitor` must be the name of a metric in the logs of an epoch. "
            f"Received: {monitor!r} (of type {type(monitor).__name__})"
        )
    if backup is not None and pathlib.Path(backup).suffix != ".keras":
        raise ValueError(
            f"`backup` must be the path of a `.keras` file. Received: {backup}"
        )
    search = QualitySearch(
        within, is_larger_better(monitor, mode), patience=patience
    )
    return QualityControl(search, monitor, learning_epochs, backup)
