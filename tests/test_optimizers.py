"""`ProximalISS`: the closed form of its step, exact zeros, and Keras' ways."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from keras_iss.optimizers import proximal_of
from tests.cases import CASES, head, lstm, randomize, sequence

BACKEND = keras.backend.backend()


def small_model(units=6):
    x = sequence()
    model = keras.Model(x, head(lstm(units, name="lstm")(x)))
    randomize(model)
    return model


def stacked():
    x = sequence()
    h = lstm(8, name="one")(x)
    h = layers.GRU(6, return_sequences=False, name="two")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    return model


def data_for(model, count=32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5, 3)).astype("float32")
    shape = [5 if n is None else n for n in model.output_shape[1:]]
    return x, rng.normal(size=(count, *shape)).astype("float32")


def compile_with(model, optimizer):
    """Compiles, and tells the `ProximalISS` its model."""
    model.compile(optimizer, "mse")
    proximal_of(model.optimizer).attach(model)


def values(model):
    return {
        v.path: np.array(keras.ops.convert_to_numpy(v), "float64")
        for v in model.trainable_variables
    }


def only_proximal(model, strength, rate):
    """One step with gradients of zero: what is left is the proximal step."""
    optimizer = keras_iss.ProximalISS(
        keras.optimizers.SGD(rate), strength=strength
    )
    optimizer.attach(model)
    variables = model.trainable_variables
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    return optimizer


def expected(model, step):
    """The proximal step by NumPy, from the slices of the structures."""
    structures = keras_iss.find_structures(model)
    wanted = values(model)
    factors, roles = {}, {}
    for structure in structures.free:
        norms = structure.norms(overlap="once")
        factors[structure.name] = np.maximum(
            0, 1 - step / np.maximum(norms, 1e-30)
        )
    for structure in structures.free:
        for k, factor in enumerate(factors[structure.name]):
            owned = {}
            for part in structure.slices:
                if part.role in ("weight", "bias"):
                    path = part.variable.path
                    mask = owned.setdefault(
                        path, np.zeros(wanted[path].shape, bool)
                    )
                    where = (slice(None),) * part.axis + (part.index[k],)
                    mask[where] = True
                    weight = part.role == "weight"
                    roles[path] = factor if weight else float(factor > 0)
            for path, mask in owned.items():
                wanted[path][mask] *= roles[path]
    return wanted


def test_the_step_shortens_a_single_group_by_rate_times_strength():
    x = sequence()
    model = keras.Model(x, head(lstm(1, name="lstm")(x)))
    randomize(model)
    before = values(model)
    only_proximal(model, strength=3.0, rate=0.1)
    # One unit owns everything but the bias of the head.
    weights = [p for p in before if "bias" not in p]
    norm = np.sqrt(sum((before[p] ** 2).sum() for p in weights))
    after = values(model)
    for path in weights:
        np.testing.assert_allclose(
            after[path], before[path] * (1 - 0.3 / norm), rtol=1e-5
        )
    for path in set(before) - set(weights):
        np.testing.assert_array_equal(after[path], before[path])


@pytest.mark.parametrize("build", [small_model, stacked])
@pytest.mark.parametrize("step", [0.1, 1.8])
def test_overlapping_groups_take_the_factors_of_both(build, step):
    model = build()
    wanted = expected(model, step)
    only_proximal(model, strength=step / 0.5, rate=0.5)
    for path, value in values(model).items():
        np.testing.assert_allclose(value, wanted[path], rtol=1e-4, atol=1e-6)


def test_what_is_shorter_than_the_step_is_exactly_zero():
    model = stacked()
    norms = [
        structure.norms("once")
        for structure in keras_iss.find_structures(model).free
    ]
    step = float(np.median(np.concatenate(norms)))
    only_proximal(model, strength=step, rate=1.0)
    for structure, before in zip(keras_iss.find_structures(model).free, norms):
        gone = before < step
        np.testing.assert_array_equal(structure.removed(), gone)
        for part in structure.slices:
            if part.zeroed:
                value = keras.ops.convert_to_numpy(part.variable)
                zeroed = np.take(value, part.index[gone].ravel(), part.axis)
                assert not zeroed.any()


@pytest.mark.parametrize(
    ("strength", "rate"), [(0.0, 0.5), (5.0, 0.0)], ids=["strength", "rate"]
)
def test_zero_changes_nothing(strength, rate):
    model = stacked()
    before = values(model)
    only_proximal(model, strength, rate)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path])


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.02),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.02),
    "clipped": lambda: keras.optimizers.Adam(0.02, global_clipnorm=1.0),
    "accumulated": lambda: keras.optimizers.Adam(
        0.04, gradient_accumulation_steps=2
    ),
    "scheduled": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.04, 100, alpha=0.2)
    ),
}


STRENGTHS = {"sgd": 1.5, "accumulated": 5.0}


# The others differ in nothing that depends on the backend.
KINDS = (
    OPTIMIZERS
    if BACKEND == "tensorflow"
    else ("sgd", "momentum", "adam", "rmsprop")
)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_are_exact_and_stay_and_shrink(kind):
    model = stacked()
    optimizer = keras_iss.ProximalISS(
        OPTIMIZERS[kind](), strength=STRENGTHS.get(kind, 4.0)
    )
    compile_with(model, optimizer)
    x, y = data_for(model)
    model.fit(x, y, batch_size=8, epochs=12, verbose=0)
    structures = keras_iss.find_structures(model)
    gone = {structure.name: structure.removed() for structure in structures}
    total = sum(structure.size for structure in structures)
    assert 0 < structures.counts(shrunk=True).units < total
    small = keras_iss.shrink(model)
    np.testing.assert_allclose(
        small.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    for structure in structures:
        assert structure.removed()[gone[structure.name]].all()
    assert type(small.optimizer) is keras_iss.ProximalISS
    small.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations)


def test_training_goes_on_in_the_small_model_as_in_the_large_one():
    model = stacked()
    compile_with(
        model, keras_iss.ProximalISS(keras.optimizers.Adam(0.02), strength=4.0)
    )
    x, y = data_for(model)
    settings = {"batch_size": 8, "verbose": 0, "shuffle": False}
    model.fit(x, y, epochs=12, **settings)
    small = keras_iss.shrink(model)
    assert small.count_params() < model.count_params()
    model.optimizer.strength = small.optimizer.strength = 0.1
    after = model.fit(x, y, epochs=4, **settings).history["loss"]
    after_small = small.fit(x, y, epochs=4, **settings).history["loss"]
    np.testing.assert_allclose(after_small, after, rtol=1e-4)


def test_a_step_is_taken_with_every_update_of_an_accumulating_optimizer():
    model = small_model()
    optimizer = keras_iss.ProximalISS(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=3), strength=1.0
    )
    optimizer.attach(model)
    variables = model.trainable_variables
    zeros = [keras.ops.zeros(v.shape) for v in variables]
    before = keras_iss.find_structures(model)["lstm"].norms("once")
    seen = []
    for _ in range(6):
        optimizer.apply(zeros, variables)
        norms = keras_iss.find_structures(model)["lstm"].norms("once")
        seen.append(bool((norms < before - 1e-4).all()))
        before = norms
    assert seen == [False, False, True] * 2


def test_averages_do_not_bring_back_what_is_removed():
    if BACKEND == "jax":
        pytest.skip("Keras does not average on JAX")
    model = stacked()
    inner = keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.9)
    compile_with(model, keras_iss.ProximalISS(inner, strength=4.0))
    x, y = data_for(model)
    model.fit(x, y, batch_size=8, epochs=12, verbose=0)
    counts = keras_iss.find_structures(model).counts(shrunk=True)
    assert counts.units < 14


def scaled_inside():
    inner = keras.optimizers.SGD(0.05)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
    return keras_iss.ProximalISS(scaled, strength=1.0)


def scaled_outside():
    inner = keras_iss.ProximalISS(keras.optimizers.SGD(0.05), strength=1.0)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)


@pytest.mark.parametrize("scaled", [scaled_inside, scaled_outside])
def test_loss_scaling_changes_no_step(scaled):
    if BACKEND == "jax" and scaled is scaled_inside:
        with pytest.raises(ValueError, match="the other way round"):
            scaled()
        return
    model = small_model()
    compile_with(model, scaled())
    plain = small_model()
    compile_with(
        plain, keras_iss.ProximalISS(keras.optimizers.SGD(0.05), strength=1.0)
    )
    x, y = data_for(model)
    for trained in (model, plain):
        trained.fit(x, y, batch_size=8, epochs=3, verbose=0, shuffle=False)
    for path, value in values(plain).items():
        np.testing.assert_allclose(
            values(model)[path], value, rtol=1e-4, atol=1e-5
        )


@pytest.mark.skipif(BACKEND == "jax", reason="it does not wrap there")
def test_an_update_that_overflows_is_not_taken_nor_the_step():
    model = small_model()
    compile_with(model, scaled_inside())
    before = values(model)
    x, y = data_for(model, 8)
    model.fit(x, y * np.inf, verbose=0)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path])


@pytest.mark.skipif(BACKEND == "jax", reason="Keras asks for a new one there")
def test_a_layer_that_is_frozen_later_is_left_alone():
    model = stacked()
    optimizer = keras_iss.ProximalISS("sgd", strength=1.0)
    compile_with(model, optimizer)
    x, y = data_for(model)
    model.fit(x, y, verbose=0)
    model.get_layer("one").trainable = False
    model.compile(optimizer, "mse")
    before = model.get_layer("one").get_weights()
    model.fit(x, y, verbose=0)
    for now, then in zip(model.get_layer("one").get_weights(), before):
        np.testing.assert_array_equal(now, then)


def test_a_model_is_saved_and_goes_on(tmp_path):
    model = stacked()
    compile_with(
        model, keras_iss.ProximalISS(keras.optimizers.Adam(0.02), strength=0.5)
    )
    x, y = data_for(model)
    settings = {"batch_size": 8, "verbose": 0, "shuffle": False}
    model.fit(x, y, epochs=3, **settings)
    model.optimizer.strength = 1.25
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.strength == 1.25
    again.optimizer.attach(again)
    model.fit(x, y, epochs=3, **settings)
    again.fit(x, y, epochs=3, **settings)
    for path, value in values(model).items():
        np.testing.assert_allclose(values(again)[path], value, rtol=1e-5)


def test_mixed_precision_trains_and_removes():
    with_policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    x = keras.Input((None, 3))
    h = lstm(6, name="lstm", return_sequences=False, dtype=with_policy)(x)
    model = keras.Model(x, head(h))
    compile_with(
        model, keras_iss.ProximalISS(keras.optimizers.Adam(0.02), strength=4.0)
    )
    model.fit(*data_for(model), batch_size=8, epochs=8, verbose=0)
    assert keras_iss.find_structures(model)["lstm"].alive < 6


def test_the_config_comes_back():
    optimizer = keras_iss.ProximalISS(
        keras.optimizers.Adam(0.01, clipnorm=2.0), 0.25, include="recurrent"
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.strength == 0.25
    assert again.inner_optimizer.clipnorm == 2.0
    assert float(keras.ops.convert_to_numpy(again.learning_rate)) == (
        pytest.approx(0.01)
    )


def test_the_rate_is_that_of_the_wrapped_optimizer():
    model = stacked()
    compile_with(model, keras_iss.ProximalISS("sgd", strength=0.1))
    x, y = data_for(model)
    rates = []
    schedule = keras.callbacks.LearningRateScheduler(
        lambda epoch: 0.1 / (epoch + 1)
    )
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[schedule])
    rates = history.history["learning_rate"]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.1 / 3], rtol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="the same everywhere")
def test_every_optimizer_of_keras_can_be_wrapped():
    for kind in ("adamw", "nadam", "lion", "adagrad", "adadelta", "ftrl"):
        model = small_model(3)
        compile_with(model, keras_iss.ProximalISS(kind, strength=0.01))
        x, y = data_for(model, 8)
        model.fit(x, y, verbose=0)


def test_a_strength_can_be_changed_between_two_fits():
    model = small_model()
    optimizer = keras_iss.ProximalISS(keras.optimizers.SGD(0.0), strength=0.0)
    compile_with(model, optimizer)
    x, y = data_for(model)
    model.fit(x, y, verbose=0)
    optimizer.learning_rate = 1.0
    optimizer.strength = 1e3
    model.fit(x, y, verbose=0)
    assert keras_iss.find_structures(model)["lstm"].alive == 0


def test_a_regularizer_on_the_same_model_is_an_error():
    model = stacked()
    keras_iss.ISSRegularizer(0.1).attach(model)
    optimizer = keras_iss.ProximalISS("adam", strength=0.1)
    with pytest.raises(ValueError, match="has an `ISSRegularizer` attached"):
        optimizer.attach(model)
    model.compile(optimizer, "mse")
    x, y = data_for(model)
    with pytest.raises(ValueError, match="has an `ISSRegularizer` attached"):
        model.fit(x, y, verbose=0, callbacks=[keras_iss.ISSLogger()])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("adam", -1.0), ValueError, "strength"),
        (("adam", float("nan")), ValueError, "strength"),
        (("adam", "much"), TypeError, "strength"),
        ((3, 0.1), (TypeError, ValueError), "optimizer"),
        (("no such", 0.1), ValueError, "no such"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_iss.ProximalISS(*arguments)


def test_it_wraps_once():
    inner = keras_iss.ProximalISS("adam", strength=0.1)
    with pytest.raises(ValueError, match="already"):
        keras_iss.ProximalISS(inner, strength=0.1)


def test_a_model_without_free_structures_is_an_error():
    x = sequence()
    model = keras.Model(x, lstm(4)(x))
    with pytest.raises(ValueError, match="no structure that could lose"):
        keras_iss.ProximalISS("adam", strength=0.1).attach(model)


def test_a_frozen_layer_is_left_alone_with_a_warning():
    model = stacked()
    model.get_layer("one").trainable = False
    optimizer = keras_iss.ProximalISS(keras.optimizers.SGD(1.0), strength=1e3)
    x, y = data_for(model)
    with pytest.warns(UserWarning, match="leaves `one` alone"):
        compile_with(model, optimizer)
    model.fit(x, y, verbose=0)
    structures = keras_iss.find_structures(model)
    assert structures["one"].alive == 8
    assert structures["two"].alive == 0


def test_a_loop_of_ones_own_says_which_model_it_trains():
    model = small_model()
    optimizer = keras_iss.ProximalISS("sgd", strength=0.1)
    variables = model.trainable_variables
    zeros = [keras.ops.zeros(v.shape) for v in variables]
    with pytest.raises(RuntimeError, match=r"`optimizer.attach\(model\)`"):
        optimizer.apply(zeros, variables)
    optimizer.attach(model)
    optimizer.apply(zeros, variables)


def removing_all(model):
    optimizer = keras_iss.ProximalISS(keras.optimizers.SGD(0.01), strength=1e5)
    model.compile(optimizer, "mse")
    return model


def as_it_was_saved(model, folder):
    removing_all(model).save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


@pytest.mark.parametrize(
    "made",
    [
        lambda model, _: removing_all(model),
        lambda model, _: removing_all(keras.models.clone_model(model)),
        as_it_was_saved,
    ],
    ids=["as made", "a clone", "loaded"],
)
def test_a_fit_of_keras_asks_whom_it_trains(made, tmp_path):
    model = made(small_model(), tmp_path)
    x, y = data_for(model)
    before = values(model)
    with pytest.raises(RuntimeError, match="does not know which model") as e:
        model.fit(x, y, verbose=0)
    for word in ("optimizer.attach(model)", "ISSLogger()", "keras_iss.fit"):
        assert word in str(e.value)
    if BACKEND == "jax":
        # At any error in a step, the model has lost its values.
        return
    if BACKEND == "tensorflow":
        # The step is half compiled.
        removing_all(model)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path])
    model.optimizer.attach(model)
    with pytest.warns(UserWarning, match="All components of `lstm`"):
        model.fit(x, y, verbose=0)


LOSING = pytest.mark.filterwarnings("ignore:All components of")


@LOSING
@pytest.mark.parametrize(
    "callback",
    [
        lambda: keras_iss.ISSPruneCallback(0.0),
        lambda: keras_iss.ISSLogger(),
        lambda: keras_iss.ISSBudget(units=0.5),
    ],
)
def test_a_callback_says_whom_a_fit_of_keras_trains(callback):
    model = small_model()
    scaled = keras.optimizers.LossScaleOptimizer(
        keras_iss.ProximalISS(keras.optimizers.SGD(0.1), strength=1.0)
    )
    model.compile(scaled, "mse")
    x, y = data_for(model)
    before = keras_iss.find_structures(model)["lstm"].norms("once")
    model.fit(x, y, epochs=4, verbose=0, callbacks=[callback()])
    after = keras_iss.find_structures(model)["lstm"].norms("once")
    assert (after < before).all()


def test_a_callback_says_it_of_a_model_that_its_first_step_builds():
    model = keras.Sequential([lstm(6, name="lstm"), layers.Dense(2)])
    optimizer = keras_iss.ProximalISS("sgd", strength=0.1)
    model.compile(optimizer, "mse")
    x = data_for(small_model())[0]
    y = np.zeros((len(x), 5, 2), "float32")
    model.fit(x, y, verbose=0, callbacks=[keras_iss.ISSLogger()])
    assert optimizer._groups.names == ["lstm"]


def test_fit_says_whom_it_trains_and_the_small_model_is_known():
    model = stacked()
    model.compile(
        keras_iss.ProximalISS(keras.optimizers.SGD(0.02), strength=0.5), "mse"
    )
    x, y = data_for(model)
    keras_iss.prune(model, keep={"one": 5, "two": 4})
    small = keras_iss.fit(model, x, y, verbose=0)
    assert small is not model
    small.fit(x, y, verbose=0)


def test_a_model_that_is_attached_stays_the_one_that_is_meant():
    """A callback of a training of what wraps it changes nothing."""
    model = stacked()
    optimizer = keras_iss.ProximalISS("sgd", strength=0.1)
    optimizer.attach(model)
    outer = keras.Sequential([model])
    outer.build((None, 5, 3))
    outer.compile(optimizer, "mse")
    groups = optimizer._groups
    x, y = data_for(model)
    outer.fit(x, y, verbose=0, callbacks=[keras_iss.ISSLogger()])
    assert optimizer._groups is groups


@pytest.mark.parametrize(
    "name", sorted(CASES)[:: 6 if BACKEND == "tensorflow" else 18]
)
def test_the_step_is_the_formula_on_many_models(name):
    built = CASES[name]()
    model, include = built if isinstance(built, tuple) else (built, None)
    if include is not None:
        pytest.skip("other kinds of layers")
    if not keras_iss.find_structures(model).free:
        pytest.skip("nothing is free")
    randomize(model)
    wanted = expected(model, 0.7)
    only_proximal(model, strength=0.7, rate=1.0)
    for path, value in values(model).items():
        np.testing.assert_allclose(value, wanted[path], rtol=1e-3, atol=1e-5)
