"""Variables that a layer trains with and a saved model does not hold."""


def add_hidden_state(layer, holder):
    """Makes a variable one of the state of a layer, and not of its weights.

    Keras takes such states through compiled steps, as the seeds of its
    generators of random numbers, and saves none of them.

    Args:
        layer: `keras.layers.Layer`.
        holder: Object with an attribute `state`, a `keras.Variable`.
    """
    layer._seed_generators.append(holder)


def remove_hidden_state(layer, holder):
    """Takes a hidden state off a layer again. Twice does no harm."""
    layer._seed_generators[:] = [
        other for other in layer._seed_generators if other is not holder
    ]
