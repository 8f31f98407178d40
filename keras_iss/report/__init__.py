"""A report: one HTML page of a training or a model, that opens offline.

`data.py` has what is on it as plain values; `gathering.py` takes these from a
model, and `history.py` from a training. `tables.py`, `pictures.py` and
`page.py` draw them, and know nothing of models.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_iss.report.data import ReportData as ReportData


def report(
    model: "keras.Model | str | os.PathLike[str]",
    path: str | os.PathLike[str] = "report.html",
    *,
    before: "keras.Model | str | os.PathLike[str] | None" = None,
    history: Any = None,
    files: Sequence[str | os.PathLike[str]] = (),
    data: Any = None,
    metrics: Sequence[Any] | None = None,
    title: str | None = None,
    command: str | None = None,
    include: tuple[str, ...] = ("recurrent",),
    load: Callable[[pathlib.Path], keras.Model] | None = None,
) -> ReportData:
    """Writes a page of what became of a model.

    The page is one file, which asks for nothing from elsewhere: it can be sent
    to a colleague. Its pictures need the package `plotly` (extra `report`)
    when it is written; without, it has the same in tables.

    Args:
        model: A built `keras.Model`, or the path of a `.keras` file: what the
            page is about.
        path: Where to write the page. One that is there is replaced.
        before: The model before it was pruned or shrunk, or the path of its
            file. Group norms and sizes stand beside those of `model` then.
        history: What `fit` returned, its dict, or the path of what
            `keras.callbacks.CSVLogger` wrote. With an `ISSLogger` before
            these, the page shows sizes and cuts by epoch.
        files: Paths of `.tflite`, `.onnx` and `.keras` files and SavedModels.
            Their sizes and latencies are measured, and their outputs compared
            with those of `model`.
        data: Inputs, or a tuple `(inputs, targets)`, as in
            `keras_iss.compare`. With targets, the page has the quality of
            the model and of all files.
        metrics: As in `keras_iss.compare`.
        title: String. Defaults to the name of the model.
        command: String, the command that made the page. Defaults to that of
            this process.
        include: Tuple of kinds of layers, as in `find_structures`.
        load: Function that loads a `.keras` file. Defaults to
            `keras.models.load_model`, in its safe mode.

    Returns:
        A `ReportData`, what is on the page.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the model is not built or has no structures, if the
            data do not fit, or `history` has no epochs.
        OSError: if the page cannot be written.

    Examples:
        >>> import keras, keras_iss, pathlib, tempfile
        >>> model = keras.Sequential([
        ...     keras.Input((6, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(2)])
        >>> small = keras_iss.shrink(model, keep={"lstm": 5})
        >>> page = pathlib.Path(tempfile.mkdtemp(), "report.html")
        >>> found = keras_iss.report(small, page, before=model)
        >>> found.norms[0].structure, len(found.norms[0].after)
        ('lstm', 5)
    """
    from keras_iss.report.gathering import gather
    from keras_iss.report.page import write

    found = gather(
        model,
        before=before,
        history=history,
        files=files,
        data=data,
        metrics=metrics,
        title=title,
        command=command,
        include=include,
        load=load,
    )
    write(found, path)
    return found
