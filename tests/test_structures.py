"""Slices, structures, and how they are reported."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import CASES, head, lstm, randomize, sequence


def language_model(units=(5, 4), vocabulary=11, include_bias=True):
    x = keras.Input((None,), dtype="int32")
    h = layers.Embedding(vocabulary, 3)(x)
    h = layers.LSTM(units[0], return_sequences=True, name="lstm_1")(h)
    h = layers.LSTM(units[1], return_sequences=True, name="lstm_2")(h)
    y = layers.Dense(vocabulary, name="softmax", use_bias=include_bias)(h)
    model = keras.Model(x, y)
    randomize(model)
    return model


def squares_of_component(model, k, overlap):
    """The paper's formula for unit k of `lstm_1`, element by element."""
    first = model.get_layer("lstm_1").cell
    second = model.get_layer("lstm_2").cell
    kernel, recurrent = map(np.array, (first.kernel, first.recurrent_kernel))
    units = recurrent.shape[0]
    columns = [gate * units + k for gate in range(4)]
    total = (np.array(second.kernel)[k] ** 2).sum(dtype="float64")
    for column in columns:
        total += (kernel[:, column] ** 2).sum(dtype="float64")
        total += (recurrent[:, column] ** 2).sum(dtype="float64")
    row = recurrent[k].astype("float64") ** 2
    if overlap == "once":
        row[columns] = 0
    return total + row.sum()


@pytest.mark.parametrize("overlap", ["count_twice", "once"])
def test_lengths_are_the_norms_of_the_paper(overlap):
    model = language_model()
    found = keras_iss.find_structures(model)["lstm_1"].norms(overlap)
    wanted = [
        np.sqrt(squares_of_component(model, k, overlap)) for k in range(5)
    ]
    assert found.shape == (5,) and found.dtype.kind == "f"
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_lengths_do_not_count_biases():
    model = language_model()
    structure = keras_iss.find_structures(model)["lstm_1"]
    before = structure.norms()
    model.get_layer("lstm_1").cell.bias.assign(np.full(20, 7.0))
    np.testing.assert_array_equal(structure.norms(), before)


def test_a_component_is_removed_only_if_every_weight_is_exactly_zero():
    model = language_model()
    structures = keras_iss.prune(model, keep={"lstm_1": [0, 1, 2, 3]})
    assert structures["lstm_1"].removed().tolist() == [False] * 4 + [True]
    kernel = model.get_layer("lstm_2").cell.kernel
    value = np.array(kernel)
    value[4, 0] = 1e-30  # Its square is zero in float32.
    kernel.assign(value)
    assert structures["lstm_1"].norms()[4] == 0
    assert structures["lstm_1"].alive == 5


def test_overlap_has_two_values():
    structure = keras_iss.find_structures(language_model())["lstm_1"]
    with pytest.raises(ValueError, match="count_twice"):
        structure.norms(overlap="thrice")


def test_structures_are_found_by_the_end_of_their_path():
    structures = keras_iss.find_structures(CASES["bidirectional_concat"]())
    name = next(iter(structures)).name
    assert name.startswith("bidirectional/forward_")
    assert structures[name.split("/")[1]] is structures[name]
    assert name in structures and "nothing" not in structures
    assert dict(structures.items()).keys() == structures.keys()
    assert list(structures.values()) == list(structures)


def test_a_wrong_name_is_met_with_the_right_one():
    structures = keras_iss.find_structures(language_model())
    with pytest.raises(KeyError, match="Did you mean `lstm_1`"):
        structures["lstm1"]


def test_a_name_that_fits_several_structures_is_refused():
    model = CASES["merged_by_add_of_a_concatenation"]()
    structures = keras_iss.find_structures(model)
    shared = next(layer.name for layer in model.layers if "gru" in layer.name)
    with pytest.raises(KeyError, match="fits several structures"):
        structures[shared]


def test_the_table_says_it_all():
    x = sequence()
    h = lstm(6, name="first")(x)
    h = layers.LayerNormalization(name="norm")(h)
    h = layers.GRU(5, name="second")(h)
    model = keras.Model(x, head(h))
    keras_iss.prune(model, keep={"second": 2})
    lines = str(keras_iss.find_structures(model)).splitlines()
    assert lines[0].split() == [
        "structure",
        "size",
        "alive",
        "weights",
        "consumers",
        "pinned",
    ]
    assert lines[1].split()[:3] == ["first", "6", "6"]
    assert "`norm` (LayerNormalization) takes a mean over the" in lines[1]
    assert lines[2].split()[:3] == ["second", "5", "2"]
    assert lines[2].split()[3].endswith("%") and "head" in lines[2]


def test_counts_of_a_language_model():
    structures = keras_iss.find_structures(language_model())
    counts = structures.counts()
    first, second = 4 * 5 * (3 + 5 + 1), 4 * 4 * (5 + 4 + 1)
    assert counts.recurrent_weights == first + second
    assert counts.weights == first + second + 11 * 3 + 4 * 11 + 11
    assert counts.mult_adds == 4 * 5 * 8 + 4 * 4 * 9 + 4 * 11
    assert counts.units == 9


def test_counts_foresee_what_shrink_leaves():
    model = language_model()
    structures = keras_iss.prune(model, keep={"lstm_1": 3, "lstm_2": [1]})
    small = keras_iss.shrink(model)
    foreseen = structures.counts(shrunk=True)
    assert foreseen == keras_iss.find_structures(small).counts()
    assert foreseen.weights == small.count_params()


def test_counts_of_a_convolution_are_per_output_position():
    x = keras.Input((3, 4, 5, 2))
    h = layers.ConvLSTM2D(6, 3, padding="same")(x)
    model = keras.Model(x, head(layers.GlobalAveragePooling2D()(h)))
    counts = keras_iss.find_structures(model).counts()
    assert counts.mult_adds == 9 * (2 + 6) * 24 * 4 * 5 + 6 * 2
