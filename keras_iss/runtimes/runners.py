"""Runners: a model in any form, from arrays to outputs by name."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np

from keras_iss.runtimes.formats import format_of, size_of

Arrays = list[np.ndarray]
Outputs = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """An input of a model.

    Attributes:
        name: String.
        shape: Tuple of the sizes, the number of samples first; `None` where
            a size is open.
        dtype: String.
        limit: Integer, below which integers have to be, or `None` if that is
            not known.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    limit: int | None = None


class Runner(Protocol):
    """A model that can be run.

    Attributes:
        name: String, what it is called in tables.
        format: `"keras"`, `"saved_model"`, `"tflite"` or `"onnx"`.
        inputs: Tuple of `InputSpec`.
        size: Integer, bytes on disk, or `None` for a model in memory.
        weights: Integer, the weights it holds, or `None` where the form does
            not tell.
        model: The `keras.Model`, or `None`.
    """

    name: str
    format: str
    inputs: tuple[InputSpec, ...]
    size: int | None
    weights: int | None
    model: keras.Model | None

    def run(self, arrays: Arrays) -> Outputs:
        """The outputs for a batch, from states of zeros.

        Args:
            arrays: List of arrays, in the order of `inputs`.
        """
        ...

    def prepared(self, arrays: Arrays) -> Callable[[], Any]:
        """A function that runs one batch again and again, for its time."""
        ...


def runner_of(
    model: "keras.Model | Runner | str | os.PathLike[str]",
    threads: int | None = None,
    load: Callable[[pathlib.Path], keras.Model] | None = None,
) -> Runner:
    """The runner of a model or a file.

    Args:
        model: A built `keras.Model`, a `Runner`, or the path of a `.keras`,
            `.tflite` or `.onnx` file or of a SavedModel.
        threads: Integer, how many threads LiteRT and ONNX Runtime may use.
            Defaults to what they take by themselves.
        load: Function that loads a `.keras` file. Defaults to
            `keras.models.load_model`, in its safe mode.

    Returns:
        A `Runner`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no model.
        ImportError: if what runs it is not installed.
    """
    from keras_iss.runtimes.keras_runner import KerasRunner

    if isinstance(model, keras.Model):
        return KerasRunner(model)
    if not isinstance(model, (str, os.PathLike)):
        return model
    path = pathlib.Path(model)
    found = format_of(path)
    if found == "keras":
        loaded = (load or keras.models.load_model)(path)
        return KerasRunner(loaded, path.name, size_of(path))
    if found == "saved_model":
        from keras_iss.runtimes.saved_model_runner import SavedModelRunner

        return SavedModelRunner(path)
    if found == "tflite":
        return runner_of_tflite(path, threads)
    from keras_iss.runtimes.onnx_runner import OnnxRunner

    return OnnxRunner(path, threads)


def runner_of_tflite(path: pathlib.Path, threads: int | None = None) -> Runner:
    """The runner of a TFLite file, whatever its name ends with.

    Args:
        path: `pathlib.Path` of the file.
        threads: Integer, how many threads LiteRT may use, or `None`.
    """
    from keras_iss.runtimes.lite_runner import LiteRunner
    from keras_iss.runtimes.micro_runner import MicroRunner, is_for_micro_alone

    if is_for_micro_alone(path):
        return MicroRunner(path)
    return LiteRunner(path, threads)
