"""`keras-iss export`."""

import pathlib
from typing import Annotated, Any

import typer

from keras_iss.cli import output
from keras_iss.cli.arguments import (
    DataSource,
    Imports,
    Json,
    Loading,
    Model,
    Samples,
    Unsafe,
    tolerances,
)
from keras_iss.cli.library import library

QUANTIZE = ("float16", "int8", "int8_full", "int16x8")
FULL_INTEGERS = ("int8_full", "int16x8")
# What calibrates integers; more samples take longer and change little.
REPRESENTATIVE = 300


def export(
    model: Model,
    target: Annotated[
        pathlib.Path,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="What to write: a .tflite or .onnx file, or a folder for a "
            "SavedModel.",
            show_default=False,
        ),
    ],
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="float16, int8 (weights), int8_full (activations too) or "
            "int16x8 (activations in 16 bits); the last two need --data. Of a "
            ".tflite file.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            min=0,
            help="Samples in a call of a .tflite file; 0 leaves it open.",
        ),
    ] = 1,
    recurrent_op: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="loop, or fused for one operation for a whole LSTM. Of a "
            ".tflite file.",
        ),
    ] = "loop",
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="Add a signature `step` for one time step. Of a .tflite file.",
        ),
    ] = False,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --streaming: time steps in a call of `step`; 1 where "
            "it is left out.",
            show_default=False,
        ),
    ] = None,
    step_only: Annotated[
        bool,
        typer.Option(
            "--step-only",
            help="With --streaming: leave out the signature `serve`.",
        ),
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="KIND",
            help="litert, or micro for TensorFlow Lite Micro: full integers "
            "(int8_full, or int16x8), which need --data. Of a .tflite file.",
        ),
    ] = "litert",
    verify: Annotated[
        bool,
        typer.Option(help="Run what was written beside the model first."),
    ] = True,
    data: DataSource = None,
    samples: Samples = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=X",
            help="Write the file only if this metric, such as accuracy, is at "
            "most X worse than the model's on --data, which needs targets. May "
            "be given several times. Of a .tflite file.",
            show_default=False,
        ),
    ] = None,
    imports: Imports = None,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Write a model as TFLite, ONNX or SavedModel, checked against it.

    With --data, it is checked on those instead of on random numbers.
    """
    suffix = target.suffix.lower()
    lite, onnx = suffix == ".tflite", suffix == ".onnx"
    _check(target, lite, onnx, quantize, recurrent_op, streaming, data)
    if not streaming and (frames or step_only):
        raise typer.BadParameter(
            "--frames and --step-only are of a stream: add --streaming."
        )
    _check_runtime(runtime, lite, quantize, data)
    allowed = tolerances(tolerance)
    if allowed and not lite:
        raise typer.BadParameter("--tolerance is of a .tflite file.")
    keras_iss = library()
    from keras_iss.cli.data import read_data
    from keras_iss.cli.loading import load_model
    from keras_iss.runtimes.keras_runner import KerasRunner

    loaded = load_model(model, Loading(imports or (), unsafe))
    found = read_data(data, samples)
    if found is not None:
        found = found.fitting(KerasRunner(loaded).inputs)
    inputs = found and found.inputs
    if allowed and (found is None or found.targets is None):
        raise typer.BadParameter(
            "--tolerance compares metrics: add --data with targets."
        )
    if lite:
        full = quantize in FULL_INTEGERS or runtime == "micro"
        done = keras_iss.export_tflite(
            loaded,
            target,
            batch_size=batch_size or None,
            quantize=quantize,
            representative_data=found.first(REPRESENTATIVE).inputs
            if full and found is not None
            else None,
            recurrent_op=recurrent_op,
            streaming=(frames or True) if streaming else False,
            step_only=step_only,
            verify=verify,
            data=inputs,
            target=runtime,
            evaluation_data=found.both if allowed and found else None,
            tolerance=allowed,
        )
    elif onnx:
        done = keras_iss.export_onnx(loaded, target, verify=verify, data=inputs)
    else:
        done = keras_iss.export_saved_model(
            loaded, target, verify=verify, data=inputs
        )
    if json:
        output.show_json({"model": model, **output.plain(done)})
    else:
        _show(done, target)


def _check(target, lite, onnx, quantize, recurrent_op, streaming, data):
    if target.suffix and not lite and not onnx:
        raise typer.BadParameter(
            f"`{target}` is neither a .tflite file nor an .onnx file, nor a "
            "folder, whose name has no ending.",
            param_hint="'--output'",
        )
    if quantize is not None and quantize not in QUANTIZE:
        raise typer.BadParameter(
            f"{quantize!r} is none of {', '.join(QUANTIZE)}.",
            param_hint="'--quantize'",
        )
    if recurrent_op not in ("loop", "fused"):
        raise typer.BadParameter(
            f"{recurrent_op!r} is neither loop nor fused.",
            param_hint="'--recurrent-op'",
        )
    if not lite and (quantize or streaming or recurrent_op != "loop"):
        raise typer.BadParameter(
            "--quantize, --recurrent-op and --streaming are of a .tflite "
            f"file, and `{target}` is "
            + ("an .onnx file." if onnx else "a folder.")
        )
    if quantize in FULL_INTEGERS and data is None:
        raise typer.BadParameter(
            f"--quantize {quantize} learns the range of activations from "
            "samples: add --data."
        )


def _check_runtime(runtime, lite, quantize, data):
    if runtime not in ("litert", "micro"):
        raise typer.BadParameter(
            f"{runtime!r} is neither litert nor micro.",
            param_hint="'--target'",
        )
    if runtime == "litert":
        return
    if not lite or quantize not in (None, *FULL_INTEGERS):
        raise typer.BadParameter(
            "--target micro writes a .tflite file in full integers: give "
            "such a path, and leave --quantize out or give int16x8."
        )
    if data is None:
        raise typer.BadParameter(
            "--target micro learns the range of activations from samples: "
            "add --data."
        )


def _show(done: Any, target: pathlib.Path) -> None:
    console = output.console()
    console.print(
        f"Wrote {target}: {output.bytes_text(done.size)}", markup=False
    )
    for name, error in done.errors.items():
        console.print(
            f"Output {name}: {error:.2g} off the Keras model", markup=False
        )
    if done.evaluation is not None:
        for line in str(done.evaluation).splitlines()[1:]:
            console.print(f"On the data: {line}", markup=False)
    if not done.errors:
        console.print("It was not checked against the model.")
    if done.micro is not None:
        taken = "step after step" if done.micro.step else "whole sequences"
        console.print(f"For TensorFlow Lite Micro; takes {taken}.")
    if done.weights_in_float:
        console.print(
            f"In float32 stay: {', '.join(done.weights_in_float)}",
            markup=False,
        )
