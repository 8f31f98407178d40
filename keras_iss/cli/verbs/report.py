"""`keras-iss report`."""

import pathlib
import shlex
import sys
from typing import Annotated

import typer

from keras_iss.cli import output
from keras_iss.cli.arguments import (
    DataSource,
    Imports,
    Include,
    Json,
    Loading,
    Model,
    Samples,
    Unsafe,
)
from keras_iss.cli.library import library


def report(
    model: Model,
    page: Annotated[
        pathlib.Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The page to write."
        ),
    ] = pathlib.Path("report.html"),
    before: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The .keras file of the model before it was made smaller.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="An exported file to measure and compare: .tflite, .onnx, or "
            "a SavedModel. May be given several times.",
            show_default=False,
        ),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="CSV",
            help="What keras.callbacks.CSVLogger wrote of the training.",
            show_default=False,
        ),
    ] = None,
    data: DataSource = None,
    samples: Samples = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="As of `compare`.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(
            help="Defaults to the name of the file.", show_default=False
        ),
    ] = None,
    include: Include = None,
    imports: Imports = None,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Write one HTML page of a model: sizes, cuts, norms, files, quality.

    The page opens offline, and asks for nothing from elsewhere. It has
    pictures where Plotly is installed (keras-iss[report]).
    """
    keras_iss = library()
    from keras_iss.cli.data import read_data
    from keras_iss.cli.loading import loader_of
    from keras_iss.runtimes.runners import runner_of

    load = loader_of(Loading(imports or (), unsafe))
    runner = runner_of(model, load=load)
    found = read_data(data, samples)
    if found is not None:
        found = found.fitting(runner.inputs)
    made = keras_iss.report(
        runner,
        page,
        before=before,
        history=history,
        files=file or (),
        data=found and found.both,
        metrics=metric or None,
        title=title,
        command=shlex.join(["keras-iss", *sys.argv[1:]]),
        include=tuple(include or ("recurrent",)),
        load=load,
    )
    if json:
        output.show_json({"page": page, **output.plain(made)})
    else:
        size = output.bytes_text(page.stat().st_size)
        output.console().print(f"Wrote {page}: {size}", markup=False)
