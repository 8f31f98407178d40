"""Pruning: components to zero."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_iss.costs.measuring import with_known_costs
from keras_iss.importance import importances_of
from keras_iss.refit import Refit, refit_weights
from keras_iss.selection import target_of
from keras_iss.structures import Structures
from keras_iss.structures.values import check_finite
from keras_iss.surgery.zeroing import not_kept, zero_components
from keras_iss.tracing.find import find


def prune(
    model: keras.Model,
    *,
    threshold: float | None = None,
    keep: Mapping | None = None,
    weights: float | int | None = None,
    units: float | int | None = None,
    mult_adds: float | int | None = None,
    latency_ms: float | None = None,
    size_kb: float | None = None,
    costs: Any = None,
    importance: Any = None,
    round_to: int | Mapping = 1,
    data: Any = None,
    refit: bool = False,
    include: tuple[str, ...] = ("recurrent",),
) -> Structures:
    """Sets components to zero, in place.

    A pruned component has all its weights and biases zero, in every layer. It
    computes nothing and gets no gradient, and `shrink` cuts it out without
    changing an output. What the optimizer keeps for it, its momenta and
    moments, is set back to the start.

    What stays is said by exactly one of `threshold`, `keep`, `weights`,
    `units`, `mult_adds`, `latency_ms` and `size_kb`.

    Args:
        model: A built `keras.Model`.
        threshold: Float, zero or more. Components whose group norm is below
            it are pruned, in every structure that is not pinned. A structure
            keeps the component with the largest norm whatever the threshold.
        keep: Dict from the name of a structure to what stays of it: an
            integer, how many (the most important ones), or a sequence of
            indices. Structures that it does not name stay as they are.
        weights: Float above 0 and below 1, the share of the weights of the
            recurrent layers that may stay, or an integer, how many (of all
            the weights, in a model without recurrent layers). The least
            important components go, of whatever structure; importances are
            compared with the mean of their own structure, which keeps its
            best component.
        units: As `weights`, but of the components that are not pinned.
        mult_adds: As `weights`, but of the multiply-adds of a time step.
        latency_ms: Float, the milliseconds that a call of the exported model
            may take, by `costs`. Components go as for `weights`; what room
            the last of them leaves is used by others.
        size_kb: Float, the thousands of bytes that the exported file may
            take, by `costs`, in the same manner.
        costs: What `latency_ms` and `size_kb` are told by: a `CostTable`, as
            `measure_costs` gives it or reads it of another device, or the
            path of one. Defaults to `None`: they are measured, in a minute or
            so, for a float32 file of batch size 1 in LiteRT on this machine,
            as by `measure_costs(model)`.
        importance: How much the model needs each component; the highest
            stay. `"norm"`, the group norm; `"taylor"` or `"redundancy"`, as
            in `estimate_importance`, from `data`; a dict from the name of a
            structure to an array of shape `(size,)`, as
            `estimate_importance` returns it; or a function of the model and
            its `Structures` that returns such a dict. Structures that it
            leaves out take group norms. Defaults to `None`: group norms.
            A `threshold` is compared with group norms alone.
        round_to: Integer, or dict from the name of a structure to one,
            defaults to 1. The sizes that stay are multiples of it, such as
            4, 8 or 16, which hardware runs well. `weights`, `units`,
            `mult_adds`, `latency_ms` and `size_kb` are never exceeded for it.
            A `threshold` takes the next larger multiple, where that many
            components are there. A count in `keep` that is not a multiple
            takes the next smaller one, and one multiple at least; indices in
            `keep` are taken as they are. A structure that has fewer components
            left than `round_to` is cut as with 1. `latency_ms` also leaves
            multiples of `costs.round_to`, 4 by default: other sizes are
            slower.
        data: What importances are estimated from, as in
            `estimate_importance`, and what a refit is done on: inputs alone
            do for that, a few thousand time steps of them.
        refit: Boolean, defaults to `False`. Whether what reads the pruned
            components is to make do with those that stay: what they tell is
            predicted from the others by least squares, and the prediction
            goes into the weights that read them. No training is needed, and
            none is undone by it. Outputs on a part of `data` that is held back
            are never further from what they were than without it. The
            attribute `refit` of what is returned says what was done; a
            warning names kernels that could not be refitted.
        include: Tuple of kinds of layers, as in `find_structures`.

    Returns:
        The `Structures` of the model.

    Raises:
        ValueError: unless exactly one of the seven is given; if the threshold
            is negative or NaN; if `keep` is empty, out of range or repeats an
            index; if it names a pinned structure; if `weights`, `units`,
            `mult_adds`, `latency_ms` or `size_kb` is out of range, or less
            than the least that can be left is; if `costs` are of another
            model or hold no milliseconds; if `importance` does not fit, is
            unknown or lacks `data`; if `refit` lacks `data`; if `round_to` is
            below 1; or if weights are NaN or infinite. The model is left as
            it was.
        TypeError: if an argument is of the wrong type.
        KeyError: if `keep`, `importance` or `round_to` names no structure.
        ImportError: if costs are to be measured, and TensorFlow or LiteRT is
            not installed.

    Examples:
        >>> import keras, keras_iss
        >>> model = keras.Sequential([
        ...     keras.Input((None, 16)),
        ...     keras.layers.LSTM(32, name="lstm"),
        ...     keras.layers.Dense(4),
        ... ])
        >>> structures = keras_iss.prune(model, keep={"lstm": 20})
        >>> structures["lstm"].alive
        20
        >>> structures = keras_iss.prune(model, weights=0.3, round_to=4)
        >>> structures["lstm"].alive
        12
    """
    target = target_of(
        threshold=threshold,
        keep=keep,
        weights=weights,
        units=units,
        mult_adds=mult_adds,
        latency_ms=latency_ms,
        size_kb=size_kb,
        costs=costs,
        round_to=round_to,
    )
    if importance is not None and threshold is not None:
        raise ValueError(
            "`threshold` is compared with group norms: `importance` goes with "
            "`keep`, `weights`, `units`, `mult_adds`, `latency_ms` or "
            "`size_kb`."
        )
    structures = find(model, include).structures
    check_finite(structures)
    target = with_known_costs(target, model, include)
    target.check(structures)
    importance = importances_of(importance, model, structures, data)
    kept = target.select(structures, importance)
    removals = not_kept(structures, kept)
    optimizer = getattr(model, "optimizer", None)
    if not refit:
        zero_components(removals, optimizer)
        return structures
    structures.refit = refit_weights(model, structures, kept, data)
    with structures.refit.applied():
        zero_components(removals, optimizer)
    _warn_of_what_is_left(model, structures.refit)
    return structures


def _warn_of_what_is_left(model: keras.Model, refit: Refit) -> None:
    if refit.left:
        left = "; ".join(f"`{name}`: {why}" for name, why in refit.left.items())
        warnings.warn(
            f"Not everything that reads the pruned components of "
            f"`{model.name}` could be refitted, and was left: {left}.",
            stacklevel=3,
        )
