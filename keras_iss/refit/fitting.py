"""Has what reads components that go make do with those that stay."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_iss.refit.comparison import Comparison
from keras_iss.refit.data import batches_of
from keras_iss.refit.moments import Moments
from keras_iss.refit.places import double
from keras_iss.refit.reading import Cut, reading_of
from keras_iss.refit.regression import Regression
from keras_iss.refit.running import Runner
from keras_iss.structures import Structures

ENOUGH_ROWS = 100_000
"""Time steps after which no more are read at a place."""

HELD_BACK = 4
"""Of so many batches, one is held back from the regressions."""

MOST_COMPARED = 8
"""Batches that are kept to compare models on."""

LEAST_RIDGES = (0.0, 1e-2, 1e-1)
"""The least ridges of a refit that is tried, from the boldest on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Refit:
    """New weights for a model, with which it needs some components less.

    Attributes:
        values: List of pairs of a variable and its new value, an array. What
            goes is not set to zero in it.
        error_of_cut: Float, the error of the outputs on held-back data when
            the components are only cut, as a part of what the outputs vary
            by.
        error: Float, the same with the new weights. Never larger.
        refitted: Dict from the path of each kernel that is changed to the
            ridge of its regression.
        rejected: Tuple of the paths of kernels of which a refit was tried,
            and brought the outputs no nearer.
        left: Dict from the path of each kernel that cannot be refitted to a
            string: why.
    """

    values: list
    error_of_cut: float
    error: float
    refitted: dict[str, float]
    rejected: tuple
    left: dict[str, str]

    @contextlib.contextmanager
    def applied(self):
        """Writes the new weights; an error inside takes them back."""
        before = [
            (variable, keras.ops.convert_to_numpy(variable).copy())
            for variable, _ in self.values
        ]
        try:
            for variable, value in self.values:
                variable.assign(value)
            yield
        except BaseException:
            for variable, value in before:
                variable.assign(value)
            raise


def refit_weights(
    model: keras.Model, structures: Structures, kept: Mapping, data: Any
) -> Refit:
    """Predicts what goes from what stays, for each kernel that reads both.

    What a layer reads of the components that go is predicted from all else it
    reads at the same time, by ridge regression with a constant. Whatever is
    linear in it, a kernel and its bias, takes that in: the rows of the kernel
    that stay get those that go, by what predicts them. A recurrent kernel, that
    reads the state of its own layer, does the same.

    The data are read once. Every fourth batch is held back; those say which
    ridge is best for each kernel. On some of them the outputs are compared
    with those of the model as it is: with all kernels refitted, only those
    that are not recurrent, with larger ridges, and with none. What is nearest
    is given.

    Args:
        model: A built `keras.Model`, which is left as it is.
        structures: Its `Structures`.
        kept: Dict from the name of a structure to the components that stay of
            it, an integer array.
        data: Inputs, or what `fit` takes to train on. After 100,000 time steps
            no more are read.

    Returns:
        A `Refit`.

    Raises:
        TypeError: if the data are of no form that is known.
        ValueError: if there are none, or the model gives NaN or infinite
            numbers on them.
    """
    cut = Cut.of(structures, kept)
    reading = reading_of(model, cut.fresh)
    left = dict(reading.left)
    if not reading.places:
        return Refit([], 0.0, 0.0, {}, (), left)
    runner = Runner(model, reading.readers, reading.places)
    statistics = Statistics.gathered(
        runner, reading.places, batches_of(data, model)
    )
    options = {}
    for place in reading.places:
        if not statistics.seen[place.key].count:
            left[place.name] = "it reads nothing on the data"
            continue
        options[place] = _predictions(place, cut, statistics)
    comparison = Comparison(runner, statistics.compared)
    return _chosen(options, cut, comparison, left)


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """What was read at some places.

    Attributes:
        seen: Dict from the key of a place to its `Moments`.
        held_back: The same, of other batches.
        compared: List of some of those batches.
    """

    seen: dict
    held_back: dict
    compared: list

    @classmethod
    def gathered(cls, runner, places, batches, held_back=HELD_BACK):
        """Runs over batches until enough is read, or there are no more.

        Args:
            runner: The `Runner` that sees the places.
            places: List of `Place`.
            batches: Iterable of the inputs of the model.
            held_back: Integer, of how many batches one is held back; 0 for
                none.
        """
        seen = {place.key: Moments(place.size) for place in places}
        others = {place.key: Moments(place.size) for place in places}
        compared, first = [], None
        for i, batch in enumerate(batches):
            first = batch if first is None else first
            is_held_back = held_back > 0 and i % held_back == 1
            for key, rows in runner.run(batch).read.items():
                if not np.isfinite(rows).all():
                    raise ValueError(
                        "The model gives NaN or infinite numbers on `data`: no "
                        "weights can be refitted to them."
                    )
                moments = (others if is_held_back else seen)[key]
                moments.add(rows)
            if is_held_back and len(compared) < MOST_COMPARED:
                compared.append(batch)
            if all(moments.count >= ENOUGH_ROWS for moments in seen.values()):
                break
        if first is None:
            raise ValueError("`data` holds no batch.")
        if not compared:
            compared = [first]
        for key, moments in others.items():
            if not moments.count:
                others[key] = seen[key]
        return cls(seen, others, compared)


