"""Weights in int8 for operations that compute in float ("dynamic range").

The converter leaves weights of less than 1024 numbers in float32, and with
them a whole fused LSTM of which one kernel is so small. Here the rest
follows, in the form that the converter gives larger ones.
"""

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_iss.export.flatbuffer import (
    add_buffer,
    constant,
    drop_unused,
    operations,
    operator_code,
)

_Builtin = schema.BuiltinOperator
_INT8, _FLOAT = schema.TensorType.INT8, schema.TensorType.FLOAT32


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How an operation takes weights in int8.

    Attributes:
        places: Which of its inputs are weights.
        axis: Axis with a scale for each place, or `None` for one scale.
        version: Version of the operation that does so.
    """

    places: tuple
    axis: int | None
    version: int


_KINDS = {
    _Builtin.FULLY_CONNECTED: _Kind((1,), 0, 12),
    _Builtin.CONV_2D: _Kind((1,), 0, 5),
    _Builtin.DEPTHWISE_CONV_2D: _Kind((1,), 3, 6),
    _Builtin.TRANSPOSE_CONV: _Kind((1,), 0, 2),
    _Builtin.UNIDIRECTIONAL_SEQUENCE_LSTM: _Kind(tuple(range(1, 9)), None, 3),
    _Builtin.GATHER: _Kind((0,), None, 2),
}
_DEQUANTIZE_VERSION = 2


def quantize(model):
    """Puts the weights that are still in float32 into int8.

    Args:
        model: The `schema.ModelT` of a file in dynamic range; changed.
    """
    replaced = []
    for graph, operation, code in list(operations(model)):
        kind = _KINDS.get(code)
        weights = _weights_of(model, graph, operation, kind)
        if not weights:
            continue
        operation.inputs = np.array(operation.inputs)
        for place in weights:
            old = operation.inputs[place]
            replaced.append((graph, old))
            operation.inputs[place] = _quantized(model, graph, old, kind.axis)
        operation.opcodeIndex = operator_code(model, code, kind.version)
        if code == _Builtin.GATHER:
            _dequantize_output(model, graph, operation)
        elif hasattr(operation.builtinOptions, "asymmetricQuantizeInputs"):
            operation.builtinOptions.asymmetricQuantizeInputs = True
    drop_unused(model, replaced)


def _weights_of(model, graph, operation, kind):
    """The places of an operation's inputs that are weights in float32."""
    return [
        place
        for place in (kind.places if kind else ())
        if place < len(operation.inputs)
        and operation.inputs[place] >= 0
        and _is_weight(model, graph.tensors[operation.inputs[place]])
    ]


def _is_weight(model, tensor):
    return (
        tensor.type == _FLOAT
        and len(tensor.shape if tensor.shape is not None else ()) > 1
        and constant(model, tensor) is not None
    )


def _quantized(model, graph, number, axis):
    """The number of a tensor with the same weights in int8."""
    old = graph.tensors[number]
    name = old.name + f"/int8_{axis}".encode()
    for other, tensor in enumerate(graph.tensors):
        if tensor.name == name:
            return other
    data = constant(model, old)
    values = np.frombuffer(data.tobytes(), np.float32)
    values = values.reshape([int(size) for size in old.shape])
    rest = None
    if axis is not None:
        rest = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=rest, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0) / 127
    whole = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    new = schema.TensorT()
    new.name, new.type, new.shape = name, _INT8, old.shape
    new.buffer = add_buffer(model, whole)
    new.hasRank = old.hasRank
    new.quantization = schema.QuantizationParametersT()
    new.quantization.scale = scale.ravel().astype(np.float32)
    new.quantization.zeroPoint = np.zeros(scale.size, np.int64)
    new.quantization.quantizedDimension = axis or 0
    graph.tensors.append(new)
    return len(graph.tensors) - 1


def _dequantize_output(model, graph, operation):
    """Puts an operation behind another that takes its int8 to float32."""
    wanted = operation.outputs[0]
    table = graph.tensors[operation.inputs[0]]
    like = graph.tensors[wanted]
    new = schema.TensorT()
    new.name, new.type = like.name + b"/int8", _INT8
    new.shape, new.shapeSignature = like.shape, like.shapeSignature
    new.hasRank, new.quantization = like.hasRank, table.quantization
    graph.tensors.append(new)
    operation.outputs = np.array([len(graph.tensors) - 1], np.int32)
    back = schema.OperatorT()
    back.opcodeIndex = operator_code(
        model, _Builtin.DEQUANTIZE, _DEQUANTIZE_VERSION
    )
    back.inputs = operation.outputs
    back.outputs = np.array([wanted], np.int32)
    position = next(
        i for i, other in enumerate(graph.operators) if other is operation
    )
    graph.operators.insert(position + 1, back)
