"""Which integers an ONNX model looks up in its tables."""

import onnx

# Operators that hand on the integers of some of their inputs.
_HANDED_ON = {
    "Cast": (0,),
    "Concat": None,
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherND": (0,),
    "Identity": (0,),
    "Pad": (0,),
    "Reshape": (0,),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}


def vocabulary_sizes(model, inputs):
    """How many different integers each input of a model may hold.

    Args:
        model: `onnx.ModelProto`.
        inputs: List of `Input`.

    Returns:
        List of the size of the smallest table that an input is looked up in;
        `None` for an input of floats, or where no table was found.
    """
    sizes = {x.name: list(x.dims) for x in model.graph.initializer}
    return [
        _smallest(model.graph, x.name, sizes)
        if x.dtype.startswith(("int", "uint"))
        else None
        for x in inputs
    ]


def _smallest(graph, name, sizes):
    found, known = [], {name}
    for node in _nodes(graph, known):
        places = [i for i, x in enumerate(node.input) if x in known]
        if not places:
            continue
        if node.op_type == "Gather" and 1 in places and node.input[0] in sizes:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            found.append(sizes[node.input[0]][axis])
        # One-hot: compared with the row of all numbers.
        if node.op_type == "Equal":
            row = sizes.get(node.input[1 - places[0]], [])
            found += [max(row)] if max(row, default=1) > 1 else []
        handed_on = _HANDED_ON.get(node.op_type, ())
        if handed_on is None or set(places) & set(handed_on):
            known.update(node.output)
    return min(found, default=None)


def _nodes(graph, known):
    """The nodes of a graph, and those inside each before it."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type != onnx.AttributeProto.GRAPH:
                continue
            body = attribute.g
            known.update(
                inner.name
                for inner, outer in zip(body.input, node.input)
                if outer in known
            )
            yield from _nodes(body, known)
        yield node
