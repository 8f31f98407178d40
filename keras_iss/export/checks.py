"""What cannot be exported, and is refused before anything is done."""

import inspect

import keras
import numpy as np

from keras_iss._keras.graphs import functional_of
from keras_iss._keras.layers import inner_layers, own_variables
from keras_iss.export.model import Input, inputs_of
from keras_iss.export.signature import inputs_from


def check(model, signature=None):
    """Raises an error that says why the model cannot be exported.

    Args:
        model: What is to be exported.
        signature: What `signature.normalized` gives, or `None`.

    Raises:
        TypeError: if it is no `keras.Model`.
        ValueError: if it is not built, reads strings, or a weight is not
            finite.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"An export takes a keras.Model, not {type(model).__name__}."
        )
    if signature is not None and functional_of(model) is not None:
        raise ValueError(
            f"`{model.name}` has `keras.Input`s, which say shapes and dtypes: "
            "leave `input_signature` out."
        )
    if not model.built or (
        functional_of(model) is None
        and signature is None
        and not inputs_of(model)[1]
    ):
        raise ValueError(
            f"`{model.name}` has not been built: call the model on data, or "
            "give it an Input, before exporting it."
        )
    if signature is None:
        _check_arguments(model)
        inputs = inputs_of(model)[1]
    else:
        inputs = [
            Input(x, x, x, *y) for x, *y in inputs_from(model, signature)[1]
        ]
    for x in inputs:
        if x.dtype == "string":
            raise ValueError(
                f"Input `{x.name}` of `{model.name}` is of dtype string. "
                "Look the strings up before the model (with "
                "`keras.layers.StringLookup` in the data pipeline) and "
                "export a model that reads the integers."
            )
    for layer in inner_layers(model):
        for variable in own_variables(layer):
            value = keras.ops.convert_to_numpy(variable)
            if value.dtype.kind != "f" and value.dtype.kind != "V":
                continue
            if not np.isfinite(value.astype("float32")).all():
                raise ValueError(
                    f"Weight `{variable.path}` of layer `{layer.name}` holds "
                    "NaN or infinity: the model's outputs would be no "
                    "numbers. Restore weights from before training diverged."
                )


def check_not_quantized(model, file="a TFLite file"):
    """Raises an error if Keras has quantized the model already.

    Args:
        model: `keras.Model`.
        file: What is to be written, for the message.
    """
    for layer in inner_layers(model):
        policy = layer.dtype_policy
        mode = getattr(policy, "quantization_mode", None)
        if mode is not None:
            raise ValueError(
                f"`{layer.name}` of `{model.name}` is quantized by Keras "
                f"({mode}), and {file} has its own quantization. Export "
                f"the model of before `quantize({mode!r})`, with quantize=, "
                "where that is to be."
            )


def _check_arguments(model):
    """Of a subclassed model, Keras records the first argument alone."""
    if functional_of(model) is not None:
        return
    parameters = list(inspect.signature(model.call).parameters.values())
    others = [
        x.name
        for x in parameters[1:]
        if x.default is x.empty
        and x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)
        and x.name not in ("training", "mask")
    ]
    if others:
        raise ValueError(
            f"`{model.name}` is called with more than one argument "
            f"({parameters[0].name}, {', '.join(others)}), and Keras keeps "
            "the shape of the first alone. Give the others by "
            "`input_signature`, let it take one dict of inputs, or build it "
            "with keras.Model(inputs, outputs)."
        )


def check_precision(model, runtime="LiteRT"):
    """Raises an error if a layer computes in what a runtime has not.

    Args:
        model: `keras.Model`.
        runtime: What is to run the file, for the message.
    """
    for layer in inner_layers(model):
        if layer.compute_dtype == "float64":
            raise ValueError(
                f"`{layer.name}` computes in float64, which {runtime} does "
                "not. Build the model in float32, and give it the same weights."
            )


def check_batch_size(function, batch_size):
    """Raises an error if an input has another fixed batch size."""
    for x in function.inputs:
        fixed = x.shape[0] if x.shape else None
        if fixed is not None and fixed != batch_size:
            raise ValueError(
                f"Input `{x.name}` of `{function.model.name}` has a fixed "
                f"batch size of {fixed}: export it with batch_size={fixed}."
            )
