"""Sorting units into structures, and what it costs."""

import gc
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from keras_iss.structures import Structures
from keras_iss.structures.values import norms_of, removed_of
from keras_iss.tracing.find import _grouped
from tests.cases import CASES, head, randomize


@pytest.mark.parametrize("seed", range(20))
def test_units_are_grouped_by_how_often_each_axis_has_them(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    axes = []
    for _ in range(rng.integers(1, 8)):
        some = rng.choice(count, rng.integers(1, count + 1), replace=False)
        axes.append(np.repeat(some, rng.integers(1, 3, len(some))))
    table = np.stack([np.bincount(axis, minlength=count) for axis in axes], 1)
    _, wanted = np.unique(table, axis=0, return_inverse=True)
    wanted = wanted.ravel()
    found = _grouped(count, axes)
    for unit in range(count):
        np.testing.assert_array_equal(
            found == found[unit], wanted == wanted[unit]
        )


def recurrent(i):
    return layers.SimpleRNN(3, return_sequences=True, name=f"rnn_{i}")


def wide(n):
    x = keras.Input((2, 3))
    h = layers.Concatenate()([recurrent(i)(x) for i in range(n)])
    return keras.Model(x, head(h))


def deep(n):
    x = h = keras.Input((2, 3))
    for i in range(n):
        h = recurrent(i)(h)
    return keras.Model(x, head(h))


def in_both_directions(n):
    x = keras.Input((2,), dtype="int32")
    h = layers.Embedding(5, 3, mask_zero=True)(x)
    for i in range(n):
        h = layers.Bidirectional(recurrent(i), name=f"both_{i}")(h)
    return keras.Model(x, head(h))


def tied(n):
    x = keras.Input((2, 3))
    h = layers.Add()([recurrent(i)(x) for i in range(n)])
    return keras.Model(x, head(h))


def residual(n):
    x = keras.Input((2, 3))
    h = recurrent("first")(x)
    for i in range(n):
        h = layers.Add()([h, recurrent(i)(h)])
    return keras.Model(x, head(h))


def pinned(n):
    x = keras.Input((2, 3))
    return keras.Model(x, [recurrent(i)(x) for i in range(n)])


def normalized(n):
    x = h = keras.Input((2, 3))
    for i in range(n):
        h = layers.LayerNormalization()(recurrent(i)(h))
    return keras.Model(x, head(h))


def nested(n):
    x = h = keras.Input((2, 3))
    for i in range(n):
        inner = keras.Input((2, 3))
        h = keras.Model(inner, recurrent("rnn")(inner), name=f"inner_{i}")(h)
    return keras.Model(x, head(h))


def called_again(n):
    x = h = keras.Input((2, 3))
    shared, last = recurrent("shared"), recurrent("last")
    for _ in range(n):
        h = shared(h)
    return keras.Model(x, head(last(h)))


def attended(n):
    """Axes along only one of which units may go: a second walk."""
    x = keras.Input((2, 3))
    context = []
    for i in range(n):
        h = recurrent(i)(x)
        weights = layers.Softmax(axis=1)(layers.Dense(1)(h))
        context.append(layers.Flatten()(layers.Dot(1)([weights, h])))
    return keras.Model(x, head(layers.Concatenate()(context)))


MODELS = [
    wide,
    deep,
    in_both_directions,
    tied,
    residual,
    pinned,
    normalized,
    nested,
    called_again,
    attended,
]


def work(model):
    """All that is done with structures, but for the surgery itself."""
    structures = keras_iss.find_structures(model, ("recurrent", "dense"))
    str(structures)
    structures.counts(shrunk=True)
    for structure in structures:
        for maker in structure.makers:
            assert maker in structures
    if structures.free:
        keep = {structure.name: [0] for structure in structures.free}
        keras_iss.prune(model, keep=keep, include=("recurrent", "dense"))


def calls_of(function, *args):
    """How many functions are called, those written in C included."""
    count = 0

    def counted(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function(*args)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("build", MODELS)
def test_twice_the_layers_take_twice_the_calls(build):
    work(build(2))  # What is done once.
    few, some, many = (calls_of(work, build(n)) for n in (8, 16, 32))
    # What is quadratic would double the growth.
    assert many - some <= 2.3 * (some - few)


@pytest.mark.parametrize("build", [wide, deep])
def test_twice_the_layers_take_twice_the_memory(build):
    def peak(n):
        model = build(n)
        # A peak is not to depend on when garbage is collected.
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            keras_iss.find_structures(model)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()

    peak(2)
    few, some, many = map(peak, (20, 40, 80))
    assert many - some <= 2.3 * (some - few)


def test_a_variable_is_read_once_for_all_structures(monkeypatch):
    from keras_iss.structures import values as module

    model = wide(12)
    structures = keras_iss.find_structures(model)
    read = []
    to_numpy = module.to_numpy
    monkeypatch.setattr(
        module, "to_numpy", lambda v: read.append(v.path) or to_numpy(v)
    )
    structures.staying()
    str(structures)
    norms_of(structures)
    assert max(read.count(path) for path in read) == 3


@pytest.mark.parametrize("overlap", ["count_twice", "once"])
@pytest.mark.parametrize(
    "name", ["shared_bidirectional", "rnn_of_a_list_of_cells"]
)
def test_all_structures_at_once_are_as_each_by_itself(name, overlap):
    model = CASES[name]()
    randomize(model)
    structures = keras_iss.find_structures(model)
    keras_iss.prune(model, keep={structures.free[0].name: [1]})
    norms = norms_of(structures, overlap)
    removed = removed_of(structures)
    for structure in structures:
        np.testing.assert_allclose(
            norms[structure.name], structure.norms(overlap)
        )
        np.testing.assert_array_equal(
            removed[structure.name], structure.removed()
        )
    assert sum(gone.sum() for gone in removed.values()) > 0


def test_axes_that_stay_equal_do_so_through_a_chain():
    """Each direction is as wide as the next one, whatever goes."""
    model = CASES["bidirectional_concat"]()
    forward, other = keras_iss.find_structures(model).free[:2]
    first, second = np.arange(6), np.arange(6, 12)
    structures = Structures(
        [forward, other], (), [(second, first), (first, second)]
    )
    stays = structures.staying({forward.name: [0, 3, 5], other.name: [2]})
    assert stays[forward.name].tolist() == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    assert stays[other.name].tolist() == [True, True, True, False, False, False]


def test_units_of_one_huge_layer_are_found():
    x = keras.Input((None, 1))
    h = layers.SimpleRNN(
        3000,
        name="huge",
        kernel_initializer="zeros",
        recurrent_initializer="zeros",
    )(x)
    structure = keras_iss.find_structures(keras.Model(x, head(h)))["huge"]
    assert structure.size == 3000 and structure.alive == 3000
