"""Arguments and options that several verbs have."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A .keras file.", show_default=False),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Module, or .py file, with layers and functions of your own. "
        "May be given several times.",
        show_default=False,
    ),
]
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe",
        help="Load Python code that a model holds in a Lambda layer. Only for "
        "files that you trust: it runs with your rights.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, for a program to read.")
]
DataSource = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Samples: an .npz file with x and y, an .npy file with inputs, a "
        ".csv file with a sample in each row, or MODULE:FUNCTION.",
        show_default=False,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1, help="Use the first N samples only.", show_default=False
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Samples in a call that is measured. Defaults to what a file "
        "fixes, and else to 1.",
        show_default=False,
    ),
]
Length = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Time steps, where a model leaves them open and there are no "
        "data. Defaults to 32.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads of LiteRT and ONNX Runtime.",
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="KIND",
        help="Kinds of layers whose units may go: recurrent (default), dense, "
        "embedding. May be given several times.",
        show_default=False,
    ),
]


@dataclasses.dataclass(frozen=True)
class Loading:
    """How models are loaded.

    Attributes:
        imports: Sequence of strings, modules or `.py` files.
        unsafe: Boolean, whether code in a file may run.
    """

    imports: Sequence[str]
    unsafe: bool


def number(text: str, option: str) -> float | int:
    """A share, such as `0.5`, or a count, such as `20000`.

    Raises:
        typer.BadParameter: if it is neither.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no number. Give a share, such as 0.5, or a count, "
            "such as 20000.",
            param_hint=f"'{option}'",
        ) from error


def sizes_by_name(
    texts: Sequence[str] | None, option: str
) -> dict[str, int] | None:
    """Whole numbers by the names of structures, from `NAME=N`.

    Raises:
        typer.BadParameter: if one is not of this form, or named twice.
    """
    if not texts:
        return None
    found: dict[str, int] = {}
    for text in texts:
        name, equals, size = text.rpartition("=")
        if not (equals and name and size.isdecimal()):
            raise typer.BadParameter(
                f"{text!r} is not of the form NAME=N, such as lstm_1=64.",
                param_hint=f"'{option}'",
            )
        if name in found:
            raise typer.BadParameter(
                f"`{name}` is named twice.", param_hint=f"'{option}'"
            )
        found[name] = int(size)
    return found


def tolerances(texts: Sequence[str] | None) -> dict[str, float] | None:
    """How much worse metrics may be by their names, from `NAME=X`.

    Raises:
        typer.BadParameter: if one is not of this form.
    """
    found = {}
    for text in texts or ():
        name, _, amount = text.rpartition("=")
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if not name or not 0 <= value < math.inf:
            raise typer.BadParameter(
                f"{text!r} is not of the form NAME=X, such as accuracy=0.01.",
                param_hint="'--tolerance'",
            )
        found[name] = value
    return found or None


def rounding(texts: Sequence[str] | None) -> Any:
    """What `round_to` is, from `N` or from `NAME=N`, once or several times."""
    if not texts:
        return 1
    if len(texts) == 1 and texts[0].isdecimal():
        return int(texts[0])
    return sizes_by_name(texts, "--round-to")
