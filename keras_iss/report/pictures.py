"""Pictures of a page, as figures that Plotly draws in the browser."""

import json
from typing import Any

from keras_iss.report.data import Norms, ReportData, Training, WeightMap

# Okabe and Ito's colours, which most people tell apart, in both themes.
COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
)
_GREY = "#8a8f98"


def plotly_script() -> str | None:
    """The script that draws, or `None` where Plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    return get_plotlyjs()


def pictures(data: ReportData) -> dict[str, list[str]]:
    """The figures of a page.

    Returns:
        Dict from the name of a section to figures, as JSON.
    """
    found: dict[str, list[str]] = {}
    if data.training is not None:
        found["training"] = [quality_and_size(data.training)]
        if data.training.alive:
            found["removals"] = [alive(data.training)]
    found["norms"] = [norms(x) for x in data.norms]
    found["weights"] = [weight_map(x) for x in data.weight_maps]
    if len(data.files) > 1:
        found["files"] = [files(data)]
    return found


def quality_and_size(training: Training) -> str:
    """Losses and metrics above, sizes below, over the same epochs."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    sizes = {
        name: training.logs[name]
        for name in ("recurrent_weights", "mult_adds", "alive_units")
        if name in training.logs
    }
    quality = {
        name: values
        for name, values in training.logs.items()
        if name not in sizes and name != "learning_rate"
    }
    count = 2 if sizes else 1
    figure = make_subplots(count, 1, shared_xaxes=True, vertical_spacing=0.08)
    colour: dict[str, str] = {}
    for name, values in quality.items():
        base = name.removeprefix("val_")
        colour.setdefault(base, COLOURS[len(colour) % len(COLOURS)])
        figure.add_trace(
            go.Scatter(
                x=training.epochs,
                y=values,
                name=name,
                mode="lines+markers",
                line={
                    "color": colour[base],
                    "dash": "solid" if name.startswith("val_") else "dot",
                },
                hovertemplate="epoch %{x}: %{y:.4g}",
            ),
            1,
            1,
        )
    for i, (name, values) in enumerate(sizes.items()):
        first = next((x for x in values if x), 1)
        figure.add_trace(
            go.Scatter(
                x=training.epochs,
                y=[None if x is None else x / first for x in values],
                customdata=values,
                name=name.replace("_", " "),
                mode="lines+markers",
                line={"color": COLOURS[-1 - i], "shape": "hv"},
                hovertemplate="epoch %{x}: %{customdata:,} (%{y:.0%})",
            ),
            2,
            1,
        )
    figure.update_yaxes(title_text="quality", row=1, col=1)
    if sizes:
        figure.update_yaxes(
            title_text="of the first epoch",
            tickformat=".0%",
            rangemode="tozero",
            row=2,
            col=1,
        )
    figure.update_xaxes(title_text="epoch", row=count, col=1)
    return _json(figure, 260 * count + 60)


def alive(training: Training) -> str:
    """How many components of each structure are left, epoch by epoch."""
    import plotly.graph_objects as go

    figure = go.Figure(
        [
            go.Scatter(
                x=training.epochs,
                y=values,
                name=name,
                mode="lines+markers",
                line={"color": COLOURS[i % len(COLOURS)], "shape": "hv"},
                hovertemplate="epoch %{x}: %{y} units",
            )
            for i, (name, values) in enumerate(training.alive.items())
        ]
    )
    figure.update_yaxes(title_text="units left", rangemode="tozero")
    figure.update_xaxes(title_text="epoch")
    return _json(figure, 300)


def norms(norms: Norms) -> str:
    """The group norms of a structure, before and after, in order."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, values, colour in (
        ("before", norms.before, _GREY),
        ("after", norms.after, COLOURS[0]),
    ):
        if values is not None:
            figure.add_trace(
                go.Scatter(
                    x=list(range(1, len(values) + 1)),
                    y=values,
                    name=name,
                    mode="lines",
                    fill="tozeroy",
                    line={"color": colour},
                    hovertemplate="unit %{x} by size: %{y:.4g}",
                )
            )
    figure.update_layout(
        title_text=norms.structure, showlegend=norms.before is not None
    )
    figure.update_xaxes(title_text="units, from the largest on")
    figure.update_yaxes(title_text="group norm", rangemode="tozero")
    return _json(figure, 280)


def weight_map(weights: WeightMap) -> str:
    """The magnitudes of a kernel; what is zero is left out."""
    import plotly.graph_objects as go

    rows, columns = weights.block
    figure = go.Figure(
        go.Heatmap(
            z=weights.values,
            x0=0,
            dx=columns,
            y0=0,
            dy=rows,
            colorscale="Viridis",
            hoverongaps=False,
            hovertemplate="row %{y}, column %{x}: %{z:.3g}<extra></extra>",
            colorbar={"thickness": 10, "outlinewidth": 0},
        )
    )
    shape = " x ".join(map(str, weights.shape))
    figure.update_layout(title_text=f"{weights.name}, {shape}")
    figure.update_yaxes(autorange="reversed", title_text="row")
    figure.update_xaxes(title_text="column")
    return _json(figure, 300)


def files(data: ReportData) -> str:
    """Sizes and latencies of the files, as bars."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(2, 1, vertical_spacing=0.3)
    names = [x.name for x in data.files]
    for row, (title, values, text) in enumerate(
        (
            (
                "kB",
                [x.size and x.size / 1e3 for x in data.files],
                "%{y}: %{x:,.4g} kB",
            ),
            (
                "milliseconds a call",
                [x.milliseconds for x in data.files],
                "%{y}: %{x:.3g} ms",
            ),
        ),
        1,
    ):
        figure.add_trace(
            go.Bar(
                x=values,
                y=names,
                orientation="h",
                marker_color=COLOURS[row - 1],
                hovertemplate=text + "<extra></extra>",
            ),
            row,
            1,
        )
        figure.update_xaxes(title_text=title, row=row, col=1)
        figure.update_yaxes(
            autorange="reversed", automargin=True, row=row, col=1
        )
    figure.update_layout(showlegend=False)
    return _json(figure, 2 * (90 + 26 * len(names)) + 60)


def _json(figure: Any, height: int) -> str:
    """A figure as JSON that can stand in a script.

    The page gives it the colours of its theme.
    """
    legend = figure.layout.showlegend is not False and len(figure.data) > 1
    figure.update_layout(
        template="none",
        height=height + 28 * legend,
        margin={"l": 56, "r": 12, "t": 40, "b": 44 + 28 * legend},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
        },
        title_font_size=14,
        # However far from a point of a line.
        hoverdistance=-1,
        # Of lines, what is at one place along them shows together.
        hovermode="x unified"
        if all(trace.type == "scatter" for trace in figure.data)
        else "closest",
    )
    text = json.dumps(json.loads(figure.to_json()), separators=(",", ":"))
    return text.replace("<", "\\u003c")
