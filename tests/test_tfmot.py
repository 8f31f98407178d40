"""Models go to Keras 2 and back, and TF Model Optimization takes them."""

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss import tfmot
from keras_iss.surgery.verification import VerificationError

tf_keras = pytest.importorskip("tf_keras")
toolkit = pytest.importorskip("tensorflow_model_optimization")

L = keras.layers


def plain():
    """A Sequential of stock layers."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 3), name="x"),
            L.TimeDistributed(L.Dense(3, activation="relu"), name="time"),
            L.Masking(name="masking"),
            L.LSTM(8, return_sequences=True, name="lstm"),
            L.BatchNormalization(name="norm"),
            L.Bidirectional(L.GRU(4), name="both"),
            L.Dropout(0.2, name="dropout"),
            L.Dense(5, activation="softmax", name="dense"),
        ],
        name="plain",
    )


def branched(masked=False):
    """Shared layers, states handed on, a nested model, two ways out."""
    keras.utils.set_random_seed(1)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    other = keras.Input((None,), dtype="int32", name="other")
    embedding = L.Embedding(11, 4, mask_zero=masked, name="embedding")
    encoder = L.LSTM(5, return_state=True, name="encoder")
    _, h, c = encoder(embedding(tokens))
    y = L.LSTM(5, return_sequences=True, name="decoder")(
        embedding(other), initial_state=[h, c]
    )
    inner_in = keras.Input((None, 5))
    inner = keras.Model(
        inner_in,
        L.Dense(3, name="d")(inner_in),
        name="inner",
    )
    last = L.GRU(3, reset_after=False, name="gru", trainable=False)(y)
    return keras.Model(
        [tokens, other],
        {"steps": inner(y), "last": L.Add(name="add")([last, last])},
        name="branched",
    )


INPUTS = {
    plain: np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32"),
    branched: [
        np.array([[1, 2, 3, 0], [4, 5, 6, 7]], "int32"),
        np.array([[3, 2, 0, 0], [1, 9, 8, 10]], "int32"),
    ],
}


@pytest.mark.parametrize("build", INPUTS)
def test_a_model_goes_there_and_back_with_its_outputs_and_names(build):
    model, x = build(), INPUTS[build]
    there = tfmot.to_tf_keras(model)
    back = tfmot.from_tf_keras(there)
    for other in (there, back):
        for a, b in zip(
            keras.tree.flatten(model(x)),
            keras.tree.flatten(other(x)),
            strict=True,
        ):
            a = keras.ops.convert_to_numpy(a)
            np.testing.assert_allclose(a, np.asarray(b), atol=1e-6, rtol=0)
        names = {layer.name: layer.trainable for layer in model.layers}
        assert {x.name: x.trainable for x in other.layers} == names
    assert isinstance(there, tf_keras.Model)
    assert back.count_params() == model.count_params()


@pytest.mark.parametrize("how", ["cloned", "loaded"])
def test_masks_that_are_arguments_go_there_too(how, tmp_path):
    """As they are in a model that was cloned or loaded."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    frames = keras.Input((6, 3), name="frames")
    x = L.Embedding(9, 4, mask_zero=True)(tokens)
    x = L.GRU(3, return_sequences=True)(L.Dropout(0.1)(x))
    y = L.LSTM(4, return_sequences=True)(L.Masking()(frames))
    both = [L.GlobalAveragePooling1D()(x), L.GlobalAveragePooling1D()(y)]
    model = keras.Model([tokens, frames], L.Concatenate()(both))
    if how == "cloned":
        other = keras.models.clone_model(model)
        other.set_weights(model.get_weights())
    else:
        model.save(tmp_path / "model.keras")
        other = keras.models.load_model(tmp_path / "model.keras")
    inputs = [
        np.array([[1, 2, 3, 0, 0, 0], [4, 0, 6, 7, 8, 0]], "int32"),
        np.ones((2, 6, 3), "float32") * [[[1]] * 3 + [[0]] * 3],
    ]
    expected = keras.ops.convert_to_numpy(model(inputs))
    for x in (tfmot.to_tf_keras(model), tfmot.to_tf_keras(other)):
        np.testing.assert_allclose(x(inputs), expected, atol=1e-6)


def test_a_mask_that_keras_2_would_not_find_is_not_dropped():
    x = keras.Input((6, 3))
    seen = keras.Input((6,), dtype="bool")
    y = L.LSTM(4)(L.Dense(2)(x), mask=seen)
    there = tfmot.to_tf_keras(keras.Model([x, seen], y))
    inputs = [np.ones((1, 6, 3)), np.array([[1, 1, 1, 0, 0, 0]], bool)]
    assert not np.allclose(
        there(inputs), there([inputs[0], np.ones((1, 6), bool)])
    )
    # The mask of the first layer, which the Dense between does not hand on.
    masked = L.Masking()(x)
    flat = L.Flatten()(masked)
    again = L.Reshape((6, 3))(flat)
    y = L.LSTM(4)(again, mask=L.Masking().compute_mask(x))
    model = keras.models.clone_model(keras.Model(x, y))
    with pytest.raises((ValueError, VerificationError)):
        tfmot.to_tf_keras(model)


