"""Layers that read several tensors."""

from tests.fuzz.connections.registry import connection

MERGING = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")


@connection(5, streams=True)
def of_one_shape(g):
    first = g.tensor(None, lambda shape: len(shape) > 1)
    name = g.choice(MERGING)
    count = 2 if name == "Subtract" or g.chance(0.8) else 3
    tensors = [first, *(g.like(first) for _ in range(count - 1))]
    g.tag(name)
    g.apply(f"layers.{name}()", f"[{', '.join(tensors)}]")


@connection(1)
def broadcast(g):
    first = g.sequence()
    width = g.width(first)
    second = g.tensor(2, lambda shape: shape[-1] == width)
    name = g.choice(MERGING)
    g.tag(f"{name} of other rank")
    form = g.choice(("[{a}, {b}]", "[{a}, {b}[:, None]]"))
    g.apply(f"layers.{name}()", form.format(a=first, b=second))


@connection(4, streams=True)
def concatenated(g):
    first = g.tensor(None, lambda shape: 1 < len(shape) < 4)
    shape = g.shape(first)
    second = g.tensor(len(shape), lambda found: found[:-1] == shape[:-1])
    if shape[-1] + g.width(second) > 8:
        first, second = second, first
        g.choice(() if shape[-1] > 5 else (1,))
    g.tag("Concatenate")
    g.apply("layers.Concatenate()", f"[{first}, {second}]")


@connection(1)
def concatenated_over_time(g):
    first = g.tensor(3, lambda shape: 1 < (shape[1] or 0) < 6)
    width = g.width(first)
    second = g.tensor(
        3, lambda found: found[-1] == width and (found[1] or 9) < 6
    )
    g.tag("Concatenate over time")
    g.apply("layers.Concatenate(axis=1)", f"[{first}, {second}]")


@connection(3)
def dot(g):
    first = g.tensor(None, lambda shape: len(shape) in (2, 3))
    second = g.tensor(None, lambda shape: len(shape) in (2, 3))
    shapes = g.shape(first), g.shape(second)
    axes = [
        (i, j)
        for i in range(1, len(shapes[0]))
        for j in range(1, len(shapes[1]))
        if shapes[0][i] == shapes[1][j] is not None
    ]
    pair = g.choice(axes)
    normalized = ", normalize=True" if g.chance(0.3) else ""
    text = f"{pair[0]}" if pair[0] == pair[1] else f"{pair}"
    g.tag(f"Dot, ranks {len(shapes[0])} and {len(shapes[1])}")
    g.apply(f"layers.Dot(axes={text}{normalized})", f"[{first}, {second}]")
