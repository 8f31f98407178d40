"""A Keras model as a TFLite file of builtin operations only."""

import dataclasses
import functools

from keras_iss.export import (
    accuracy,
    files,
    flatbuffer,
    int8_weights,
    int16_activations,
    kernels,
    micro,
    paths,
    states,
    tflm,
)
from keras_iss.export.checks import (
    check,
    check_batch_size,
    check_not_quantized,
    check_precision,
)
from keras_iss.export.conversion import converted
from keras_iss.export.data import checked
from keras_iss.export.domain import vocabulary_sizes
from keras_iss.export.form import form_of, recurrent_layers
from keras_iss.export.fused_lstm import plain_errors
from keras_iss.export.model import (
    assigned,
    compute_in_float32,
    isolated,
    with_inputs,
)
from keras_iss.export.result import Export
from keras_iss.export.trials import Reference, Trials
from keras_iss.export.verify import verify_lite
from keras_iss.export.weights import computed_in_float, weights
from keras_iss.version import __version__

# What stays in float32 is spoken of from this part of a file on.
_SMALL_PART = 0.1
_FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def export(model, path, options):
    """See `keras_iss.export_tflite`.

    Args:
        model: `keras.Model`.
        path: Where to write the file.
        options: The `Options`.
    """
    path = paths.target(path)
    check(model, options.input_signature)
    check_not_quantized(model)
    check_precision(model)
    copied = isolated(model)
    compute_in_float32(copied)
    with plain_errors():
        function = with_inputs(copied, options.input_signature)
        return _exported(function, path, options, model)


def _exported(function, path, options, model):
    check_batch_size(function, options.batch_size)
    samples = _samples(function, options)
    data, what = _data(function, options, samples)
    form = form_of(function, options)
    graph = form.serve.graph
    reference = Reference(function.model, assigned(function.model, graph))
    if form.stepper is not None:
        samples, data = _whole_steps(form.stepper, samples, data, what)
    trials = Trials(
        reference,
        options.batch_size,
        functools.partial(vocabulary_sizes, graph),
        data,
        what,
        form.stepper.frames if form.stepper is not None else 1,
    )
    if form.stepper is not None:
        form.stepper.check(trials)
    content, constants = converted(function, options, form, samples)
    _check_builtin(function, content)
    metadata = _metadata(function, options, form)
    content, held = _finished(
        content, function, options, metadata, form.stepper, samples, constants
    )
    # It is not needed, and may be large.
    del constants
    notes = _notes_on_float(function.model.name, options, held, len(content))
    notes += form.notes
    unrolled = options.full_integers and not options.fused
    if unrolled and not options.micro:
        notes += _notes_on_size(function, options, len(content), metadata)
    operators = flatbuffer.operators(content)
    size, errors, device, evaluation = len(content), {}, None, None
    if options.micro:
        device = tflm.described(content)
    in_litert = not (options.wide and _FUSED in operators)
    if options.verify and not in_litert:
        micro.check_can_run(function.model.name)
    with files.written(path, content) as file:
        # What follows needs the memory.
        del content
        if options.verify and in_litert:
            errors = verify_lite(file, trials, function, options, form)
        if options.micro:
            device, found = micro.measured(
                file, device, function, options, form, trials
            )
            errors = errors or found
        if options.tolerance is not None:
            evaluation = accuracy.checked(
                file, path, model, function.output_names, options
            )
    return Export(
        path,
        size,
        operators,
        errors,
        notes=tuple(notes),
        weights=tuple(held),
        micro=device,
        evaluation=evaluation,
    )


def _samples(function, options):
    """What full integers are calibrated on, as a list of arrays, or `None`."""
    if not options.full_integers:
        return None
    samples = checked(
        function.inputs,
        function.model.name,
        options.representative_data,
        options.batch_size,
        "representative_data",
        finite=True,
    )
    if not options.fused and not options.micro and not options.step_only:
        _check_fixed(function, options)
    return samples


def _data(function, options, samples):
    """What to verify on, or `None`, and what messages call it."""
    if options.data is None:
        what = "the samples of `representative_data`"
        return samples, None if samples is None else what
    data = checked(
        function.inputs,
        function.model.name,
        options.data,
        options.batch_size,
        "data",
        finite=False,
    )
    return data, "the samples of `data`"


def _whole_steps(stepper, samples, data, what):
    """The same without time steps at the end that fill no step."""
    if samples is not None:
        samples = stepper.whole_steps(samples, "representative_data")
    if data is not None:
        data = stepper.whole_steps(data, what.split("`")[1])
    return samples, data


def _check_builtin(function, content):
    foreign = flatbuffer.foreign(content)
    if foreign:
        raise ValueError(
            f"`{function.model.name}` would need {', '.join(foreign)}, which "
            "a plain LiteRT does not run. Replace the layer that uses it."
        )


def _finished(
    content,
    function,
    options,
    metadata,
    stepper=None,
    samples=(),
    constants=None,
):
    """The converter's file as it is to be.

    Returns:
        Tuple of its bytes, and the list of its weights, as `Weight`.
    """
    size, name = len(content), function.model.name
    model = flatbuffer.loaded(content)
    kernels.remove_cell_clip(model)
    kernels.separate_states(model)
    if options.quantize == "int8":
        int8_weights.quantize(model)
    if options.full_integers:
        kernels.mend_scales(model)
        kernels.split_integers(model)
        _check_ranges(function, model, samples)
        if stepper is not None and options.micro:
            states.requantize(model, stepper.state_pairs())
        _check_computed(name, options, model)
    if options.wide:
        int16_activations.widen(model, constants)
    held = weights(model, options.integers)
    _check_integers(name, options, held)
    flatbuffer.rename_inputs(model, _names(function, stepper))
    flatbuffer.share_equal_buffers(model)
    flatbuffer.add_metadata(
        model, f"{name}, exported by keras-iss {__version__}", metadata
    )
    return flatbuffer.packed(model, size), held


