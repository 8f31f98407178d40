"""Recurrent layers, with all their options."""

from tests.fuzz.connections.registry import connection

KINDS = {
    "LSTM": 6,
    "GRU": 4,
    "GRU reset before": 2,
    "SimpleRNN": 2,
    "RNN of a cell": 2,
    "RNN of stacked cells": 2,
    "RHN": 1,
    "RNN of an own cell with a rule": 1,
    "RNN of an own cell without a rule": 0.3,
    "subclass that computes nothing new": 0.3,
    "subclass that computes something else": 0.3,
}

EXPORTED = (
    "LSTM",
    "GRU",
    "GRU reset before",
    "SimpleRNN",
    "RNN of a cell",
    "RNN of stacked cells",
)


def kind(g):
    """A kind of recurrent layer."""
    if g.for_fused:
        return "LSTM"
    if g.for_export:
        return g.choice(EXPORTED)
    return g.choice(KINDS)


def cell(g, size=None, own=True):
    """The text of a cell of a random kind."""
    size = size or g.size()
    kinds = {
        f"layers.LSTMCell({size}{gates(g)})": 3,
        f"layers.GRUCell({size}{gates(g)})": 2,
        f"layers.GRUCell({size}, reset_after=False)": 1,
        f"layers.SimpleRNNCell({size}{gates(g, gated=False)})": 2,
    }
    if own and not g.for_export:
        kinds[f"RuledCell({size})"] = 0.5
        kinds[f"keras_iss.layers.RHNCell({size}, depth=2)"] = 0.5
    return g.choice(kinds)


def gates(g, gated=True):
    """The text of options of what a cell computes."""
    options = []
    if g.for_fused:
        return ""
    if g.chance(0.25):
        options.append(f"activation={g.activation()}")
    if gated and g.chance(0.15):
        options.append(f"recurrent_activation={g.activation()}")
    if g.chance(0.15):
        options.append("use_bias=False")
    if g.chance(0.05):
        options.append("kernel_regularizer=keras.regularizers.L2(0.01)")
    if g.chance(0.05):
        options.append("kernel_constraint=keras.constraints.MaxNorm(9.0)")
    if g.chance(0.04):
        options.append("dropout=0.2")
        g.is_random = True
    if g.chance(0.04):
        options.append("recurrent_dropout=0.2, seed=1")
        g.is_random = True
    return "".join(f", {option}" for option in options)


def running(g, directed=True, **fixed):
    """The text of options of how a cell runs over time.

    Args:
        g: `Drawing`.
        directed: Boolean, whether it may run backwards.
        **fixed: Options that must have a value.
    """
    options = {}
    directed = directed and not g.for_stream
    if g.for_fused:
        return "".join(f", {name}={value!r}" for name, value in fixed.items())
    if directed and g.chance(0.15):
        options["go_backwards"] = True
    if g.chance(0.1):
        options["unroll"] = True
    if g.chance(0.12):
        options["zero_output_for_mask"] = True
    if g.batch and g.depth == 1 and g.chance(0.6):
        options["stateful"] = True
    for name in options:
        g.tag(f"recurrent {name}")
    options.update(fixed)
    return "".join(f", {name}={value!r}" for name, value in options.items())


def of_kind(g, name, size=None, directed=True, **fixed):
    """The text of a recurrent layer of a kind."""
    size = size or g.size()
    how = running(g, directed, **fixed)
    if name in ("LSTM", "GRU"):
        return f"layers.{name}({size}{gates(g)}{how})"
    if name == "GRU reset before":
        return f"layers.GRU({size}, reset_after=False{gates(g)}{how})"
    if name == "SimpleRNN":
        return f"layers.SimpleRNN({size}{gates(g, gated=False)}{how})"
    if name == "RNN of a cell":
        return f"layers.RNN({cell(g, size)}{how})"
    if name == "RNN of stacked cells":
        cells = f"[{cell(g)}, {cell(g, size)}]"
        if g.chance(0.4):
            cells = f"layers.StackedRNNCells({cells})"
        return f"layers.RNN({cells}{how})"
    if name == "RHN":
        return f"keras_iss.layers.RHN({size}, depth=2{how})"
    if name == "RNN of an own cell with a rule":
        return f"layers.RNN(RuledCell({size}){how})"
    if name == "RNN of an own cell without a rule":
        return f"layers.RNN(MinimalCell({size}){how})"
    if name == "subclass that computes nothing new":
        return f"SameLSTM({size}{gates(g)}{how})"
    return f"SquashedLSTM({size}{gates(g)}{how})"


@connection(10, streams=True)
def over_time(g):
    name = kind(g)
    g.tag(name)
    text = of_kind(g, name, return_sequences=True)
    g.apply(text, g.sequence())


@connection(2)
def last_output(g):
    name = kind(g)
    g.tag(name, "last output")
    g.apply(of_kind(g, name), g.sequence())


@connection(6)
def bidirectional(g):
    name = kind(g)
    if not g.for_fused:
        name = g.choice(("LSTM", "GRU", "SimpleRNN", name))
    mode = g.choice({"concat": 4, "sum": 2, "mul": 2, "ave": 2, None: 1})
    g.tag(f"Bidirectional {mode}", f"Bidirectional of {name}")
    size = g.size()
    over_time = g.chance(0.8)
    text = of_kind(g, name, size, directed=False, return_sequences=over_time)
    options = f", merge_mode={mode!r}"
    if g.chance(0.25) and not g.for_fused:
        g.tag("Bidirectional with a backward layer")
        other = g.choice(("LSTM", "GRU", "SimpleRNN", name))
        if mode == "concat" and g.chance(0.3):
            size = g.size()
        back = of_kind(
            g,
            other,
            size,
            directed=False,
            return_sequences=over_time,
            go_backwards=True,
        )
        options += f", backward_layer={back}"
    g.apply(f"layers.Bidirectional({text}{options})", g.sequence())


@connection(1)
def in_half_precision(g):
    dtype = g.choice(("mixed_float16", "mixed_bfloat16"))
    g.tag(f"LSTM in {dtype}")
    x = g.sequence()
    text = f'layers.LSTM({g.size()}, return_sequences=True, dtype="{dtype}")'
    (h,) = g.apply(text, x)
    g.call(f'ops.cast({h}, "float32")')


@connection(1, export=False)
def frozen(g):
    g.tag("frozen LSTM")
    g.apply(
        f"layers.LSTM({g.size()}, return_sequences=True, trainable=False)",
        g.sequence(),
    )


@connection(1, export=False)
def cell_by_itself(g):
    g.tag("cell called by itself")
    x, size = g.vector(), g.size()
    layer = g.layer(f"layers.GRUCell({size})")
    before = g.tensors(2, lambda shape: shape[-1] == size)
    state = g.choice(before) if before else f"ops.zeros_like({x}[:, :1])"
    if not before:
        state = f"ops.repeat({state}, {size}, axis=-1)"
    g.call(f"{layer}({x}, {state})")
