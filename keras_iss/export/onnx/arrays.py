"""Weights and tensors of any backend as arrays of NumPy."""

import keras
import numpy as np


def array_of(x):
    """A number, an array, a variable or a tensor of the backend as an array.

    Returns:
        The array, in float32 where it was in bfloat16, and the path of a
        variable, else `None`.
    """
    name = None
    if isinstance(x, keras.Variable):
        name = x.path or x.name
    if isinstance(x, keras.Variable) or keras.ops.is_tensor(x):
        x = keras.ops.convert_to_numpy(x)
    array = np.asarray(x)
    if array.dtype.name == "bfloat16":
        array = array.astype("float32")
    return array, name