def _names(function, stepper):
    """Dict from the names of inputs inside TensorFlow to those in the file."""
    names = {x.key: x.name for x in function.inputs}
    if stepper is not None:
        keys = [spec.name for spec in stepper.state_specs]
        names |= dict(zip(keys, stepper.state_names))
    return names


def _check_computed(name, options, model):
    """Raises an error if a file in full integers computes in float."""
    for tensor, operation in computed_in_float(model).items():
        raise ValueError(
            f"`{name}` needs {operation} for `{tensor}`, which LiteRT has in "
            f'float only, and quantize="{options.quantize}" is for hardware '
            'without floats. Replace the layer, or use quantize="int8". '
            "Nothing was written."
        )


def _check_integers(name, options, held):
    """Raises an error if no weights are in int8 that were to be."""
    left = [x for x in held if x.reason]
    if left and len(left) == len(held):
        raise ValueError(
            f'quantize="{options.quantize}" can put no weights of `{name}` '
            f"into int8: {_operations_of(left)}, which LiteRT reads in float "
            'only. quantize="float16" halves them. Nothing was written.'
        )


def _notes_on_float(name, options, held, size):
    """What to say if a large part of the weights is not in int8."""
    left = [x for x in held if x.reason]
    if options.integers and not held:
        return [
            f'quantize="{options.quantize}" finds no weights in `{name}`: '
            "there is nothing to put into int8."
        ]
    share = sum(x.size for x in left) / size
    if share < _SMALL_PART:
        return []
    return [
        f'quantize="{options.quantize}" leaves {share:.0%} of the file of '
        f"`{name}` in float32: {_operations_of(left)}, which "
        "LiteRT reads in int8 nowhere. `weights_in_float` of the Export names "
        "them; "
        'quantize="float16" halves them, too.'
    ]


def _operations_of(held):
    operations = ", ".join(sorted({x.operation for x in held}))
    return f"they are weights of the operations {operations}"


def _check_ranges(function, model, samples):
    empty = kernels.without_range(model)
    if not empty:
        return
    zeros = [
        x.name for x, array in zip(function.inputs, samples) if not array.any()
    ]
    place = " and ".join(f"`{name}`" for name in zeros or empty[:1])
    raise ValueError(
        f"representative_data shows nothing but zeros at {place} of "
        f"`{function.model.name}`, which a fused layer reads, and full "
        "integers need a range of values: LiteRT would crash. Give samples in "
        'which every input is at work, or use quantize="int8", which needs '
        "none."
    )


def _notes_on_size(function, options, size, metadata):
    """What to say if the time steps make a file several times larger."""
    least = sum(x.shape.num_elements() * 4 for x in function.variables)
    if not recurrent_layers(function.model) or size < least:
        return []
    quantize = options.quantize
    options = dataclasses.replace(
        options, quantize=None, representative_data=None
    )
    plain, _ = converted(function, options, form_of(function, options))
    plain = len(_finished(plain, function, options, metadata)[0])
    if size < 2 * plain:
        return []
    one_operation = (
        'target="micro" has a file of one time step; '
        if quantize == "int16x8"
        else 'recurrent_op="fused" has one operation for an LSTM layer; '
    )
    return [
        f'quantize="{quantize}" writes {size:,} bytes for '
        f"`{function.model.name}`, and quantize=None {plain:,}: LiteRT has no "
        "loop in full integers, so that every time step has operations of its "
        f"own. {one_operation}"
        'quantize="int8" has a loop; fewer time steps make a smaller file.'
    ]


def _check_fixed(function, options):
    """Full integers have no loops: time must be fixed to be unrolled."""
    recurrent = recurrent_layers(function.model)
    if not recurrent:
        return
    for x in function.inputs:
        if None in x.shape[1:]:
            raise ValueError(
                f'quantize="{options.quantize}" cannot serve '
                f"`{recurrent[0].name}` "
                f"with a number of time steps left open (input `{x.name}` "
                f"has the shape {x.shape}): LiteRT has no loop in full "
                "integers, so that the steps are unrolled. Give the model an "
                'Input with a fixed number, or use quantize="int8".'
            )


def _metadata(function, options, form):
    stepper = form.stepper

    def shape(x):
        return [options.batch_size, *x.shape[1:]]

    return {
        "name": function.model.name,
        "keras_iss": __version__,
        "quantize": options.quantize,
        "recurrent_op": options.recurrent_op,
        "target": options.target,
        "keeps_state": form.keeps_state,
        "inputs": {
            x.name: {"shape": shape(x), "dtype": x.dtype}
            for x in function.inputs
        },
        "outputs": function.output_shapes(options.batch_size),
        "step": stepper
        and {
            "frames": stepper.frames,
            "inputs": [
                x.name
                for x, timed in zip(function.inputs, stepper.timed)
                if timed
            ],
            "outputs": stepper.outputs_over_time(),
        },
        "states": {
            name: {"shape": x.shape.as_list(), "dtype": x.dtype.name}
            for name, x in (
                zip(stepper.state_names, stepper.state_specs) if stepper else ()
            )
        },
    }
