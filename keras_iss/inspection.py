"""What a model is made of, and what a cut of it would save."""

import dataclasses
import math
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import keras
import numpy as np

from keras_iss.runtimes.inputs import LENGTH, arrays_of, random_arrays
from keras_iss.runtimes.keras_runner import KerasRunner
from keras_iss.runtimes.latency import measured, one_batch
from keras_iss.selection import target_of
from keras_iss.structures import Structures
from keras_iss.structures.values import norms_of
from keras_iss.surgery.shrinking import shrink
from keras_iss.tracing.find import find_structures
from keras_iss.version import __version__

SHARES = (0.5, 0.25)

_PACKAGES = ("keras", "tensorflow", "jax", "torch", "ai-edge-litert", "numpy")


@dataclasses.dataclass(frozen=True)
class StructureSummary:
    """A structure in numbers.

    Attributes:
        name: String.
        layers: Tuple of strings, the layers whose units these are.
        size: Integer, the number of components.
        alive: Integer, those that are not removed.
        weights_per_unit: Integer, what one component less saves, `None` where
            none can go.
        consumers: Tuple of strings, the other layers that hold weights of it.
        pinned: String, why it must keep its size, or `None`.
        smallest_norm: Float, the least of its group norms.
        median_norm: Float, the median of them.
        largest_norm: Float, the largest of them.
    """

    name: str
    layers: tuple[str, ...]
    size: int
    alive: int
    weights_per_unit: int | None
    consumers: tuple[str, ...]
    pinned: str | None
    smallest_norm: float
    median_norm: float
    largest_norm: float


