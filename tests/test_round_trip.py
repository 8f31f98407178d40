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

# All on PyTorch, which compiles nothing; of the others, each a half.
NAMES = {
    "tensorflow": list(CASES)[::2],
    "jax": list(CASES)[1::2],
    "torch": list(CASES),
}[keras.backend.backend()]

# So many processes can share the work.
PARTS = 2

# `jax.numpy.linalg.norm` does not take the list of axes that Keras gives it.
FAIL_IN_KERAS = {"jax": ["ops_norm_over_time"]}

# Keras saves the weights of a layer that a wrapper holds too where it does
# not look for them: not the original, nor what comes of it, can be loaded.
NOT_LOADED_BY_KERAS = [
    "wrapped_and_called_by_itself",
    "called_by_itself_and_wrapped",
    "wrapped_twice",
]


def make(name):
    """The model of a case with random weights, and what to include."""
    made = CASES[name]()
    model, include = made if isinstance(made, tuple) else (made, ("recurrent",))
    randomize(model)
    return model, include


def some_components(structures, seed=0):
    """A random choice of what to keep: about half, in turn more and less."""
    rng = np.random.default_rng(seed)
    return {
        structure.name: rng.choice(
            structure.size, max(1, structure.size // 2 - i % 2), replace=False
        ).tolist()
        for i, structure in enumerate(structures.free)
    }


def outputs(model, x):
    return [
        keras.ops.convert_to_numpy(y)
        for y in keras.tree.flatten(model(x, training=False))
    ]


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
def folders(tmp_path_factory):
    """For files that a process without keras-iss will load, one a part."""
    return [tmp_path_factory.mktemp("saved") for _ in range(PARTS)]


def part_of(name):
    return NAMES.index(name) % PARTS


def in_part(value, part):
    """A parameter: what is of one part runs in one process."""
    return pytest.param(value, marks=pytest.mark.xdist_group(f"part_{part}"))


@pytest.mark.parametrize("name", [in_part(x, part_of(x)) for x in NAMES])
def test_a_shrunk_model_computes_what_the_pruned_one_did(name, folders):
    if name in FAIL_IN_KERAS.get(keras.backend.backend(), ()):
        pytest.skip("Keras itself fails on it")
    saved = folders[part_of(name)]
    model, include = make(name)
    structures = keras_iss.find_structures(model, include)
    assert structures.free, f"nothing to remove:\n{structures}"
    keep = some_components(structures)
    keras_iss.prune(model, keep=keep, include=include)
    small = keras_iss.shrink(model, include=include)

    assert small.count_params() < model.count_params()
    assert small.count_params() == structures.counts(shrunk=True).weights
    x = inputs_for(model)
    wanted, found = outputs(model, x), outputs(small, x)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=TOLERANCE, atol=TOLERANCE)

    # What Keras saves and loads is the same model.
    reset_states(small)
    if name not in NOT_LOADED_BY_KERAS:
        small.save(saved / f"{name}.keras")
    inputs = keras.tree.flatten(x)
    np.savez(
        saved / f"{name}.npz",
        **{f"in{i}": value for i, value in enumerate(inputs)},
        **{f"out{i}": value for i, value in enumerate(found)},
    )

    targets = keras.tree.pack_sequence_as(
        small.output if not isinstance(small, keras.Sequential) else [0],
        [np.random.default_rng(1).normal(size=y.shape) for y in found],
    )
    for trained in (model, small):
        # Whole steps are compiled faster on JAX than the operations in them.
        eager = keras.backend.backend() != "jax"
        trained.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=eager)
    if "mask" in name:
        # A mask acts on the loss too.
        losses = [
            trained.test_on_batch(x, targets) for trained in (model, small)
        ]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)

    # It trains.
    reset_states(small)
    before = small.get_weights()
    if stateful_layers(small) and keras.backend.backend() == "torch":
        return  # Keras itself does not train them there.
    small.train_on_batch(x, targets)
    changed = zip(before, small.get_weights())
    assert any((a != b).any() for a, b in changed)


@pytest.mark.parametrize("part", [in_part(i, i) for i in range(PARTS)])
def test_saved_models_load_and_compute_where_keras_iss_cannot_be_imported(
    part, folders
):
    saved = folders[part]
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
