"""A checkpoint of `keras_iss.fit` is whole at any time."""

import os
import pathlib
import stat

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from tests.cases import randomize

if keras.backend.backend() == "jax":
    pytest.skip("the same on every backend", allow_module_level=True)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4, 3)).astype("float32")
Y = RNG.normal(size=(16, 2)).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Watched(layers.Layer):
    """Calls a function while its model is saved."""

    watch = staticmethod(lambda: None)

    def call(self, x):
        return x

    def save_own_variables(self, store):
        type(self).watch()
        super().save_own_variables(store)


@pytest.fixture
def watch(monkeypatch):
    def put(function):
        monkeypatch.setattr(Watched, "watch", staticmethod(function))

    return put


def compiled(layer=Watched):
    x = keras.Input((4, 3))
    h = layer()(layers.LSTM(6, name="one")(x))
    model = keras.Model(x, layers.Dense(2)(h))
    randomize(model)
    model.compile(
        "sgd", "mse", run_eagerly=keras.backend.backend() == "tensorflow"
    )
    return model


def train(model, path, epochs=3, **kwargs):
    return keras_iss.fit(
        model,
        X,
        Y,
        epochs=epochs,
        verbose=0,
        callbacks=[keras.callbacks.ModelCheckpoint(path, **kwargs)],
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_the_old_file_is_there_until_the_new_one_is(
    tmp_path, watch, suffix, save_freq
):
    path = tmp_path / f"model{suffix}"
    seen = []

    def look():
        if path.exists():
            seen.append(path.read_bytes())
            keras.models.load_model(path, compile=False)

    watch(look)
    train(compiled(), path, save_freq=save_freq)
    # Keras writes `.h5` in another way, which asks no layer.
    assert suffix == ".h5" or len(set(seen)) == 2
    assert os.listdir(tmp_path) == [path.name]
    keras.models.load_model(path, compile=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_a_failure_on_the_way_leaves_the_old_file(tmp_path, watch, error):
    path = tmp_path / "model.keras"
    train(compiled(), path)
    before = path.read_bytes()
    model = compiled()

    def fail():
        raise error("no space left on device")

    watch(fail)
    with pytest.raises(error):
        train(model, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
    assert "save" not in vars(model)


def test_a_new_file_has_the_mode_of_the_old_one_or_the_usual_one(tmp_path):
    usual, path = tmp_path / "usual", tmp_path / "model.keras"
    usual.touch()
    train(compiled(), path, epochs=1)
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    train(compiled(), path, epochs=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(tmp_path):
    target, path = tmp_path / "target.keras", tmp_path / "model.keras"
    path.symlink_to(target)
    train(compiled(), path, epochs=1)
    first = target.read_bytes()
    train(compiled(), path, epochs=2)
    assert path.is_symlink() and target.read_bytes() != first
    assert sorted(os.listdir(tmp_path)) == ["model.keras", "target.keras"]


def test_a_folder_in_the_way_is_said_as_keras_does(tmp_path):
    path = tmp_path / "model.keras"
    path.mkdir()
    with pytest.raises(OSError, match="non-directory filepath"):
        train(compiled(), path)


def test_a_file_in_a_folder_that_takes_no_other(tmp_path, monkeypatch):
    """It is written where it is, as by Keras."""
    path = tmp_path / "model.keras"
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda p, mode: pathlib.Path(p) != tmp_path and access(p, mode),
    )
    train(compiled(), path)
    keras.models.load_model(path)


def test_a_file_of_the_smaller_model_is_whole_too(tmp_path):
    path = tmp_path / "{epoch}.keras"
    small = keras_iss.fit(
        compiled(layers.Identity),
        X,
        Y,
        epochs=4,
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(path),
            keras_iss.ISSBudget({"one": 2}),
        ],
    )
    loaded = keras.models.load_model(tmp_path / "4.keras")
    assert loaded.get_layer("one").units == 2
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), small.predict(X, verbose=0), rtol=1e-5
    )
