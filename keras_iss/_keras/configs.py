"""How Keras reads configs."""

from keras.src.saving.serialization_lib import SafeModeScope


def trusted_configs():
    """A scope in which configs may hold the code of lambdas."""
    return SafeModeScope(safe_mode=False)
