"""What is on a page, taken from models and files."""

import math
import pathlib
import shlex
import sys
from typing import Any

import keras
import numpy as np

from keras_iss.inspection import versions
from keras_iss.report.data import (
    FileRow,
    Norms,
    ReportData,
    Size,
    StructureRow,
    WeightMap,
)
from keras_iss.report.history import training_of
from keras_iss.runtimes.comparison import compare
from keras_iss.runtimes.runners import Runner, runner_of
from keras_iss.structures import Structures
from keras_iss.tracing.find import find_structures

# Of a kernel that is larger, blocks are drawn.
SIDE = 96
MOST_MAPS = 12


def gather(
    model: Any,
    *,
    before: Any = None,
    history: Any = None,
    files: Any = (),
    data: Any = None,
    metrics: Any = None,
    title: str | None = None,
    command: str | None = None,
    include: tuple[str, ...] = ("recurrent",),
    load: Any = None,
) -> ReportData:
    """What is on a page; the arguments are those of `keras_iss.report`."""
    training = training_of(history)
    runner = runner_of(model, load=load)
    old = None if before is None else runner_of(before, load=load)
    for found, name in ((runner, "model"), (old, "before")):
        if found is not None and found.model is None:
            raise ValueError(
                f"`{found.name}` is no Keras model, as `{name}` has to be. "
                "Files that were exported go in `files`."
            )
    assert runner.model is not None
    structures = find_structures(runner.model, include)
    olds = None if old is None else find_structures(old.model, include)
    rows, samples, random = _file_rows(runner, old, files, data, metrics, load)
    return ReportData(
        title or runner.name,
        runner.name,
        None if olds is None else size_of(olds),
        size_of(structures),
        structure_rows(structures, olds),
        training,
        norms_of(structures, None if olds is None else norms_by_name(olds)),
        weight_maps(structures),
        rows,
        samples,
        random,
        versions(),
        command_of() if command is None else command,
    )


def command_of() -> str:
    """The command that this process was started with, without folders."""
    program, *arguments = sys.argv or [""]
    return shlex.join([pathlib.Path(program).name, *arguments])


def size_of(structures: Structures) -> Size:
    """How large the model of some structures is, without what is removed."""
    counts = structures.counts(shrunk=True)
    return Size(
        counts.units,
        counts.weights,
        counts.recurrent_weights,
        counts.mult_adds,
        sum(x.size - x.alive for x in structures),
    )


def structure_rows(
    structures: Structures, before: Structures | None = None
) -> tuple[StructureRow, ...]:
    """The structures of a model, beside those of the model before it."""
    return tuple(
        StructureRow(
            x.name,
            x.makers or (x.name,),
            before[x.name].size
            if before is not None and x.name in before
            else None,
            x.size,
            x.alive,
            x.consumers,
            x.pinned,
        )
        for x in structures
    )


def norms_by_name(structures: Structures) -> dict[str, tuple[float, ...]]:
    """The group norms of each structure, from the largest on."""
    return {
        x.name: tuple(float(f"{n:.4g}") for n in np.sort(x.norms())[::-1])
        for x in structures
    }


def norms_of(
    structures: Structures, before: dict[str, tuple[float, ...]] | None
) -> tuple[Norms, ...]:
    """The group norms of a model, beside those of before."""
    return tuple(
        Norms(name, (before or {}).get(name), after)
        for name, after in norms_by_name(structures).items()
    )


def weight_maps(structures: Structures) -> tuple[WeightMap, ...]:
    """Where the kernels that hold structures have weights."""
    variables = {
        id(part.variable): part.variable
        for structure in structures
        for part in structure.slices
        if part.counted and len(part.variable.shape) >= 2
    }
    return tuple(
        _weight_map(variable)
        for variable in list(variables.values())[:MOST_MAPS]
    )


def _weight_map(variable):
    value = np.abs(keras.ops.convert_to_numpy(variable).astype("float32"))
    table = value.reshape(-1, value.shape[-1])
    block = tuple(math.ceil(size / SIDE) for size in table.shape)
    grid = _largest_in_blocks(table, block)
    return WeightMap(
        variable.path,
        tuple(variable.shape),
        float(np.mean(value != 0)),
        tuple(
            tuple(None if x == 0 else float(f"{x:.3g}") for x in row)
            for row in grid
        ),
        block,
    )


def _largest_in_blocks(table, block):
    missing = [-size % step for size, step in zip(table.shape, block)]
    padded = np.pad(table, [(0, more) for more in missing])
    rows, columns = (size // step for size, step in zip(padded.shape, block))
    return padded.reshape(rows, block[0], columns, block[1]).max(axis=(1, 3))


def _file_rows(runner, old, files, data, metrics, load):
    """A row for each model and file; how many samples, whether random."""
    others: list[Runner] = [] if old is None else [old]
    others += [runner_of(path, load=load) for path in files]
    if not others:
        others = [runner]
    rows, mine, found = [], None, None
    for other in others:
        found = compare(
            runner, other, data, metrics=metrics, runs=20, seconds=3.0
        )
        if mine is None:
            mine = _row(found.a, None)
        if other is not runner:
            difference = None if other is old else found.largest
            rows.append(_row(found.b, difference))
    assert mine is not None and found is not None
    rows.insert(0 if old is None else 1, mine)
    return tuple(rows), found.samples, found.random


def _row(side, difference):
    latency = side.latency
    return FileRow(
        side.name,
        side.format,
        side.size,
        side.weights,
        latency and latency.median,
        latency and latency.batch_size,
        side.metrics,
        difference,
    )
