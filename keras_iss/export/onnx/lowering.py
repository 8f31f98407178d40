"""What a function that writes a layer, or an operation, as ONNX nodes has."""

import collections.abc
import dataclasses
import typing

import numpy as np

from keras_iss.export.onnx.arrays import array_of
from keras_iss.export.onnx.graph import Graph, Unwritable, Value, onnx_type

# A `Value`, a number, an array, or what a backend holds in its place.
Tensor = typing.Any


@dataclasses.dataclass(frozen=True)
class Lowering:
    """A layer that is written as ONNX nodes, and what with.

    Attributes:
        layer: The layer, or the operation of `keras.ops`.
        graph: The `Graph`.
        walk: The `Walk` over the model.
        outputs: What Keras says of the outputs of an operation: a
            `keras.KerasTensor`, or several nested. `None` for a layer.
    """

    layer: typing.Any
    graph: Graph
    walk: typing.Any
    outputs: typing.Any = None

    def node(
        self,
        op_type: str,
        inputs: collections.abc.Sequence[Tensor],
        outputs: int = 1,
        dtype: str | None = None,
        **attributes: typing.Any,
    ) -> typing.Any:
        """Adds a node to the graph.

        Args:
            op_type: Name of the operator, such as `"Relu"`.
            inputs: List of `Value`s. A number, an array or a variable becomes
                a constant, and `None` an input that is left out.
            outputs: The number of outputs.
            dtype: Type of the outputs, such as `"int64"`. Defaults to that of
                the first input.
            **attributes: Those of the operator, with `domain` for one that is
                not ONNX's own.

        Returns:
            The `Value` of the output, or a list of several.
        """
        return self.graph.node(
            op_type,
            [x if x is None else self.value(x) for x in inputs],
            outputs,
            dtype,
            **attributes,
        )

    def value(self, x: Tensor, dtype: str | None = None) -> Value:
        """A tensor as a `Value`.

        Args:
            x: `Value`, number, array, variable, or tensor of the backend.
            dtype: The type it is to have. Of a number of Python, float32 or
                int64 without it.
        """
        if not isinstance(x, Value):
            array, name = array_of(x)
            if dtype is not None:
                return self.graph.constant(array.astype(dtype), name)
            if isinstance(x, float):
                array = array.astype("float32")
            return self.graph.constant(array, name)
        return x if dtype is None else self.cast(x, dtype)

    def cast(self, x: Value, dtype: str) -> Value:
        """A `Value` in another type, or the same where it has that."""
        if x.dtype == dtype:
            return x
        array = self.graph.numbers(x)
        if array is not None:
            return self.graph.constant(array.astype(dtype))
        new = self.graph.node("Cast", [x], dtype=dtype, to=onnx_type(dtype))
        new.shape = x.shape
        return new

    def integers(self, *numbers: int) -> Value:
        """A constant of int64, of one axis, as shapes and axes are given."""
        return self.graph.constant(np.array(numbers, "int64"))

    def transpose(
        self, x: Value, order: collections.abc.Sequence[int]
    ) -> Value:
        """A tensor with its axes in another order."""
        order = list(order)
        if order == list(range(len(order))):
            return x
        array = self.graph.numbers(x)
        if array is not None:
            return self.graph.constant(array.transpose(order))
        new = self.node("Transpose", [x], perm=order)
        if x.shape is not None:
            new.shape = tuple(x.shape[axis] for axis in order)
        return new

    def reshape(self, x: Value, shape: collections.abc.Sequence[int]) -> Value:
        """A tensor in another shape, of which one size may be -1."""
        array = self.graph.numbers(x)
        if array is not None:
            return self.graph.constant(array.reshape(shape))
        return self.node("Reshape", [x, self.integers(*shape)])

    def call(
        self, layer: typing.Any, *args: Tensor, **kwargs: Tensor
    ) -> Tensor:
        """What another layer gives, as Keras calls it in inference.

        Args:
            layer: `keras.layers.Layer`, or an operation.
            *args: What it is called on: `Value`s, nested as Keras nests them.
            **kwargs: Further arguments of its `call`.
        """
        return self.walk.call(layer, args, kwargs)

    def trace(
        self,
        function: collections.abc.Callable[..., typing.Any],
        *args: Tensor,
        **kwargs: Tensor,
    ) -> Tensor:
        """What a function gives that is written with `keras.ops`.

        Args:
            function: Function of tensors. It sees symbolic ones.
            *args: `Value`s, nested as the function takes them.
            **kwargs: Further arguments.
        """
        return self.walk.trace(function, args, kwargs)

    def refuse(self, reason: str, step: str | None = None) -> typing.NoReturn:
        """Ends the export with an error that names the layer.

        Args:
            reason: What cannot be written, such as "its padding is dynamic".
            step: What the user can do, as a sentence. Defaults to what can be
                done with any layer.
        """
        raise Unwritable(reason, step)
