"""The proximal step of the group Lasso, on the components of structures."""

import warnings

import keras
from keras import ops

from keras_iss._messages import quoted
from keras_iss._norms import (
    Groups,
    along_axis,
    owners_or_last,
    shared_owners,
)
from keras_iss.structures.slices import by_variable


class Components:
    """All components of some structures, to be shortened in a train step."""

    def __init__(self, structures):
        self.groups = []
        self.names = [structure.name for structure in structures]
        for structure in structures:
            variables, parts = zip(*by_variable(structure.slices))
            self.groups.append((variables, Groups(parts, "once")))
        # For each variable, its slices and the structures they are of.
        found = {}
        for number, structure in enumerate(structures):
            for part in structure.slices:
                if part.role in ("weight", "bias"):
                    _, entries = found.setdefault(
                        id(part.variable), (part.variable, [])
                    )
                    # What its component owns by an earlier slice too.
                    earlier = [p for n, p, *_ in entries if n == number]
                    entries.append(
                        (
                            number,
                            part,
                            owners_or_last(part),
                            shared_owners(part, earlier),
                        )
                    )
        self.entries = list(found.values())

    def norms(self):
        """The group norms of each structure, as float32 `(size,)`."""
        return [
            ops.sqrt(
                groups.squared_norms(
                    [ops.convert_to_tensor(v) for v in variables]
                )
            )
            for variables, groups in self.groups
        ]

    def alive(self):
        """1.0 for each component that is not removed, else 0.0."""
        return [ops.cast(x > 0, "float32") for x in self.norms()]

    def warn_of_removed_structures(self, alive):
        """Warns of the structures of which nothing is left.

        Args:
            alive: What `alive` gives.
        """
        warn_of_removed_structures(
            name
            for name, left in zip(self.names, alive)
            if not ops.convert_to_numpy(left).any()
        )

    def shorten(self, step):
        """Takes `step` off the norm of every component, down to zero.

        Not of those that were frozen since.
        """
        self.scale(
            [
                ops.where(
                    norm > step,
                    1.0 - step / ops.maximum(norm, 1e-30),
                    ops.zeros_like(norm),
                )
                if all(v.trainable for v in variables)
                else ops.ones_like(norm)
                for norm, (variables, _) in zip(self.norms(), self.groups)
            ],
            only_removed_biases=True,
        )

    def scale(self, factors, only_removed_biases=False):
        """Multiplies what each component owns by its factor."""
        weights = [ops.pad(f, [[0, 1]], constant_values=1.0) for f in factors]
        biases = weights
        if only_removed_biases:
            biases = [ops.cast(f > 0, "float32") for f in weights]
        for variable, entries in self.entries:
            factor = 1.0
            for number, part, owners, shared in entries:
                of = weights if part.counted else biases
                along = along_axis(of[number], part, owners)
                for mine, other in shared:
                    along = ops.where(ops.equal(mine, other), 1.0, along)
                factor = factor * along
            value = ops.cast(ops.convert_to_tensor(variable), "float32")
            variable.assign(ops.cast(value * factor, variable.dtype))


def warn_of_removed_structures(names):
    """Warns of structures of which all components are removed, if any.

    Args:
        names: Iterable of strings.
    """
    names = list(names)
    if names:
        warnings.warn(
            f"All components of {quoted(names)} are removed: what comes after "
            "them no longer depends on the input. Use a smaller `strength`, "
            "or an `ISSBudget`.",
            stacklevel=4,
        )


def once_for_all_replicas(function, *arguments):
    """Calls a function that assigns variables, also under a strategy."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if (
            tf.distribute.has_strategy()
            and not tf.distribute.in_cross_replica_context()
            and tf.distribute.get_strategy().num_replicas_in_sync > 1
        ):

            def merged(strategy, *values):
                function(
                    *(strategy.experimental_local_results(v)[0] for v in values)
                )

            tf.distribute.get_replica_context().merge_call(
                merged, args=arguments
            )
            return
    function(*arguments)
