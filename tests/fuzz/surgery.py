"""The jobs of a process: random graphs, and surgery on them."""

from tests.fuzz import run as runs
from tests.fuzz.graphs import draw
from tests.fuzz.outcome import FAILED, Outcome
from tests.fuzz.reduce import reduced

prepare = runs.prepare
run = runs.run_graph


def reduce(seed, number, kind, seconds):
    """A smaller graph that fails like one.

    Args:
        seed: Integer.
        number: Integer, of the graph.
        kind: String, what fails.
        seconds: Float, when to stop.

    Returns:
        `Outcome`, with the text of the smaller graph.
    """
    graph = draw(seed, number)
    settings = runs.settings_for(graph, seed, number)
    for text in (graph.open_text, graph.text):
        if text is None:
            continue
        outcome = reduced(
            text,
            settings,
            kind,
            seconds,
            lambda text, settings, several=text != graph.text: runs.check(
                text, settings, several
            ),
            runs.simplifications,
        )
        if outcome is not None:
            return outcome
    return Outcome(FAILED, kind, "It did not fail again.", graph=graph.text)
