"""Draws whole graphs: inputs, connections, heads and the model."""

import dataclasses
import random
import re

from tests.fuzz.connections import models
from tests.fuzz.connections import recurrent as recurrent
from tests.fuzz.drawing import Drawing
from tests.fuzz.program import INPUT, RefusedError

BATCH = 2
MOST_CONNECTIONS = 9


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A random graph.

    Attributes:
        text: String, statements that set `inputs` and `model`.
        open_text: The same with any number of time steps, or `None`.
        tags: `collections.Counter` of the kinds of connection.
        refused: `collections.Counter` of what could not be drawn.
        is_random: Boolean, whether it draws numbers in training.
        batch: Integer or `None`, a fixed number of samples.
    """

    text: str
    open_text: str | None
    tags: dict
    refused: dict
    is_random: bool
    batch: int | None


def draw(seed, number, **limits):
    """A graph, the same one for the same arguments.

    Args:
        seed: Integer, of the run.
        number: Integer, of the graph.
        **limits: Of `Drawing`.
    """
    generator = random.Random(f"graph {seed} {number} {sorted(limits)}")
    while True:
        batch = BATCH if generator.random() < 0.1 else None
        g = Drawing(generator, batch, **limits)
        _, error = g.attempt(_draw, g)
        if error is None:
            break
    text = g.program.text()
    return Graph(
        text,
        _opened(g) if generator.random() < 0.5 else None,
        g.tags,
        g.refused,
        g.is_random,
        batch,
    )


def _draw(g):
    _inputs(g)
    first = [recurrent.over_time, recurrent.bidirectional]
    for draw_one in first[: 1 if g.for_stream else 2]:
        if g.chance(0.7):
            g.attempt(draw_one, g)
    for _ in range(g.integer(1, MOST_CONNECTIONS)):
        g.grow()
    if not any("RNN" in tag or "LSTM" in tag or "GRU" in tag for tag in g.tags):
        recurrent.over_time(g)
    outputs = _outputs(g)
    _model(g, outputs)


def _inputs(g):
    """At least one sequence, and what else there may be."""
    kinds = ["sequence"]
    others = (
        ("sequence", 0.2),
        ("shorter", 0.1),
        ("tokens", 0.5),
        ("vector", 0.15),
        ("image", 0.12),
    )
    for kind, probability in others[: 1 if g.for_stream else None]:
        if g.chance(probability):
            kinds.append(kind)
    g.random.shuffle(kinds)
    for kind in kinds:
        if kind == "sequence":
            g.input(g.steps, g.integer(2, 3))
        elif kind == "shorter":
            g.input(3, 3)
        elif kind == "tokens":
            g.input(g.steps, dtype="int32")
        elif kind == "vector":
            g.input(g.integer(2, 4))
        else:
            rank = g.choice((1, 2, 2, 3))
            g.input(3, *(4, 3, 2)[:rank], 2)
    if not g.tensors(3) and not g.tensors(2, None, "int32"):
        raise RefusedError("no sequence")


def _outputs(g):
    """Heads on all that nothing reads."""
    names = []
    for x in g.unread():
        if x in g.scope.inputs:
            continue
        if not g.value(x).dtype.startswith("float"):
            names += g.call(f'ops.cast({x}, "float32")')
        elif len(g.shape(x)) < 2:
            names.append(x)
        elif g.chance(0.06):
            g.tag("an output without a head")
            names.append(x)
        else:
            names += g.apply("layers.Dense(2)", x, prefix="head")
    if not names:
        raise RefusedError("no output")
    return names


def _model(g, outputs):
    unread = g.unread()
    inputs = [x for x in g.scope.inputs if x not in unread]
    form = g.choice({"list": 6, "dict": 1})
    given, returned = models.listed(inputs), models.listed(outputs)
    if form == "dict" and len(inputs) > 1:
        g.tag("a dict of inputs")
        given = _as_dict(inputs)
    if g.for_export or (g.chance(0.15) and len(outputs) > 1):
        # In a file, outputs have names.
        g.tag("a dict of outputs")
        returned = _as_dict(outputs)
    kind = g.choice({"Functional": 8, "own class": 1, "subclassed": 2})
    if g.for_export and kind == "own class":
        kind = "Functional"
    if g.for_export and len(inputs) > 1:
        # The inputs of a file have the names of those of the graph.
        kind = "Functional"
    if kind == "subclassed" and not given.startswith("{"):
        g.tag("a subclassed model")
        _subclassed(g, inputs, outputs, returned)
        return
    cls = "keras.Model"
    if kind == "own class":
        cls = g.choice(("OwnModel", "OwnStep"))
        g.tag(f"a model of the class {cls}")
    g.define(f"inputs = {given}")
    g.define(f'model = {cls}(inputs, {returned}, name="model")')


def _as_dict(names):
    return "{" + ", ".join(f'"{name}": {name}' for name in names) + "}"


def _subclassed(g, inputs, outputs, returned):
    statements = list(g.program.statements)
    keep = [
        statement
        for statement in statements
        if statement.kind == INPUT and statement.depth == 1
    ]
    text, hoisted = models.class_of(
        g,
        "Model",
        0,
        1,
        inputs,
        outputs if returned == models.listed(outputs) else returned,
    )
    g.program.statements[:] = [
        statement for statement in keep if statement.names[0] in inputs
    ]
    for text in hoisted:
        g.define(text)
    g.define(text)
    g.define(f"inputs = {models.listed(inputs)}")
    g.define('model = Model(name="model")')
    g.define("model(random_inputs(inputs, 0))")


def _opened(g):
    """The text with inputs of any number of time steps."""
    if g.batch:
        return None
    lines = g.program.text().splitlines()
    for i, line in enumerate(lines):
        if re.match(r"x\d+ = keras\.Input", line):
            lines[i] = line.replace(
                f"keras.Input(({g.steps},", "keras.Input((None,"
            )
    return "\n".join(lines) + "\n"
