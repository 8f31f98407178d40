"""States that go out of recurrent layers and into others."""

from tests.fuzz.connections.recurrent import cell, of_kind
from tests.fuzz.connections.registry import connection

COUNTS = {"LSTM": 2, "GRU": 1, "GRU reset before": 1, "SimpleRNN": 1}


def simple_kind(g):
    return g.choice(
        {"LSTM": 3, "GRU": 2, "GRU reset before": 1, "SimpleRNN": 1}
    )


def flags(g):
    return {"return_sequences": g.chance(0.7)}


@connection(2)
def returned(g):
    name = simple_kind(g)
    g.tag(f"{name} returns states")
    g.apply(of_kind(g, name, return_state=True, **flags(g)), g.sequence())


@connection(3)
def decoder(g):
    name = simple_kind(g)
    size = g.size()
    g.tag(f"{name} encoder and decoder")
    text = of_kind(g, name, size, return_state=True, **flags(g))
    _, *states = g.apply(text, g.sequence())
    between = g.choice(("", "", "dense", "crossed", "function"))
    if between:
        g.tag(f"states: {between}")
    if between == "dense":
        states = [
            g.apply(f'layers.Dense({size}, activation="tanh")', state)[0]
            for state in states
        ]
    elif between == "crossed":
        states = states[::-1]
    elif between == "function":
        states = [g.call(f"ops.tanh(2.0 * {state})")[0] for state in states]
    decoder = of_kind(g, name, size, return_sequences=True)
    g.apply(decoder, g.sequence(), f"initial_state=[{', '.join(states)}]")


@connection(2)
def from_vectors(g):
    """Whatever vectors there are: they all become of one size."""
    first = g.vector()
    name = simple_kind(g)
    g.tag(f"{name} begins with vectors")
    states = [first, g.like(first)][: COUNTS[name]]
    text = of_kind(g, name, g.width(first), return_sequences=True)
    g.apply(text, g.sequence(), f"initial_state=[{', '.join(states)}]")


@connection(2)
def bidirectional(g):
    name = g.choice(("LSTM", "GRU"))
    size = g.size()
    g.tag(f"Bidirectional {name} returns states")
    text = of_kind(g, name, size, directed=False, return_state=True, **flags(g))
    mode = g.choice(("concat", "sum", "mul", None))
    names = g.apply(
        f"layers.Bidirectional({text}, merge_mode={mode!r})", g.sequence()
    )
    states = names[2 if mode is None else 1 :]
    if g.chance(0.6):
        g.tag(f"Bidirectional {name} begins with states")
        text = of_kind(g, name, size, directed=False, return_sequences=True)
        options = f", merge_mode={g.choice(('concat', 'sum'))!r}"
        g.apply(
            f"layers.Bidirectional({text}{options})",
            g.sequence(),
            f"initial_state=[{', '.join(states)}]",
        )
    else:
        g.tag("joined states")
        half = len(states) // 2
        joined = [
            g.call(f"ops.concatenate([{state}, {other}], axis=-1)")[0]
            for state, other in zip(states[:half], states[half:])
        ]
        text = of_kind(g, name, 2 * size, return_sequences=True)
        g.apply(text, g.sequence(), f"initial_state=[{', '.join(joined)}]")


@connection(1)
def stacked_cells(g):
    g.tag("stacked cells, states in and out")
    sizes = g.size(), g.size()
    cells = [
        f"layers.LSTMCell({sizes[0]})",
        f"layers.GRUCell({sizes[1]})",
    ]
    text = f"layers.RNN([{', '.join(cells)}], return_state=True)"
    layer = g.layer(text)
    whole = g.name("s")
    g.define(f"{whole} = {layer}({g.sequence()})")
    g.call(f"{whole}[0]")
    text = f"layers.RNN([{', '.join(cells)}], return_sequences=True)"
    g.apply(text, g.sequence(), f"initial_state=list({whole}[1:])")


@connection(1, export=False)
def one_cell_in_two_layers(g):
    g.tag("one cell in two layers")
    shared = g.layer(cell(g, own=False), "cell")
    first = g.sequence()
    width = g.width(first)
    second = g.tensor(3, lambda shape: shape[-1] == width)
    for x, option in ((first, ""), (second, ", go_backwards=True")):
        g.apply(f"layers.RNN({shared}, return_sequences=True{option})", x)


@connection(1)
def images(g):
    g.tag("ConvLSTM2D states")
    x = g.tensor(5)
    size = g.size()
    text = f'layers.ConvLSTM2D({size}, 2, padding="same", return_state=True)'
    _, h, c = g.apply(text, x)
    text = (
        f'layers.ConvLSTM2D({size}, 2, padding="same", return_sequences=True)'
    )
    g.apply(text, x, f"initial_state=[{h}, {c}]")
