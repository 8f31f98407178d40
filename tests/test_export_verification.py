"""What a file is verified on, and what is said when it differs."""

import functools

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

from keras_iss.export import judge
from keras_iss.export.data import checked
from keras_iss.export.differences import error_of
from keras_iss.export.domain import vocabulary_sizes
from keras_iss.export.model import Callable, isolated
from keras_iss.export.trials import Reference, Trials


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def floats(time=6, name="x"):
    return keras.Input((time, FEATURES), name=name)


def words(time=None, name="t"):
    return keras.Input((time,), dtype="int32", name=name)


def lstm(x):
    return layers.LSTM(4, name="lstm")(x)


def trials_of(model, batch=None, data=None, what=None):
    """The inputs that an export of a model is verified on."""
    function = Callable(isolated(model))
    specs = [x.spec() for x in function.inputs]
    graph = tf.function(lambda *x: function(x), autograph=False)
    graph = graph.get_concrete_function(*specs).graph
    domain = functools.partial(vocabulary_sizes, graph)
    return Trials(Reference(model, []), batch, domain, data, what)


# How far outputs are off.

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    ("got", "expected", "least", "most"),
    [
        ([1, 2], [1, 2], 0, 0),
        ([-INF, 2], [-INF, 2], 0, 0),
        ([-INF, 2.2], [-INF, 2], 0.05, 0.2),
        ([INF, 2], [-INF, 2], INF, INF),
        ([-1e38, 2], [-INF, 2], INF, INF),
        ([-INF, 2], [-1e38, 2], INF, INF),
        ([NAN, 2], [NAN, 2], 0, 0),
        ([NAN, 2], [1, 2], INF, INF),
        ([1, 2], [NAN, 2], INF, INF),
        ([NAN, NAN], [NAN, NAN], 0, 0),
        ([], [], 0, 0),
        # A mask does not hide what is wrong beside it.
        ([-1e9, 0], [-1e9, 2], 0.9, 1.1),
        ([-2e9, 2], [-1e9, 2], 0.9, 1.1),
    ],
)
def test_the_error_of_outputs(got, expected, least, most, relative):
    got, expected = np.array(got, "float32"), np.array(expected, "float32")
    assert least <= error_of([got], [expected], relative) <= most


def test_outputs_of_another_shape_differ():
    assert error_of([np.ones((1, 2))], [np.ones((2, 1))], False) == INF


# What random numbers there are.


def offset(x):
    return layers.Embedding(9, 2)(x + 5)


INTEGERS = {
    "an embedding": (lambda x: layers.Embedding(7, 2)(x), 7),
    "an embedding of a part": (lambda x: layers.Embedding(7, 2)(x[:, ::2]), 7),
    "one-hot": (lambda x: ops.one_hot(x, 5), 5),
    "a table": (lambda x: ops.take(np.ones((11, 2), "float32"), x, axis=0), 11),
    "the smaller of two": (
        lambda x: layers.Embedding(7, 2)(x) + layers.Embedding(4, 2)(x),
        4,
    ),
    "behind a mask": (
        lambda x: layers.LSTM(2, return_sequences=True, name="first")(
            layers.Embedding(6, 2, mask_zero=True)(x)
        ),
        6,
    ),
    "in a nested model": (
        lambda x: keras.Sequential([words(), layers.Embedding(8, 2)])(x),
        8,
    ),
    # Found by trying.
    "with an offset": (offset, 2),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_within_the_table_that_they_are_looked_up_in(name):
    build, size = INTEGERS[name]
    x = words()
    trials = trials_of(keras.Model(x, lstm(build(x))))
    seen = set()
    for case in trials:
        seen |= {int(i) for inputs in case.calls for i in inputs[0].flat}
    assert max(seen) < size
    assert len(seen) > size // 2
    assert f"`t` integers below {size}" in trials.what


def test_each_input_has_integers_of_its_own():
    first, second = words(name="first"), words(name="second")
    y = layers.Embedding(400, 3)(first) + layers.Embedding(3, 3)(second)
    model = keras.Model([first, second], lstm(y))
    trials = trials_of(model)
    assert trials._vocabulary(trials._function.inputs) == [400, 3]
    (case, *_) = trials
    assert case.calls[0][0].max() > 3 > case.calls[0][1].max()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.table = layers.Embedding(5, 3)
        self.lstm = layers.LSTM(4)

    def call(self, x):
        return self.lstm(self.table(x))


def test_a_subclassed_model_has_integers_within_its_table(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 3), "int32"))
    done = keras_iss.export_saved_model(model, tmp_path / "saved")
    assert done.errors["output"] < 1e-4


