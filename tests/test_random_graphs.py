"""Whatever is connected with whatever: surgery changes no output."""

import keras
import numpy as np
from hypothesis import HealthCheck, event, given, seed, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_iss
from tests.cases import inputs_for, randomize

BACKEND = keras.backend.backend()

# Together more than 200, none of them twice. PyTorch compiles nothing.
GRAPHS, SEED = {
    "tensorflow": (25, 1),
    "torch": (170, 2),
    "jax": (10, 3),
}[BACKEND]

DEPTH = 8
STEPS = 4
SIZES = st.integers(2, 4)


class Grower:
    """Grows a random graph of sequences `(batch, STEPS, features)`."""

    def __init__(self, draw):
        self.draw = draw
        self.shared = []
        self.inputs = [keras.Input((STEPS, 3))]
        self.tensors = list(self.inputs)
        self.vectors = []

    def tensor(self):
        """One of the sequences so far, a late one rather than an early."""
        last = len(self.tensors) - 1
        back = self.draw(st.integers(0, last))
        return self.tensors[last - min(back, self.draw(st.integers(0, last)))]

    def pair(self):
        """Two sequences of one size, or none."""
        first = self.tensor()
        others = [x for x in self.tensors if x.shape == first.shape]
        return first, self.draw(st.sampled_from(others))

    def grow(self):
        """Adds something."""
        name = self.draw(st.sampled_from(sorted(GROWTHS)))
        event(name)
        grown = GROWTHS[name](self)
        if grown is not None:
            self.tensors.append(grown)

    def model(self):
        """All that nothing reads, behind dense heads."""
        leaves = [x for x in self.tensors[1:] if not is_read(x)]
        outputs = [layers.Dense(2)(x) for x in leaves]
        outputs += [layers.Dense(2)(x) for x in self.vectors]
        return keras.Model(self.inputs[0], outputs)


def is_read(tensor):
    """Whether anything reads it; its layer may have other outputs."""
    return any(
        tensor is read
        for node in tensor._keras_history.operation._outbound_nodes
        for read in node.input_tensors
    )


GROWTHS = {}


def growth(function):
    GROWTHS[function.__name__] = function
    return function


def recurrent_layer(self):
    """A recurrent layer of a random kind."""
    size = self.draw(SIZES)
    kind = self.draw(
        st.sampled_from(
            [
                lambda **k: layers.LSTM(size, **k),
                lambda **k: layers.GRU(size, **k),
                lambda **k: layers.GRU(size, reset_after=False, **k),
                lambda **k: layers.SimpleRNN(size, **k),
                lambda **k: layers.RNN(layers.LSTMCell(size), **k),
                lambda **k: layers.RNN(
                    [layers.GRUCell(3), layers.LSTMCell(size)], **k
                ),
                lambda **k: layers.LSTM(size, activation="sigmoid", **k),
            ]
        )
    )
    return kind(return_sequences=True)


@growth
def recurrent(self):
    layer = recurrent_layer(self)
    self.shared.append(layer)
    return layer(self.tensor())


@growth
def bidirectional(self):
    size = self.draw(SIZES)
    kind = self.draw(st.sampled_from([layers.LSTM, layers.GRU]))
    mode = self.draw(st.sampled_from(["concat", "sum", "mul", "ave"]))
    layer = layers.Bidirectional(
        kind(size, return_sequences=True), merge_mode=mode
    )
    self.shared.append(layer)
    return layer(self.tensor())


@growth
def called_again(self):
    for layer in self.shared[::-1]:
        features = layer._inbound_nodes[0].input_tensors[0].shape[-1]
        fitting = [x for x in self.tensors if x.shape[-1] == features]
        return layer(self.draw(st.sampled_from(fitting)))


@growth
def read_by_weights(self):
    size = self.draw(SIZES)
    layer = self.draw(
        st.sampled_from(
            [
                lambda: layers.Dense(size, activation="relu"),
                lambda: layers.Dense(size, activation="sigmoid"),
                lambda: layers.TimeDistributed(layers.Dense(size)),
                lambda: layers.Conv1D(size, 2, padding="causal"),
                lambda: layers.EinsumDense(
                    "abc,cd->abd", (STEPS, size), bias_axes="d"
                ),
                layers.BatchNormalization,
            ]
        )
    )()
    self.shared.append(layer)
    return layer(self.tensor())


@growth
def multi_head_attention(self):
    return layers.MultiHeadAttention(2, 2)(self.tensor(), self.tensor())