class Own(L.Layer):
    """A layer of one's own."""

    def call(self, x):
        return x + 1


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Own(name="mine"), "`mine` .*no layer of Keras itself"),
        (keras_iss.layers.RHN(2, depth=2, name="rhn"), "`rhn` "),
        (L.RMSNormalization(name="rms"), "`rms` .*Keras 2"),
        (L.Dense(2, activation="hard_sigmoid", name="d"), "`d` .*hard_sig"),
    ],
)
def test_what_keras_2_lacks_is_named(layer, said):
    model = keras.Sequential([keras.Input((4, 3)), layer])
    with pytest.raises(ValueError, match=said):
        tfmot.to_tf_keras(model)


def test_a_model_that_computes_another_thing_is_not_handed_over():
    """As an LSTM that begins from states does, at steps it leaves out."""
    model = branched(masked=True)
    with pytest.raises(VerificationError, match="do not compute the same"):
        tfmot.to_tf_keras(model)


def test_each_takes_the_models_of_its_keras():
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    with pytest.raises(TypeError, match="a model of `tf_keras`"):
        tfmot.from_tf_keras(model)
    with pytest.raises(TypeError, match="a model of Keras 3"):
        tfmot.to_tf_keras(tf_keras.Sequential([tf_keras.Input((3,))]))


def test_operations_are_refused_both_ways():
    x = keras.Input((3,))
    with pytest.raises(ValueError, match="is an operation"):
        tfmot.to_tf_keras(keras.Model(x, x + 1))
    x = tf_keras.Input((3,))
    with pytest.raises(ValueError, match="is an operation"):
        tfmot.from_tf_keras(tf_keras.Model(x, x + 1))


@pytest.fixture(scope="module")
def small():
    """An ISS-shrunk model of fixed length, and it in Keras 2."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            L.LSTM(12, name="lstm"),
            L.Dense(5, activation="softmax", name="dense"),
        ]
    )
    keras_iss.prune(model, weights=0.5)
    return keras_iss.shrink(model)


def trained(model, callbacks=()):
    x = INPUTS[plain]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(4), epochs=2, verbose=0, callbacks=list(callbacks))
    return model


def test_magnitude_pruning_takes_a_shrunk_model(small):
    sparsity = toolkit.sparsity.keras
    wrapped = sparsity.prune_low_magnitude(
        tfmot.to_tf_keras(small),
        pruning_schedule=sparsity.ConstantSparsity(0.5, 0, frequency=1),
    )
    trained(wrapped, [sparsity.UpdatePruningStep()])
    back = tfmot.from_tf_keras(sparsity.strip_pruning(wrapped))
    kernel = back.get_layer("lstm").get_weights()[1]
    assert abs((kernel == 0).mean() - 0.5) < 0.05
    assert kernel.shape == small.get_layer("lstm").get_weights()[1].shape


def test_clustering_takes_a_shrunk_model(small):
    clustering = toolkit.clustering.keras
    wrapped = clustering.cluster_weights(
        tfmot.to_tf_keras(small),
        number_of_clusters=4,
        cluster_centroids_init=(
            clustering.CentroidInitialization.KMEANS_PLUS_PLUS
        ),
    )
    back = tfmot.from_tf_keras(clustering.strip_clustering(trained(wrapped)))
    assert len(np.unique(back.get_layer("lstm").get_weights()[0])) <= 4


def test_quantization_aware_training_takes_the_dense_layers(small):
    quantization = toolkit.quantization.keras

    def annotated(layer):
        if isinstance(layer, tf_keras.layers.Dense):
            return quantization.quantize_annotate_layer(layer)
        return layer

    model = tf_keras.models.clone_model(
        tfmot.to_tf_keras(small), clone_function=annotated
    )
    aware = trained(quantization.quantize_apply(model))
    assert aware.get_layer("quant_dense")
    with pytest.raises(ValueError, match="strip|Strip"):
        tfmot.from_tf_keras(aware)


def test_a_model_of_keras_2_is_shrunk():
    old = tf_keras.Sequential(
        [
            tf_keras.Input((6, 3)),
            tf_keras.layers.LSTM(12, name="lstm"),
            tf_keras.layers.Dense(5, name="dense"),
        ]
    )
    model = tfmot.from_tf_keras(old)
    keras_iss.prune(model, weights=0.5)
    small = keras_iss.shrink(model)
    again = tfmot.to_tf_keras(small)
    assert again.get_layer("lstm").units < 12
    x = INPUTS[plain]
    np.testing.assert_allclose(
        again(x), keras.ops.convert_to_numpy(model(x)), atol=1e-6
    )
