"""What LiteRT's kernels ask of a file, and the converter does not see to."""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_iss.export.flatbuffer import (
    add_buffer,
    constant,
    loaded,
    operations,
    packed,
)

_LSTM = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
_PROJECTION_WEIGHTS, _OUTPUT_STATE, _CELL_STATE = 16, 18, 19
_HIDDEN = 4
# Of the gates in their order.
_WEIGHTS, _BIASES = (1, 2, 3, 4), (12, 13, 14, 15)
# Leaves room for the products that are added to it.
_LARGEST_BIAS = 2.0**30
# The kernel takes the cell state for a fixed-point number of 16 bits, with 0
# to 6 of them before the point: below, its tanh does nothing; above, it does
# not begin.
_CELL_EXPONENTS = (-15, -9)


def quantized(content, quantize):
    """A file in full integers, of one in float.

    The converter has fused LSTM operations clip the cell state at 10, so that
    no wider range of it would be found; and it writes a bias that is large
    beside the weights of its gate as the largest integer that there is.

    Args:
        content: Bytes of a TFLite file.
        quantize: Function from the bytes of such a file to those in full
            integers.

    Returns:
        Bytes of the file.
    """
    model = loaded(content)
    if not _lstms(model):
        return quantize(content)
    remove_cell_clip(model)
    separate_states(model)
    biases = [
        [_values(model, graph, operation, place) for place in _BIASES]
        for graph, operation in _lstms(model)
    ]
    content = quantize(bytes(packed(model, len(content))))
    model = loaded(content)
    for (graph, operation), gates in zip(_lstms(model), biases, strict=True):
        for gate, bias in enumerate(gates):
            if bias is not None:
                _make_room_for_bias(model, graph, operation, gate, bias)
    return bytes(packed(model, len(content)))


def check_calibrated(content):
    """Raises a `ValueError` if a range that was found has no end.

    The converter crashes on it, and takes the process with it.

    Args:
        content: Bytes of a TFLite file with the ranges of its tensors.
    """
    model = loaded(content)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            known = tensor.quantization
            for ends in (known.min, known.max) if known else ():
                if ends is not None and not np.isfinite(ends).all():
                    name = tensor.name.decode()
                    raise UnboundedError(name)


class UnboundedError(ValueError):
    """A tensor that is infinite, or no number, for some of the samples."""


def _lstms(model):
    return [
        (graph, operation)
        for graph, operation, code in operations(model)
        if code == _LSTM
    ]


def _values(model, graph, operation, place):
    """A constant input of an operation in float, as an array."""
    number = operation.inputs[place]
    data = None if number < 0 else constant(model, graph.tensors[number])
    return None if data is None else np.frombuffer(data.tobytes(), np.float32)


def _make_room_for_bias(model, graph, operation, gate, bias):
    """Gives the weights of a gate a scale with which its bias is an integer.

    The bias has the scale of the products of inputs and weights.
    """
    inputs = operation.inputs = np.array(operation.inputs)
    (input_scale,) = graph.tensors[inputs[0]].quantization.scale
    weights = graph.tensors[inputs[_WEIGHTS[gate]]]
    (scale,) = weights.quantization.scale
    enough = np.abs(bias).max() / (_LARGEST_BIAS * input_scale)
    if scale >= enough:
        return
    whole = np.frombuffer(constant(model, weights).tobytes(), np.int8)
    whole = np.rint(whole * (scale / enough)).astype(np.int8)
    inputs[_WEIGHTS[gate]] = _with(model, graph, weights, whole, enough)
    old = graph.tensors[inputs[_BIASES[gate]]]
    unit = input_scale * enough
    whole = np.rint(bias.astype("float64") / unit).astype(np.int32)
    inputs[_BIASES[gate]] = _with(model, graph, old, whole, unit)


def _with(model, graph, old, values, scale):
    """The number of a new tensor like another, with other values."""
    new = copy.copy(old)
    new.buffer = add_buffer(model, values)
    new.quantization = copy.copy(old.quantization)
    new.quantization.scale = np.array([scale], np.float32)
    graph.tensors.append(new)
    return len(graph.tensors) - 1


def remove_cell_clip(model):
    """Has fused LSTM operations hold on to any cell state, as Keras does.

    Args:
        model: The `schema.ModelT` of a file.
    """
    for _, operation in _lstms(model):
        operation.builtinOptions.cellClip = 0.0