@growth
def carried(self):
    function = self.draw(
        st.sampled_from(
            [
                layers.Dropout(0.5),
                layers.Activation("tanh"),
                layers.Activation("softplus"),
                layers.LeakyReLU(),
                layers.Softmax(axis=1),
                lambda x: 0.5 * x + 1.0,
                lambda x: -x,
                lambda x: ops.square(x),
                lambda x: ops.flip(x, axis=1),
                lambda x: ops.cumsum(x, axis=1),
                lambda x: x - ops.mean(x, axis=1, keepdims=True),
                lambda x: x * ops.max(x, axis=1, keepdims=True),
                lambda x: ops.concatenate([x[:, 1:], x[:, :1]], axis=1),
                lambda x: ops.transpose(ops.transpose(x, (2, 0, 1)), (1, 2, 0)),
                lambda x: ops.reshape(x, (-1, STEPS, 1, x.shape[-1]))[:, :, 0],
                lambda x: layers.RepeatVector(STEPS)(x[:, -1]),
            ]
        )
    )
    return function(self.tensor())


@growth
def mixed(self):
    function = self.draw(
        st.sampled_from(
            [
                layers.LayerNormalization(),
                lambda x: ops.softmax(x),
                lambda x: ops.flip(x, axis=-1),
                lambda x: ops.cumsum(x, axis=-1),
                lambda x: x + ops.mean(x, axis=-1, keepdims=True),
                lambda x: ops.concatenate([x[:, :, :1], x[:, :, 1:]], axis=-1),
            ]
        )
    )
    return function(self.tensor())


@growth
def merged(self):
    first, second = self.pair()
    function = self.draw(
        st.sampled_from(
            [
                lambda a, b: layers.Add()([a, b]),
                lambda a, b: layers.Multiply()([a, b]),
                lambda a, b: layers.Maximum()([a, b]),
                lambda a, b: layers.Average()([a, b]),
                lambda a, b: layers.Attention()([a, b]),
                lambda a, b: layers.AdditiveAttention()([a, b]),
                lambda a, b: a - ops.tanh(b),
                lambda a, b: ops.where(a > b, a, b),
                lambda a, b: ops.einsum("btu,bsu->bts", a, b),
                lambda a, b: a + b[:, -1:],
            ]
        )
    )
    return function(first, second)


@growth
def concatenated(self):
    first, second = self.tensor(), self.tensor()
    if first.shape[-1] + second.shape[-1] <= 10:
        return layers.Concatenate()([first, second])


@growth
def encoded_and_decoded(self):
    size = self.draw(SIZES)
    kind = self.draw(st.sampled_from([layers.LSTM, layers.GRU]))
    _, *states = kind(size, return_state=True)(self.tensor())
    self.vectors.append(states[0])
    return kind(size, return_sequences=True)(
        self.tensor(), initial_state=states
    )


@growth
def nested(self):
    x = self.tensor()
    return keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            recurrent_layer(self),
            layers.Dropout(0.1),
            layers.GRU(self.draw(SIZES), return_sequences=True),
        ]
    )(x)


@growth
def flattened(self):
    x = layers.Flatten()(self.tensor())
    size = self.draw(SIZES)
    return layers.RepeatVector(STEPS)(layers.Dense(size)(x))


@st.composite
def graphs(draw):
    """A model, what to include, and a seed."""
    keras.utils.clear_session()
    grower = Grower(draw)
    grower.tensors.append(recurrent(grower))
    for _ in range(draw(st.integers(1, DEPTH))):
        grower.grow()
    kinds = [("recurrent",), ("recurrent", "dense")]
    return (
        grower.model(),
        draw(st.sampled_from(kinds)),
        draw(st.integers(0, 999)),
    )


@seed(SEED)
@settings(
    max_examples=GRAPHS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(graphs())
def test_surgery_changes_no_output_of_any_graph(drawn):
    model, include, number = drawn
    randomize(model, number)
    structures = keras_iss.find_structures(model, include)
    event("all pinned" if not structures.free else "some free")
    rng = np.random.default_rng(number)
    keep = {
        one.name: rng.choice(
            one.size, rng.integers(1, one.size + 1), replace=False
        )
        for one in structures.free
    }
    if keep:
        keras_iss.prune(model, keep=keep, include=include)
    small = keras_iss.shrink(model, include=include)
    assert small.count_params() == structures.counts(shrunk=True).weights
    x = inputs_for(model, number)
    for one, other in zip(
        keras.tree.flatten(model(x)), keras.tree.flatten(small(x)), strict=True
    ):
        one, other = map(keras.ops.convert_to_numpy, (one, other))
        scale = max(1.0, np.abs(one).max())
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5 * scale)
