"""Pruned, shrunk, trained, saved and loaded: every layer and connection."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import keras_iss
from tests.cases import CASES, inputs_for, randomize

TOLERANCE = 1e-5


def make(name):
    """The model of a case with random weights, and what to include."""
    made = CASES[name]()
    model, include = (
        made if isinstance(made, tuple) else (made, ("recurrent",))
    )
    randomize(model)
    return model, include


def some_components(structures, seed=0):
    """A random choice of what to keep of each structure."""
    rng = np.random.default_rng(seed)
    return {
        one.name: rng.choice(
            one.size, rng.integers(1, one.size), replace=False
        ).tolist()
        for one in structures.free
    }


def outputs(model, x):
    return [
        keras.ops.convert_to_numpy(y)
        for y in keras.tree.flatten(model(x, training=False))
    ]


def assert_equal_outputs(first, second, x, tolerance=TOLERANCE):
    for a, b in zip(outputs(first, x), outputs(second, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def stateful_layers(model):
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) and layer.stateful
    ]


def reset_states(model):
    for layer in stateful_layers(model):
        layer.reset_state()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder for files that a process without keras-iss will load."""
    return tmp_path_factory.mktemp("saved")


@pytest.mark.parametrize("name", CASES)
def test_a_shrunk_model_computes_what_the_pruned_one_did(name, saved):
    model, include = make(name)
    structures = keras_iss.find_structures(model, include)
    assert structures.free, f"nothing to remove:\n{structures}"
    keep = some_components(structures)
    keras_iss.prune(model, keep=keep, include=include)
    small = keras_iss.shrink(model, include=include)

    x = inputs_for(model)
    assert small.count_params() < model.count_params()
    assert_equal_outputs(model, small, x)
    assert small.count_params() == structures.counts(shrunk=True).weights

    # One step of training, from the same weights on the same data.
    targets = keras.tree.map_structure(
        lambda y: np.random.default_rng(1).normal(size=y.shape), small(x)
    )
    for one in (model, small):
        reset_states(one)
        one.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    losses = [
        one.evaluate(x, targets, batch_size=2, verbose=0)
        for one in (model, small)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    if not (stateful_layers(small) and keras.backend.backend() == "torch"):
        # Keras itself does not train stateful layers on PyTorch.
        before = small.get_weights()
        small.train_on_batch(x, targets)
        changed = zip(before, small.get_weights())
        assert any((a != b).any() for a, b in changed)

    # What Keras saves and loads is the same model.
    reset_states(small)
    path = saved / f"{name}.keras"
    small.save(path)
    inputs, results = keras.tree.flatten(x), outputs(small, x)
    np.savez(
        saved / f"{name}.npz",
        **{f"in{i}": value for i, value in enumerate(inputs)},
        **{f"out{i}": value for i, value in enumerate(results)},
    )


def test_saved_models_load_and_compute_where_keras_iss_cannot_be_imported(
    saved,
):
    files = sorted(saved.glob("*.keras"))
    if not files:
        pytest.skip("nothing was saved: run the round trips with this test")
    script = textwrap.dedent("""
        import json, pathlib, sys
        sys.modules["keras_iss"] = None  # Importing it fails.
        import keras, numpy as np
        wrong = {}
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
            try:
                model = keras.models.load_model(path)
                with np.load(path.with_suffix(".npz")) as data:
                    inputs = [data[k] for k in data if k.startswith("in")]
                    wanted = [data[k] for k in data if k.startswith("out")]
                sequential = isinstance(model, keras.Sequential)
                nested = model.inputs[0] if sequential else model.input
                x = keras.tree.pack_sequence_as(nested, inputs)
                found = keras.tree.flatten(model(x, training=False))
                for a, b in zip(found, wanted, strict=True):
                    a = keras.ops.convert_to_numpy(a)
                    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
            except Exception as error:
                wrong[path.stem] = f"{type(error).__name__}: {error}"
        print("RESULT" + json.dumps(wrong))
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(saved)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert "RESULT" in done.stdout, done.stderr
    assert json.loads(done.stdout.split("RESULT")[1]) == {}
