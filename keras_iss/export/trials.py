"""Inputs on which a file and its model are run side by side."""

import dataclasses

import keras
import numpy as np

from keras_iss._keras.layers import inner_layers
from keras_iss._keras.running import call_without_effects
from keras_iss.export.data import calls_of, is_float, numpy_dtype
from keras_iss.export.model import Callable, isolated, own_message

# Below, at and above the lengths of the chunks of a loop.
LENGTHS = (5, 1, 8, 35)
# For models that take none of these.
LONGER = (200, 1000)
# Of data that the user gives, at most so many calls are run.
CALLS = 8
# Integers that no table was found for: such ones, if the model takes them.
_SOME_INTEGERS = 10

# What a float input may want, likeliest first.
_FLOATS = {
    "standard normal": lambda random, shape: random.standard_normal(shape),
    "between 0 and 1": lambda random, shape: random.uniform(0.05, 1, shape),
    "between 1 and 10": lambda random, shape: random.uniform(1, 10, shape),
    "small": lambda random, shape: random.normal(0, 0.01, shape),
}


class VerificationError(RuntimeError):
    """A file that computes something else than its model."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Some calls, and what the model gives.

    Attributes:
        calls: List of lists of arrays, in the order of the inputs.
        expected: List of dicts from the name of an output to an array.
    """

    calls: list
    expected: list


class Reference:
    """The model as Keras runs it, from the same beginning in every call."""

    def __init__(self, model, own):
        self.function = Callable(isolated(model, own))
        kept = [v for v in self.function.model.variables if not v.trainable]
        self._kept = kept if own else []
        self._kept += self.function.states
        self._values = [keras.ops.convert_to_numpy(v) for v in self._kept]

    def __call__(self, inputs):
        """Dict of the outputs by name, as arrays, of a list of arrays."""
        for variable, value in zip(self._kept, self._values):
            variable.assign(value)
        if keras.backend.backend() == "jax":
            outputs = self._compiled(inputs)
        else:
            outputs = self.function(inputs)
        return {
            name: keras.ops.convert_to_numpy(x) for name, x in outputs.items()
        }

    def _compiled(self, inputs):
        """As a whole: JAX would compile each loop by itself otherwise."""
        function = self.function
        found, _ = call_without_effects(
            function.model, lambda x: list(function(x).values()), inputs
        )
        return dict(zip(function.output_names, found))


