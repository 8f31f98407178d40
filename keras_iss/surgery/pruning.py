"""Pruning: components to zero."""

from keras_iss.selection import (
    Budget,
    allot,
    below,
    check_importance,
    check_threshold,
    resolve_keep,
)
from keras_iss.structures import check_finite
from keras_iss.surgery.zeroing import not_kept, zero_components
from keras_iss.tracing.find import find


def prune(
    model,
    threshold=None,
    keep=None,
    include=("recurrent",),
    weights=None,
    importance=None,
):
    """Sets components to zero, in place.

    A pruned component has all its weights and biases zero, in every layer. It
    computes nothing and gets no gradient, and `shrink` cuts it out without
    changing an output. What the optimizer keeps for it, its momenta and
    moments, is set back to the start.

    Args:
        model: A built `keras.Model`.
        threshold: Float. Components whose group norm is below it are
            pruned, in every structure that is not pinned. A structure keeps
            the component with the largest norm whatever the threshold.
        keep: Dict from the name of a structure to what stays of it: an
            integer, how many (those with the largest norms), or a
            sequence of indices. Structures that it does not name stay as they
            are.
        include: Tuple of kinds of layers, as in `find_structures`.
        weights: Float above 0 and below 1, the share of the weights of the
            recurrent layers that may stay, or an integer, how many (of all
            the weights, in a model without recurrent layers). The components
            with the lowest importance go, of whatever structure; importances
            are compared with the mean of their own structure, which keeps
            its best component.
        importance: Optional dict from the name of a structure to a number for
            each component, as `estimate_importance` returns it. With
            `weights`, or with counts in `keep`, the highest stay. Defaults to
            group norms.

    Returns:
        The `Structures` of the model.

    Raises:
        ValueError: unless exactly one of `threshold`, `keep` and `weights` is
            given; if the threshold is negative or NaN; if `keep` is empty,
            out of range or repeats an index; if it names a pinned structure;
            if `weights` is out of range, or less than one component of each
            structure is; if `importance` does not fit; or if weights are NaN or
            infinite. The model is left as it was.
        TypeError: if `threshold` or `keep` is of the wrong type.
        KeyError: if `keep` names no structure.

    Examples:
        >>> import keras, keras_iss
        >>> model = keras.Sequential([
        ...     keras.Input((None, 16)),
        ...     keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(4),
        ... ])
        >>> structures = keras_iss.prune(model, keep={"lstm": 5})
        >>> structures["lstm"].alive
        5
    """
    structures = find(model, include).structures
    check_finite(structures)
    if sum(given is not None for given in (threshold, keep, weights)) != 1:
        raise ValueError(
            "`prune` takes either `threshold` or `keep` or `weights`. "
            f"Received: threshold={threshold!r}, keep={keep!r}, "
            f"weights={weights!r}"
        )
    if importance is not None and threshold is not None:
        raise ValueError(
            "`threshold` is compared with group norms: `importance` goes with "
            "`keep` or `weights`."
        )
    importance = check_importance(structures, importance)
    if threshold is None:
        if keep is None:
            kept = allot(structures, Budget(weights=weights), importance)
        else:
            kept = resolve_keep(structures, keep, importance)
        removals = not_kept(structures, kept)
    else:
        threshold = check_threshold(threshold)
        removals = [
            (one, below(one.norms(), threshold)) for one in structures.free
        ]
    zero_components(removals, getattr(model, "optimizer", None))
    return structures
