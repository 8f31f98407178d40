"""A TFLite file as data: its operations, its metadata, its buffers."""

import collections
import json
import zlib

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_OPERATORS = {
    value: name
    for name, value in vars(schema.BuiltinOperator).items()
    if isinstance(value, int)
}
METADATA = "keras_iss"


def operators(content):
    """Counts of the operations in a TFLite file, over all its subgraphs.

    Args:
        content: Bytes of the file.

    Returns:
        Dict from the name of an operation to how often it occurs; of a
        custom operation, the name is that of its custom code.
    """
    model = schema.Model.GetRootAs(content, 0)
    codes = [
        _name(model.OperatorCodes(i))
        for i in range(model.OperatorCodesLength())
    ]
    counts = collections.Counter()
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        for k in range(graph.OperatorsLength()):
            counts[codes[graph.Operators(k).OpcodeIndex()]] += 1
    return dict(sorted(counts.items()))


def _name(code):
    custom = code.CustomCode()
    if custom is not None:
        return f"CUSTOM {custom.decode()}"
    return _OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]


def foreign(content):
    """Names of the operations that a plain LiteRT does not know."""
    return [name for name in operators(content) if name.startswith("CUSTOM")]


def metadata(content):
    """What an export wrote about the model, or `None`."""
    model = schema.Model.GetRootAs(content, 0)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name().decode() == METADATA:
            data = model.Buffers(entry.Buffer()).DataAsNumpy()
            return json.loads(bytes(data))
    return None


def loaded(content):
    """A TFLite file as an object that can be changed.

    Args:
        content: Bytes of the file, its constants in the flatbuffer or behind
            it.

    Returns:
        `schema.ModelT`, with all constants in its buffers.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    everything = np.frombuffer(content, np.uint8)
    for buffer in model.buffers:
        if buffer.offset > 1:
            end = buffer.offset + buffer.size
            buffer.data = everything[buffer.offset : end]
        buffer.offset = buffer.size = 0
    return model


def packed(model, size):
    """The file of an object; see `loaded`.

    Args:
        model: The `schema.ModelT`.
        size: About how many bytes it will have.

    Returns:
        Memory view of the file, its constants in the flatbuffer.
    """
    # Large enough at once: a builder that grows copies itself.
    builder = _Builder(size + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]


def rename_inputs(model, names):
    """Gives the inputs of a file's signatures other names.

    Args:
        model: The `schema.ModelT`.
        names: Dict from the names that they have.
    """
    for signature in model.signatureDefs or ():
        for entry in signature.inputs:
            name = entry.name.decode()
            entry.name = names.get(name, name)


def add_metadata(model, description, entries):
    """Puts into a file what it is.

    Args:
        model: The `schema.ModelT`.
        description: Text of the file's description.
        entries: Dict that JSON can hold.
    """
    model.description = description
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(entries).encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = METADATA
    entry.buffer = len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


class _Builder(flatbuffers.Builder):
    """Puts arrays where the schema wants them: at multiples of 16 bytes.

    The schema's own Python code leaves that out, and a kernel or a delegate
    may read a constant in place.
    """

    def CreateNumpyVector(self, x):
        self.Prep(16, x.nbytes)
        return super().CreateNumpyVector(x)


def share_equal_buffers(model):
    """Points tensors with equal constants at one buffer, and drops others."""
    first, target = {}, {}
    used = {
        tensor.buffer for graph in model.subgraphs for tensor in graph.tensors
    }
    for number, buffer in enumerate(model.buffers):
        data = buffer.data
        if number not in used or number == 0 or data is None or len(data) == 0:
            continue
        data = np.asarray(data, np.uint8)
        key = (len(data), zlib.crc32(data))
        for other in first.get(key, []):
            if np.array_equal(model.buffers[other].data, data):
                target[number] = other
                break
        else:
            first.setdefault(key, []).append(number)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = target.get(tensor.buffer, tensor.buffer)
    for number in target:
        model.buffers[number].data = None


def operations(model):
    """Yields each graph, operation and its builtin code, of a `ModelT`."""
    codes = [
        max(code.builtinCode, code.deprecatedBuiltinCode)
        for code in model.operatorCodes
    ]
    for graph in model.subgraphs:
        for operation in graph.operators or ():
            yield graph, operation, codes[operation.opcodeIndex]


def constant(model, tensor):
    """The bytes of a constant tensor, or `None` of one that is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else np.asarray(data)


def operation_name(code):
    """The name of a builtin operation."""
    return _OPERATORS[code]


def operator_code(model, builtin, version):
    """The number of an operation code, which is added if it is not there.

    Args:
        model: The `schema.ModelT`.
        builtin: A value of `schema.BuiltinOperator`.
        version: Integer, the version of the operation.
    """
    for number, code in enumerate(model.operatorCodes):
        known = max(code.builtinCode, code.deprecatedBuiltinCode)
        if (known, code.version) == (builtin, version):
            return number
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    code.deprecatedBuiltinCode = min(builtin, 127)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def add_buffer(model, values):
    """The number of a new buffer with the bytes of an array."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def drop_unused(model, replaced):
    """Empties what nothing reads any more, of the tensors replaced.

    Args:
        model: The `schema.ModelT`.
        replaced: List of pairs of a graph and the number of a tensor in it.
    """
    for graph, number in replaced:
        operations_of = graph.operators or ()
        if not any(number in operation.inputs for operation in operations_of):
            tensor = graph.tensors[number]
            tensor.buffer, tensor.name = 0, b""
    used = {
        tensor.buffer for graph in model.subgraphs for tensor in graph.tensors
    }
    used |= {entry.buffer for entry in model.metadata or ()}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
