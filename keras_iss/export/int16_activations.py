"""Activations in 16 bits beside weights in 8, of a file in full integers.

TensorFlow's converter writes the fused LSTM with activations in 8 bits only,
and its quantizer for 16 gives other operations weights that no kernel reads.
So a file in 8 bits is written first, with all that is mended in it, and its
activations, what is constant among them, and the biases are widened here.
The weights stay as they are.
"""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_iss.export import flatbuffer
from keras_iss.export.flatbuffer import (
    add_buffer,
    constant,
    drop_unused,
    operations,
    operator_code,
)

_Builtin = schema.BuiltinOperator
_Type = schema.TensorType

# Where operations have weights in 8 bits: places of the weights, and for each
# bias its own place with those of the activations and of the weights that its
# scale is the product of.
_LSTM = tuple((12 + gate, 0, 1 + gate) for gate in range(4))
_PLACES = {
    _Builtin.FULLY_CONNECTED: ((1,), ((2, 0, 1),)),
    _Builtin.CONV_2D: ((1,), ((2, 0, 1),)),
    _Builtin.DEPTHWISE_CONV_2D: ((1,), ((2, 0, 1),)),
    _Builtin.TRANSPOSE_CONV: ((1,), ((3, 2, 1),)),
    _Builtin.UNIDIRECTIONAL_SEQUENCE_LSTM: (tuple(range(1, 9)), _LSTM),
    # A table of an embedding.
    _Builtin.GATHER: ((0,), ()),
}
# These take a scale for a power of two, unless they are told otherwise.
_ANY_SCALE = (_Builtin.ADD, _Builtin.SUB)
_COMPARISONS = (
    _Builtin.EQUAL,
    _Builtin.NOT_EQUAL,
    _Builtin.GREATER,
    _Builtin.GREATER_EQUAL,
    _Builtin.LESS,
    _Builtin.LESS_EQUAL,
)
_SMALLEST, _LARGEST = -(2**15), 2**15 - 1
_QUANTIZE_VERSION = 3


