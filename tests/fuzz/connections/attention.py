"""Attention of all kinds."""

from tests.fuzz.connections.registry import connection


def same_batch(g, x):
    """Another sequence, of whatever length and size."""
    return g.choice((x, g.sequence(), g.sequence()))


@connection(5)
def multi_head(g):
    query = g.sequence()
    value = same_batch(g, query)
    options, arguments = [], [query, value]
    g.tag("MultiHeadAttention")
    if query == value:
        g.tag("MultiHeadAttention of itself")
    if g.chance(0.3):
        time = g.shape(value)[1]
        key = g.tensor(3, lambda shape: shape[1] == time)
        arguments.append(key)
        g.tag("MultiHeadAttention with a key")
    if g.chance(0.2):
        options.append(f"value_dim={g.size()}")
    if g.chance(0.2):
        options.append(f"output_shape={g.size()}")
    if g.chance(0.1):
        options.append("use_bias=False")
    if g.chance(0.1):
        options.append("dropout=0.1")
        g.is_random = True
    if g.chance(0.2):
        g.tag("MultiHeadAttention with a causal mask")
        arguments.append("use_causal_mask=True")
    if g.chance(0.15):
        g.tag("MultiHeadAttention with query_mask=")
        arguments.append(f"query_mask={g.mask(query)}")
    elif g.chance(0.15):
        g.tag("MultiHeadAttention with value_mask=")
        arguments.append(f"value_mask={g.mask(value)}")
    if g.chance(0.15) and not g.for_export:
        g.tag("MultiHeadAttention with scores")
        arguments.append("return_attention_scores=True")
    text = ", ".join(["2", f"{g.size()}", *options])
    g.apply(f"layers.MultiHeadAttention({text})", *arguments)


@connection(1, export=False)
def multi_head_over_axes(g):
    x = g.tensor(4)
    axes = g.choice(("1", "2", "(1, 2)"))
    g.tag("MultiHeadAttention over axes")
    g.apply(f"layers.MultiHeadAttention(2, 2, attention_axes={axes})", x, x)


@connection(1)
def grouped_query(g):
    query = g.sequence()
    value = same_batch(g, query)
    heads = g.choice(((2, 1), (2, 2), (4, 2)))
    g.tag("GroupQueryAttention")
    causal = ", use_causal_mask=True" if g.chance(0.2) else ""
    g.apply(
        f"layers.GroupQueryAttention({g.size()}, {heads[0]}, {heads[1]})",
        query,
        f"{value}{causal}",
    )


@connection(4)
def dot_product(g):
    kind = g.choice(("Attention", "Attention", "AdditiveAttention"))
    query = g.sequence()
    width, time = g.width(query), g.shape(query)[1]
    value = g.tensor(3, lambda shape: shape[-1] == width)
    tensors = [query, value]
    options, arguments = [], []
    g.tag(kind)
    if g.chance(0.3):
        time = g.shape(value)[1]
        tensors[1] = g.tensor(3, lambda shape: shape[1] == time)
        tensors.append(value)
        g.tag(f"{kind} with a key")
    if g.chance(0.3):
        options.append(f"use_scale={kind == 'Attention'}")
    if kind == "Attention" and g.chance(0.3):
        g.tag("Attention, concatenated scores")
        options.append('score_mode="concat"')
    if g.chance(0.1):
        options.append("dropout=0.1")
        g.is_random = True
    if g.chance(0.2):
        g.tag(f"{kind} with a causal mask")
        arguments.append("use_causal_mask=True")
    if g.chance(0.2):
        g.tag(f"{kind} with mask=")
        arguments.append(f"mask=[{g.mask(query)}, {g.mask(tensors[1])}]")
    if g.chance(0.2):
        g.tag(f"{kind} with scores")
        arguments.append("return_attention_scores=True")
    text = f"layers.{kind}({', '.join(options)})"
    g.apply(text, f"[{', '.join(tensors)}]", *arguments)


@connection(2)
def by_operations(g):
    query = g.sequence()
    width = g.width(query)
    value = g.tensor(3, lambda shape: shape[-1] == width)
    scores = g.choice(
        (
            f"ops.matmul({query}, ops.transpose({value}, (0, 2, 1)))",
            f'ops.einsum("btu,bsu->bts", {query}, {value})',
            f"ops.matmul({query}, ops.swapaxes({value}, 1, 2)) / {width}**0.5",
        )
    )
    g.tag("attention by operations")
    (weights,) = g.call(f"ops.softmax({scores}, axis=-1)")
    g.call(
        g.choice(
            (
                f"ops.matmul({weights}, {value})",
                f'ops.einsum("bts,bsu->btu", {weights}, {value})',
            )
        )
    )


@connection(1)
def pooled_by_scores(g):
    """A weight for each time step, and the weighted sum."""
    x = g.sequence()
    g.tag("attention that pools")
    (score,) = g.apply('layers.Dense(1, activation="tanh")', x)
    (weights,) = g.call(f"ops.softmax({score}, axis=1)")
    g.call(
        g.choice(
            (
                f"ops.sum({x} * {weights}, axis=1)",
                f"ops.matmul(ops.transpose({weights}, (0, 2, 1)), {x})[:, 0]",
                f'ops.einsum("btu,bt->bu", {x}, {weights}[:, :, 0])',
            )
        )
    )


@connection(1, export=False)
def by_one_operation(g):
    x = g.sequence()
    if g.shape(x)[1] is None:
        heads = f"ops.expand_dims({x}, 2)"
    else:
        heads = f"ops.reshape({x}, (-1, {g.shape(x)[1]}, 1, {g.width(x)}))"
    g.tag("ops.dot_product_attention")
    (h,) = g.call(f"ops.dot_product_attention({heads}, {heads}, {heads})")
    g.call(f"ops.squeeze({h}, 2)")
