"""An export leaves no trace on a model, not even while it lasts."""

import collections
import functools
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from tests.export_cases import FEATURES, randomize

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "what exports is TensorFlow: see test_export_backends",
        allow_module_level=True,
    )
pytest.importorskip("ai_edge_litert")

import tensorflow as tf

from keras_iss._keras.copies import copy_sharing_variables
from keras_iss.export.lowering import LITERT, lower
from keras_iss.export.model import Callable, isolated


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


class Holder:
    """An object of the user's own that holds something."""

    def __init__(self, held):
        self.held = held

    def run(self, x):
        return self.held(x)


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


Pair = collections.namedtuple("Pair", "first second")


def recursive(layer):
    def run(x, again=2):
        return run(x, again - 1) if again else layer(x)

    return run


# How a model may hold a layer, and what it calls of it.
HELD = {
    "an attribute": lambda x: (x, lambda x: x),
    "a list": lambda x: ([[x]], lambda x: x[0][0]),
    "a tuple": lambda x: ((1, (x,)), lambda x: x[1][0]),
    "a dict": lambda x: ({"a": {"b": x}}, lambda x: x["a"]["b"]),
    "a set": lambda x: ({x}, lambda x: next(iter(x))),
    "an ordered dict": lambda x: (
        collections.OrderedDict(z=x, a=1),
        lambda x: x["z"],
    ),
    "a default dict": lambda x: (
        Holder(collections.defaultdict(list, a=[x])),
        lambda x: x.held["a"][0],
    ),
    "a deque": lambda x: (Holder(collections.deque([x])), lambda x: x.held[0]),
    "a named tuple": lambda x: (Pair(x, 2), lambda x: x.first),
    "an object": lambda x: (Holder(x), lambda x: x.run),
    "slots": lambda x: (Slots(x), lambda x: x.held),
    "a bound method": lambda x: (Holder(x).run, lambda x: x),
    "a partial": lambda x: (
        functools.partial(lambda a, y: a(y), x),
        lambda x: x,
    ),
    "a closure": lambda x: (lambda y: x(y), lambda x: x),
    "a default": lambda x: (lambda y, x=x: x(y), lambda x: x),
    "a function that calls itself": lambda x: (recursive(x), lambda x: x),
    "a tf.function": lambda x: (tf.function(lambda y: x(y)), lambda x: x),
}


class Model(keras.Model):
    """Holds its recurrent layer so that Keras knows it, and once more."""

    def __init__(self, held):
        super().__init__(name="model")
        self.lstm = layers.LSTM(4, return_sequences=True)
        self.held, called = HELD[held](self.lstm)
        self.called = called
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(self.called(self.held)(x))


def operations(function, shape):
    """The names of the operations that a function of a tensor traces."""
    graph = (
        tf.function(lambda x: function([x]), autograph=False)
        .get_concrete_function(tf.TensorSpec(shape, "float32"))
        .graph.as_graph_def()
    )
    nodes = list(graph.node)
    for part in graph.library.function:
        nodes += part.node_def
    return {node.op for node in nodes}


@pytest.mark.parametrize("held", HELD)
def test_a_layer_is_lowered_wherever_the_model_holds_it(held):
    model, x = Model(held), random(2, 5, FEATURES)
    wanted = np.array(model(x))
    model.compile("sgd", "mse")
    function = Callable(isolated(model))
    fast = function.of_copy(lambda copied: lower(copied, LITERT))
    assert not {x for x in operations(fast, x.shape) if "TensorList" in x}
    np.testing.assert_allclose(fast([x])["output"], wanted, atol=1e-6)
    # The model itself is what it was.
    assert any(
        "TensorList" in x for x in operations(lambda x: model(*x), x.shape)
    )
    assert np.array_equal(model(x), wanted)


def test_a_copy_shares_the_variables_and_nothing_that_a_call_fills():
    x = keras.Input((5, FEATURES))
    y = layers.LSTM(3, activity_regularizer="l2", name="lstm")(x)
    model = keras.Model(x, layers.Dense(2)(y))
    copied = copy_sharing_variables(model)
    assert type(copied) is type(model) and copied is not model
    for a, b in zip(copied.variables, model.variables, strict=True):
        assert a is b
    assert not {*map(id, copied.layers)} & {*map(id, model.layers)}
    data = random(2, 5, FEATURES)
    np.testing.assert_array_equal(copied(data), model(data))
    count = len(model.losses)
    copied(data)
    assert len(model.losses) == count
    copied.get_layer("lstm").activity_regularizer = None
    copied.layers[-1].activation = ops.exp
    assert model.get_layer("lstm").activity_regularizer is not None
    np.testing.assert_allclose(copied(data), ops.exp(model(data)), rtol=1e-6)


