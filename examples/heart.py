"""Where a heart goes wrong: an LSTM that tells what comes next.

    pip install -e ".[tensorflow,export,report,data]"
    python examples/heart.py

A recording of a patient with internal bleeding, of which one place is marked as
an anomaly (set 135 of the KDD-TSAD collection, which ships with the package
`aeon`). The model learns from the 1200 values at the beginning, which are
normal, to tell the next values from those before. Where it is most mistaken in
the other 6300, there is the anomaly: as in the competition, 100 values to
either side count as found.
"""

import keras
import numpy as np
import real_job

BEFORE = 48
AFTER = 12
TOLERANCE = 100


def recording():
    """What is learned from; the whole, and where the anomaly is."""
    from aeon.datasets import load_kdd_tsad_135

    normal, _ = load_kdd_tsad_135(split="train")
    values, marks = load_kdd_tsad_135(split="test")
    normal, values = (np.ravel(x).astype("float32") for x in (normal, values))
    # It begins with what is learned from.
    places = np.flatnonzero(np.ravel(marks)) - len(normal)
    return normal, values[len(normal) :], places


def windows(values):
    """Pairs of what was and what comes, at every place."""
    found = np.lib.stride_tricks.sliding_window_view(values, BEFORE + AFTER)
    return found[:, :BEFORE, None].copy(), found[:, BEFORE:].copy()


def build(units):
    """Two LSTMs, all the values that come at once."""
    inputs = keras.Input((BEFORE, 1), name="before")
    x = keras.layers.LSTM(
        units.get("lstm_1", 64), return_sequences=True, name="lstm_1"
    )(inputs)
    x = keras.layers.LSTM(units.get("lstm_2", 64), name="lstm_2")(x)
    return keras.Model(inputs, keras.layers.Dense(AFTER, name="after")(x))


def search(targets, places):
    """A function that tells whether outputs are most mistaken at places."""

    def found(outputs):
        errors = np.square(outputs - targets).mean(1)
        worst = int(errors.argmax()) + BEFORE + AFTER // 2
        return bool(places[0] - TOLERANCE <= worst <= places[-1] + TOLERANCE)

    return found


def job(data=None):
    """The job, on the recording of `aeon` unless another is given."""
    normal, values, places = data or recording()
    mean, scale = normal.mean(), normal.std()
    train, test = (windows((x - mean) / scale) for x in (normal, values))
    return real_job.Job(
        "Heart",
        train,
        test,
        build,
        keras.losses.MeanSquaredError(),
        "mean_squared_error",
        epochs=20,
        batch=32,
        found=search(test[1], places),
    )


if __name__ == "__main__":
    real_job.main(job, __doc__)
