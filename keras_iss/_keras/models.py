"""How Keras makes models of a class of one's own."""

import keras
from keras.src.models.functional import functional_like_constructor

from keras_iss._keras.layers import internal_names

_GRAPH = ("name", "trainable", "layers", "input_layers", "output_layers")


def layers_with_inputs(sequential):
    """The layers of a `keras.Sequential`, with its `InputLayer`."""
    return list(sequential._layers)


def has_functional_constructor(cls):
    """Whether a class of models is made of inputs and outputs."""
    return functional_like_constructor(cls)


def reads_configs_by_itself(cls):
    """Whether a class of models has a `from_config` of its own."""
    return cls.from_config.__func__ is not keras.Model.from_config.__func__


def config_without_graph(model, proxy):
    """What the class of a Functional model adds to the config of its graph.

    Args:
        model: A Functional model of a class of one's own.
        proxy: Function from what it holds to what is to stand in the config
            instead.

    Returns:
        Dict of the entries that its constructor is to take.
    """
    copy = object.__new__(type(model))
    own = vars(model)
    vars(copy).update(own)
    hidden = internal_names(model)
    vars(copy).update(
        (name, proxy(value))
        for name, value in own.items()
        if name not in hidden
    )
    vars(copy).update(
        _operations=[], _nodes=set(), _inputs_struct=[], _outputs_struct=[]
    )
    config = type(model).get_config(copy)
    return {key: value for key, value in config.items() if key not in _GRAPH}
