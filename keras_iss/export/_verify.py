"""Whether a file computes what the Keras model computes."""

import keras
import numpy as np
import tensorflow as tf

from keras_iss.export import _streaming

TOLERANCE = {None: 1e-4, "float16": 1e-2, "int8": 0.5, "int8_full": 0.5}
# Below, at and above the lengths of the chunks of a loop.
LENGTHS = (5, 1, 8, 35)


class VerificationError(RuntimeError):
    """A file that computes something else than its model."""


def random_inputs(function, batch, length, seed=0):
    """Inputs for a model.

    Args:
        function: A `Callable`.
        batch: Size of the batch where it is dynamic.
        length: Size of every other dynamic axis.
        seed: Seed of the random numbers.

    Returns:
        List of arrays in the order of the inputs.
    """
    random = np.random.default_rng(seed)
    layers = list(function.model._flatten_layers())
    words = min(
        [x.input_dim for x in layers if isinstance(x, keras.layers.Embedding)],
        default=2,
    )
    masks = [
        x.mask_value for x in layers if isinstance(x, keras.layers.Masking)
    ]
    inputs = []
    for x in function.inputs:
        shape = [batch if x.shape[0] is None else x.shape[0]]
        shape += [length if size is None else size for size in x.shape[1:]]
        if x.dtype == "bool":
            value = random.random(shape) < 0.5
        elif x.dtype.startswith(("int", "uint")):
            value = random.integers(0, words, shape)
        else:
            value = random.standard_normal(shape)
            if masks and value.ndim > 2:
                value[random.random(shape[:2]) < 0.3] = masks[0]
        inputs.append(np.asarray(value, _numpy_dtype(x.dtype)))
    return inputs


def _numpy_dtype(name):
    return "float32" if name == "bfloat16" else name


def cases(function, batch):
    """Yields inputs of several lengths with the outputs of the model.

    Lengths that the model itself does not take are left out.
    """
    dynamic = any(None in x.shape[1:] for x in function.inputs)
    failure, worked = None, False
    for number, length in enumerate(LENGTHS if dynamic else LENGTHS[:1]):
        size = batch or number + 1
        inputs = random_inputs(function, size, length, seed=number)
        try:
            outputs = function.fresh(inputs)
        except Exception as error:
            failure = error
            continue
        worked = True
        yield inputs, outputs
    if not worked:
        raise VerificationError(
            f"`{function.model.name}` could not be called on random inputs "
            f"of any length in {LENGTHS}, so that the file cannot be "
            "verified. Give verify=False to write it unverified."
        ) from failure


def error_of(got, expected, relative):
    """Largest error, of the size of the outputs where that is above 1.

    Args:
        got: Array.
        expected: Array of the model's own output.
        relative: Whether to take the root mean square of the error over that
            of the output instead.
    """
    if got.shape != expected.shape:
        return np.inf
    if got.size == 0:
        return 0.0
    if not np.isfinite(expected.astype("float64")).all():
        return 0.0 if np.array_equal(got, expected, equal_nan=True) else np.inf
    difference = got.astype("float64") - expected.astype("float64")
    expected = expected.astype("float64")
    if relative:
        size = np.sqrt(np.mean(expected**2))
        return float(np.sqrt(np.mean(difference**2)) / max(size, 1e-6))
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(difference).max()) / scale


def verify_lite(path, function, batch, quantize, stepper):
    """Runs a TFLite file beside its model.

    Args:
        path: `pathlib.Path` of the file.
        function: The `Callable` of the model.
        batch: Size of the batch, or `None` where it is dynamic.
        quantize: As in `export_tflite`.
        stepper: The `Stepper` of the signature `step`, or `None`.

    Returns:
        Dict from the name of an output to its largest error.

    Raises:
        VerificationError: if an error is above `TOLERANCE`.
    """
    relative = quantize in ("int8", "int8_full")
    errors = dict.fromkeys(function.output_names, 0.0)
    for inputs, expected in cases(function, batch):
        interpreter = _interpreter(path)
        try:
            got = _run(interpreter, "serve", function.inputs, inputs)
        except RuntimeError as error:
            shapes = ", ".join(
                f"`{x.name}` {v.shape}" for x, v in zip(function.inputs, inputs)
            )
            raise VerificationError(
                f"LiteRT cannot run what `{function.model.name}` was "
                f"converted to, with inputs of the shapes {shapes}: {error} "
                "Where that depends on a length, fix it in the model's "
                "`keras.Input`. Nothing was written."
            ) from error
        for name, value in expected.items():
            error = error_of(got[name], value, relative)
            errors[name] = max(errors[name], error)
        if stepper is None:
            continue
        for name, error in _stepped(
            interpreter, function, stepper, inputs, expected, relative
        ).items():
            errors[name] = max(errors[name], error)
    for name, error in errors.items():
        if not error <= TOLERANCE[quantize]:
            kind = "relative error" if relative else "error"
            raise VerificationError(
                f"Output `{name}` of `{function.model.name}` differs by a "
                f"{kind} of "
                f"{error:.2g} in LiteRT; at most {TOLERANCE[quantize]} was "
                f"expected with quantize={quantize!r}. Nothing was written."
            )
    return errors


def verify_saved_model(folder, function):
    """Runs a SavedModel beside its model; see `verify_lite`."""
    half = any(
        layer.compute_dtype in ("float16", "bfloat16")
        for layer in function.model._flatten_layers()
    )
    tolerance = TOLERANCE["float16" if half else None]
    errors = dict.fromkeys(function.output_names, 0.0)
    for inputs, expected in cases(function, None):
        loaded = tf.saved_model.load(folder)
        got = loaded.serve(*[tf.constant(x) for x in inputs])
        for name, value in expected.items():
            error = error_of(np.asarray(got[name]), value, False)
            errors[name] = max(errors[name], error)
    for name, error in errors.items():
        if not error <= tolerance:
            raise VerificationError(
                f"Output `{name}` of `{function.model.name}` has an error of "
                f"{error:.2g} in the SavedModel; at most {tolerance} was "
                "expected. Nothing was written."
            )
    return errors


def _interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path), num_threads=2)


def _run(interpreter, signature, inputs, values):
    runner = interpreter.get_signature_runner(signature)
    known = runner.get_input_details()
    return runner(
        **{x.name: v for x, v in zip(inputs, values) if x.name in known}
    )


def _stepped(interpreter, function, stepper, inputs, expected, relative):
    runner = interpreter.get_signature_runner("step")
    known = runner.get_input_details()
    batch = inputs[0].shape[0]
    states = {
        spec.name: np.zeros([batch, *spec.shape[1:]], spec.dtype.as_numpy_dtype)
        for spec in stepper.state_specs
    }
    steps = max(x.shape[1] for x, timed in zip(inputs, stepper.timed) if timed)
    results = []
    for t in range(steps):
        values = stepper.step_of(inputs, t)
        named = {
            x.name: v
            for x, v in zip(function.inputs, values)
            if x.name in known
        }
        result = runner(**named, **states)
        states = {name: np.array(result[name]) for name in states}
        results.append({name: np.array(result[name]) for name in expected})
    errors = {}
    for name, value in expected.items():
        whole = _streaming.joined(
            value.shape, [result[name] for result in results]
        )
        errors[name] = error_of(whole, value, relative)
    return errors
