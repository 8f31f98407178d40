"""An inspection says what cuts would save, and measures it."""

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.inspection import inspect_model


def two_lstms():
    return keras.Sequential(
        [
            keras.Input((None, 3), name="signal"),
            keras.layers.LSTM(8, return_sequences=True, name="first"),
            keras.layers.LSTM(6, name="second"),
            keras.layers.Dense(2, name="out"),
        ]
    )


def test_cuts_are_those_that_prune_and_shrink_would_make():
    model = two_lstms()
    found = inspect_model(model, (0.5,), measure=False)
    now, half = found.cuts
    assert now.weights == model.count_params() and now.bytes == 4 * now.weights
    keras_iss.prune(model, weights=0.5)
    small = keras_iss.shrink(model)
    assert half.weights == small.count_params()
    assert half.sizes == {
        name: small.get_layer(name).units for name in ("first", "second")
    }
    counts = keras_iss.find_structures(small).counts()
    assert half.mult_adds == counts.mult_adds
    assert half.milliseconds is None


def test_every_cut_that_can_be_made_is_measured():
    found = inspect_model(two_lstms(), (0.5, 0.001), length=4)
    now, half, too_small = found.cuts
    assert now.milliseconds > 0 and half.milliseconds > 0
    assert too_small.problem and too_small.milliseconds is None
    assert found.shapes == {"signal": (1, 4, 3)}


def test_what_is_removed_already_is_a_cut_of_its_own():
    model = two_lstms()
    keras_iss.prune(model, keep={"first": 5})
    before = model.get_weights()
    found = inspect_model(model, (), measure=False)
    assert [cut.target for cut in found.cuts] == ["as it is", "shrunk"]
    assert found.cuts[1].sizes == {"first": 5, "second": 6}
    assert found.structures[0].alive == 5
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_structure_is_summed_up_with_what_one_unit_of_it_costs():
    model = two_lstms()
    first, second = inspect_model(model, measure=False).structures
    smaller = keras_iss.shrink(model, keep={"first": 7})
    saved = model.count_params() - smaller.count_params()
    assert first.weights_per_unit == saved
    assert first.consumers == ("second",) and first.pinned is None
    norms = keras_iss.find_structures(model)["second"].norms()
    assert second.largest_norm == pytest.approx(norms.max())


def test_a_pinned_structure_says_why():
    model = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.LSTM(4, name="lstm")]
    )
    found = inspect_model(model, (0.5,), measure=False)
    (structure,) = found.structures
    assert "output" in structure.pinned
    assert structure.weights_per_unit is None
    assert found.cuts[1].problem
