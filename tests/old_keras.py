"""Tests of what the installed Keras lacks, or does wrong, are skipped.

What it does wrong is shown with Keras alone, each time.
"""

import dataclasses
import functools
import pathlib
import types
from collections.abc import Callable

import keras
import numpy as np
import pytest

NEWEST = (3, 15)
"""The Keras version that the tests are written for."""

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_iss"


def numbers(version):
    """The first two numbers of a version, as a tuple."""
    return tuple(int(part) for part in version.split(".")[:2])


def lacking(error):
    """What an older Keras lacks that a test asked for, or `None`.

    Args:
        error: An `AttributeError`. What the package itself asks for does not
            count: it has to work without it.
    """
    if numbers(keras.__version__) >= NEWEST:
        return None
    module = error.obj
    is_public = isinstance(
        module, types.ModuleType
    ) and module.__name__.startswith("keras")
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    asked_in = pathlib.Path(trace.tb_frame.f_code.co_filename)
    if is_public and PACKAGE not in asked_in.parents:
        name = module.__name__.replace("keras.api", "keras")
        return f"{name.replace('._tf_keras', '')}.{error.name}"
    return None


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that older versions of Keras lack or do wrong by themselves.

    Attributes:
        reason: String, what is wrong.
        shown: Function that uses Keras alone, and raises where it is wrong.
        tests: Ends of the names of the tests that cannot pass then.
    """

    reason: str
    shown: Callable
    tests: tuple

    @functools.cached_property
    def holds(self):
        """Whether the installed Keras has the fault."""
        try:
            self.shown()
        except Exception:
            return True
        return False


def muon():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Muon(), "mse")
    model.fit(np.ones((1, 3)), np.ones((1, 3)), verbose=0)


def attention_with_a_mask():
    x, mask = np.ones((2, 5, 3), "float32"), np.ones((2, 5), "bool")
    keras.layers.Attention()([x, x], mask=[mask, mask])


def model_with_an_unused_input():
    x, y = keras.Input((3,)), keras.Input((3,))
    keras.Model([x, y], keras.layers.Dense(1)(x))


def concatenated_masks():
    x = keras.Input((None, 3))
    masked = keras.layers.Masking()(x)
    y = keras.layers.Concatenate()([masked, masked])
    keras.Model(x, keras.layers.GRU(2)(y))(np.ones((1, 2, 3), "float32"))


def slice_of_a_shape():
    sliced = keras.ops.slice(keras.Input((3,)), (0, 0), (1, 2))
    assert sliced._keras_history.operation.shape == (1, 2)


def quantization_to_four_bits():
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    layer.quantize("int4")


FAULTS = [
    Fault(
        "it knows no quantization to four bits",
        quantization_to_four_bits,
        ("::test_what_keras_has_quantized_is_refused[int4]",),
    ),
    Fault(
        "it knows neither GPTQ nor AWQ",
        lambda: keras.dtype_policies.get("gptq/4/128_from_float32"),
        (
            "::test_so_is_a_layer_with_the_policy_of_such_a_quantization[gptq]",
            "::test_so_is_a_layer_with_the_policy_of_such_a_quantization[awq]",
        ),
    ),
    Fault(
        "a `Concatenate` over any number of time steps fails with masks",
        concatenated_masks,
        ("[through_a_mask_and_a_concatenation]",),
    ),
    Fault(
        "`keras.ops.slice` does not keep the shape, which cannot change then",
        slice_of_a_shape,
        ("[ops_slice]",),
    ),
    Fault(
        "models take no input that nothing reads",
        model_with_an_unused_input,
        ("::test_an_inner_model_may_give_back_what_it_got",),
    ),
    Fault(
        "`keras.layers.BatchNormalization` knows no `renorm`",
        lambda: keras.layers.BatchNormalization(renorm=True),
        ("[read_by_batch_normalization_renorm]",),
    ),
    Fault(
        "`keras.layers.Attention` fails with a mask of the values",
        attention_with_a_mask,
        ("[attention_query_and_value_apart]",),
    ),
    Fault(
        "`keras.ops.logsumexp` takes no symbolic tensor with one axis",
        lambda: keras.ops.logsumexp(keras.Input((3,)), axis=-1),
        ("[logsumexp]", "[ops_logsumexp_over_time]"),
    ),
    Fault("`keras.optimizers.Muon` does not train", muon, ("[muon]",)),
]


def skip_what_keras_does_wrong(items):
    """Marks the tests that fail by the doing of Keras."""
    if numbers(keras.__version__) >= NEWEST:
        return
    for item in items:
        for fault in FAULTS:
            # Not `nodeid`, to which xdist adds the name of a group.
            if f"::{item.name}".endswith(fault.tests) and fault.holds:
                reason = f"Keras {keras.__version__}: {fault.reason}"
                item.add_marker(pytest.mark.skip(reason=reason))
