"""The models of the paper: their weights, their groups, their surgery."""

import pathlib
import sys

import keras
import numpy as np
import pytest

import keras_iss

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from paper import bidaf, language_models

NAMES = (
    "phrase_forward",
    "phrase_backward",
    "modelling_1_forward",
    "modelling_1_backward",
    "modelling_2_forward",
    "modelling_2_backward",
    "output_forward",
    "output_backward",
)
# Words without a vector, and characters: what a word needs beside the word
# vectors. How many of each the paper had is not known; all rows of its table
# agree on 119,200 to 119,400 weights for both together.
WORDS_WITHOUT_VECTOR = 1100
CHARACTERS = 1162


def array(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))


def penalty(model):
    keras_iss.ISSRegularizer(1.0).attach(model)
    return sum(float(keras.ops.convert_to_numpy(x)) for x in model.losses)


def only_tensorflow():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("counts are the same on every backend")


# Weights.


def test_the_weights_of_the_stacked_lstms_are_those_of_the_paper():
    only_tensorflow()
    model = language_models.stacked_lstms((1500, 1500), 10_000, 1500)
    assert model.count_params() == 66_022_000
    for sizes, weights in (
        ((373, 315), 21_824_148),
        ((381, 535), 25_190_548),
    ):
        keep = {f"lstm_{i}": size for i, size in enumerate(sizes, start=1)}
        assert keras_iss.shrink(model, keep=keep).count_params() == weights
        direct = language_models.stacked_lstms(sizes, 10_000, 1500)
        assert direct.count_params() == weights


def test_the_weights_of_the_highway_network_are_those_of_the_paper():
    only_tensorflow()
    model = language_models.highway_network(
        830, 10, 10_000, (0.45, 0.15, 0.45, 0.15)
    )
    assert model.count_params() - seeds(model) == 23_482_400
    for width, weights in (
        (726, 18_880_192),
        (517, 11_070_698),
        (403, 7_621_058),
        (328, 5_663_408),
    ):
        small = keras_iss.shrink(model, keep={"rhn": width})
        assert small.count_params() - seeds(small) == weights


def seeds(model):
    """What Keras counts of random states."""
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return model.count_params() - trained


@pytest.mark.parametrize(
    ("units", "weights"),
    [
        ((100, 100, 100, 100, 100, 100), 2.69e6),
        ((87, 81, 87, 92, 74, 96), 2.276e6),
        ((51, 33, 42, 58, 37, 26), 1.151e6),
        ((20, 33, 40, 38, 31, 16), 0.932e6),
        ((23, 22, 35, 35, 25, 14), 0.859e6),
    ],
)
def test_the_weights_of_bidaf_are_those_of_the_paper(units, weights):
    """The 2.69M are all weights but the vectors of words that have one.

    Those of the highways, the character convolution, the LSTMs, the attention
    and the two pointers are 2,570,700; the rest are the vectors of characters
    and of frequent words for which GloVe has none.
    """
    only_tensorflow()
    model = bidaf.bidaf(
        dict.fromkeys(NAMES, 100),
        1000,
        WORDS_WITHOUT_VECTOR,
        CHARACTERS,
        vectors=np.zeros((1000, 100)),
    )
    keep = dict(zip(NAMES[2:], units))
    small = keras_iss.shrink(model, keep=keep)
    table = small.get_layer("word_vectors").count_params()
    assert small.count_params() - table == pytest.approx(weights, abs=0.01e6)
    direct = bidaf.bidaf(
        {**dict.fromkeys(NAMES, 100), **keep},
        1000,
        WORDS_WITHOUT_VECTOR,
        CHARACTERS,
        vectors=np.zeros((1000, 100)),
    )
    assert direct.count_params() == small.count_params()


# The penalty, element by element as the paper's code has it.


