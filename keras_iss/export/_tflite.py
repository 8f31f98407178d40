"""A Keras model as a TFLite file of builtin operations only."""

import contextlib
import gc
import pathlib
import re
import tempfile

import keras
import numpy as np
import tensorflow as tf

from keras_iss.export import _files, _flatbuffer, _fused, _verify
from keras_iss.export._model import (
    Callable,
    check,
    float32,
    reset_function,
    zero_states,
)
from keras_iss.export._recurrent import lite_loop, lowered, unrolled_loop
from keras_iss.export._report import Export
from keras_iss.export._streaming import Stepper
from keras_iss.version import __version__

QUANTIZE = (None, "float16", "int8", "int8_full")
RECURRENT_OPS = ("loop", "fused")


def export(
    model,
    path,
    batch_size,
    quantize,
    representative_data,
    recurrent_op,
    streaming,
    verify,
):
    """See `keras_iss.export_tflite`."""
    _check_options(batch_size, quantize, representative_data, recurrent_op)
    path = _files.target(path)
    check(model)
    _check_precision(model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_fused.plain_errors())
        stack.enter_context(float32(model))
        stack.enter_context(zero_states(model))
        function = Callable(model)
        _check_batch(function, batch_size)
        samples = None
        if quantize == "int8_full":
            samples = _samples(function, representative_data, batch_size)
            _check_fixed(function, recurrent_op)
        fused = recurrent_op == "fused"
        # Full integers cannot hold the number that clears the state.
        reset = fused and quantize != "int8_full"
        stepper = None
        if streaming:
            more = _fused.fused(reset=False) if fused else None
            stepper = Stepper(function, batch_size, more)
            stepper.check()
        content = _converted(
            function, batch_size, quantize, samples, fused, reset, stepper
        )
        operators = _flatbuffer.operators(content)
        foreign = [name for name in operators if name.startswith("CUSTOM")]
        if foreign:
            raise ValueError(
                f"`{model.name}` would need {', '.join(foreign)}, which a "
                "plain LiteRT does not run. Replace the layer that uses it."
            )
        content = _flatbuffer.finished(
            content,
            f"{model.name}, exported by keras-iss {__version__}",
            _metadata(function, batch_size, quantize, recurrent_op, stepper),
        )
        size, errors = len(content), {}
        with _files.written(path, content) as file:
            # What follows needs the memory.
            del content
            if verify:
                errors = _verify.verify_lite(
                    file, function, batch_size, quantize, stepper
                )
    return Export(path, size, operators, errors)


def _check_options(batch_size, quantize, representative_data, recurrent_op):
    if quantize not in QUANTIZE:
        raise ValueError(
            f"quantize={quantize!r} is unknown; choose one of {QUANTIZE}."
        )
    if recurrent_op not in RECURRENT_OPS:
        raise ValueError(
            f"recurrent_op={recurrent_op!r} is unknown; choose one of "
            f"{RECURRENT_OPS}."
        )
    if batch_size is not None and (
        isinstance(batch_size, bool)
        or not isinstance(batch_size, (int, np.integer))
        or batch_size < 1
    ):
        raise ValueError(
            f"batch_size={batch_size!r} is neither a positive number of "
            "samples nor None, for a batch of any size."
        )
    if quantize == "int8_full" and representative_data is None:
        raise ValueError(
            'quantize="int8_full" needs representative_data: some hundred '
            "samples of the model's inputs, from which it learns their range."
        )
    if quantize != "int8_full" and representative_data is not None:
        raise ValueError(
            f"representative_data is of no use to quantize={quantize!r}; it "
            'is for quantize="int8_full".'
        )


def _check_precision(model):
    for layer in model._flatten_layers():
        if layer.compute_dtype == "float64":
            raise ValueError(
                f"`{layer.name}` computes in float64, which LiteRT does not. "
                "Build the model in float32, and give it the same weights."
            )


def _check_batch(function, batch_size):
    for x in function.inputs:
        fixed = x.shape[0] if x.shape else None
        if fixed is not None and fixed != batch_size:
            raise ValueError(
                f"Input `{x.name}` of `{function.model.name}` has a fixed "
                f"batch size of {fixed}: export it with batch_size={fixed}."
            )


def _check_fixed(function, recurrent_op):
    """Full integers have no loops: time must be fixed to be unrolled."""
    model = function.model
    recurrent = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN)
    ]
    if not recurrent or recurrent_op == "fused":
        return
    for x in function.inputs:
        if None in x.shape[1:]:
            raise ValueError(
                f'quantize="int8_full" cannot serve `{recurrent[0].name}` '
                f"with a number of time steps left open (input `{x.name}` "
                f"has the shape {x.shape}): LiteRT has no loop in full "
                "integers, so that the steps are unrolled. Give the model an "
                'Input with a fixed number, or use quantize="int8".'
            )


def _samples(function, data, batch_size):
    """Representative data as a list of lists of arrays, one per input."""
    inputs = function.inputs
    if isinstance(data, dict):
        missing = [x.name for x in inputs if x.name not in data]
        if missing:
            raise ValueError(
                f"representative_data has no {', '.join(missing)}; the "
                f"inputs are {[x.name for x in inputs]}."
            )
        arrays = [data[x.name] for x in inputs]
    elif isinstance(data, (list, tuple)) and len(inputs) > 1:
        if len(data) != len(inputs):
            raise ValueError(
                f"representative_data has {len(data)} arrays, and "
                f"`{function.model.name}` {len(inputs)} inputs."
            )
        arrays = data
    elif len(inputs) == 1:
        arrays = [data]
    else:
        raise ValueError(
            "representative_data must be a list or dict of arrays, one for "
            f"each of the inputs {[x.name for x in inputs]}."
        )
    arrays = [np.asarray(array) for array in arrays]
    size = batch_size or 1
    for x, array in zip(inputs, arrays):
        _check_sample(x, array, size)
    count = min(len(array) for array in arrays) // size
    return [
        [
            array[i * size : (i + 1) * size].astype(x.dtype)
            for x, array in zip(inputs, arrays)
        ]
        for i in range(count)
    ]


