"""Shared by all tests.

Most tests are the same on every backend. PyTorch compiles nothing and runs
all of them; TensorFlow and JAX run, of the cases of one test, a fixed part.
`--whole` runs all of them there, too.
"""

import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import pytest

BACKEND = keras.backend.backend()

ON_EVERY_BACKEND = {
    "test_bad_training_input",
    "test_budget",
    "test_callbacks",
    "test_interrupted_training",
    "test_metrics_of_an_epoch",
    "test_optimizers",
    "test_rebuilding",
    "test_regularizers",
    "test_round_trip",
    "test_rules",
    "test_surgery",
    "test_training",
    "test_verification",
    "test_whole_files",
}
PART = {"tensorflow": 1 / 3, "jax": 1 / 4}
FEWEST = 3

# But for tests with the mark `compiled`.
EAGER_ON_TENSORFLOW = {
    "test_bad_training_input",
    "test_budget",
    "test_callbacks",
    "test_interrupted_training",
    "test_metrics_of_an_epoch",
    "test_training",
    "test_whole_files",
}


def pytest_addoption(parser):
    parser.addoption(
        "--whole",
        action="store_true",
        help="run every case of every test on this backend",
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out most cases where another backend runs all of them."""
    part = PART.get(BACKEND)
    if part is None or config.getoption("--whole"):
        return
    cases = {}
    for item in items:
        if hasattr(item, "callspec") and _module(item) in ON_EVERY_BACKEND:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = set()
    for name, some in cases.items():
        count = max(FEWEST, round(part * len(some)))
        if count < len(some):
            kept = random.Random(name).sample(some, count)
            left_out.update(set(some) - set(kept))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _module(item):
    return item.path.stem


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state and fresh names."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def eager(request):
    """Runs some tests without compiling on TensorFlow."""
    compiled = request.node.get_closest_marker("compiled") or (
        request.path.stem not in EAGER_ON_TENSORFLOW
    )
    if BACKEND != "tensorflow" or compiled:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
