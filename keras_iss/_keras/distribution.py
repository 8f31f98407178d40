"""The strategies that TensorFlow trains with on several devices."""

import contextlib

from keras_iss._keras.optimizer_state import with_inner


def distribution_scope(model):
    """The scope of the strategy that a TensorFlow model is trained with."""
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def check_scope(model):
    """Raises where Keras would fail in the middle of a step, with no message.

    Args:
        model: A built model, which need not be one of TensorFlow.

    Raises:
        ValueError: if weights were made outside the scope of the strategy
            that the model is trained with.
    """
    strategies = [
        getattr(model, "distribute_strategy", None),
        *(
            getattr(optimizer, "_distribution_strategy", None)
            for optimizer in with_inner(getattr(model, "optimizer", None))
        ),
    ]
    for strategy in strategies:
        if strategy is None or strategy.num_replicas_in_sync == 1:
            continue
        for variable in model.variables:
            made = getattr(variable._value, "distribute_strategy", None)
            if made is not strategy:
                raise ValueError(
                    f"`{variable.path}` of `{model.name}` was made outside "
                    f"the scope of the {type(strategy).__name__} that the "
                    "model is trained with. Build it, and compile it, in "
                    "`with strategy.scope():`."
                )
