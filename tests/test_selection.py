"""What stays, for each way to ask for it."""

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.selection import target_of
from tests.cases import head, lstm, randomize, sequence


def two(first=20, second=16):
    x = sequence()
    h = lstm(first, name="first")(x)
    h = lstm(second, name="second")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    return model


def alive(model):
    return {s.name: s.alive for s in keras_iss.find_structures(model)}


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"weights": 0.5}, "recurrent_weights"),
        ({"units": 0.4}, "units"),
        ({"units": 17}, "units"),
        ({"mult_adds": 0.6}, "mult_adds"),
    ],
)
def test_a_total_is_met_in_multiples(asked, kind, round_to):
    model = two(24, 16)
    full = getattr(keras_iss.find_structures(model).counts(), kind)
    keras_iss.prune(model, **asked, round_to=round_to)
    assert all(count % round_to == 0 for count in alive(model).values())
    left = keras_iss.find_structures(keras_iss.shrink(model)).counts()
    (amount,) = asked.values()
    wanted = amount if amount >= 1 else amount * full
    # A block more of the larger structure would be too much.
    assert getattr(left, kind) <= wanted
    assert getattr(left, kind) > wanted - full * round_to / 12


def test_the_blocks_with_the_least_importance_go():
    model = two(16, 16)
    first = np.repeat([5.0, 1.0, 3.0, 4.0], 4)
    importance = {"first": first, "second": np.full(16, 3.5)}
    structures = keras_iss.prune(
        model, units=20, importance=importance, round_to=4
    )
    np.testing.assert_array_equal(
        np.flatnonzero(~structures["first"].removed()),
        [0, 1, 2, 3, 12, 13, 14, 15],
    )
    assert structures["second"].alive == 12


def test_sizes_that_are_no_multiples_become_some():
    model = two(21, 6)
    structures = keras_iss.prune(model, units=26, round_to=8)
    # One that is smaller than that loses what is asked for alone.
    assert structures["first"].alive == 16
    assert structures["second"].alive == 6


def test_a_structure_has_its_own_multiple():
    model = two(20, 16)
    keras_iss.prune(model, units=0.6, round_to={"first": 8})
    assert alive(model)["first"] in (8, 16)
    # A block of 8 more would be too much.
    assert 21 - 8 < sum(alive(model).values()) <= 21


@pytest.mark.parametrize(
    ("long", "round_to", "left"),
    [(7, 4, 8), (8, 4, 8), (9, 4, 12), (0, 4, 4), (19, 8, 16), (3, 32, 3)],
)
def test_a_threshold_takes_the_next_larger_multiple(long, round_to, left):
    model = two(20, 16)
    keras_iss.prune(model, keep={"second": 1})
    structure = keras_iss.find_structures(model)["first"]
    threshold = np.sort(structure.norms())[::-1][:long].min(initial=1e9)
    norms = structure.norms()
    keras_iss.prune(model, threshold=threshold, round_to=round_to)
    assert structure.alive == left
    assert set(np.flatnonzero(~structure.removed())) == set(
        np.argsort(-norms)[:left]
    )


@pytest.mark.parametrize(
    ("count", "left"), [(4, 4), (7, 4), (8, 8), (3, 4), (1, 4), (20, 20)]
)
def test_a_count_takes_the_next_smaller_multiple(count, left):
    model = two()
    keras_iss.prune(model, keep={"first": count}, round_to=4)
    assert alive(model) == {"first": left, "second": 16}


def test_indices_are_taken_as_they_are():
    model = two()
    structures = keras_iss.prune(model, keep={"first": [2, 5, 3]}, round_to=4)
    np.testing.assert_array_equal(
        np.flatnonzero(~structures["first"].removed()), [2, 3, 5]
    )


def test_what_is_removed_counts_for_no_multiple():
    model = two()
    keras_iss.prune(model, keep={"first": list(range(11))})
    keras_iss.prune(model, units=26, round_to=8)
    assert alive(model) == {"first": 8, "second": 16}
    # Fewer than a multiple are there: they stay.
    keras_iss.prune(model, keep={"first": [0, 1, 2]})
    keras_iss.prune(model, units=20, round_to=8)
    assert alive(model)["first"] <= 3 and alive(model)["second"] == 16


