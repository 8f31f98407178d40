"""Images over time: convolutional recurrent layers and what reads them."""

from tests.fuzz.connections.registry import connection


@connection(4)
def convolutional(g):
    x = g.tensor(None, lambda shape: len(shape) in (4, 5, 6))
    rank = len(g.shape(x)) - 3
    size = g.size()
    options = [f"{size}", "2", 'padding="same"']
    if g.chance(0.7):
        options.append("return_sequences=True")
    if g.chance(0.2):
        options.append("go_backwards=True")
    if g.chance(0.2):
        options.append(f"activation={g.activation()}")
    if g.chance(0.1):
        options.append("use_bias=False")
    if g.chance(0.1):
        options.append("strides=2")
    g.tag(f"ConvLSTM{rank}D")
    g.apply(f"layers.ConvLSTM{rank}D({', '.join(options)})", x)


@connection(1)
def bidirectional(g):
    x = g.tensor(5)
    mode = g.choice(("concat", "sum"))
    g.tag("Bidirectional of ConvLSTM2D")
    inner = f'layers.ConvLSTM2D({g.size()}, 2, padding="same")'
    g.apply(f"layers.Bidirectional({inner}, merge_mode={mode!r})", x)


@connection(3)
def flat_image(g):
    """What reads an image `(batch, height, width, filters)`."""
    x = g.tensor(4, lambda shape: None not in shape[1:])
    size = g.size()
    forms = {
        f'layers.Conv2D({size}, 2, padding="same")': 2,
        f"layers.Conv2D({size}, 2, strides=1)": 1,
        f"layers.Conv2DTranspose({size}, 2)": 1,
        f'layers.SeparableConv2D({size}, 2, padding="same")': 0.5,
        'layers.DepthwiseConv2D(2, padding="same")': 0.5,
        'layers.MaxPooling2D(2, padding="same")': 1,
        'layers.AveragePooling2D(2, padding="same")': 1,
        "layers.UpSampling2D(2)": 1,
        "layers.ZeroPadding2D(1)": 0.5,
        "layers.GlobalAveragePooling2D()": 2,
        "layers.GlobalMaxPooling2D()": 1,
        "layers.SpatialDropout2D(0.0)": 0.5,
        "layers.Flatten()": 1,
        "layers.BatchNormalization()": 1,
        f"layers.Reshape((-1, {g.width(x)}))": 1,
    }
    text = g.choice(forms)
    g.tag(text.partition("(")[0].rpartition(".")[2])
    g.apply(text, x)


@connection(3)
def image_over_time(g):
    """What reads images `(batch, time, height, width, filters)`."""
    x = g.tensor(5)
    size = g.size()
    forms = {
        f'layers.Conv3D({size}, 2, padding="same")': 2,
        'layers.MaxPooling3D(2, padding="same")': 1,
        'layers.AveragePooling3D((1, 2, 2), padding="same")': 1,
        "layers.UpSampling3D((1, 2, 1))": 0.5,
        "layers.GlobalAveragePooling3D()": 1,
        "layers.GlobalMaxPooling3D()": 1,
        f"layers.TimeDistributed(layers.Conv2D({size}, 2))": 1,
        "layers.TimeDistributed(layers.GlobalAveragePooling2D())": 1,
        "layers.TimeDistributed(layers.Flatten())": 1,
        "layers.BatchNormalization()": 1,
        f"layers.Dense({size})": 1,
    }
    text = g.choice(forms)
    g.tag(text.partition("(")[0].rpartition(".")[2] + " of images")
    g.apply(text, x)


@connection(1, export=False)
def as_a_sequence(g):
    """An image of two axes becomes a sequence, and back."""
    x = g.tensor(4, lambda shape: None not in shape[1:])
    shape = g.shape(x)
    g.tag("image as a sequence")
    g.call(f"ops.reshape({x}, (-1, {shape[1] * shape[2]}, {shape[3]}))")