def separate_states(model):
    """Gives fused LSTM operations states that nothing else reads.

    The converter takes the zeros that they begin with, which the operations
    then write to, and other zeros of that shape for one tensor.

    Args:
        model: The `schema.ModelT` of a file.
    """
    for graph, operation in _lstms(model):
        for place in (_OUTPUT_STATE, _CELL_STATE):
            number = operation.inputs[place]
            readers = sum(
                int(np.sum(np.asarray(other.inputs) == number))
                for other in graph.operators
            )
            if readers < 2:
                continue
            zeros = graph.tensors[number]
            graph.tensors.append(copy.copy(zeros))
            operation.inputs = np.array(operation.inputs)
            operation.inputs[place] = len(graph.tensors) - 1
            _make_zeros(model, zeros)


def _make_zeros(model, tensor):
    """Makes a constant of what was a variable, unless it is one already."""
    if not tensor.isVariable:
        return
    kind = {
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.INT8: np.int8,
        schema.TensorType.INT16: np.int16,
    }[tensor.type]
    known = tensor.quantization
    zero = 0
    if known is not None and known.zeroPoint is not None:
        (zero,) = known.zeroPoint
    values = np.full([int(size) for size in tensor.shape], zero, kind)
    tensor.isVariable, tensor.buffer = False, add_buffer(model, values)


def mend_scales(model):
    """Gives fused LSTM operations in integers the scales that they can do.

    Args:
        model: The `schema.ModelT` of a file in full integers.
    """
    for graph, operation in _lstms(model):
        tensors, inputs = graph.tensors, operation.inputs
        cell = tensors[inputs[_CELL_STATE]]
        if cell.type == schema.TensorType.INT16:
            # A power of two already; of no cell at all, something near zero.
            exponent = np.log2(np.maximum(cell.quantization.scale[0], 1e-30))
            exponent = np.clip(np.rint(exponent), *_CELL_EXPONENTS)
            cell.quantization.scale = np.array([2.0**exponent], np.float32)
        projected = (
            len(inputs) > _PROJECTION_WEIGHTS
            and inputs[_PROJECTION_WEIGHTS] >= 0
        )
        if operation.intermediates is not None and not projected:
            # Without a projection, all three are one: the kernel computes
            # numbers of the scale of the hidden state, keeps them as the
            # output state and copies them to the output. The converter widens
            # the range of some of them to take in zero, and gives the output
            # the scale that what follows asks for.
            scale = tensors[operation.outputs[0]].quantization
            tensors[inputs[_OUTPUT_STATE]].quantization = scale
            tensors[operation.intermediates[_HIDDEN]].quantization = scale


def without_range(model):
    """Names of tensors of which nothing but zero was seen.

    Their scales are too small to be numbers, and LiteRT crashes on them.

    Args:
        model: The `schema.ModelT` of a file in full integers.
    """
    smallest = np.finfo(np.float32).tiny
    names = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            known = tensor.quantization
            scale = None if known is None else known.scale
            # Of a constant, the zeros are meant.
            computed = constant(model, tensor) is None
            if computed and scale is not None and min(scale) < smallest:
                names[tensor.name.decode()] = None
    return list(names)


def split_integers(model):
    """Has splits of integers take and give integers.

    The converter leaves a split in float of which a part is not used: the
    forget gate of a first time step, which begins with a cell of zero.

    Args:
        model: The `schema.ModelT` of a file in full integers.
    """
    for graph, operation, code in operations(model):
        if code != schema.BuiltinOperator.SPLIT:
            continue
        tensors = graph.tensors
        made = {
            other.outputs[0]: (other, kind)
            for same, other, kind in operations(model)
            if same is graph
        }
        source, kind = made.get(operation.inputs[1], (None, None))
        readers = [
            kind
            for same, other, kind in operations(model)
            if same is graph and set(operation.outputs) & set(other.inputs)
        ]
        quantize = schema.BuiltinOperator.QUANTIZE
        if kind != schema.BuiltinOperator.DEQUANTIZE or any(
            kind != quantize for kind in readers
        ):
            continue
        integers = tensors[source.inputs[0]]
        operation.inputs = np.array([operation.inputs[0], source.inputs[0]])
        for number in operation.outputs:
            tensors[number].type = integers.type
            tensors[number].quantization = integers.quantization
    drop_unread(model, schema.BuiltinOperator.DEQUANTIZE)


def drop_unread(model, kind):
    """Takes out the operations of a kind whose outputs nothing reads."""
    for graph in model.subgraphs:
        read = set(graph.outputs)
        for operation in graph.operators:
            read.update(operation.inputs)
        unread = {
            id(operation)
            for same, operation, code in operations(model)
            if same is graph
            and code == kind
            and not read.intersection(operation.outputs)
        }
        graph.operators = [x for x in graph.operators if id(x) not in unread]
