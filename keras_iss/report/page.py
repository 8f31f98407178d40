"""The page: one HTML file that asks for nothing from elsewhere."""

import dataclasses
import html
import os
import pathlib
import uuid
from importlib import resources

from keras_iss.report import pictures, tables
from keras_iss.report.data import ReportData

# A browser that obeys it sends nothing to anyone.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: String, the place that links lead to.
        title: String.
        text: String, what it shows, as plain text.
        table: String, HTML.
    """

    name: str
    title: str
    text: str
    table: str


def write(data: ReportData, path: str | os.PathLike[str]) -> None:
    """Writes a page. It appears whole, or not at all.

    Args:
        data: `ReportData`.
        path: Where to write it.

    Raises:
        OSError: if it cannot be written.
    """
    path = pathlib.Path(path)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        new.write_text(page(data), encoding="utf-8")
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def page(data: ReportData) -> str:
    """A page as HTML.

    Args:
        data: `ReportData`.
    """
    script = pictures.plotly_script()
    drawn = {} if script is None else pictures.pictures(data)
    sections = _sections(data)
    links = "".join(
        f'<a href="#{x.name}">{html.escape(x.title)}</a>' for x in sections
    )
    body = "".join(_section(x, drawn.get(x.name, [])) for x in sections)
    missing = (
        ""
        if script is not None
        else "<p class=note>Without pictures: pip install "
        "&quot;keras-iss[report]&quot; where the page is written.</p>"
    )
    scripts = (
        ""
        if script is None
        else f"<script>{script}</script>\n<script>{_asset('page.js')}</script>"
    )
    title = html.escape(data.title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, '
        'initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{_asset('page.css')}</style>\n"
        f"</head>\n<body>\n<header><h1>{title}</h1>\n{_headline(data)}"
        f"<nav>{links}</nav></header>\n<main>{missing}{body}</main>\n"
        f"{scripts}\n</body>\n</html>\n"
    )


def _asset(name):
    folder = resources.files("keras_iss.report")
    return (folder / name).read_text(encoding="utf-8")


def _headline(data):
    """The change in a few large numbers."""
    cards = []
    if data.before is not None:
        for name, title in (
            ("weights", "of the weights"),
            ("mult_adds", "of the multiply-adds"),
            ("units", "of the units"),
        ):
            was, now = getattr(data.before, name), getattr(data.after, name)
            cards.append((tables.share(now, was), title))
    else:
        cards.append((f"{data.after.weights:,}", "weights"))
        cards.append((f"{data.after.units:,}", "units"))
    smallest = min(
        (x for x in data.files if x.size), key=lambda x: x.size, default=None
    )
    if smallest is not None and len(data.files) > 1:
        cards.append((tables.bytes_text(smallest.size), smallest.name))
    inner = "".join(
        f"<div><b>{html.escape(value)}</b>{html.escape(title)}</div>"
        for value, title in cards
    )
    return f'<div class="cards">{inner}</div>\n'


def _sections(data):
    found = [
        Section(
            "size",
            "Size",
            tables.removed_units(data.after),
            tables.sizes(data),
        )
    ]
    training = data.training
    if training is not None:
        found.append(
            Section(
                "training",
                "Size against quality",
                "Values of the validation are drawn as lines, those of the "
                "training dotted.",
                tables.epochs(training),
            )
        )
        if training.alive:
            found.append(
                Section(
                    "removals",
                    "What was cut when",
                    ""
                    if training.removals
                    else "Nothing was removed in these epochs.",
                    tables.removals(training) if training.removals else "",
                )
            )
    found += [
        Section(
            "structures",
            "Structures",
            "All the units of one layer that can be removed one by one. A "
            "pinned one keeps its size.",
            tables.structures(data),
        ),
        Section(
            "norms",
            "Group norms",
            "How much weight each unit has, in all layers; units in order.",
            tables.norms(data),
        ),
        Section(
            "weights",
            "Weight map",
            "Magnitudes of the kernels. What is zero is left out.",
            tables.kernels(data),
        ),
    ]
    if data.files:
        found.append(
            Section(
                "files", "Files", _files_text(data), tables.files(data.files)
            )
        )
    found.append(
        Section(
            "versions",
            "Versions and command",
            data.command,
            tables.versions(data),
        )
    )
    return found


def _files_text(data):
    what = "random" if data.random else "given"
    calls = {x.batch_size for x in data.files if x.batch_size}
    size = next(iter(calls), 1)
    many = "a sample" if size == 1 else f"{size} samples"
    return (
        f"Quality and differences on {data.samples} {what} samples. A call is "
        f"of {many}; its time is the median on this machine, of the model and "
        "the file in turns."
    )


def _section(section, figures):
    drawn = "".join(
        '<div class="picture"><script type="application/json">'
        f"{figure}</script></div>"
        for figure in figures
    )
    text = section.text and (
        f"<p><code>{html.escape(section.text)}</code></p>"
        if section.name == "versions"
        else f"<p>{html.escape(section.text)}</p>"
    )
    table = section.table
    if figures and table and section.name != "files":
        table = f"<details><summary>In numbers</summary>{table}</details>"
    few = len(figures) == 1 or section.name == "files"
    grid = "wide" if few else "grid"
    pictures = f'<div class="{grid}">{drawn}</div>' if drawn else ""
    return (
        f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>'
        f"{text}{pictures}{table}</section>\n"
    )
