"""Dropout that follows the size of a model.

A smaller layer needs less dropout than a large one: the paper keeps 0.35 of
the units of its dense LSTMs in training, and 0.60 of those of the smaller
ones (Wen et al., 2018, tables 1 and 2).
"""

import math

import keras

from keras_iss._keras.graphs import graph_behind, nodes_in_order

_DROPOUT_LAYERS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


def scale_dropout(model: keras.Model, before: keras.Model) -> dict:
    """Lowers the rates of dropout of a model that was made smaller.

    Every rate is multiplied by the part of the width that is left: that of
    `Dropout` and its relatives by the width of what they drop from, `dropout`
    of a recurrent layer by that of its input, `recurrent_dropout` by its
    units. Layers whose width did not change keep their rates, and so do the
    scores of attention, which are no units.

    Args:
        model: The smaller `keras.Model`. Its rates are set, in place; a
            training step that is compiled already has the old ones.
        before: The `keras.Model` that `shrink` made it of.

    Returns:
        Dict from the name of a layer and its argument, as
        `"lstm.recurrent_dropout"`, to the new rate, of what was changed.

    Examples:
        >>> import keras, keras_iss
        >>> from keras_iss.dropout import scale_dropout
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dropout(0.4, name="dropout"),
        ...     keras.layers.Dense(1)])
        >>> small = keras_iss.shrink(model, keep={"lstm": 4})
        >>> scale_dropout(small, before=model)
        {'dropout.rate': 0.2}
    """
    widths = {
        name: width for name, _, _, width in _total_widths(before).values()
    }
    changed = {}
    for name, holder, argument, width in _total_widths(model).values():
        rate = getattr(holder, argument)
        full = widths.get(name)
        if full and width < full and rate:
            setattr(holder, argument, rate * width / full)
            changed[name] = getattr(holder, argument)
    return changed


def _total_widths(model):
    """What drops units, with its width over all the calls of it.

    Returns:
        Dict from a key to tuples `(name, holder, argument, width)`.
    """
    found = {}
    for name, holder, argument, width in _places(model, ""):
        key = id(holder), argument
        known = found[key][-1] if key in found else 0
        found[key] = name, holder, argument, known + width
    return found


def _places(model, prefix):
    """Yields `(name, holder, argument, width)` for each call that drops."""
    graph = graph_behind(model)
    if graph is None:
        # Its layers may be called in any way.
        return
    for operation, args, kwargs, _ in nodes_in_order(graph):
        inputs = keras.tree.flatten((args, kwargs))
        shape = next((x.shape for x in inputs if hasattr(x, "shape")), None)
        if shape is None:
            continue
        if isinstance(operation, keras.Model):
            yield from _places(operation, f"{prefix}{operation.name}/")
        elif isinstance(operation, keras.layers.Layer):
            yield from _places_in_layer(operation, prefix, shape)


def _places_in_layer(layer, prefix, shape):
    name = prefix + layer.name
    if isinstance(layer, _DROPOUT_LAYERS):
        yield f"{name}.rate", layer, "rate", _width(shape)
    elif isinstance(layer, keras.layers.TimeDistributed):
        if not isinstance(layer.layer, keras.Model):
            yield from _places_in_layer(layer.layer, prefix, shape)
    elif isinstance(layer, keras.layers.Bidirectional):
        # A smaller one may have become a model of this name.
        for direction in (layer.forward_layer, layer.backward_layer):
            yield from _places_in_layer(direction, f"{name}/", shape)
    elif isinstance(layer, keras.layers.RNN):
        cells = getattr(layer.cell, "cells", [layer.cell])
        width = _width(shape)
        for i, cell in enumerate(cells):
            cell_name = name if len(cells) == 1 else f"{name}.cells[{i}]"
            units = getattr(cell, "output_size", None)
            units = units if isinstance(units, int) else None
            for argument, count in (
                ("dropout", width),
                ("recurrent_dropout", units),
            ):
                rate = getattr(cell, argument, None)
                if isinstance(rate, (int, float)) and count:
                    yield f"{cell_name}.{argument}", cell, argument, count
            width = units


def _width(shape):
    """How many numbers of a step are dropped from, of unknown axes none."""
    return math.prod(size for size in shape[1:] if size)
