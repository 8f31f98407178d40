"""A Keras model as an ONNX file."""

import functools

import keras
import onnx

from keras_iss._keras.graphs import functional_of
from keras_iss._keras.names import unchanged_names
from keras_iss.export import files, paths
from keras_iss.export.checks import (
    check,
    check_not_quantized,
    check_precision,
)
from keras_iss.export.data import checked, numpy_dtype
from keras_iss.export.model import Callable, compute_in_float32, isolated
from keras_iss.export.names import unique
from keras_iss.export.onnx.domain import vocabulary_sizes
from keras_iss.export.onnx.followed import followable
from keras_iss.export.onnx.graph import Graph, Unwritable, Value
from keras_iss.export.onnx.verify import verify
from keras_iss.export.onnx.walk import Walk
from keras_iss.export.result import Export, Weight
from keras_iss.export.trials import Reference, Trials
from keras_iss.version import __version__

OLDEST_OPSET = 18
# What a file of protocol buffers can hold.
_LARGEST = 2**31 - 1


def export(model, path, options, opset):
    """See `keras_iss.export_onnx`.

    Args:
        model: `keras.Model`.
        path: Where to write the file.
        options: The `Options`.
        opset: Integer.
    """
    _check_opset(opset)
    path = paths.target(path)
    check(model)
    check_not_quantized(model, "an ONNX file")
    check_precision(model, "ONNX Runtime, in its recurrent operators,")
    with unchanged_names():
        copied = isolated(model)
        compute_in_float32(copied)
        function = Callable(copied)
        data = options.data
        batch = _fixed_batch_size(function)
        if data is not None:
            data = checked(
                function.inputs, model.name, data, batch, "data", finite=False
            )
        proto = written(function, opset)
        content = _content(proto, model)
        with files.written(path, content) as file:
            errors = {}
            if options.verify:
                what = None if data is None else "the samples of `data`"
                domain = functools.partial(vocabulary_sizes, proto)
                reference = Reference(copied, [])
                reference.function.output_names = function.output_names
                trials = Trials(reference, batch, domain, data, what)
                errors = verify(file, trials, function)
    return Export(
        path,
        len(content),
        _operators(proto.graph),
        errors,
        weights=tuple(_weights(proto.graph)),
    )


def _check_opset(opset):
    newest = onnx.defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, int):
        raise TypeError(
            f"`opset` must be an integer. Received: {opset!r} (of type "
            f"{type(opset).__name__})."
        )
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(
            f"opset={opset} is not to be had: give one from {OLDEST_OPSET} to "
            f"{newest}, the newest of the installed onnx "
            f"{onnx.__version__}."
        )


def _fixed_batch_size(function):
    sizes = [x.shape[0] for x in function.inputs if x.shape]
    return next((size for size in sizes if size is not None), None)


def written(function, opset):
    """A model as an `onnx.ModelProto`.

    Args:
        function: The `Callable` of a copy of the model. Its outputs get the
            names that they have in the file.
        opset: Integer.

    Raises:
        ValueError: that names the layer that cannot be written.
    """
    graph = Graph(opset)
    names = [x.name for x in function.inputs]
    function.output_names = unique([*names, *function.output_names])[
        len(names) :
    ]
    for name in function.output_names:
        graph.unique(name)
    try:
        inputs = [
            graph.input(x.name, numpy_dtype(x.dtype), x.shape)
            for x in function.inputs
        ]
        outputs = _walked(function, graph, inputs)
        if len(outputs) != len(function.output_names):
            raise Unwritable("its outputs are no tensors")
        return _described(
            graph.proto(
                function.model.name,
                inputs,
                dict(zip(function.output_names, outputs)),
            )
        )
    except Unwritable as error:
        raise ValueError(_message(function.model, error)) from error


def _walked(function, graph, inputs):
    """The flat list of the `Value`s of the outputs."""
    model, walk = followable(function.model), Walk(graph)
    structure = function.nested(inputs)
    if functional_of(model) is None:
        found = walk.call(model, (), structure)
    else:
        found = walk.call(model, (structure,), {})
    flat = keras.tree.flatten(found)
    if not all(isinstance(x, Value) for x in flat):
        raise Unwritable("its outputs are no tensors")
    return flat


def _message(model, error):
    layer = model if error.culprit is None else error.culprit
    kind = type(layer).__name__
    where = "" if layer is model else f" of `{model.name}`"
    register = "keras_iss.export.register_onnx_lowering"
    step = error.step or (
        f"Say how it is written with `{register}({kind})`, or build the model "
        "without it."
        if isinstance(layer, keras.layers.Layer)
        else f"Put it into a layer of your own and say with `{register}` how "
        "that is written, or build the model without it."
    )
    return (
        f"`{layer.name}`{where} ({kind}) cannot be written as ONNX: "
        f"{str(error).rstrip('.')}. {step} Nothing was written."
    )


def _described(proto):
    proto.producer_name = "keras-iss"
    proto.producer_version = __version__
    return proto


def _content(proto, model):
    size = proto.ByteSize()
    if size > _LARGEST:
        raise ValueError(
            f"`{model.name}` takes {size:,} bytes, and one ONNX file holds at "
            f"most {_LARGEST:,}. Nothing was written."
        )
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def _operators(graph):
    """Dict from the name of an operator to how often it occurs."""
    counts = {}
    for node in _all_nodes(graph):
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def _all_nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


def _weights(graph):
    """A `Weight` for each tensor of floats, but for single numbers."""
    readers = {}
    for node in _all_nodes(graph):
        for name in node.input:
            readers.setdefault(name, node.op_type)
    for x in graph.initializer:
        array = onnx.numpy_helper.to_array(x)
        if array.dtype.kind == "f" and array.size > 1:
            yield Weight(
                x.name,
                readers.get(x.name, ""),
                array.shape,
                array.dtype.name,
                array.nbytes,
            )
