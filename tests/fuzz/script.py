"""Scripts that run by themselves, from the text of statements."""

import ast
import functools
import pathlib

HERE = pathlib.Path(__file__).parent
SOURCES = ("prelude.py", "checks.py", "export_checks.py")


def script(text, header="", backend=None, double=False):
    """A script that runs by itself.

    Args:
        text: String, statements.
        header: String, what it shows.
        backend: String, what `KERAS_BACKEND` is set to, if it is not set.
        double: Boolean, whether to compute in double precision, in which
            rounding is no excuse.
    """
    used = definitions(text)
    body = "\n\n\n".join([*used, text.strip()])
    modules = [line for line, name in _IMPORTS if name in _names(body)]
    parts = []
    if header:
        parts.append("\n".join(f"# {x}".rstrip() for x in header.splitlines()))
    if backend:
        lines = ["import os", ""]
        lines.append(f'os.environ.setdefault("KERAS_BACKEND", "{backend}")')
        if double and backend == "jax":
            lines.append('os.environ["JAX_ENABLE_X64"] = "1"')
        parts.append("\n".join(lines))
    parts.append("\n".join(modules))
    if double:
        parts.append('keras.config.set_floatx("float64")')
    return "\n\n".join(parts) + "\n\n\n" + body + "\n"


_IMPORTS = (
    ("import os", "os"),
    ("import pickle", "pickle"),
    ("import subprocess", "subprocess"),
    ("import sys", "sys"),
    ("import tempfile", "tempfile"),
    ("import warnings", "warnings"),
    ("import keras", "keras"),
    ("import numpy as np", "np"),
    ("from keras import layers", "layers"),
    ("from keras import ops", "ops"),
    ("import keras_iss", "keras_iss"),
)


def definitions(text):
    """The definitions of `prelude` and `checks` that statements use.

    Returns:
        List of strings, in the order in which they must stand.
    """
    known, needs = _definitions()
    wanted, found = list(_names(text)), set()
    while wanted:
        name = wanted.pop()
        if name in known and name not in found:
            found.add(name)
            wanted += needs[name]
    return [source for name, source in known.items() if name in found]


@functools.cache
def _definitions():
    """Dicts from the name of a definition to its text, and to what it needs.

    A rule is needed by the class that it is for.
    """
    known, needs = {}, {}
    for source in SOURCES:
        text = (HERE / source).read_text()
        lines = text.splitlines()
        for node in ast.parse(text).body:
            name = _defined(node)
            if name is None:
                continue
            decorators = getattr(node, "decorator_list", [])
            first = min(
                [node.lineno, *(decorator.lineno for decorator in decorators)]
            )
            known[name] = "\n".join(lines[first - 1 : node.end_lineno])
            needs[name] = _names_of(node)
            for decorator in decorators:
                for ruled in _names_of(decorator) & known.keys():
                    needs[ruled] = needs[ruled] | {name}
    return known, needs


def _defined(node):
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name
    if isinstance(node, ast.Assign):
        return node.targets[0].id
    return None


def _names(text):
    return _names_of(ast.parse(text))


def _names_of(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
