"""`keras-iss benchmark`."""

from typing import Annotated, Any

import typer

from keras_iss.cli import output
from keras_iss.cli.arguments import (
    BatchSize,
    DataSource,
    Imports,
    Json,
    Length,
    Loading,
    Threads,
    Unsafe,
)
from keras_iss.cli.library import library


def benchmark(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A .keras, .tflite or .onnx file, or the folder of a "
            "SavedModel.",
            show_default=False,
        ),
    ],
    data: DataSource = None,
    batch_size: BatchSize = None,
    length: Length = None,
    runs: Annotated[int, typer.Option(min=1, help="Calls to measure.")] = 50,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="After which no call is made.")
    ] = 5.0,
    threads: Threads = None,
    imports: Imports = None,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Measure how long a model takes for a call, on this machine."""
    keras_iss = library()
    from keras_iss.cli.data import read_data
    from keras_iss.cli.loading import loader_of
    from keras_iss.runtimes.runners import runner_of

    model = runner_of(file, threads, loader_of(Loading(imports or (), unsafe)))
    found = read_data(data)
    if found is not None:
        found = found.fitting(model.inputs)
    measured = keras_iss.benchmark(
        model,
        found and found.inputs,
        batch_size=batch_size,
        length=length,
        runs=runs,
        seconds=seconds,
    )
    if json:
        output.show_json({"file": file, **output.plain(measured)})
    else:
        _show(measured)


def _show(found: Any) -> None:
    console = output.console()
    latency = found.latency
    rows = output.table(found.name, "")
    rows.add_row("format", found.format)
    rows.add_row("size", output.bytes_text(found.size))
    if found.weights is not None:
        rows.add_row("weights", output.number_text(found.weights))
    for name, shape in found.shapes.items():
        rows.add_row(name, " x ".join(map(str, shape)))
    rows.add_row("median", output.milliseconds_text(latency.median))
    rows.add_row(
        "80 % of the calls",
        f"{latency.p10:.3g} to {output.milliseconds_text(latency.p90)}",
    )
    rows.add_row("calls", f"{latency.runs}")
    console.print(rows)
