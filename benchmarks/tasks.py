"""Four small tasks on real data, each minutes of training on two cores.

- `language`: the next word; two LSTMs on State of the Union addresses.
- `punctuation`: which sign follows each word of them; a bidirectional LSTM
  that tags.
- `speakers`: who says a vowel; an LSTM on masked recordings of unequal length
  (JapaneseVowels, which ships with the package `aeon`).
- `energy`: the second half of a day's energy demand from the first; two GRUs
  (ItalyPowerDemand, in `aeon`, too).
"""

import dataclasses
import pathlib
import sys

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
import speakers
from paper import text

TASKS = ("language", "punctuation", "speakers", "energy")
STEPS = 24
VOCABULARY = 2000
SIGNS = (",", ".", ";", ":", "?")


@dataclasses.dataclass(frozen=True)
class Task:
    """Arrays, and how to build and train a model for them.

    Attributes:
        name: String.
        train, valid, test: Pairs of arrays, inputs and labels.
        build: Function of a dict from the name of a recurrent layer to its
            units, which builds a model; with an empty one, at full size.
        loss: A `keras.losses.Loss`.
        epochs: Integer.
        batch: Integer.
        rate: Float, the highest learning rate.
    """

    name: str
    train: tuple
    valid: tuple
    test: tuple
    build: callable
    loss: keras.losses.Loss
    epochs: int
    batch: int
    rate: float

    def compiled(self, model, epochs, rate=1.0):
        """Compiles with Adam and a cosine schedule over some epochs."""
        updates = max(1, epochs * -(-len(self.train[0]) // self.batch))
        schedule = keras.optimizers.schedules.CosineDecay(
            rate * self.rate, updates, alpha=0.05
        )
        model.compile(
            keras.optimizers.Adam(schedule, global_clipnorm=1.0), self.loss
        )
        return model

    def quality(self, model, part="test"):
        """The loss without a penalty, lower is better.

        Of a language model, the perplexity.
        """
        model.compile(loss=self.loss)
        loss = model.evaluate(
            *getattr(self, part), batch_size=self.batch, verbose=0
        )
        return float(np.exp(loss)) if self.name == "language" else float(loss)


def task(name, data):
    """A task by its name.

    Args:
        name: String, one of `TASKS`.
        data: Path of a folder of text files, for those on text.
    """
    return {
        "language": _language,
        "punctuation": _punctuation,
        "speakers": _speakers,
        "energy": _energy,
    }[name](data)


def _cut(tokens, labels, count=None):
    """Contiguous sequences, from everywhere in a text."""
    sequences = len(tokens) // STEPS
    cut = [
        array[: sequences * STEPS].reshape(sequences, STEPS)
        for array in (tokens, labels)
    ]
    if count is None or count >= sequences:
        return tuple(cut)
    chosen = np.linspace(0, sequences - 1, count).astype(int)
    return tuple(array[chosen] for array in cut)


def _parts(corpus, sequences):
    """The parts of a text, by a function of tokens and how many there are."""
    return {
        "train": sequences(corpus.train, 8000),
        "valid": sequences(corpus.valid, 1000),
        "test": sequences(corpus.test, 2000),
    }


def _language(data):
    corpus = text.text_folder(data, VOCABULARY)

    def build(units):
        tokens = keras.Input((STEPS,), dtype="int32")
        x = keras.layers.Embedding(VOCABULARY, 64)(tokens)
        x = keras.layers.Dropout(0.3)(x)
        for name in ("lstm_1", "lstm_2"):
            x = keras.layers.LSTM(
                units.get(name, 96), return_sequences=True, name=name
            )(x)
            x = keras.layers.Dropout(0.3)(x)
        return keras.Model(tokens, keras.layers.Dense(VOCABULARY)(x))

    parts = _parts(
        corpus, lambda tokens, count: _cut(tokens[:-1], tokens[1:], count)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Task(
        "language",
        build=build,
        loss=loss,
        epochs=8,
        batch=32,
        rate=0.006,
        **parts,
    )


def _punctuation(data):
    corpus = text.text_folder(data, VOCABULARY)
    numbers = {word: i for i, word in enumerate(corpus.words)}
    signs = np.full(len(corpus.words), -1)
    for label, sign in enumerate(SIGNS, start=1):
        signs[numbers[sign]] = label

    def tagged(tokens, count):
        found = signs[tokens]
        is_word = found < 0
        # The sign right after each word, if there is one.
        after = np.append(found[1:], -1)
        return _cut(
            tokens[is_word],
            np.maximum(after, 0)[is_word].astype("int32"),
            count,
        )

    def build(units):
        tokens = keras.Input((STEPS,), dtype="int32")
        x = keras.layers.Embedding(VOCABULARY, 32)(tokens)
        x = keras.layers.Dropout(0.3)(x)
        ways = [
            keras.layers.LSTM(
                units.get(name, 48),
                return_sequences=True,
                go_backwards=name == "backward_lstm",
                name=name,
            )
            for name in ("forward_lstm", "backward_lstm")
        ]
        forward, backward = (way(x) for way in ways)
        backward = keras.ops.flip(backward, axis=1)
        x = keras.layers.Concatenate()([forward, backward])
        x = keras.layers.Dropout(0.3)(x)
        return keras.Model(tokens, keras.layers.Dense(1 + len(SIGNS))(x))

    parts = _parts(corpus, tagged)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Task(
        "punctuation",
        build=build,
        loss=loss,
        epochs=6,
        batch=32,
        rate=0.005,
        **parts,
    )


def _speakers(_):
    x, y = speakers.recordings("test")
    # Every other recording of the test is for decisions.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Task(
        "speakers",
        speakers.recordings("train"),
        (x[::2], y[::2]),
        (x[1::2], y[1::2]),
        build=speakers.build,
        loss=loss,
        epochs=40,
        batch=16,
        rate=0.01,
    )


def _energy(_):
    from aeon.datasets import load_italy_power_demand

    x, _ = (
        np.concatenate(parts)
        for parts in zip(
            *(
                load_italy_power_demand(split=split)
                for split in ("train", "test")
            )
        )
    )
    x = x[:, 0, :, None].astype("float32")
    x = x[np.random.default_rng(0).permutation(len(x))]
    pairs = x[:, :12], x[:, 12:, 0]

    def build(units):
        inputs = keras.Input((12, 1))
        x = keras.layers.GRU(
            units.get("gru_1", 48), return_sequences=True, name="gru_1"
        )(inputs)
        x = keras.layers.Dropout(0.1)(x)
        x = keras.layers.GRU(units.get("gru_2", 48), name="gru_2")(x)
        x = keras.layers.Dropout(0.1)(x)
        return keras.Model(inputs, keras.layers.Dense(12)(x))

    parts = {
        part: tuple(array[rows] for array in pairs)
        for part, rows in (
            ("train", slice(0, 700)),
            ("valid", slice(700, 850)),
            ("test", slice(850, None)),
        )
    }
    return Task(
        "energy",
        build=build,
        loss=keras.losses.MeanSquaredError(),
        epochs=40,
        batch=32,
        rate=0.01,
        **parts,
    )
