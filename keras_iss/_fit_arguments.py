"""Checks of what `keras_iss.fit` is given, before it trains."""

import inspect
import numbers
import warnings

import keras

from keras_iss._checks import check_count, check_model, is_whole, number
from keras_iss._data import check_arrays, is_arrays
from keras_iss._keras.distribution import check_scope
from keras_iss._keras.versions import callback_class
from keras_iss._messages import quoted
from keras_iss.callbacks import RemovingCallback, StructuresCallback
from keras_iss.optimizers import proximal_of
from keras_iss.structures.values import is_finite
from keras_iss.surgery.models import keeps_class
from keras_iss.surgery.shrinking import shrink_found
from keras_iss.tracing.find import (
    check_include,
    find,
    find_structures,
    is_built,
)

DEFAULT = ("recurrent",)

WHOLE_MODELS = (
    "Use a `ModelCheckpoint` that saves whole models, such as "
    '`keras.callbacks.ModelCheckpoint("{epoch}.keras")`, and go on with '
    "`keras.models.load_model` and `initial_epoch`."
)


def check_fit_model(model):
    """Raises unless it is a model that can be trained and made smaller."""
    check_model(model, "model")
    if not model.compiled:
        raise ValueError(
            f"`{model.name}` is not compiled: call `compile` before `fit`."
        )
    check_scope(model)
    own = [
        name
        for name in ("train_step", "test_step", "compute_loss")
        if getattr(type(model), name).__module__.partition(".")[0] != "keras"
    ]
    if own and not keeps_class(model):
        raise ValueError(
            f"`{model.name}` has a `{own[0]}` of its own "
            f"({type(model).__name__}), which a smaller model would not have. "
            "Train it with `model.fit`, and `shrink` it at the end."
        )


def check_counts(shrink_every, epochs, initial_epoch, batch_size, others):
    """The numbers among the arguments, as integers.

    Args:
        shrink_every: As in `fit`.
        epochs: As in `fit`.
        initial_epoch: As in `fit`.
        batch_size: As in `fit`.
        others: Dict, the other arguments of `keras.Model.fit`.

    Returns:
        All of them, the others with the numbers among them as integers.

    Raises:
        TypeError: if one is not an integer.
        ValueError: if one is too small.
    """
    if not is_whole(shrink_every) or shrink_every < 1:
        raise ValueError(
            "`shrink_every` must be a positive integer, a number of epochs. "
            f"Received: {shrink_every!r}"
        )

    def optional(value, name, meaning):
        return None if value is None else check_count(value, name, 1, meaning)

    others = dict(others)
    for name, meaning in (
        ("steps_per_epoch", "batches in an epoch"),
        ("validation_steps", "batches to validate on"),
        ("validation_batch_size", "samples in a batch"),
    ):
        if name in others:
            others[name] = optional(others[name], name, meaning)
    frequency = number(others.get("validation_freq", 1))
    if isinstance(frequency, numbers.Number):
        others["validation_freq"] = check_count(
            frequency, "validation_freq", 1, "epochs"
        )
    return (
        int(shrink_every),
        check_count(epochs, "epochs", 0, "epochs"),
        check_count(initial_epoch, "initial_epoch", 0, "epochs"),
        optional(batch_size, "batch_size", "samples in a batch"),
        others,
    )


def check_training_data(model, x, y, epochs, others):
    """Raises for data that would end a training in its middle.

    Args:
        model: The model.
        x: As in `fit`.
        y: As in `fit`.
        epochs: Integer, the number of epochs to train for.
        others: Dict, the other arguments of `keras.Model.fit`.
    """
    if x is None:
        raise ValueError("`x` is None. It takes the data to train on.")
    if is_arrays(x):
        data = (x, y, others.get("sample_weight"))
        check_arrays(data, ("x", "y", "sample_weight"), model)
    else:
        _check_form(x, "x")
    split = number(others.get("validation_split") or 0.0)
    if not isinstance(split, numbers.Real) or not 0.0 <= split < 1.0:
        raise ValueError(
            "`validation_split` must be a share of the samples, zero or more "
            f"and below 1. Received: {split!r}"
        )
    held_out = others.get("validation_data")
    if isinstance(held_out, (tuple, list)):
        names = [f"validation_data[{i}]" for i in range(3)]
        check_arrays(held_out, names, model)
    elif held_out is not None:
        _check_form(held_out, "validation_data")
    for name, data, steps in (
        ("x", x, "steps_per_epoch"),
        ("validation_data", others.get("validation_data"), "validation_steps"),
    ):
        if epochs > 1 and hasattr(data, "__next__") and not others.get(steps):
            raise ValueError(
                f"`{name}` is a generator, which is used up in one epoch of "
                f"the {epochs} asked for. Say how many batches an epoch takes, "
                f"by `{steps}`, or give a `keras.utils.PyDataset`."
            )


