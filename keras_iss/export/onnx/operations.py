"""Everything that the table of operations holds."""

from keras_iss.export.onnx import (  # noqa: F401
    activations,
    convolutions,
    elementwise,
    products,
    reductions,
    shaping,
)
from keras_iss.export.onnx.table import OPERATIONS

TABLE = OPERATIONS
