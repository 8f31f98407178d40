"""What a verb shows: tables for people, JSON for programs."""

import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


def console() -> Console:
    """The console that tables go to. Where it is no terminal, it is wide."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=160, highlight=False, soft_wrap=True)


def show_json(value: Any) -> None:
    """Prints a value as JSON.

    Args:
        value: Dataclasses, dicts, lists, arrays, paths and plain values.
    """
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """A value as JSON has it. What is not finite becomes `null`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(name): plain(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, pathlib.Path):
        return str(value)
    return value


def table(*columns: str, title: str | None = None) -> Table:
    """A table without lines. The first column is text, the others numbers."""
    made = Table(
        box=None,
        pad_edge=False,
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
    )
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left")
    return made


def bytes_text(size: int | None) -> str:
    """A size as people say it, `-` where it is not known."""
    if size is None:
        return "-"
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000 or unit == "GB":
            break
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def number_text(value: float | None) -> str:
    """A whole number in groups of three, another in four digits."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def milliseconds_text(value: float | None) -> str:
    """Milliseconds in three digits."""
    return "-" if value is None else f"{value:.3g} ms"


def share_text(part: float, whole: float) -> str:
    """A part in percent of the whole."""
    return f"{part / whole:.0%}" if whole else "-"
