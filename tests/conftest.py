"""Shared by all tests.

Many tests are the same on every backend. PyTorch compiles nothing and runs
all of them, of those with many cases half; TensorFlow and JAX run a fixed part
of them, each another one. `--whole` runs all cases of all tests.
"""

import gc
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import pytest

from tests.old_keras import lacking, skip_what_keras_does_wrong

BACKEND = keras.backend.backend()

# These walk graphs, and compute next to nothing.
ON_TORCH = {
    "test_bad_input",
    "test_find",
    "test_labels",
    "test_paper_models",
    "test_sizes",
    "test_structures",
    "test_tracing",
}

# Of the other modules, a part of the cases of each test, at least one.
WHOLE = {
    "test_docs",
    "test_example_data",
    "test_example_runs",
    "test_examples",
    "test_keras_contract",
    "test_old_keras",
    "test_ptb_dataset",
    "test_random_graphs",
    "test_readme",
}
PARTS_OF_CASES = {"tensorflow": 1 / 14, "jax": 1 / 25}

# And of the tests with cases, so many.
PARTS_OF_TESTS_WITH_CASES = {"tensorflow": 1 / 2, "jax": 1 / 3}

# Exports run on TensorFlow alone, each of some seconds.
PART_OF_EXPORTS = 1 / 9

# On PyTorch, of the tests with many.
MANY_CASES, PART_OF_MANY_CASES = 12, 1 / 2

# And of the tests without cases.
PARTS_OF_TESTS = {"tensorflow": 1 / 9, "jax": 1 / 12}

# But for tests with the mark `compiled`.
EAGER_ON_TENSORFLOW = {
    "test_bad_training_input",
    "test_budget",
    "test_callbacks",
    "test_interrupted_training",
    "test_metrics_of_an_epoch",
    "test_rebuilding",
    "test_round_trip",
    "test_surgery",
    "test_training",
    "test_whole_files",
}


# Of tests that JAX leaves out, and PyTorch runs.
NOT_ON_JAX = {
    "compiles for long there, and does the same",
    "nothing of it depends on the backend, and JAX compiles it all",
}


def _may_run_here_alone(item):
    """Whether a test may be left out on all other backends."""
    return any(
        mark.name == "skipif" and mark.kwargs.get("reason") not in NOT_ON_JAX
        for mark in item.own_markers
    )


def pytest_addoption(parser):
    parser.addoption(
        "--whole",
        action="store_true",
        help="run every case of every test on this backend",
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out most cases where another backend runs all of them."""
    skip_what_keras_does_wrong(items)
    if config.getoption("--whole"):
        return
    left_out = {x for x in items if x.get_closest_marker("whole")}
    if BACKEND in PARTS_OF_CASES:
        _leave_out_what_pytorch_runs(items, left_out)
    else:
        _leave_out_some_of_many_cases(items, left_out)
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _leave_out_some_of_many_cases(items, left_out):
    cases = {}
    for item in items:
        if hasattr(item, "callspec") and item.path.stem not in WHOLE:
            name = item.nodeid.partition("[")[0]
            cases.setdefault(name, []).append(item)
    for name, some in cases.items():
        if len(some) >= MANY_CASES:
            _leave_out_part(name, some, PART_OF_MANY_CASES, 1, left_out)


def _leave_out_part(name, some, part, fewest, left_out):
    """Leaves out all but a part of some tests, the same in every process."""
    count = max(fewest, round(part * len(some)))
    if count < len(some):
        kept = random.Random(f"{name} {BACKEND}").sample(some, count)
        left_out.update(set(some) - set(kept))


def _leave_out_what_pytorch_runs(items, left_out):
    cases, others, exports = {}, {}, {}
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            # The same everywhere, but for those of the export.
            if "export" not in item.path.parts:
                left_out.add(item)
            continue
        marks = {mark.name for mark in item.own_markers}
        if "on_torch" in marks or (
            item.path.stem in ON_TORCH and "skipif" not in marks
        ):
            left_out.add(item)
            continue
        if _may_run_here_alone(item) or (
            "compiled" in marks and not hasattr(item, "callspec")
        ):
            # Or not like this elsewhere.
            continue
        module, name = item.path.stem, item.nodeid.partition("[")[0]
        if not hasattr(item, "callspec"):
            name = None
        if module in WHOLE or not module.startswith("test_"):
            continue
        if module.startswith("test_export"):
            if name:
                exports.setdefault(name, []).append(item)
        elif name:
            cases.setdefault(name, []).append(item)
        else:
            others.setdefault(module, []).append(item)
    for name in sorted(cases):
        drawn = random.Random(f"{name} on {BACKEND}").random()
        if drawn > PARTS_OF_TESTS_WITH_CASES[BACKEND] and (
            # Devices are another thing on each backend.
            "test_distribution" not in name
        ):
            left_out.update(cases.pop(name))
    for groups, part, fewest in (
        (cases, PARTS_OF_CASES[BACKEND], 1),
        (exports, PART_OF_EXPORTS, 1),
        (others, PARTS_OF_TESTS[BACKEND], 2),
    ):
        for name, some in groups.items():
            _leave_out_part(name, some, part, fewest, left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skips a test of what an older Keras does not have."""
    try:
        return (yield)
    except AttributeError as error:
        name = lacking(error)
        if name is None:
            raise
        pytest.skip(f"Keras {keras.__version__} has no {name}")


def pytest_collection_finish(session):
    """Has the garbage collector leave out what stays for good.

    `clear_session` collects before each test: with the 300,000 objects that
    importing a backend makes, that takes 0.3 seconds each time.
    """
    gc.collect()
    gc.freeze()


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
