"""Layers that keep a state, called several times by a `call` in Python."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss


class Twice(keras.Model):
    """Calls a layer on its input twice, and an LSTM beside.

    `order` are the calls whose outputs it gives.
    """

    def __init__(self, layer, order=(0, 1)):
        super().__init__()
        self.layer = layer
        self.lstm = layers.LSTM(3, return_sequences=True, name="lstm")
        self.head = layers.Dense(2)
        self.order = order
        if not layer.built:
            # Keras' own trial call cannot make the variables of states.
            layer.build((2, 4, 5))

    def call(self, inputs):
        outputs = [self.layer(inputs), self.layer(inputs)]
        first = self.head(self.lstm(inputs))
        return [first, *(outputs[i] for i in self.order)]


def stateful_rnn():
    return layers.GRU(3, stateful=True, return_sequences=True, name="kept")


def bidirectional():
    return layers.Bidirectional(stateful_rnn(), name="kept")


def spectral():
    return layers.SpectralNormalization(layers.Dense(3), name="kept")


def inside_a_model():
    x = keras.Input(batch_shape=(2, 4, 5))
    return keras.Model(x, stateful_rnn()(x), name="kept")


def shrunk_or_reason(model):
    """The smaller model, or the message of the refusal."""
    model(np.ones((2, 4, 5), "float32"))
    structures = keras_iss.find_structures(model, include="recurrent")
    (lstm,) = [x for x in structures if x.name.endswith("lstm")]
    if lstm.pinned:
        return None, lstm.pinned
    keras_iss.prune(model, keep={lstm.name: [0, 2]}, include="recurrent")
    return keras_iss.shrink(model, include="recurrent"), None


@pytest.mark.parametrize("order", [(1, 0), (0, 1), (1,), (0,)])
@pytest.mark.parametrize(
    "make", [stateful_rnn, bidirectional, spectral, inside_a_model]
)
@pytest.mark.filterwarnings("ignore")
def test_the_order_of_states_is_kept_or_refused(make, order):
    model = Twice(make(), order)
    small, reason = shrunk_or_reason(model)
    if small is None:
        assert "which keeps a state, several times" in reason
        return
    # Verified in inference and in training; the states themselves, too.
    x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")
    for training in (False, True):
        expected, got = (m(x, training=training) for m in (model, small))
        for wanted, other in zip(expected, got, strict=True):
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(wanted),
                keras.ops.convert_to_numpy(other),
                atol=1e-5,
            )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make", [lambda: layers.Dense(3), layers.BatchNormalization]
)
def test_without_such_a_state_any_order_will_do(make):
    small, _ = shrunk_or_reason(Twice(make()))
    assert small is not None
