"""Layers without weights that carry units along, or mix them."""

from tests.fuzz.connections.registry import connection

POINTWISE = {
    'layers.Activation("tanh")': 2,
    'layers.Activation("softplus")': 1,
    "layers.Activation(doubled)": 1,
    "layers.Activation(shifted)": 1,
    "layers.ReLU()": 1,
    "layers.ReLU(max_value=1.0)": 1,
    "layers.LeakyReLU()": 1,
    "layers.ELU()": 1,
    "layers.Softmax(axis=1)": 1,
    "layers.Softmax()": 0.3,
    "layers.Rescaling(0.5)": 1,
    "layers.Rescaling(0.5, offset=1.0)": 0.5,
    "layers.Identity()": 1,
    "layers.ActivityRegularization(l2=0.1)": 1,
}

RANDOM = {
    "layers.Dropout(0.3)": 2,
    "layers.Dropout(0.3, noise_shape=(None, 1, {width}))": 1,
    "layers.SpatialDropout1D(0.3)": 1,
    "layers.GaussianDropout(0.3)": 1,
    "layers.GaussianNoise(0.3)": 1,
    "layers.AlphaDropout(0.3)": 1,
}

OVER_TIME = {
    'layers.MaxPooling1D(2, padding="same")': 1,
    "layers.AveragePooling1D(2)": 1,
    "layers.UpSampling1D(2)": 1,
    "layers.ZeroPadding1D(1)": 1,
    "layers.Cropping1D(1)": 1,
    "layers.AdaptiveAveragePooling1D(2)": 0.3,
}

RESHAPED = {
    "layers.Permute((2, 1))": 2,
    "layers.Reshape((-1, {width}))": 1,
    "layers.Reshape(({time}, 1, {width}))": 1,
    "layers.Reshape((1, {time}, {width}))": 1,
    "layers.Reshape(({time} * {width},))": 1,
    "layers.Flatten()": 1,
}

POOLED = {
    "layers.GlobalAveragePooling1D()": 2,
    "layers.GlobalMaxPooling1D()": 2,
    "layers.GlobalAveragePooling1D(keepdims=True)": 1,
    'layers.GlobalMaxPooling1D(data_format="channels_first")': 0.3,
}


def drawn(g, texts, x):
    text = g.choice(texts)
    g.tag(text[len("layers.") :])
    time, width = g.shape(x)[1], g.width(x)
    g.apply(text.format(time=time, width=width), x)


@connection(4, streams=True)
def pointwise(g):
    drawn(g, POINTWISE, g.sequence())


@connection(2)
def noise(g):
    x = g.sequence()
    g.is_random = True
    drawn(g, RANDOM, x)


@connection(2)
def over_time(g):
    drawn(g, OVER_TIME, g.tensor(3, lambda shape: (shape[1] or 0) > 2))


@connection(2)
def pooled(g):
    drawn(g, POOLED, g.sequence())


@connection(2)
def reshaped(g):
    drawn(g, RESHAPED, g.tensor(3, lambda shape: shape[1] is not None))


@connection(2)
def repeated(g):
    g.tag("RepeatVector")
    g.apply(f"layers.RepeatVector({g.steps})", g.vector())
