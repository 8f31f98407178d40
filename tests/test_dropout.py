"""Dropout that follows the size."""

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.dropout import scale_dropout


def _model(between, **recurrent):
    inputs = keras.Input((5, 3))
    x = keras.layers.LSTM(8, return_sequences=True, name="first", **recurrent)(
        inputs
    )
    x = between(x)
    x = keras.layers.GRU(6, name="second", **recurrent)(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


DROPPING = {
    "dropout": lambda: keras.layers.Dropout(0.4, name="drop"),
    "spatial": lambda: keras.layers.SpatialDropout1D(0.4, name="drop"),
    "gaussian": lambda: keras.layers.GaussianDropout(0.4, name="drop"),
    "alpha": lambda: keras.layers.AlphaDropout(0.4, name="drop"),
    "of each step": lambda: keras.layers.TimeDistributed(
        keras.layers.Dropout(0.4, name="drop")
    ),
    "in a model": lambda: keras.Sequential(
        [keras.Input((5, 8)), keras.layers.Dropout(0.4, name="drop")],
        name="inner",
    ),
}


@pytest.mark.parametrize("kind", DROPPING)
def test_a_rate_is_scaled_by_the_part_of_the_units_that_is_left(kind):
    model = _model(DROPPING[kind]())
    small = keras_iss.shrink(model, keep={"first": 2})
    ((name, rate),) = scale_dropout(small, before=model).items()
    assert name.endswith("drop.rate")
    assert rate == pytest.approx(0.1)
    again = keras.Model.from_config(small.get_config())
    assert not scale_dropout(again, before=small), "nothing is smaller"


def test_recurrent_layers_drop_less_of_their_inputs_and_of_their_states():
    model = _model(keras.layers.Identity(), dropout=0.2, recurrent_dropout=0.4)
    small = keras_iss.shrink(model, keep={"first": 4, "second": 3})
    scale_dropout(small, before=model)
    first, second = small.get_layer("first"), small.get_layer("second")
    assert first.dropout == pytest.approx(0.2), "what it reads stays"
    assert first.recurrent_dropout == pytest.approx(0.2)
    assert second.dropout == pytest.approx(0.1)
    assert second.recurrent_dropout == pytest.approx(0.2)
    config = keras.Model.from_config(small.get_config()).get_layer("second")
    assert config.recurrent_dropout == pytest.approx(0.2), "it is saved"
    # The large model keeps its own.
    assert model.get_layer("second").dropout == pytest.approx(0.2)


def test_directions_and_cells_of_a_stack_each_have_their_own_part():
    cells = [keras.layers.GRUCell(6, recurrent_dropout=0.3) for _ in "ab"]
    inputs = keras.Input((5, 3))
    x = keras.layers.Bidirectional(
        keras.layers.LSTM(8, return_sequences=True, recurrent_dropout=0.4),
        name="both",
    )(inputs)
    x = keras.layers.RNN(cells, name="stack")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    structures = keras_iss.find_structures(model)
    forward, backward, *stacked = [s.name for s in structures]
    small = keras_iss.shrink(
        model, keep={forward: 2, backward: 4, stacked[0]: 3}
    )
    rates = scale_dropout(small, before=model)
    assert sorted(rates.values()) == pytest.approx([0.1, 0.15, 0.2])


def test_attention_scores_are_no_units():
    inputs = keras.Input((5, 3))
    x = keras.layers.LSTM(8, return_sequences=True, name="lstm")(inputs)
    x = keras.layers.MultiHeadAttention(2, 4, dropout=0.4, name="mha")(x, x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    small = keras_iss.shrink(model, keep={"lstm": 4})
    assert not scale_dropout(small, before=model)


def test_rhn_drops_less_when_it_is_smaller():
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            keras_iss.layers.RHN(8, depth=2, recurrent_dropout=0.4, name="rhn"),
            keras.layers.Dense(2),
        ]
    )
    small = keras_iss.shrink(model, keep={"rhn": 4})
    assert scale_dropout(small, before=model) == pytest.approx(
        {"rhn.recurrent_dropout": 0.2}
    )
    outputs = small(np.ones((2, 5, 3)), training=True)
    assert np.isfinite(keras.ops.convert_to_numpy(outputs)).all()


def _fitted(**arguments):
    keras.utils.set_random_seed(0)
    model = _model(keras.layers.Dropout(0.4, name="drop"))
    model.compile("adam", "mse")
    return keras_iss.fit(
        model,
        np.ones((8, 5, 3)),
        np.zeros((8, 2)),
        epochs=4,
        verbose=0,
        callbacks=[keras_iss.ISSBudget(keep={"first": 2})],
        **arguments,
    )


def test_fit_scales_dropout_with_each_cut():
    small = _fitted()
    assert small.get_layer("first").units == 2
    assert small.get_layer("drop").rate == pytest.approx(0.1)


def test_fit_keeps_rates_where_it_is_asked_to():
    assert _fitted(scale_dropout=False).get_layer("drop").rate == 0.4


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeError, match=r"`scale_dropout`.*'yes'"):
        _fitted(scale_dropout="yes")