class Trials:
    """Inputs within the domain of a model, with what it gives.

    Args:
        reference: The `Reference`.
        batch: Number of samples in a call, or `None`.
        vocabulary: Function from the list of `Input`s to how many integers
            each may hold, `None` where that is not known.
        data: List of arrays that the user gives, or `None`.
        what: Text that says what they are.
        frames: Integer: lengths are to be multiples of it.

    Attributes:
        what: Text that says what the inputs are.
    """

    def __init__(
        self, reference, batch, vocabulary, data=None, what=None, frames=1
    ):
        self._reference = reference
        self._function = reference.function
        self._batch = batch
        self._vocabulary = vocabulary
        self._data = data
        self._frames = frames
        self.what = what or "random numbers"
        self._cases = {}

    def __iter__(self):
        """Gives a `Case` for each length that the model takes.

        Raises:
            VerificationError: if there is none, or if the model gives no
                finite number in any.
        """
        failure, worked, finite = None, False, False
        for number, length in enumerate(self._lengths()):
            if worked and length in self._longer:
                break
            try:
                case = self._case(number, length)
            except _NotCallable as error:
                failure = error
                continue
            worked = True
            finite = finite or any(map(_finite_share, case.expected))
            yield case
        if not worked:
            raise self._not_callable(failure.__cause__) from failure
        if not finite:
            raise VerificationError(
                f"`{self._function.model.name}` gives no finite number on "
                f"{self.what}, so that the file cannot be judged. Give data= "
                "on which its outputs are finite, or verify=False to write "
                "the file unverified. Nothing was written."
            )

    def short(self):
        """A `Case` of several time steps, but of few where that is open."""
        lengths = self._lengths()
        order = sorted(
            range(len(lengths)),
            key=lambda i: (
                lengths[i] in self._longer,
                lengths[i] == self._frames,
                lengths[i] is None,
            ),
        )
        failure = None
        for number in order:
            try:
                return self._case(number, lengths[number])
            except _NotCallable as error:
                failure = error
        raise self._not_callable(failure.__cause__) from failure

    def _lengths(self):
        """Sizes of the open axes; `None` for that of the data."""
        open_axes = any(None in x.shape[1:] for x in self._function.inputs)
        lengths = self._short
        if self._data is None:
            return (*lengths, *self._longer) if open_axes else lengths[:1]
        if not open_axes:
            return (None,)
        longest = max(
            array.shape[axis]
            for x, array in zip(self._function.inputs, self._data)
            for axis, size in enumerate(x.shape)
            if axis and size is None
        )
        return (None, *[x for x in lengths if x < longest])

    @property
    def _short(self):
        if self._frames == 1:
            return LENGTHS
        last = _multiple(LENGTHS[-1], self._frames)
        few = [number * self._frames for number in (3, 1, 5)]
        return (*few, *([] if last in few else [last]))

    @property
    def _longer(self):
        longer = {_multiple(x, self._frames) for x in LONGER}
        return tuple(sorted(longer - set(self._short)))

    def _case(self, number, length):
        key = number, length
        if key not in self._cases:
            if self._data is None:
                self._cases[key] = self._random_case(number, length)
            else:
                self._cases[key] = self._data_case(number, length)
        return self._cases[key]

    def _data_case(self, number, length):
        count = CALLS if length is None else 1
        calls = []
        for inputs in calls_of(self._data, self._batch, count):
            calls.append(
                [
                    array if length is None else _cut(x, array, length)
                    for x, array in zip(self._function.inputs, inputs)
                ]
            )
        return Case(calls, [self._called(inputs) for inputs in calls])

    def _random_case(self, number, length):
        size = self._batch or number + 1
        best, most = None, -1.0
        failure = None
        for words in self._integers():
            for kind in self._kinds():
                inputs = self._random(size, length, number, words, kind)
                try:
                    outputs = self._called(inputs)
                except _NotCallable as error:
                    failure = error
                    break
                share = _finite_share(outputs)
                if share > most:
                    best, most = (inputs, outputs, words, kind), share
                if share == 1:
                    break
            if best is not None:
                break
        if best is None:
            raise failure
        inputs, outputs, words, kind = best
        # The same domain at every length.
        self._chosen = words, kind
        self.what = self._described(words, kind)
        return Case([inputs], [outputs])

    _chosen = None

    def _integers(self):
        """Tuples of the numbers of integers, by input, that may be right."""
        if self._chosen:
            return [self._chosen[0]]
        found = self._vocabulary(self._function.inputs)
        known = [
            layer.input_dim
            for layer in inner_layers(self._function.model)
            if isinstance(layer, keras.layers.Embedding)
        ]
        other = min(known, default=_SOME_INTEGERS)
        choices = [[size or other for size in found]]
        choices += [[min(size, few) for size in choices[0]] for few in (2, 1)]
        return choices

    def _kinds(self):
        if self._chosen:
            return [self._chosen[1]]
        floats = any(is_float(x) for x in self._function.inputs)
        return list(_FLOATS) if floats else list(_FLOATS)[:1]

    def _random(self, size, length, seed, words, kind):
        random = np.random.default_rng(seed)
        masks = [
            x.mask_value
            for x in inner_layers(self._function.model)
            if isinstance(x, keras.layers.Masking)
        ]
        inputs = []
        for x, count in zip(self._function.inputs, words):
            shape = [size if x.shape[0] is None else x.shape[0]]
            shape += [length if n is None else n for n in x.shape[1:]]
            if x.dtype == "bool":
                value = random.random(shape) < 0.5
            elif not is_float(x):
                value = random.integers(0, count, shape)
            else:
                value = _FLOATS[kind](random, shape)
                if masks and value.ndim > 2:
                    value[random.random(shape[:2]) < 0.3] = masks[0]
            inputs.append(np.asarray(value, numpy_dtype(x.dtype)))
        return inputs

    def _called(self, inputs):
        try:
            return self._reference(inputs)
        except Exception as error:
            raise _NotCallable from error

    def _described(self, words, kind):
        parts = []
        for x, count in zip(self._function.inputs, words):
            if is_float(x):
                parts.append(f"`{x.name}` {kind}")
            elif x.dtype != "bool":
                parts.append(f"`{x.name}` integers below {count}")
        return f"random numbers ({', '.join(parts)})" if parts else self.what

    def _not_callable(self, error):
        message = own_message(error).strip().split("\n")
        name = self._function.model.name
        if self._data is not None:
            return VerificationError(
                f"`{name}` could not be called on {self.what}: "
                f"{' '.join(message)[:500]} Give data that it takes. Nothing "
                "was written."
            )
        return VerificationError(
            f"`{name}` could not be called on random numbers of any length "
            f"in {(*self._short, *self._longer)}, so that the file cannot be "
            "verified: "
            f"{' '.join(message)[:500]} Give data= that the model takes, or "
            "verify=False to write the file unverified. Nothing was written."
        )


class _NotCallable(Exception):
    """The model does not take these inputs; the cause says why."""


def _multiple(length, frames):
    return -(-length // frames) * frames


def _cut(x, array, length):
    open_axes = [
        slice(length if axis and size is None else None)
        for axis, size in enumerate(x.shape)
    ]
    return array[tuple(open_axes)]


def _finite_share(outputs):
    """The share of finite numbers in a dict of arrays."""
    flat = [np.ravel(x).astype("float64") for x in outputs.values()]
    count = sum(x.size for x in flat)
    return sum(int(np.isfinite(x).sum()) for x in flat) / count if count else 1
