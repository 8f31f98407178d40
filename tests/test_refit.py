"""What reads pruned components makes do with those that stay."""

import warnings

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.refit.moments import Moments
from keras_iss.refit.readers import readers_of
from keras_iss.refit.regression import Regression
from tests.cases import CASES, inputs_for, lstm, sequence
from tests.test_round_trip import make, outputs, some_components

# Every reader; and of the others, which take long together, a part.
SOME = (
    "lstm",
    "gru",
    "gru_reset_before",
    "rnn_of_simple_rnn_cell",
    "bidirectional_stack",
    "read_by_multi_head_attention",
    "read_by_conv_1d",
    "through_time_distributed",
    "a_nested_model_wrapped_and_called",
    "through_a_mask",
)
NAMES = [
    name
    for i, name in enumerate(CASES)
    if name in SOME or (keras.backend.backend() == "torch" and i % 4 == 1)
]


def redundant(seed=0, units=8, told=4, layer=keras.layers.LSTM, **kwargs):
    """A model in which the last units do what the first ones do, half of it.

    Units that are equal are predicted exactly, and so are their parts.
    """
    keras.utils.set_random_seed(seed)
    x = sequence()
    h = layer(units, return_sequences=True, name="rnn", **kwargs)(x)
    model = keras.Model(x, keras.layers.Dense(3, name="head")(h))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(0.5 * rng.normal(size=variable.shape))
    cell = model.get_layer("rnn").cell
    for variable in (cell.kernel, cell.recurrent_kernel, cell.bias):
        value = keras.ops.convert_to_numpy(variable).copy()
        columns = value.reshape(*value.shape[:-1], -1, units)
        columns[..., told:] = columns[..., : units - told]
        variable.assign(columns.reshape(value.shape))
    return model


def inputs(samples=64, steps=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, steps, 3)).astype("float32")


def error(got, wanted):
    return float(np.square(got[0] - wanted[0]).sum()) / float(
        np.square(wanted[0] - wanted[0].mean((0, 1))).sum()
    )


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (keras.layers.LSTM, {}),
        (keras.layers.GRU, {}),
        (keras.layers.GRU, {"reset_after": False}),
        (keras.layers.SimpleRNN, {}),
    ],
)
def test_units_that_others_repeat_are_cut_without_a_loss(layer, arguments):
    model = redundant(layer=layer, **arguments)
    x = inputs()
    wanted = outputs(model, x)
    structures = keras_iss.prune(
        model, keep={"rnn": [0, 1, 2, 3]}, data=x, refit=True
    )
    assert structures["rnn"].alive == 4
    assert error(outputs(model, x), wanted) < 1e-5
    assert structures.refit.error < 1e-5 < structures.refit.error_of_cut
    assert not structures.refit.left and not structures.refit.rejected