def constants_of(content):
    """The constants in float of a file, which `widen` takes.

    Args:
        content: Bytes of a file before it is quantized.

    Returns:
        Dict from a number of elements to a list of arrays of one axis.
    """
    model, found = flatbuffer.loaded(content), {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = constant(model, tensor)
            if data is not None and tensor.type == _Type.FLOAT32:
                values = np.frombuffer(data.tobytes(), np.float32)
                found.setdefault(values.size, []).append(values)
    return found


def widen(model, constants):
    """Gives the activations of a file in full integers 16 bits.

    Args:
        model: The `schema.ModelT` of a file with activations in int8; changed.
        constants: What `constants_of` gives of the file in float. Numbers
            that are found there are rounded once, others twice.
    """
    # What is widened below is of the scales of before.
    biases = list(_biases(model))
    weights, replaced = _weights(model), []
    narrow = set(weights)
    for graph, operation, code in list(operations(model)):
        if code in _ANY_SCALE:
            operation.builtinOptions.potScaleInt16 = False
        if code in _COMPARISONS:
            replaced += [(graph, number) for number in operation.inputs]
            _compare_in_one_scale(model, graph, operation)
        table = code == _Builtin.GATHER and (id(graph), operation.inputs[0])
        if table in weights:
            narrow.add(_widen_behind(model, graph, operation))
    for graph in model.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            if tensor.type == _Type.INT8 and (id(graph), number) not in narrow:
                _widen_tensor(model, tensor, constants)
    _widen_weights_read_as_activations(model, weights, constants)
    for graph, operation, *places in biases:
        replaced.append((graph, operation.inputs[places[0]]))
        _widen_bias(model, graph, operation, *places, constants)
    drop_unused(model, replaced)


def _wide(known):
    """Parameters of 16 bits, without a zero point, for a range of 8 bits.

    What an operation has as a fixed scale, such as 1/256 from 0 for a
    sigmoid, becomes what it has in 16 bits: 1/32768.
    """
    new = schema.QuantizationParametersT()
    (zero,), (scale,) = known.zeroPoint, known.scale
    reach = 128 + abs(int(zero))
    new.scale = np.array([float(scale) * reach / 2**15], np.float32)
    new.zeroPoint = np.array([0], np.int64)
    return new


def _places_of(code):
    return _PLACES.get(code, ((), ()))


def _weights(model):
    """The constants that stay in 8 bits, as ids of graphs and numbers."""
    return {
        (id(graph), int(operation.inputs[place]))
        for graph, operation, code in operations(model)
        for place in _places_of(code)[0]
        if operation.inputs[place] >= 0
        and constant(model, graph.tensors[operation.inputs[place]]) is not None
    }


def _biases(model):
    """Yields graph, operation and the three places of each bias."""
    for graph, operation, code in operations(model):
        for places in _places_of(code)[1]:
            bias = places[0]
            if bias < len(operation.inputs) and operation.inputs[bias] >= 0:
                yield graph, operation, *places


def _widen_tensor(model, tensor, constants):
    old, data = tensor.quantization, constant(model, tensor)
    tensor.type, tensor.quantization = _Type.INT16, _wide(old)
    if data is None:
        return
    whole = np.frombuffer(data.tobytes(), np.int8)
    values = _whole(_real(whole, old, constants), tensor.quantization)
    tensor.buffer = add_buffer(model, values)


def _whole(values, known):
    """Numbers in 16 bits of a scale."""
    values = np.rint(values / known.scale[0])
    return np.clip(values, _SMALLEST, _LARGEST).astype(np.int16)


def _widen_behind(model, graph, operation):
    """Has an operation give the 8 bits of its table, and widens those.

    Returns:
        The id of the graph and the number of the tensor of 8 bits.
    """
    wide = operation.outputs[0]
    table = graph.tensors[operation.inputs[0]]
    narrow = copy.copy(graph.tensors[wide])
    narrow.name += b"/int8"
    narrow.quantization = table.quantization
    graph.tensors.append(narrow)
    operation.outputs = np.array([len(graph.tensors) - 1], np.int32)
    after = schema.OperatorT()
    after.opcodeIndex = operator_code(
        model, _Builtin.QUANTIZE, _QUANTIZE_VERSION
    )
    after.inputs = operation.outputs
    after.outputs = np.array([wide], np.int32)
    position = next(
        i for i, other in enumerate(graph.operators) if other is operation
    )
    graph.operators.insert(position + 1, after)
    return id(graph), int(operation.outputs[0])


def _compare_in_one_scale(model, graph, operation):
    """Gives a constant the scale of what it is compared with.

    LiteRT compares 16 bits as they are, and 8 by what they stand for.
    """
    tensors, inputs = graph.tensors, np.array(operation.inputs)
    computed = [
        i for i in (0, 1) if constant(model, tensors[inputs[i]]) is None
    ]
    old = [tensors[number].quantization for number in inputs]
    if any(tensors[number].type != _Type.INT8 for number in inputs) or (
        old[0].scale[0] == old[1].scale[0]
        and old[0].zeroPoint[0] == old[1].zeroPoint[0]
    ):
        return
    if len(computed) != 1:
        name = tensors[operation.outputs[0]].name.decode()
        raise ValueError(
            f"`{name}` compares numbers of two scales, which LiteRT does in 8 "
            'bits only: use quantize="int8_full", or replace the layer. '
            "Nothing was written."
        )
    (given,) = computed
    other = 1 - given
    new = copy.copy(tensors[inputs[other]])
    whole = np.frombuffer(constant(model, new).tobytes(), np.int8)
    new.type, new.quantization = _Type.INT16, _wide(old[given])
    values = (whole - float(old[other].zeroPoint[0])) * old[other].scale[0]
    new.buffer = add_buffer(model, _whole(values, new.quantization))
    tensors.append(new)
    inputs[other] = len(tensors) - 1
    operation.inputs = inputs


def _widen_weights_read_as_activations(model, weights, constants):
    """Gives operations that reckon with weights a copy of them in 16 bits."""
    for graph, operation, code in operations(model):
        kept = _places_of(code)[0]
        for place, number in enumerate(operation.inputs):
            if place in kept or (id(graph), int(number)) not in weights:
                continue
            wide = copy.copy(graph.tensors[number])
            _widen_tensor(model, wide, constants)
            graph.tensors.append(wide)
            operation.inputs = np.array(operation.inputs)
            operation.inputs[place] = len(graph.tensors) - 1


def _widen_bias(model, graph, operation, bias, source, kernel, constants):
    """Gives a bias the scale of the products that it is added to."""
    tensors, inputs = graph.tensors, np.array(operation.inputs)
    old = tensors[inputs[bias]]
    if old.type != _Type.INT32:
        return
    (scale,) = tensors[inputs[source]].quantization.scale
    weights = np.asarray(tensors[inputs[kernel]].quantization.scale, "float64")
    whole = np.frombuffer(constant(model, old).tobytes(), np.int32)
    known = copy.copy(old.quantization)
    values = _real(whole, known, constants) / (weights * float(scale))
    new = copy.copy(old)
    new.type, new.quantization = _Type.INT64, known
    known.scale = (weights * float(scale)).astype(np.float32)
    known.zeroPoint = np.zeros(known.scale.size, np.int64)
    new.buffer = add_buffer(model, np.rint(values).astype(np.int64))
    tensors.append(new)
    inputs[bias] = len(tensors) - 1
    operation.inputs = inputs


def _real(whole, known, constants):
    """What integers stand for: the float that they were made of, if found."""
    scale = np.asarray(known.scale, "float64")
    zero = np.asarray(known.zeroPoint, "float64")
    for values in constants.get(whole.size, ()):
        exact = values / scale + zero
        # Half of one, and what float32 leaves open of it.
        allowed = 0.5 + 1e-3 + 1e-6 * np.abs(exact)
        if np.all(np.abs(exact - whole) <= allowed):
            return values.astype("float64")
    return (whole - zero) * scale
