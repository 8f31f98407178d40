"""`keras-iss compare`."""

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
    Samples,
    Threads,
    Unsafe,
)
from keras_iss.cli.library import library

_FILE = "A .keras, .tflite or .onnx file, or the folder of a SavedModel."


def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help=_FILE, show_default=False)
    ],
    b: Annotated[
        str, typer.Argument(metavar="B", help=_FILE, show_default=False)
    ],
    data: DataSource = None,
    samples: Samples = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="A metric of Keras, such as accuracy. May be given several "
            "times. Defaults to those that the Keras model was compiled with.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="End with exit code 1 if an output differs by more.",
            show_default=False,
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option(help="Measure how long a call takes.")
    ] = True,
    batch_size: BatchSize = None,
    length: Length = None,
    threads: Threads = None,
    imports: Imports = None,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Compare any two models: outputs, metrics, sizes, latencies.

    Without --data, the outputs are of random numbers, and there are no
    metrics.
    """
    keras_iss = library()
    from keras_iss.cli.data import read_data
    from keras_iss.cli.loading import loader_of
    from keras_iss.runtimes.runners import runner_of

    load = loader_of(Loading(imports or (), unsafe))
    first = runner_of(a, threads, load)
    found = read_data(data, samples)
    if found is not None:
        found = found.fitting(first.inputs)
    compared = keras_iss.compare(
        first,
        b,
        found and found.both,
        metrics=metric or None,
        latency=latency,
        batch_size=batch_size,
        length=length,
        threads=threads,
        load=load,
    )
    within = tolerance is None or compared.largest <= tolerance
    if json:
        output.show_json({**output.plain(compared), "within": within})
    else:
        _show(compared)
    if not within:
        raise ValueError(
            f"`{b}` is up to {compared.largest:.2g} off `{a}`, and --tolerance "
            f"{tolerance:g} was asked for."
        )


def _show(found: Any) -> None:
    console = output.console()
    a, b = found.a, found.b
    rows = output.table("", a.name, b.name, "")
    rows.add_row("format", a.format, b.format, "")
    if a.size and b.size:
        rows.add_row(
            "size",
            output.bytes_text(a.size),
            output.bytes_text(b.size),
            output.share_text(b.size, a.size),
        )
    if a.weights and b.weights:
        rows.add_row(
            "weights",
            output.number_text(a.weights),
            output.number_text(b.weights),
            output.share_text(b.weights, a.weights),
        )
    if a.latency and b.latency:
        rows.add_row(
            f"a call of {a.latency.batch_size}",
            output.milliseconds_text(a.latency.median),
            output.milliseconds_text(b.latency.median),
            f"{a.latency.median / b.latency.median:.3g} times as fast",
        )
    for name, value in a.metrics.items():
        rows.add_row(
            name,
            output.number_text(value),
            output.number_text(b.metrics[name]),
            f"{b.metrics[name] - value:+.2g}",
        )
    console.print(rows)
    what = "random" if found.random else "given"
    console.print(f"Outputs, on {found.samples} {what} samples:", markup=False)
    for name, x in found.outputs.items():
        same = (
            ""
            if x.same_class is None
            else f", the same class in {x.same_class:.1%}"
        )
        console.print(
            f"  {name}: at most {x.largest:.2g} apart, {x.relative:.2g} of "
            f"its size{same}",
            markup=False,
        )
