"""`keras-iss inspect`."""

from typing import Annotated, Any

import typer

from keras_iss.cli import output
from keras_iss.cli.arguments import (
    DataSource,
    Imports,
    Include,
    Json,
    Length,
    Loading,
    Model,
    Unsafe,
    number,
)
from keras_iss.cli.library import library


def inspect(
    model: Model,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="N",
            help="A cut to look at, as `shrink` takes it. May be given "
            "several times. Defaults to 0.5 and 0.25.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(help="Build the smaller models, and take their time."),
    ] = True,
    data: DataSource = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples in a call that is measured.")
    ] = 1,
    length: Length = None,
    include: Include = None,
    imports: Imports = None,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Show what a model is made of, and what a cut would save.

    Lists the structures, and why some are pinned; then weights,
    multiply-adds, bytes and measured milliseconds of smaller models. The
    model is not changed.
    """
    shares = [number(text, "--weights") for text in weights or ()]
    library()
    from keras_iss.cli.data import read_data
    from keras_iss.cli.loading import load_model
    from keras_iss.inspection import SHARES, inspect_model
    from keras_iss.runtimes.keras_runner import KerasRunner

    loaded = load_model(model, Loading(imports or (), unsafe))
    samples = read_data(data)
    if samples is not None:
        samples = samples.fitting(KerasRunner(loaded).inputs)
    found = inspect_model(
        loaded,
        shares or SHARES,
        measure=measure,
        data=samples and samples.inputs,
        batch_size=batch_size,
        length=length,
        include=tuple(include or ("recurrent",)),
    )
    if json:
        output.show_json({"file": model, **output.plain(found)})
    else:
        _show(found)


def _show(found: Any) -> None:
    console = output.console()
    structures = output.table(
        "structure", "size", "alive", "weights of a unit", "consumers"
    )
    structures.columns[-1].justify = "left"
    for x in found.structures:
        structures.add_row(
            " = ".join(x.layers),
            f"{x.size}",
            f"{x.alive}",
            output.number_text(x.weights_per_unit),
            ", ".join(x.consumers),
        )
    console.print(structures)
    for x in found.structures:
        if x.pinned:
            console.print(f"{x.name} is pinned: {x.pinned}", markup=False)
    console.print()
    now = found.cuts[0]
    cuts = output.table(
        "cut", "sizes", "weights", "", "mult-adds", "", "in memory", "a call"
    )
    for x in found.cuts:
        if x.problem:
            continue
        cuts.add_row(
            x.target,
            ", ".join(f"{size}" for size in x.sizes.values()),
            output.number_text(x.weights),
            output.share_text(x.weights, now.weights),
            output.number_text(x.mult_adds),
            output.share_text(x.mult_adds, now.mult_adds),
            output.bytes_text(x.bytes),
            output.milliseconds_text(x.milliseconds),
        )
    console.print(cuts)
    for x in found.cuts:
        if x.problem:
            console.print(f"{x.target} cannot be: {x.problem}", markup=False)
    if found.shapes:
        shapes = ", ".join(
            f"{name} of shape {shape}" for name, shape in found.shapes.items()
        )
        console.print(
            f"A call is one of the Keras model with {shapes}: the median of "
            "30, in turns.",
            markup=False,
        )
