"""The ONNX graph that is being written."""

import collections.abc
import contextlib
import dataclasses
import hashlib
import typing

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_TYPES = {
    "bool": TensorProto.BOOL,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
}

# From so many numbers on, a matrix is looked for among the others.
_LARGE = 256

Size = int | None


@dataclasses.dataclass(eq=False)
class Value:
    """A tensor of an ONNX graph.

    Attributes:
        name: Its name in the graph.
        dtype: Name of the type of its numbers, as Keras has it.
        shape: Tuple of its sizes, `None` for those that are open. Between two
            nodes of one layer it may be `None` as a whole: not known.
        mask: The `Value` of the mask that Keras attaches to the tensor, of
            shape `(batch, time)`, or `None`.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...] | None = None
    mask: "Value | None" = None

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The shape, where it must be known.

        Raises:
            Unwritable: if it is not.
        """
        if self.shape is None:
            raise Unwritable(f"the shape of `{self.name}` is not known")
        return self.shape

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.sizes)


class Unwritable(Exception):
    """What ONNX, or the table, has nothing for.

    Args:
        reason: Text that says why.
        step: What the user can do, as a sentence; without it, what can be
            done with any layer.

    Attributes:
        step: As given.
        culprit: The innermost layer that it is about, once that is known; of
            an operation in the graph of a model, that.
        operation: The innermost operation that it is about, if it is one.
    """

    def __init__(self, reason: str, step: str | None = None):
        super().__init__(reason)
        self.step = step
        self.culprit: typing.Any = None
        self.operation: typing.Any = None