def test_the_highway_network_is_refitted_at_every_micro_layer():
    keras.utils.set_random_seed(0)
    x = sequence()
    h = keras_iss.layers.RHN(6, depth=3, return_sequences=True, name="rhn")(x)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    cell = model.get_layer("rhn").cell
    rng = np.random.default_rng(0)
    for variable in model.weights:
        value = 0.5 * rng.normal(size=variable.shape)
        if any(variable is v for v in cell.variables):
            columns = value.reshape(*value.shape[:-1], -1, 6)
            columns[..., 3:] = columns[..., :3]
        variable.assign(value)
    data = inputs()
    wanted = outputs(model, data)
    structures = keras_iss.prune(
        model, keep={"rhn": [0, 1, 2]}, data=data, refit=True
    )
    assert error(outputs(model, data), wanted) < 1e-5
    assert len(structures.refit.refitted) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_refitted_model_is_as_exactly_pruned_as_any(name):
    model, include = make(name)
    structures = keras_iss.find_structures(model, include)
    if not structures.free:
        pytest.skip("nothing to cut")
    kept = some_components(structures)
    data = inputs_for(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structures = keras_iss.prune(
            model,
            keep=kept,
            data=iter([(data,)]),
            refit=True,
            include=include,
        )
        for structure in structures.free:
            stays = np.flatnonzero(~structure.removed())
            assert set(stays) <= set(kept[structure.name])
        assert structures.refit.error <= structures.refit.error_of_cut
        small = keras_iss.shrink(model, include=include, verify=False)
    for wanted, other in zip(outputs(model, data), outputs(small, data)):
        np.testing.assert_allclose(wanted, other, rtol=1e-4, atol=2e-5)


def test_what_reads_unlike_a_kernel_is_left_and_said_so():
    model, _ = make("read_by_a_depthwise_convolution")
    kernel = next(v for v in model.weights if "depthwise" in v.path)
    before = keras.ops.convert_to_numpy(kernel).copy()
    (structure,) = keras_iss.find_structures(model).free
    with pytest.warns(UserWarning, match="DepthwiseConv1D"):
        structures = keras_iss.prune(
            model,
            keep={structure.name: [0, 1, 2]},
            data=inputs(steps=5),
            refit=True,
        )
    assert kernel.path in structures.refit.left
    after = keras.ops.convert_to_numpy(kernel)
    alive = after != 0
    np.testing.assert_array_equal(after[alive], before[alive])


def test_a_shared_layer_is_refitted_to_all_that_it_is_called_on():
    model = redundant()
    x, head = model.input, model.get_layer("head")
    h = model.get_layer("head").input
    shared = keras.Model(x, [head(h), head(keras.ops.tanh(3 * h))])
    data = inputs()
    wanted = outputs(shared, data)
    structures = keras_iss.prune(
        shared, keep={"rnn": [0, 1, 2, 3]}, data=data, refit=True
    )
    assert "head/kernel" in structures.refit.refitted
    got = outputs(shared, data)
    assert error(got, wanted) < 1e-5 and error(got[1:], wanted[1:]) < 1e-5


def test_steps_that_are_masked_do_not_count():
    x = keras.Input((None, 3))
    h = keras.layers.Masking()(x)
    h = keras.layers.LSTM(6, return_sequences=True, name="rnn")(h)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(0.5 * rng.normal(size=variable.shape))
    short = inputs(samples=8, steps=6)
    # As many masked steps as one likes change nothing.
    padded = np.concatenate([short, np.zeros((8, 30, 3), "float32")], axis=1)
    kernels = []
    for data in (short, padded):
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        keras_iss.prune(copy, keep={"rnn": 3}, data=data, refit=True)
        kernels.append(copy.get_weights())
    for wanted, other in zip(*kernels):
        np.testing.assert_allclose(wanted, other, atol=1e-4)


def test_a_refit_that_makes_it_worse_is_rejected(monkeypatch):
    solve = Regression.solve

    def wrong(self, ridge):
        prediction = solve(self, ridge)
        prediction.factors[...] *= -30
        return prediction

    monkeypatch.setattr(Regression, "solve", wrong)
    models = [redundant(), redundant()]
    for model, arguments in zip(
        models, ({}, {"data": inputs(), "refit": True})
    ):
        structures = keras_iss.prune(
            model, keep={"rnn": [0, 1, 2, 3]}, **arguments
        )
    assert structures.refit.refitted == {}
    assert set(structures.refit.rejected) == {
        "head/kernel",
        "rnn/lstm_cell/recurrent_kernel",
    }
    for wanted, other in zip(*(model.get_weights() for model in models)):
        np.testing.assert_array_equal(wanted, other)


def test_an_error_on_the_way_leaves_the_model_as_it_was(monkeypatch):
    model = redundant()
    before = model.get_weights()
    bad = inputs()
    bad[5] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        keras_iss.prune(model, keep={"rnn": 4}, data=bad, refit=True)
    with pytest.raises(ValueError, match="`data`"):
        keras_iss.prune(model, keep={"rnn": 4}, refit=True)

    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr("keras_iss.surgery.pruning.zero_components", fails)
    with pytest.raises(MemoryError):
        keras_iss.prune(model, keep={"rnn": 4}, data=inputs(), refit=True)
    for wanted, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(wanted, other)


@pytest.mark.parametrize("form", ["inputs", "pair", "batches", "dataset"])
def test_data_come_in_the_forms_that_training_takes(form):
    class Dataset(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return x[16 * i : 16 * i + 16], np.zeros((16, 10, 3))

    x = inputs()
    data = {
        "inputs": x,
        "pair": (x, np.zeros((64, 10, 3))),
        "batches": ((x[i : i + 16], None) for i in range(0, 64, 16)),
        "dataset": Dataset(),
    }[form]
    model = redundant()
    structures = keras_iss.prune(
        model, keep={"rnn": [0, 1, 2, 3]}, data=data, refit=True
    )
    assert structures.refit.error < 1e-5


def test_a_compiled_model_trains_on_as_it_is():
    model = redundant()
    model.compile("adam", "mse")
    data = inputs()
    model.fit(data, data, epochs=1, verbose=0)
    step = model.train_function
    (structure,) = keras_iss.prune(
        model, keep={"rnn": 3}, data=data, refit=True
    )
    assert model.train_function is step
    model.fit(data, data, epochs=1, verbose=0)
    assert structure.alive == 3


def test_states_that_a_layer_carries_on_stay():
    x = keras.Input((10, 3), batch_size=16)
    h = lstm(6, stateful=True, name="rnn")(x)
    model = keras.Model(x, keras.layers.Dense(3)(h))
    data = inputs()
    model.predict(data, batch_size=16, verbose=0)
    states = [
        keras.ops.convert_to_numpy(state).copy()
        for state in model.get_layer("rnn").states
    ]
    structures = keras_iss.prune(model, keep={"rnn": 3}, data=data, refit=True)
    assert structures.refit.refitted
    stays = ~structures["rnn"].removed()
    for before, state in zip(states, model.get_layer("rnn").states):
        state = keras.ops.convert_to_numpy(state)
        np.testing.assert_array_equal(state[:, stays], before[:, stays])


def test_every_reader_names_kernels_of_its_layer():
    for name in SOME:
        model, _ = make(name)
        for reader in readers_of(model):
            own = {id(v) for v in reader.layer.variables}
            assert {id(x.variable) for x in reader.places} <= own


def test_moments_of_batches_are_those_of_all_at_once():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 4)) @ rng.normal(size=(4, 4)) + 1e3
    moments = Moments(4)
    for part in np.array_split(rows, 7):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0))
    np.testing.assert_allclose(
        moments.covariance, np.cov(rows.T, bias=True), rtol=1e-8
    )
    np.testing.assert_allclose(moments.second(False), rows.T @ rows / 100)


