"""Pruning and shrinking: components to zero, and out of the model."""

import collections.abc
import numbers

import numpy as np

from keras_iss import _verification
from keras_iss._checks import check_amount, number
from keras_iss._rebuilding import rebuild
from keras_iss._sizes import Budget, allot, check_importance
from keras_iss._zeroing import zero_components, zeroed_values
from keras_iss.regularizers import carry_penalties
from keras_iss.structures import check_finite, quoted
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
            its longest component whatever the threshold.
        keep: Dict from the name of a structure to what stays of it: an
            integer, how many (the longest ones), or a sequence of indices.
            Structures that it does not name stay as they are.
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
        removals = _removals(structures, kept)
    else:
        threshold = check_threshold(threshold)
        removals = [
            (one, below(one.norms(), threshold)) for one in structures.free
        ]
    zero_components(removals, getattr(model, "optimizer", None))
    return structures


def shrink(model, keep=None, include=("recurrent",), verify=True, data=None):
    """Builds the smaller model.

    Cuts out every component that is removed: zero in all its weights. That
    changes no output. The layers of the result are of the same classes, with
    the same names, dtypes, regularizers and constraints; only sizes differ.
    A compiled model comes back compiled, its optimizer's state cut alike, so
    that training goes on as if the components had never been; an attached
    `ISSRegularizer` is attached to it too. The original stays as it is.

    A `Bidirectional` layer whose directions end up with different sizes is
    replaced by a model of the same name that holds the two layers; a
    `Sequential` model with one comes back as a Functional one, as does a
    subclassed model.

    Functions, classes and attributes are those of the model that is there,
    whatever their names are. Before it is handed over, the smaller model runs
    beside the model with the removed components at zero: in inference and,
    where nothing random is drawn, in training.

    Args:
        model: A built `keras.Model`.
        keep: Dict from the name of a structure to what stays of it, as in
            `prune`: the result is that of pruning a copy first. Defaults to
            `None`: only what is removed already is cut.
        include: Tuple of kinds of layers, as in `find_structures`.
        verify: Boolean, whether to compare the two models. Defaults to `True`.
        data: Optional array of shape `(samples, ...)`, or several, nested as
            the model takes them: what the two are compared on. Defaults to
            random numbers: integers within the vocabulary, others normal.

    Returns:
        A new `keras.Model`. A structure keeps at least one component.

    Raises:
        ValueError: if the model is not built; if `keep` is empty, out of
            range or repeats an index; if it names a pinned structure; if a
            layer cannot be made anew; if weights are NaN or infinite; or if
            `data` does not fit the model.
        TypeError: if `keep` is of the wrong type.
        KeyError: if `keep` names no structure.
        RuntimeError: if the two models compute different things. The message
            names the layer at which they part.

    Examples:
        >>> import keras, keras_iss
        >>> model = keras.Sequential([
        ...     keras.Input((None, 16)),
        ...     keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(4),
        ... ])
        >>> small = keras_iss.shrink(model, keep={"lstm": 5})
        >>> small.get_layer("lstm").units
        5
    """
    found = find(model, include)
    structures = found.structures
    check_finite(structures)
    kept = None if keep is None else resolve_keep(structures, keep)
    stays = structures.staying(kept)
    alive = np.concatenate(list(stays.values()))
    # What was not to be kept, and stays for its size only.
    zero = np.zeros(len(alive), bool)
    if kept is not None:
        zero = np.concatenate(
            [
                stays[one.name] & ~np.isin(np.arange(one.size), kept[one.name])
                if one.name in kept
                else np.zeros(one.size, bool)
                for one in structures
            ]
        )
    rebuilt = rebuild(found, alive, zero)
    if verify:
        removals = _removals(structures, kept or {})
        _verification.verify(found, rebuilt, zeroed_values(removals), data)
    carry_penalties(model, rebuilt.model, rebuilt.variables)
    return rebuilt.model


def check_threshold(threshold):
    """A threshold as a float, or an error. See `check_amount`."""
    return check_amount(
        threshold,
        "threshold",
        "it is compared with group norms, which are never negative",
        finite=False,
    )


def below(norms, threshold):
    """The components shorter than a threshold, but never all of them.

    Returns:
        Integer array.
    """
    short = norms < threshold
    if short.all():
        short[np.argmax(norms)] = False
    return np.flatnonzero(short)


def resolve_keep(structures, keep, importance=None):
    """What stays of each structure.

    Args:
        structures: `Structures`.
        keep: As in `prune`.
        importance: Optional dict from name to the importance of its components.
            Where there are none, group norms are taken.

    Returns:
        Dict from the name of a structure to a sorted integer array.
    """
    if not isinstance(keep, collections.abc.Mapping):
        raise TypeError(
            "`keep` must be a dict from the name of a structure to a count "
            f"or indices. Received: {keep!r} (of type {type(keep).__name__})"
        )
    if not keep:
        raise ValueError(
            "`keep` is empty. It takes what stays of a structure, as in "
            f"`keep={{{next(iter(structures.keys()))!r}: 8}}`."
        )
    resolved = {}
    for key, wanted in keep.items():
        one = structures[key]
        if one.name in resolved:
            raise ValueError(
                f"`keep` names the structure `{one.name}` twice: the units of "
                f"{quoted(one.makers)} are tied. Name one of them."
            )
        resolved[one.name] = _resolve(
            one, wanted, (importance or {}).get(one.name)
        )
    return resolved


def _resolve(structure, wanted, importance=None):
    name, size = structure.name, structure.size
    wanted = number(wanted)
    if structure.pinned:
        raise ValueError(
            f"`{name}` is pinned and must keep its size: {structure.pinned}."
        )
    no_indices = (bool, str, bytes, collections.abc.Mapping)
    if isinstance(wanted, no_indices) or not isinstance(
        wanted, (numbers.Integral, collections.abc.Iterable)
    ):
        raise TypeError(
            f"`keep` takes a count or a sequence of indices for `{name}`. "
            f"Received: {wanted!r} (of type {type(wanted).__name__})"
        )
    if isinstance(wanted, numbers.Integral):
        if not 1 <= wanted <= size:
            raise ValueError(
                f"`{name}` has {size} components and keeps at least one: "
                f"`keep` takes 1 to {size} for it. Received: {wanted}"
            )
        importance = structure.norms() if importance is None else importance
        order = np.argsort(-importance, kind="stable")
        return np.sort(order[:wanted])
    indices = list(wanted)
    if not indices:
        raise ValueError(
            f"`keep` is empty for `{name}`, which keeps at least one of its "
            f"{size} components."
        )
    for index in indices:
        if isinstance(index, (bool, np.bool_)) or not isinstance(
            index, numbers.Integral
        ):
            raise TypeError(
                f"`keep` takes integer indices for `{name}`. Received: "
                f"{index!r} (of type {type(index).__name__})"
            )
        if not 0 <= index < size:
            raise ValueError(
                f"`keep` gives index {index} for `{name}`, whose components "
                f"are 0 to {size - 1}."
            )
    if len(set(indices)) < len(indices):
        repeated = next(x for x in indices if indices.count(x) > 1)
        raise ValueError(f"`keep` gives index {repeated} of `{name}` twice.")
    return np.sort(np.array(indices, int))


def _removals(structures, kept):
    """Pairs of a structure and the components that are not kept of it."""
    return [
        (one, np.setdiff1d(np.arange(one.size), kept[one.name]))
        for one in structures
        if one.name in kept
    ]