class Graph:
    """Nodes, weights and names of an ONNX model.

    Args:
        opset: Integer, the version of ONNX's operators.
    """

    def __init__(self, opset: int):
        self.opset = opset
        self._names: set[str] = set()
        self._scopes: list[str] = []
        self._nodes: list[list[onnx.NodeProto]] = [[]]
        self._weights: dict[str, np.ndarray] = {}
        self._known: dict[typing.Any, Value] = {}

    @contextlib.contextmanager
    def scope(self, name: str) -> collections.abc.Iterator[None]:
        """Nodes that are written inside are named after a layer."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def path(self, name: str) -> str:
        """A name within the layer that is being written."""
        return "/".join([*self._scopes, name])

    def unique(self, name: str) -> str:
        """A name that nothing in the graph has yet."""
        new, count = name, 0
        while new in self._names:
            count += 1
            new = f"{name}_{count}"
        self._names.add(new)
        return new

    def constant(self, array: typing.Any, name: str | None = None) -> Value:
        """A tensor of fixed numbers.

        Args:
            array: What NumPy makes an array of.
            name: What it is called, if nothing else is. Defaults to a name of
                the layer that is being written.
        """
        array = np.asarray(array)
        if array.dtype.name not in _TYPES:
            raise Unwritable(f"ONNX has no tensors of {array.dtype.name}")
        key = _key(array)
        if key not in self._known:
            if array.ndim == 2 and array.size >= _LARGE:
                # Tied weights, such as those of an embedding, are there once.
                known = self._known.get(_key(array.T))
                if known is not None:
                    new = self.node("Transpose", [known], perm=[1, 0])
                    new.shape = array.shape
                    return new
            name = self.unique(name or self.path("constant"))
            self._weights[name] = np.array(array, order="C")
            self._known[key] = Value(name, array.dtype.name, array.shape)
        known = self._known[key]
        return Value(known.name, known.dtype, known.shape)

    def numbers(self, value: Value) -> np.ndarray | None:
        """The numbers of a constant; `None` for what is computed."""
        return self._weights.get(value.name)

    def node(
        self,
        op_type: str,
        inputs: collections.abc.Sequence[typing.Any],
        outputs: int = 1,
        dtype: str | None = None,
        domain: str = "",
        **attributes: typing.Any,
    ) -> typing.Any:
        """Adds a node.

        Args:
            op_type: Name of the ONNX operator.
            inputs: List of `Value`s; an array becomes a constant, and `None`
                an optional input that is left out.
            outputs: The number of outputs.
            dtype: Of the outputs; defaults to that of the first input.
            domain: Of the operator; that of ONNX itself is `""`.
            **attributes: Of the operator; those that are `None` are left out.

        Returns:
            The `Value` of the output, or a list of several.
        """
        given = [
            x if x is None or isinstance(x, Value) else self.constant(x)
            for x in inputs
        ]
        if dtype is None:
            dtype = next(x.dtype for x in given if x is not None)
        names = [self.unique(self.path(op_type)) for _ in range(outputs)]
        self._nodes[-1].append(
            helper.make_node(
                op_type,
                ["" if x is None else x.name for x in given],
                names,
                name=names[0],
                domain=domain,
                **{k: v for k, v in attributes.items() if v is not None},
            )
        )
        values = [Value(name, dtype) for name in names]
        return values[0] if outputs == 1 else values

    def input(self, name: str, dtype: str, shape: tuple) -> Value:
        """A tensor that comes from outside, under this very name."""
        self._names.add(name)
        return Value(name, dtype, shape)

    def body(
        self,
        write: collections.abc.Callable[
            [], tuple[list[Value], list[Value], typing.Any]
        ],
    ) -> tuple[onnx.GraphProto, typing.Any]:
        """A graph inside a node, such as the body of a loop.

        Args:
            write: Function that adds its nodes, and gives its inputs, its
                outputs and something else.

        Returns:
            The graph, and that something else.
        """
        self._nodes.append([])
        try:
            inputs, outputs, other = write()
            # An output must come from a node, and from one alone.
            outputs = [self.node("Identity", [x]) for x in outputs]
        finally:
            nodes = self._nodes.pop()
        graph = helper.make_graph(
            _needed(nodes, {x.name for x in outputs}),
            self.unique(self.path("body")),
            [_info(x, x.shape) for x in inputs],
            [_info(x, None) for x in outputs],
        )
        return graph, other

    def proto(
        self,
        name: str,
        inputs: collections.abc.Sequence[Value],
        outputs: dict[str, Value],
    ) -> onnx.ModelProto:
        """The whole model, without what no output needs.

        Args:
            name: Of the graph.
            inputs: The `Value`s of the inputs.
            outputs: Dict from the name of an output to its `Value`.
        """
        for public, value in outputs.items():
            self._nodes[0].append(
                helper.make_node("Identity", [value.name], [public])
            )
        nodes = _needed(self._nodes[0], set(outputs))
        read = {x for node in nodes for x in _read_by(node)}
        graph = helper.make_graph(
            nodes,
            name,
            [_info(x, _named_sizes(x)) for x in inputs],
            [
                _info(Value(public, x.dtype), x.shape)
                for public, x in outputs.items()
            ],
            [
                numpy_helper.from_array(array, key)
                for key, array in self._weights.items()
                if key in read
            ],
        )
        imported = {"": self.opset} | {
            node.domain: 1 for node in nodes if node.domain
        }
        opsets = [helper.make_opsetid(k, v) for k, v in imported.items()]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(
                [x for x in opsets if not x.domain]
            ),
        )


def onnx_type(dtype: str) -> int:
    """ONNX's number for a type.

    Raises:
        Unwritable: if it has none.
    """
    if dtype not in _TYPES:
        raise Unwritable(f"ONNX has no tensors of {dtype}")
    return _TYPES[dtype]


def _key(array):
    """What two arrays of the same type, shape and numbers have in common."""
    content = np.ascontiguousarray(array).tobytes()
    return array.dtype.name, array.shape, hashlib.sha256(content).digest()


def _info(value, shape):
    shape = None if shape is None else list(shape)
    return helper.make_tensor_value_info(
        value.name, onnx_type(value.dtype), shape
    )


def _named_sizes(value):
    """Open sizes by name; the first is the same for all inputs."""
    return [
        size or ("batch" if axis == 0 else f"{value.name}_{axis}")
        for axis, size in enumerate(value.shape)
    ]


def _needed(nodes, names):
    """The nodes that lead to some names, in their order."""
    names, kept = set(names), []
    for node in reversed(nodes):
        if names.intersection(node.output):
            kept.append(node)
            names.update(_read_by(node))
    return kept[::-1]


def _read_by(node):
    """All names that a node reads, also from within its bodies."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _read_by(inner)
