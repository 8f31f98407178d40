"""Random graphs: the same ones for the same seed, of every kind there is."""

import random

import keras
import pytest

from tests.fuzz import graphs
from tests.fuzz.connections import operations
from tests.fuzz.connections.registry import FAMILIES
from tests.fuzz.drawing import Drawing
from tests.fuzz.program import execute, new_namespace

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="drawn alike on every backend"
)

CONNECTIONS = [
    (family, function.__name__, function)
    for family, functions in sorted(FAMILIES.items())
    for function in functions
]

TABLES = {
    "UNARY": "x",
    "BINARY": "xy",
    "OVER_TIME": "x",
    "OVER_UNITS": "x",
    "SHAPES": "x",
    "TWO_OF_ONE_SHAPE": "xy",
    "PRODUCTS": "ab",
    "WITH_VECTORS": "av",
    "WITH_CONSTANTS": "x",
    "VECTORS": "v",
    "RANK_FOUR": "z",
}


def drawing(seed=0, batch=None):
    """One with tensors of all ranks."""
    g = Drawing(random.Random(seed), batch)
    for shape in ((4, 3), (4, 4), (4, 3), (4,), (3,), (4, 3, 3, 2), (2, 4, 3)):
        g.input(*shape)
    g.input(4, dtype="int32")
    g.call(f"{g.scope.tensors[0]}[:, :, 0] > 0.0")
    g.apply("layers.LSTM(3, return_sequences=True)", g.scope.tensors[0])
    return g


@pytest.mark.parametrize(
    "connect",
    [function for *_, function in CONNECTIONS],
    ids=[f"{family}-{name}" for family, name, _ in CONNECTIONS],
)
def test_every_connection_can_be_drawn(connect):
    for seed in range(20):
        g = drawing(seed)
        before = len(g.program.statements)
        _, error = g.attempt(connect, g)
        if error is None:
            assert len(g.program.statements) > before
            assert g.tags
            return
    raise AssertionError(error)


@pytest.mark.parametrize("table", TABLES)
def test_every_operation_can_be_drawn(table):
    refused = {}
    for text in getattr(operations, table):
        g = drawing(batch=2)
        x, y, z, *_ = g.scope.tensors
        vector, stack = g.scope.tensors[4], g.scope.tensors[6]
        names = {"x": x, "y": z, "a": x, "b": z, "v": vector, "z": stack}
        if "ops.matmul({a}, {b})" in text or '"btu,bus->bts"' in text:
            # The last size of one is the first of the other.
            names["a"] = names["b"] = y
        if text in ("ops.squeeze({z}, 1)", "ops.squeeze({z}, -1)"):
            (names["z"],) = g.call(f"{x}[:, :, :1][:, None][:, :, :, :1]")
        given = {name: names[name] for name in TABLES[table]}
        _, error = g.attempt(operations.written, g, text, given)
        if error is not None:
            refused[text] = str(error)
    assert not refused


def test_a_graph_is_the_same_for_the_same_seed():
    first, again, other = (graphs.draw(1, number) for number in (0, 0, 1))
    assert first.text == again.text
    assert first.text != other.text


@pytest.mark.parametrize("number", range(12))
def test_the_text_of_a_graph_makes_it_anew(number):
    namespace = new_namespace()
    execute(graphs.draw(3, number).text, namespace)
    assert isinstance(namespace["model"], keras.Model)
    assert namespace["model"].built


def test_what_is_refused_leaves_nothing():
    g = drawing()
    before = g.program.text(), list(g.scope.tensors)

    def refused(g):
        h = g.apply("layers.Dense(3)", g.sequence())
        g.tag("a dense layer")
        g.call(f"ops.matmul({h[0]}, constant(7, 7))")

    _, error = g.attempt(refused, g)
    assert "ops.matmul" in str(error)
    assert (g.program.text(), g.scope.tensors) == before
    assert not g.tags