def owned(layer, k):
    """Squares of what a unit of an LSTM owns in its own matrices.

    Its four columns of the stacked input and hidden matrix, and its hidden
    row; what lies in both counts in both.
    """
    cell = layer.cell
    units = cell.units
    kernel, recurrent = array(cell.kernel), array(cell.recurrent_kernel)
    columns = [k + gate * units for gate in range(4)]
    stacked = np.concatenate([kernel, recurrent])
    return (stacked[:, columns] ** 2).sum() + (recurrent[k] ** 2).sum()


def rows(layer, positions):
    """Squares of what reads a unit at these positions of the input."""
    kernel = array(
        layer.cell.kernel if hasattr(layer, "cell") else layer.kernel
    )
    return (kernel[positions] ** 2).sum()


def test_the_penalty_of_the_stacked_lstms():
    model = language_models.stacked_lstms((5, 4), 11, 6)
    randomize(model)
    first, second = model.get_layer("lstm_1"), model.get_layer("lstm_2")
    logits = model.get_layer("logits")
    expected = sum(
        np.sqrt(owned(layer, k) + rows(reader, [k]) + 1e-8)
        for layer, reader in ((first, second), (second, logits))
        for k in range(layer.units)
    )
    assert penalty(model) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_of_the_highway_network():
    width, depth = 5, 3
    model = language_models.highway_network(width, depth, 11, (0, 0, 0, 0.2))
    randomize(model)
    cell = model.get_layer("rhn").cell
    embedding = array(model.get_layer("embedding").embeddings)
    expected = 0.0
    for k in range(width):
        total = (embedding[:, k] ** 2).sum()
        for matrix in (cell.kernel, *cell.recurrent_kernels):
            # Its row and its columns, of H and of T.
            matrix = array(matrix)
            total += (matrix[k] ** 2).sum()
            total += (matrix[:, [k, k + width]] ** 2).sum()
        expected += np.sqrt(total + 1e-8)
    assert penalty(model) == pytest.approx(expected, rel=1e-5)


def of_the_six(model, k_of, attended):
    """Sum of group norms of the modelling and output LSTMs.

    Args:
        model: BiDAF.
        k_of: Dict from structure to its size.
        attended: Boolean, whether the rows of the averaged state are counted.
    """
    layer = model.get_layer
    p0 = 4 * (k_of["phrase_forward"] + k_of["phrase_backward"])
    g = k_of["modelling_2_forward"] + k_of["modelling_2_backward"]
    total = 0.0
    for part, reader in (("modelling_1", "modelling_2"), ("modelling_2", "")):
        for direction in ("forward", "backward"):
            name = f"{part}_{direction}"
            shift = k_of[f"{part}_forward"] if direction == "backward" else 0
            for k in range(k_of[name]):
                at = shift + k
                group = owned(layer(name), k)
                if reader:
                    group += rows(layer(f"{reader}_forward"), [at])
                    group += rows(layer(f"{reader}_backward"), [at])
                else:
                    read = [p0 + at, p0 + 2 * g + at]
                    read += [p0 + g + at] if attended else []
                    group += rows(layer("output_forward"), read)
                    group += rows(layer("output_backward"), read)
                    group += rows(layer("start_logit"), [at])
                total += np.sqrt(group + 1e-8)
    for direction in ("forward", "backward"):
        name = f"output_{direction}"
        shift = k_of["output_forward"] if direction == "backward" else 0
        for k in range(k_of[name]):
            group = owned(layer(name), k)
            group += rows(layer("end_logit"), [shift + k])
            total += np.sqrt(group + 1e-8)
    return total


