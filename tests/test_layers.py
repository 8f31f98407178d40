"""Recurrent Highway Networks."""

import contextlib

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.layers import RHN, RHNCell
from tests.serving import Server


def numpy_rhn(layer, x, state, mask=None):
    """Zilly et al.'s equations in NumPy."""
    cell = layer.cell
    kernel = np.array(keras.ops.convert_to_numpy(cell.kernel))
    outputs = []
    for t in range(x.shape[1]):
        new = state
        for i in range(cell.depth):
            both = new @ keras.ops.convert_to_numpy(cell.recurrent_kernels[i])
            if i == 0:
                both = both + x[:, t] @ kernel
            h, gate = np.split(both, 2, axis=1)
            h = np.tanh(h + keras.ops.convert_to_numpy(cell.biases[i]))
            bias = keras.ops.convert_to_numpy(cell.transform_biases[i])
            gate = 1 / (1 + np.exp(-gate - bias))
            new = (h - new) * gate + new
        if mask is not None:
            new = np.where(mask[:, t, None], new, state)
        state = new
        outputs.append(state)
    return np.stack(outputs, axis=1)


def random_weights(layer, seed=0):
    rng = np.random.default_rng(seed)
    layer.set_weights(
        [0.4 * rng.normal(size=w.shape) for w in layer.get_weights()]
    )


def outputs_of(model, x):
    return keras.ops.convert_to_numpy(model(x))


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(2, 7, 3)).astype("float32")


def test_the_recurrence_is_that_of_the_paper(x):
    layer = RHN(5, depth=3, return_sequences=True)
    layer.build(x.shape)
    random_weights(layer)
    expected = numpy_rhn(layer, x, np.zeros((2, 5)))
    np.testing.assert_allclose(outputs_of(layer, x), expected, atol=1e-5)


def test_masked_steps_leave_the_state(x):
    layer = RHN(5, depth=2, return_sequences=True)
    layer.build(x.shape)
    random_weights(layer)
    mask = np.ones((2, 7), bool)
    mask[0, 4:] = mask[1, 2] = False
    expected = numpy_rhn(layer, x, np.zeros((2, 5)), mask)
    got = keras.ops.convert_to_numpy(layer(x, mask=mask))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_state_goes_in_and_out(x):
    layer = RHN(4, depth=2, return_state=True)
    whole, state = layer(x)
    _, half = layer(x[:, :3])
    rest, _ = layer(x[:, 3:], initial_state=[half])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(rest),
        keras.ops.convert_to_numpy(whole),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(state), keras.ops.convert_to_numpy(whole)
    )


def test_a_stateful_layer_goes_on_where_it_was(x):
    inputs = keras.Input(batch_shape=(2, None, 3))
    layer = RHN(4, depth=2, stateful=True)
    model = keras.Model(inputs, layer(inputs))
    model(x[:, :3])
    continued = outputs_of(model, x[:, 3:])
    layer.reset_state()
    np.testing.assert_allclose(continued, outputs_of(model, x), atol=1e-5)


def test_transform_gates_start_mostly_closed():
    cell = RHNCell(4, depth=2)
    cell.build((None, 3))
    for bias in cell.transform_biases:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), -2)
    for bias in cell.biases:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), 0)


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
def test_a_dropout_mask_is_the_same_in_every_step(rate):
    # Of constant inputs, and with a state that forgets, every step is alike.
    layer = RHN(
        6,
        depth=1,
        return_sequences=True,
        seed=3,
        recurrent_activation=lambda t: keras.ops.ones_like(t),
        **{rate: 0.5},
    )
    x = np.ones((4, 6, 8), "float32")
    layer.build(x.shape)
    random_weights(layer)
    if rate == "dropout":
        layer.cell.recurrent_kernels[0].assign(np.zeros((6, 12)))
        y = keras.ops.convert_to_numpy(layer(x, training=True))
        np.testing.assert_allclose(y, np.repeat(y[:, :1], 6, axis=1), 1e-5)
        assert np.abs(y[0, 0] - y[1, 0]).max() > 1e-3
    different = keras.ops.convert_to_numpy(layer(x, training=True))
    assert np.abs(different - outputs_of(layer, x)).max() > 1e-3


