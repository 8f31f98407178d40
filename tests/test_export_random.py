"""Whatever model, whatever options: a file computes what the model does.

A small fixed part of what `tox run -e fuzz -- --exports` does.
"""

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

from tests.fuzz import exports
from tests.fuzz.outcome import FAILED
from tests.fuzz.script import script
from tests.fuzz.tally import Tally

SIZE, CHUNKS, SEED = 4, 2, 1


@pytest.fixture(autouse=True)
def _whole_tracebacks():
    """They tell in whose code an error was raised."""
    keras.config.disable_traceback_filtering()
    yield
    keras.config.enable_traceback_filtering()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_any_model_exported_in_any_way(chunk):
    tally = Tally()
    for number in range(chunk * SIZE, (chunk + 1) * SIZE):
        outcome = exports.run(SEED, number)
        tally.add(number, outcome)
        if outcome.status == FAILED:
            smaller = exports.reduce(SEED, number, outcome.kind, seconds=60)
            pytest.fail(
                f"{outcome.kind}: {outcome.message}\n"
                + script(smaller.text, smaller.message, "tensorflow")
            )
    assert tally.status["passed"] >= SIZE / 2
