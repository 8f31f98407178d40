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
from tests.fuzz.fixed_part import run_fixed_part

SEED = 1
# The two before them are refused.
NUMBERS = range(2, 4)


def test_any_model_exported_in_any_way():
    tally = run_fixed_part(exports, SEED, NUMBERS)
    assert tally.status["passed"] >= len(NUMBERS) / 2