def test_variables_of_a_copy_may_be_others():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    (kernel, bias) = model.layers[0].weights
    other = keras.Variable(np.array([5.0], "float32"))
    copied = copy_sharing_variables(model, {id(bias): other})
    assert copied.layers[0].kernel is kernel and copied.layers[0].bias is other
    x = np.zeros((1, 2), "float32")
    assert copied(x)[0, 0] == 5 and model(x)[0, 0] == 0


@keras.saving.register_keras_serializable("keras_iss_tests")
class Counts(layers.Layer):
    """Counts its calls, keeps what it saw, and adds a loss."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False, name="count")
        self.seen = []
        self.last = {}

    def call(self, x):
        self.count.assign_add(1.0)
        self.seen.append(x)
        self.last["x"] = x
        self.add_loss(ops.sum(x))
        return x + self.count


def state(model):
    """All that a model holds, by identity, and the values of its weights."""
    held = [
        {
            name: (id(x), len(x) if isinstance(x, (list, dict, set)) else 0)
            for name, x in vars(layer).items()
        }
        for layer in model._flatten_layers()
    ]
    return held, [np.array(x).tolist() for x in model.variables]


WRITERS = {
    "tflite": lambda model, path: keras_iss.export_tflite(
        model, path, batch_size=2
    ),
    "saved_model": keras_iss.export_saved_model,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_model_that_changes_when_it_is_called(tmp_path, write):
    x = keras.Input((5, FEATURES), name="x")
    y = layers.LSTM(4, return_sequences=True, stateful=False)(Counts()(x))
    model = randomize(keras.Model(x, layers.Dense(2, name="y")(y)))
    model(random(2, 5, FEATURES))
    before = state(model)
    done = write(model, tmp_path / "file")
    assert done.errors["y"] < 1e-4
    assert state(model) == before


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("place", ["get_concrete_function", "convert", "load"])
def test_an_export_that_is_interrupted_changes_nothing(
    monkeypatch, tmp_path, write, place
):
    x = keras.Input((5, FEATURES), batch_size=2, name="x")
    y = layers.LSTM(4, stateful=True, dtype="mixed_float16")(x)
    model = randomize(keras.Model(x, layers.Dense(2, name="y")(y)))
    model(random(2, 5, FEATURES))
    before = state(model), np.array(model.layers[1].states[0])

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    owner = {
        "get_concrete_function": type(tf.function(lambda: 0)),
        "convert": tf.lite.TFLiteConverter,
        "load": tf.saved_model,
    }[place]
    monkeypatch.setattr(owner, place, interrupt)
    try:
        write(model, tmp_path / "file")
    except KeyboardInterrupt:
        assert not list(tmp_path.iterdir())
    else:
        # Not every export comes to every place.
        assert (write is WRITERS["tflite"]) == (place == "load") or place == (
            "convert"
        )
    assert state(model) == before[0]
    np.testing.assert_array_equal(model.layers[1].states[0], before[1])


def test_exports_in_threads_of_models_that_share_layers(lite, tmp_path):
    x = keras.Input((None, FEATURES), name="x")
    shared = layers.LSTM(4, return_sequences=True, name="shared")
    stateful = layers.GRU(3, stateful=True, return_sequences=True)
    other = keras.Input((5, FEATURES), batch_size=2, name="x")
    models = [
        randomize(keras.Model(x, layers.Dense(2, name="y")(shared(x)))),
        randomize(
            keras.Model(
                other, layers.Dense(1, name="y")(stateful(shared(other)))
            )
        ),
    ]
    data = random(2, 5, FEATURES)
    wanted = []
    for model in models:
        stateful.reset_states()
        wanted.append(np.array(model(data)))
    stateful.reset_states()
    before = [state(model) for model in models]
    errors, done = [], threading.Event()

    def run(target, *args):
        try:
            target(*args)
        except BaseException as error:
            errors.append(error)

    def write(number):
        for kind, write in WRITERS.items():
            write(models[number], tmp_path / f"{number}-{kind}")

    def call():
        # The model goes on computing what it did.
        while not done.is_set():
            got = np.array(models[0](data, training=False))
            assert np.abs(got - wanted[0]).max() < 1e-6
            done.wait(0.02)

    caller = threading.Thread(target=run, args=(call,))
    caller.start()
    writers = [
        threading.Thread(target=run, args=(write, number)) for number in (0, 1)
    ]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    caller.join()
    assert not errors
    for model, first in zip(models, before):
        assert state(model) == first
    for number, y in enumerate(wanted):
        calls = [("serve", {"x": data})]
        (got,) = lite(tmp_path / f"{number}-tflite", calls)
        np.testing.assert_allclose(got["y"], y, atol=1e-4)
    for number, y in enumerate(wanted):
        loaded = tf.saved_model.load(str(tmp_path / f"{number}-saved_model"))
        np.testing.assert_allclose(loaded.serve(data)["y"], y, atol=1e-4)
