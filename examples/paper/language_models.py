"""The language models of the paper: stacked LSTMs, and a highway network."""

import keras
from keras import ops

import keras_iss

SPREAD = 0.04


def uniform():
    """Initial weights, as in Zaremba et al., 2014."""
    return keras.initializers.RandomUniform(-SPREAD, SPREAD)


class _CopiedStates:
    """A stateful layer that can be trained on PyTorch.

    Keras writes the new state into the tensor that the backward pass still
    needs; so the loop gets a copy.
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        states = [ops.copy(state) for state in initial_state]
        return super().inner_loop(sequences, states, mask, training=training)


@keras.saving.register_keras_serializable(package="keras_iss_examples")
class StatefulLSTM(_CopiedStates, keras.layers.LSTM):
    """An LSTM that goes on where it ended, on PyTorch too."""


@keras.saving.register_keras_serializable(package="keras_iss_examples")
class StatefulRHN(_CopiedStates, keras_iss.layers.RHN):
    """A highway network that goes on where it ended, on PyTorch too."""


keras_iss.register_rule(StatefulLSTM, like=keras.layers.LSTM)
keras_iss.register_rule(StatefulRHN, like=keras_iss.layers.RHN)


def _of_backend(stateful, cls):
    """The class that can be trained, where Keras' own cannot."""
    if not stateful or keras.backend.backend() != "torch":
        return cls
    return {
        keras.layers.LSTM: StatefulLSTM,
        keras_iss.layers.RHN: StatefulRHN,
    }[cls]


def stacked_lstms(
    units, vocabulary, embedding, dropout=0.0, batch=None, steps=None, l1=0.0
):
    """Embedding, LSTMs, and the logits of the next word.

    Args:
        units: Sequence of integers, the size of each LSTM.
        vocabulary: Integer.
        embedding: Integer, the size of the embedding.
        dropout: Float, on the embedding and on each LSTM's output.
        batch: Optional integer. If given, the LSTMs are stateful: each call
            goes on where the last one ended.
        steps: Optional integer, the time steps of a call.
        l1: Float, strength of an L1 penalty on what reads or is read by the
            units, for comparison.

    Returns:
        A `keras.Model` with input `(batch, steps)`.
    """
    penalty = keras.regularizers.L1(l1) if l1 else None
    tokens = keras.Input(
        batch_shape=(batch, steps), dtype="int32", name="tokens"
    )
    x = keras.layers.Embedding(
        vocabulary, embedding, embeddings_initializer=uniform()
    )(tokens)
    x = keras.layers.Dropout(dropout)(x)
    recurrent = _of_backend(batch is not None, keras.layers.LSTM)
    for i, size in enumerate(units, start=1):
        x = recurrent(
            size,
            return_sequences=True,
            stateful=batch is not None,
            unit_forget_bias=False,
            kernel_initializer=uniform(),
            recurrent_initializer=uniform(),
            kernel_regularizer=penalty,
            recurrent_regularizer=penalty,
            name=f"lstm_{i}",
        )(x)
        x = keras.layers.Dropout(dropout)(x)
    logits = keras.layers.Dense(
        vocabulary,
        kernel_initializer=uniform(),
        kernel_regularizer=penalty,
        name="logits",
    )
    return keras.Model(tokens, logits(x), name="stacked_lstms")


@keras.saving.register_keras_serializable(package="keras_iss_examples")
class WordDropout(keras.layers.Layer):
    """A factor for each token: a dropped word is dropped wherever it occurs.

    Args:
        vocabulary: Integer.
        rate: Float, the share of the words that a sequence does without.
        seed: Integer seed.

    Call arguments:
        tokens: Integer tensor of shape `(batch, time)`.
        training: Boolean, whether to drop.

    Returns:
        A tensor of shape `(batch, time, 1)`.

    Source: [Gal & Ghahramani, 2016](https://arxiv.org/abs/1512.05287).
    """

    def __init__(self, vocabulary, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, tokens, training=False):
        """Ones, unless training."""
        if not training or not self.rate:
            return ops.ones_like(tokens, dtype=self.compute_dtype)[..., None]
        words = ops.ones(
            (ops.shape(tokens)[0], self.vocabulary), self.compute_dtype
        )
        words = keras.random.dropout(words, self.rate, seed=self.seed_generator)
        return ops.take_along_axis(words, tokens, axis=1)[..., None]

    def compute_output_spec(self, tokens, training=False):
        """As `call`."""
        return keras.KerasTensor((*tokens.shape, 1), self.compute_dtype)

    def get_config(self):
        """What the constructor takes."""
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "rate": self.rate,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_iss_examples")
class Bias(keras.layers.Layer):
    """Adds a bias along the last axis: the tied embedding has none."""

    def build(self, input_shape):
        """Makes the bias, of zeros."""
        self.bias = self.add_weight(
            shape=(input_shape[-1],), initializer="zeros", name="bias"
        )

    def call(self, inputs):
        """The sum."""
        return inputs + self.bias


def highway_network(
    width,
    depth,
    vocabulary,
    dropout=(0.0, 0.0, 0.0, 0.0),
    batch=None,
    steps=None,
    l1=0.0,
    l2=0.0,
):
    """A Recurrent Highway Network whose two embeddings are one.

    Args:
        width: Integer, of the state and of the embedding.
        depth: Integer, micro-layers in a time step.
        vocabulary: Integer.
        dropout: Four floats: of the input, the state, the output, and of
            whole words. One mask for all time steps.
        batch: Optional integer. If given, the network is stateful.
        steps: Optional integer, the time steps of a call.
        l1: Float, strength of an L1 penalty on single weights.
        l2: Float, of an L2 penalty.

    Returns:
        A `keras.Model` with input `(batch, steps)`.

    Source: [Zilly et al., 2017](https://arxiv.org/abs/1607.03474).
    """
    of_input, of_state, of_output, of_words = dropout
    penalty = keras.regularizers.L1L2(l1, l2) if l1 or l2 else None
    tokens = keras.Input(
        batch_shape=(batch, steps), dtype="int32", name="tokens"
    )
    embedding = keras.layers.ReversibleEmbedding(
        vocabulary,
        width,
        tie_weights=True,
        embeddings_initializer=uniform(),
        embeddings_regularizer=penalty,
        name="embedding",
    )
    x = embedding(tokens)
    if of_words:
        x = x * WordDropout(vocabulary, of_words)(tokens)
    x = _of_backend(batch is not None, keras_iss.layers.RHN)(
        width,
        depth,
        dropout=of_input,
        recurrent_dropout=of_state,
        kernel_initializer=uniform(),
        recurrent_initializer=uniform(),
        bias_initializer=uniform(),
        kernel_regularizer=penalty,
        recurrent_regularizer=penalty,
        return_sequences=True,
        stateful=batch is not None,
        name="rhn",
    )(x)
    x = keras.layers.Dropout(of_output, noise_shape=(None, 1, None))(x)
    logits = Bias(name="logits")(embedding(x, reverse=True))
    return keras.Model(tokens, logits, name="highway_network")
