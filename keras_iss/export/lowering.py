"""How layers are written as operations that the device runs well: a table.

`lower` puts into each layer of a copied model what the table has for it, and
changes nothing else of it.
"""

import collections.abc
import dataclasses
import functools
import typing

import keras

from keras_iss._keras.layers import inner_layers
from keras_iss._keras.overrides import override, without_fused_kernel
from keras_iss.export import calls, cells, loops, recurrent, registry
from keras_iss.export.shapes import batch_major, time_major

# A tensor, or a variable.
Tensor = typing.Any

# What stands in for `call`, of layers of exactly this class.
_CALLS = {
    keras.layers.Dense: calls.dense,
    keras.layers.EinsumDense: calls.einsum_dense,
    keras.layers.LayerNormalization: calls.layer_normalization,
    keras.layers.Embedding: calls.embedding,
    keras.layers.TimeDistributed: calls.time_distributed,
    keras.layers.UnitNormalization: calls.unit_normalization,
}
# What stands in for a cell in the loop of a recurrent layer.
_CELLS = {
    keras.layers.LSTMCell: cells.lstm,
    keras.layers.GRUCell: cells.gru,
    keras.layers.SimpleRNNCell: cells.simple_rnn,
}


@dataclasses.dataclass(frozen=True)
class Target:
    """What a model is lowered for.

    Attributes:
        loop: Function that runs a step over time, see `loops.graph_loop`.
        for_litert: Whether LiteRT is to run it; else TensorFlow.
        change_recurrent: Function from a recurrent layer, which is lowered
            already, to a dict of further attributes that it is to have.
    """

    loop: collections.abc.Callable
    for_litert: bool = True
    change_recurrent: collections.abc.Callable = lambda layer: {}


TENSORFLOW = Target(loops.graph_loop, for_litert=False)
LITERT = Target(loops.lite_loop)
UNROLLED = Target(loops.unrolled_loop)
STEP = Target(loops.step_loop)
UNROLLED_STEP = Target(loops.unrolled_step_loop)


@dataclasses.dataclass(frozen=True)
class Lowering:
    """A layer that is lowered, and what with.

    Attributes:
        layer: The layer, or the cell.
        original: What is replaced: the layer's own `call`.
        target: The `Target`.
    """

    layer: keras.layers.Layer
    original: collections.abc.Callable | None
    target: Target

    @property
    def for_litert(self) -> bool:
        """Whether LiteRT is to run the layer; else TensorFlow."""
        return self.target.for_litert

    @property
    def loop(self) -> collections.abc.Callable:
        """The loop of the target, see `loops.graph_loop`."""
        return self.target.loop

    def project(
        self, x: Tensor, kernel: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """The product of all time steps with a kernel, at once.

        Args:
            x: Tensor of shape (time, batch, features) or (batch, time,
                features).
            kernel: Variable or tensor of shape (features, units).
            bias: Variable or tensor that is added, or `None`.

        Returns:
            Tensor of the shape of `x`, but with `units` at its end.
        """
        kernel = keras.ops.convert_to_tensor(kernel)
        if bias is not None:
            bias = keras.ops.convert_to_tensor(bias)
        return cells.product_over_time(x, kernel, bias, self.for_litert)

    def over_time(
        self,
        step: collections.abc.Callable[
            [Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]
        ],
        inputs: Tensor,
        states: collections.abc.Sequence[Tensor],
        every_step: bool = True,
    ) -> tuple[Tensor, list[Tensor]]:
        """Runs a step over time.

        Args:
            step: Function `step(x, states)` from the inputs of one time step,
                of shape (batch, ...), and a list of states to the output, of
                shape (batch, ...), and the list of new states.
            inputs: Tensor of shape (batch, time, ...).
            states: List of tensors of shape (batch, ...), to begin with.
            every_step: Whether to give the outputs of all time steps.

        Returns:
            Tuple of the outputs, of shape (batch, time, ...), and the list of
            the last states. Without `every_step`, the last output, of shape
            (batch, ...), stands for the outputs.
        """
        last, outputs, states = self.loop(
            time_major(inputs),
            step,
            list(states),
            None,
            every_step=every_step,
            zero_masked=False,
        )
        return (batch_major(outputs) if every_step else last), list(states)

    def hoist(self, cell, x, structure):
        """The two parts of a cell, see `register_cell_lowering`.

        Args:
            cell: A Keras RNN cell.
            x: Tensor of shape (time, batch, ...).
            structure: The cell's state, nested as the cell takes it.
        """
        hoisted = (_CELLS | registry.CELLS).get(type(cell))
        if hoisted is None:
            return x, cells.as_it_is(cell, structure)
        return hoisted(Lowering(cell, None, self.target), x)


def lower(model, target, others=None):
    """Has a copied model use lowered layers from now on.

    Args:
        model: A copy of a built `keras.Model`, on the TensorFlow backend: its
            layers are changed in place.
        target: The `Target`.
        others: Dict from the id of a layer to another `Target` for it.
    """
    for layer in inner_layers(model):
        own = (others or {}).get(id(layer), target)
        name, function = _lowered(layer)
        if function is not None:
            lowering = Lowering(layer, getattr(layer, name), own)
            override(layer, name, functools.partial(function, lowering))
        if isinstance(layer, keras.layers.RNN):
            for name, value in own.change_recurrent(layer).items():
                override(layer, name, value)
        if isinstance(layer, keras.layers.Bidirectional):
            without_fused_kernel(layer)


def _lowered(layer):
    """The name of the method that is replaced, and what by, or `None`."""
    kind = type(layer)
    if kind in registry.LAYERS:
        return "call", registry.LAYERS[kind]
    if isinstance(layer, keras.layers.RNN):
        known = recurrent.has_known_loop(layer)
        return "inner_loop", recurrent.inner_loop if known else None
    return "call", _CALLS.get(kind)
