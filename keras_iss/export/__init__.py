"""Exports of Keras models, dense or shrunk: SavedModel and TFLite.

The package takes any Keras model and knows nothing of structures. TensorFlow
is imported only when something is exported.
"""

import importlib
import importlib.util

import keras


def export_tflite(
    model,
    path,
    *,
    batch_size=1,
    quantize=None,
    representative_data=None,
    recurrent_op="loop",
    streaming=False,
    verify=True,
    data=None,
):
    """Writes a model as a TFLite file that runs in a plain LiteRT.

    The file holds builtin operations only, no Flex and no custom ones. Its
    recurrent layers multiply their inputs for all time steps at once, and
    loop over the recurrent product alone. Layers in half precision compute
    in float32. Stateful layers begin with states of zeros, keep their states
    between calls, and are set to zero by the signature `reset`.

    Args:
        model: A built `keras.Model`, on any backend: on JAX and PyTorch it
            goes to a TensorFlow process through a `.keras` file.
        path: Where to write the file. One that is there is replaced, once
            the new one is complete.
        batch_size: Number of samples in a call. `None` leaves it open.
        quantize: `None` for float32; `"float16"` for weights in float16;
            `"int8"` for weights in int8 and activations quantized as they
            come ("dynamic range"); `"int8_full"` for weights and activations
            in int8, with a fixed number of time steps.
        representative_data: For `"int8_full"`: array of shape
            `(samples, ...)` like the model's input; for several inputs a
            list, or a dict by the names of the inputs.
        recurrent_op: `"loop"`, or `"fused"` for LiteRT's one operation for a
            whole LSTM layer, which delegates and microcontrollers know. It
            is for LSTM layers with tanh and sigmoid, without mask, initial
            state or returned state. Each call begins with states of zeros;
            with `"int8_full"` call the interpreter's
            `reset_all_variables()` before each sequence.
        streaming: Whether to add a signature `step` beside `serve`. It takes
            one time step and the states, and gives the outputs and the new
            states under the same names; a stream begins with zeros. With
            `recurrent_op="fused"` the file keeps the states itself, until
            `reset_all_variables()`.
        verify: Whether to run the file in LiteRT on random inputs beside the
            model before it is written: to 1e-4 in float32, 1e-2 in float16,
            0.5 of the size of the outputs in int8.

    Returns:
        An `Export` with the `path`, the `size` in bytes, the `operators` and
        the `errors` found.

    Raises:
        ValueError: if the model is not built, reads strings, holds NaN, or
            has a layer that the file cannot hold; the message names it.
        OSError: if the file cannot be written.
        RuntimeError: if the file computes something else than the model.

    Example:
    ```python
    model = keras.Sequential(
        [keras.Input((None, 8)), keras.layers.LSTM(16), keras.layers.Dense(2)]
    )
    keras_iss.export_tflite(model, "model.tflite", quantize="int8")
    ```
    """
    _check_representative(representative_data)
    return _export(
        "tflite",
        model,
        path,
        batch_size=batch_size,
        quantize=quantize,
        representative_data=representative_data,
        recurrent_op=recurrent_op,
        streaming=streaming,
        verify=verify,
        data=data,
    )


def export_saved_model(model, path, *, verify=True, data=None):
    """Writes a model as a SavedModel that serves without Keras.

    The number of samples is left open, and that of time steps where the
    model leaves it open. Recurrent layers multiply their inputs for all time
    steps at once. The signature is `serving_default`; a loaded model also has
    `serve`, which gives a dict of the outputs by name. Stateful layers begin
    with states of zeros, and have a signature `reset`.

    Args:
        model: A built `keras.Model`, on any backend.
        path: Folder to write. A SavedModel that is there is replaced, once
            the new one is complete.
        verify: Whether to run what was written on random inputs beside the
            model, to 1e-4 (1e-2 in half precision).

    Returns:
        An `Export` with the `path`, the `size` in bytes and the `errors`
        found.

    Raises:
        ValueError: if the model is not built, reads strings or holds NaN.
        OSError: if the folder cannot be written.
        RuntimeError: if the SavedModel computes something else.

    Example:
    ```python
    keras_iss.export_saved_model(model, "saved_model")
    loaded = tf.saved_model.load("saved_model")
    loaded.serve(x)
    ```
    """
    return _export("saved_model", model, path, verify=verify, data=data)


def _export(kind, model, path, **options):
    missing = [
        name
        for name in ("tensorflow", *(["ai_edge_litert"] * (kind == "tflite")))
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"An export needs {' and '.join(missing)}: "
            'pip install "keras-iss[export]".'
        )
    if keras.backend.backend() != "tensorflow":
        other = importlib.import_module("keras_iss.export._other_backend")
        return other.export(kind, model, path, options)
    module = importlib.import_module(f"keras_iss.export._{kind}")
    return module.export(model, path, **options)


def _check_representative(data):
    if callable(data):
        raise TypeError(
            "representative_data is a function; give the arrays themselves."
        )
