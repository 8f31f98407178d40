"""Shrinking: a smaller model without the components that are removed."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_iss.regularizers import carry_penalties
from keras_iss.selection import target_of
from keras_iss.structures.values import check_finite
from keras_iss.surgery import verification
from keras_iss.surgery.rebuilding import rebuild
from keras_iss.surgery.zeroing import not_kept, zeroed_values
from keras_iss.tracing.find import Found, find


def shrink(
    model: keras.Model,
    keep: Mapping | None = None,
    include: tuple[str, ...] = ("recurrent",),
    verify: bool = True,
    data: Any = None,
) -> keras.Model:
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
    return shrink_found(find(model, include), keep, verify, data)


def shrink_found(
    found: Found,
    keep: Mapping | None = None,
    verify: bool = True,
    data: Any = None,
) -> keras.Model:
    """As `shrink`, for a model whose structures were found just before.

    Args:
        found: `Found` of the model, of which only weights have changed since.
        keep: As in `shrink`.
        verify: As in `shrink`.
        data: As in `shrink`.

    Returns:
        A new `keras.Model`.
    """
    structures = found.structures
    check_finite(structures)
    kept = None if keep is None else target_of(keep=keep).select(structures)
    stays = structures.staying(kept)
    alive = np.concatenate(list(stays.values()))
    # What was not to be kept, and stays for its size only.
    zero = np.zeros(len(alive), bool)
    if kept is not None:
        zero = np.concatenate(
            [
                stays[structure.name]
                & ~np.isin(np.arange(structure.size), kept[structure.name])
                if structure.name in kept
                else np.zeros(structure.size, bool)
                for structure in structures
            ]
        )
    rebuilt = rebuild(found, alive, zero)
    if verify:
        removals = not_kept(structures, kept or {})
        verification.verify(found, rebuilt, zeroed_values(removals), data)
    carry_penalties(found.trace.root, rebuilt.model, rebuilt.variables)
    return rebuilt.model
