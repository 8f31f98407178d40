"""Union-find over unit labels, beside a plain one."""

import itertools

import numpy as np
import pytest

from keras_iss.tracing.labels import FIXED, Labels


class Plain:
    """The same with sets, one label at a time."""

    def __init__(self):
        self.classes = []
        self.reasons = {}

    def new(self, size):
        start = len(self.classes)
        self.classes += [{start + i} for i in range(size)]
        return np.arange(start, start + size)

    def tie(self, first, second, reason):
        for a, b in zip(first.tolist(), second.tolist()):
            if a != FIXED and b != FIXED:
                merged = self.classes[a] | self.classes[b]
                for label in merged:
                    self.classes[label] = merged
        self.pin(first[second == FIXED], reason)
        self.pin(second[first == FIXED], reason)

    def pin(self, labels, reason):
        for label in labels.tolist():
            if label != FIXED:
                self.reasons.setdefault(label, reason)

    def reasons_of(self, label):
        return {
            self.reasons[x] for x in self.classes[label] if x in self.reasons
        }


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_tied_and_pinned_as_by_a_plain_union_find(seed):
    rng = np.random.default_rng(seed)
    labels, plain = Labels(), Plain()
    for size in rng.integers(1, 30, 4):
        fresh = labels.new(int(size))
        np.testing.assert_array_equal(fresh, plain.new(int(size)))
    count = len(labels)
    for step in range(rng.integers(1, 12)):
        first, second = rng.integers(FIXED, count, (2, rng.integers(1, 20)))
        if rng.random() < 0.3:
            labels.pin(first, f"step {step}")
            plain.pin(first, f"step {step}")
        else:
            labels.tie(first, second, f"step {step}")
            plain.tie(first, second, f"step {step}")
    every = np.arange(count)
    roots, pinned = labels.roots(every), labels.pinned(every)
    for label in every:
        same = {int(x) for x in every[roots == roots[label]]}
        assert same == plain.classes[label]
        reason = labels.reason(every[label : label + 1])
        assert pinned[label] == (reason is not None)
        assert (reason in plain.reasons_of(label)) == bool(pinned[label])


def test_a_label_keeps_its_first_reason():
    labels = Labels()
    first, second = labels.new(2), labels.new(2)
    labels.pin(first, "early")
    labels.pin(second[:1], "late")
    labels.tie(first, second, "never")
    assert labels.reason(second[1:]) == labels.reason(first) == "early"


@pytest.mark.parametrize("backwards", [False, True])
def test_a_long_chain_of_ties_is_one_class(backwards):
    labels = Labels()
    links = [labels.new(3) for _ in range(300)]
    pairs = list(itertools.pairwise(links))
    for first, second in reversed(pairs) if backwards else pairs:
        labels.tie(first, second, "")
    for link in links:
        np.testing.assert_array_equal(labels.roots(link), links[0])


def test_many_ties_at_once_are_one_class():
    labels = Labels()
    every = labels.new(500)
    labels.tie(every[:-1], every[1:], "")
    assert not labels.roots(every).any()
    labels.pin(every[-1:], "pinned")
    assert labels.pinned(every).all()


def test_what_is_pinned_is_listed_by_reason():
    labels = Labels()
    axis = np.append(labels.new(5), FIXED)
    labels.pin(axis[[0, 3]], "one")
    labels.pin(axis[[1]], "two")
    found = [(x.tolist(), why) for x, why in labels.by_reason(axis)]
    assert found == [([0, 3], "one"), ([1], "two")]
    assert labels.pinned(axis).tolist() == [True, True, False, True, False] + [
        True
    ]
