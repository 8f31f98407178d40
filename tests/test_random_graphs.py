"""Whatever is connected with whatever: surgery changes no output.

A small fixed part of what `tox run -e fuzz` does.
"""

import keras
import pytest

from tests.fuzz import surgery
from tests.fuzz.outcome import FAILED
from tests.fuzz.script import script
from tests.fuzz.tally import Tally

BACKEND = keras.backend.backend()

# Graphs in a chunk, chunks, and the seed: no graph twice.
SIZE, CHUNKS, SEED = {
    "tensorflow": (5, 4, 1),
    "torch": (10, 8, 2),
    "jax": (3, 3, 3),
}[BACKEND]


@pytest.fixture(autouse=True)
def _whole_tracebacks():
    """They tell in whose code an error was raised."""
    keras.config.disable_traceback_filtering()
    yield
    keras.config.enable_traceback_filtering()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_surgery_changes_no_output_of_any_graph(chunk):
    tally = Tally()
    for number in range(chunk * SIZE, (chunk + 1) * SIZE):
        outcome = surgery.run(SEED, number)
        tally.add(number, outcome)
        if outcome.status == FAILED:
            smaller = surgery.reduce(SEED, number, outcome.kind, seconds=60)
            pytest.fail(
                f"{outcome.kind}: {outcome.message}\n"
                + script(smaller.text, smaller.message, BACKEND, smaller.double)
            )
    # They are not all pinned, refused or too odd for Keras.
    assert tally.status["passed"] > SIZE / 2
    if SIZE > 4:
        assert tally.removed > SIZE / 5
