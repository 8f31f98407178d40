"""A Keras model as a TFLite file of builtin operations only."""

import gc
import re

import keras
import numpy as np
import tensorflow as tf

from keras_iss._keras.layers import inner_layers
from keras_iss.export import (
    _files,
    _flatbuffer,
    _fused,
    _kernels,
    _verify,
    _weights,
)
from keras_iss.export._data import calls_of, checked
from keras_iss.export._inputs import Reference, Trials
from keras_iss.export._model import (
    Callable,
    assigned,
    check,
    check_not_quantized,
    compute_in_float32,
    isolated,
    reset_function,
    scope_name,
)
from keras_iss.export._recurrent import lite_loop, lower, unrolled_loop
from keras_iss.export._report import Export
from keras_iss.export._save import save
from keras_iss.export._streaming import Stepper
from keras_iss.version import __version__

QUANTIZE = (None, "float16", "int8", "int8_full")
RECURRENT_OPS = ("loop", "fused")
# What stays in float32 is spoken of from this part of a file on.
_SMALL_PART = 0.1


def export(
    model,
    path,
    batch_size,
    quantize,
    representative_data,
    recurrent_op,
    streaming,
    verify,
    data,
):
    """See `keras_iss.export_tflite`."""
    _check_options(batch_size, quantize, representative_data, recurrent_op)
    path = _files.target(path)
    check(model)
    check_not_quantized(model)
    _check_precision(model)
    copied = isolated(model)
    compute_in_float32(copied)
    with _fused.plain_errors():
        return _exported(
            Callable(copied),
            path,
            None if batch_size is None else int(batch_size),
            quantize,
            representative_data,
            recurrent_op == "fused",
            streaming,
            verify,
            data,
        )


def _exported(
    function,
    path,
    batch_size,
    quantize,
    representative_data,
    fused,
    streaming,
    verify,
    data,
):
    name = function.model.name
    _check_batch(function, batch_size)
    samples = None
    if quantize == "int8_full":
        samples = checked(
            function.inputs,
            name,
            representative_data,
            batch_size,
            "representative_data",
            finite=True,
        )
        _check_fixed(function, fused)
    what = None
    if data is not None:
        what = "the samples of `data`"
        data = checked(
            function.inputs, name, data, batch_size, "data", finite=False
        )
    elif samples is not None:
        what, data = "the samples of `representative_data`", samples
    stepper = None
    if streaming:
        more = _fused.fused(reset=False) if fused else None
        stepper = Stepper(function, batch_size, more)
    serve = _serve(function, batch_size, quantize, fused)
    reference = Reference(function.model, assigned(function.model, serve.graph))
    trials = Trials(reference, batch_size, serve.graph, data, what)
    if stepper is not None:
        stepper.check(trials)
    content = _converted(
        function,
        quantize,
        samples and calls_of(samples, batch_size or 1),
        serve,
        stepper,
    )
    foreign = _flatbuffer.foreign(content)
    if foreign:
        raise ValueError(
            f"`{name}` would need {', '.join(foreign)}, which a plain LiteRT "
            "does not run. Replace the layer that uses it."
        )
    metadata = _metadata(function, batch_size, quantize, fused, stepper)
    zeros = [
        x.name
        for x, array in zip(function.inputs, samples or ())
        if not array.any()
    ]
    content, left = _finished(
        content, name, quantize, metadata, _names(function, stepper), zeros
    )
    notes = _notes_on_float(name, left, len(content))
    if quantize == "int8_full" and not fused:
        notes += _notes_on_size(function, batch_size, len(content), metadata)
    operators = _flatbuffer.operators(content)
    size, errors = len(content), {}
    with _files.written(path, content) as file:
        # What follows needs the memory.
        del content
        if verify:
            errors = _verify.verify_lite(
                file, trials, function, quantize, fused, stepper
            )
    return Export(path, size, operators, errors, tuple(left), tuple(notes))


