"""Files of a model at several sizes, to measure what sizes cost."""

import contextlib
import os
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from keras_iss._checks import check_count
from keras_iss._messages import quoted
from keras_iss.costs.shapes import shapes_of, sizes_of
from keras_iss.costs.table import MANIFEST, CostTable, Probe
from keras_iss.export import export_tflite
from keras_iss.structures import Structures
from keras_iss.surgery.shrinking import shrink_found
from keras_iss.tracing.find import find

# All structures alike, which is how most targets cut.
_ALIKE = (1.0, 0.75, 0.5, 0.35, 0.25, 0.125)
# The others are drawn: how small, and how different from each other.
_SMALLEST, _SPREAD = 0.1, 0.9
_MOST = 32


def write_cost_probes(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    probes: int | None = None,
    round_to: int = 4,
    include: tuple[str, ...] = ("recurrent",),
    **options: Any,
) -> CostTable:
    """Writes TFLite files of a model at several sizes, to be measured.

    The first is the model as it is; the others have fewer components in its
    structures, whichever: what they compute is of no use. Beside them lies
    `probes.json`, a `CostTable` without milliseconds.

    Args:
        model: A built `keras.Model`.
        folder: Where to write them, a `str` or `os.PathLike`: a folder that
            is not there, or is empty.
        probes: Integer, three or more, how many files. Defaults to 8, and 4
            more for each structure, but at most 32.
        round_to: Integer, what the smaller sizes are multiples of. Defaults
            to 4: float kernels take up to a third longer at sizes in between.
        include: Tuple of kinds of layers, as in `find_structures`.
        **options: As in `export_tflite`, but for `verify` and `data`:
            `quantize`, `batch_size`, `recurrent_op` and others.

    Returns:
        The `CostTable`, which can tell kilobytes.

    Raises:
        FileExistsError: if there is something in the folder.
        FileNotFoundError: if there is no place for it.
        ValueError: if no structure may lose a component, or the model cannot
            be exported.
        TypeError: if an option is unknown or of a wrong type.

    Example:
    ```python
    keras_iss.write_cost_probes(model, "probes", quantize="int8")
    # Run `benchmark_model` on each of the files, on a phone.
    costs = keras_iss.CostTable.from_benchmark_model("probes", "results.txt")
    keras_iss.prune(model, latency_ms=2.5, costs=costs)
    ```
    """
    if probes is not None:
        probes = check_count(probes, "probes", 3, "files")
    round_to = check_count(round_to, "round_to", 1, "components")
    refused = sorted({"verify", "data"} & set(options))
    if refused:
        raise TypeError(
            f"{quoted(refused)} is of no use here: what the files compute is "
            "not looked at."
        )
    found = find(model, include)
    structures = found.structures
    selections = _selections(structures, probes, round_to)
    with _new_folder(folder) as place:
        written: dict[tuple, Probe] = {}
        for kept in selections:
            left = _only_free(structures, sizes_of(structures, kept))
            # Where sizes are tied, two may come out alike.
            if (key := tuple(left.values())) not in written:
                path = place / f"probe_{len(written):02}.tflite"
                size = _written(model, found, kept, path, options)
                written[key] = Probe(path.name, left, size)
        table = CostTable(
            model.name,
            _only_free(structures, sizes_of(structures)),
            shapes_of(structures),
            tuple(written.values()),
            {k: x for k, x in options.items() if k != "representative_data"},
            round_to,
        )
        table.save(place / MANIFEST)
    return table


@contextlib.contextmanager
def _new_folder(folder):
    """A folder to fill, which takes its place when all went well."""
    folder = pathlib.Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(
            f"`{folder}` is not empty. Give the probes a folder of their own."
        )
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder `{folder.parent}` to put `{folder.name}` in. "
            "Make it first."
        )
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}-", dir=folder.absolute().parent
    ) as temporary:
        place = pathlib.Path(temporary) / folder.name
        place.mkdir()
        yield place
        if folder.is_dir():
            folder.rmdir()
        place.replace(folder)


def _written(model, found, kept, path, options):
    """The bytes of a file that is written of what is kept."""
    if kept is not None:
        model = shrink_found(found, kept, verify=False)
    return export_tflite(model, path, verify=False, **options).size


def _only_free(structures, sizes):
    return {x.name: sizes[x.name] for x in structures.free}


def _selections(
    structures: Structures, probes: int | None, round_to: int
) -> list[dict | None]:
    """What stays in the probes, first `None`: all of the model as it is.

    Any components stay: how long they take does not depend on which.
    """
    free = structures.free
    if not any(x.size > 1 for x in free):
        raise ValueError(
            "No structure of the model could lose a component, so that there "
            "are no smaller models to measure."
        )
    if probes is None:
        probes = min(8 + 4 * len(free), _MOST)
    found = [tuple(x.size for x in free)]
    for share in _shares(probes, len(free)):
        sizes = tuple(
            _rounded(part * x.size, round_to, x.size)
            for x, part in zip(free, share)
        )
        if sizes not in found:
            found.append(sizes)
    return [
        None,
        *(
            {x.name: np.arange(size) for x, size in zip(free, sizes)}
            for sizes in found[1:probes]
        ),
    ]


def _shares(probes, structures):
    """Of each structure, the part that stays: more of them than needed."""
    rng = np.random.default_rng(0)
    alike = np.repeat(np.array(_ALIKE)[:, None], structures, axis=1)
    shape = (4 * probes, structures)
    center = np.exp(rng.uniform(np.log(_SMALLEST), 0, (4 * probes, 1)))
    drawn = center * np.exp(rng.uniform(-_SPREAD, _SPREAD, shape))
    return np.concatenate([alike, drawn])


def _rounded(size, step, full):
    if step > full:
        step = 1
    return int(min(max(round(size / step), 1), full // step) * step)
