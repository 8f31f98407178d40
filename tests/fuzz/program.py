"""A random graph is a program: statements in Python, executed one by one."""

import dataclasses
import importlib
import linecache

import keras
import numpy as np

import keras_iss

INPUT, LAYER, CALL, OTHER = "input", "layer", "call", "other"

_NAME = "random_graph_"

_DEFINITIONS = (
    "tests.fuzz.prelude",
    "tests.fuzz.checks",
    "tests.fuzz.export_checks",
)


def new_namespace():
    """The names that a program may use, and a state of Keras as at its start.

    Returns:
        Dict from name to object.
    """
    # Garbage is left to Python: to look for it takes half a second.
    keras.utils.clear_session(free_memory=False)
    for name in [x for x in linecache.cache if x.startswith(_NAME)]:
        del linecache.cache[name]
    keras.config.set_dtype_policy(keras.config.floatx())
    keras.utils.set_random_seed(0)
    names = {
        "__name__": "random_graph",
        "keras": keras,
        "keras_iss": keras_iss,
        "layers": keras.layers,
        "ops": keras.ops,
        "np": np,
    }
    for module in _DEFINITIONS:
        defined = vars(importlib.import_module(module))
        names.update(
            (name, value)
            for name, value in defined.items()
            if not name.startswith("__") and name not in names
        )
    return names


@dataclasses.dataclass(frozen=True)
class Statement:
    """A statement of a program.

    Attributes:
        text: String, Python.
        kind: One of `INPUT`, `LAYER` (makes one), `CALL` (makes tensors) and
            `OTHER`.
        names: Tuple of strings, the variables that it sets.
        depth: Integer, in how many models it stands.
    """

    text: str
    kind: str = OTHER
    names: tuple = ()
    depth: int = 1


class RefusedError(Exception):
    """What Keras does not take, or what needs something that is not there."""


class Program:
    """Statements that have been executed, and what they left.

    Attributes:
        statements: List of `Statement`.
        namespace: Dict from name to object.
    """

    def __init__(self):
        self.statements = []
        self.namespace = new_namespace()

    def run(self, text, kind=OTHER, names=(), depth=1):
        """Executes a statement and keeps it.

        Raises:
            RefusedError: if it raises something.
        """
        try:
            execute(text, self.namespace)
        except Exception as error:
            raise RefusedError(_described(text, error)) from error
        self.statements.append(Statement(text, kind, tuple(names), depth))

    def call(self, expression, name_of, depth=1):
        """Evaluates an expression of tensors and gives each of them a name.

        Args:
            expression: String, Python.
            name_of: Function that makes a new name.
            depth: As in `Statement`.

        Returns:
            List of the names.

        Raises:
            RefusedError: if it raises something or gives something else.
        """
        try:
            value = eval(expression, self.namespace)
        except Exception as error:
            raise RefusedError(_described(expression, error)) from error
        several = isinstance(value, (list, tuple))
        values = list(value) if several else [value]
        if not all(isinstance(x, keras.KerasTensor) for x in values):
            raise RefusedError(f"{expression}: gives {value!r}")
        names = [name_of() for _ in values]
        self.namespace.update(zip(names, values))
        targets = ", ".join(names) + "," * (several and len(names) == 1)
        self.statements.append(
            Statement(f"{targets} = {expression}", CALL, tuple(names), depth)
        )
        return names

    def text(self):
        """The statements, one below the other."""
        return "\n".join(statement.text for statement in self.statements) + "\n"


def execute(text, namespace):
    """Executes the text of some statements.

    As if they stood in a file: what is in them can be looked up.
    """
    name = f"{_NAME}{len(linecache.cache)}"
    lines = text.splitlines(keepends=True)
    linecache.cache[name] = (len(text), None, lines, name)
    exec(compile(text, name, "exec"), namespace)


def _described(text, error):
    lines = str(error).strip().splitlines() or [""]
    return f"{text}: {type(error).__name__}: {lines[0]}"
