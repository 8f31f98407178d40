"""What an export hands back."""

import dataclasses
import pathlib
import typing


@dataclasses.dataclass(frozen=True)
class Weight:
    """Weights as they stand in a TFLite or an ONNX file.

    Attributes:
        name: Name of the tensor.
        operation: Name of the operation that reads it.
        shape: Tuple of its sizes.
        dtype: Name of the type of its numbers, such as `"int8"`.
        size: Size in bytes.
        reason: Why it is in float where integers were asked for; else `""`.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or an output of a file for microcontrollers.

    Attributes:
        name: Its name in the model; of a state, that of its layer and
            `_state_` and a number.
        index: Its number among the inputs, or among the outputs.
        shape: Tuple of its sizes.
        dtype: Name of the type of its numbers.
        scale: Of a number q in the file, the real one is
            `scale * (q - zero_point)`; 0.0 where q is meant as it is.
        zero_point: Integer that stands for 0.
        state: Whether it is a state, which goes out of one call and into the
            next.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    state: bool = False


@dataclasses.dataclass(frozen=True)
class Micro:
    """What a microcontroller needs to know of a file.

    Attributes:
        inputs: Tuple of `Tensor`, in the order of the file.
        outputs: Tuple of `Tensor`, in the order of the file.
        step: Whether a call takes a step, of one time step or of as many as
            `streaming` says; else it takes a whole sequence.
        keeps_state: Whether the file keeps states from call to call, so that
            `MicroInterpreter::Reset()` goes before each sequence.
        arena: Bytes of memory that TensorFlow Lite Micro takes, on this
            machine of 64 bits; `None` where `tflite-micro` is not installed.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    step: bool
    keeps_state: bool
    arena: int | None = None


@dataclasses.dataclass(frozen=True)
class Export:
    """A file that was written; `print` shows a table of its weights.

    Attributes:
        path: `pathlib.Path` of the file or folder.
        size: Size in bytes; on a microcontroller, what it takes in flash.
        operators: Dict from the name of an operation to how often it occurs
            (TFLite and ONNX).
        errors: Dict from the name of an output to its largest difference
            from the Keras model: absolute, over the size of the outputs
            where that is above 1; for int8, root mean square over that of
            the output. Empty if it was not verified.
        notes: Texts of what the export warned of.
        weights: Tuple of a `Weight` for each tensor of weights (TFLite and
            ONNX).
        micro: The `Micro` of a file for microcontrollers, else `None`.
        evaluation: The `Evaluation` on `evaluation_data`, with the Keras model
            as its reference; `None` without those.
    """

    path: pathlib.Path
    size: int
    operators: dict[str, int]
    errors: dict[str, float]
    notes: tuple[str, ...] = ()
    weights: tuple[Weight, ...] = ()
    micro: Micro | None = None
    evaluation: typing.Any = None

    @property
    def weights_in_float(self) -> tuple[str, ...]:
        """Names of the weights in float where int8 was asked for."""
        return tuple(x.name for x in self.weights if x.reason)

    @property
    def weights_in_int8(self) -> tuple[str, ...]:
        """Names of the weights that are in int8."""
        return tuple(x.name for x in self.weights if x.dtype == "int8")

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.size:,} bytes"]
        if self.micro is not None and self.micro.arena is not None:
            lines[0] += f", {self.micro.arena:,} bytes of memory"
        if self.errors:
            found = [f"{name} {x:.2g}" for name, x in self.errors.items()]
            lines.append(f"errors: {', '.join(found)}")
        if self.evaluation is not None:
            found = str(self.evaluation).splitlines()[1:]
            lines.append(f"on real data: {', '.join(found)}")
        if self.operators:
            found = [
                f"{count} {name}" for name, count in self.operators.items()
            ]
            lines.append(f"operations: {', '.join(found)}")
        rows = [
            (
                x.name,
                " x ".join(map(str, x.shape)),
                x.dtype,
                f"{x.size:,}",
                x.operation + (f": {x.reason}" if x.reason else ""),
            )
            for x in self.weights
        ]
        if rows:
            rows.insert(0, ("weights", "shape", "type", "bytes", "read by"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        for name, shape, dtype, size, operation in rows:
            lines.append(
                f"{name:{widths[0]}}  {shape:{widths[1]}}  {dtype:{widths[2]}}"
                f"  {size:>{widths[3]}}  {operation}"
            )
        return "\n".join(lines)