def test_a_regression_solves_the_ridge_problem():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5)) + 2
    moments = Moments(5)
    moments.add(rows)
    stay, gone = np.array([0, 2, 4]), np.array([1, 3])
    got = Regression(moments, stay, gone, True).solve(0.1)
    centred = rows - rows.mean(axis=0)
    own = centred[:, stay].T @ centred[:, stay] / 50
    ridge = 0.1 * np.trace(own) / 3 * np.eye(3)
    factors = np.linalg.solve(
        own + ridge, centred[:, stay].T @ centred[:, gone] / 50
    )
    np.testing.assert_allclose(got.factors, factors)
    constant = rows[:, gone].mean(0) - rows[:, stay].mean(0) @ factors
    np.testing.assert_allclose(got.constant, constant)


def test_redundancy_is_least_for_what_others_repeat():
    model = redundant(units=8, told=6)
    found = keras_iss.estimate_importance(model, inputs(), by="redundancy")
    importance = found["rnn"]
    # Units 6 and 7 repeat 0 and 1: one of each pair is not needed.
    pairs = np.sort(np.stack([importance[[0, 1]], importance[[6, 7]]]), axis=0)
    assert pairs[0].max() < 0.1 * importance[2:6].min()
    assert pairs[1].min() > 10 * pairs[0].max()


def test_redundancy_counts_what_reads_a_component():
    model = redundant(units=6, told=6)
    cell = model.get_layer("rnn").cell
    for variable in (cell.recurrent_kernel, model.get_layer("head").kernel):
        value = keras.ops.convert_to_numpy(variable).copy()
        value[2] = 0
        variable.assign(value)
    importance = keras_iss.estimate_importance(model, inputs(), by="redundancy")
    assert np.argmin(importance["rnn"]) == 2
    with pytest.raises(ValueError, match="redundancy"):
        keras_iss.estimate_importance(model, by="redundancy")