def test_it_saves_and_loads(x, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            RHN(
                4,
                depth=3,
                dropout=0.2,
                recurrent_dropout=0.1,
                kernel_regularizer="l2",
                return_sequences=True,
                zero_output_for_mask=True,
            ),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    np.testing.assert_array_equal(outputs_of(loaded, x), outputs_of(model, x))


def test_it_trains_in_mixed_precision(x):
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            RHN(
                4,
                depth=2,
                dropout=0.2,
                recurrent_dropout=0.2,
                dtype="mixed_bfloat16",
            ),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile("adam", "mse")
    before = model.get_weights()
    model.fit(x, np.ones((2, 1)), verbose=0)
    assert any(
        np.abs(new - old).max() > 0
        for new, old in zip(model.get_weights(), before)
    )


@pytest.mark.parametrize(
    "arguments",
    [{"units": 0}, {"units": 2.5}, {"units": 3, "depth": 0}]
    + [{"units": 3, "dropout": 1.0}, {"units": 3, "recurrent_dropout": -1}],
)
def test_bad_arguments_are_named(arguments):
    name = list(arguments)[-1]
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        RHN(**arguments)


def test_with_a_tied_embedding_the_width_is_one_structure():
    tokens = keras.Input((None,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(30, 8)
    x = RHN(8, 3, return_sequences=True, name="rhn")(embedding(tokens))
    model = keras.Model(tokens, embedding(x, reverse=True))
    (structure,) = keras_iss.find_structures(model)
    assert structure.name == "rhn"
    assert not structure.pinned
    owned = {part.variable.path for part in structure.slices}
    assert {v.path for v in model.trainable_variables} >= owned
    assert embedding.embeddings.path in owned
    tokens = np.arange(10)[None]
    keras_iss.prune(model, keep={"rhn": [0, 2, 3, 7]})
    small = keras_iss.shrink(model)
    assert small.get_layer("rhn").units == 4
    np.testing.assert_allclose(
        outputs_of(small, tokens), outputs_of(model, tokens), atol=1e-5
    )


@pytest.mark.parametrize(
    ("width", "weights"),
    [
        (830, 23_482_400),
        (726, 18_880_192),
        (517, 11_070_698),
        (403, 7_621_058),
        (328, 5_663_408),
    ],
)
def test_the_weights_are_as_many_as_in_the_paper(width, weights):
    cell = RHNCell(width, depth=10)
    cell.build((None, width))
    embedding, bias = 10_000 * width, 10_000
    assert cell.count_params() + embedding + bias == weights


def stacked(x):
    x = RHN(6, 2, return_sequences=True, name="a")(x)
    return RHN(5, 3, name="b")(x)


def bidirectional(x):
    return keras.layers.Bidirectional(RHN(5, 2, name="both"))(x)


def cells(x):
    cells = [RHNCell(6, 2), keras.layers.LSTMCell(5), RHNCell(4, 1)]
    return keras.layers.RNN(cells)(x)


def no_bias(x):
    return RHN(6, 2, use_bias=False, go_backwards=True)(x)


def encoder_and_decoder(x):
    _, state = RHN(6, 2, return_state=True)(x)
    return RHN(6, 3)(x, initial_state=[state])


@pytest.mark.parametrize(
    "build", [stacked, bidirectional, cells, no_bias, encoder_and_decoder]
)
def test_shrinking_keeps_the_outputs_and_trains_on(build, x):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(build(inputs)))
    random_weights(model)
    structures = keras_iss.find_structures(model)
    assert structures.free
    keep = {
        structure.name: range(0, structure.size, 2)
        for structure in structures.free
    }
    keras_iss.prune(model, keep={k: list(v) for k, v in keep.items()})
    model.compile("adam", "mse")
    small = keras_iss.shrink(model)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(
        outputs_of(small, x), outputs_of(model, x), atol=1e-5
    )
    small.fit(x, np.zeros((2, 2)), verbose=0)


def test_the_penalty_is_over_the_whole_width():
    inputs = keras.Input((None, 3))
    x = RHN(4, 2, name="rhn")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    random_weights(model)
    cell, dense = model.layers[1].cell, model.layers[2]
    arrays = [
        keras.ops.convert_to_numpy(v).astype("float64")
        for v in (cell.kernel, *cell.recurrent_kernels, dense.kernel)
    ]
    norms = []
    for k in range(4):
        columns = [k, k + 4]
        total = sum((a[:, columns] ** 2).sum() for a in arrays[:-1])
        total += sum((a[k] ** 2).sum() for a in arrays[1:])
        norms.append(np.sqrt(total + 1e-8))
    keras_iss.ISSRegularizer(0.5).attach(model)
    (loss,) = model.losses
    assert float(loss) == pytest.approx(0.5 * sum(norms), rel=1e-5)


def test_a_file_of_the_shrunk_network_computes_what_the_pruned_one_did(
    tmp_path,
):
    for name in ("tensorflow", "ai_edge_litert"):
        pytest.importorskip(name)
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    embedding = keras.layers.ReversibleEmbedding(11, 8)
    x = RHN(8, 3, return_sequences=True, name="rhn")(embedding(tokens))
    model = keras.Model(tokens, embedding(x, reverse=True))
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    keras_iss.prune(model, keep={"rhn": [0, 2, 3, 7]})
    small = keras_iss.shrink(model)
    data = np.random.default_rng(0).integers(0, 11, (1, 6)).astype("int32")
    expected = keras.ops.convert_to_numpy(model(data))
    assert np.abs(expected).max() > 0.01
    path = tmp_path / "small.tflite"
    done = keras_iss.export_tflite(small, path)
    assert not any("CUSTOM" in name for name in done.operators)
    with contextlib.closing(Server("lite")) as lite:
        ((got,),) = [
            outputs.values()
            for outputs in lite(path, [("serve", {"tokens": data})])
        ]
    np.testing.assert_allclose(got, expected, atol=1e-5)
