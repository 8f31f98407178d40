"""Where masks come from, go through and end."""

from tests.fuzz.connections.recurrent import kind, of_kind
from tests.fuzz.connections.registry import connection


@connection(6)
def embedding(g):
    x = g.tokens()
    g.tag("Embedding with a mask")
    g.apply(f"layers.Embedding(10, {g.size()}, mask_zero=True)", x)


@connection(1)
def embedding_without(g):
    x = g.tokens()
    g.tag("Embedding")
    g.apply(f"layers.Embedding(10, {g.size()})", x)


@connection(3)
def masking(g):
    inputs = g.tensors(3, None)[:2]
    x = g.choice((*inputs, g.sequence()))
    value = g.choice((0.0, 0.0, 0.5))
    g.tag("Masking")
    g.apply(f"layers.Masking({value})", x)


@connection(3)
def given_to_a_recurrent_layer(g):
    x = g.sequence()
    mask = g.mask(x)
    if g.chance(0.3):
        g.tag("mask= of Bidirectional")
        name = g.choice(("LSTM", "GRU"))
        text = of_kind(g, name, directed=False, return_sequences=True)
        text = f"layers.Bidirectional({text})"
    else:
        g.tag("mask= of a recurrent layer")
        text = of_kind(g, kind(g), return_sequences=g.chance(0.8))
    g.apply(text, x, f"mask={mask}")


@connection(1)
def given_to_bidirectional_with_states(g):
    x = g.sequence()
    size = g.size()
    text = f"layers.GRU({size}, return_state=True)"
    _, state = g.apply(text, g.sequence())
    g.tag("mask and states of Bidirectional")
    mask = f", mask={g.mask(x)}" if g.chance(0.5) else ""
    g.apply(
        f"layers.Bidirectional(layers.GRU({size}, return_sequences=True))",
        x,
        f"initial_state=[{state}, {state}]{mask}",
    )


@connection(2)
def stack(g):
    """A mask through several layers."""
    tokens = g.tokens()
    g.tag("mask through several layers")
    (h,) = g.apply(f"layers.Embedding(10, {g.size()}, mask_zero=True)", tokens)
    between = (
        "layers.Dropout(0.0)",
        'layers.Activation("tanh")',
        "layers.BatchNormalization()",
        "layers.LayerNormalization()",
        f"layers.TimeDistributed(layers.Dense({g.size()}))",
        f"layers.Dense({g.size()})",
        "layers.Identity()",
        f"layers.Bidirectional(layers.GRU({g.size()}, return_sequences=True))",
        f"layers.LSTM({g.size()}, return_sequences=True)",
    )
    for _ in range(g.integer(2, 4)):
        (h,) = g.apply(g.choice(between), h)
    g.apply(of_kind(g, kind(g), return_sequences=g.chance(0.5)), h)


@connection(1)
def pooled(g):
    x = g.sequence()
    g.tag("GlobalAveragePooling1D with a mask")
    mask = f", mask={g.mask(x)}" if g.chance(0.5) else ""
    g.apply("layers.GlobalAveragePooling1D()", f"{x}{mask}")


@connection(1)
def time_distributed(g):
    x = g.sequence()
    g.tag("TimeDistributed with a mask")
    g.apply(
        f"layers.TimeDistributed(layers.Dense({g.size()}))",
        x,
        f"mask={g.mask(x)}",
    )


@connection(1)
def masked_and_unmasked(g):
    tokens = g.tokens()
    width = g.size()
    (h,) = g.apply(f"layers.Embedding(10, {width}, mask_zero=True)", tokens)
    (h,) = g.apply(f"layers.LSTM({width}, return_sequences=True)", h)
    shape = g.shape(h)
    other = g.tensor(3, lambda found: found[:2] == shape[:2])
    g.tag("masked and unmasked, concatenated")
    pair = g.choice((f"[{h}, {other}]", f"[{other}, {h}]"))
    g.apply("layers.Concatenate()", pair)
    if g.shape(other) == shape:
        g.tag("masked and unmasked, merged")
        layer = g.choice(("Add", "Multiply", "Maximum", "Average"))
        g.apply(f"layers.{layer}()", pair)


@connection(1)
def beside_attention(g):
    """Attention takes the mask off what it reads."""
    tokens = g.tokens()
    width = g.size()
    (e,) = g.apply(f"layers.Embedding(10, {width}, mask_zero=True)", tokens)
    g.tag("masked, read by attention and by a recurrent layer")
    attention = "layers.MultiHeadAttention(2, 2)"
    calls = [
        lambda: g.apply(attention, f"{e}, {e}"),
        lambda: g.apply(of_kind(g, kind(g), return_sequences=True), e),
        lambda: g.apply(f"layers.Dense({g.size()})", e),
    ]
    g.random.shuffle(calls)
    for draw in calls[: g.integer(2, 3)]:
        (h,) = draw()
        for _ in range(g.integer(0, 2)):
            (h,) = g.apply(f"layers.Dense({g.size()})", h)


@connection(1, export=False)
def own_layers(g):
    x = g.sequence()
    text = g.choice(
        ("MaskedSum()", "FirstStepsOnly()", "DropMask()", "RecurrentInside(3)")
    )
    g.tag(f"own mask: {text.partition('(')[0]}")
    g.apply(text, x)


@connection(0.5, export=False)
def of_a_lambda(g):
    x = g.sequence()
    g.tag("Lambda with a mask")
    g.apply("layers.Lambda(doubled, mask=lambda x, mask: mask)", x)


@connection(1)
def booleans(g):
    """A mask as a tensor of its own."""
    x = g.sequence()
    g.tag("mask as a tensor")
    g.call(g.mask(x))