def of_the_phrase(model, k_of):
    """Sum of group norms of the shared LSTMs."""
    layer = model.get_layer
    h = k_of["phrase_forward"] + k_of["phrase_backward"]
    g = k_of["modelling_2_forward"] + k_of["modelling_2_backward"]
    out = k_of["output_forward"] + k_of["output_backward"]
    total = 0.0
    for direction in ("forward", "backward"):
        shift = k_of["phrase_forward"] if direction == "backward" else 0
        for k in range(k_of[f"phrase_{direction}"]):
            at = shift + k
            of_p0 = np.array([at + i * h for i in range(4)])
            group = owned(layer(f"phrase_{direction}"), k)
            for name in ("context", "question", "both"):
                group += rows(layer(f"similarity_{name}"), [at])
            for name in (
                "modelling_1_forward",
                "modelling_1_backward",
                "output_forward",
                "output_backward",
            ):
                group += rows(layer(name), of_p0)
            group += rows(layer("start_logit"), g + of_p0)
            group += rows(layer("end_logit"), out + of_p0)
            total += np.sqrt(group + 1e-8)
    return total


SIZES = dict(zip(NAMES, (4, 3, 3, 5, 4, 2, 3, 4)))


def small_bidaf():
    model = bidaf.bidaf(SIZES, 20, 5, 9, filters=4, word_size=3)
    randomize(model)
    return model


def test_the_penalty_of_bidaf():
    model = small_bidaf()
    expected = of_the_six(model, SIZES, attended=True)
    expected += of_the_phrase(model, SIZES)
    assert penalty(model) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_of_bidaf_without_the_attended_rows():
    """As in the paper's code, if those rows are zero: it leaves them out."""
    model = small_bidaf()
    g = SIZES["modelling_2_forward"] + SIZES["modelling_2_backward"]
    p0 = 4 * (SIZES["phrase_forward"] + SIZES["phrase_backward"])
    left_out = of_the_six(model, SIZES, attended=False)
    assert left_out < 0.99 * of_the_six(model, SIZES, attended=True)
    for direction in ("forward", "backward"):
        kernel = model.get_layer(f"output_{direction}").cell.kernel
        value = array(kernel)
        value[p0 + g : p0 + 2 * g] = 0
        kernel.assign(value)
    expected = of_the_six(model, SIZES, attended=False)
    expected += of_the_phrase(model, SIZES)
    assert penalty(model) == pytest.approx(expected, rel=1e-5)


# Structures and surgery.


def test_all_structures_of_bidaf_are_found_and_none_is_pinned():
    structures = keras_iss.find_structures(small_bidaf())
    assert {structure.name: structure.size for structure in structures} == SIZES
    assert not [structure.name for structure in structures if structure.pinned]


def test_shrinking_bidaf_changes_no_output():
    model = small_bidaf()
    rng = np.random.default_rng(0)
    inputs = {
        "context_words": rng.integers(1, 20, (2, 9)),
        "question_words": rng.integers(1, 20, (2, 6)),
        "context_characters": rng.integers(0, 9, (2, 9, 16)),
        "question_characters": rng.integers(0, 9, (2, 6, 16)),
    }
    inputs["context_words"][0, 6:] = 0
    inputs["question_words"][1, 3:] = 0
    keep = {name: [0, size - 1] for name, size in SIZES.items()}
    keras_iss.prune(model, keep=keep)
    small = keras_iss.shrink(model)
    assert small.count_params() < model.count_params()
    before, after = model(inputs), small(inputs)
    for name in ("start", "end"):
        np.testing.assert_allclose(
            array(after[name]), array(before[name]), rtol=1e-5, atol=1e-5
        )


def test_a_dropped_word_is_dropped_wherever_it_occurs():
    layer = language_models.WordDropout(50, 0.5, seed=1)
    tokens = np.random.default_rng(0).integers(0, 50, (3, 400))
    factors = array(layer(tokens, training=True))[..., 0]
    assert set(np.unique(factors)) == {0.0, 2.0}
    for row, kept in zip(tokens, factors):
        for word in range(50):
            assert len(np.unique(kept[row == word])) <= 1
    assert not np.array_equal(factors[0] > 0, factors[1] > 0)
    assert (array(layer(tokens)) == 1).all()
