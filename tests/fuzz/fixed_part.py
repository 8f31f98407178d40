"""The small fixed part of random graphs that the tests run."""

import keras
import pytest

from tests.fuzz.outcome import FAILED
from tests.fuzz.script import script
from tests.fuzz.tally import Tally


def run_fixed_part(tasks, seed, numbers):
    """Runs some graphs, and fails with a script that repeats a failure.

    Args:
        tasks: Module with `run` and `reduce`.
        seed: Integer.
        numbers: Iterable of integers, of the graphs.

    Returns:
        `Tally`.
    """
    tally = Tally()
    # Whole tracebacks tell in whose code an error was raised.
    keras.config.disable_traceback_filtering()
    try:
        for number in numbers:
            outcome = tasks.run(seed, number)
            tally.add(number, outcome)
            if outcome.status == FAILED:
                smaller = tasks.reduce(seed, number, outcome.kind, seconds=60)
                backend = keras.backend.backend()
                pytest.fail(
                    f"{outcome.kind}: {outcome.message}\n"
                    + script(
                        smaller.text, smaller.message, backend, smaller.double
                    )
                )
    finally:
        keras.config.enable_traceback_filtering()
    return tally