def _finished(content, name, quantize, metadata, names, zeros):
    """The converter's file as it is to be, and what `_weights` left."""
    size = len(content)
    model = _flatbuffer.loaded(content)
    _kernels.remove_cell_clip(model)
    _kernels.separate_states(model)
    left = _weights.quantize(model) if quantize == "int8" else {}
    if quantize == "int8_full":
        _kernels.mend_scales(model)
        _check_ranges(name, model, zeros)
    _flatbuffer.rename_inputs(model, names)
    _flatbuffer.share_equal_buffers(model)
    _flatbuffer.add_metadata(
        model, f"{name}, exported by keras-iss {__version__}", metadata
    )
    return _flatbuffer.packed(model, size), left


def _notes_on_float(name, left, size):
    """What to say if a large part of the weights is not in int8."""
    share = sum(4 * count for count, _ in left.values()) / size
    if share < _SMALL_PART:
        return []
    operations = ", ".join(sorted({kind for _, kind in left.values()}))
    return [
        f'quantize="int8" leaves {share:.0%} of the file of `{name}` in '
        f"float32: weights of the operations {operations}, which LiteRT reads "
        "in int8 nowhere. `weights_in_float` of the Export names them; "
        'quantize="float16" halves them, too.'
    ]


def _check_ranges(name, model, zeros):
    empty = _kernels.without_range(model)
    if empty:
        place = " and ".join(f"`{x}`" for x in zeros or empty[:1])
        raise ValueError(
            f"representative_data shows nothing but zeros at {place} of "
            f"`{name}`, which a fused layer reads, and full integers need a "
            "range of values: LiteRT would crash. Give samples in which "
            'every input is at work, or use quantize="int8", which needs '
            "none."
        )


def _notes_on_size(function, batch_size, size, metadata):
    """What to say if the time steps make a file several times larger."""
    weights = sum(x.shape.num_elements() * 4 for x in function.variables)
    if not _recurrent_layers(function.model) or size < weights:
        return []
    serve = _serve(function, batch_size, None, False)
    plain = _converted(function, None, None, serve, None)
    name = function.model.name
    plain = len(_finished(plain, name, None, metadata, {}, ())[0])
    if size < 2 * plain:
        return []
    return [
        f'quantize="int8_full" writes {size:,} bytes for '
        f"`{name}`, and quantize=None {plain:,}: LiteRT has no "
        "loop in full integers, so that every time step has operations of its "
        'own. recurrent_op="fused" has one operation for an LSTM layer; '
        'quantize="int8" has a loop; fewer time steps make a smaller file.'
    ]


def _recurrent_layers(model):
    return [
        layer
        for layer in inner_layers(model)
        if isinstance(layer, keras.layers.RNN)
    ]


def _check_options(batch_size, quantize, representative_data, recurrent_op):
    if not isinstance(quantize, (str, type(None))) or quantize not in QUANTIZE:
        raise ValueError(
            f"quantize={quantize!r} is unknown; choose one of {QUANTIZE}."
        )
    if not isinstance(recurrent_op, str) or recurrent_op not in RECURRENT_OPS:
        raise ValueError(
            f"recurrent_op={recurrent_op!r} is unknown; choose one of "
            f"{RECURRENT_OPS}."
        )
    if batch_size is not None and (
        isinstance(batch_size, (bool, np.bool_))
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
            'is for quantize="int8_full". To verify the file on samples, give '
            "them as data=."
        )


def _check_precision(model):
    for layer in inner_layers(model):
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


def _check_fixed(function, fused):
    """Full integers have no loops: time must be fixed to be unrolled."""
    recurrent = _recurrent_layers(function.model)
    if not recurrent or fused:
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


def _names(function, stepper):
    """Dict from the names of inputs inside TensorFlow to those in the file."""
    names = {x.key: x.name for x in function.inputs}
    if stepper is not None:
        keys = [spec.name for spec in stepper.state_specs]
        names |= dict(zip(keys, stepper.state_names))
    return names


