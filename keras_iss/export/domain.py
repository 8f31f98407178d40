"""What a graph does with the integers that it reads."""

import tensorflow as tf

# Operations that hand on integers as they are: the inputs that they do so of.
_HANDED_ON = {
    "Cast": (0,),
    "ConcatV2": None,
    "EnsureShape": (0,),
    "ExpandDims": (0,),
    "GatherV2": (0,),
    "Identity": (0,),
    "Pack": None,
    "Pad": (0,),
    "PadV2": (0,),
    "Reshape": (0,),
    "ReverseV2": (0,),
    "SelectV2": (1, 2),
    "Slice": (0,),
    "Split": (1,),
    "Squeeze": (0,),
    "StopGradient": (0,),
    "StridedSlice": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Unpack": (0,),
}


def vocabulary_sizes(graph, inputs):
    """How many different integers each input of a graph may hold.

    Follows an input to where it is looked up in a table or made one-hot.

    Args:
        graph: The `tf.Graph` of a function of the inputs, in their order.
        inputs: List of `Input`.

    Returns:
        List of the size of the smallest table; `None` for an input that is
        of floats, or where no table was found.
    """
    return [
        _smallest(tensor) if x.dtype.startswith(("int", "uint")) else None
        for x, tensor in zip(inputs, graph.inputs)
    ]


def _smallest(tensor):
    found, seen, waiting = [], set(), [tensor]
    while waiting:
        tensor = waiting.pop()
        if tensor.ref() in seen:
            continue
        seen.add(tensor.ref())
        for op in tensor.consumers():
            places = [
                i for i, x in enumerate(op.inputs) if x.ref() == tensor.ref()
            ]
            size = _table_size(op, places)
            if size is not None:
                found.append(size)
            handed_on = _HANDED_ON.get(op.type, ())
            if handed_on is None or set(places) & set(handed_on):
                waiting += op.outputs
    return min(found, default=None)


def _table_size(op, places):
    if op.type == "OneHot" and 0 in places:
        depth = tf.get_static_value(op.inputs[1])
        return None if depth is None else max(1, int(depth))
    if op.type == "ResourceGather" and 1 in places:
        variable = op.inputs[0]
        shape = getattr(variable, "_handle_data", None)
        shape = shape and shape.shape_and_type[0].shape
        return shape.dim[0].size if shape else None
    if op.type == "GatherV2" and 1 in places:
        axis = tf.get_static_value(op.inputs[2])
        shape = op.inputs[0].shape
        if axis is None or shape.rank is None:
            return None
        return shape[int(axis)]
    return None