def _check_form(data, name):
    is_dataset = isinstance(data, keras.utils.PyDataset) or (
        hasattr(data, "__iter__") and not isinstance(data, (str, bytes))
    )
    if not is_dataset:
        raise TypeError(
            f"`{name}` must be arrays, or a `Dataset`, `PyDataset`, "
            f"`DataLoader` or generator. Received: {data!r} (of type "
            f"{type(data).__name__})"
        )


def check_can_be_smaller(model, include, callbacks, data, is_given):
    """Raises for a model that could not be made smaller after a while.

    Makes a copy of a model that something is to be removed from, as it will
    be made when something is.

    Args:
        model: The model.
        include: Tuple of kinds of layers.
        callbacks: List of callbacks.
        data: Optional inputs to compare the two on.
        is_given: Boolean, whether the user says what kinds are cut.

    Returns:
        The `Structures` of the model; `None` if they are not known yet.

    Raises:
        ValueError: if it cannot be rebuilt.
        RuntimeError: if the copy computes something else.
    """
    removed = _removed_kinds(model, callbacks)
    if not is_built(model) or not removed:
        return None
    found = find(model, include)
    structures = found.structures
    if is_given:
        _warn_of_what_nothing_removes(include, structures, model, removed)
    if is_finite(structures) and structures.free:
        shrink_found(found, data=data)
    return structures


def check_callbacks(callbacks):
    """Callbacks as a flat list.

    Raises:
        TypeError: if one is no callback.
        ValueError: if one keeps weights of one size only.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    callbacks = [] if callbacks is None else keras.tree.flatten(callbacks)
    for callback in callbacks:
        if inspect.isclass(callback) or not hasattr(callback, "set_model"):
            raise TypeError(
                "`callbacks` must be a list of `keras.callbacks.Callback` "
                f"objects. Received: {callback!r} (of type "
                f"{type(callback).__name__})"
            )
        _check_callback(callback)
    return callbacks


def _check_callback(callback):
    name = type(callback).__name__
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        raise ValueError(
            f"`{name}` puts back weights of one size only, and the model may "
            f"get smaller. {WHOLE_MODELS}"
        )
    checkpoints = (
        keras.callbacks.ModelCheckpoint,
        callback_class("OrbaxCheckpoint"),
    )
    if isinstance(callback, checkpoints) and callback.save_weights_only:
        raise ValueError(
            f"`{name}` has `save_weights_only=True`: what it writes loads into "
            "a model of that size only, and the model may get smaller. "
            f"{WHOLE_MODELS} To keep weights alone, train with `model.fit`."
        )


def included(include, model, callbacks):
    """The kinds of layers that are cut.

    Args:
        include: As in `fit`.
        model: The model.
        callbacks: List of callbacks.

    Returns:
        Tuple of kinds.

    Raises:
        ValueError: if `include` lacks a kind that something removes.
    """
    removed = _removed_kinds(model, callbacks)
    kinds = [kind for _, some in removed for kind in some]
    if include is None:
        kinds += [
            kind
            for callback in callbacks
            if isinstance(callback, StructuresCallback)
            for kind in check_include(callback.include)
        ]
        return tuple(dict.fromkeys((*DEFAULT, *kinds)))
    include = check_include(include)
    for who, some in removed:
        missing = [kind for kind in some if kind not in include]
        if missing:
            raise ValueError(
                f"`keras_iss.fit` has `include={include}`, and {who} "
                f"`include={some}`: units of {quoted(missing)} layers would be "
                "removed, and stay in the model as zeros. Give both the same "
                "`include`, or `keras_iss.fit` none."
            )
    return include


def _removed_kinds(model, callbacks):
    """Pairs of who removes units, for a message, and of what kinds."""
    removing = [
        (f"`{type(callback).__name__}`", callback)
        for callback in callbacks
        if isinstance(callback, RemovingCallback)
    ]
    proximal = proximal_of(model.optimizer)
    if proximal is not None:
        removing.append((f"the optimizer `{proximal.name}`", proximal))
    return [(who, check_include(remover.include)) for who, remover in removing]


def _warn_of_what_nothing_removes(include, structures, model, removed):
    """Warns of structures that are cut, and that nothing removes units of."""
    kinds_of_all = dict.fromkeys(kinds for _, kinds in removed)
    if set(include) <= {kind for kinds in kinds_of_all for kind in kinds}:
        return
    reached = set()
    for kinds in kinds_of_all:
        for structure in find_structures(model, kinds).free:
            reached.update(structure.makers)
    idle = [
        structure.name
        for structure in structures.free
        if not reached.issuperset(structure.makers)
    ]
    if idle:
        removers = ", ".join(
            f"{who} has `include={kinds}`" for who, kinds in removed
        )
        warnings.warn(
            f"`keras_iss.fit` has `include={include}`, but {removers}, which "
            f"removes no units of {quoted(idle)}. Give both the same "
            "`include`, or `keras_iss.fit` none.",
            stacklevel=4,
        )