def _converted(function, quantize, calls, serve, stepper):
    module = tf.Module()
    module.kept = function.variables
    signatures = {"serve": serve}
    if stepper is not None:
        signatures["step"] = tf.function(
            stepper, autograph=False
        ).get_concrete_function(*stepper.specs, *stepper.state_specs)
    if function.states:
        signatures["reset"] = reset_function(function)
    with _files.scratch() as scratch:
        folder = scratch / "model"
        hint = " (for files needed meanwhile; TMPDIR names another folder)"
        save(module, folder, signatures, scratch, hint)
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
                function, calls, stepper
            )
            _mend_between(converter, function.model.name)
        # Else an infinite constant becomes the largest number.
        converter.canonicalizing_inf_as_min_max_float = False
        try:
            return converter.convert()
        except _kernels.UnboundedError:
            raise
        except Exception as error:
            raise _readable(
                function.model, signatures.values(), error
            ) from error


def _mend_between(converter, model_name):
    """Has a converter see to what LiteRT asks of full integers."""
    # Between the conversion and the calibration, and behind the calibration,
    # are the places to do so; no option of the converter leads there.
    quantize = converter._quantize

    def checked(content, *args, **kwargs):
        converter._experimental_calibrate_only = True
        calibrated = quantize(content, *args, **kwargs)
        converter._experimental_calibrate_only = False
        try:
            _kernels.check_calibrated(calibrated)
        except _kernels.UnboundedError as error:
            raise _kernels.UnboundedError(
                f"`{error}` of `{model_name}` is infinite, or no number, for "
                "some of representative_data, and full integers hold neither. "
                "Mask with a finite number such as -100, give data on which "
                'all is finite, or use quantize="int8".'
            ) from error
        return quantize(content, *args, **kwargs)

    converter._quantize = lambda content, *args, **kwargs: _kernels.quantized(
        content, lambda content: checked(content, *args, **kwargs)
    )


def _serve(function, batch_size, quantize, fused):
    full = quantize == "int8_full"
    loop = unrolled_loop if full else lite_loop
    # Full integers cannot hold the number that clears the state.
    more = {"more": _fused.fused(reset=not full)} if fused else {}
    fast = function.of_copy(lambda copied: lower(copied, loop, **more))
    specs = [x.spec((batch_size, *x.shape[1:])) for x in function.inputs]
    return tf.function(
        lambda *tensors: fast(tensors), autograph=False
    ).get_concrete_function(*specs)


def _dataset(function, calls, stepper):
    keys = [x.key for x in function.inputs]

    def whole():
        for inputs in calls:
            yield "serve", dict(zip(keys, inputs))
        if stepper is None:
            return
        step = tf.function(stepper, autograph=False)
        for inputs in calls:
            states = stepper.zeros(len(inputs[0]))
            for values in stepper.steps_of(inputs):
                specs = zip(stepper.state_specs, states.values())
                yield (
                    "step",
                    dict(zip(keys, values))
                    | {spec.name: np.asarray(state) for spec, state in specs},
                )
                result = step(*values, *states.values())
                states = {name: result[name] for name in states}

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
            f"`{model.name}` could not be converted: {_reason(text)} Other "
            "values of quantize and recurrent_op may do; else replace the "
            "layer. Nothing was written."
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


def _reason(text):
    """What a text of the converter says, without its places in the graph."""
    for line in text.split("\n"):
        if "error:" in line:
            # The places have parentheses in them, and end with one and a colon.
            line = line.split("error:")[-1].rsplit("): ", 1)[-1].strip()
            if line:
                return f"{line[:500].rstrip('.')}."
    if text.strip():
        return f"{text.strip()[:500]}"
    return "TensorFlow's quantizer failed; it printed why."


def _layers_with(model, functions, operations):
    names = {
        scope_name(layer.name): layer.name
        for layer in inner_layers(model, include_self=False)
    }
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
            found |= {names[x]: None for x in names if x in scopes}
    return list(found)


def _metadata(function, batch_size, quantize, fused, stepper):
    def shape(x):
        return [batch_size, *x.shape[1:]]

    return {
        "name": function.model.name,
        "keras_iss": __version__,
        "quantize": quantize,
        "recurrent_op": "fused" if fused else "loop",
        "inputs": {
            x.name: {"shape": shape(x), "dtype": x.dtype}
            for x in function.inputs
        },
        "outputs": function.output_shapes(batch_size),
        "states": {
            name: {"shape": x.shape.as_list(), "dtype": x.dtype.name}
            for name, x in (
                zip(stepper.state_names, stepper.state_specs) if stepper else ()
            )
        },
    }
