"""Layers that are called again, and matrices that several layers read."""

from tests.fuzz.connections.registry import connection


@connection(4)
def called_again(g):
    layer = g.choice(list(g.scope.called))
    read = g.shape(g.scope.called[layer])
    x = g.tensor(
        len(read),
        lambda shape: (
            shape[-1] == read[-1] and (len(read) < 5 or shape == read)
        ),
    )
    g.tag("called again")
    g.call(f"{layer}({x})")


@connection(1)
def in_a_loop(g):
    x = g.sequence()
    width = g.width(x)
    text = g.choice(
        (
            f"layers.LSTM({width}, return_sequences=True)",
            f"layers.GRU({width}, return_sequences=True)",
            f'layers.Dense({width}, activation="tanh")',
        )
    )
    g.tag("called in a loop")
    layer = g.layer(text)
    for _ in range(g.integer(2, 3)):
        (x,) = g.call(f"{layer}({x})")


@connection(1)
def wrapped_and_called(g):
    """A layer held by a wrapper, and called itself."""
    x = g.sequence()
    width = g.width(x)
    dense = g.layer(f"layers.Dense({g.size()})")
    g.tag("wrapped and called")
    calls = [
        lambda: g.apply(f"layers.TimeDistributed({dense})", x),
        lambda: g.call(
            f"{dense}({g.tensor(None, lambda shape: shape[-1] == width)})"
        ),
    ]
    g.random.shuffle(calls)
    for draw in calls:
        draw()


@connection(1)
def other_length(g):
    """The same layer on a sequence of another length."""
    x = g.tensor(3, lambda shape: (shape[1] or 0) > 1)
    text = g.choice(
        (
            f"layers.LSTM({g.size()}, return_sequences=True)",
            f"layers.GRU({g.size()})",
            f"layers.Dense({g.size()})",
            f"layers.Bidirectional(layers.LSTM({g.size()}))",
        )
    )
    g.tag("called on another length")
    layer = g.layer(text)
    g.call(f"{layer}({x})")
    g.call(f"{layer}({x}[:, 1:])")


@connection(1)
def reversible_embedding(g):
    x = g.tokens()
    width = g.size()
    tied = g.choice(("", "", ", tie_weights=False"))
    g.tag("ReversibleEmbedding")
    layer = g.layer(f"layers.ReversibleEmbedding(10, {width}{tied})")
    (h,) = g.call(f"{layer}({x})")
    if g.chance(0.7):
        text = f"layers.LSTM({width}, return_sequences=True)"
        (h,) = g.apply(text, h)
    g.call(f"{layer}({h}, reverse=True)")


@connection(1, export=False)
def matrix_of_another_layer(g):
    x = g.sequence()
    width = g.size()
    dense = g.layer(f"layers.Dense({width})")
    (h,) = g.call(f"{dense}({x})")
    g.tag("tied to the matrix of a layer")
    if g.chance(0.5):
        g.apply(f'Tied({dense}, "kernel")', h)
    else:
        other = g.tensor(3, lambda shape: shape[-1] == g.width(x))
        g.call(f"ops.matmul({other}, {dense}.kernel)")
