"""Bi-Directional Attention Flow, the question answering model of the paper."""

import keras
from keras import ops

HIDDEN_LOGIT = -1e9


def bidirectional(units, x, mask, name, dropout=0.0):
    """Two LSTMs, one from each end, side by side.

    `keras.layers.Bidirectional` has one size for both directions; the paper's
    differ in every row.

    Args:
        units: Two integers: forward and backward.
        x: Tensor of shape `(batch, time, features)`.
        mask: Boolean tensor of shape `(batch, time)`.
        name: String.
        dropout: Float, of what they read.
    """
    return _directions(units, name, dropout)(x, mask)


def _directions(units, name, dropout):
    forward = keras.layers.LSTM(
        units[0], return_sequences=True, name=f"{name}_forward"
    )
    backward = keras.layers.LSTM(
        units[1],
        return_sequences=True,
        go_backwards=True,
        name=f"{name}_backward",
    )
    drop = keras.layers.Dropout(dropout, name=f"{name}_dropout")

    def call(x, mask):
        x = drop(x)
        from_the_end = ops.flip(backward(x, mask=mask), axis=1)
        # Without the mask that a layer would carry on: what follows takes
        # its own.
        return ops.concatenate([forward(x, mask=mask), from_the_end], axis=-1)

    return call


def bidaf(
    sizes,
    words,
    words_without_vector,
    characters,
    vectors=None,
    dropout=0.2,
    filters=100,
    word_size=100,
    word_length=16,
):
    """The model of Seo et al., 2017.

    Args:
        sizes: Dict from `"phrase"`, `"modelling_1"`, `"modelling_2"` and
            `"output"` with `"_forward"` or `"_backward"` to the units.
        words: Integer, the words that have a vector.
        words_without_vector: Integer, words (padding and unknown ones too)
            whose vectors are always trained. They come first.
        characters: Integer.
        vectors: Optional array of shape `(words, word_size)`. If given, they
            are not trained.
        dropout: Float, before each LSTM.
        filters: Integer, of the convolution over characters.
        word_size: Integer, of the word vectors.
        word_length: Integer, characters of a word.

    Returns:
        A `keras.Model` from `context_words` `(batch, time)`,
        `context_characters` `(batch, time, word_length)`, and the same of
        `question`, to the logits `start` and `end`, `(batch, time)`.
    """
    names = ("context", "question")
    of_words = {
        name: keras.Input((None,), dtype="int32", name=f"{name}_words")
        for name in names
    }
    of_characters = {
        name: keras.Input(
            (None, word_length), dtype="int32", name=f"{name}_characters"
        )
        for name in names
    }
    embed = _embedding(
        words, words_without_vector, characters, vectors, filters, word_size
    )
    phrase = _directions(_both(sizes, "phrase"), "phrase", dropout)
    mask, encoded = {}, {}
    for name in names:
        mask[name] = ops.not_equal(of_words[name], 0)
        x = embed(of_words[name], of_characters[name])
        encoded[name] = phrase(x, mask[name])
    h, u = encoded["context"], encoded["question"]
    p0 = attention_flow(h, u, mask["context"], mask["question"])
    g = p0
    for name in ("modelling_1", "modelling_2"):
        g = bidirectional(_both(sizes, name), g, mask["context"], name, dropout)
    concatenate = keras.layers.Concatenate
    start = _pointer("start", concatenate()([g, p0]), mask["context"])
    weights = ops.expand_dims(ops.softmax(start, axis=-1), axis=1)
    start_state = ops.matmul(weights, g)
    everywhere = ops.expand_dims(
        ops.cast(ops.ones_like(of_words["context"]), "float32"), axis=-1
    )
    start_state = everywhere * start_state
    x = concatenate()([p0, g, start_state, g * start_state])
    x = bidirectional(
        _both(sizes, "output"), x, mask["context"], "output", dropout
    )
    end = _pointer("end", concatenate()([x, p0]), mask["context"])
    inputs = [*of_words.values(), *of_characters.values()]
    return keras.Model(inputs, {"start": start, "end": end}, name="bidaf")


