"""The graphs behind models of Keras 2 (`tf_keras`)."""


def graph(model):
    """The calls of a functional model, its inputs and its outputs.

    Returns:
        List of tuples `(layer, args, kwargs, outputs)` in the order in which
        they run, and the inputs and outputs as the model takes and gives them.
    """
    by_depth = model._nodes_by_depth
    nodes = [
        (
            node.layer,
            _plain(node.call_args),
            _plain(node.call_kwargs),
            _plain(node.outputs),
        )
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]
    return nodes, _plain(model.input), _plain(model.output)


def _plain(x):
    """Without the wrappers in which TensorFlow keeps lists and dicts."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return (tuple if isinstance(x, tuple) else list)(map(_plain, x))
    return x


def is_operation(layer):
    """Whether a layer stands for an operation of TensorFlow."""
    return type(layer).__name__ in (
        "ClassMethod",
        "InstanceMethod",
        "InstanceProperty",
        "SlicingOpLambda",
        "TFOpLambda",
        "TensorFlowOpLayer",
    )
