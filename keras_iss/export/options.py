"""What a user asks of an export, checked once."""

import collections.abc
import dataclasses
import typing

import numpy as np

from keras_iss._checks import check_amount
from keras_iss.export.signature import normalized

Quantize = typing.Literal["float16", "int8", "int8_full", "int16x8"]
RecurrentOp = typing.Literal["loop", "fused"]
Target = typing.Literal["litert", "micro"]
# Samples: an array, or several in a list or a dict by the names of inputs.
Data = (
    typing.Any
    | collections.abc.Sequence[typing.Any]
    | collections.abc.Mapping[str, typing.Any]
)

QUANTIZE = (None, *typing.get_args(Quantize))
FULL_INTEGERS = ("int8_full", "int16x8")
RECURRENT_OPS = typing.get_args(RecurrentOp)
TARGETS = typing.get_args(Target)


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of `export_tflite` and, as far as it has them, of others.

    The attributes are as the arguments of `keras_iss.export_tflite`. What
    depends on the model is not checked here.

    Raises:
        TypeError: if `verify` or `step_only` is no boolean, `streaming`
            neither that nor an integer, or `tolerance` no dict of numbers.
        ValueError: if an option has a value that it cannot have, or one that
            does not go with the others.
    """

    batch_size: int | None = None
    quantize: Quantize | None = None
    representative_data: Data = None
    recurrent_op: RecurrentOp = "loop"
    streaming: bool | int = False
    step_only: bool = False
    verify: bool = True
    data: Data = None
    target: Target = "litert"
    input_signature: typing.Any = None
    evaluation_data: typing.Any = None
    tolerance: collections.abc.Mapping[str, float] | None = None

    def __post_init__(self):
        for name in ("step_only", "verify"):
            _check_flag(name, getattr(self, name))
        _check_streaming(self.streaming, self.step_only)
        _check_choice("quantize", self.quantize, QUANTIZE)
        _check_choice("recurrent_op", self.recurrent_op, RECURRENT_OPS)
        _check_choice("target", self.target, TARGETS)
        if self.micro:
            _check_micro(self.quantize, self.batch_size)
            object.__setattr__(self, "quantize", self.quantize or "int8_full")
        _check_batch_size(self.batch_size)
        if self.input_signature is not None:
            given = normalized(self.input_signature)
            object.__setattr__(self, "input_signature", given)
        if self.batch_size is not None:
            # One of NumPy's is none that JSON can hold.
            object.__setattr__(self, "batch_size", int(self.batch_size))
        _check_representative_data(self.quantize, self.representative_data)
        if self.wide and self.fused and not self.micro:
            _refuse_wide_lstm()
        _check_tolerance(self.evaluation_data, self.tolerance)

    @property
    def micro(self):
        """Whether the file is for TensorFlow Lite Micro."""
        return self.target == "micro"

    @property
    def frames(self):
        """How many time steps a call of `step` takes; 0 without it."""
        return int(self.streaming)

    @property
    def full_integers(self):
        """Whether the file holds nothing but integers."""
        return self.quantize in FULL_INTEGERS

    @property
    def wide(self):
        """Whether activations are in 16 bits, and weights in 8."""
        return self.quantize == "int16x8"

    @property
    def integers(self):
        """Whether weights are to be in integers."""
        return self.quantize == "int8" or self.full_integers

    @property
    def fused(self):
        """Whether LSTM layers are one operation each."""
        return self.recurrent_op == "fused"


def _check_flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"`{name}` must be True or False. Received: {value!r} (of type "
            f"{type(value).__name__})."
        )


def _check_streaming(value, alone):
    if not isinstance(value, (bool, np.bool_, int, np.integer)):
        raise TypeError(
            "`streaming` must be True or False, or how many time steps a call "
            f"takes. Received: {value!r} (of type {type(value).__name__})."
        )
    if value < 0 or (value == 0 and not isinstance(value, (bool, np.bool_))):
        raise ValueError(
            f"streaming={value!r} is no number of time steps: give 1 or more."
        )
    if alone and not value:
        raise ValueError(
            "step_only=True leaves out the signature `serve`, and without "
            "streaming the file has no other: give streaming=True, too."
        )


def _check_choice(name, value, choices):
    # Not by `in` alone: an array would compare itself with each.
    if not isinstance(value, (str, type(None))) or value not in choices:
        raise ValueError(
            f"{name}={value!r} is unknown; choose one of {choices}."
        )


def _check_batch_size(value):
    if value is not None and (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, (int, np.integer))
        or value < 1
    ):
        raise ValueError(
            f"batch_size={value!r} is neither a positive number of samples "
            "nor None, for a batch of any size."
        )


def _check_micro(quantize, batch_size):
    if quantize not in (None, *FULL_INTEGERS):
        raise ValueError(
            f'target="micro" writes files in full integers, not in '
            f'quantize="{quantize}": leave quantize out, or give "int16x8".'
        )
    if batch_size is None:
        raise ValueError(
            'target="micro" needs a fixed batch_size, such as 1: a '
            "microcontroller plans its memory once."
        )


def _check_representative_data(quantize, data):
    if quantize in FULL_INTEGERS and data is None:
        raise ValueError(
            f'quantize="{quantize}" (and so target="micro") needs '
            "representative_data: some hundred samples of the model's "
            "inputs, from which it learns their range."
        )
    if quantize not in FULL_INTEGERS and data is not None:
        raise ValueError(
            f"representative_data is of no use to quantize={quantize!r}; it "
            'is for quantize="int8_full" and "int16x8". To verify the file on '
            "samples, give them as data=."
        )


def _refuse_wide_lstm():
    raise ValueError(
        'quantize="int16x8" does not go with recurrent_op="fused": LiteRT\'s '
        "fused LSTM reads activations in 8 bits only. TensorFlow Lite Micro's "
        'reads 16: target="micro" writes a file for that. For LiteRT, leave '
        "recurrent_op out."
    )


def _check_tolerance(data, tolerance):
    if data is None and tolerance is None:
        return
    if data is None or tolerance is None:
        given, missing = "evaluation_data", "tolerance"
        if data is None:
            given, missing = missing, given
        raise ValueError(
            f"`{given}` needs `{missing}`: evaluation_data=(x, y) and "
            'tolerance={"accuracy": 0.01} refuse a file that loses more.'
        )
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            "`evaluation_data` must be a tuple `(x, y)` of inputs and targets."
            f" Received: {type(data).__name__}."
        )
    if not isinstance(tolerance, collections.abc.Mapping) or not all(
        isinstance(name, str) for name in tolerance
    ):
        raise TypeError(
            "`tolerance` must be a dict from names of metrics to numbers, such "
            f'as {{"accuracy": 0.01}}. Received: {tolerance!r}.'
        )
    if not tolerance:
        raise ValueError("`tolerance` names no metric.")
    for name, value in tolerance.items():
        check_amount(
            value, f"tolerance[{name!r}]", "how much worse the file may be"
        )