def _check_sample(x, array, size):
    expected = (f"at least {size}", *x.shape[1:])
    fits = array.ndim == len(x.shape) and all(
        want in (None, got) for want, got in zip(x.shape[1:], array.shape[1:])
    )
    if not fits or len(array) < size:
        raise ValueError(
            f"representative_data for `{x.name}` has the shape "
            f"{array.shape}; expected {expected}."
        )
    whole = x.dtype.startswith(("int", "uint", "bool"))
    if array.dtype.kind not in ("iub" if whole else "f"):
        raise ValueError(
            f"representative_data for `{x.name}` is of dtype {array.dtype}; "
            f"expected {x.dtype}."
        )
    if not whole and not np.isfinite(array).all():
        raise ValueError(
            f"representative_data for `{x.name}` holds NaN or infinity."
        )


def _converted(function, batch_size, quantize, samples, fused, reset, stepper):
    module = tf.Module()
    module.kept = function.variables
    serve = _serve(function, batch_size, quantize, fused, reset)
    signatures = {"serve": serve}
    if stepper is not None:
        signatures["step"] = tf.function(
            stepper, autograph=False
        ).get_concrete_function(*stepper.specs, *stepper.state_specs)
    if function.states:
        signatures["reset"] = reset_function(function)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder) / "model"
        tf.saved_model.save(module, str(folder), signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(folder), signature_keys=list(signatures)
        )
        # It is of no use from here on, and holds all the weights.
        converter._trackable_obj = None
        gc.collect()
        # Constants beside the flatbuffer: fewer copies; `finished` takes them
        # in again.
        converter._experimental_use_buffer_offset = True
        converter.exclude_conversion_metadata = True
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            if quantize == "int8_full"
            else tf.lite.OpsSet.TFLITE_BUILTINS
        ]
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8_full":
            converter.representative_dataset = _dataset(
                function, samples, stepper
            )
        try:
            return converter.convert()
        except Exception as error:
            raise _readable(
                function.model, signatures.values(), error
            ) from error


def _serve(function, batch_size, quantize, fused, reset):
    specs = [x.spec((batch_size, *x.shape[1:])) for x in function.inputs]
    loop = unrolled_loop if quantize == "int8_full" else lite_loop
    more = {"more": _fused.fused(reset)} if fused else {}

    def serve(*tensors):
        with lowered(function.model, loop, **more):
            return function(tensors)

    return tf.function(serve, autograph=False).get_concrete_function(*specs)


def _dataset(function, samples, stepper):
    names = [x.name for x in function.inputs]

    def whole():
        for sample in samples:
            yield "serve", dict(zip(names, sample))
        if stepper is None:
            return
        step = tf.function(stepper, autograph=False)
        for sample in samples:
            states = [
                tf.zeros([len(sample[0]), *spec.shape[1:]], spec.dtype)
                for spec in stepper.state_specs
            ]
            for t in range(sample[stepper.timed.index(True)].shape[1]):
                inputs = stepper.step_of(sample, t)
                yield (
                    "step",
                    dict(zip(names, inputs))
                    | {
                        spec.name: np.asarray(state)
                        for spec, state in zip(stepper.state_specs, states)
                    },
                )
                result = step(*inputs, *states)
                states = [result[spec.name] for spec in stepper.state_specs]

    def single():
        for _, values in whole():
            yield values

    return single if stepper is None else whole


def _readable(model, functions, error):
    """The converter's error as one that names the layer and the operation."""
    text = str(error)
    operations = sorted(set(re.findall(r"\btf\.(\w+)\s*\(", text)))
    if not operations:
        return ValueError(
            f"`{model.name}` could not be converted: {text[:2000]}"
        )
    layers = _layers_with(model, functions, operations)
    place = ", ".join(f"`{name}`" for name in layers)
    return ValueError(
        f"{place or 'A layer'} of `{model.name}` needs "
        f"{', '.join(f'tf.{x}' for x in operations)}, which LiteRT has no "
        "builtin operation for: the file would run only with Flex or custom "
        "operations. Replace the layer or its activation. Nothing was "
        "written."
    )


def _layers_with(model, functions, operations):
    names = [layer.name for layer in model._flatten_layers(include_self=False)]
    found = {}
    for function in functions:
        graph = function.graph.as_graph_def()
        nodes = list(graph.node)
        for part in graph.library.function:
            nodes += part.node_def
        for node in nodes:
            if node.op not in operations:
                continue
            # Keras makes the scope of a further call anew with a number.
            scopes = [re.sub(r"_\d+$", "", x) for x in node.name.split("/")]
            scopes += node.name.split("/")
            found |= {x: None for x in names if x in scopes}
    return list(found)


def _metadata(function, batch_size, quantize, recurrent_op, stepper):
    def shape(x):
        return [batch_size, *x.shape[1:]]

    return {
        "name": function.model.name,
        "keras_iss": __version__,
        "quantize": quantize,
        "recurrent_op": recurrent_op,
        "inputs": {
            x.name: {"shape": shape(x), "dtype": x.dtype}
            for x in function.inputs
        },
        "outputs": function.output_shapes(batch_size),
        "states": {
            spec.name: {
                "shape": spec.shape.as_list(),
                "dtype": spec.dtype.name,
            }
            for spec in (stepper.state_specs if stepper else [])
        },
    }
