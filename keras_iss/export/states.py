"""States of a step in integers: out of one call and into the next.

The bytes of a state are to be copied as they are, so that both ends have one
scale and one zero point.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_iss.export.flatbuffer import (
    loaded,
    operations,
    operator_code,
    packed,
)

_Builtin = schema.BuiltinOperator
# Operations that give integers of one scale, whatever their range; see the
# quantization specification of LiteRT.
_FIXED = {
    _Builtin.TANH: (-1.0, 127 / 128),
    _Builtin.LOGISTIC: (0.0, 255 / 256),
    _Builtin.SOFTMAX: (0.0, 255 / 256),
}


def with_shared_ranges(content, pairs):
    """A calibrated file with one range for both ends of each state.

    Args:
        content: Bytes of a file with the ranges of its tensors.
        pairs: Dict from the key of a state that goes in to its name outside.

    Returns:
        Bytes of the file.
    """
    model = loaded(content)
    for graph, before, after in _ends(model, pairs):
        maker = [
            code
            for same, operation, code in operations(model)
            if same is graph and after in operation.outputs
        ]
        both = [graph.tensors[i].quantization for i in (before, after)]
        low = min(float(x.min[0]) for x in both)
        high = max(float(x.max[0]) for x in both)
        low, high = _FIXED.get(maker[0] if maker else None, (low, high))
        for known in both:
            known.min = np.array([low], np.float32)
            known.max = np.array([high], np.float32)
    return bytes(packed(model, len(content)))


def requantize(model, pairs):
    """Gives states that go out the scale of those that go in.

    Args:
        model: The `schema.ModelT` of a file in full integers.
        pairs: See `with_shared_ranges`.
    """
    for graph, before, after in list(_ends(model, pairs)):
        wanted, given = graph.tensors[before], graph.tensors[after]
        if _same(wanted.quantization, given.quantization):
            continue
        new = schema.TensorT()
        new.name = given.name + b"/state"
        new.type, new.shape, new.hasRank = given.type, given.shape, True
        new.quantization = wanted.quantization
        graph.tensors.append(new)
        number = len(graph.tensors) - 1
        operation = schema.OperatorT()
        operation.opcodeIndex = operator_code(model, _Builtin.QUANTIZE, 2)
        operation.inputs = np.array([after], np.int32)
        operation.outputs = np.array([number], np.int32)
        graph.operators.append(operation)
        (signature,) = model.signatureDefs
        of_it = [x for x in signature.outputs if x.tensorIndex == after]
        state = [x for x in of_it if x.name.decode() in pairs.values()]
        for entry in state:
            entry.tensorIndex = number
        outputs = list(graph.outputs)
        if len(state) < len(of_it):
            # The state is an output of the model, too.
            outputs.append(number)
        else:
            outputs = [number if i == after else i for i in outputs]
        graph.outputs = np.array(outputs, np.int32)


def _ends(model, pairs):
    """Yields the graph and the two tensors of each state that is not kept."""
    (signature,) = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    inputs = {x.name.decode(): x.tensorIndex for x in signature.inputs}
    outputs = {x.name.decode(): x.tensorIndex for x in signature.outputs}
    for key, name in pairs.items():
        if key in inputs and name in outputs:
            yield graph, inputs[key], outputs[name]


def _same(one, other):
    return (
        one.scale[0] == other.scale[0]
        and one.zeroPoint[0] == other.zeroPoint[0]
    )
