"""Cells of Keras that an operator of ONNX computes, and their weights."""

import dataclasses

import keras
import numpy as np

from keras_iss.export.onnx.arrays import array_of

# Functions of `keras.activations` as ONNX's recurrent operators know them: the
# name, alpha and beta. ONNX Runtime's Softplus there gives infinity beyond 88.
_ACTIVATIONS = {
    "elu": ("Elu", 1.0, 0.0),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "leaky_relu": ("LeakyRelu", 0.2, 0.0),
    "linear": ("Affine", 1.0, 0.0),
    "relu": ("Relu", 0.0, 0.0),
    "sigmoid": ("Sigmoid", 0.0, 0.0),
    "softsign": ("Softsign", 0.0, 0.0),
    "tanh": ("Tanh", 0.0, 0.0),
}
# Of Keras' gates, in their order, the one that stands at each place in ONNX.
_ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "RNN": (0,)}


@dataclasses.dataclass(frozen=True)
class Gates:
    """A cell as an operator has it.

    Attributes:
        op_type: `"LSTM"`, `"GRU"` or `"RNN"`.
        units: Size of the state.
        activations: Tuple of the name, alpha and beta of each activation.
        reset_after: Of a GRU, whether its reset gate comes after the product.
        kernel: Array of shape (gates * units, features).
        recurrent_kernel: Array of shape (gates * units, units).
        bias: Array of shape (2 * gates * units,).
    """

    op_type: str
    units: int
    activations: tuple
    reset_after: bool
    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray

    @property
    def state_names(self):
        """What the operator gives beside its outputs."""
        return ("Y_h", "Y_c") if self.op_type == "LSTM" else ("Y_h",)

    def like(self, other):
        """Whether one operator can run both, in two directions."""
        return (
            self.op_type == other.op_type
            and self.units == other.units
            and self.reset_after == other.reset_after
        )

    def weights(self, others):
        """The weights, of this cell and of those of other directions.

        Returns:
            Dict from the name of an input of the operator, in their order, to
            an array.
        """
        cells = [self, *others]
        return {
            "W": np.stack([cell.kernel for cell in cells]),
            "R": np.stack([cell.recurrent_kernel for cell in cells]),
            "B": np.stack([cell.bias for cell in cells]),
        }

    def attributes(self, others):
        """The attributes of the operator, but for size and direction."""
        every = [x for cell in (self, *others) for x in cell.activations]
        names, alphas, betas = zip(*every)
        found = {"activations": list(names)}
        # Those of the activations that have one, in their order.
        alphas = [a for n, a in zip(names, alphas) if n in _WITH_ALPHA]
        betas = [b for n, b in zip(names, betas) if n in _WITH_BETA]
        if alphas:
            found["activation_alpha"] = alphas
        if betas:
            found["activation_beta"] = betas
        if self.op_type == "GRU":
            found["linear_before_reset"] = int(self.reset_after)
        return found


_WITH_ALPHA = ("Affine", "Elu", "HardSigmoid", "LeakyRelu")
_WITH_BETA = ("Affine", "HardSigmoid")


def gates_of(cell):
    """A cell as an operator has it, or `None` where none computes it."""
    kind = type(cell)
    if kind is keras.layers.LSTMCell:
        given = cell.recurrent_activation, cell.activation, cell.activation
        return _gates(cell, "LSTM", given)
    if kind is keras.layers.GRUCell:
        given = cell.recurrent_activation, cell.activation
        return _gates(cell, "GRU", given, cell.reset_after)
    if kind is keras.layers.SimpleRNNCell:
        return _gates(cell, "RNN", (cell.activation,))
    return None


def _gates(cell, op_type, activations, reset_after=False):
    known = [_activation(function) for function in activations]
    if None in known or cell.compute_dtype != "float32":
        return None
    order = _ORDERS[op_type]
    units = cell.units
    kernel = _ordered(cell.kernel, order, units)
    bias = np.zeros(2 * len(order) * units, "float32")
    if cell.use_bias:
        # A GRU may have one for the inputs and one for the state.
        rows = _ordered(cell.bias, order, units)
        bias[: rows.size] = rows.ravel()
    return Gates(
        op_type,
        units,
        tuple(known),
        reset_after,
        np.ascontiguousarray(kernel.T),
        np.ascontiguousarray(_ordered(cell.recurrent_kernel, order, units).T),
        bias,
    )


def _ordered(variable, order, units):
    """Weights with their gates, along the last axis, in ONNX's order."""
    array = array_of(variable)[0].astype("float32")
    parts = np.split(array, len(order), axis=-1)
    return np.concatenate([parts[i] for i in order], axis=-1)


def _activation(function):
    if function is None:
        function = keras.activations.linear
    for name, known in _ACTIVATIONS.items():
        if function is getattr(keras.activations, name):
            return known
    return None
