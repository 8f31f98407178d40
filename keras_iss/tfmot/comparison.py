"""A model of Keras 3 and one of Keras 2 beside each other."""

import keras
import numpy as np

from keras_iss._keras.errors import message_of
from keras_iss.surgery.sampling import LENGTHS, Sampler, first_samples
from keras_iss.surgery.verification import VerificationError
from keras_iss.tracing.graph import graph_of

# Of the largest value of an output, or of 1 where that is larger.
_TOLERANCE = 1e-5
_LOW_PRECISION_TOLERANCE = 2e-2


def verify(drawn_for, new, model, data):
    """Compares a model of Keras 3 and one of Keras 2 in inference."""
    graph = graph_of(drawn_for)
    if data is not None:
        tries = [first_samples(graph, data)]
    else:
        sampler = Sampler(drawn_for, graph)
        if sampler.takes_strings:
            raise ValueError(
                f"An input of `{model.name}` takes strings, and is not drawn "
                "at random: give some with `data=`."
            )
        tries = (sampler.draw(seed, n) for n in LENGTHS for seed in (0, 1))
    failure, compared = None, 0
    for inputs in tries:
        try:
            expected = keras.tree.flatten(drawn_for(inputs, training=False))
        except Exception as error:
            failure = error
            continue
        got = keras.tree.flatten(new(inputs, training=False))
        _compare(drawn_for.name, expected, got)
        compared += 1
        if compared == 2:
            return
    if not compared:
        raise ValueError(
            f"`{model.name}` takes no random inputs ({message_of(failure)}): "
            "give some with `data=`."
        )


def _compare(name, expected, got):
    for x, y in zip(expected, got, strict=True):
        x, y = keras.ops.convert_to_numpy(x), np.asarray(y)
        low = x.dtype.name in ("float16", "bfloat16")
        x, y = x.astype("float64"), y.astype("float64")
        limit = _LOW_PRECISION_TOLERANCE if low else _TOLERANCE
        if x.shape != y.shape or not np.allclose(
            x, y, 0, limit * max(1.0, np.abs(x).max(initial=0.0)), True
        ):
            raise VerificationError(
                f"The models of `{name}` in Keras 3 and Keras 2 do not compute "
                "the same, and nothing was handed over. Look for an option "
                "that means another thing there, an activation maybe, and "
                "convert parts of the model to find its layer."
            )
