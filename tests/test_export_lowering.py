"""Layers of a user's own join the table of lowered layers."""

import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from keras_iss.export import registry
from tests.export_cases import FEATURES, Cell, randomize

DOCS = pathlib.Path(__file__).parent.parent / "docs" / "export.md"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test registers is unknown to the next."""
    monkeypatch.setattr(registry, "LAYERS", dict(registry.LAYERS))
    monkeypatch.setattr(registry, "CELLS", dict(registry.CELLS))


def test_what_takes_no_layer_says_how_to_write_it():
    for register in (
        keras_iss.export.register_lowering,
        keras_iss.export.register_cell_lowering,
    ):
        name = register.__name__
        with pytest.raises(TypeError, match=f"@{name}.MyLayer.*none"):
            register()
        with pytest.raises(TypeError, match="Keras layer classes.*'lstm'"):
            register("lstm")
        with pytest.raises(TypeError, match=f"{name}.* decorates a function"):
            register(layers.LSTM)(5)


def exported(model, path, **options):
    """A file of a model, of which every loop is one of LiteRT."""
    done = keras_iss.export_tflite(model, path, **options)
    assert not any("CUSTOM" in name for name in done.operators)
    return done


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="what exports is TensorFlow: see test_export_backends",
)
class TestFiles:
    """Files of models with such layers."""

    @pytest.fixture
    def path(self, tmp_path):
        pytest.importorskip("ai_edge_litert")
        return tmp_path / "model.tflite"

    def test_the_layer_of_the_docs(self, path, lite):
        text = DOCS.read_text().split("## A layer of your own")[1]
        (example, *_) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        found = {}
        exec(compile(example, "docs/export.md", "exec"), found)
        x = keras.Input((12, FEATURES), name="x")
        y = layers.Dense(2, name="y")(found["Leaky"](4)(x))
        model = randomize(keras.Model(x, y))
        done = exported(model, path, batch_size=2)
        # It would be unrolled, were it called as it is.
        assert done.operators["WHILE"] and done.operators["TANH"] == 1
        data = np.random.default_rng(0).normal(size=(2, 12, FEATURES))
        data = data.astype("float32")
        (got,) = lite(path, [("serve", {"x": data})])
        np.testing.assert_allclose(got["y"], model(data), atol=1e-5)

    def test_a_cell_whose_inputs_are_multiplied_before_the_loop(self, path):
        seen = []

        @keras_iss.export.register_cell_lowering(Cell)
        def hoisted(lowering, x):
            cell = lowering.layer
            seen.append(x.shape)
            kernel = cell.kernel[:FEATURES]
            recurrent = cell.kernel[FEATURES:]

            def step(x, states):
                h, e = states
                new = ops.tanh(x + h @ recurrent) + ops.sum(
                    e, -1, keepdims=True
                )
                e = 0.5 * e + ops.sigmoid(new @ cell.other)
                return ops.relu(new), [new, e]

            return lowering.project(x, kernel), step

        x = keras.Input((None, FEATURES), name="x")
        y = layers.RNN(Cell(4), return_sequences=True, name="y")(x)
        model = randomize(keras.Model(x, y))
        done = exported(model, path, streaming=True)
        assert seen and done.errors["y"] < 1e-4

    def test_a_subclass_is_called_as_it_is(self, path):
        class Doubled(layers.Layer):
            def call(self, x):
                return 2 * x

        class Tripled(Doubled):
            def call(self, x):
                return 3 * x

        @keras_iss.export.register_lowering(Doubled)
        def doubled(lowering, x):
            assert type(lowering.layer) is Doubled
            return lowering.original(x)

        x = keras.Input((5, FEATURES), name="x")
        y = layers.LSTM(3, name="y")(Tripled()(Doubled()(x)))
        model = randomize(keras.Model(x, y))
        assert exported(model, path).errors["y"] < 1e-5

    def test_a_lowering_that_computes_something_else_is_refused(self, path):
        class Doubled(layers.Layer):
            def call(self, x):
                return 2 * x

        @keras_iss.export.register_lowering(Doubled)
        def doubled(lowering, x):
            return 3 * x

        x = keras.Input((5, FEATURES), name="x")
        model = keras.Model(x, layers.Dense(2, name="y")(Doubled()(x)))
        for write in (keras_iss.export_tflite, keras_iss.export_saved_model):
            with pytest.raises(RuntimeError, match="`y`.*differs"):
                write(model, path)
        assert not path.exists()
