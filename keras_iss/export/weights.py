"""Which weights a TFLite file holds, in what, and why."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_iss.export.flatbuffer import constant, operation_name, operations
from keras_iss.export.result import Weight

_DEQUANTIZE = schema.BuiltinOperator.DEQUANTIZE
_BETWEEN = (_DEQUANTIZE, schema.BuiltinOperator.QUANTIZE)
_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.INT8: "int8",
    schema.TensorType.INT16: "int16",
}
# Operations that have a form with weights in int8, but not everywhere.
_HAVE_INT8 = {
    "BATCH_MATMUL": "LiteRT quantizes it only where both factors are computed",
}


def weights(model, integers=False):
    """The weights of a file, in the order of its operations.

    Args:
        model: The `schema.ModelT`.
        integers: Whether they were to be in integers.

    Returns:
        List of `Weight`: one for each constant of more than one axis, but for
        those that hold one number everywhere.
    """
    found = {}
    for graph, operation, code in operations(model):
        for number in operation.inputs:
            tensor = graph.tensors[number] if number >= 0 else None
            if tensor is None or not _is_weight(model, tensor):
                continue
            name = tensor.name.decode()
            dtype = _DTYPES[tensor.type]
            kind = operation_name(_reader(model, graph, operation, code))
            in_float = integers and dtype.startswith("float")
            found[name] = Weight(
                name,
                kind,
                tuple(int(size) for size in tensor.shape),
                dtype,
                constant(model, tensor).nbytes,
                _HAVE_INT8.get(kind, "LiteRT reads it in float32 only")
                if in_float
                else "",
            )
    return list(found.values())


def computed_in_float(model):
    """What a file computes in float, but for the way to it and back.

    Args:
        model: The `schema.ModelT`.

    Returns:
        Dict from the name of a tensor to that of the operation that gives it.
    """
    found, computed = {}, {}
    for graph, operation, code in operations(model):
        known = computed.setdefault(
            id(graph), {*graph.inputs, *_variables(graph)}
        )
        # What is made of constants alone depends on no input: of a bias that
        # is split, say.
        if not known.intersection(operation.inputs):
            continue
        known.update(operation.outputs)
        for number in operation.outputs:
            tensor = graph.tensors[number]
            in_float = tensor.type == schema.TensorType.FLOAT32
            if in_float and code not in _BETWEEN:
                found[tensor.name.decode()] = operation_name(code)
    return found


def _variables(graph):
    return [i for i, tensor in enumerate(graph.tensors) if tensor.isVariable]


def _is_weight(model, tensor):
    shape = tensor.shape if tensor.shape is not None else ()
    if tensor.type not in _DTYPES or len(shape) < 2:
        return False
    data = constant(model, tensor)
    if data is None:
        return False
    if tensor.type == schema.TensorType.FLOAT32:
        # A bias for a batch, and what a loop begins with, are none.
        values = np.frombuffer(data.tobytes(), np.float32)
        return sum(size > 1 for size in shape) > 1 and bool(values.any())
    return bool(np.ptp(data))


def _reader(model, graph, operation, code):
    """The operation that reads weights, where one widens them before."""
    if code != _DEQUANTIZE:
        return code
    for other_graph, other, other_code in operations(model):
        if other_graph is graph and operation.outputs[0] in other.inputs:
            return other_code
    return code
