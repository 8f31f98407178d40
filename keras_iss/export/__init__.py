"""Exports of Keras models, dense or shrunk: TFLite, SavedModel and ONNX.

The package takes any Keras model and knows nothing of structures. TensorFlow
and ONNX are imported only when something is exported to them.
"""

import collections.abc
import importlib.util
import os
import typing
import warnings

import keras

from keras_iss.export.c_sources import write_c_sources as write_c_sources
from keras_iss.export.onnx.registry import (
    register_onnx_lowering as register_onnx_lowering,
)
from keras_iss.export.options import (
    Data,
    Options,
    Quantize,
    RecurrentOp,
    Target,
)
from keras_iss.export.quiet import quiet
from keras_iss.export.registry import (
    register_cell_lowering as register_cell_lowering,
)
from keras_iss.export.registry import register_lowering as register_lowering
from keras_iss.export.result import Export


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    batch_size: int | None = 1,
    quantize: Quantize | None = None,
    representative_data: Data = None,
    recurrent_op: RecurrentOp = "loop",
    streaming: bool | int = False,
    step_only: bool = False,
    verify: bool = True,
    data: Data = None,
    target: Target = "litert",
    input_signature: typing.Any = None,
    evaluation_data: typing.Any = None,
    tolerance: collections.abc.Mapping[str, float] | None = None,
) -> Export:
    """Writes a model as a TFLite file that runs in a plain LiteRT.

    The file holds builtin operations only, no Flex and no custom ones. Its
    recurrent layers multiply their inputs for all time steps at once, and
    loop over the recurrent product alone. Layers in half precision compute
    in float32. Stateful layers begin with states of zeros, keep their states
    between calls, and are set to zero by the signature `reset`.

    The model itself is not changed, not even meanwhile: other threads may
    call it, or export it too.

    Args:
        model: A built `keras.Model`, on any backend: on JAX and PyTorch it
            goes to a TensorFlow process through a `.keras` file.
        path: Where to write the file, a `str` or `os.PathLike`. One that is
            there is replaced in one step, once the new one is complete, and
            its mode is kept; of a link, what it leads to is replaced.
        batch_size: Number of samples in a call. `None` leaves it open.
        quantize: `None` for float32; `"float16"` for weights in float16;
            `"int8"` for weights in int8 and activations quantized as they
            come ("dynamic range"); `"int8_full"` for weights and activations
            in int8, with a fixed number of time steps; `"int16x8"` for the
            same with activations in 16 bits, which lose a part of what int8
            loses, in buffers of twice the size.
        representative_data: For `"int8_full"` and `"int16x8"`: array of shape
            `(samples, ...)` like the model's input; for several inputs a
            list, or a dict by the names of the inputs.
        recurrent_op: `"loop"`, or `"fused"` for LiteRT's one operation for a
            whole LSTM layer, which delegates and microcontrollers know. It
            is for LSTM layers with tanh and sigmoid, without mask, initial
            state or returned state. Each call begins with states of zeros;
            with `"int8_full"` call the interpreter's
            `reset_all_variables()` before each sequence. LiteRT's has no
            activations in 16 bits; that of TensorFlow Lite Micro has.
        streaming: Whether to add a signature `step` beside `serve`. It takes
            one time step, or so many as an integer says, and the states, and
            gives the outputs and the new states under the same names; a
            stream begins with zeros. The states are those of recurrent
            layers, and the last inputs of causal convolutions and of zero
            padding before the sequence. With `recurrent_op="fused"` the file
            keeps those of LSTM layers itself, until
            `reset_all_variables()`. Where strides make one time step of
            several, the integer is a multiple of them.
        step_only: Whether to leave out the signature `serve`, for a smaller
            file.
        verify: Whether to run the file in LiteRT beside the model before it
            takes its place: to 1e-4 in float32, 1e-2 in float16, 0.5 of the
            size of the outputs in int8, 0.1 of it in `"int16x8"`. NaN and
            infinity must be where the model gives them.
        data: What to verify on, in the form of `representative_data`.
            Without it, that is taken where it is given, else random numbers:
            integers within the tables that they are looked up in, and
            positive numbers where the model gives no finite outputs on
            normal ones.
        target: `"litert"`, or `"micro"` for TensorFlow Lite Micro: a file in
            full integers, inputs and outputs too, with one graph:
            `"int8_full"` by default, or `"int16x8"`. LSTM layers
            are the fused operation, and the file takes whole sequences, where
            all recurrent layers can be that and the number of time steps is
            fixed. Else, and with `streaming`, it takes a step: GRU,
            SimpleRNN and other layers have their states as inputs and outputs
            of the same names, scales and zero points, and fused LSTM layers
            keep them. The program resets the interpreter before each
            sequence where `micro.keeps_state` of the `Export` says so. With
            `tflite-micro` installed (`pip install "keras-iss[devices]"`), the
            file also runs in that interpreter, which gives `micro.arena`;
            fused LSTM layers in 16 bits are verified there alone.
        input_signature: What a subclassed model reads, where Keras knows
            only that it was called: a `keras.InputSpec`, `keras.KerasTensor`
            or `tf.TensorSpec` with shape and dtype, or a list or dict of such
            as `call` takes them. For a `call` with several arguments, a dict
            by their names. Without it, inputs have the shapes that the model
            was built with, and its dtype.
        evaluation_data: With `tolerance`: a tuple `(x, y)` of some hundred
            samples and their targets, in the forms that `keras_iss.evaluate`
            takes.
        tolerance: Dict from the name of a metric to how much worse than the
            model's that of the file may be on `evaluation_data`, such as
            `{"accuracy": 0.01}`; of several outputs, with the name of the
            output and `_` before it. The file takes its place only then.

    Returns:
        An `Export` with the `path`, the `size` in bytes, the `operators`,
        the `errors` found, the `weights` with their types, the `notes`, and
        the `evaluation` on `evaluation_data`.

    Raises:
        TypeError: if an argument is of a wrong type, or `model` is no
            `keras.Model`.
        ValueError: if the model is not built, reads strings, holds NaN, was
            quantized by Keras, or has a layer that the file cannot hold; the
            message names it.
        OSError: if the file cannot be written.
        ImportError: if what converts or verifies the file is not installed.
        RuntimeError: if the file computes something else than the model, or
            loses more than `tolerance` allows.

    Example:
    ```python
    model = keras.Sequential(
        [keras.Input((None, 8)), keras.layers.LSTM(16), keras.layers.Dense(2)]
    )
    keras_iss.export_tflite(model, "model.tflite", quantize="int8")
    ```
    """
    options = Options(
        batch_size=batch_size,
        quantize=quantize,
        representative_data=representative_data,
        recurrent_op=recurrent_op,
        streaming=streaming,
        step_only=step_only,
        verify=verify,
        data=data,
        target=target,
        input_signature=input_signature,
        evaluation_data=evaluation_data,
        tolerance=tolerance,
    )
    _check_installed("tensorflow", "ai_edge_litert")
    if keras.backend.backend() == "tensorflow":
        with quiet():
            from keras_iss.export import tflite

            done = tflite.export(model, path, options)
    else:
        from keras_iss.export import other_backend

        done = other_backend.export_tflite(model, path, options)
    for note in done.notes:
        warnings.warn(note, stacklevel=2)
    return done


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    verify: bool = True,
    data: Data = None,
    input_signature: typing.Any = None,
) -> Export:
    """Writes a model as a SavedModel that serves without Keras.

    The number of samples is left open, and that of time steps where the
    model leaves it open. Recurrent layers multiply their inputs for all time
    steps at once. The signature is `serving_default`; a loaded model also has
    `serve`, which gives a dict of the outputs by name. Stateful layers begin
    with states of zeros, and have a signature `reset`.

    The model itself is not changed, not even meanwhile: other threads may
    call it, or export it too.

    Args:
        model: A built `keras.Model`, on any backend.
        path: Folder to write, a `str` or `os.PathLike`. A SavedModel that is
            there is replaced, once the new one is complete: in one step on
            Linux, elsewhere in two, between which the old one is called
            `NAME.keras-iss-old`. What else lies in its folder stays, modes
            are kept, and of a link, what it leads to is replaced.
        verify: Whether to run what was written beside the model before it
            takes its place, to 1e-4 (1e-2 in half precision). NaN and
            infinity must be where the model gives them.
        data: What to verify on: array of shape `(samples, ...)` like the
            model's input; for several inputs a list, or a dict by the names
            of the inputs. Without it, random numbers, see `export_tflite`.
        input_signature: As in `export_tflite`.

    Returns:
        An `Export` with the `path`, the `size` in bytes and the `errors`
        found.

    Raises:
        TypeError: if an argument is of a wrong type, or `model` is no
            `keras.Model`.
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
    options = Options(verify=verify, data=data, input_signature=input_signature)
    _check_installed("tensorflow")
    if keras.backend.backend() == "tensorflow":
        with quiet():
            from keras_iss.export import saved_model

            return saved_model.export(model, path, options)
    from keras_iss.export import other_backend

    return other_backend.export_saved_model(model, path, options)


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    verify: bool = True,
    data: Data = None,
    opset: int = 18,
) -> Export:
    """Writes a model as an ONNX file, with real recurrent operators.

    LSTM, GRU and SimpleRNN layers become ONNX's operators `LSTM`, `GRU` and
    `RNN`, and a Bidirectional of two alike one of them, in both directions;
    with a mask, too, wherever it is. What none of them computes, such as a
    cell of your own, becomes a `Scan`. The number of samples is left open,
    and that of time steps where the model leaves it open. Layers in half
    precision compute in float32.

    It needs neither TensorFlow nor another converter (`pip install
    "keras-iss[onnx]"`). A layer is written by an entry in a table, which
    `keras_iss.export.register_onnx_lowering` adds to, or by following its
    `call`. What neither can write is refused.

    The model itself is not changed, not even meanwhile: other threads may
    call it, or export it too.

    Args:
        model: A built `keras.Model`, on any backend.
        path: Where to write the file, a `str` or `os.PathLike`. One that is
            there is replaced in one step, once the new one is complete, and
            its mode is kept; of a link, what it leads to is replaced.
        verify: Whether to run the file in ONNX Runtime beside the model
            before it takes its place, to 1e-4. NaN and infinity must be where
            the model gives them.
        data: What to verify on: array of shape `(samples, ...)` like the
            model's input; for several inputs a list, or a dict by the names
            of the inputs. Without it, random numbers, see `export_tflite`.
        opset: Version of ONNX's operators, from 18 to the newest of the
            installed `onnx`. An older one runs in older runtimes.

    Returns:
        An `Export` with the `path`, the `size` in bytes, the `operators`, the
        `errors` found, and the `weights`.

    Raises:
        TypeError: if an argument is of a wrong type, or `model` is no
            `keras.Model`.
        ValueError: if the model is not built, reads strings, holds NaN, was
            quantized by Keras, or has a layer that cannot be written: a
            stateful one, one that computes in float64, or one whose `call`
            cannot be followed; the message names it.
        OSError: if the file cannot be written.
        RuntimeError: if the file computes something else than the model.

    Example:
    ```python
    keras_iss.export_onnx(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx")
    (y,) = session.run(None, {"x": x})
    ```
    """
    options = Options(verify=verify, data=data)
    _check_installed("onnx", "onnxruntime", extra="onnx")
    from keras_iss.export.onnx import export as onnx_export

    return onnx_export.export(model, path, options, opset)


def _check_installed(*names, extra="export"):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"An export needs {' and '.join(missing)}: "
            f'pip install "keras-iss[{extra}]".'
        )
