"""`keras-iss measure`."""

import pathlib
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
    Samples,
    Unsafe,
)
from keras_iss.cli.library import library
from keras_iss.cli.verbs.export import (
    FULL_INTEGERS,
    QUANTIZE,
    REPRESENTATIVE,
)


def measure(
    model: Model,
    costs: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The .json file to write, for `shrink --costs`.",
            show_default=False,
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="As of `export`. int8_full and int16x8 need --data.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples in a call.")
    ] = 1,
    recurrent_op: Annotated[
        str, typer.Option(metavar="KIND", help="As of `export`.")
    ] = "loop",
    length: Length = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of LiteRT.")] = 1,
    probes: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="How many files are measured. Defaults to 8, and 4 more for "
            "each structure.",
            show_default=False,
        ),
    ] = None,
    round_to: Annotated[
        int,
        typer.Option(
            min=1, help="Sizes that are measured are multiples of it."
        ),
    ] = 4,
    files: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Only write the files that are to be measured, for another "
            "device.",
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        list[pathlib.Path] | None,
        typer.Option(
            metavar="FILE",
            help="What benchmark_model printed there for those of --files, "
            "which are read, not written. May be given several times.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="TEXT", help="What to call that device."),
    ] = "benchmark_model",
    data: DataSource = None,
    samples: Samples = None,
    include: Include = None,
    imports: Imports = None,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Measure what a model costs at smaller sizes: time and bytes.

    Exports the model at several sizes and runs the files in LiteRT, in turns.
    `shrink --latency-ms 2.5 --costs costs.json` goes by it.
    """
    _check(costs, files, results, quantize, recurrent_op, data)
    keras_iss = library()
    if results:
        found = keras_iss.CostTable.from_benchmark_model(
            files, list(results), device
        )
    else:
        options: dict[str, Any] = {
            "quantize": quantize,
            "batch_size": batch_size,
            "recurrent_op": recurrent_op,
        }
        found = _made(
            keras_iss,
            _loaded(model, options, data, samples, imports, unsafe),
            files,
            {"length": length, "threads": threads},
            {
                "probes": probes,
                "round_to": round_to,
                "include": tuple(include or ("recurrent",)),
                **options,
            },
        )
    if costs is not None:
        found.save(costs)
    if json:
        output.show_json({"model": model, **output.plain(found)})
        return
    console = output.console()
    console.print(str(found), markup=False)
    if costs is not None:
        console.print(f"Wrote {costs}", markup=False)
    elif files is not None:
        console.print(
            f"Wrote {files}. Run benchmark_model on each of its .tflite files "
            f"on the device, then: keras-iss measure {model} --files {files} "
            "--results FILE -o costs.json",
            markup=False,
        )


def _loaded(model, options, data, samples, imports, unsafe):
    """The model. What integers are calibrated with goes into the options."""
    from keras_iss.cli.data import read_data
    from keras_iss.cli.loading import load_model
    from keras_iss.runtimes.keras_runner import KerasRunner

    loaded = load_model(model, Loading(imports or (), unsafe))
    found = read_data(data, samples)
    if found is not None:
        found = found.fitting(KerasRunner(loaded).inputs)
        options["representative_data"] = found.first(REPRESENTATIVE).inputs
    return loaded


def _made(keras_iss, model, files, how, options):
    if files is not None:
        return keras_iss.write_cost_probes(model, files, **options)
    return keras_iss.measure_costs(model, **how, **options)


def _check(costs, files, results, quantize, recurrent_op, data):
    """Raises a usage error where options do not go together."""
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
    if results and files is None:
        raise typer.BadParameter(
            "--results goes with --files, the folder of the files that were "
            "measured."
        )
    if costs is None and (results or files is None):
        raise typer.BadParameter("Say where to write it: add -o costs.json.")
    if costs is not None and files is not None and not results:
        raise typer.BadParameter(
            "--files only writes what is to be measured. Leave out --output, "
            "or add --results."
        )
    if results:
        return
    if (quantize in FULL_INTEGERS) != (data is not None):
        raise typer.BadParameter(
            f"--data goes with --quantize {' and '.join(FULL_INTEGERS)}, which "
            "learn the range of activations from samples."
        )
