"""When how much is removed, and how strong the penalty is meanwhile."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_iss
from keras_iss.schedules import (
    EqualSteps,
    PressureRule,
    ProximalRule,
    alive_norms,
    equal_steps,
)
from keras_iss.selection import target_of
from tests.cases import randomize


def structures_of_a_model():
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.LSTM(8, name="lstm"),
            layers.Dense(2),
        ]
    )
    randomize(model)
    return keras_iss.find_structures(model)


def test_removals_come_in_equal_steps():
    schedule = EqualSteps(from_epoch=2, by_epoch=6)
    done = [schedule.done(epochs) for epochs in (0, 2, 2.5, 3, 4, 5, 6, 9)]
    assert done == [0, 0, 0.125, 0.25, 0.5, 0.75, 1, 1]
    finished = [schedule.is_finished(epochs) for epochs in (0, 5, 6, 9)]
    assert finished == [False, False, True, True]


@pytest.mark.parametrize(
    ("from_epoch", "by_epoch", "begin", "epochs", "schedule"),
    [
        (None, None, 0, 20, (5, 10)),
        (None, None, 0, 5, (1, 3)),
        (None, None, 0, 1, (0, 1)),
        (None, 16, 0, 20, (8, 16)),
        (3, None, 0, 20, (3, 10)),
        # Those that are left count.
        (None, None, 4, 12, (6, 8)),
        (None, 2, 4, 12, (1, 2)),
    ],
)
def test_defaults_of_a_schedule(from_epoch, by_epoch, begin, epochs, schedule):
    found = equal_steps(from_epoch, by_epoch, begin, epochs)
    assert found == EqualSteps(*schedule)


@pytest.mark.parametrize(
    ("from_epoch", "by_epoch", "message"),
    [(None, 5, "ends after epoch 4"), (2, None, "`from_epoch` is 2")],
)
def test_a_schedule_that_does_not_fit(from_epoch, by_epoch, message):
    with pytest.raises(ValueError, match=message):
        equal_steps(from_epoch, by_epoch, 0, 4)


def test_a_penalty_is_a_part_of_the_loss():
    structures = structures_of_a_model()
    norms = alive_norms(structures).sum()
    target = target_of(units=0.5)
    rule = PressureRule(0.1, EqualSteps(2, 4))
    rule.begin_training(structures, epochs=0)
    rule.begin_epoch()
    first = rule.after_batch(0.0, {"loss": 3.0})
    np.testing.assert_allclose(first, 0.1 * 3.0 / norms)
    assert rule.after_batch(first, {"loss": 9.0}) is None
    # The loss of the epoch has the penalty in it, of half of the batches.
    loss = 2.0 + first / 2 * norms
    new = rule.after_epoch(first, {"loss": loss}, structures, target, 1)
    np.testing.assert_allclose(new, 0.1 * 2.0 / norms)
    same = rule.after_epoch(new, {"loss": np.nan}, structures, target, 2)
    assert same == new
    assert rule.after_epoch(new, {"loss": loss}, structures, target, 4) == 0


def test_what_is_removed_has_no_penalty():
    structures = structures_of_a_model()
    before = alive_norms(structures)
    removed = np.argmin(before)
    structures["lstm"].slices[0].variable.assign(
        np.zeros(structures["lstm"].slices[0].variable.shape)
    )
    assert len(alive_norms(structures)) == 8
    for part in structures["lstm"].slices:
        value = np.array(part.variable)
        where = part.index[removed].ravel()
        value[(slice(None),) * part.axis + (where,)] = 0
        part.variable.assign(value)
    assert len(alive_norms(structures)) == 7


def test_a_proximal_step_takes_a_part_of_the_mean_norm():
    structures = structures_of_a_model()
    norms = alive_norms(structures)
    target = target_of(units=0.5).bound(structures)
    optimizer = keras_iss.ProximalISS(keras.optimizers.SGD(0.1), strength=1.0)
    optimizer.build([part.variable for part in structures["lstm"].slices[:2]])
    rule = ProximalRule(optimizer, 0.1, EqualSteps(2, 4))
    rule.begin_epoch()
    optimizer.inner_optimizer.iterations.assign(20)
    strength = rule.after_epoch(0.0, {}, structures, target, 1)
    taken = strength * 0.1 * 20
    least = np.sort(norms)[0]
    np.testing.assert_allclose(
        taken, min(0.3 * norms.mean() / 4, 0.5 * least), rtol=1e-6
    )
    assert rule.after_epoch(strength, {}, structures, target, 4) == 0
    rule.begin_epoch()
    assert rule.after_epoch(strength, {}, structures, target, 2) == 0
    none = ProximalRule(optimizer, 0.0, EqualSteps(2, 4))
    optimizer.inner_optimizer.iterations.assign(40)
    assert none.after_epoch(strength, {}, structures, target, 1) == 0