FLOATS = {
    "any": (lambda x: x, "standard normal"),
    "a logarithm": (ops.log, "between 0 and 1"),
    "a root": (ops.sqrt, "between 0 and 1"),
    "a power": (lambda x: x**-0.5, "between 0 and 1"),
    "a logarithm of more": (lambda x: ops.log(x - 1), "between 1 and 10"),
    "an arcus sine": (ops.arcsin, "between 0 and 1"),
}


@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_such_that_outputs_are_finite(tmp_path, name):
    build, kind = FLOATS[name]
    x = floats(None)
    model = keras.Model(x, lstm(build(x)), name="model")
    trials = trials_of(model)
    for case in trials:
        for outputs in case.expected:
            assert np.isfinite(outputs["lstm"]).all()
    assert f"`x` {kind}" in trials.what
    if name == "a logarithm":
        for write in (keras_iss.export_tflite, keras_iss.export_saved_model):
            assert write(model, tmp_path / write.__name__).errors["lstm"] < 1e-4


def test_a_model_that_needs_long_sequences(tmp_path):
    x = floats(None)
    y = lstm(layers.Conv1D(3, 50)(x))
    done = keras_iss.export_tflite(keras.Model(x, y), tmp_path / "a.tflite")
    assert done.errors["lstm"] < 1e-4


@pytest.mark.parametrize("stateful", [False, True])
def test_a_saved_model_is_loaded_anew_only_if_calls_change_it(
    monkeypatch, tmp_path, stateful
):
    loads, load = [], tf.saved_model.load

    def counted(path):
        loads.append(path)
        return load(path)

    monkeypatch.setattr(tf.saved_model, "load", counted)
    x = keras.Input((4, FEATURES), batch_size=1, name="x")
    model = keras.Model(x, layers.GRU(2, stateful=stateful, name="y")(x))
    data = random(3, 4, FEATURES)
    done = keras_iss.export_saved_model(model, tmp_path / "a", data=data)
    assert len(loads) == (3 if stateful else 1) and done.errors["y"] < 1e-4


# Infinite outputs.

MASK = np.array([True, False, True, True])


INFINITE = {
    "masked": (lambda y: ops.where(MASK, y, -np.inf), 0.75),
    "both signs": (lambda y: ops.concatenate([y / 0.0, y], -1), 0.5),
    "of a logarithm": (lambda y: ops.log(ops.relu(y)), None),
    "no numbers": (lambda y: ops.log(y), None),
}


@pytest.mark.parametrize("name", INFINITE)
@pytest.mark.parametrize("quantize", [None, "int8", "saved_model"])
def test_outputs_that_are_infinite_by_design(tmp_path, name, quantize):
    build, share = INFINITE[name]
    if quantize == "int8" and share is None:
        pytest.skip("int8 moves what is near zero across it")
    x = floats()
    model = randomize(keras.Model(x, build(lstm(x))))
    model(random(1, 6, FEATURES))
    if quantize == "saved_model":
        done = keras_iss.export_saved_model(model, tmp_path / "saved")
    else:
        done = keras_iss.export_tflite(
            model, tmp_path / "a.tflite", quantize=quantize
        )
    (error,) = done.errors.values()
    assert error < (0.1 if quantize == "int8" else 1e-4)


@pytest.mark.parametrize("given", [False, True])
def test_a_model_without_a_finite_output_cannot_be_judged(tmp_path, given):
    x = floats()
    model = keras.Model(x, ops.log(-1 - ops.square(lstm(x))), name="model")
    options = {"data": random(3, 6, FEATURES)} if given else {}
    what = "the samples of `data`" if given else "random numbers"
    for write in (keras_iss.export_tflite, keras_iss.export_saved_model):
        with pytest.raises(
            RuntimeError,
            match=f"`model` gives no finite number on {what}.*cannot be judged"
            ".*data=.*verify=False",
        ):
            write(model, tmp_path / "file", **options)
        assert not (tmp_path / "file").exists()
    if not given:
        done = keras_iss.export_tflite(model, tmp_path / "file", verify=False)
        assert done.path.exists() and not done.errors


