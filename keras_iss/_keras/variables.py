"""How Keras makes variables."""

import contextlib
import functools

import keras
from keras.src.backend.common import global_state


@contextlib.contextmanager
def without_values():
    """Variables that are made inside get shapes and no values, ever.

    What is made of them can be counted and called on symbolic tensors.
    """
    key = "uninitialized_variables"
    before = list(global_state.get_global_attribute(key) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(key, before)


_OPERATORS = {
    "add": keras.ops.add,
    "sub": keras.ops.subtract,
    "mul": keras.ops.multiply,
    "truediv": keras.ops.true_divide,
    "floordiv": keras.ops.floor_divide,
    "mod": keras.ops.mod,
    "pow": keras.ops.power,
    "matmul": keras.ops.matmul,
    "lt": keras.ops.less,
    "le": keras.ops.less_equal,
    "gt": keras.ops.greater,
    "ge": keras.ops.greater_equal,
}


def taking_symbolic_tensors(variable):
    """A variable of the same value that stands left of symbolic tensors, too.

    `variable * x` fails for a symbolic `x`, where `x * variable` does not.

    Args:
        variable: `keras.Variable`, which stays as it is.
    """
    kind = _kind_taking_symbolic_tensors(type(variable))
    new = object.__new__(kind)
    vars(new).update(vars(variable))
    return new


@functools.cache
def _kind_taking_symbolic_tensors(kind):
    def method(name, function):
        original = getattr(kind, name)

        def operator(self, other):
            if isinstance(other, keras.KerasTensor):
                return function(self, other)
            return original(self, other)

        return operator

    methods = {
        f"__{name}__": method(f"__{name}__", function)
        for name, function in _OPERATORS.items()
    }
    return type(kind.__name__, (kind,), methods)
