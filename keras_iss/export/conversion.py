"""TensorFlow's converter: from a lowered model to the bytes of a file.

The one place that sets what the converter keeps to itself.
"""

import gc
import re

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import mlir_quantize

from keras_iss._keras.layers import inner_layers
from keras_iss.export import files, int16_activations, kernels, states
from keras_iss.export.data import calls_of
from keras_iss.export.lowering import lower
from keras_iss.export.model import reset_function
from keras_iss.export.names import scope_name
from keras_iss.export.saving import save

# Bytes of weights from which on it is worth a search for what holds them.
_MUCH_MEMORY = 10_000_000


def serving_function(function, batch, target):
    """The signature `serve` of a file.

    Args:
        function: The `Callable` of the model.
        batch: Number of samples in a call, or `None`.
        target: The `Target` to lower the model for.

    Returns:
        A concrete function of the inputs in their order.
    """
    fast = function.of_copy(lambda copied: lower(copied, target))
    specs = [x.spec((batch, *x.shape[1:])) for x in function.inputs]
    return tf.function(
        lambda *tensors: fast(tensors), autograph=False
    ).get_concrete_function(*specs)


def converted(function, options, form, samples=None):
    """A file as TensorFlow's converter writes it.

    Args:
        function: The `Callable` of the model.
        options: The `Options`.
        form: The `Form`.
        samples: For full integers, a list of arrays, one for each input.

    Returns:
        Tuple of the bytes of the file, in int8 where it is to be in full
        integers, and of its constants before, as `constants_of` gives them,
        where its activations are to be in 16 bits.

    Raises:
        ValueError: that names the layer and what cannot be converted.
    """
    module = tf.Module()
    module.kept = function.variables
    constants = {}
    signatures = _signatures(function, form)
    with files.scratch() as scratch:
        folder = scratch / "model"
        hint = " (for files needed meanwhile; TMPDIR names another folder)"
        save(module, folder, signatures, scratch, hint)
        size = sum(x.shape.num_elements() * 4 for x in function.variables)
        converter = _converter(folder, signatures, options, size)
        if options.full_integers:
            calls = calls_of(samples, options.batch_size or 1)
            converter.representative_dataset = _dataset(function, calls, form)
            kept = constants if options.wide else None
            shared = form if options.micro and not form.whole else None
            _mend_between(converter, function.model.name, shared, kept)
        try:
            return converter.convert(), constants
        except kernels.UnboundedError:
            raise
        except Exception as error:
            raise _readable(
                function.model, signatures.values(), error
            ) from error


def _signatures(function, form):
    stepper = form.stepper
    signatures = {"serve": form.serve} if form.whole else {}
    if stepper is not None:
        signatures["step"] = tf.function(
            stepper, autograph=False
        ).get_concrete_function(*stepper.specs, *stepper.state_specs)
    if function.states and form.whole:
        signatures["reset"] = reset_function(function)
    return signatures


def _converter(folder, signatures, options, size):
    quantize = options.quantize
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=list(signatures)
    )
    # It is of no use from here on, and holds all the weights.
    converter._trackable_obj = None
    if size > _MUCH_MEMORY:
        gc.collect()
    # Constants beside the flatbuffer: fewer copies; what finishes the file
    # takes them in again.
    converter._experimental_use_buffer_offset = True
    converter.exclude_conversion_metadata = True
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        if options.full_integers
        else tf.lite.OpsSet.TFLITE_BUILTINS
    ]
    if options.micro:
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    # Else an infinite constant becomes the largest number.
    converter.canonicalizing_inf_as_min_max_float = False
    return converter


def _mend_between(converter, model_name, form, constants=None):
    """Has a converter see to what LiteRT asks of full integers.

    Args:
        converter: The converter.
        model_name: Name of the model.
        form: The `Form` of a file whose states have one range at both ends,
            else `None`.
        constants: Dict that takes what `constants_of` gives of the file
            before it is quantized, or `None`.
    """
    # Between the conversion and the calibration, and behind the calibration,
    # are the places to do so; no option of the converter leads there.
    quantize = converter._quantize

    def checked(content, *args, **kwargs):
        converter._experimental_calibrate_only = True
        calibrated = quantize(content, *args, **kwargs)
        converter._experimental_calibrate_only = False
        try:
            kernels.check_calibrated(calibrated)
        except kernels.UnboundedError as error:
            raise kernels.UnboundedError(
                f"`{error}` of `{model_name}` is infinite, or no number, for "
                "some of representative_data, and full integers hold neither. "
                "Mask with a finite number such as -100, give data on which "
                'all is finite, or use quantize="int8".'
            ) from error
        if form is None:
            return quantize(content, *args, **kwargs)
        # A state goes out of a step and into the next as it is.
        pairs = form.stepper.state_pairs()
        calibrated = states.with_shared_ranges(calibrated, pairs)
        return mlir_quantize(
            calibrated, input_data_type=tf.int8, output_data_type=tf.int8
        )

    def mended(content, *args, **kwargs):
        if constants is not None:
            constants.update(int16_activations.constants_of(content))
        return kernels.quantized(
            content, lambda content: checked(content, *args, **kwargs)
        )

    converter._quantize = mended


def _dataset(function, calls, form):
    stepper = form.stepper
    keys = [x.key for x in function.inputs]

    def whole():
        for inputs in calls if form.whole else ():
            yield "serve", dict(zip(keys, inputs))
        if stepper is None:
            return
        step = tf.function(stepper, autograph=False)
        for inputs in calls:
            now = stepper.zeros(len(inputs[0]))
            for values in stepper.steps_of(inputs):
                specs = zip(stepper.state_specs, now.values())
                yield (
                    "step",
                    dict(zip(keys, values))
                    | {spec.name: np.asarray(state) for spec, state in specs},
                )
                result = step(*values, *now.values())
                now = {name: result[name] for name in now}

    def single():
        for _, values in whole():
            yield values

    several = form.whole and stepper is not None
    return whole if several else single


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
