"""What is on a page, as plain values: JSON holds all of it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a model is, without the components that are removed.

    Attributes:
        units: Integer, the components of all the structures.
        weights: Integer, all the weights.
        recurrent_weights: Integer, those of the recurrent layers.
        mult_adds: Integer, the multiply-adds by weights for one time step.
        removed_units: Integer, the components that are zero, and that
            `shrink` would cut out.
    """

    units: int
    weights: int
    recurrent_weights: int
    mult_adds: int
    removed_units: int


@dataclasses.dataclass(frozen=True)
class StructureRow:
    """A structure.

    Attributes:
        name: String.
        layers: Tuple of strings, the layers whose units these are.
        size_before: Integer, its size in the model before; `None` without.
        size: Integer.
        alive: Integer, its components that are not removed.
        consumers: Tuple of strings.
        pinned: String, why it keeps its size, or `None`.
    """

    name: str
    layers: tuple[str, ...]
    size_before: int | None
    size: int
    alive: int
    consumers: tuple[str, ...]
    pinned: str | None


@dataclasses.dataclass(frozen=True)
class Norms:
    """The group norms of a structure, from the largest to the smallest.

    Attributes:
        structure: String, its name.
        before: Tuple of floats, or `None` where no model of before is known.
        after: Tuple of floats.
    """

    structure: str
    before: tuple[float, ...] | None
    after: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class WeightMap:
    """Where a kernel has weights, and how large.

    Attributes:
        name: String, the path of the variable.
        shape: Tuple of integers.
        nonzero: Float, the part of its weights that are not zero.
        values: Tuple of tuples of floats, rows of the kernel; of a large one,
            the largest magnitude in each of a grid of blocks. `None` where
            all of it is zero.
        block: Tuple of two integers, the rows and columns of a block.
    """

    name: str
    shape: tuple[int, ...]
    nonzero: float
    values: tuple[tuple[float | None, ...], ...]
    block: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Removal:
    """Components that went in an epoch.

    Attributes:
        epoch: Integer, from 1 on.
        structure: String, its name.
        removed: Integer, how many went; negative if some came back.
        left: Integer, how many are left.
    """

    epoch: int
    structure: str
    removed: int
    left: int


@dataclasses.dataclass(frozen=True)
class Training:
    """A training, epoch by epoch.

    Attributes:
        epochs: Tuple of integers, from 1 on.
        logs: Dict from the name of a metric to a tuple of floats, `None` in
            epochs that do not have it.
        alive: Dict from the name of a structure to a tuple of integers, the
            components that were left at the end of each epoch.
        removals: Tuple of `Removal`, in the order in which they were.
    """

    epochs: tuple[int, ...]
    logs: dict[str, tuple[float | None, ...]]
    alive: dict[str, tuple[int | None, ...]]
    removals: tuple[Removal, ...]


@dataclasses.dataclass(frozen=True)
class FileRow:
    """A model or a file, measured.

    Attributes:
        name: String.
        format: `"keras"`, `"saved_model"`, `"tflite"` or `"onnx"`.
        size: Integer, bytes on disk, or `None` for a model in memory.
        weights: Integer, or `None` where that is not told.
        milliseconds: Float, the median time of a call, or `None`.
        batch_size: Integer, samples in that call, or `None`.
        metrics: Dict from the name of a metric to a float.
        difference: Float, how far its outputs are from those of the model at
            most; `None` for the model itself, and for the one before.
    """

    name: str
    format: str
    size: int | None
    weights: int | None
    milliseconds: float | None
    batch_size: int | None
    metrics: dict[str, float]
    difference: float | None


@dataclasses.dataclass(frozen=True)
class ReportData:
    """All that is on a page.

    Attributes:
        title: String.
        model: String, the name of the model.
        before: `Size` of the model before, or `None`.
        after: `Size` of the model.
        structures: Tuple of `StructureRow`.
        training: `Training`, or `None`.
        norms: Tuple of `Norms`.
        weight_maps: Tuple of `WeightMap`.
        files: Tuple of `FileRow`: the model before, the model, the files.
        samples: Integer, how many samples metrics and differences are of, or
            `None`.
        random: Boolean, whether these are random numbers.
        versions: Dict from the name of a package to its version.
        command: String, what made the page.
    """

    title: str
    model: str
    before: Size | None
    after: Size
    structures: tuple[StructureRow, ...]
    training: Training | None
    norms: tuple[Norms, ...]
    weight_maps: tuple[WeightMap, ...]
    files: tuple[FileRow, ...]
    samples: int | None
    random: bool
    versions: dict[str, str]
    command: str
