"""Sizes that are asked for, and importance of components."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import head, lstm, randomize, sequence, tokens


def stacked():
    x = sequence()
    h = lstm(16, name="one")(x)
    h = layers.GRU(12, return_sequences=False, name="two")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    return model


def language_model():
    x = tokens()
    h = layers.Embedding(20, 6)(x)
    h = lstm(10, name="lstm")(h)
    model = keras.Model(x, layers.Dense(20, name="logits")(h))
    randomize(model)
    return model


def recurrent_weights(model):
    return keras_iss.find_structures(model).counts().recurrent_weights


@pytest.mark.parametrize("share", [0.5, 0.08])
def test_the_share_of_recurrent_weights_is_met(share):
    x = sequence()
    h = keras_iss.layers.RHN(30, 2, return_sequences=True, name="rhn")(x)
    h = lstm(40, name="lstm")(h)
    h = layers.GRU(40, return_sequences=False, name="gru")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    keras_iss.prune(model, weights=share)
    small = keras_iss.shrink(model)
    left = recurrent_weights(small) / recurrent_weights(model)
    assert share - 0.04 < left <= share


def test_the_highest_scored_stay():
    model = stacked()
    importance = {"one": np.arange(16.0), "two": np.arange(12.0)}
    structures = keras_iss.prune(model, weights=0.4, importance=importance)
    for structure in structures:
        gone = structure.removed()
        assert 0 < gone.sum() < structure.size
        np.testing.assert_array_equal(np.sort(gone)[::-1], gone)


def test_an_infinite_score_keeps_the_order_of_the_others():
    model = stacked()
    importance = np.arange(16.0)[::-1].copy()
    importance[[5, 0]] = np.inf, -np.inf
    structures = keras_iss.prune(
        model, weights=0.4, importance={"one": importance}
    )
    gone = np.flatnonzero(structures["one"].removed())
    assert 0 in gone and 5 not in gone
    np.testing.assert_array_equal(gone[1:], np.arange(17 - len(gone), 16))


def test_a_layer_that_is_not_trained_has_no_taylor_score():
    """Zero gradients do not mean that it can be spared."""
    model = stacked()
    model.get_layer("one").trainable = False
    model.compile("sgd", "mse")
    data = np.ones((8, 5, 3)), np.zeros((8, *model.output_shape[1:]))
    importance = keras_iss.estimate_importance(model, data, by="taylor")
    assert importance.keys() == {"two"}
    structures = keras_iss.prune(model, weights=0.4, importance=importance)
    assert structures["one"].alive > 4


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras' stateful layers fail or forget there.",
)
def test_a_score_leaves_the_states_as_they_were():
    x = keras.Input((5, 3), batch_size=8)
    h = lstm(4, return_sequences=False, stateful=True, name="lstm")(x)
    model = keras.Model(x, layers.Dense(2)(h))
    model.compile("sgd", "mse")
    data = np.ones((8, 5, 3), "float32"), np.zeros((8, 2))
    model.predict(data[0], batch_size=8, verbose=0)
    states = model.get_layer("lstm").states
    before = [keras.ops.convert_to_numpy(s).copy() for s in states]
    keras_iss.estimate_importance(model, data, by="taylor", batch_size=8)
    for now, then in zip(states, before):
        np.testing.assert_array_equal(now, then)
        assert np.abs(then).max() > 0


def test_scores_go_with_counts_too():
    model = stacked()
    importance = {"one": -np.arange(16.0)}
    structures = keras_iss.prune(model, keep={"one": 4}, importance=importance)
    np.testing.assert_array_equal(
        np.flatnonzero(~structures["one"].removed()), range(4)
    )


def test_what_is_removed_already_goes_first():
    model = stacked()
    keras_iss.prune(model, keep={"one": list(range(8))})
    importance = {"one": np.arange(16.0)[::-1].copy(), "two": np.ones(12)}
    share = recurrent_weights(keras_iss.shrink(model)) / recurrent_weights(
        model
    )
    structures = keras_iss.prune(model, weights=share, importance=importance)
    assert structures["one"].alive + structures["two"].alive >= 19


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": 1.5}, ValueError, "above 0 and below 1"),
        ({"weights": 0.0}, ValueError, "above 0 and below 1"),
        ({"weights": float("nan")}, ValueError, "above 0 and below 1"),
        ({"weights": "half"}, TypeError, "must be a number"),
        ({"weights": 0.001}, ValueError, "cannot be reached"),
        ({"weights": 0.5, "threshold": 0.1}, ValueError, "Exactly one of"),
        ({"threshold": 1.0, "importance": {}}, ValueError, "group norms"),
        ({"weights": 0.5, "importance": {"one": [1]}}, ValueError, "shape"),
        ({"weights": 0.5, "importance": {"no": [1]}}, KeyError, "no structure"),
        ({"weights": 0.5, "importance": [1, 2]}, TypeError, "dict"),
        (
            {"weights": 0.5, "importance": {"two": [np.nan] * 12}},
            ValueError,
            "NaN",
        ),
    ],
)
def test_bad_sizes_leave_the_model_alone(arguments, error, message):
    model = stacked()
    before = model.get_weights()
    with pytest.raises(error, match=message):
        keras_iss.prune(model, **arguments)
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)


def test_a_taylor_score_is_the_square_of_gradient_times_weight():
    """Against differences: scaling a component by 1 + e changes the loss."""
    model = stacked()
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5, 3)).astype("float32")
    y = rng.normal(size=(8, *model.output_shape[1:])).astype("float32")
    importance = keras_iss.estimate_importance(model, (x, y), by="taylor")
    weights = model.get_weights()
    step = 1e-2
    for structure in keras_iss.find_structures(model):
        for k in range(0, structure.size, 5):
            losses = []
            for factor in (1 + step, 1 - step):
                scaled = {
                    v.path: w.copy() for v, w in zip(model.weights, weights)
                }
                owned = {}
                for part in structure.slices:
                    if part.counted:
                        path = part.variable.path
                        mask = owned.setdefault(
                            path, np.zeros(scaled[path].shape, bool)
                        )
                        axes = (slice(None),) * part.axis
                        mask[(*axes, part.index[k])] = True
                for path, mask in owned.items():
                    scaled[path][mask] *= factor
                model.set_weights([scaled[v.path] for v in model.weights])
                losses.append(model.evaluate(x, y, verbose=0))
            change = (losses[0] - losses[1]) / (2 * step)
            np.testing.assert_allclose(
                importance[structure.name][k], change**2, rtol=0.05, atol=1e-4
            )
    model.set_weights(weights)


@pytest.mark.parametrize("build", [stacked, language_model])
def test_ranking_leaves_the_model_as_it_was(build):
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", "mse" if build is stacked else loss)
    x = np.ones((70, 5, 3) if build is stacked else (70, 5))
    y = np.ones((70, *model.output_shape[1:]) if build is stacked else (70, 5))
    model.fit(x, y, verbose=0)
    before, optimizer = model.get_weights(), model.optimizer
    slots = [keras.ops.convert_to_numpy(v).copy() for v in optimizer.variables]
    importance = keras_iss.estimate_importance(
        model, (x, y), by="taylor", batches=2
    )
    assert model.optimizer is optimizer
    assert all(value.any() for value in importance.values())
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)
    for now, then in zip(optimizer.variables, slots):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(now), then)
    model.fit(x, y, verbose=0)
    assert any(
        (now != then).any() for now, then in zip(model.get_weights(), before)
    )


def test_a_rank_by_length_is_the_group_length():
    model = stacked()
    importance = keras_iss.estimate_importance(model)
    np.testing.assert_array_equal(
        importance["two"], keras_iss.find_structures(model)["two"].norms()
    )


def test_what_a_rank_needs():
    model = stacked()
    with pytest.raises(ValueError, match="needs `data`"):
        keras_iss.estimate_importance(model, by="taylor")
    data = np.ones((4, 5, 3)), np.zeros((4, *model.output_shape[1:]))
    with pytest.raises(ValueError, match="compile"):
        keras_iss.estimate_importance(model, data, by="taylor")
    with pytest.raises(ValueError, match="`by` must be"):
        keras_iss.estimate_importance(model, by="luck")
    model.compile("sgd", "mse")
    data[0][:] = np.nan
    with pytest.raises(ValueError, match="is nan on this data"):
        keras_iss.estimate_importance(model, data, by="taylor")
