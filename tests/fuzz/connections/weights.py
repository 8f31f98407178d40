"""Layers with weights that read units, other than recurrent ones."""

from tests.fuzz.connections.registry import connection


def options(g):
    given = []
    if g.chance(0.6):
        given.append(f"activation={g.activation()}")
    if g.chance(0.15):
        given.append("use_bias=False")
    return "".join(f", {argument}" for argument in given)


@connection(6, streams=True)
def dense(g):
    g.tag("Dense")
    x = g.tensor(None, lambda shape: len(shape) < 5)
    g.apply(f"layers.Dense({g.size()}{options(g)})", x)


@connection(2)
def einsum_dense(g):
    x = g.sequence()
    time, size = g.shape(x)[1], g.size()
    forms = {
        f'"abc,cd->abd", (None, {size}), bias_axes="d"': 2,
        f'"...x,xy->...y", {size}': 1,
        f'"abc,cde->abde", (None, 2, {size}), bias_axes="de"': 1,
        f'"abc,bcd->abd", ({time}, {size}), bias_axes="bd"': 1,
        f'"abc,bd->adc", ({size}, {g.width(x)}), bias_axes="d"': 0.5,
        f'"abc,bcd->ad", {size}': 1,
    }
    g.tag("EinsumDense")
    g.apply(f"layers.EinsumDense({g.choice(forms)})", x)


@connection(3)
def convolution(g):
    x, size = g.sequence(), g.size()
    width = g.width(x)
    forms = {
        f'layers.Conv1D({size}, 2, padding="causal"{options(g)})': 2,
        f'layers.Conv1D({size}, 3, padding="same"{options(g)})': 2,
        f'layers.Conv1D({size}, 2, padding="same", dilation_rate=2)': 1,
        f'layers.SeparableConv1D({size}, 2, padding="same")': 1,
        'layers.DepthwiseConv1D(2, padding="same")': 1,
        f'layers.Conv1DTranspose({size}, 2, padding="same")': 1,
        f"layers.Conv1D({size}, 2)": 1,
        f"layers.Conv1D({size}, 2, strides=2)": 1,
        f"layers.Conv1DTranspose({size}, 2, strides=2)": 1,
        f'layers.Conv1D({size}, 2, data_format="channels_first")': 0.2,
    }
    if width % 2 == 0:
        forms['layers.Conv1D(4, 2, padding="same", groups=2)'] = 1
    text = g.choice(forms)
    g.tag(text.partition("(")[0].rpartition(".")[2])
    g.apply(text, x)


@connection(2)
def time_distributed(g):
    inner = g.choice(
        (
            f"layers.Dense({g.size()}{options(g)})",
            'layers.Activation("tanh")',
            "layers.BatchNormalization()",
            "layers.LayerNormalization()",
            "layers.Dropout(0.0)",
        )
    )
    g.tag("TimeDistributed")
    g.apply(f"layers.TimeDistributed({inner})", g.sequence())


@connection(3)
def normalization(g):
    x = g.tensor(None, lambda shape: 1 < len(shape) < 5)
    rank = len(g.shape(x))
    forms = {
        "layers.BatchNormalization()": 4,
        "layers.BatchNormalization(scale=False, center=False)": 1,
        "layers.LayerNormalization()": 1,
        "layers.RMSNormalization()": 0.5,
        "layers.UnitNormalization()": 0.5,
    }
    if rank == 3:
        forms["layers.BatchNormalization(axis=1)"] = 1
        forms["layers.LayerNormalization(axis=1)"] = 1
        forms["layers.UnitNormalization(axis=1)"] = 0.5
        forms["layers.GroupNormalization(1)"] = 0.5
    text = g.choice(forms)
    g.tag(text[len("layers.") :])
    g.apply(text, x)


@connection(1, export=False)
def spectral_normalization(g):
    x = g.sequence()
    inner = g.choice(
        (
            f"layers.Dense({g.size()})",
            f'layers.Conv1D({g.size()}, 2, padding="same")',
        )
    )
    g.tag("SpectralNormalization")
    # In training it iterates.
    g.apply(f"layers.SpectralNormalization({inner})", x)


@connection(1, export=False)
def low_rank_adaptation(g):
    x = g.sequence()
    layer = g.layer(f"layers.Dense({g.size()})")
    g.call(f"{layer}({x})")
    g.tag("LoRA")
    g.define(f"{layer}.enable_lora(2)")


@connection(1)
def parametric(g):
    x = g.tensor(3, lambda shape: None not in shape[1:])
    g.tag("PReLU")
    shared = g.choice(("", "shared_axes=[1]", "shared_axes=[1]"))
    g.apply(f"layers.PReLU({shared})", x)


@connection(1)
def tokens_encoded(g):
    x = g.tokens()
    g.tag("CategoryEncoding")
    g.apply(
        'layers.CategoryEncoding(num_tokens=10, output_mode="multi_hot")', x
    )


@connection(1)
def flattened(g):
    x = g.tensor(None, lambda shape: len(shape) > 2 and None not in shape[1:])
    g.tag("Flatten and Dense")
    (h,) = g.apply("layers.Flatten()", x)
    g.apply(f"layers.Dense({g.size()}{options(g)})", h)
