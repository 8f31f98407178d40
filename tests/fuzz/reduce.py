"""Makes the text of a failing graph as small as it can be.

A graph is drawn by looking at the shapes that are there, so that changed
draws would give another graph. What is changed is the text: every edit that
still shows the same failure is kept.
"""

import ast
import builtins
import contextlib
import copy
import dataclasses
import functools
import time
import warnings

import keras

from tests.fuzz.outcome import FAILED
from tests.fuzz.program import execute, new_namespace
from tests.fuzz.run import double_precision, place

KEPT = ("inputs", "model")


def reduced(text, settings, kind, seconds, check, simplifications):
    """A smaller graph that fails in the same way.

    Args:
        text: String, the statements of a graph.
        settings: What is done with it.
        kind: String, what fails.
        seconds: Float, when to stop.
        check: Function from a text and settings to an `Outcome`.
        simplifications: Function from settings to functions that give
            simpler ones.

    Returns:
        The `Outcome` of the smaller graph; `None` if it does not fail again.
    """
    deadline = time.monotonic() + seconds

    def failing(text, settings):
        outcome = check(text, settings)
        same = outcome.status == FAILED and outcome.kind == kind
        return outcome if same else None

    outcome = failing(text, settings)
    if outcome is None:
        return None
    shorter = without_unused(text)
    again = failing(shorter, settings)
    if again is not None:
        text, outcome = shorter, again
    for change in simplifications(settings):
        simpler = change(settings)
        again = failing(text, simpler)
        if again is not None:
            settings, outcome = simpler, again
    edited = True
    while edited and time.monotonic() < deadline:
        edited = False
        shapes = _shapes(text)
        for edits in (
            _one_element,
            functools.partial(_cut, shapes=shapes),
            _bypassed,
            _fewer_elements,
            _without,
            _shorter,
        ):
            position = 0
            while time.monotonic() < deadline:
                candidate = edits(text, position)
                if candidate is None:
                    break
                candidate = without_unused(candidate)
                again = None
                if len(candidate) < len(text) and not _undefined(candidate):
                    again = failing(candidate, settings)
                if again is None:
                    position += 1
                else:
                    text, outcome, edited = candidate, again, True
    return _with_fewer_lines(outcome)


def _with_fewer_lines(outcome):
    """The outcome without statements of the checks that nothing needs."""
    expected = _error_of(outcome.graph, outcome.lines, outcome.double)
    if expected is None:
        return outcome
    lines = list(outcome.lines)
    for line in outcome.lines[-2::-1]:
        fewer = [kept for kept in lines if kept is not line]
        error = _error_of(outcome.graph, fewer, outcome.double)
        if error == expected:
            lines = fewer
    return dataclasses.replace(outcome, lines=lines)


def _error_of(graph, lines, double):
    """The place of what the statements raise, or `None`."""
    precision = double_precision if double else contextlib.nullcontext
    with precision(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        namespace = new_namespace()
        try:
            execute(graph, namespace)
            execute("\n".join(lines), namespace)
        except Exception as error:
            return place(error)
    return None


# Edits: functions from a text and a position to another text, or to `None`
# where there is no such position. Later statements come first.


def _one_element(text, position):
    """Leaves one element of a list, tuple or dict."""
    tree = ast.parse(text)
    sites = _elements(tree)
    if position >= len(sites):
        return None
    node, i = sites[position]
    for parts in _parallel(node):
        parts[:] = [parts[i]]
    return ast.unparse(tree)


def _fewer_elements(text, position):
    """Takes an element out of a list, tuple or dict."""
    tree = ast.parse(text)
    sites = _elements(tree)
    if position >= len(sites):
        return None
    node, i = sites[position]
    for parts in _parallel(node):
        del parts[i]
    return ast.unparse(tree)


def _elements(tree):
    """Pairs of a literal and the number of an element, the last ones first."""
    return [
        (node, i)
        for statement in reversed(tree.body)
        for node in ast.walk(statement)
        if isinstance(node, (ast.List, ast.Tuple, ast.Dict))
        and not isinstance(getattr(node, "ctx", None), ast.Store)
        and len(_parallel(node)[0]) > 1
        for i in range(len(_parallel(node)[0]))
    ]


def _parallel(node):
    """The lists of what a literal holds, which are to stay of one length."""
    return (
        [node.keys, node.values] if isinstance(node, ast.Dict) else [node.elts]
    )


def _cut(text, position, shapes):
    """Puts an input of the model in the place of a tensor."""
    tree = ast.parse(text)
    sites = [
        (statement, name)
        for statement in reversed(tree.body)
        if not ast.unparse(statement).partition(" = ")[2].startswith("keras.I")
        for name in _targets(statement)
        if name in shapes
    ]
    (inputs,) = [s for s in tree.body if "inputs" in _targets(s)]
    if position >= len(sites) or isinstance(inputs.value, ast.Dict):
        return None
    statement, name = sites[position]
    new = ast.parse(f'{name} = keras.Input({shapes[name]}, name="{name}")')
    place = tree.body.index(statement)
    alone = _targets(statement) == [name]
    tree.body[place : place + 1] = [*([] if alone else [statement]), *new.body]
    if not isinstance(inputs.value, ast.List):
        inputs.value = ast.List([inputs.value], ast.Load())
    inputs.value.elts.append(ast.Name(name, ast.Load()))
    return ast.unparse(ast.fix_missing_locations(tree))


def _shapes(text):
    """Dict from the names of tensors of numbers to their shapes."""
    namespace = new_namespace()
    try:
        execute(text, namespace)
    except Exception:
        return {}
    return {
        name: tuple(value.shape)[1:]
        for name, value in namespace.items()
        if isinstance(value, keras.KerasTensor)
        and value.dtype.startswith("float")
    }


def _bypassed(text, position):
    """Takes out an assignment; what it was made of takes its place."""
    tree = ast.parse(text)
    sites = [
        (body, statement, name)
        for body in _bodies(tree)
        for statement in reversed(body)
        if len(body) > 1
        and isinstance(statement, ast.Assign)
        and not set(_targets(statement)) & set(KEPT)
        for name in _read(statement.value)
    ]
    if position >= len(sites):
        return None
    body, statement, name = sites[position]
    body.remove(statement)
    renamed = _Renamed(_targets(statement), name)
    body[:] = [renamed.visit(statement) for statement in body]
    return ast.unparse(tree)


class _Renamed(ast.NodeTransformer):
    def __init__(self, names, other):
        self.names, self.other = names, other

    def visit_Name(self, node):
        if node.id in self.names and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Name(self.other, node.ctx), node)
        return node