def _predictions(place, cut, statistics):
    """The predictions for a place that may be tried, the boldest first."""
    stay, gone = cut.rows(place)
    kernel = double(place.variable)
    cut.set_to_zero({id(place.variable): kernel}, but_rows_of=place)
    regression = Regression(
        statistics.seen[place.key], stay, gone, bool(place.biases)
    )
    held_back = statistics.held_back[place.key]
    weights = place.rows(kernel)[gone]
    return [
        regression.best(held_back, weights, least) for least in LEAST_RIDGES
    ]


def _chosen(options, cut, comparison, left):
    """The refit that is best on held-back data."""
    search = Search(options, cut, comparison)
    best = search.run()
    chosen = {place: x for place, x in best.items() if x is not None}
    values = refitted_values(chosen, cut)
    return Refit(
        [(variable, values[id(variable)]) for variable in _variables(chosen)],
        search.error_of_cut,
        search.error,
        {place.name: x.ridge for place, x in chosen.items()},
        tuple(place.name for place, x in best.items() if x is None),
        left,
    )


class Search:
    """Looks for the places that are to be refitted, and how boldly.

    Args:
        options: Dict from a `Place` to its `Prediction`s, the boldest first.
        cut: The `Cut`.
        comparison: The `Comparison` that says how good a choice is.

    Attributes:
        error: Float, the error of the best choice that was found.
        error_of_cut: Float, that of no refit at all.
    """

    def __init__(self, options: dict, cut: Cut, comparison: Comparison):
        self._options = options
        self._cut = cut
        self._comparison = comparison
        self._tried: dict[tuple, float] = {}
        self.error = self.error_of_cut = np.inf

    def run(self) -> dict:
        """Dict from each place to its prediction, or to `None`."""
        whole = [self._all(0, level) for level in range(len(LEAST_RIDGES))]
        nothing = self._all(None, None)
        only_consumers = self._all(0, None)
        self._try([*whole, only_consumers, nothing])
        self.error_of_cut = self._tried[nothing]
        best = min(self._tried, key=self._tried.__getitem__)
        if best != whole[0]:
            best = self._improved(best)
        self.error = self._tried[best]
        return {
            place: None if level is None else self._options[place][level]
            for place, level in zip(self._options, best)
        }

    def _all(self, level, recurrent_level):
        """The same for all places: a tuple with a level for each."""
        return tuple(
            recurrent_level if place.is_recurrent else level
            for place in self._options
        )

    def _try(self, choices):
        choices = [x for x in dict.fromkeys(choices) if x not in self._tried]
        values = [self._values(choice) for choice in choices]
        errors = self._comparison.errors(values)
        self._tried.update(zip(choices, errors))

    def _values(self, choice):
        chosen = {
            place: self._options[place][level]
            for place, level in zip(self._options, choice)
            if level is not None
        }
        values = refitted_values(chosen, self._cut)
        for variable in self._cut.variables():
            values.setdefault(id(variable), double(variable))
        self._cut.set_to_zero(values)
        variables = {id(v): v for v in _variables(chosen)}
        variables |= {id(v): v for v in self._cut.variables()}
        return [(v, values[key]) for key, v in variables.items()]

    def _improved(self, best):
        """The best choice after each kernel was tried in all the ways."""
        kernels = list(dict.fromkeys(id(x.variable) for x in self._options))
        for kernel in kernels:
            places = [id(x.variable) == kernel for x in self._options]
            choices = [
                tuple(
                    level if own else known for own, known in zip(places, best)
                )
                for level in (*range(len(LEAST_RIDGES)), None)
            ]
            self._try(choices)
            best = min(self._tried, key=self._tried.__getitem__)
        return best


def refitted_values(chosen: dict, cut: Cut) -> dict:
    """The weights with which predictions take the place of what goes.

    Args:
        chosen: Dict from a `Place` to a `Prediction`.
        cut: The `Cut`.

    Returns:
        Dict from the `id` of a variable to an array. What goes is as it was.
    """
    values = {id(v): double(v) for v in _variables(chosen)}
    for place, prediction in chosen.items():
        stay, gone = cut.rows(place)
        kernel = values[id(place.variable)]
        rows = place.rows(kernel).copy()
        lost = rows[gone]
        rows[stay] += prediction.factors @ lost
        place.set_rows(kernel, rows)
        place.add_constant(values, prediction.constant @ lost)
    return values


def _variables(places):
    found = {id(v): v for place in places for v in place.variables}
    return list(found.values())
