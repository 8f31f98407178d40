"""What an export hands back."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        path: `pathlib.Path` of the file or folder.
        size: Size in bytes.
        operators: Dict from the name of an operation to how often it occurs
            (TFLite only).
        errors: Dict from the name of an output to its largest difference
            from the Keras model: absolute, over the size of the outputs
            where that is above 1; for int8, root mean square over that of
            the output. Empty if it was not verified.
        weights_in_float: Names of the tensors of weights that stay in float32
            with `quantize="int8"` or `"int8_full"`, since LiteRT's operations
            read them so.
        weights_in_int8: Names of those that are in int8.
        notes: Texts of what the export warned of.
    """

    path: pathlib.Path
    size: int
    operators: dict[str, int]
    errors: dict[str, float]
    weights_in_float: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    weights_in_int8: tuple[str, ...] = ()
