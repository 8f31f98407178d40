"""Subclassed models whose inputs a user says, since Keras does not know."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from keras_iss.export.options import Options
from keras_iss.export.signature import Spec, normalized

tensorflow_alone = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="what exports is TensorFlow: see test_export_backends",
)


@keras.saving.register_keras_serializable("test_export_signature")
class Tokens(keras.Model):
    """Reads a dict of integers and floats."""

    def __init__(self, **options):
        super().__init__(**options)
        self.recurrent = layers.GRU(5)

    def call(self, inputs):
        x = ops.one_hot(inputs["tokens"], 6)
        return self.recurrent(x * ops.expand_dims(inputs["gain"], -1))


class Lengths(keras.Model):
    """Is called with two arguments."""

    def __init__(self):
        super().__init__(name="lengths")
        self.embedding = layers.Embedding(6, 4)
        self.recurrent = layers.GRU(5)

    def call(self, tokens, lengths, training=False):
        steps = ops.arange(ops.shape(tokens)[1])
        mask = steps[None] < lengths[:, None]
        return self.recurrent(self.embedding(tokens), mask=mask)


INTEGERS = np.arange(14, dtype="int32").reshape(2, 7) % 6
GAIN = np.linspace(0, 1, 14, dtype="float32").reshape(2, 7)
TOKENS = {"tokens": INTEGERS, "gain": GAIN}
LENGTHS = {"tokens": INTEGERS, "lengths": np.array([3, 7], "int32")}
OF_TOKENS = {
    "tokens": keras.KerasTensor((None, None), "int32"),
    "gain": keras.InputSpec("float32", (None, None)),
}
OF_LENGTHS = {
    "tokens": keras.InputSpec("int32", (None, None)),
    "lengths": keras.InputSpec("int32", (None,)),
}


def tokens():
    model = Tokens(name="tokens")
    model(TOKENS)
    return model


def lengths():
    model = Lengths()
    model(**LENGTHS)
    return model


def test_what_says_shape_and_dtype_is_taken():
    given = [
        keras.InputSpec("float16", (None, 3)),
        {"b": keras.KerasTensor((2, None), "int64")},
    ]
    assert normalized(given) == [
        Spec((None, 3), "float16"),
        {"b": Spec((2, None), "int64")},
    ]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((None, 3), TypeError, "must be a keras.InputSpec.*None"),
        ({}, TypeError, "must be a keras.InputSpec"),
        (GAIN[0, :2], TypeError, "must be a keras.InputSpec.*ndarray"),
        (keras.InputSpec(shape=(None, 3)), ValueError, "a dtype"),
        (keras.InputSpec("int32"), ValueError, "give it a shape"),
    ],
)
def test_what_says_less_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        Options(input_signature=given)


@tensorflow_alone
def test_inputs_have_the_dtypes_and_open_axes_that_are_said(lite, tmp_path):
    model, path = lengths(), tmp_path / "model.tflite"
    keras_iss.export_tflite(
        model, path, batch_size=2, input_signature=OF_LENGTHS, verify=False
    )
    short = LENGTHS | {"tokens": INTEGERS[:, :4]}
    for data in (LENGTHS, short):
        (got,) = lite(path, [("serve", data)])
        np.testing.assert_allclose(got["output"], model(**data), atol=1e-5)


@tensorflow_alone
def test_a_saved_model_takes_it_too(tmp_path):
    done = keras_iss.export_saved_model(
        tokens(), tmp_path / "saved", input_signature=OF_TOKENS
    )
    assert done.errors["output"] < 1e-5


@tensorflow_alone
def test_another_backend_passes_it_on(request, tmp_path):
    """As from JAX or PyTorch: by a file and a process of its own."""
    if not request.config.getoption("--whole"):
        pytest.skip("with --whole: it starts TensorFlow once more")
    from keras_iss.export import other_backend

    options = Options(batch_size=1, input_signature=OF_TOKENS)
    path = tmp_path / "model.tflite"
    done = other_backend.export_tflite(tokens(), path, options)
    assert done.errors["output"] < 1e-5


@tensorflow_alone
@pytest.mark.parametrize("of", ["tokens", "lengths", "functional"])
def test_what_does_not_fit_the_model_is_refused(of, tmp_path):
    x = keras.Input((3, 2))
    model, message = {
        "tokens": (tokens, "`tokens` cannot be called on what"),
        "lengths": (lengths, "tokens, lengths: give.*a dict by these names"),
        "functional": (
            lambda: keras.Model(x, layers.GRU(2)(x)),
            "has `keras.Input`s",
        ),
    }[of]
    given = keras.InputSpec("int32", (None, None))
    with pytest.raises(ValueError, match=message):
        keras_iss.export_tflite(
            model(), tmp_path / "model.tflite", input_signature=given
        )
    assert not list(tmp_path.iterdir())
