"""How each operation of `keras.ops` is written: one file for each family."""

from keras_iss.export.onnx.operations import (  # noqa: F401
    activations,
    composed,
    convolutions,
    elementwise,
    products,
    reductions,
    shaping,
)
from keras_iss.export.onnx.operations.table import OPERATIONS as OPERATIONS
