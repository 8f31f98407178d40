"""What must hold of every model, as functions that a script can contain.

Like those of `prelude`, each stands by itself.
"""

import os
import tempfile
import warnings

import keras
import numpy as np

import keras_iss

SAMPLES = 2


def random_inputs(inputs, seed, steps=4):
    """Random arrays, with padding.

    Args:
        inputs: The symbolic inputs of a model, nested as it takes them.
        seed: Integer.
        steps: Integer, the size of dimensions that are open.
    """
    rng = np.random.default_rng(seed)

    def array(x):
        shape = [n or steps for n in x.shape]
        shape[0] = SAMPLES
        if "int" in x.dtype:
            value = rng.integers(1, 10, shape)
            value[0, -2:] = 0
            value[1, 0] = 0
            return value.astype(x.dtype)
        value = rng.normal(size=shape)
        if len(shape) == 3:
            # Steps that a `Masking` layer leaves out.
            value[0, 1], value[1, -1] = 0.0, 0.5
        return value.astype(keras.config.floatx())

    return keras.tree.map_structure(array, inputs)


def randomize(model, seed):
    """Gives every weight of a model, biases included, a random value."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = 0.4 * rng.normal(size=variable.shape)
        if "variance" in variable.name or "stddev" in variable.name:
            value = 0.5 + np.abs(value)
        variable.assign(value.astype(keras.config.floatx()))


def random_generator(structure, seed):
    """Random numbers for a structure, whatever others there are."""
    return np.random.default_rng([seed, *structure.name.encode()])


def random_components(structures, seed):
    """What is to stay of the structures that are free: indices of it."""
    keep = {}
    for structure in structures.free:
        rng = random_generator(structure, seed)
        count = rng.integers(1, structure.size + 1)
        stay = rng.choice(structure.size, count, replace=False)
        keep[structure.name] = sorted(map(int, stay))
    return keep


def random_counts(structures, seed):
    """What is to stay of the structures that are free: how many."""
    return {
        structure.name: int(
            random_generator(structure, seed).integers(1, structure.size + 1)
        )
        for structure in structures.free
    }


def middle_length(structures):
    """A threshold that parts the components."""
    norms = [structure.norms() for structure in structures.free]
    return float(np.median(np.concatenate(norms)))


# Outputs.


def computed(model, x, training=False):
    """What a model gives, leaving no trace on it.

    Returns:
        Pair of the outputs and of their masks, `None` where there are none:
        two lists of arrays.
    """

    # Not `stateless_call`, which forgets to tell inner layers of the phase.
    def compute(values, x):
        with keras.StatelessScope(zip(model.variables, values)):
            outputs = keras.tree.flatten(model(x, training=training))
        masks = [getattr(y, "_keras_mask", None) for y in outputs]
        return outputs, masks

    values = [v.value for v in model.variables]
    if keras.backend.backend() == "jax":
        import jax

        try:
            options = {"xla_backend_optimization_level": 0}
            lowered = jax.jit(compute).lower(values, x)
            compute = lowered.compile(compiler_options=options)
        except Exception:
            # What runs as it stands only; or it fails again.
            pass
    outputs, masks = compute(values, x)
    arrays = [
        [None if y is None else keras.ops.convert_to_numpy(y) for y in some]
        for some in (outputs, masks)
    ]
    arrays[0] = [y if y.dtype == bool else y.astype(float) for y in arrays[0]]
    return arrays


def tolerance():
    """What rounding may do, as a part of an output's size."""
    return 1e-7 if keras.config.floatx() == "float64" else 1e-5


def assert_equal_arrays(expected, got, what):
    """Arrays of one shape, equal but for rounding."""
    for i, (wanted, other) in enumerate(zip(expected, got, strict=True)):
        assert wanted.shape == other.shape, (
            f"{what} {i}: {other.shape} instead of {wanted.shape}"
        )
        finite = np.isfinite(wanted)
        assert np.array_equal(
            wanted[~finite], other[~finite], equal_nan=True
        ), f"{what} {i} is not finite elsewhere"
        if not finite.any():
            continue
        size = max(float(np.abs(wanted[finite]).max()), 0.1)
        error = float(np.abs(wanted[finite] - other[finite]).max())
        assert error <= tolerance() * size, (
            f"{what} {i} differs by {error:.3g}, of a size of {size:.3g}"
        )


