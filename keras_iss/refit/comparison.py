"""How far a model is from what it was, on data that were held back."""

import keras
import numpy as np

from keras_iss.refit.running import Runner


class Comparison:
    """Compares a model with itself under other weights.

    Args:
        runner: The `Runner` of the model.
        batches: List of nested structures of arrays, its inputs.
    """

    def __init__(self, runner: Runner, batches: list):
        self._runner = runner
        self._batches = batches

    def errors(self, choices: list) -> list[float]:
        """The errors of the outputs under other weights.

        Batch by batch, so that only the outputs of one are kept.

        Args:
            choices: For each choice of weights, a list of pairs of a variable
                and its value, an array. The model has its own afterwards.

        Returns:
            For each, the mean over the outputs of the squared error, as a
            part of what the output varies by (of outputs that are
            probabilities, the mean divergence of Kullback and Leibler).
            Infinite where an output is not finite.
        """
        variables = {id(v): v for choice in choices for v, _ in choice}
        own = [
            (v, keras.ops.convert_to_numpy(v).copy())
            for v in variables.values()
        ]
        sums = [_Sums() for _ in choices]
        try:
            for batch in self._batches:
                _assign(own)
                expected = self._runner.run(batch).outputs
                for choice, total in zip(choices, sums):
                    _assign(own)
                    _assign(choice)
                    total.add(expected, self._runner.run(batch).outputs)
        finally:
            _assign(own)
        return [total.error() for total in sums]


def _assign(values):
    for variable, value in values:
        variable.assign(value)


class _Sums:
    """Adds up the errors of outputs."""

    def __init__(self):
        self._errors = {}

    def add(self, expected, outputs):
        for i, ((wanted, mask), (got, _)) in enumerate(zip(expected, outputs)):
            wanted, got = np.asarray(wanted), np.asarray(got)
            if wanted.dtype.kind not in "fV" or not wanted.size:
                continue
            wanted, got = _counting(wanted, mask), _counting(got, mask)
            error, scale = _difference(wanted, got)
            known = self._errors.setdefault(i, [0.0, 0.0])
            known[0] += error
            known[1] += scale

    def error(self):
        parts = [
            error / scale if scale > 0 else error
            for error, scale in self._errors.values()
        ]
        error = float(np.mean(parts)) if parts else 0.0
        return error if np.isfinite(error) else np.inf


def _counting(output, mask):
    """An output as rows in float64, without what is masked."""
    output = output.astype("float64")
    if mask is not None:
        mask = np.asarray(mask).astype(bool)
        if mask.shape == output.shape[: mask.ndim]:
            output = output[mask]
    return output.reshape(-1, output.shape[-1]) if output.ndim > 1 else output


def _difference(wanted, got):
    """The error of an output, and what it is to be divided by."""
    if wanted.ndim > 1 and wanted.shape[-1] > 1 and _are_probabilities(wanted):
        tiny = 1e-12
        ratio = np.log(np.maximum(wanted, tiny) / np.maximum(got, tiny))
        return np.sum(wanted * ratio), len(wanted)
    centred = wanted - wanted.mean(axis=0)
    return np.sum(np.square(got - wanted)), np.sum(np.square(centred))


def _are_probabilities(output):
    return (
        output.min(initial=0) >= 0
        and np.abs(output.sum(axis=-1) - 1).max(initial=0) < 1e-3
    )