@pytest.mark.parametrize(
    ("round_to", "error", "message"),
    [
        (0, ValueError, "`round_to` must be 1 or more"),
        (-4, ValueError, "`round_to` must be 1 or more"),
        (4.0, TypeError, "`round_to` must be an integer"),
        (True, TypeError, "`round_to` must be an integer"),
        ("4", TypeError, "`round_to` must be an integer"),
        (None, TypeError, "`round_to` must be an integer"),
        ({"first": 0}, ValueError, r"`round_to\['first'\]` must be 1"),
        ({"first": [4]}, TypeError, r"`round_to\['first'\]` must be an"),
        ({"third": 4}, KeyError, "`third` is no structure"),
    ],
)
@pytest.mark.parametrize("asked", [{"units": 0.5}, {"threshold": 0.1}])
def test_multiples_that_make_no_sense(asked, round_to, error, message):
    model = two(4, 4)
    before = model.get_weights()
    with pytest.raises(error, match=message):
        keras_iss.prune(model, **asked, round_to=round_to)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_what_no_multiples_reach():
    model = two(16, 16)
    with pytest.raises(ValueError, match="or a smaller `round_to`"):
        keras_iss.prune(model, units=15, round_to=8)
    assert alive(model) == {"first": 16, "second": 16}


@pytest.mark.parametrize(
    "asked", [{"units": 0.5}, {"keep": {"first": 8}}, {"mult_adds": 0.3}]
)
def test_on_the_way_to_a_target(asked):
    """From the full size in equal steps; it is met when all is done."""
    structures = keras_iss.find_structures(two(20, 16))
    target = target_of(**asked).bound(structures)
    sizes = []
    for done in (0.25, 0.5, 0.75, 1.0):
        assert not target.is_met(structures, done)
        kept = target.select(structures, done=done)
        sizes.append(sum(map(len, kept.values())))
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4


def test_a_selection_is_met():
    for asked in (
        {"units": 0.5, "round_to": 4},
        {"keep": {"first": 9}, "round_to": 4},
        {"keep": {"first": [1, 2]}},
        {"threshold": 1e3, "round_to": 4},
        {"weights": 0.3},
    ):
        model = two()
        structures = keras_iss.find_structures(model)
        target = target_of(**asked).bound(structures)
        assert not target.is_met(structures)
        keras_iss.prune(model, **asked)
        assert target.is_met(structures), target.describe(structures)


def test_importances_by_name_and_by_function():
    model = two()
    model.compile("sgd", "mse")
    x = np.ones((8, 5, 3))
    data = x, np.zeros(model(x).shape)
    weights = model.get_weights()

    class Reversed:
        def __call__(self, model, structures):
            return {s.name: -np.arange(s.size) for s in structures}

    taylor = keras_iss.estimate_importance(model, data, by="taylor")
    for importance, wanted in (
        ("norm", keras_iss.estimate_importance(model)),
        ("taylor", taylor),
        (taylor, taylor),
        (Reversed(), {"first": -np.arange(20.0)}),
        (lambda model: {"first": np.arange(20)}, {"first": np.arange(20.0)}),
    ):
        model.set_weights(weights)
        structures = keras_iss.prune(
            model, keep={"first": 6}, importance=importance, data=data
        )
        np.testing.assert_array_equal(
            np.flatnonzero(~structures["first"].removed()),
            np.sort(np.argsort(-wanted["first"], kind="stable")[:6]),
        )
    estimated = keras_iss.estimate_importance(model, by=Reversed())
    np.testing.assert_array_equal(estimated["second"], -np.arange(16.0))


@pytest.mark.parametrize(
    ("importance", "error", "message"),
    [
        ("taylor", ValueError, "needs `data`"),
        ("luck", ValueError, '`importance` must be "norm" or'),
        (5, TypeError, "`importance` must be a name"),
        (lambda model, structures: None, TypeError, "returned None"),
        (lambda model, structures: {"first": [1]}, ValueError, "shape"),
    ],
)
def test_importances_that_are_none(importance, error, message):
    with pytest.raises(error, match=message):
        keras_iss.prune(two(4, 4), units=0.5, importance=importance)
