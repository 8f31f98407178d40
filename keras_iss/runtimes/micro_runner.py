"""Runs a TFLite file in TensorFlow Lite Micro's interpreter."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_iss.runtimes._installed import needed
from keras_iss.runtimes.formats import size_of
from keras_iss.runtimes.runners import Arrays, InputSpec, Outputs


class MicroRunner:
    """A file of `export_tflite(..., target="micro")`, as a device computes it.

    Each batch is run in a process of its own. A file of steps is run over
    whole sequences, from states of zeros, as in LiteRT.

    Args:
        path: Path of the file.

    Raises:
        ImportError: if `tflite-micro` is not installed.
    """

    format = "tflite"
    model: Any = None
    weights: int | None = None

    def __init__(self, path: pathlib.Path):
        needed("tflite_micro", "devices", f"To run `{path}`")
        from keras_iss.export import flatbuffer, tflm

        self._content = path.read_bytes()
        self._micro = tflm.described(self._content)
        known = flatbuffer.metadata(self._content) or {}
        self._step = known.get("step") or {}
        # How many time steps a call takes: sequences are multiples of it.
        self.frames: int = self._step.get("frames", 1)
        self.name = path.name
        self.size: int | None = size_of(path)
        self._taken = [x for x in self._micro.inputs if not x.state]
        self._batch = self._taken[0].shape[0]
        self.inputs = tuple(
            InputSpec(x.name, self._shape_of(x), _dtype(x)) for x in self._taken
        )

    def run(self, arrays: Arrays) -> Outputs:
        """As `Runner.run`."""
        from keras_iss.export import tflm

        sequences = [
            self._calls([x[at : at + self._batch] for x in arrays])
            for at in range(0, len(arrays[0]), self._batch)
        ]
        _, results = tflm.run(self._content, self._micro, sequences)
        names = [x.name for x in self._micro.outputs if not x.state]
        return {
            name: np.concatenate(
                [self._joined(name, steps) for steps in results]
            )[: len(arrays[0])]
            for name in names
        }

    def prepared(self, arrays: Arrays) -> Callable[[], Any]:
        """As `Runner.prepared`.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"`{self.name}` runs in TensorFlow Lite Micro alone, whose time on "
            "this machine says nothing of a device: compare without latency."
        )

    def _shape_of(self, tensor):
        # Any number of samples: they are run one batch after the other.
        rest = tensor.shape[1:]
        if self._is_timed(tensor):
            rest = (None, *rest[1:])
        return (None, *rest)

    def _is_timed(self, tensor):
        return tensor.name in self._step.get("inputs", ())

    def _joined(self, name, steps):
        """What each step gives, put together along time if it has that axis."""
        if name in self._step.get("outputs", ()):
            return np.concatenate([step[name] for step in steps], axis=1)
        return steps[-1][name]

    def _calls(self, arrays):
        """The calls of a sequence: one, or one for each time step."""
        from keras_iss.export.integers import to_integers

        missing = self._batch - len(arrays[0])
        whole = [
            to_integers(
                np.concatenate([array, np.repeat(array[-1:], missing, 0)]),
                x.dtype,
                x.scale,
                x.zero_point,
            )
            for x, array in zip(self._taken, arrays)
        ]
        if not self._micro.step:
            return [{x.index: a for x, a in zip(self._taken, whole)}]
        length = max(
            a.shape[1] for x, a in zip(self._taken, whole) if self._is_timed(x)
        )
        if length % self.frames or not length:
            raise ValueError(
                f"`{self.name}` takes {self.frames} time steps in a call, and "
                f"the sequences have {length}: give as many, or a multiple."
            )
        return [
            {
                x.index: a[:, t : t + self.frames]
                if self._is_timed(x) and a.shape[1] == length
                else a
                for x, a in zip(self._taken, whole)
            }
            for t in range(0, length, self.frames)
        ]


def is_for_micro_alone(path: pathlib.Path) -> bool:
    """Whether TensorFlow Lite Micro runs a file and LiteRT does not.

    That is so of fused LSTM layers with activations in 16 bits.

    Args:
        path: Path of a TFLite file.
    """
    content = path.read_bytes()
    # What the export has put into it; nothing is imported for other files.
    if b'"quantize": "int16x8"' not in content:
        return False
    from keras_iss.export.flatbuffer import operators

    return "UNIDIRECTIONAL_SEQUENCE_LSTM" in operators(content)


def _dtype(tensor):
    return "float32" if tensor.scale else tensor.dtype
