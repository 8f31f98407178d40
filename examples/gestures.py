"""What an arm does, by a sensor at the wrist: a convolution and a GRU.

    pip install -e ".[tensorflow,export,report,data]"
    python examples/gestures.py

Ten seconds of a smart watch's accelerometer and gyroscope, three axes each, ten
times a second: standing, walking, running, or playing badminton (BasicMotions,
which ships with the package `aeon`; 40 recordings to train on and 40 to test
on). The scales of the sensors are in the model, so that the file takes what
they give.
"""

import keras
import numpy as np
import real_job

STEPS = 100
FEATURES = 6
MOTIONS = ("badminton", "running", "standing", "walking")


def recordings(split):
    """Recordings of shape (count, steps, features), and their motions."""
    from aeon.datasets import load_basic_motions

    series, labels = load_basic_motions(split=split)
    x = np.asarray(series).transpose(0, 2, 1).astype("float32")
    return x, np.searchsorted(MOTIONS, labels).astype("int32")


def build_for(x):
    """A function that builds a model, for sensors of these scales."""
    scales = {"mean": x.mean((0, 1)), "variance": x.var((0, 1))}

    def build(units):
        inputs = keras.Input((STEPS, FEATURES), name="sensors")
        x = keras.layers.Normalization(**scales)(inputs)
        x = keras.layers.Conv1D(
            32, 5, strides=2, padding="same", activation="relu"
        )(x)
        x = keras.layers.GRU(
            units.get("gru_1", 64), return_sequences=True, name="gru_1"
        )(x)
        x = keras.layers.GRU(units.get("gru_2", 64), name="gru_2")(x)
        x = keras.layers.Dropout(0.3)(x)
        motion = keras.layers.Dense(len(MOTIONS), name="motion")
        return keras.Model(inputs, motion(x))

    return build


def job(train=None, test=None):
    """The job, on the recordings of `aeon` unless others are given."""
    train = train or recordings("train")
    return real_job.Job(
        "Gestures",
        train,
        test or recordings("test"),
        build_for(train[0]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "sparse_categorical_accuracy",
        epochs=40,
        share=0.2,
        batch=8,
        rate=0.005,
    )


if __name__ == "__main__":
    real_job.main(job, __doc__)