def _both(sizes, name):
    return sizes[f"{name}_forward"], sizes[f"{name}_backward"]


def _embedding(
    words, words_without_vector, characters, vectors, filters, word_size
):
    """Function from words and characters to what two highways make of them."""
    trained = keras.layers.Embedding(
        words_without_vector, word_size, name="words_without_vector"
    )
    table = keras.layers.Embedding(
        words,
        word_size,
        trainable=vectors is None,
        name="word_vectors",
        weights=None if vectors is None else [vectors],
    )
    of_characters = keras.layers.Embedding(characters, 8, name="characters")
    convolution = keras.layers.Conv2D(
        filters, (1, 5), activation="relu", name="character_convolution"
    )
    size = filters + word_size
    highways = [
        (
            keras.layers.Dense(
                size, activation="relu", name=f"highway_{i}_transform"
            ),
            keras.layers.Dense(
                size,
                activation="sigmoid",
                bias_initializer=keras.initializers.Constant(-1.0),
                name=f"highway_{i}_gate",
            ),
        )
        for i in (1, 2)
    ]

    def embed(words, characters):
        known = ops.maximum(words - words_without_vector, 0)
        unknown = ops.minimum(words, words_without_vector - 1)
        x = ops.where(
            ops.expand_dims(words < words_without_vector, axis=-1),
            trained(unknown),
            table(known),
        )
        spelt = ops.max(convolution(of_characters(characters)), axis=2)
        x = keras.layers.Concatenate()([spelt, x])
        for transform, gate in highways:
            opened = gate(x)
            x = opened * transform(x) + (1.0 - opened) * x
        return x

    return embed


def attention_flow(h, u, of_context, of_question):
    """Attention both ways.

    Args:
        h: The passage, `(batch, time, size)`.
        u: The question, `(batch, question time, size)`.
        of_context: Mask of the passage, `(batch, time)`.
        of_question: Mask of the question.

    Returns:
        `[h; u~; h * u~; h * h~]`, of shape `(batch, time, 4 size)`.

    Source: equations 1 to 4 of Seo et al., 2017. The similarity
    `w . [h; u; h * u]` is computed as three products, so that nothing of the
    size of all pairs times all units is ever held.
    """
    by_h = keras.layers.Dense(1, use_bias=False, name="similarity_context")(h)
    by_u = keras.layers.Dense(1, use_bias=False, name="similarity_question")(u)
    weighted = keras.layers.EinsumDense(
        "btd,d->btd", output_shape=(None, h.shape[-1]), name="similarity_both"
    )(h)
    both = ops.matmul(weighted, ops.transpose(u, (0, 2, 1)))
    # In this order: on TensorFlow, Keras takes a second summand of one column
    # for a bias of the last axis, where both axes have one length.
    similarity = by_h + both + ops.transpose(by_u, (0, 2, 1))
    similarity = ops.where(
        ops.expand_dims(of_question, axis=1), similarity, HIDDEN_LOGIT
    )
    attended = ops.matmul(ops.softmax(similarity, axis=-1), u)
    strongest = ops.where(
        of_context, ops.max(similarity, axis=-1), HIDDEN_LOGIT
    )
    weights = ops.expand_dims(ops.softmax(strongest, axis=-1), axis=1)
    passage = ops.matmul(weights, h)
    return keras.layers.Concatenate()([h, attended, h * attended, h * passage])


def _pointer(name, x, mask):
    """Logits of the tokens; of padding, none."""
    logits = ops.squeeze(keras.layers.Dense(1, name=f"{name}_logit")(x), -1)
    hide = ops.where(mask, 0.0, HIDDEN_LOGIT)
    return keras.layers.Add(name=name)([logits, hide])
