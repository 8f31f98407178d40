"""Tables of a page, as HTML."""

import html
from collections.abc import Iterable, Sequence

from keras_iss.report.data import FileRow, ReportData, Size, Training

_SIZES = {
    "units": "units",
    "weights": "weights",
    "recurrent_weights": "weights of recurrent layers",
    "mult_adds": "multiply-adds of a time step",
}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. Cells that begin with a digit or a sign are set right.

    Args:
        columns: Strings, the heads.
        rows: Sequences of strings, as plain text.
    """
    head = "".join(f"<th>{html.escape(x)}</th>" for x in columns)
    body = "".join(
        "<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _cell(text):
    number = text[:1].isdigit() or text[:1] in ("-", "\u2212", "+")
    kind = ' class="number"' if number else ""
    return f"<td{kind}>{html.escape(text)}</td>"


def sizes(data: ReportData) -> str:
    """How large the model is, beside what it was."""
    rows: list[tuple[str, ...]] = []
    for name, title in _SIZES.items():
        now = getattr(data.after, name)
        if data.before is None:
            rows.append((title, f"{now:,}"))
            continue
        was = getattr(data.before, name)
        rows.append((title, f"{was:,}", f"{now:,}", share(now, was)))
    if data.before is None:
        return table(("", data.model), rows)
    return table(("", "before", "after", "is left"), rows)


def structures(data: ReportData) -> str:
    """The structures, and why some keep their size."""
    return table(
        (
            *("structure", "before", "size", "alive", "read by"),
            "why it keeps its size",
        ),
        [
            (
                " = ".join(x.layers),
                "" if x.size_before is None else f"{x.size_before:,}",
                f"{x.size:,}",
                f"{x.alive:,}",
                ", ".join(x.consumers),
                x.pinned or "",
            )
            for x in data.structures
        ],
    )


def epochs(training: Training) -> str:
    """The logs, and what is alive, by epoch."""
    names = [*training.logs, *(f"{name} alive" for name in training.alive)]
    columns = [*training.logs.values(), *training.alive.values()]
    return table(
        ("epoch", *names),
        [
            (str(epoch), *(number(values[i]) for values in columns))
            for i, epoch in enumerate(training.epochs)
        ],
    )


def removals(training: Training) -> str:
    """What was removed when."""
    return table(
        ("epoch", "structure", "removed", "left"),
        [
            (str(x.epoch), x.structure, f"{x.removed:,}", f"{x.left:,}")
            for x in training.removals
        ],
    )


def norms(data: ReportData) -> str:
    """The group norms of each structure in five numbers."""

    def summed(values):
        if not values:
            return ["", "", "", ""]
        ordered = sorted(values)
        middle = ordered[len(ordered) // 2]
        return [
            f"{len(ordered):,}",
            number(ordered[0]),
            number(middle),
            number(ordered[-1]),
        ]

    parts = ("count", "smallest", "median", "largest")
    if all(x.before is None for x in data.norms):
        return table(
            ("structure", *parts),
            [(x.structure, *summed(x.after)) for x in data.norms],
        )
    return table(
        (
            "structure",
            *(f"{part} before" for part in parts),
            *(f"{part} after" for part in parts),
        ),
        [
            (x.structure, *summed(x.before), *summed(x.after))
            for x in data.norms
        ],
    )


def kernels(data: ReportData) -> str:
    """The kernels, and how much of them is not zero."""
    return table(
        ("kernel", "shape", "not zero"),
        [
            (x.name, " x ".join(map(str, x.shape)), f"{x.nonzero:.1%}")
            for x in data.weight_maps
        ],
    )


def files(rows: Sequence[FileRow]) -> str:
    """Sizes, latencies and quality of the model and the files."""
    names = list(dict.fromkeys(name for x in rows for name in x.metrics))
    return table(
        (
            *("model", "format", "size", "weights", "a call"),
            *names,
            "off the model",
        ),
        [
            (
                x.name,
                x.format,
                bytes_text(x.size),
                "" if x.weights is None else f"{x.weights:,}",
                "" if x.milliseconds is None else f"{x.milliseconds:.3g} ms",
                *(number(x.metrics.get(name)) for name in names),
                "" if x.difference is None else f"{x.difference:.2g}",
            )
            for x in rows
        ],
    )


def versions(data: ReportData) -> str:
    """What the numbers come from."""
    return table(
        ("", "version"), [(name, x) for name, x in data.versions.items()]
    )


def removed_units(size: Size) -> str:
    """What is zero and still there, as a sentence, or nothing."""
    if not size.removed_units:
        return ""
    return (
        f"{size.removed_units:,} of its units are removed, and still there. "
        "The sizes are those without them, as `shrink` leaves the model."
    )


def number(value: float | None) -> str:
    """A number in four digits, a whole one in all."""
    if value is None:
        return ""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def share(part: float, whole: float) -> str:
    """A part in percent of the whole."""
    return f"{part / whole:.1%}" if whole else ""


def bytes_text(size: int | None) -> str:
    """A size in bytes, as people say it."""
    if size is None:
        return ""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
