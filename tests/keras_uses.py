"""What the files in `keras_iss/_keras/` use of Keras' private parts."""

import ast
import importlib.util
import pathlib
import re

# Nothing is imported of the package: it may need what Keras lacks.
FOLDER = pathlib.Path(__file__).parents[1] / "keras_iss" / "_keras"

_PRIVATE = re.compile(r"_[a-z]\w*$")


def contract():
    """The module that lists the private parts in use."""
    spec = importlib.util.spec_from_file_location(
        "keras_contract", FOLDER / "contract.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files():
    """The files of the wall, but for the list of what they use."""
    return sorted(p for p in FOLDER.glob("*.py") if p.name != "contract.py")


def imports_of(path):
    """Set of dotted names that a file imports from inside Keras."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{a.name}" for a in node.names)
    return {name for name in found if name.startswith("keras.src")}


def private_names_of(path):
    """Set of the names with one underscore that are neither ours nor local.

    Those of attributes, of keyword arguments that become attributes, and of
    strings, by which attributes are reached, too. What is read from `self`
    is our own: no class of the wall is one of Keras'.
    """
    tree = ast.parse(path.read_text())
    # Of names that are put together, the parts are none.
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            name = None if own else node.attr
        elif isinstance(node, ast.keyword):
            name = node.arg
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            name = node.value
        else:
            continue
        if isinstance(name, str) and _PRIVATE.match(name):
            found.add(name)
    return found


def global_names_of(path):
    """Set of the names under which a file asks for Keras' global state."""
    tree = ast.parse(path.read_text())
    constants = {
        node.targets[0].id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    names = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "").endswith("_global_attribute")
    ]
    return {
        name.value if isinstance(name, ast.Constant) else constants[name.id]
        for name in names
    }
