"""`keras-iss shrink`."""

import os
import pathlib
import uuid
from typing import Annotated, Any

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
    number,
    rounding,
    sizes_by_name,
)
from keras_iss.cli.library import library

_BY_DATA = ("taylor", "redundancy")


def shrink(
    model: Model,
    small: Annotated[
        pathlib.Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The .keras file to write.",
            show_default=False,
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Of the weights of the recurrent layers, those that stay: a "
            "share, such as 0.5, or how many.",
            show_default=False,
        ),
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="The same of the units.",
            show_default=False,
        ),
    ] = None,
    mult_adds: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="The same of the multiply-adds of a time step.",
            show_default=False,
        ),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="The milliseconds that a call of the exported model may take.",
            show_default=False,
        ),
    ] = None,
    size_kb: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="The kilobytes that the exported file may take.",
            show_default=False,
        ),
    ] = None,
    costs: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="FILE",
            help="What --latency-ms and --size-kb go by, as `measure` writes "
            "it. Defaults to what is measured now, of float32 in LiteRT.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Units whose group norm is below it go.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N",
            help="How many units of a structure stay. May be given several "
            "times.",
            show_default=False,
        ),
    ] = None,
    round_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N",
            help="Sizes are multiples of N; NAME=N for one structure.",
            show_default=False,
        ),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What stays: norm (default), taylor or redundancy. The last "
            "two need --data; redundancy goes with --refit.",
            show_default=False,
        ),
    ] = None,
    data: DataSource = None,
    samples: Samples = None,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="Have what reads the units that go make do with the others, "
            "by least squares on --data.",
        ),
    ] = False,
    include: Include = None,
    imports: Imports = None,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Cut units out of a trained model, and save the smaller one.

    What stays is said by one of --weights, --units, --mult-adds, --latency-ms,
    --size-kb, --threshold and --keep. Without any, what is zero already is cut
    out, which changes no output. The file that is read stays as it is.
    """
    target = {
        "weights": weights and number(weights, "--weights"),
        "units": units and number(units, "--units"),
        "mult_adds": mult_adds and number(mult_adds, "--mult-adds"),
        "latency_ms": latency_ms,
        "size_kb": size_kb,
        "threshold": threshold,
        "keep": sizes_by_name(keep, "--keep"),
    }
    target = {name: x for name, x in target.items() if x is not None}
    sizes = rounding(round_to)
    _check(target, sizes, importance, data, refit, small, model)
    _check_costs(target, costs)
    keras_iss = library()
    from keras_iss.cli.data import read_data
    from keras_iss.cli.loading import load_model
    from keras_iss.runtimes.keras_runner import KerasRunner

    loaded = load_model(model, Loading(imports or (), unsafe))
    found = read_data(data, samples)
    if found is not None:
        found = found.fitting(KerasRunner(loaded).inputs)
    kinds = tuple(include or ("recurrent",))
    structures = keras_iss.find_structures(loaded, kinds)
    before, refitted, table = structures.counts(), None, None
    if target:
        table = _costs(keras_iss, loaded, target, costs, kinds)
        structures = keras_iss.prune(
            loaded,
            **target,
            costs=table,
            round_to=sizes,
            importance=importance,
            data=found and found.both,
            refit=refit,
            include=kinds,
        )
        refitted = structures.refit
    alive = {x.name: x.alive for x in structures}
    if not target and all(alive[x.name] == x.size for x in structures):
        raise ValueError(
            f"Nothing of `{model}` is zero yet. Say what may stay: --weights "
            "0.5, for example."
        )
    smaller = keras_iss.shrink(
        loaded, include=kinds, data=found and found.inputs
    )
    _save(smaller, small)
    after = keras_iss.find_structures(smaller, kinds)
    _show(
        {
            "model": model,
            "output": str(small),
            "structures": {
                x.name: {
                    "before": x.size,
                    "after": after[x.name].size if x.name in after else None,
                }
                for x in structures
            },
            "before": {
                **output.plain(before),
                "bytes": pathlib.Path(model).stat().st_size,
            },
            "after": {
                **output.plain(after.counts()),
                "bytes": small.stat().st_size,
            },
            "costs": table and _told(table, structures, alive),
            "refit": refitted
            and {
                "error_of_cut": refitted.error_of_cut,
                "error": refitted.error,
                "refitted": list(refitted.refitted),
                "left": refitted.left,
            },
        },
        json,
    )


def _check(target, sizes, importance, data, refit, small, model):
    """Raises a usage error where options do not go together."""
    if len(target) > 1:
        raise typer.BadParameter(
            "Give only one of --weights, --units, --mult-adds, --latency-ms, "
            f"--size-kb, --threshold and --keep. Received: {', '.join(target)}."
        )
    if not target and (refit or importance or sizes != 1):
        raise typer.BadParameter(
            "--refit, --importance and --round-to go with what may stay: add "
            "--weights 0.5, for example."
        )
    if refit and data is None:
        raise typer.BadParameter(
            "--refit needs samples of the inputs: add --data."
        )
    if importance in _BY_DATA and data is None:
        raise typer.BadParameter(
            f"--importance {importance} is computed from samples: add --data."
        )
    if small.suffix != ".keras":
        raise typer.BadParameter(
            f"`{small}` must end in .keras.", param_hint="'--output'"
        )
    if small.exists() and small.resolve() == pathlib.Path(model).resolve():
        raise typer.BadParameter(
            "This is the file that is read, which is kept. Give another one.",
            param_hint="'--output'",
        )


def _check_costs(target, costs):
    if costs is not None and not target.keys() & {"latency_ms", "size_kb"}:
        raise typer.BadParameter("--costs goes with --latency-ms or --size-kb.")


def _costs(keras_iss, model, target, path, include):
    """What tells costs, read or measured now; `None` for another target."""
    if not target.keys() & {"latency_ms", "size_kb"}:
        return None
    if path is not None:
        return keras_iss.CostTable.load(path)
    return keras_iss.measure_costs(
        model, latency="latency_ms" in target, include=include
    )


def _told(table, structures, alive):
    """What the export is to cost, before and after, by a table of costs."""
    sizes = [{x.name: x.size for x in structures}, alive]
    names = ("size_kb", "latency_ms") if table.has_times else ("size_kb",)
    return {
        name: dict(
            zip(("before", "after"), (getattr(table, name)(x) for x in sizes))
        )
        for name in names
    }


def _save(model: Any, path: pathlib.Path) -> None:
    """Saves a model such that the file appears whole or not at all."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder `{path.parent}` to write `{path.name}` in. "
            "Make it first."
        )
    new = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.keras")
    try:
        model.save(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _show(found: dict, json: bool) -> None:
    if json:
        output.show_json(found)
        return
    console = output.console()
    sizes = output.table("", "before", "after", "")
    for name, x in found["structures"].items():
        sizes.add_row(name, f"{x['before']}", f"{x['after']}", "")
    before, after = found["before"], found["after"]
    for key, title in (
        ("weights", "weights"),
        ("mult_adds", "mult-adds"),
        ("bytes", "file"),
    ):
        shown = output.bytes_text if key == "bytes" else output.number_text
        sizes.add_row(
            title,
            shown(before[key]),
            shown(after[key]),
            output.share_text(after[key], before[key]),
        )
    _add_costs(sizes, found["costs"] or {})
    console.print(sizes)
    if found["refit"]:
        console.print(
            "Error of the outputs on held-back data, as a part of what they "
            f"vary by: {found['refit']['error_of_cut']:.3g} cut, "
            f"{found['refit']['error']:.3g} refitted."
        )
    console.print(f"Wrote {found['output']}", markup=False)


def _add_costs(table, costs):
    """Adds rows of what the export is to cost."""
    for name, title in (("size_kb", "exported"), ("latency_ms", "a call")):
        if name not in costs:
            continue
        before, after = costs[name]["before"], costs[name]["after"]
        shown = [
            output.bytes_text(round(1e3 * x))
            if name == "size_kb"
            else output.milliseconds_text(x)
            for x in (before, after)
        ]
        table.add_row(title, *shown, output.share_text(after, before))
