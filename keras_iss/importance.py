"""How much a trained model needs each of its components."""

import keras
import numpy as np
from keras import ops

from keras_iss._checks import check_count
from keras_iss._data import as_tuple, check_data, is_arrays
from keras_iss._keras.distribution import distribution_scope
from keras_iss._keras.layers import inner_layers
from keras_iss._norms import Groups
from keras_iss.structures import by_variable, check_finite, frozen
from keras_iss.surgery.rebuilding import carried_states
from keras_iss.tracing.find import find_structures


def estimate_importance(
    model,
    data=None,
    by="norm",
    batches=16,
    batch_size=32,
    include=("recurrent",),
):
    """Estimates how much a model needs each component.

    Args:
        model: A built `keras.Model`; for `"taylor"` a compiled one.
        data: What `fit` takes to train on: a tuple `(inputs, targets)` or
            `(inputs, targets, sample_weights)` of arrays, or a `Dataset`,
            `PyDataset` or `DataLoader`. Only `"taylor"` needs it.
        by: `"norm"` (default), the group norm; or `"taylor"`, the square
            of what the loss would change by to first order if the component
            were zero, averaged over batches.
        batches: Integer, how many batches `"taylor"` looks at.
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
        ValueError: if `by` is neither of the two; if `"taylor"` lacks data,
            targets or a compiled model, or meets a loss that is NaN or
            infinite; if `batches` or `batch_size` is below 1; or if weights
            are NaN or infinite.

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
    if by == "norm":
        return {one.name: one.norms() for one in structures}
    if by != "taylor":
        raise ValueError(f'`by` must be "norm" or "taylor". Received: {by!r}')
    if data is None:
        raise ValueError(
            '`estimate_importance(..., by="taylor")` needs `data`.'
        )
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"`{model.name}` has no loss, which the Taylor importance is of: "
            "compile it first."
        )
    check_data(data, model=model)
    batches = check_count(batches, "batches", 1, "batches to look at")
    batch_size = check_count(batch_size, "batch_size", 1, "samples in a batch")
    return _taylor(model, structures, data, batches, batch_size)


def _taylor(model, structures, data, batches, batch_size):
    fixed = frozen(structures, model)
    structures = [one for one in structures if one.name not in fixed]
    with distribution_scope(model):
        recorder = _Recorder(structures)
    restore = _restorer(model)
    try:
        model.optimizer = recorder
        model.make_train_function(force=True)
        losses = model.fit(
            **_arguments(data, batches, batch_size),
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
            f"The loss of `{model.name}` is {losses[-1]} on this data, which "
            "no importance can be computed from. Look for NaN in the data."
        )
    return importance


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


def _arguments(data, batches, batch_size):
    if not is_arrays(data):
        return {"x": data, "steps_per_epoch": batches}
    data = as_tuple(data)
    first = len(keras.tree.flatten(data[0])[0])
    count = min(batches * batch_size, first)
    if count > batch_size:
        # The same shape for all.
        count -= count % batch_size
    cut = [keras.tree.map_structure(lambda a: a[:count], x) for x in data]
    names = ("x", "y", "sample_weight")
    return {**dict(zip(names, cut)), "batch_size": batch_size}


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
        for one in self.structures:
            known = [
                (variable, parts)
                for variable, parts in by_variable(one.slices)
                if id(variable) in place
            ]
            places = [place[id(variable)] for variable, _ in known]
            self.groups.append(
                (places, Groups([parts for _, parts in known], "once"))
            )
            self.totals.append(
                self.add_variable(
                    (one.size,), "zeros", "float32", name="taylor"
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
            one.name: ops.convert_to_numpy(total).astype("float64") / count
            for one, total in zip(self.structures, self.totals)
        }
