"""How much power the afternoon takes, by the morning: two GRUs.

    pip install -e ".[tensorflow,export,report,data]"
    python examples/energy.py

The demand of a day in Italy, hour by hour, for 1096 days (ItalyPowerDemand,
which ships with the package `aeon`; each day has a mean of 0 and a deviation
of 1). From the first twelve hours the model tells the other twelve.
"""

import keras
import numpy as np
import real_job

HOURS = 12


def days():
    """Mornings and afternoons, to train on and to test on."""
    from aeon.datasets import load_italy_power_demand

    parts = [load_italy_power_demand(split=x)[0] for x in ("train", "test")]
    values = np.concatenate(parts)[:, 0].astype("float32")
    # They come sorted by season.
    values = values[np.random.default_rng(0).permutation(len(values))]
    pairs = values[:, :HOURS, None], values[:, HOURS:]
    count = round(0.75 * len(values))
    return tuple(
        tuple(array[rows] for array in pairs)
        for rows in (slice(count), slice(count, None))
    )


def build(units):
    """Two GRUs, all the hours of the afternoon at once."""
    inputs = keras.Input((HOURS, 1), name="morning")
    x = keras.layers.GRU(
        units.get("gru_1", 64), return_sequences=True, name="gru_1"
    )(inputs)
    x = keras.layers.GRU(units.get("gru_2", 64), name="gru_2")(x)
    return keras.Model(inputs, keras.layers.Dense(HOURS, name="afternoon")(x))


def job(train=None, test=None):
    """The job, on the days of `aeon` unless others are given."""
    if train is None:
        train, test = days()
    return real_job.Job(
        "Energy",
        train,
        test,
        build,
        keras.losses.MeanSquaredError(),
        "mean_absolute_error",
        epochs=40,
        batch=32,
    )


if __name__ == "__main__":
    real_job.main(job, __doc__)
