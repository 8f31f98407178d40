"""What a target of a model's size is."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_iss._selection_checks import by_structure, check_round_to
from keras_iss.structures import Structures
from keras_iss.structures.values import removed_of

Importances = Mapping[str, np.ndarray]
Selection = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Target:
    """What is asked of a model's size.

    Attributes:
        round_to: Integer, or dict from the name of a structure to one.
    """

    round_to: int | Mapping

    def __post_init__(self):
        object.__setattr__(self, "round_to", check_round_to(self.round_to))

    @property
    def is_relative(self) -> bool:
        """Whether what is asked for depends on the size at the start."""
        return False

    @property
    def names_components(self) -> bool:
        """Whether it names components, as only one model has them."""
        return False

    def bound(self, full: Structures) -> "Target":
        """The same, with a model at full size that it is measured against.

        Without one, that is the model that a selection is made in.
        """
        return self

    def check(self, structures: Structures) -> None:
        """Raises if the target does not fit a model, or cannot be met."""
        self._steps(structures)

    def select(
        self,
        structures: Structures,
        importance: Importances | None = None,
        done: float = 1.0,
    ) -> Selection:
        """What stays.

        Args:
            structures: `Structures`.
            importance: Dict from name to the importances of the structures
                that have some, as `check_importance` gives it. The others
                take their group norms.
            done: Float from 0 to 1, the part of the way from the full size
                to the target.

        Returns:
            Dict from the name of each structure that may get smaller to a
            sorted integer array, the components that stay of it.

        Raises:
            As `check`.
        """
        raise NotImplementedError

    def is_met(self, structures: Structures, done: float = 1.0) -> bool:
        """Whether `select` leaves all that is there."""
        kept = self.select(structures, done=done)
        removed = removed_of([structures[name] for name in kept])
        return all(
            np.isin(np.flatnonzero(~removed[name]), stays).all()
            for name, stays in kept.items()
        )

    def describe(self, structures: Structures) -> str:
        """What is left and what is asked for, for a message."""
        raise NotImplementedError

    def _steps(self, structures):
        """Dict from the name of each structure to what its size rounds to."""
        if not isinstance(self.round_to, Mapping):
            return {x.name: self.round_to for x in structures}
        steps = {x.name: 1 for x in structures}
        for structure, step in by_structure(
            structures, self.round_to, "round_to"
        ):
            steps[structure.name] = step
        return steps
