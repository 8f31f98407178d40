"""Recurrent layers that PyTorch trained, as Keras layers."""

import collections.abc
import re
import typing

import keras
import numpy as np

_KINDS = {
    4: keras.layers.LSTM,
    3: keras.layers.GRU,
    1: keras.layers.SimpleRNN,
}
_NAME = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")


def from_torch(
    module: typing.Any,
    *,
    prefix: str = "",
    nonlinearity: str = "tanh",
    name: str | None = None,
) -> keras.Model:
    """Makes a Keras model of an `nn.LSTM`, `nn.GRU` or `nn.RNN` of PyTorch.

    Args:
        module: The module, or its state dict: a mapping from names such as
            `"weight_ih_l0"` to arrays or tensors. For a state dict PyTorch
            need not be installed.
        prefix: What stands before these names in the state dict of a larger
            model, such as `"encoder.lstm."`.
        nonlinearity: Of an `nn.RNN` by its state dict: `"tanh"` or `"relu"`.
            A module says it itself.
        name: Name of the model.

    Returns:
        A `keras.Model` from sequences of shape (batch, time, features) to the
        outputs of the last layer at every time step, of shape (batch, time,
        units), or twice the units of a bidirectional one. Its layers are
        `LSTM`, `GRU` or `SimpleRNN`, in `Bidirectional` where it is that.
        Dropout between layers is left out.

    Raises:
        ValueError: if it has projections, if weights are missing or do not
            fit, or `nonlinearity` is unknown.

    Example:
        >>> import numpy as np
        >>> import keras_iss
        >>> state = {
        ...     "weight_ih_l0": np.ones((16, 3)), "bias_ih_l0": np.zeros(16),
        ...     "weight_hh_l0": np.ones((16, 4)), "bias_hh_l0": np.zeros(16),
        ... }
        >>> keras_iss.from_torch(state).output_shape
        (None, None, 4)
    """
    mode = getattr(module, "mode", "")
    if isinstance(mode, str) and mode.startswith("RNN_"):
        nonlinearity = mode.removeprefix("RNN_").lower()
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(
            f'nonlinearity={nonlinearity!r} is neither "tanh" nor "relu".'
        )
    if not isinstance(module, collections.abc.Mapping):
        if not hasattr(module, "state_dict"):
            raise ValueError(
                "`from_torch` takes an nn.LSTM, nn.GRU or nn.RNN, or its state "
                f"dict. Received: {type(module).__name__}."
            )
        module = module.state_dict()
    cells = _cells(module, prefix)
    x = inputs = keras.Input((None, cells[0, False]["weight_ih"].shape[1]))
    layers = []
    for number in range(1 + max(number for number, _ in cells)):
        forward = cells.get((number, False))
        if forward is None:
            raise ValueError(f"`{prefix}weight_ih_l{number}` is missing.")
        layer = _layer(forward, nonlinearity, f"{prefix}weight_hh_l{number}")
        backward = cells.get((number, True))
        if backward is not None:
            layer = keras.layers.Bidirectional(layer)
        x = layer(x)
        layers.append((layer, forward, backward))
    model = keras.Model(inputs, x, name=name)
    for layer, forward, backward in layers:
        if backward is None:
            layer.set_weights(_weights(forward))
        else:
            layer.set_weights([*_weights(forward), *_weights(backward)])
    return model


def _cells(state, prefix):
    """Dict from the number of a layer and whether it is backward to arrays."""
    cells: dict = {}
    for key, value in state.items():
        found = _NAME.fullmatch(str(key).removeprefix(prefix))
        if not str(key).startswith(prefix) or found is None:
            continue
        what, which, number, reverse = found.groups()
        if which == "hr":
            raise ValueError(
                f"`{key}`: the module has projections (proj_size), and no "
                "Keras layer has them. Train it with proj_size=0."
            )
        # A tensor on an accelerator comes to the host first.
        value = value.detach().cpu().numpy() if hasattr(value, "cpu") else value
        cell = cells.setdefault((int(number), bool(reverse)), {})
        cell[f"{what}_{which}"] = np.asarray(value, "float32")
    for number, reverse in cells:
        end = f"l{number}" + ("_reverse" if reverse else "")
        for part in ("weight_ih", "weight_hh"):
            if part not in cells[number, reverse]:
                raise ValueError(f"`{prefix}{part}_{end}` is missing.")
    if (0, False) not in cells:
        raise ValueError(
            f"The state dict has no `{prefix}weight_ih_l0`: it is that of no "
            f"nn.LSTM, nn.GRU or nn.RNN. It has {list(state)[:6]}; prefix= "
            "takes what stands before the names."
        )
    return cells


def _layer(cell, nonlinearity, what):
    rows, units = cell["weight_hh"].shape
    kind = _KINDS.get(rows // units) if rows % units == 0 else None
    if kind is None or len(cell["weight_ih"]) != rows:
        raise ValueError(
            f"`{what}` has weights of the shapes "
            f"{cell['weight_ih'].shape} and {cell['weight_hh'].shape}, which "
            "are those of no LSTM, GRU or RNN."
        )
    options = {"use_bias": "bias_ih" in cell, "return_sequences": True}
    if kind is keras.layers.SimpleRNN:
        options["activation"] = nonlinearity
    return kind(units, **options)


def _weights(cell):
    """The weights of a cell in the order and form of Keras."""
    units = cell["weight_hh"].shape[1]
    gates = len(cell["weight_hh"]) // units

    def ordered(value):
        if gates != 3:
            # An LSTM has its gates in the same order: i, f, g, o.
            return value
        # Keras begins with the update gate, PyTorch with the reset gate.
        reset, update, new = np.split(value, 3)
        return np.concatenate([update, reset, new])

    weights = [ordered(cell[x]).T for x in ("weight_ih", "weight_hh")]
    if "bias_ih" in cell:
        biases = [ordered(cell[x]) for x in ("bias_ih", "bias_hh")]
        weights.append(np.stack(biases) if gates == 3 else sum(biases))
    return weights
