"""Who says a vowel: an LSTM over recordings of unequal length.

    pip install -e ".[tensorflow,export,report,data]"
    python examples/speakers.py

Nine speakers say the Japanese vowels "ae"; each recording has 7 to 29 frames of
12 cepstral coefficients (JapaneseVowels, which ships with the package
`aeon`). Shorter recordings are padded with zeros, which `Masking` has the LSTM
pass over: in the exported file, too.
"""

import keras
import numpy as np
import real_job

LONGEST = 29
FEATURES = 12
SPEAKERS = 9


def recordings(split):
    """Padded recordings, and the numbers of their speakers."""
    from aeon.datasets import load_japanese_vowels

    series, labels = load_japanese_vowels(split=split)
    return padded(series), np.array(labels).astype("int32") - 1


def padded(series):
    """Arrays of shape (features, frames) as one, with zeros at their ends."""
    x = np.zeros((len(series), LONGEST, FEATURES), "float32")
    for row, values in zip(x, series):
        row[: values.shape[1]] = values.T
    return x


def build(units):
    """Masking, an LSTM, the mean over the frames that are there."""
    inputs = keras.Input((LONGEST, FEATURES), name="frames")
    x = keras.layers.Masking()(inputs)
    x = keras.layers.LSTM(
        units.get("lstm", 64), return_sequences=True, name="lstm"
    )(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(SPEAKERS, name="speaker")(x))


def job(train=None, test=None):
    """The job, on the recordings of `aeon` unless others are given."""
    return real_job.Job(
        "Speakers",
        train or recordings("train"),
        test or recordings("test"),
        build,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "sparse_categorical_accuracy",
        epochs=40,
    )


if __name__ == "__main__":
    real_job.main(job, __doc__)