INFINITE_INSIDE = {
    "an output": lambda y: ops.where(MASK, y, -np.inf),
    "inside": lambda y: layers.Dense(2)(
        ops.softmax(ops.where(MASK, y, -np.inf))
    ),
    "of a logarithm": lambda y: layers.Dense(2)(ops.exp(ops.log(ops.relu(y)))),
}


@pytest.mark.parametrize("name", INFINITE_INSIDE)
def test_full_integers_hold_nothing_infinite(tmp_path, name):
    x = floats()
    model = keras.Model(x, INFINITE_INSIDE[name](lstm(x)), name="model")
    with pytest.raises(ValueError, match="of `model` is infinite.*-100"):
        keras_iss.export_tflite(
            model,
            tmp_path / "a.tflite",
            quantize="int8_full",
            representative_data=random(20, 6, FEATURES),
        )
    assert not list(tmp_path.iterdir())


def test_full_integers_with_a_large_mask_are_refused(tmp_path):
    x = floats()
    y = ops.where(MASK, lstm(x), -1e9)
    with pytest.raises(RuntimeError, match="relative error of 1;"):
        keras_iss.export_tflite(
            keras.Model(x, y),
            tmp_path / "a.tflite",
            quantize="int8_full",
            representative_data=random(20, 6, FEATURES),
        )


# The user's data.


def sensors():
    """A model that is made for numbers between 0.3 and 0.7."""
    data = np.random.default_rng(0).uniform(0.3, 0.7, (100, 6, 6))
    data = data.astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 6), name="x"), layers.LSTM(8), layers.Dense(3)]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse")
    wanted = (data[:, -1, :3] - 0.5) * 4
    model.fit(data, wanted, epochs=15, verbose=0)
    return model, data


def test_full_integers_are_verified_on_what_they_were_made_from(tmp_path):
    model, data = sensors()
    done = keras_iss.export_tflite(
        model,
        tmp_path / "a.tflite",
        quantize="int8_full",
        representative_data=data,
    )
    (error,) = done.errors.values()
    assert error < 0.2
    # On other numbers they are far off, as they must be.
    with pytest.raises(RuntimeError, match="samples of `data`: `x` of shape"):
        keras_iss.export_tflite(
            model,
            tmp_path / "b.tflite",
            quantize="int8_full",
            representative_data=data,
            data=50 * random(4, 6, 6),
        )
    assert not (tmp_path / "b.tflite").exists()


@pytest.mark.parametrize("batch", [1, 3, None])
def test_data_is_run_in_calls_from_all_over_it(batch):
    x = floats(None)
    data = [np.arange(100.0)[:, None, None] * np.ones((1, 12, FEATURES))]
    trials = trials_of(
        keras.Model(x, lstm(x)), batch, [data[0].astype("float32")], "data"
    )
    cases = list(trials)
    # The whole, and beginnings of it at the lengths of the loops.
    assert [case.calls[0][0].shape[1] for case in cases] == [12, 5, 1, 8]
    first = cases[0].calls
    assert len(first) == 8
    assert {len(call[0]) for call in first} <= (
        {batch} if batch else {1, 2, 3, 4}
    )
    numbers = [int(i) for call in first for i in call[0][:, 0, 0]]
    assert min(numbers) == 0 and max(numbers) > 90
    assert len(set(numbers)) == len(numbers)


DATA = {
    "an array": lambda x, t: x,
    "a list": lambda x, t: [x, t],
    "a tuple": lambda x, t: (x, t),
    "a dict": lambda x, t: {"t": t, "x": x},
    "tensors": lambda x, t: [tf.constant(x), tf.constant(t)],
    "lists of numbers": lambda x, t: {"x": x.tolist(), "t": t.tolist()},
    "double precision": lambda x, t: [x.astype("float64"), t.astype("int64")],
}


def test_forms_of_data(tmp_path):
    x, t = floats(), words(6)
    both = keras.Model([x, t], lstm(x + layers.Embedding(9, FEATURES)(t)))
    only = keras.Model(x, lstm(x))
    numbers = random(5, 6, FEATURES)
    integers = np.random.default_rng(0).integers(0, 9, (5, 6)).astype("int32")
    for name, form in DATA.items():
        model = only if name == "an array" else both
        inputs = Callable(model).inputs
        given = form(numbers, integers)
        got = checked(inputs, model.name, given, None, "data", finite=True)
        for array, wanted in zip(got, (numbers, integers)):
            np.testing.assert_array_equal(array, wanted)
            assert array.dtype == wanted.dtype
        assert len(got) == len(inputs)
    given = DATA["a dict"](numbers, integers)
    done = keras_iss.export_saved_model(both, tmp_path / "saved", data=given)
    assert done.errors["lstm"] < 1e-4


