"""The private parts of Keras that we use are there, and are all listed."""

import functools
import importlib

import keras
import numpy as np
import pytest

from tests import keras_uses
from tests.old_keras import numbers

contract = keras_uses.contract()


def _attention(**arguments):
    layer = keras.layers.MultiHeadAttention(2, 3, **arguments)
    layer(keras.Input((4, 5)), keras.Input((4, 5)))
    return layer


def _built(optimizer, exclude=False):
    if exclude:
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build([keras.Variable(np.ones((4, 3)), name="kernel")])
    return optimizer


def _compiled():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    return model


def _trained():
    model = _compiled()
    x, y = np.ones((2, 2)), np.ones((2, 1))
    model.fit(x, y, validation_data=(x, y), verbose=0)
    return model


def _with_an_input_spec():
    model = _compiled()
    model.input_spec = keras.layers.InputSpec(ndim=2)
    return model


def _adapter():
    from keras.src.trainers.data_adapters import get_data_adapter

    return get_data_adapter(np.ones((2, 2)), np.ones((2, 1)), batch_size=2)


_OBJECTS = {
    "adafactor": lambda: _built(keras.optimizers.Adafactor()),
    "adagrad": lambda: _built(keras.optimizers.Adagrad()),
    "attention": _attention,
    "bidirectional": lambda: keras.layers.Bidirectional(keras.layers.LSTM(2)),
    "data adapter": _adapter,
    "dot attention": keras.layers.AdditiveAttention,
    "embedding": lambda: keras.Sequential(
        [keras.Input((3,)), keras.layers.Embedding(5, 2)]
    ).layers[0],
    "excluding": lambda: _built(keras.optimizers.AdamW(), exclude=True),
    "gated attention": lambda: _attention(use_gate=True),
    "layer": lambda: _compiled().layers[1],
    "model": _compiled,
    "model with an input_spec": _with_an_input_spec,
    "node": lambda: _compiled().layers[1]._inbound_nodes[0],
    "optimizer": lambda: _built(keras.optimizers.Adam()),
    "seed generator": lambda: keras.random.SeedGenerator(1),
    "sequential": lambda: keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1)]
    ),
    "tensor": lambda: keras.layers.Embedding(5, 2, mask_zero=True)(
        keras.Input((3,))
    ),
    "trained model": _trained,
    "variable": lambda: keras.Variable(1.0),
}
_made = functools.cache(lambda name: _OBJECTS[name]())


def _skip_unless_there(use):
    if keras.backend.backend() not in use.backends.split():
        pytest.skip(f"there on {use.backends} alone")
    installed = numbers(keras.__version__)
    if use.since and installed < numbers(use.since):
        pytest.skip(f"there since Keras {use.since}")


@pytest.mark.parametrize("use", contract.IMPORTS, ids=lambda use: use.name)
def test_keras_has_what_is_imported(use):
    _skip_unless_there(use)
    module, name = use.name.rsplit(".", 1)
    try:
        module = importlib.import_module(module)
        there = hasattr(module, name) or importlib.import_module(use.name)
    except ImportError:
        there = False
    assert there, (
        f"Keras {keras.__version__} has no `{use.name}`, which "
        f"`_keras/`: {use.files} import"
    )


@pytest.mark.parametrize(
    "use",
    [use for use in [*contract.ATTRIBUTES, *contract.UNDOCUMENTED] if use.of],
    ids=lambda use: f"{use.of}-{use.name}",
)
def test_keras_has_the_attribute(use):
    _skip_unless_there(use)
    found = _made(use.of)
    assert hasattr(found, use.name), (
        f"Keras {keras.__version__} has no `{use.name}` on a {use.of} "
        f"({type(found).__name__}), which `_keras/`: {use.files} use"
    )


@pytest.fixture
def global_state():
    from keras.src.backend.common import global_state

    return global_state


def test_keras_keeps_the_names_it_counts_up(global_state):
    keras.layers.Dense(1)
    assert "dense" in global_state.get_global_attribute("object_name_uids")


def test_keras_keeps_the_call_that_it_is_in(global_state):
    class Layer(keras.layers.Layer):
        def call(self, x, training=None):
            context = global_state.get_global_attribute("current_call_ctx")
            found.append((context.entry_layer, context.training))
            return x

    found = []
    layer = Layer()
    layer(np.ones((1, 1)), training=True)
    assert found == [(layer, True)]


def test_keras_keeps_the_variables_that_have_no_values_yet(global_state):
    key = "uninitialized_variables"
    global_state.set_global_attribute(key, [])
    with keras.StatelessScope():
        variable = keras.Variable(lambda shape, dtype: 1, shape=())
        assert global_state.get_global_attribute(key) == [variable]
    assert not global_state.get_global_attribute(key)


@pytest.mark.parametrize(
    ("listed", "used"),
    [
        (contract.IMPORTS, keras_uses.imports_of),
        (contract.ATTRIBUTES, keras_uses.private_names_of),
        (contract.GLOBALS, keras_uses.global_names_of),
    ],
    ids=["imports", "attributes", "globals"],
)
def test_the_list_is_what_the_files_use(listed, used):
    found = {
        (path.stem, name) for path in keras_uses.files() for name in used(path)
    }
    known = {(file, use.name) for use in listed for file in use.files.split()}
    assert not found - known, "not listed in `_keras/contract.py`"
    assert not known - found, "listed in `_keras/contract.py`, and not used"


def test_only_the_wall_imports_private_parts():
    outside = {
        str(path.relative_to(keras_uses.FOLDER.parent)): names
        for path in keras_uses.FOLDER.parent.rglob("*.py")
        if path.parent != keras_uses.FOLDER
        and (names := keras_uses.imports_of(path))
    }
    assert not outside


def test_what_a_file_uses_is_seen(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(
        "from keras.src.ops.node import Node\n"
        "import keras.src.layers\n"
        "key = 'a_key'\n"
        "def f(x, y):\n"
        "    x._one = getattr(y, '_two')\n"
        "    y.update(_three=self._mine, four=f'{x}_part')\n"
        "    return global_state.get_global_attribute(key)\n"
    )
    assert keras_uses.imports_of(path) == {
        "keras.src.ops.node.Node",
        "keras.src.layers",
    }
    assert keras_uses.private_names_of(path) == {"_one", "_two", "_three"}
    assert keras_uses.global_names_of(path) == {"a_key"}