def assert_equal_masks(expected, got):
    """The same masks, and none where there is none."""
    for i, (wanted, other) in enumerate(zip(expected, got, strict=True)):
        assert (wanted is None) == (other is None), (
            f"the mask of output {i} is {other}, and was {wanted}"
        )
        assert wanted is None or np.array_equal(wanted, other), (
            f"the mask of output {i} differs"
        )


def assert_same_outputs(model, other, x, training=False):
    """Two models compute the same, and give the same masks."""
    outputs, masks = computed(model, x, training)
    others, other_masks = computed(other, x, training)
    assert_equal_arrays(outputs, others, "output")
    assert_equal_masks(masks, other_masks)


def random_targets(model, x, seed):
    """Random arrays like the outputs of a model, nested like them."""
    rng = np.random.default_rng(seed)
    with keras.StatelessScope():
        outputs = model(x)
    return keras.tree.map_structure(
        lambda y: rng.normal(size=y.shape).astype(keras.config.floatx()),
        outputs,
    )


def assert_same_loss(model, other, x, seed):
    """Two models have the same loss, masks and penalties included."""
    y = random_targets(model, x, seed)
    try:
        expected = loss_of(model, x, y)
    except Exception:
        # Keras cannot: a mask does not fit the output, for example.
        return
    got = loss_of(other, x, y)
    if not made_of_graphs(model) and len(model.losses) > len(other.losses):
        # Of a layer in a Python call whose outputs nobody reads.
        return
    assert_equal_arrays([expected], [got], "loss")


def loss_of(model, x, y):
    """The loss of a model, as an array."""
    model.compile("sgd", "mse", run_eagerly=True)
    outputs = model(x, training=False)
    loss = model.compute_loss(x=x, y=y, y_pred=outputs)
    return keras.ops.convert_to_numpy(loss).astype(float)


# The smaller model.


def assert_counts(structures, model, small):
    """The weights that were to be expected.

    Calls in Python may leave layers out, which the smaller model is without.
    """
    expected = structures.counts(shrunk=True).weights
    fewer = not made_of_graphs(model)
    count = small.count_params()
    assert count == expected or (fewer and count < expected), (
        f"{count} weights instead of {expected}"
    )


def made_of_graphs(model):
    """Whether no model in it is of a class with a `call` in Python."""
    return all(
        isinstance(layer, (keras.Function, keras.Sequential))
        for layer in model._flatten_layers()
        if isinstance(layer, keras.Model)
    )


def assert_names(model, small):
    """The names of layers, inputs and outputs."""
    expected = {layer.name for layer in model.layers}
    there = {layer.name for layer in small.layers}
    functional = isinstance(model, keras.Function)
    assert not functional or expected <= there, (
        f"no layers {sorted(expected - there)} in {sorted(there)}"
    )
    assert model.name == small.name
    if functional:
        keras.tree.assert_same_structure(model.input, small.input)
        keras.tree.assert_same_structure(model.output, small.output)
        assert model.output_names == small.output_names, (
            f"outputs {small.output_names} instead of {model.output_names}"
        )


def assert_nothing_to_shrink(small, x, include):
    """Shrinking the smaller model changes nothing.

    Where a component stayed for the size of an axis, it may go now: a graph
    has come in the place of a class that told less.
    """
    structures = keras_iss.find_structures(small, include)
    stayed_for_a_size = any(s.removed().any() for s in structures)
    again = keras_iss.shrink(small, include=include)
    before, after = small.count_params(), again.count_params()
    assert after == before or (after < before and stayed_for_a_size), (
        f"{after} weights instead of {before}"
    )
    assert_same_outputs(small, again, x)


def described(model):
    """What surgery must leave as it was."""
    layers = list(model._flatten_layers())
    return {
        "layers": [layer.name for layer in layers],
        "attributes": [sorted(map(str, vars(layer))) for layer in layers],
        "calls": [len(layer._inbound_nodes) for layer in layers],
        "built": [layer.built for layer in layers],
        "weights": [variable.path for variable in model.variables],
        "losses": len(model.losses),
        "config": config_of(model),
    }