BAD_DATA = {
    "a generator": ((x for x in []), TypeError, "`data` is a generator"),
    "an iterator": (iter([1]), TypeError, "`data` is a generator"),
    "a function": (lambda: 0, TypeError, "`data` is a function"),
    "a data set": (
        tf.data.Dataset.from_tensors(1),
        TypeError,
        "`data` is a data set.*numpy.stack",
    ),
    "text": ("abc", ValueError, "shape .."),
    "objects": ([None, {}], TypeError, "array of numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], ValueError, "no array"),
    "too few axes": (random(6, FEATURES), ValueError, "at least 1., 6, 3"),
    "empty": (random(0, 6, FEATURES), ValueError, "at least 1"),
    "too long": (random(2, 7, FEATURES), ValueError, r"\(2, 7, 3\)"),
    "integers": (np.ones((2, 6, 3), "int32"), ValueError, "expected float32"),
    "strings": (np.full((2, 6, 3), "a"), ValueError, "dtype <U1"),
    "a wrong name": ({"y": random(2, 6, 3)}, ValueError, "no `x`.*'y'"),
    "two arrays": ([random(2, 6, 3)] * 2, ValueError, "shape .2, 2, 6, 3."),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(tmp_path, name):
    data, error, message = BAD_DATA[name]
    x = floats()
    model = keras.Model(x, lstm(x))
    for write in (keras_iss.export_tflite, keras_iss.export_saved_model):
        with pytest.raises(error, match=message):
            write(model, tmp_path / "file", data=data)
    options = {"quantize": "int8_full", "representative_data": data}
    with pytest.raises(
        error, match=message.replace("data`", "representative_data`")
    ):
        keras_iss.export_tflite(model, tmp_path / "file", **options)
    assert not list(tmp_path.iterdir())


def test_arrays_of_different_numbers_of_samples(tmp_path):
    x, t = floats(), words(6)
    model = keras.Model([x, t], lstm(x + layers.Embedding(9, FEATURES)(t)))
    data = {"x": random(5, 6, FEATURES), "t": np.ones((4, 6), "int32")}
    with pytest.raises(ValueError, match="`data` have different.*5.*4"):
        keras_iss.export_saved_model(model, tmp_path / "saved", data=data)


def test_data_that_the_model_does_not_take(tmp_path):
    t = words(6)
    model = keras.Model(t, lstm(layers.Embedding(9, 3)(t)), name="model")
    with pytest.raises(
        RuntimeError, match="`model` could not be called on the samples of `da"
    ):
        keras_iss.export_saved_model(
            model, tmp_path / "saved", data=np.full((3, 6), 99)
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "Output `lstm` of `model` differs in LiteRT, with quantize=None, by"
            " an error of .*; at most -1.0 was expected. It ran on random "
            "numbers .`x` standard normal.: `x` of shape .1, 6, 3. from -.* to"
            ".*Give data= with samples.*verify=False writes the file as it is",
        ),
        (
            {"data": random(2, 6, FEATURES)},
            "It ran on the samples of `data`: .*expected|"
            "expected. It ran on the samples of `data`: `x`.*verify=False",
        ),
        (
            {
                "quantize": "int8_full",
                "representative_data": random(9, 6, FEATURES),
            },
            "by a relative error of.*samples of `representative_data`: .*"
            'quantize="int16x8" keeps more, and so do more samples',
        ),
    ],
    ids=["random", "data", "representative_data"],
)
def test_what_a_refusal_says(monkeypatch, tmp_path, options, message):
    monkeypatch.setattr(
        judge, "TOLERANCE", dict.fromkeys(judge.TOLERANCE, -1.0)
    )
    x = floats()
    model = keras.Model(x, lstm(x), name="model")
    with pytest.raises(RuntimeError, match=message):
        keras_iss.export_tflite(model, tmp_path / "a.tflite", **options)
    assert not list(tmp_path.iterdir())