def _without(text, position):
    """Takes out a statement, or an argument given by a keyword."""
    tree = ast.parse(text)
    sites = [
        (body, statement)
        for body in _bodies(tree)
        for statement in reversed(body)
        if not set(_targets(statement)) & set(KEPT)
        if len(body) > 1
    ]
    sites += [
        (node.keywords, keyword)
        for node in reversed(list(ast.walk(tree)))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg != "name"
    ]
    if position >= len(sites):
        return None
    elements, element = sites[position]
    elements.remove(element)
    return ast.unparse(tree)


def _shorter(text, position):
    """Puts a part of an expression in its place."""
    tree = ast.parse(text)
    sites = []
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if isinstance(value, (ast.Call, ast.BinOp, ast.Subscript)):
                sites += [(node, field, part) for part in _parts(value)]
            elif isinstance(value, list):
                sites += [
                    (value, i, part)
                    for i, item in enumerate(value)
                    if isinstance(item, (ast.Call, ast.BinOp, ast.Subscript))
                    for part in _parts(item)
                ]
    if position >= len(sites):
        return None
    holder, place, part = sites[position]
    if isinstance(holder, list):
        holder[place] = copy.deepcopy(part)
    else:
        setattr(holder, place, copy.deepcopy(part))
    return ast.unparse(tree)


def _parts(value):
    if isinstance(value, ast.Call):
        return [x for x in value.args if not isinstance(x, ast.Constant)]
    if isinstance(value, ast.BinOp):
        return [value.left, value.right]
    return [value.value]


def without_unused(text):
    """The text without assignments to names that nothing reads."""
    while True:
        tree = ast.parse(text)
        read = {
            node.id
            for statement in _all_statements(tree)
            if _changed(statement) is None
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        attributes = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Load)
        }
        for body in _bodies(tree):
            used = [
                statement
                for statement in body
                if not _is_unused(statement, read, attributes) or len(body) == 1
            ]
            body[:] = used
        shorter = ast.unparse(tree)
        if shorter == text:
            return text
        text = shorter


def _all_statements(tree):
    """The statements that hold no others."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not hasattr(node, "body")
    ] + [
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and hasattr(node, "body")
        for field in ("bases", "decorator_list", "test", "iter", "items")
        for part in _as_list(getattr(node, field, []))
    ]


def _as_list(value):
    return value if isinstance(value, list) else [value]


def _changed(statement):
    """The name of the object that a statement only changes, or `None`."""
    target = None
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    elif isinstance(statement, ast.Expr) and isinstance(
        statement.value, ast.Call
    ):
        target = statement.value.func
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        name = target.value.id
        return None if name in ("self", "keras", "keras_iss") else name
    return None


def _is_unused(statement, read, attributes):
    if _changed(statement) is not None:
        return _changed(statement) not in read
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
        # Methods that Keras calls, and rules.
        special = statement.name in ("call", "__init__")
        special = special or statement.decorator_list
        return statement.name not in read and not special
    if not isinstance(statement, ast.Assign):
        return False
    (target,) = statement.targets
    if isinstance(target, ast.Attribute):
        own = isinstance(target.value, ast.Name) and target.value.id == "self"
        return own and target.attr not in attributes
    names = _targets(statement)
    return bool(names) and not set(names) & (read | set(KEPT))


def _undefined(text):
    """Whether statements read names that nothing sets."""
    tree = ast.parse(text)
    known = set(dir(builtins)) | new_namespace().keys()
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else known).add(node.id)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            known.add(node.name)
    return bool(read - known)


def _bodies(tree):
    """The lists of statements in a tree, the outermost first."""
    return [
        node.body
        for node in ast.walk(tree)
        if isinstance(getattr(node, "body", None), list)
    ]


def _targets(statement):
    if not isinstance(statement, ast.Assign):
        return []
    return [
        node.id
        for target in statement.targets
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def _read(value):
    """Names of tensors that an expression reads."""
    names = [n.id for n in ast.walk(value) if isinstance(n, ast.Name)]
    return [name for name in dict.fromkeys(names) if name[-1].isdigit()]