def config_of(model):
    """The config as text, or `None` if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return repr(model.get_config())
    except Exception:
        return None


def assert_unchanged(model, description, weights):
    """A model is as it was before surgery."""
    now = described(model)
    for key, before in description.items():
        assert now[key] == before, f"{key}: {now[key]}, and before {before}"
    for variable, before in zip(model.variables, weights, strict=True):
        value = keras.ops.convert_to_numpy(variable)
        assert np.array_equal(value, before, equal_nan=True), (
            f"`{variable.path}` has changed"
        )


def values_of(model):
    """Copies of the values of the variables of a model."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]


# Files.


def load_error(model, custom_objects):
    """What goes wrong when a model is saved and loaded.

    Returns:
        Pair of the loaded model or `None`, and of an error or `None`.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = os.path.join(folder, "model.keras")
        try:
            model.save(path)
            loaded = keras.saving.load_model(
                path, custom_objects, compile=False, safe_mode=False
            )
        except Exception as error:
            return None, error
    return loaded, None


def assert_loads(model, small, said, x, custom_objects):
    """The smaller model loads, unless `shrink` said that it would not.

    Or unless the model that was shrunk cannot be loaded either.

    Args:
        model: The model that was shrunk.
        small: What `shrink` gave.
        said: List of the messages of the warnings of `shrink`.
        x: Inputs.
        custom_objects: Dict from name to class or function.
    """
    warned = [message for message in said if "cannot be loaded" in message]
    loaded, error = load_error(small, custom_objects)
    if error is None:
        try:
            assert_same_outputs(small, loaded, x)
        except Exception as other:
            error = other
    if error is None:
        assert not warned, f"it loads, and `shrink` warned: {warned[0]}"
    elif not warned:
        assert not can_be_loaded(model, x, custom_objects), (
            f"it cannot be loaded: {type(error).__name__}: {error}"
        )


def can_be_loaded(model, x, custom_objects):
    """Whether a saved model comes back as what it was."""
    loaded, error = load_error(model, custom_objects)
    if error is not None:
        return False
    try:
        assert_same_outputs(model, loaded, x)
    except Exception:
        return False
    return True


def own_objects(names):
    """The classes and functions of one's own among some names."""
    return {
        name: value
        for name, value in names.items()
        if callable(value)
        and not str(getattr(value, "__module__", "")).startswith("keras")
    }


def shrunk_with_warnings(model, include, keep=None):
    """The smaller model, and the messages of the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        small = keras_iss.shrink(model, keep=keep, include=include)
    return small, [str(warning.message) for warning in said]


# Training.


def assert_penalty(model, include):
    """A penalty goes on and off without a trace."""
    before = len(model.losses)
    regularizer = keras_iss.ISSRegularizer(1e-3, include=include)
    regularizer.attach(model)
    losses = [float(keras.ops.convert_to_numpy(x)) for x in model.losses]
    # Keras takes the penalty of a frozen layer out of the loss.
    structures = keras_iss.find_structures(model, include).free
    trained = {v.path for v in model.trainable_variables}
    expected = any(x.slices[0].variable.path in trained for x in structures)
    assert len(losses) > before or not expected, "no penalty"
    assert np.isfinite(losses).all(), f"losses: {losses}"
    regularizer.detach(model)
    assert len(model.losses) == before, "a penalty stays"


def assert_same_training(model, small, structures, x, include, seed):
    """A step of training keeps the two models alike.

    Removed units may wake up in the one that still has them; the smaller one
    has some where sizes have to be equal.
    """
    y = random_targets(model, x, seed)
    there = keras_iss.find_structures(small, include)
    kept = [(model, what_stays(structures)), (small, what_stays(there))]
    for trained in (model, small):
        trained.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    try:
        model.train_on_batch(x, y)
    except Exception:
        # Keras cannot train it: a stateful layer on PyTorch, for example.
        return
    small.train_on_batch(x, y)
    for pruned, keep in kept:
        if keep:
            keras_iss.prune(pruned, keep=keep, include=include)
    assert_same_outputs(model, small, x)


def what_stays(structures):
    """Dict from a structure to the components that are not removed."""
    return {
        structure.name: [int(i) for i in np.flatnonzero(~structure.removed())]
        for structure in structures.free
        if not structure.removed().all()
    }
