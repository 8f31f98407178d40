"""What must hold of every exported file, as functions for scripts.

Like those of `prelude`, each stands by itself.
"""

import os
import pickle
import subprocess
import sys
import tempfile

import keras
import numpy as np

from tests.fuzz.checks import SAMPLES, random_inputs

# Another process runs a file: it has not what made it, and may crash.
LITE = """
import pickle, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

path, calls, result = sys.argv[1:]
calls = pickle.load(open(calls, "rb"))
interpreter = Interpreter(model_path=path, num_threads=1)
interpreter.allocate_tensors()
results = []
for inputs in calls:
    many = isinstance(inputs, list)
    runner = interpreter.get_signature_runner("step" if many else "serve")
    details = runner.get_input_details()
    outputs, states = [], {}
    for one in inputs if many else [inputs]:
        names = [name for name in details if "_state_" not in name]
        if len(one) == len(names) == 1:
            # A subclassed model does not tell the name of its input.
            one = {names[0]: x for x in one.values()}
        if not states:
            states = {
                name: np.zeros([*x["shape"]], x["dtype"])
                for name, x in details.items()
                if name not in one
            }
        got = {k: np.array(x) for k, x in runner(**one, **states).items()}
        states = {name: got[name] for name in states}
        outputs.append(got)
    results.append(outputs if many else outputs[0])
pickle.dump(results, open(result, "wb"))
"""


def lite_outputs(path, calls):
    """What a TFLite file gives, in a process with LiteRT alone.

    Args:
        path: Where the file is.
        calls: List of dicts of inputs by name; or lists of them, one for
            each step of a stream.

    Returns:
        List of dicts of outputs by name, or lists of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("calls", "results")]
        with open(files[0], "wb") as file:
            pickle.dump(calls, file)
        run = subprocess.run(
            [sys.executable, "-c", LITE, path, *files],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"LiteRT: {run.stderr[-500:]}"
        with open(files[1], "rb") as file:
            return pickle.load(file)


def named_inputs(inputs, x):
    """Dict from the names of inputs to arrays."""
    return {
        tensor.name: array
        for tensor, array in zip(
            keras.tree.flatten(inputs), keras.tree.flatten(x)
        )
    }


def samples_of(inputs, seed, count):
    """Random arrays with many samples, by the names of the inputs."""
    draws = [
        named_inputs(inputs, random_inputs(inputs, seed + i))
        for i in range(count // SAMPLES)
    ]
    return {
        name: np.concatenate([draw[name] for draw in draws])
        for name in draws[0]
    }


def expected_outputs(model, x):
    """Dict of outputs by name, and of what rounding may do to each.

    The latter is what small changes of the weights do.
    """
    values = [np.array(v) for v in model.trainable_variables]
    rng = np.random.default_rng(0)
    noisy = [
        value * (1 + 1e-6 * rng.choice([-1.0, 1.0], value.shape))
        for value in values
    ]
    others = [v.value for v in model.non_trainable_variables]
    outputs, changed = (
        model.stateless_call(
            [keras.ops.convert_to_tensor(v, dtype="float32") for v in given],
            others,
            x,
            training=False,
        )[0]
        for given in (values, noisy)
    )
    outputs = {k: np.array(v, float) for k, v in outputs.items()}
    rounding = {
        k: 30 * float(np.abs(outputs[k] - np.array(v, float)).max(initial=0))
        for k, v in changed.items()
    }
    return outputs, rounding


def assert_computed(expected, rounding, got, tolerance, what):
    """A file gives what the model gives."""
    assert expected.keys() == got.keys(), (
        f"{what}: outputs {sorted(got)} instead of {sorted(expected)}"
    )
    for name, wanted in expected.items():
        other = np.array(got[name], float)
        assert wanted.shape == other.shape, (
            f"{what}: the shape {other.shape} instead of {wanted.shape}"
        )
        finite = np.isfinite(wanted)
        assert np.array_equal(
            wanted[~finite], other[~finite], equal_nan=True
        ), f"{what}: not finite elsewhere"
        if not finite.any():
            continue
        size = max(float(np.abs(wanted[finite]).max()), 0.05)
        error = float(np.abs(wanted - other)[finite].max())
        assert error <= tolerance * size + rounding[name], (
            f"{what}: wrong numbers, {name} differs by {error:.3g}, of a size "
            f"of {size:.3g}"
        )


def assert_file_computes(model, inputs, path, batch, seed, steps, tolerance):
    """A TFLite file computes what the model does, at several lengths."""
    for length in steps:
        x = random_inputs(inputs, seed, length)
        first = keras.tree.map_structure(lambda a: a[: batch or SAMPLES], x)
        (got,) = lite_outputs(path, [named_inputs(inputs, first)])
        expected, rounding = expected_outputs(model, first)
        assert_computed(expected, rounding, got, tolerance, "the file")


def assert_stream_computes(model, inputs, path, batch, seed, steps, tolerance):
    """The signature `step` computes what the model does."""
    x = random_inputs(inputs, seed, steps)
    first = keras.tree.map_structure(lambda a: a[: batch or SAMPLES], x)
    whole = named_inputs(inputs, first)
    calls = [
        {name: array[:, t : t + 1] for name, array in whole.items()}
        for t in range(steps)
    ]
    (parts,) = lite_outputs(path, [calls])
    expected, rounding = expected_outputs(model, first)
    got = {
        name: np.concatenate([part[name] for part in parts], axis=1)
        if expected[name].ndim > 2 and expected[name].shape[1] == steps
        else parts[-1][name]
        for name in expected
    }
    assert_computed(expected, rounding, got, tolerance, "the stream")


def computes_in_halves(model):
    """Whether a layer of a model computes in float16 or bfloat16."""
    layers = model._flatten_layers()
    return any(layer.compute_dtype.endswith("float16") for layer in layers)


def assert_saved_model_computes(model, inputs, path, seed, steps):
    """A SavedModel computes what the model does."""
    import tensorflow as tf

    serve = tf.saved_model.load(path).signatures["serving_default"]
    for length in steps:
        x = random_inputs(inputs, seed, length)
        named = named_inputs(inputs, x)
        got = serve(**{k: tf.constant(v) for k, v in named.items()})
        expected, rounding = expected_outputs(model, x)
        got = {k: np.array(v) for k, v in got.items()}
        tolerance = 1e-2 if computes_in_halves(model) else 1e-4
        assert_computed(expected, rounding, got, tolerance, "the SavedModel")
