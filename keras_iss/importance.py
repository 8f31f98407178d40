"""How much a trained model needs each of its components.

An importance is a function of a model and its `Structures`, which gives a
float array for each structure, higher for what is needed more. `Norm`,
`Taylor` and `Redundancy` have names that `prune`, `ISSBudget` and
`estimate_importance` take; a function or a callable object of one's own goes
there as it is.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_iss._batches import check_batches
from keras_iss._data import as_tuple, check_data, is_arrays
from keras_iss._keras.distribution import distribution_scope
from keras_iss._keras.layers import carried_states, inner_layers
from keras_iss._norms import Groups
from keras_iss._selection_checks import check_importance
from keras_iss.refit.redundancy import Redundancy
from keras_iss.structures import Structures
from keras_iss.structures.slices import by_variable
from keras_iss.structures.values import check_finite, frozen, norms_of
from keras_iss.tracing.find import find_structures

Importance = Callable[[keras.Model, Structures], Mapping[str, np.ndarray]]


def estimate_importance(
    model: keras.Model,
    data: Any = None,
    by: str | Importance = "norm",
    batches: int = 16,
    batch_size: int = 32,
    include: tuple[str, ...] = ("recurrent",),
) -> dict[str, np.ndarray]:
    """Estimates how much a model needs each component.

    Args:
        model: A built `keras.Model`; for `"taylor"` a compiled one.
        data: What `fit` takes to train on: a tuple `(inputs, targets)` or
            `(inputs, targets, sample_weights)` of arrays, or a `Dataset`,
            `PyDataset` or `DataLoader`. `"taylor"` needs it, and
            `"redundancy"`, which looks at no targets and takes the inputs
            alone, too.
        by: `"norm"` (default), the group norm; or `"taylor"`, the square
            of what the loss would change by to first order if the component
            were zero, averaged over batches; or `"redundancy"`, what is lost
            of what reads the component although the others make up for it as
            well as a refit could: the one for `prune(..., refit=True)`; or a
            function of the model and its `Structures` that returns such a
            dict as this does.
        batches: Integer, how many batches are looked at.
        batch_size: Integer, samples in a batch, where `data` are arrays.
        include: Tuple of kinds of layers, as in `find_structures`.

    Returns:
        Dict from the name of a structure to a float array of shape `(size,)`.
        It goes into `prune` as `importance`. The model is left as it was. A
        structure with weights that are not trainable has no
        `"taylor"` importance, and is left out: `prune` takes its group norms.

    Raises:
        TypeError: if `data` is nothing that `fit` could train on, or `batches`
            or `batch_size` is no integer.
        ValueError: if there is no importance of the name `by`; if `"taylor"`
            lacks data, targets or a compiled model, or meets a loss that is
            NaN or infinite; if `batches` or `batch_size` is below 1; or if
            weights are NaN or infinite.

    Examples:
        >>> import keras, keras_iss, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((4, 5, 3)), np.zeros((4, 1))
        >>> importance = keras_iss.estimate_importance(model, data, by="taylor")
        >>> structures = keras_iss.prune(
        ...     model, weights=0.5, importance=importance)

    Source: Molchanov et al., "Importance Estimation for Neural Network
    Pruning", CVPR 2019, equation 8, summed over the weights of a component
    before it is squared.
    """
    structures = find_structures(model, include)
    check_finite(structures)
    importance = importance_of(
        by, data, "by", batches=batches, batch_size=batch_size
    )
    return dict(_checked(importance(model, structures), structures))


def importance_of(
    importance: str | Importance | None,
    data: Any = None,
    argument: str = "importance",
    **options: int,
) -> Importance:
    """The importance that an argument stands for.

    Args:
        importance: A name, an importance, or `None`: the group norm. A
            function may also take the model alone.
        data: What it is estimated from, if it needs that.
        argument: String, the name of the argument.
        **options: As `Taylor` takes them beside the data.

    Returns:
        A function of a model and its `Structures`, as `Importance`.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is none of that name, or it lacks data.
    """
    if importance is None:
        return Norm()
    if isinstance(importance, str) and importance in _BY_NAME:
        return _BY_NAME[importance](data, **options)
    names = " or ".join(f'"{name}"' for name in _BY_NAME)
    if isinstance(importance, str):
        raise ValueError(
            f"`{argument}` must be {names}, or a function of the model and its "
            f"structures. Received: {importance!r}"
        )
    if not callable(importance):
        raise TypeError(
            f"`{argument}` must be {names}, or a function of the model and its "
            f"structures. Received: {importance!r} (of type "
            f"{type(importance).__name__})"
        )
    if _takes_the_model_alone(importance):
        of_model: Any = importance
        return lambda model, structures: of_model(model)
    return importance


def importances_of(
    importance: Any,
    model: keras.Model,
    structures: Structures,
    data: Any = None,
) -> Mapping[str, np.ndarray]:
    """The importances of components, for `Target.select`.

    Args:
        importance: As `importance_of` takes it, or a dict of importances.
        model: The model.
        structures: Its `Structures`.
        data: As `importance_of` takes it.

    Returns:
        Dict from the full name of a structure to a float array of shape
        `(size,)`. Of those that are not in it, the group norm is meant.

    Raises:
        TypeError: if `importance` or what it gives is of the wrong type.
        ValueError: if it does not fit the structures.
        KeyError: if it names no structure.
    """
    if importance is None:
        return {}
    if not isinstance(importance, (str, Mapping)) and not callable(importance):
        raise TypeError(
            "`importance` must be a name, a function, or a dict from the name "
            "of a structure to a number for each component. Received: "
            f"{importance!r} (of type {type(importance).__name__})"
        )
    if not isinstance(importance, Mapping):
        importance = importance_of(importance, data)(model, structures)
    return _checked(importance, structures)


def _checked(importance, structures):
    if importance is None:
        raise TypeError(
            "The function given as `importance` returned None. It must return "
            "a dict from the name of a structure to a number for each "
            "component."
        )
    return check_importance(structures, importance)


def _takes_the_model_alone(function):
    try:
        signature = inspect.signature(function)
        signature.bind(None, None)
    except ValueError:  # Of some written in C, nothing is known.
        return False
    except TypeError:
        return True
    return False


class Norm:
    """The group norm of each component, as `Structure.norms`."""

    def __call__(
        self, model: keras.Model, structures: Structures
    ) -> Mapping[str, np.ndarray]:
        return norms_of(structures)


class Taylor:
    """The square of what the loss changes by, to first order, without one.

    Args:
        data: As in `estimate_importance`.
        batches: Integer, how many batches are looked at.
        batch_size: Integer, samples in a batch, where `data` are arrays.

    Source: Molchanov et al., "Importance Estimation for Neural Network
    Pruning", CVPR 2019, equation 8, summed over the weights of a component
    before it is squared.
    """

    def __init__(self, data: Any, batches: int = 16, batch_size: int = 32):
        self._batches = check_batches(
            data,
            batches,
            batch_size,
            'The importance "taylor" needs `data`, which its gradients are '
            "computed from.",
        )
        check_data(data)

    def __call__(
        self, model: keras.Model, structures: Structures
    ) -> Mapping[str, np.ndarray]:
        if not getattr(model, "compiled", False):
            raise ValueError(
                f"`{model.name}` has no loss, which the Taylor importance is "
                "of: compile it first."
            )
        check_data(self._batches.data, model=model)
        fixed = frozen(structures, model)
        trained = [x for x in structures if x.name not in fixed]
        with distribution_scope(model):
            recorder = _Recorder(trained)
        restore = _restorer(model)
        try:
            model.optimizer = recorder
            model.make_train_function(force=True)
            losses = model.fit(
                **_arguments(self._batches),
                epochs=1,
                shuffle=False,
                verbose=0,
            ).history.get("loss", [])
            importance = recorder.importance()
        finally:
            try:
                restore()
            finally:
                # An interrupt may have come in the first.
                restore()
        if not losses:
            raise ValueError(
                "`data` holds no batch, which an importance is computed from."
            )
        if not np.isfinite(losses).all():
            raise ValueError(
                f"The loss of `{model.name}` is {losses[-1]} on this data, "
                "which no importance can be computed from. Look for NaN in the "
                "data."
            )
        return importance


_BY_NAME: dict[str, Callable[..., Importance]] = {
    "norm": lambda data=None, **options: Norm(),
    "taylor": Taylor,
    "redundancy": Redundancy,
}
"""What makes the importance of a name, from data and options."""


def _restorer(model):
    """A function that brings a model back to what it is now."""
    kept = [*model.variables, *model.metrics_variables]
    for layer in inner_layers(model):
        kept += carried_states(layer)
    values = [ops.convert_to_numpy(v).copy() for v in kept]
    attributes = {
        name: getattr(model, name, None)
        for name in ("optimizer", "train_function", "stop_training", "history")
    }

    def restore():
        for name, value in attributes.items():
            setattr(model, name, value)
        # Also those that were made on the way.
        model.reset_metrics()
        for variable, value in zip(kept, values):
            variable.assign(value)

    return restore


def _arguments(batches):
    """Arguments of `fit` for some `Batches`."""
    if not is_arrays(batches.data):
        return {"x": batches.data, "steps_per_epoch": batches.count}
    data = as_tuple(batches.data)
    first = len(keras.tree.flatten(data[0])[0])
    count = min(batches.count * batches.size, first)
    if count > batches.size:
        # The same shape for all.
        count -= count % batches.size
    cut = [keras.tree.map_structure(lambda a: a[:count], x) for x in data]
    names = ("x", "y", "sample_weight")
    return {**dict(zip(names, cut)), "batch_size": batches.size}


class _Recorder(keras.optimizers.Optimizer):
    """Takes no step: sums squares of gradient times weight by component.

    What it sums lives in its variables, so that it works in the compiled step
    of every backend.
    """

    def __init__(self, structures):
        super().__init__(learning_rate=0.0, name="recorder")
        self.structures = structures

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        place = {id(v): i for i, v in enumerate(variables)}
        self.totals, self.groups = [], []
        for structure in self.structures:
            known = [
                (variable, parts)
                for variable, parts in by_variable(structure.slices)
                if id(variable) in place
            ]
            places = [place[id(variable)] for variable, _ in known]
            self.groups.append(
                (places, Groups([parts for _, parts in known], "once"))
            )
            self.totals.append(
                self.add_variable(
                    (structure.size,), "zeros", "float32", name="taylor"
                )
            )

    def apply(self, grads, trainable_variables=None):
        variables = self._trainable_variables
        if not self.built:
            self.build(trainable_variables)
            variables = trainable_variables
        changes = [
            None
            if gradient is None
            else ops.cast(ops.convert_to_tensor(gradient), "float32")
            * ops.cast(ops.convert_to_tensor(variable), "float32")
            for gradient, variable in zip(grads, variables)
        ]
        for (places, groups), total in zip(self.groups, self.totals):
            if places:
                change = groups.sums(
                    [
                        ops.zeros(variables[i].shape)
                        if changes[i] is None
                        else changes[i]
                        for i in places
                    ]
                )
                total.assign_add(ops.square(change))
        self._iterations.assign_add(1)

    def importance(self):
        """Dict from structure to the mean over the batches."""
        count = max(int(ops.convert_to_numpy(self._iterations)), 1)
        return {
            structure.name: ops.convert_to_numpy(total).astype("float64")
            / count
            for structure, total in zip(self.structures, self.totals)
        }
