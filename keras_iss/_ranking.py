"""In which order components go, and which are the best of them."""

import math

import numpy as np

from keras_iss.structures.values import norms_of, removed_of


class Order:
    """In which order the components of several structures go.

    Importances are compared with the mean of their own structure. They go in
    blocks of as many as its size is to be a multiple of, the least important
    first; the best block of each structure never does. What is more than a
    multiple is gone from the start.

    Args:
        structures: Tuple of `Structure`.
        importance: Dict from name to importances, or `None`.
        steps: Dict from name to the sizes of blocks.
    """

    def __init__(self, structures, importance, steps):
        importance = dict(importance or {})
        importance |= norms_of(
            [x for x in structures if x.name not in importance]
        )
        removed = removed_of(structures)
        self._names = [x.name for x in structures]
        # The components from the best on, how many stay at most, and in
        # blocks of how many they go.
        self._ranked, self._most, self._sizes = [], [], []
        means, owners = [], []
        for place, name in enumerate(self._names):
            values = _relative(importance[name], ~removed[name])
            ranked = _ranked(values, removed[name])
            alive = max(int((~removed[name]).sum()), 1)
            size = steps[name] if steps[name] <= alive else 1
            most = alive // size * size
            self._ranked.append(ranked)
            self._most.append(most)
            self._sizes.append(size)
            blocks = values[ranked[:most]].reshape(-1, size).mean(axis=1)
            # From the least on, without the best.
            means.append(blocks[:0:-1])
            owners.append(np.full(len(blocks) - 1, place))
        first = np.argsort(np.concatenate(means), kind="stable")
        self._owners = np.concatenate(owners)[first]

    def __len__(self):
        return len(self._owners)

    @property
    def rounds(self):
        """Boolean, whether some go in blocks of more than one."""
        return max(self._sizes) > 1

    def kept_without(self, count):
        """What stays if so many blocks go: dict from name to indices."""
        return self._kept(self._left_without(count))

    def kept_as_fits(self, count, fits):
        """As `kept_without`, but for blocks that may stay after all.

        The last of those that go may be a large one. In the room that it
        makes, others stay, the most important first.

        Args:
            count: Integer, how many blocks go at most.
            fits: Function of what stays, whether that may be.
        """
        left, full = self._left_without(count), set()
        for owner in self._owners[:count][::-1]:
            if owner in full:
                continue
            left[owner] += self._sizes[owner]
            if not fits(self._kept(left)):
                left[owner] -= self._sizes[owner]
                full.add(owner)
        return self._kept(left)

    def _left_without(self, count):
        gone = np.bincount(self._owners[:count], minlength=len(self._names))
        return np.array(self._most) - gone * np.array(self._sizes)

    def _kept(self, left):
        return {
            name: np.sort(ranked[:stays])
            for name, ranked, stays in zip(self._names, self._ranked, left)
        }


def _ranked(values, removed):
    """The components from the best to the least; what is removed comes last."""
    return np.lexsort((-values, removed))


def best(values, removed, count):
    """The best components, as a sorted integer array."""
    return np.sort(_ranked(values, removed)[:count])


def rounded_up(count, step, most):
    """A multiple of `step` up to `most`, not below `count` if there is one."""
    if step > most:
        return count
    return min(math.ceil(count / step), most // step) * step


def rounded_down(count, step, most):
    """A multiple of `step` not above `count`, but one of them at least."""
    if step > most:
        return count
    return max(min(count, most) // step, 1) * step


def _relative(importance, alive):
    """Importances over the mean of those that are alive, all of them finite."""
    compared = importance[alive & np.isfinite(importance)]
    mean = np.abs(compared).mean() if len(compared) else 1.0
    # An infinite importance comes first, or last.
    return np.clip(importance / (mean or 1.0), -1e30, 1e30)