@dataclasses.dataclass(frozen=True)
class Cut:
    """A model as it is, or as it would be after a cut.

    Attributes:
        target: String, what is asked for, in the words of `prune`.
        sizes: Dict from the name of a structure to its size.
        units: Integer, the components of all the structures.
        weights: Integer, all the weights.
        recurrent_weights: Integer, those of recurrent layers.
        mult_adds: Integer, the multiply-adds by weights for one time step.
        bytes: Integer, what the weights take in memory.
        milliseconds: Float, the median time of a call, measured; or `None`.
        problem: String, why there is no such cut, or `None`. Its numbers are
            those of the model as it is then.
    """

    target: str
    sizes: dict[str, int]
    units: int
    weights: int
    recurrent_weights: int
    mult_adds: int
    bytes: int
    milliseconds: float | None = None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a model is made of.

    Attributes:
        name: String, the name of the model.
        structures: Tuple of `StructureSummary`.
        cuts: Tuple of `Cut`. The first is the model as it is.
        batch_size: Integer, samples in the calls that were measured.
        shapes: Dict from the name of each input to its shape in them.
        versions: Dict from the name of a package to its version.
    """

    name: str
    structures: tuple[StructureSummary, ...]
    cuts: tuple[Cut, ...]
    batch_size: int
    shapes: dict[str, tuple[int, ...]]
    versions: dict[str, str]


def inspect_model(
    model: keras.Model,
    shares: Sequence[float] = SHARES,
    *,
    measure: bool = True,
    data: Any = None,
    batch_size: int = 1,
    length: int | None = None,
    include: tuple[str, ...] = ("recurrent",),
) -> Inspection:
    """Says what a model is made of, and what cuts of it would save.

    The model is left as it was. Cuts are by group norm, as by
    `prune(model, weights=share)`.

    Args:
        model: A built `keras.Model`.
        shares: Floats between 0 and 1, or integers, as `prune` takes them as
            `weights`: the cuts to look at.
        measure: Boolean, whether to build each of the smaller models, and
            measure beside each other how long a call takes.
        data: What they are run on, as in `benchmark`. Defaults to random
            numbers.
        batch_size: Integer, samples in a call.
        length: Integer, the size of what the model leaves open, such as the
            number of time steps. Defaults to 32.
        include: Tuple of kinds of layers, as in `find_structures`.

    Returns:
        An `Inspection`. A cut that cannot be made has its reason as
        `problem`.

    Raises:
        ValueError: if the model is not built, or has no layer of the kinds
            that are asked for.

    Examples:
        >>> import keras
        >>> from keras_iss.inspection import inspect_model
        >>> model = keras.Sequential([
        ...     keras.Input((None, 3)), keras.layers.LSTM(8, name="lstm"),
        ...     keras.layers.Dense(1)])
        >>> found = inspect_model(model, measure=False)
        >>> [(cut.target, cut.sizes["lstm"]) for cut in found.cuts]
        [('as it is', 8), ('weights=0.5', 5), ('weights=0.25', 3)]
    """
    structures = find_structures(model, include)
    width = _bytes_per_weight(model)
    cuts = [_cut(structures, "as it is", None, width)]
    kept: list[dict | None] = [None]
    if any(x.alive < x.size for x in structures.free):
        cuts.append(_cut(structures, "shrunk", {}, width))
        kept.append({})
    for share in shares:
        target = f"weights={share:g}"
        try:
            stays = target_of(weights=share).select(structures)
        except ValueError as error:
            cuts.append(
                dataclasses.replace(cuts[0], target=target, problem=str(error))
            )
            kept.append(None)
        else:
            cuts.append(_cut(structures, target, stays, width))
            kept.append(stays)
    shapes: dict[str, tuple[int, ...]] = {}
    if measure:
        made = [i for i, cut in enumerate(cuts) if not cut.problem]
        models = [
            model
            if kept[i] is None
            else shrink(model, kept[i], include, verify=False)
            for i in made
        ]
        times, shapes = _times(models, data, batch_size, length)
        for i, spent in zip(made, times):
            cuts[i] = dataclasses.replace(cuts[i], milliseconds=spent)
    return Inspection(
        model.name,
        _summaries(structures),
        tuple(cuts),
        batch_size,
        shapes,
        versions(),
    )


def versions() -> dict[str, str]:
    """The versions of what a model runs on here, by package."""
    found = {"keras-iss": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["keras"] = keras.__version__
    return {
        **found,
        "backend": keras.backend.backend(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _summaries(structures: Structures) -> tuple[StructureSummary, ...]:
    norms, now = norms_of(structures), structures.counts().weights
    return tuple(
        StructureSummary(
            structure.name,
            structure.makers or (structure.name,),
            structure.size,
            structure.alive,
            _saved_by_one(structures, structure, now),
            structure.consumers,
            structure.pinned,
            *(
                float(value)
                for value in np.percentile(norms[structure.name], (0, 50, 100))
            ),
        )
        for structure in structures
    )


def _saved_by_one(structures, structure, now):
    if structure.pinned or structure.size < 2:
        return None
    every = {x.name: np.arange(x.size) for x in structures.free}
    every[structure.name] = every[structure.name][1:]
    return now - structures.counts(keep=every).weights


def _cut(structures, target, kept, width):
    counts = (
        structures.counts()
        if kept is None
        else structures.counts(shrunk=True, keep=kept)
    )
    stays = {} if kept is None else structures.staying(kept)
    return Cut(
        target,
        {
            x.name: int(stays[x.name].sum()) if x.name in stays else x.size
            for x in structures
        },
        counts.units,
        counts.weights,
        counts.recurrent_weights,
        counts.mult_adds,
        round(counts.weights * width),
    )


def _bytes_per_weight(model):
    sizes = [
        (math.prod(x.shape), keras.backend.standardize_dtype(x.dtype))
        for x in model.weights
    ]
    total = sum(size for size, _ in sizes)
    held = sum(
        size * (2 if "16" in dtype else 8 if "64" in dtype else 4)
        for size, dtype in sizes
    )
    return held / total if total else 4.0


def _times(models, data, batch_size, length):
    """The median milliseconds of each model, and the shapes of its inputs."""
    runners = [KerasRunner(model) for model in models]
    if data is None:
        arrays = random_arrays(runners[:1], batch_size, length or LENGTH)
    else:
        arrays = one_batch(arrays_of(data, runners[0]), batch_size)
    found = measured(runners, [arrays] * len(runners), runs=30, seconds=5.0)
    shapes = {x.name: a.shape for x, a in zip(runners[0].inputs, arrays)}
    return [latency.median for latency in found], shapes
